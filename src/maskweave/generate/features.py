"""Features of samples, computed by a trained encoder from any of its inputs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskweave.data.error_budget import ErrorBudget
from maskweave.data.reading import Read, read_chunks
from maskweave.data.source import Source
from maskweave.errors import MaskweaveError
from maskweave.generate.engine import Precision
from maskweave.generate.request import Sample, read
from maskweave.generate.tiles import OVERLAP, Output, predict_tiles
from maskweave.masking.inputs import read_inputs
from maskweave.models.encoder import Encoded, Encoder
from maskweave.progress import progress
from maskweave.ranks import WHOLE, JobPart
from maskweave.tokenizers.base import Tokenizer


class EncodedBatch(NamedTuple):
    """A batch of samples of a dataset, with their features."""

    numbers: list[int]
    samples: list[dict[str, Any]]
    encoded: Encoded


class FeatureExtractor:
    """Encodes values. Made by `bundle.encoder(["rgb"])`, or directly from any `Encoder`.

    Args:
        encoder: is switched to evaluation mode.
        tokenizers: by modality, for the inputs that need one.
        precision: of matrix products.
    """

    def __init__(self, encoder: Encoder, tokenizers: Mapping[str, Tokenizer], precision: Precision = "float32"):
        self.encoder, self.tokenizers, self.precision = encoder.eval(), tokenizers, precision

    def __repr__(self) -> str:
        return f"FeatureExtractor(inputs: {', '.join(self.encoder.names)}; width: {self.encoder.width})"

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> Encoded:
        """Encodes one batch: `.tokens` (B, N, D), `.pooled` (B, D), `.feature_map(name)` (B, D, h, w).

        Args:
            samples: values in any form that `Bundle.generate` accepts. Each sample must have all inputs; other values are ignored.

        Raises:
            MaskweaveError: an input is missing or does not fit its entry.
        """
        catalog, names = self.encoder.catalog, self.encoder.names
        wanted = {*names, *(catalog[name].reads for name in names)}
        given = [{name: value for name, value in sample.items() if name in wanted} for sample in samples]
        return self.encode([read(sample, catalog, self.tokenizers) for sample in given])

    def encode(self, values: Sequence[Mapping[str, Any]]) -> Encoded:
        """Encodes one batch of values that are already checked and of their entries' sizes.

        Raises:
            BadSample: a value does not fit its entry.
        """
        device = next(self.encoder.parameters()).device
        inputs = read_inputs(values, self.encoder.catalog, self.tokenizers, self.encoder.names)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.encoder(inputs.to(device))

    def tiles(
        self,
        scene: Sample,
        name: str = "",
        *,
        overlap: float = OVERLAP,
        batch_size: int = 8,
        folder: str | os.PathLike[str] | None = None,
    ) -> np.ndarray:
        """Returns the feature map (rows, columns, D) of a scene of any size, from overlapping tiles, float32, NaN where nothing is known; `Bundle.tiles` explains the arguments.

        Args:
            name: input whose feature map is returned; by default the first one with a 2-D grid.

        Raises:
            MaskweaveError: the input has no 2-D grid, or as `predict_tiles`.
        """
        catalog = self.encoder.catalog
        with_grid = [n for n in self.encoder.names if len(catalog[n].grid) == 2]
        name = name or next(iter(with_grid), "")
        if name not in with_grid:
            raise MaskweaveError(
                f"no feature map of {name!r}: inputs with a 2-D grid: {', '.join(with_grid) or 'none'}"
            )
        rows, columns = catalog[name].grid
        output = Output((rows, columns), self.encoder.width, lambda mean: mean)

        def predict(samples: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[dict[str, np.ndarray]]:
            found = self(samples).feature_map(name).float().movedim(1, -1).cpu().numpy()
            return [{name: array} for array in found]

        made = predict_tiles(
            catalog,
            scene,
            {name: output},
            predict,
            overlap=overlap,
            batch_size=batch_size,
            folder=Path(folder) if folder else None,
            title="features",
        )
        return made[name]

    @torch.inference_mode()
    def stream(
        self,
        source: Source,
        *,
        batch_size: int = 64,
        workers: int = 0,
        limit: float = 0.01,
        title: str = "features",
        part: JobPart = WHOLE,
        skips: ErrorBudget | None = None,
    ) -> Iterator[EncodedBatch]:
        """Encodes a complete dataset, batch by batch, with a progress bar. A batch has the usable ones of `batch_size` consecutive samples.

        Args:
            workers: processes that read samples.
            limit: highest allowed share of unusable samples.
            part: the part of the batches to encode.
            skips: where unusable samples are counted, for a caller that adds those of other parts and checks them at the end; `limit` is not used then.

        Raises:
            MaskweaveError: too many samples are unusable.
        """
        counted = ErrorBudget(limit) if skips is None else skips
        mine = sum(min(batch_size, len(source) - start) for start in part.mine(range(0, len(source), batch_size)))
        with progress(title, mine) as bar:
            for chunk in read_chunks(source, batch_size, workers, part):
                good = [(i, item.sample) for i, item in chunk if counted.take(self._complete(item))]
                counted.check()
                if good:
                    values = [sample for _, sample in good]
                    yield EncodedBatch([i for i, _ in good], values, self.encode(values))
                bar.advance(len(chunk))
            if skips is None and counted.summary():
                bar.say(counted.summary())
        if skips is None:
            counted.check(finished=True)

    def _complete(self, item: Read) -> Read:
        """Returns a sample that lacks an input as one that is unusable."""
        missing = [
            name for name in (self.encoder.catalog[n].reads for n in self.encoder.names) if name not in item.sample
        ]
        if missing and not item.error:
            reasons = [item.dropped.get(name, f"has no {name}") for name in missing]
            item = Read(item.key, {}, "; ".join(reasons), lacks=not any(name in item.dropped for name in missing))
        return item._replace(dropped={})

    def pooled(self, source: Source, **options: Any) -> tuple[list[int], Tensor]:
        """Returns the indices of the usable samples, and their pooled features (S, D) on the CPU; options as for `stream`."""
        numbers: list[int] = []
        parts = []
        for batch in self.stream(source, **options):
            numbers += batch.numbers
            parts.append(batch.encoded.pooled.float().cpu())
        return numbers, torch.cat(parts) if parts else torch.zeros(0, self.encoder.width)
