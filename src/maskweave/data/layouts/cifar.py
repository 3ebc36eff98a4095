"""CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), the binary versions: pictures of 32 x 32 points with a class.

    ROOT/cifar-10-batches-bin/data_batch_1.bin … data_batch_5.bin, test_batch.bin, batches.meta.txt
    ROOT/cifar-100-binary/train.bin, test.bin, fine_label_names.txt

Each record is the class, one byte (for CIFAR-100, the coarse class and the fine one), and the points of red, green and blue, by rows. ROOT may also be the inner folder.
The version for Python is pickled, and is not read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskweave.data.labeled import LabeledPictures
from maskweave.data.layouts.base import PICTURE
from maskweave.data.parts import read_part
from maskweave.data.transforms import fit
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality

SIDE = 32
POINTS = 3 * SIDE * SIDE


class Cifar10(LabeledPictures):
    """Pictures with their classes, of the split `train` or `test`."""

    fields: ClassVar[tuple[str, ...]] = (PICTURE,)
    inner: ClassVar[str] = "cifar-10-batches-bin"
    classes_file: ClassVar[str] = "batches.meta.txt"
    label_bytes: ClassVar[int] = 1
    """Bytes before a picture; the last one is the class."""
    files: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
        "test": ("test_batch.bin",),
    }

    def __init__(self, root: Path, split: str, entries: Sequence[Modality]):
        if len(entries) != 1:
            raise MaskweaveError(f"{root}: CIFAR has pictures only; expected one modality, found {len(entries)}")
        if split not in self.files:
            raise MaskweaveError(f"{root}: no split {split!r}; expected one of {', '.join(self.files)}")
        folder = root / self.inner if (root / self.inner).is_dir() else root
        names = self.files[split]
        if missing := [name for name in (*names, self.classes_file) if not (folder / name).is_file()]:
            raise MaskweaveError(
                f"{folder}: lacks {', '.join(missing)}; unpack the binary version of CIFAR, the folder {self.inner} (the version for Python is pickled and is not read)"
            )
        self.modality, self.catalog = entries[0], Catalog(entries)
        self.classes = tuple((folder / self.classes_file).read_text(encoding="utf-8").split())
        self._records = [self._read(folder / name) for name in names]
        self._names = [Path(name).stem for name in names]
        self._starts = np.cumsum([0, *map(len, self._records)])
        self.labels = [int(n) for records in self._records for n in records[:, self.label_bytes - 1]]

    def _read(self, path: Path) -> np.ndarray:
        """Returns the records of a file, uint8 (N, bytes)."""
        length, size = self.label_bytes + POINTS, path.stat().st_size
        if not size or size % length:
            raise MaskweaveError(f"{path}: has {size:,} bytes; expected records of {length:,} bytes; download it again")
        records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, length)
        if (most := int(records[:, self.label_bytes - 1].max())) >= len(self.classes):
            raise MaskweaveError(
                f"{path}: has the class {most}, but {self.classes_file} lists {len(self.classes)}; download it again"
            )
        return records

    @property
    def names(self) -> tuple[str, ...]:
        return (self.modality.name,)

    def __len__(self) -> int:
        return len(self.labels)

    def _place(self, i: int) -> tuple[int, int]:
        """Returns the file of sample i, and its record there."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return number, i - int(self._starts[number])

    def key(self, i: int) -> str:
        number, record = self._place(i)
        return f"{self._names[number]}/{record:05d}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        name = self.modality.name
        return fit({name: read_part(name, partial(self._picture, i))}, self.catalog)

    def _picture(self, i: int) -> Any:
        number, record = self._place(i)
        points = self._records[number][record, self.label_bytes :].reshape(3, SIDE, SIDE)
        picture, where = np.ascontiguousarray(np.moveaxis(points, 0, -1)), self.key(i)
        return self.modality.value.check(picture, where)


class Cifar100(Cifar10):
    """The same with 100 fine classes."""

    inner = "cifar-100-binary"
    classes_file = "fine_label_names.txt"
    label_bytes = 2
    files: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train.bin",), "test": ("test.bin",)}
