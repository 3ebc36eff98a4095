"""NYU Depth v2 (https://doi.org/10.1007/978-3-642-33715-4_54), its 1,449 labeled pictures, indoors, with depth.

ROOT/nyu_depth_v2_labeled.mat     MATLAB 7.3, which is HDF5: images (1449, 3, 640, 480) uint8, depths (1449, 640, 480) float32, meters, without holes
ROOT/splits.mat                   trainNdxs, testNdxs: numbers from 1 of the 795 and 654 pictures of a split
ROOT/labels40.mat                 labels40 (480, 640, 1449): the 40 classes of Gupta et al., 2013, from 1 on, 0 unlabeled; only for the field `classes`
"""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskweave.data.layouts.base import CLASSES, DISTANCE, PICTURE, DataLayout, numbered_classes
from maskweave.errors import BadSample, MaskweaveError
from maskweave.values.base import ValueType
from maskweave.values.formats.base import needs

LABELED, SPLITS, LABELS = "nyu_depth_v2_labeled.mat", "splits.mat", "labels40.mat"
STORED = {PICTURE: "images", DISTANCE: "depths"}


class NYUv2(DataLayout):
    fields: ClassVar[tuple[str, ...]] = (PICTURE, DISTANCE, CLASSES)

    def __init__(self, root: Path, split: str):
        self.root = root
        if missing := [name for name in (LABELED, SPLITS) if not (root / name).is_file()]:
            raise MaskweaveError(
                f"{root}: has no {' and no '.join(missing)}; expected the files of NYU Depth v2's labeled data set"
            )
        self.numbers: list[int] = (_matrix(root / SPLITS, f"{split}Ndxs").ravel().astype(np.int64) - 1).tolist()

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, i: int) -> str:
        return f"{self.numbers[i] + 1:04d}"

    def read(self, i: int, field: str, value: ValueType) -> Any:
        if field == CLASSES:
            return numbered_classes(self.labels[..., self.numbers[i]], value)
        path = self.root / LABELED
        with needs("h5py", "hdf", str(path)):
            import h5py
        try:
            with h5py.File(path, "r") as file:  # opened for each sample, so that processes may share the source
                return np.asarray(file[STORED[field]][self.numbers[i]]).T
        except (OSError, KeyError, ValueError, IndexError) as error:
            raise BadSample(f"{path}: picture {self.numbers[i] + 1} cannot be read ({error})") from error

    @cached_property
    def labels(self) -> np.ndarray:
        return _matrix(self.root / LABELS, "labels40")


def _matrix(path: Path, name: str) -> np.ndarray:
    """Returns a matrix of a MATLAB 5 file."""
    with needs("scipy", "eval", str(path)):
        from scipy.io import loadmat
    try:
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except (OSError, KeyError, ValueError, NotImplementedError) as error:
        raise MaskweaveError(f"{path}: has no matrix {name!r} ({error!r}); expected a MATLAB 5 file") from error
