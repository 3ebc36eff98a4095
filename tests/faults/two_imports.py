"""Imports of two sources into one folder."""

from pathlib import Path

import numpy as np
from forks import Fork

from maskweave.data.shards import Shards
from maskweave.modality.catalogs import load_catalog


class Imports:
    """Two sources whose samples all differ, and one folder for both.

    Args:
        folder: for all of them.
    """

    def __init__(self, folder: Path):
        self.folder, self.out, self.forks = folder, folder / "out", 0
        for shift in (0, 4):
            (folder / str(shift) / "depth").mkdir(parents=True)
            for i in range(40):
                level = np.float32(1 + (i + shift) % 9)
                np.save(folder / str(shift) / "depth" / f"{i:03d}.npy", np.full((16, 16), level))

    def start(self, shift: int) -> Fork:
        self.forks += 1
        words = ["data", "import", self.folder / str(shift), self.out, "--catalog=scenes", "--shard-size=4"]
        return Fork(words, self.folder / f"said-{self.forks}")

    def has_all_of(self, shift: int) -> bool:
        """Whether the folder holds all samples of a source, and nothing else."""
        shards = Shards(self.out, load_catalog("scenes"))
        levels = [int(shards[i]["depth"][0, 0]) for i in range(len(shards))]
        left = [*self.out.rglob("*.partial"), *self.out.glob(".lock*")]
        return levels == [1 + (i + shift) % 9 for i in range(40)] and len([*self.out.rglob("*.tar")]) == 10 and not left
