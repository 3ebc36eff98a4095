"""Labeled pictures, such as class folders ROOT/CLASS/.../NAME.EXT."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskweave.data.pictures import Files, files_under
from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality


class LabeledPictures:
    """A source of pictures that each have a class; `labels[i]` is the index of that of sample i in `classes`."""

    classes: tuple[str, ...]
    labels: Sequence[int]


class ClassFolders(Files, LabeledPictures):
    """One folder per class. Sample i is `{picture modality: value}`, and `labels[i]` is the index of its class in `classes`.

    Files are in a fixed random order, so that any part of them contains all classes. Hidden files and links are ignored.

    Raises:
        MaskweaveError: no such folder, fewer than two classes, or a class without files.
    """

    def __init__(self, root: str | os.PathLike[str], modality: Modality):
        root = Path(root)
        if not root.is_dir():
            raise MaskweaveError(f"{root}: no such folder; expected {root}/CLASS/NAME.{modality.value.endings[0]}")
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        self.classes = tuple(p.name for p in folders)
        if len(folders) < 2:
            raise MaskweaveError(
                f"{root}: contains {len(folders)} folders ({', '.join(self.classes) or 'none'}); expected one folder per class, for at least two classes"
            )
        files, labels = [], []
        for label, folder in enumerate(folders):
            found = files_under(folder, modality.value.endings)
            if not found:
                raise MaskweaveError(
                    f"{folder}: contains no {modality.name} files; expected NAME.{' or NAME.'.join(modality.value.endings)}"
                )
            files += found
            labels += [label] * len(found)
        order = np.random.default_rng(0).permutation(len(files))
        super().__init__(root, [files[i] for i in order], modality)
        self.labels = np.asarray(labels)[order].tolist()
