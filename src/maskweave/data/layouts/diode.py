"""DIODE, https://arxiv.org/abs/1908.00463: photographs with distance and surface normals from a laser scanner, indoors and outdoors.

    ROOT/val/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png
                                            …_depth.npy        float32 (768, 1024, 1), meters
                                            …_depth_mask.npy   (768, 1024), 0 where the scanner saw nothing
                                            …_normal.npy       float32 (768, 1024, 3), 0 where unknown (archive of the normals)

The axes of the normals are taken as they are in the files, as x right, y up, z towards the viewer; the paper does not state them.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from maskweave.data.layouts.base import DIRECTION, DISTANCE, PICTURE, DataLayout, array, photograph, unit_vectors
from maskweave.errors import MaskweaveError
from maskweave.values.base import ValueType


class Diode(DataLayout):
    fields: ClassVar[tuple[str, ...]] = (PICTURE, DISTANCE, DIRECTION)

    def __init__(self, root: Path, split: str):
        self.root = root / split
        self.files = sorted(self.root.glob("*/scene_*/scan_*/*.png"))
        if not self.files:
            raise MaskweaveError(
                f"{self.root}: no files indoors/scene_*/scan_*/NAME.png or outdoor/…; expected DIODE's split {split!r} as its archives unpack"
            )

    def __len__(self) -> int:
        return len(self.files)

    def key(self, i: int) -> str:
        return self.files[i].relative_to(self.root).with_suffix("").as_posix()

    def read(self, i: int, field: str, value: ValueType) -> Any:
        path = self.files[i]
        if field == PICTURE:
            return photograph(path)
        beside = lambda ending: path.with_name(f"{path.stem}_{ending}.npy")  # noqa: E731
        if field == DIRECTION:
            if not beside("normal").is_file():
                return None
            return unit_vectors(array(beside("normal"), "(H, W, 3)", 3))
        meters = array(beside("depth"), "(H, W)", 2).astype(np.float32)
        known = (array(beside("depth_mask"), "(H, W)", 2) > 0) & (meters > 0)
        return np.where(known, meters, np.float32(np.nan))
