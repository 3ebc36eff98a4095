"""The decoding schemes: what they settle when, that samples are independent of each other, that seeds reproduce."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_catalogue import random_columns, tiny

from maskweave.data.masking import Column
from maskweave.errors import MaskweaveError
from maskweave.generate import decode
from maskweave.generate.decode import generate_tokens, tokens_per_step
from maskweave.generate.known import Known, check_request
from maskweave.modality import EOS, Decoding
from maskweave.model.fourm import FourM, FourMConfig

CATALOGUE = tiny()
FIRST = CATALOGUE.vocabularies["text"].first_sentinel
SENTINELS = range(FIRST, FIRST + CATALOGUE.vocabularies["text"].sentinels)
CHAIN = ["caption", "codes", "facts", "spectrum"]


@pytest.fixture(scope="module")
def model() -> FourM:
    """Untrained; the heads are enlarged so that its guesses differ, and it often ends a text."""
    torch.manual_seed(0)
    made = FourM(CATALOGUE, FourMConfig(width=32, heads=2, encoder_depth=2, decoder_depth=2)).eval()
    with torch.no_grad():
        for head in made.heads.values():
            head.weight *= 3
        made.heads["text"].weight[[EOS, *SENTINELS]] *= 2.0
    return made


@pytest.fixture(scope="module")
def columns() -> dict[str, Column]:
    """Of the inputs only: photographs and features, either of which may be missing."""
    return random_columns(CATALOGUE.subset(["photo", "feature"]), 9, np.random.default_rng(4), missing=0.4)


def known_of(columns: dict[str, Column], samples) -> Known:
    known = Known(CATALOGUE, len(samples))
    for name, column in columns.items():
        known.add(name, Column(*(None if a is None else a[samples] for a in column)))
    return known


def run(model, columns, samples, seeds, targets=CHAIN, **changes) -> list[dict[str, list[int]]]:
    """Tokens of each sample's targets, generated one after another."""
    known = known_of(columns, samples)
    generators = [np.random.default_rng(seed) for seed in seeds]
    with torch.no_grad():
        for target in targets:
            decoding = dataclasses.replace(Decoding(steps=4, temperature=1.0), **changes)
            generate_tokens(model, known, target, decoding, generators)
    return [{name: known.ids[name][b][known.mask[name][b]].tolist() for name in targets} for b in range(len(samples))]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 900), st.integers(1, 1000), st.sampled_from(["maskgit", "roar"]))
def test_every_token_has_its_step(total, steps, scheme) -> None:
    counts = tokens_per_step(total, Decoding(scheme=scheme, steps=steps))
    assert sum(counts) == total
    assert min(counts) > 0
    assert len(counts) <= min(steps, total)
    if scheme == "roar":
        assert max(counts) - min(counts) <= 2
        assert len(counts) == min(steps, total)
    elif len(counts) > 2:
        assert counts[0] <= counts[-1], "MaskGIT begins slowly"


def test_the_cosine_schedule() -> None:
    assert tokens_per_step(100, Decoding(scheme="maskgit", steps=4)) == [8, 22, 32, 38]
    assert tokens_per_step(100, Decoding(scheme="roar", steps=3)) == [33, 34, 33]
    assert tokens_per_step(7, Decoding(scheme="maskgit", steps=1)) == [7]


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
@pytest.mark.parametrize("steps", [1, 3, 16, 50])
def test_every_token_of_a_grid_is_known_at_the_end(model, columns, scheme, steps, monkeypatch) -> None:
    passes = []
    original = decode._predict
    monkeypatch.setattr(decode, "_predict", lambda *a: passes.append(a[3].sum(1).tolist()) or original(*a))
    found = run(model, columns, range(9), range(9), ["codes"], scheme=scheme, steps=steps)
    assert all(len(sample["codes"]) == 16 and set(sample["codes"]) <= set(range(20)) for sample in found)
    counts = tokens_per_step(16, Decoding(scheme=scheme, steps=steps))
    left = [16 - sum(counts[:i]) for i in range(len(counts))]
    assert passes == [[n] * 9 for n in (left if scheme == "maskgit" else counts)]


