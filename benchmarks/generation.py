"""maskweave's generation against a plain implementation with the same model. python benchmarks/generation.py [--size B] [--threads 2] [--onednn]

Modalities like the published ones: pictures of 224×224 pixels in 196 patches, a depth map of 196 tokens with 8192 codes, captions of 128
tokens from a vocabulary of 30000. The model is untrained, which does not change the cost, and its captions never end. The plain
implementation has no optimizations: each pass runs separately in float32. For a caption, the encoder runs once, and all tokens so far are
decoded again for each new token. For a grid, each step predicts all unknown tokens and keeps those of the step. Both implementations
generate the same tokens. The plain one uses torch's own linear layers, or with `--onednn` ours, which are faster on AMD processors
(`benchmarks/linear.py`).

The two are measured alternately in one process. Prints medians of seconds (CPU time if there is one thread) and of the ratio plain / ours.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from maskweave.generate.decode import run
from maskweave.generate.engine import Engine
from maskweave.generate.guidance import passes
from maskweave.generate.schedule import Schedule, make_schedule
from maskweave.generate.token_state import TokenState, pack_inputs
from maskweave.masking.batch import Slots, TokenSlice, pack
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.modality.vocabulary import Vocabulary
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.values.image import Image
from maskweave.values.map import Map
from maskweave.values.text import Text

CAPTION = 128
NO_WORDS = 204
"""Number of special tokens and sentinels, which would end a caption."""


def catalog() -> Catalog:
    picture = Image((224, 224), 3)
    codes = TokenizerSpec(quantizer=Quantizer("vq", codes=8192))
    return Catalog(
        [
            Modality("rgb", 1, "patches", picture, grid=(14, 14)),
            Modality("depth", 2, "grid", Map((224, 224), range=(0, 10)), grid=(14, 14), tokenizer=codes),
            Modality("caption", 3, "sequence", Text(), max_tokens=CAPTION, vocabulary="text"),
        ],
        [Vocabulary("text", 30_000)],
    )


def given(samples: int) -> dict[str, TokenState]:
    rows = np.random.default_rng(0).normal(size=(samples, 196, 768)).astype(np.float32)
    return {"rgb": TokenState(np.ones((samples, 196), bool), rows=rows)}


def ours(engine: Engine, schedule: Schedule, samples: int) -> np.ndarray:
    made: dict[str, TokenState] = {}
    generators = [np.random.default_rng(i) for i in range(samples)]
    for _ in run(engine, schedule, given(samples), made, generators):
        pass
    ids = made[schedule.targets[0]].ids
    assert ids is not None
    return ids


@torch.inference_mode()
def plain_caption(model: FourM, entries: Catalog, samples: int) -> np.ndarray:
    """Greedy decoding; recomputes all tokens so far for each new one."""
    entry, first = entries["caption"], entries.vocabularies["text"].first_sentinel + 1
    frame = TokenState(np.ones((samples, 1), bool), np.full((samples, 1), first))
    inputs, rows = pack_inputs(entries, {**given(samples), "caption": frame}, [frozenset(entries)], np.arange(samples))
    encoded = model.encode(inputs, rows)
    read = np.full((samples, 1), first)
    for n in range(1, CAPTION + 1):
        part = TokenSlice(np.repeat(np.arange(samples), n), read.flatten(), np.tile(np.arange(n), samples))
        slots, _ = pack({"caption": part}, {"caption": entry.id}, samples)
        y = model.decode(slots, encoded, inputs)
        last = slots.index["caption"].view(samples, n)[:, -1]
        ((_, _, logits),) = model.logits(y, {"caption": last}).values()
        read = np.concatenate([read, logits.argmax(dim=1).numpy()[:, None]], axis=1)
    return read[:, 1:]


@torch.inference_mode()
def plain_grid(model: FourM, entries: Catalog, schedule: Schedule, samples: int) -> np.ndarray:
    """Each pass predicts all unknown tokens; a random subset is kept."""
    fields = {**given(samples), "depth": TokenState.empty(samples, 196)}
    known, rng = fields["depth"], np.random.default_rng(0)
    assert known.ids is not None
    for step in schedule.steps:
        unknown = ~known.mask
        logits: torch.Tensor | float = 0.0
        for one in passes(step, fields):
            inputs, rows = pack_inputs(entries, fields, [one.sees], np.arange(samples))
            slots = _ask(entries, unknown)
            y = model.decode(slots, model.encode(inputs, rows), inputs)
            ((_, _, found),) = model.logits(y, slots.index).values()
            logits = logits + one.weight * found
        assert isinstance(logits, torch.Tensor)
        known.ids[unknown] = logits.argmax(dim=1).numpy()
        keys = np.where(unknown, rng.random(unknown.shape), 2.0)
        known.mask |= unknown & (keys.argsort(axis=1).argsort(axis=1) < step.tokens)
    return known.ids


def _ask(entries: Catalog, mask: np.ndarray) -> Slots:
    sample, position = np.nonzero(mask)
    part = TokenSlice(sample, np.zeros(len(sample), np.int64), position)
    return pack({"depth": part}, {"depth": entries["depth"].id}, len(mask))[0]


def compare(name: str, plain: Callable[[], object], ways: dict[str, Callable[[], object]], pairs: int) -> None:
    # CPU time if there is one thread, because other jobs may use the machine.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    took: dict[str, list[float]] = {key: [] for key in ("plain", *ways)}
    for _ in range(pairs):
        for key, work in {"plain": plain, **ways}.items():
            start = clock()
            work()
            took[key].append(clock() - start)
    seconds = {key: statistics.median(times) for key, times in took.items()}
    for way in ways:
        ratio = statistics.median(a / b for a, b in zip(took["plain"], took[way], strict=True))
        print(
            f"{name:34} {way:8} {seconds['plain']:7.2f} s plain {seconds[way]:7.2f} s ours {ratio:6.1f} ×", flush=True
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="Ti")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--pictures", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--onednn", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    entries = catalog()
    model = FourM(entries, FourMConfig(size=asked.size)).eval()
    with torch.no_grad():
        model.heads["text"].weight[:NO_WORDS] = 0
    plain_model = copy.deepcopy(model)
    for layer in plain_model.modules():
        if isinstance(layer, nn.Linear) and not asked.onednn:
            layer.__class__ = nn.Linear
    engines = {"float32": Engine(model, entries), "bf16": Engine(model, entries, "bf16")}
    caption = make_schedule(entries, ["rgb"], ["caption"], decoding={"caption": Decoding(temperature=0)})
    roar = Decoding("roar", steps=25, temperature=0, guidance=2.0)
    maskgit = Decoding("maskgit", steps=8, temperature=0)
    print(f"size {asked.size}, {asked.threads} threads, medians of {asked.pairs}")
    for samples in asked.pictures:
        same = plain_caption(plain_model, entries, samples) == ours(engines["float32"], caption, samples)
        print(f"captions of {samples}: {same.mean():.1%} of the tokens are the same as with the plain implementation")
        work = partial(plain_caption, plain_model, entries, samples)
        ways = {key: partial(ours, engine, caption, samples) for key, engine in engines.items()}
        compare(f"caption, {CAPTION} tokens, {samples}", work, ways, asked.pairs)
        for name, how in (("guided ROAR, 25 steps", roar), ("MaskGIT, 8 steps", maskgit)):
            steps = make_schedule(entries, ["rgb"], ["depth"], decoding={"depth": how})
            work = partial(plain_grid, plain_model, entries, steps, samples)
            ways = {key: partial(ours, engine, steps, samples) for key, engine in engines.items()}
            compare(f"{name}, {samples}", work, ways, asked.pairs)


if __name__ == "__main__":
    main()
