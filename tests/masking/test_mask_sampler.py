"""Every rule of masking, over random catalogs, columns, budgets and mixtures."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_catalog import PICTURE, SMALL, TEXT, random_columns, same, tiny

from maskweave.data.columns import Column
from maskweave.errors import MaskweaveError
from maskweave.masking.batch import Slots, TokenBatch
from maskweave.masking.budgets import dirichlet_budgets, fill, first_budgets, log_gamma, target_numbers
from maskweave.masking.fourm import MaskingConfig, MaskSampler, Mixture
from maskweave.masking.random import SampleRandom
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.text import Text
from maskweave.values.vectors import Vectors

quick = settings(max_examples=250, derandomize=True)
FIRST = TEXT.first_sentinel


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """One to six modalities of any kind; sometimes fewer sentinels than spans would need."""
    kinds = draw(st.lists(st.sampled_from(["grid", "sequence", "patches", "vectors"]), min_size=1, max_size=6))
    kinds[0] = draw(st.sampled_from(["grid", "sequence"]))
    text = Vocabulary("text", 320, sentinels=draw(st.sampled_from([3, 4, 8, 100])), type="wordpiece")
    modalities = []
    for number, kind in enumerate(kinds):
        name, id = f"m{number}", 2 * number + 1
        if kind in ("grid", "patches"):
            side = draw(st.sampled_from([1, 2, 4]))
            tokenizer = SMALL if kind == "grid" else None
            modalities.append(Modality(name, id, kind, PICTURE, grid=(side, side), tokenizer=tokenizer))
        elif kind == "sequence":
            most = draw(st.integers(3, 30))
            chunk = draw(st.integers(1, min(4, most - 1)))
            modalities.append(Modality(name, id, kind, Text(), max_tokens=most, vocabulary="text", chunk=chunk))
        else:
            value = Vectors(channels=3)
            modalities.append(Modality(name, id, kind, value, max_tokens=draw(st.integers(2, 6))))
    return Catalog(modalities, [text])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Catalog, MaskingConfig, dict[str, Column], int]:
    catalog = draw(catalogs())
    targets = [m.name for m in catalog.values() if m.is_target]
    alpha = st.sampled_from([0.0, 0.01, 0.5, 10.0])
    mixtures = []
    for _ in range(draw(st.integers(1, 3))):
        inputs = {name: draw(alpha) for name in catalog}
        outputs = {name: draw(alpha) for name in targets}
        inputs[draw(st.sampled_from(list(catalog)))] = 0.5
        outputs[draw(st.sampled_from(targets))] = 0.5
        keep = draw(st.sampled_from(["uniform", "all", "all_or_nothing"]))
        mixtures.append(Mixture(inputs, outputs, weight=draw(st.sampled_from([0.5, 1.0, 3.0])), keep=keep))
    budget = st.sampled_from([1, 2, 3, 7, 16, 40, 200])
    allocation = draw(st.sampled_from(["dirichlet", "uniform"]))
    beta = draw(st.sampled_from([(0.1, 1.0), (1.0, 1.0), (5.0, 0.5)]))
    masking = MaskingConfig(
        draw(budget), draw(budget), mixtures, draw(st.sampled_from([0.0, 0.0, 0.5])), allocation, beta
    )
    seed = draw(st.integers(0, 2**20))
    missing = draw(st.sampled_from([0.0, 0.4, 0.8]))
    columns = random_columns(catalog, 8, np.random.default_rng(seed), missing)
    if len(columns) > 1 and draw(st.booleans()):
        del columns[draw(st.sampled_from(list(columns)))]
    return catalog, masking, columns or random_columns(catalog, 8, np.random.default_rng(seed)), seed


def slots_of(side: Slots, id: int, sample: int) -> np.ndarray:
    return np.flatnonzero(side.modality[sample].numpy() == id)


def spans_of(ids: list[int], sentinels: int) -> dict[int, list[int]]:
    """What stands after each sentinel."""
    spans: dict[int, list[int]] = {}
    for id in ids:
        if FIRST <= id < FIRST + sentinels:
            assert id not in spans, "a sentinel stands twice"
            current = spans[id] = []
        else:
            current.append(id)
    return spans


def check_sequence(m: Modality, vocabulary: Vocabulary, original: list[int], batch: TokenBatch, b: int) -> bool:
    """Everything about one sequence of one sample. Returns whether its input and target give all of it."""
    sentinels = range(FIRST, FIRST + vocabulary.sentinels)
    source, target = slots_of(batch.inputs, m.id, b), slots_of(batch.targets, m.id, b)
    shown = batch.inputs.ids[b, source].tolist()
    assert batch.inputs.position[b, source].tolist() == list(range(len(shown)))
    read = batch.targets.ids[b, target].tolist()
    labels = batch.labels[b, target].tolist()
    assert batch.targets.position[b, target].tolist() == list(range(len(read)))
    assert read[1:] == labels[:-1], "a label is the token that is read next"
    stream = [*read, *labels[-1:]]
    marks = [id for id in shown if id in sentinels]
    assert marks == list(range(FIRST + 1, FIRST + 1 + len(marks))), "spans count from 1, in order"
    if not shown:
        assert not read, "a target without the sentinel that asks for it"
        return False
    if stream:
        assert stream[0] in sentinels, "a target begins at a sentinel"
    spans = spans_of(stream, vocabulary.sentinels)
    closing = FIRST + 1 + len(marks)
    assert set(spans) <= {*marks, closing}
    whole = set(spans) == {*marks, closing} if marks else True
    assert spans.get(closing, []) == []
    if not marks:
        assert not read
    # Fill each sentinel's span in. What is untold is a gap that may hold anything, at least one token.
    filled: list[int | None] = []
    for id in shown:
        filled += spans.get(id, [None]) if id in sentinels else [id]
    if whole:
        assert filled == original
        # a chunk is kept or dropped as one
        kept = np.ones(len(original), bool)
        at = 0
        for id in shown:
            n = len(spans[id]) if id in sentinels else 1
            kept[at : at + n] = id not in sentinels
            at += n
        for start in range(0, len(original), m.chunk):
            assert len(set(kept[start : start + m.chunk])) == 1
        assert not any(x in marks and y in marks for x, y in pairwise(shown)), "neighboring spans are one"
    return whole


@quick
@given(cases())
def test_every_rule(case) -> None:
    catalog, masking, columns, seed = case
    sampler = MaskSampler(catalog, masking)
    batch = sampler(columns, np.random.default_rng(seed))
    assert same(batch, sampler(columns, np.random.default_rng(seed))), "masking is a pure function of the generator"
    B = len(batch)
    n_in, n_out = ((side.modality > 0).sum(1) for side in (batch.inputs, batch.targets))
    assert n_in.max() <= masking.input_tokens
    assert n_out.max() <= masking.target_tokens
    assert ((batch.labels >= 0) == (batch.targets.modality > 0)).all(), "labels stand where targets do"
    possible = {
        side: {n for x in masking.mixtures for n, a in getattr(x, side).items() if a} for side in ("inputs", "targets")
    }
    for name, m in catalog.items():
        column = columns.get(name)
        vocabulary = catalog.vocabularies.get(m.vocabulary)
        for b in range(B):
            source, target = slots_of(batch.inputs, m.id, b), slots_of(batch.targets, m.id, b)
            if column is None or not column.present[b]:
                assert not len(source) and not len(target), "a missing part was drawn"
                continue
            assert not len(target) or name in possible["targets"], "α = 0 was drawn"
            is_asked = m.kind == "sequence" and len(target) and batch.inputs.ids[b, source].tolist() == [FIRST + 1]
            assert not len(source) or name in possible["inputs"] or is_asked, "α = 0 was drawn"
            length = int(column.length[b]) if column.length is not None else m.tokens
            assert len(source) <= max(length, 1)
            assert len(target) <= length + (m.kind == "sequence")
            if vocabulary is not None:
                check_sequence(m, vocabulary, column.ids[b, :length].tolist(), batch, b)
                continue
            positions, asked = batch.inputs.position[b, source].numpy(), batch.targets.position[b, target].numpy()
            drawn = [*positions, *asked]
            assert len(set(drawn)) == len(drawn), "inputs and targets are disjoint"
            assert all(0 <= p < length for p in drawn)
            if column.ids is not None:
                assert (batch.inputs.ids[b, source].numpy() == column.ids[b, positions]).all()
                assert (batch.labels[b, target].numpy() == column.ids[b, asked]).all()
        if name in batch.rows:
            sample = batch.inputs.index[name].numpy() // batch.inputs.ids.shape[1]
            place = batch.inputs.position.flatten()[batch.inputs.index[name]].numpy()
            raw = column.rows[sample, place].astype(np.float32)
            expected = raw / 127.5 - 1 if m.value.type == "image" else raw
            np.testing.assert_allclose(batch.rows[name].numpy(), expected, atol=1e-5)
    if not masking.unconditional:
        for b in range(B):
            there = {name for name, c in columns.items() if c.present[b]}
            fits = any(
                there & {n for n, a in x.inputs.items() if a} and there & {n for n, a in x.targets.items() if a}
                for x in masking.mixtures
            )
            assert (n_in[b] > 0) == fits, "an empty input, or tokens of a sample that fits no mixture"


def only(name: str, **changes) -> Mixture:
    return Mixture(**{"inputs": {"default": 0.5}, "targets": {name: 1.0}, **changes})


@settings(max_examples=25, derandomize=True)
@given(st.integers(0, 2**20), st.sampled_from(["caption", "facts"]), st.sampled_from([4, 8, 100]))
def test_spans_and_sentinels_are_reversible(seed, name, sentinels) -> None:
    """With room for everything, input and target give every sequence back, exactly."""
    catalog = tiny(Vocabulary("text", 320, sentinels=sentinels, type="wordpiece"))
    m = catalog[name]
    sampler = MaskSampler(catalog.subset([name]), MaskingConfig(200, 200, [Mixture({name: 1.0}, {name: 1.0})]))
    columns = random_columns(catalog.subset([name]), 16, np.random.default_rng(seed))
    batch = sampler(columns, np.random.default_rng(seed))
    whole = 0
    for b in range(16):
        original = columns[name].ids[b, : columns[name].length[b]].tolist()
        whole += check_sequence(m, catalog.vocabularies["text"], original, batch, b)
    assert whole == 16


def test_a_sequence_that_is_wholly_target_teaches_the_sentinel_that_ends_it() -> None:
    catalog = tiny()
    sampler = MaskSampler(catalog, MaskingConfig(4, 64, [Mixture({"codes": 1.0}, {"caption": 1.0})]))
    columns = random_columns(catalog, 8, np.random.default_rng(0))
    batch = sampler(columns, np.random.default_rng(0))
    id = catalog["caption"].id
    for b in range(8):
        column = columns["caption"]
        labels = batch.labels[b, slots_of(batch.targets, id, b)].tolist()
        assert labels == [*column.ids[b, : column.length[b]].tolist(), FIRST + 2]
        assert batch.inputs.ids[b, slots_of(batch.inputs, id, b)].tolist() == [FIRST + 1]
        assert len(slots_of(batch.inputs, catalog["codes"].id, b)) == 3, "one token gives way to the sentinel"


@pytest.mark.parametrize("keep", ["uniform", "all", "all_or_nothing"])
def test_keep_says_how_much_of_a_sequence_is_input(keep) -> None:
    catalog = tiny()
    sampler = MaskSampler(catalog, MaskingConfig(300, 300, [Mixture({"caption": 1.0}, {"caption": 1.0}, keep=keep)]))
    columns = random_columns(catalog, 400, np.random.default_rng(0), fewest=20)
    batch = sampler(columns, np.random.default_rng(1))
    kept = ((batch.inputs.ids >= 140) | (batch.inputs.ids == 3)).sum(1).numpy() / 20
    match keep:
        case "all":
            assert (kept == 1).all()
            assert not batch.targets.index
        case "all_or_nothing":
            assert set(kept) == {0.0, 1.0}
            assert 0.4 < kept.mean() < 0.6
        case _:
            assert 0.45 < kept.mean() < 0.55
            assert 0.25 < kept.std() < 0.33  # a uniform share, 0.289


def test_a_small_budget_lowers_what_is_kept() -> None:
    catalog = tiny()
    sampler = MaskSampler(catalog, MaskingConfig(9, 9, [Mixture({"caption": 1.0}, {"caption": 1.0}, keep="all")]))
    batch = sampler(random_columns(catalog, 100, np.random.default_rng(0), fewest=20), np.random.default_rng(1))
    used = (batch.inputs.modality > 0).sum(1).float()
    assert used.max() <= 9
    assert used.mean() > 6.5, "the budget is nearly used up"


def test_a_truncated_target_may_start_at_any_span() -> None:
    catalog = tiny()
    sampler = MaskSampler(catalog, MaskingConfig(20, 3, [Mixture({"caption": 1.0}, {"caption": 1.0})]))
    batch = sampler(random_columns(catalog, 200, np.random.default_rng(0), fewest=20), np.random.default_rng(1))
    firsts = {batch.targets.ids[b, 0].item() for b in range(200) if batch.targets.modality[b, 0]}
    assert {FIRST + 1, FIRST + 2, FIRST + 3} <= firsts <= set(range(FIRST + 1, FIRST + 8))


def test_unconditional_samples_have_nothing_but_the_sentinel_that_asks() -> None:
    catalog = tiny()
    sampler = MaskSampler(
        catalog, MaskingConfig(16, 16, [Mixture({"default": 1.0}, {"default": 1.0})], unconditional=1.0)
    )
    batch = sampler(random_columns(catalog, 50, np.random.default_rng(0)), np.random.default_rng(1))
    assert set(batch.inputs.index) <= {"caption", "facts"}
    assert ((batch.inputs.ids == FIRST + 1) | (batch.inputs.modality == 0)).all()
    assert ((batch.targets.modality > 0).sum(1) > 0).all()
    half = MaskSampler(catalog, MaskingConfig(16, 16, [Mixture({"photo": 1.0}, {"codes": 1.0})], unconditional=0.5))
    empty = (
        half(random_columns(catalog, 400, np.random.default_rng(0)), np.random.default_rng(1)).inputs.modality == 0
    ).all(1)
    assert 0.4 < empty.float().mean() < 0.6


def test_mixtures_are_chosen_by_weight_among_those_that_a_sample_fits() -> None:
    catalog = tiny()
    mixtures = [
        Mixture({"photo": 1.0}, {"codes": 1.0}, weight=3.0),
        Mixture({"spectrum": 1.0}, {"codes": 1.0}, weight=1.0),
    ]
    sampler = MaskSampler(catalog, MaskingConfig(4, 4, mixtures))
    columns = random_columns(catalog, 2000, np.random.default_rng(0))
    share = len(sampler(columns, np.random.default_rng(1)).inputs.index["photo"]) / (4 * 2000)
    assert 0.71 < share < 0.79
    columns["photo"].present[:1000] = False
    batch = sampler(columns, np.random.default_rng(1))
    assert ((batch.inputs.modality > 0).sum(1) == 4).all(), "the other mixture stands in"


def test_shares_have_the_dirichlets_mean_and_spread() -> None:
    alpha = np.array([0.5, 1.0, 2.5])
    B, total = 20_000, 1000
    drawn = dirichlet_budgets(np.tile(alpha, (B, 1)), np.full((B, 3), 10**6), total, SampleRandom.at(0, np.arange(B)))
    assert (drawn.sum(1) == total).all()
    mean, a = alpha / alpha.sum(), alpha.sum()
    np.testing.assert_allclose((drawn / total).mean(0), mean, atol=0.008)
    np.testing.assert_allclose((drawn / total).var(0), mean * (1 - mean) / (a + 1), rtol=0.06)
    # Small concentrations pick one modality at a time, and do not underflow.
    few = dirichlet_budgets(
        np.full((2000, 4), 1e-3), np.full((2000, 4), 10**6), 128, SampleRandom.at(1, np.arange(2000))
    )
    assert (few.max(1) >= 127).mean() > 0.97
    assert (few.argmax(1)[:, None] == np.arange(4)).mean(0).min() > 0.2


def test_the_logarithm_of_gamma_variates() -> None:
    rng = SampleRandom.at(0, np.arange(10_000))
    draws = np.exp(log_gamma(np.full((10_000, 5), 0.3), rng))
    assert math.isclose(draws.mean(), 0.3, rel_tol=0.05)
    assert math.isclose(draws.var(), 0.3, rel_tol=0.1)
    assert (log_gamma(np.zeros((10_000, 5)), rng) == -np.inf).all()


def test_a_budget_is_clipped_to_what_there_is() -> None:
    drawn = dirichlet_budgets(np.ones((100, 3)), np.tile([2, 0, 50], (100, 1)), 20, SampleRandom.at(0, np.arange(100)))
    assert drawn[:, 0].max() == 2
    assert drawn[:, 1].max() == 0
    assert (drawn.sum(1) <= 20).all()


@pytest.mark.parametrize(
    ("masking", "message"),
    [
        (MaskingConfig(0, 8), "must be 1 or more, found 0 and 8"),
        (MaskingConfig(8, 8, unconditional=1.5), "unconditional must be from 0 to 1, found 1.5"),
        (MaskingConfig(8, 8, []), "at least one mixture"),
        (MaskingConfig(8, 8, [only("codes", weight=0.0)]), "at least one mixture with a positive weight"),
        (MaskingConfig(8, 8, [only("codes", weight=-1.0), only("codes", weight=2.0)]), "none with a negative weight"),
        (MaskingConfig(8, 8, [only("codes", weight=math.nan)]), "positive weight"),
        (MaskingConfig(8, 8, [only("nothing")]), "mixture 0, targets: unknown modality 'nothing'; known: photo, codes"),
        (
            MaskingConfig(8, 8, [only("codes"), only("photo")]),
            "mixture 1, targets: 'photo' is of kind patches, which is input only",
        ),
        (
            MaskingConfig(8, 8, [only("codes", inputs={"codes": -0.1})]),
            "concentration of 'codes' must be 0 or more",
        ),
        (MaskingConfig(8, 8, [only("codes", inputs={"codes": math.inf})]), "concentration of 'codes'"),
        (MaskingConfig(8, 8, [only("codes", inputs={})]), "inputs: every concentration is 0"),
        (MaskingConfig(8, 8, [only("codes", targets={"codes": 0.0})]), "targets: every concentration is 0"),
    ],
)
def test_mixtures_that_cannot_be(masking, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        MaskSampler(tiny(), masking)
    assert message in str(caught.value)


def test_no_entry_is_called_as_all_the_others() -> None:
    entry = Modality("default", 1, "grid", PICTURE, grid=(4, 4), tokenizer=SMALL)
    with pytest.raises(
        MaskweaveError, match="called 'default'.* stands for all modalities that are not listed; rename"
    ):
        MaskSampler(Catalog([entry]), MaskingConfig())


def test_the_default_concentration_never_makes_inputs_targets() -> None:
    catalog = tiny()
    batch = MaskSampler(catalog, MaskingConfig(30, 30))(
        random_columns(catalog, 100, np.random.default_rng(0)), np.random.default_rng(0)
    )
    assert set(batch.inputs.index) == set(catalog)
    assert set(batch.targets.index) == {"codes", "spectrum", "caption", "facts"}
    assert torch.isfinite(batch.rows["feature"]).all()


@quick
@given(cases(), st.integers(1, 7))
def test_what_a_sample_draws_does_not_depend_on_its_batch(case, first) -> None:
    catalog, masking, columns, seed = case
    sampler, places = MaskSampler(catalog, masking), np.arange(8)
    whole = sampler(columns, SampleRandom.at(seed, places))
    for part in (places[:first], places[first:]):
        batch = sampler({n: c.keep(part) for n, c in columns.items()}, SampleRandom.at(seed, part))
        for mine, all_of_them in ((batch.inputs, whole.inputs), (batch.targets, whole.targets)):
            N = mine.ids.shape[1]
            for a, b in (
                (mine.ids, all_of_them.ids),
                (mine.modality, all_of_them.modality),
                (mine.position, all_of_them.position),
            ):
                assert torch.equal(a, b[part, :N]) and not b[part, N:].any()
        assert torch.equal(batch.labels, whole.labels[part, : batch.labels.shape[1]])


def test_a_fill_is_a_random_choice_of_tokens() -> None:
    B, capacity = 20_000, np.array([3, 0, 7, 30])
    filled = fill(np.tile(capacity, (B, 1)), np.full(B, 8), SampleRandom.at(0, np.arange(B)))
    assert (filled.sum(1) == 8).all() and (filled <= capacity).all()
    share, n = capacity / 40, 40
    np.testing.assert_allclose(filled.mean(0), 8 * share, atol=0.05)  # hypergeometric
    np.testing.assert_allclose(filled.var(0), 8 * share * (1 - share) * (n - 8) / (n - 1), rtol=0.06)
    few = fill(np.array([[2, 1], [0, 0], [5, 5]]), np.array([9, 9, 0]), SampleRandom.at(0, np.arange(3)))
    assert few.tolist() == [[2, 1], [0, 0], [0, 0]]


def test_one_modality_has_any_number_of_inputs_and_the_others_fill_the_budget() -> None:
    B, capacity = 20_000, np.array([1, 196, 500])
    drawn = first_budgets(np.tile(capacity, (B, 1)), 128, SampleRandom.at(0, np.arange(B)))
    assert (drawn.sum(1) == 128).all(), "the budget is full"
    assert drawn[:, 2].max() == 128 and drawn[:, 1].max() == 128, "also of one modality alone"
    # Each of them is first in a third of the samples; the others then share what is left by their lengths.
    of_second = np.mean([127 * 196 / 696, 64.5, 63.5 * 196 / 197])
    assert drawn[:, 1].mean() == pytest.approx(of_second, rel=0.02)
    assert 1 / 3 < (drawn[:, 0] == 1).mean() < 0.5
    counts = np.bincount(drawn[:, 2], minlength=129)
    assert counts[[0, 128]].sum() < 0.02 * B and counts[40:90].min() > 0, "any number, not all or nothing"


@pytest.mark.parametrize(
    ("beta", "mean", "std"), [((0.1, 1.0), 0.1 / 1.1, (0.1 / 1.1**2 / 2.1) ** 0.5), ((2.0, 2.0), 0.5, 0.05**0.5)]
)
def test_numbers_of_targets_have_the_betas_mean_and_spread(beta, mean, std) -> None:
    numbers = target_numbers(beta, 1000, SampleRandom.at(0, np.arange(20_000)))
    assert numbers.min() >= 1 and numbers.max() <= 1000
    assert numbers.mean() == pytest.approx(1000 * mean, rel=0.05) and numbers.std() == pytest.approx(
        1000 * std, rel=0.05
    )
    if beta == (0.1, 1.0):
        assert (numbers == 1).mean() == pytest.approx(0.001**0.1, abs=0.02), "half of the samples have one target"


def test_uniform_masking_fills_the_budget_where_lengths_differ() -> None:
    catalog = tiny().subset(["photo", "codes", "feature"])
    columns = random_columns(catalog, 500, np.random.default_rng(0))
    filled = {}
    for allocation in ("dirichlet", "uniform"):
        masking = MaskingConfig(16, 16, allocation=allocation, target_beta=(5.0, 0.5))
        batch = MaskSampler(catalog, masking)(columns, SampleRandom.at(0, np.arange(500)))
        filled[allocation] = (batch.inputs.modality > 0).sum(1).numpy() / 16
    assert (filled["uniform"] == 1).all() and filled["dirichlet"].mean() < 0.95


@pytest.mark.parametrize(("beta", "expected"), [((1e6, 1.0), 8), ((1.0, 1e6), 1)])
def test_numbers_of_targets_come_from_the_beta_distribution(beta, expected) -> None:
    """They are filled with tokens that are not inputs, of which there are enough."""
    catalog = tiny().subset(["codes", "spectrum"])
    columns = random_columns(catalog, 200, np.random.default_rng(0))
    masking = MaskingConfig(8, 8, allocation="uniform", target_beta=beta)
    batch = MaskSampler(catalog, masking)(columns, SampleRandom.at(0, np.arange(200)))
    assert ((batch.targets.modality > 0).sum(1) == expected).all()
