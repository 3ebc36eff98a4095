"""An untrained model over the tiny catalog, whose guesses differ and whose texts often end, and what its samples know."""

import numpy as np
import torch
from tiny_catalog import random_columns, tiny

from maskweave.generate.decode import run
from maskweave.generate.engine import Engine
from maskweave.generate.schedule import Schedule
from maskweave.generate.token_state import TokenState
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.values.codec import EOS

CATALOG = tiny()
FIRST = CATALOG.vocabularies["text"].first_sentinel
SENTINELS = range(FIRST, FIRST + CATALOG.vocabularies["text"].sentinels)
SAMPLES = 9


def make_model(ending: float = 2.0, **variants: object) -> FourM:
    """`ending`: how loudly the tokens that end a text speak."""
    torch.manual_seed(0)
    made = FourM(CATALOG, FourMConfig(width=32, heads=2, encoder_depth=2, decoder_depth=2, **variants)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for head in made.heads.values():
            head.weight *= 3
        made.heads["text"].weight[[EOS, *SENTINELS]] *= ending
    return made


def given(samples: object) -> dict[str, TokenState]:
    """Photographs and features, either of which may be missing."""
    names = ["photo", "feature"]
    columns = random_columns(CATALOG.subset(names), SAMPLES, np.random.default_rng(4), missing=0.4)
    fields = {}
    for name in names:
        rows, present, length = columns[name].rows, columns[name].present, columns[name].length
        assert rows is not None
        L = rows.shape[1]
        mask = np.arange(L) < (np.full(SAMPLES, L) if length is None else length)[:, None]
        scaled = rows.astype(np.float32) / (255 if rows.dtype == np.uint8 else 1)
        fields[name] = TokenState((mask & present[:, None])[samples], rows=scaled[samples])
    return fields


def generate(
    engine: Engine, schedule: Schedule, samples: list[int], seeds: list[int], started=None
) -> dict[str, TokenState]:
    made = dict(started or {})
    generators = [np.random.default_rng(seed) for seed in seeds]
    for _ in run(engine, schedule, given(samples), made, generators):
        pass
    return made


def tokens(made: dict[str, TokenState]) -> list[dict[str, list[int]]]:
    """Of each sample, by target."""
    count = len(next(iter(made.values())).mask)
    return [{name: f.ids[b][f.mask[b]].tolist() for name, f in made.items()} for b in range(count)]  # type: ignore[index]