def test_maskgit_keeps_the_surest_and_never_changes_them(model, columns) -> None:
    known = known_of(columns, range(9))
    decoding = Decoding(scheme="maskgit", steps=4, temperature=0)
    states = []
    original = decode._predict

    def watched(model, known, target, asked, *rest):
        chosen = original(model, known, target, asked, *rest)
        states.append((known.ids[target].copy(), known.mask[target].copy(), asked.copy(), chosen.confidence.numpy()))
        return chosen

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(decode, "_predict", watched)
        generate_tokens(model, known, "codes", decoding, [np.random.default_rng(0)] * 9)
    states.append((known.ids["codes"], known.mask["codes"], None, None))
    for (ids, mask, asked, confidence), (later_ids, later_mask, *_) in pairwise(states):
        assert (later_ids[mask] == ids[mask]).all()
        full = np.full(asked.shape, np.nan)
        full[asked] = confidence
        new, still = later_mask & ~mask, ~later_mask
        for b in range(9):
            assert not still[b].any() or full[b][new[b]].min() >= full[b][still[b]].max()


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_a_sample_is_the_same_alone_and_among_others(model, columns, scheme) -> None:
    together = run(model, columns, range(9), range(100, 109), scheme=scheme)
    assert len({len(sample["caption"]) for sample in together}) > 2, "texts are to end at different lengths"
    for b in range(9):
        assert run(model, columns, [b], [100 + b], scheme=scheme)[0] == together[b]
    order = [7, 2, 2, 5]
    again = run(model, columns, order, [100 + b for b in order], scheme=scheme)
    assert again == [together[b] for b in order]


def test_seeds_reproduce_and_differ(model, columns) -> None:
    first = run(model, columns, [0] * 4, [5, 5, 6, 7])
    assert first[0] == first[1]
    assert all(first[0][name] != first[2][name] for name in CHAIN)
    cold = run(model, columns, [0] * 2, [1, 2], ["caption", "facts"], temperature=0)
    assert cold[0] == cold[1], "without temperature there is nothing to draw"


def test_sequences_end(model, columns) -> None:
    """At [EOS], at a sentinel, which is not part of it, or at the longest length."""
    endings = set()
    for sample in run(model, columns, [0] * 60, range(60), ["caption"]):
        ids = sample["caption"]
        assert len(ids) <= 20
        assert not set(ids) & set(SENTINELS)
        assert EOS not in ids[:-1]
        endings.add("longest" if len(ids) == 20 else "end" if ids and ids[-1] == EOS else "sentinel")
    assert {"end", "sentinel"} <= endings


def test_the_longest_sequence_is_all_of_it(model, columns) -> None:
    mute = FourM(CATALOGUE, model.config).eval()
    mute.load_state_dict(model.state_dict())
    mute.heads["text"] = torch.nn.Linear(32, 320)
    with torch.no_grad():
        mute.heads["text"].weight.zero_()
        mute.heads["text"].bias.zero_()
        mute.heads["text"].bias[200] = 9.0
    found = run(mute, columns, [0, 1], [0, 1], ["caption", "facts"], temperature=0)
    assert found == [{"caption": [200] * 20, "facts": [200] * 9}] * 2


def test_a_sequence_is_read_as_in_training(model, columns, monkeypatch) -> None:
    """The logits of each step are those of one pass over the whole text, asked for by its sentinel."""
    known = known_of(columns, [0, 1])
    with torch.no_grad():
        generate_tokens(model, known, "caption", Decoding(temperature=0), [np.random.default_rng(0)] * 2)
        asking = known_of(columns, [0, 1])
        asking.start("caption")
        asking.ids["caption"][:, 0], asking.mask["caption"][:, 0] = FIRST + 1, True
        inputs, rows = asking.inputs()
        encoded = model.encode(inputs, rows)
        for b in range(2):
            said = known.ids["caption"][b][known.mask["caption"][b]]
            read = np.full((2, len(said)), FIRST + 1)
            read[:, 1:] = said[:-1]
            slots = asking.continue_sequence("caption", read)
            ((_, _, logits),) = model.logits(model.decode(slots, encoded, inputs), slots.index).values()
            assert logits.view(2, len(said), -1)[b].argmax(1).tolist() == said.tolist()


def test_what_is_generated_joins_the_inputs(model, columns) -> None:
    known = known_of(columns, [0, 1])
    for target in ("spectrum", "caption"):
        with torch.no_grad():
            generate_tokens(model, known, target, Decoding(steps=2), [np.random.default_rng(b) for b in range(2)])
    slots, rows = known.inputs()
    assert {"spectrum", "caption"} <= set(slots.index)
    assert len(slots.index["spectrum"]) == 10
    assert set(rows) <= {"photo", "feature"}
    copied = known.copy()
    copied.forget("spectrum")
    assert "spectrum" in known.ids and "spectrum" not in copied.mask


def test_requests() -> None:
    assert check_request(CATALOGUE, ["feature"], ["caption", "photo"]) == ["caption", "codes"]
    for inputs, targets, message in (
        (["sound"], ["caption"], "unknown modality 'sound'; known: photo, codes"),
        ([], ["sound"], "unknown modality 'sound'"),
        (
            [],
            ["feature"],
            "'feature' is of kind vectors, which is input only; the model can predict codes, spectrum, caption, facts",
        ),
        ([], [], "no targets: name at least one modality"),
        ([], ["caption", "caption"], "a target is named twice in caption, caption"),
        ([], ["photo", "codes"], "a target is named twice in photo, codes"),
    ):
        with pytest.raises(MaskweaveError) as caught:
            check_request(CATALOGUE, inputs, targets)
        assert message in str(caught.value)
