"""Where a recipe's samples come from: one data set, or several by weight."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

from maskweave import limits
from maskweave.data.mixing import apportion
from maskweave.data.named import is_endless
from maskweave.data.order import BLOCK
from maskweave.errors import MaskweaveError, shown


@dataclass(frozen=True)
class DataSet:
    """One of several data sets; all but the weight as in `data`."""

    renamed: ClassVar[dict[str, str]] = {"beside": "sidecar"}

    source: str = ""
    """Path or name, as `data.source`."""
    weight: float = 1.0
    """How often its samples are drawn, relative to the others."""
    sidecar: str = ""
    """Folder of tar shards with further modalities of its samples."""
    samples: int = 0
    """Samples to train on; 0: all."""


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from."""

    renamed: ClassVar[dict[str, str]] = {"beside": "sidecar"}

    source: str = ""
    """The folder of an imported data set or of pictures; or the name of a source made by code, `scenes` (the default) or `python: package.module:function`, which is then run."""
    mix: dict[str, DataSet] = field(default_factory=dict)
    """In place of a source: several data sets, by names of your choice, and how often samples of each are drawn."""
    sidecar: str = ""
    """Folder of tar shards with further modalities of these samples, as `maskweave data features` writes them."""
    samples: int = 0
    """Samples to train on; 0: all of a data set. Sources without an end, such as scenes, need a number."""
    validation: int = 256
    """Held-out samples: others of a source without an end, or the last of a data set; of a mix, from each data set in proportion to its weight."""
    seed: int = 0
    """Of sources without an end, such as scenes; the held-out samples have the next seed."""
    workers: int = 0
    """Processes that read samples."""
    shard_size: int = 1000
    """Samples of a token shard."""
    limit: float = 0.01
    """Largest share of unusable samples, 0 to 1; more stop the run."""

    def __post_init__(self) -> None:
        if not self.source and not self.mix:
            object.__setattr__(self, "source", "scenes")

    @property
    def weights(self) -> dict[str, float]:
        """Of each data set of the mix; a source alone has no name."""
        return {name: one.weight for name, one in self.mix.items()} or {"": 1.0}

    @property
    def headings(self) -> dict[str, str]:
        """What to put before what is told of each data set: `cc12m (60%): `, with its share of the mix; nothing before a source alone."""
        total = sum(self.weights.values())
        return {
            name: f"{name} ({100 * weight / total:.3g}%): " if name else "" for name, weight in self.weights.items()
        }

    def sets(self) -> dict[str, "DataSettings"]:
        """Settings of each data set alone, with its part of the held-out samples, which is one at least."""
        if not self.mix:
            return {"": self}
        held_out = apportion(list(self.weights.values()), self.validation).tolist()
        return {
            name: replace(self, source=s.source, mix={}, sidecar=s.sidecar, samples=s.samples, validation=max(1, count))
            for (name, s), count in zip(self.mix.items(), held_out, strict=True)
        }

    def check(self) -> None:
        """What single keys cannot show.

        Raises:
            MaskweaveError: a number cannot be, or keys contradict each other; names them.
        """
        for key, least in (("validation", 1), ("seed", 0), ("workers", 0), ("shard_size", 1)):
            if getattr(self, key) < least:
                raise MaskweaveError(f"data.{key} must be {least} or more, found {getattr(self, key)}")
        limits.check_most("data.seed", self.seed, limits.SEED, fixed=True)
        limits.check_most("data.workers", self.workers, limits.PROCESSES)
        limits.check_most("data.validation", self.validation, limits.SAMPLES)
        limits.check_most("data.shard_size", self.shard_size, limits.SHARD_SIZE)
        limits.check_most("data.samples", self.samples, limits.SAMPLES)
        for name, one in self.mix.items():
            limits.check_most(f"data.mix.{name}.samples", one.samples, limits.SAMPLES)
        if not 0 <= self.limit <= 1:
            raise MaskweaveError(f"data.limit must be a share from 0 to 1, found {self.limit}")
        for key in ("source", "sidecar", "samples"):
            if self.mix and getattr(self, key):
                raise MaskweaveError(
                    f"data.{key} is for one data set, and data.mix names several: remove one of the two, or set data.mix.NAME.{key}"
                )
        for name, one in self.mix.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise MaskweaveError(
                    f"data.mix: the name {shown(name)} is to be a folder's: letters, digits, '_' and '-' alone"
                )
            if not one.source:
                raise MaskweaveError(
                    f"data.mix.{name}.source is missing: the folder of a data set, or a named source such as 'scenes'"
                )
            if not 0 < one.weight < math.inf:
                raise MaskweaveError(f"data.mix.{name}.weight must be a number above 0, found {one.weight}")
        shares = apportion(list(self.weights.values()), BLOCK)
        for (name, weight), share in zip(self.weights.items(), shares, strict=True):
            if not share:
                raise MaskweaveError(
                    f"data.mix.{name}.weight is {weight}, less than 1 in {BLOCK} samples; raise it, or remove the data set"
                )
        for name, alone in self.sets().items():
            if alone.samples < (least := int(is_endless(alone.source))):
                key = f"data.mix.{name}.samples" if name else "data.samples"
                why = f" for {alone.source}, which has no end" if least else ""
                raise MaskweaveError(f"{key} must be {least} or more{why}, found {alone.samples}")
