"""The decoding schemes: what they settle when, that samples are independent of each other, that caching changes nothing."""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from small_model import CATALOG, FIRST, SENTINELS, generate, given, make_model, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskweave.generate import decode
from maskweave.generate.engine import Engine
from maskweave.generate.guidance import passes
from maskweave.generate.orders import halton_rank
from maskweave.generate.schedule import Schedule, Step, make_schedule, tokens_per_step
from maskweave.generate.token_state import TokenState, pack_inputs
from maskweave.masking.batch import Slots, TokenSlice, pack
from maskweave.modality.decoding import Decoding, Ramp, Remasking
from maskweave.nn import cpu
from maskweave.values.codec import EOS

CHAIN = ["caption", "codes", "facts", "spectrum"]


GUIDANCE = {
    "none": {},
    "one": {"conditions": {"photo+feature": 2.0}},
    "several, one negative": {"conditions": {"photo": 2.5, "feature": -1.0}},
    "growing": {"conditions": {"photo": 2.0}, "guide_with_finished": True},
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(make_model(), CATALOG)


def schedule(targets=CHAIN, guidance=None, chain=True, **how) -> Schedule:
    decoding = {name: Decoding(**{"steps": 4, **how}) for name in targets}
    return make_schedule(CATALOG, ["photo", "feature"], targets, decoding=decoding, chain=chain, **(guidance or {}))


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("chain", [True, False], ids=["chained", "unchained"])
def test_a_sample_is_the_same_alone_and_among_others(engine, scheme, guidance, chain) -> None:
    """Scheme × guidance × batch: grids and sequences, samples with different inputs, texts that end at different lengths."""
    steps = schedule(scheme=scheme, guidance=GUIDANCE[guidance], chain=chain, top_p=0.95)
    together = tokens(generate(engine, steps, list(range(9)), list(range(100, 109))))
    assert len({len(sample["caption"]) for sample in together}) > 2, "texts are to end at different lengths"
    for b in range(9):
        assert tokens(generate(engine, steps, [b], [100 + b]))[0] == together[b]
    order = [7, 2, 2, 5]
    again = generate(engine, steps, order, [100 + b for b in order])
    assert tokens(again) == [together[b] for b in order]


@pytest.mark.parametrize("guidance", ["one", "several, one negative"])
def test_guidance_changes_what_comes(engine, guidance) -> None:
    plain = tokens(generate(engine, schedule(), [0, 1, 2], [0, 1, 2]))
    assert tokens(generate(engine, schedule(guidance=GUIDANCE[guidance]), [0, 1, 2], [0, 1, 2])) != plain


def test_thoughts_are_seen_by_targets_that_do_not_see_each_other(engine, monkeypatch) -> None:
    seen = {}
    original = Engine.encode
    monkeypatch.setattr(
        Engine,
        "encode",
        lambda self, fields, sees, row, number=0: (
            seen.setdefault(tuple(sorted(sees[0])), 0) or original(self, fields, sees, row, number)
        ),
    )
    how = {name: Decoding(steps=1) for name in ("codes", "spectrum", "facts")}
    steps = make_schedule(CATALOG, ["photo", "feature"], [*how], decoding={**how}, chain=False, think=["codes"])
    generate(engine, steps, [0, 1], [0, 1])
    given = {"feature", "photo"}
    assert {frozenset(sees) for sees in seen} == {
        frozenset(given | {"codes"}), frozenset(given | {"codes", "spectrum"}), frozenset(given | {"codes", "facts"}),
    }  # fmt: skip


def test_samples_known_in_part_finish_together_and_keep_what_they_had(engine) -> None:
    rng = np.random.default_rng(0)
    kept = np.stack([rng.random(16) < share for share in (0.0, 0.2, 0.5, 0.9, 1.0)])
    ids = rng.integers(0, 20, kept.shape)
    for scheme in ("maskgit", "roar"):
        steps = schedule(["codes"], scheme=scheme, guidance=GUIDANCE["one"])
        made = generate(engine, steps, list(range(5)), list(range(5)), {"codes": TokenState(kept.copy(), ids.copy())})
        assert made["codes"].mask.all()
        assert (made["codes"].ids[kept] == ids[kept]).all()
        for b in range(5):
            alone = generate(
                engine, steps, [b], [b], {"codes": TokenState(kept[b : b + 1].copy(), ids[b : b + 1].copy())}
            )
            assert (alone["codes"].ids[0] == made["codes"].ids[b]).all()


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
@pytest.mark.parametrize("steps", [1, 3, 16, 50])
def test_every_step_asks_for_what_it_must(engine, scheme, steps, monkeypatch) -> None:
    asked = []
    original = Engine.ask
    monkeypatch.setattr(Engine, "ask", lambda *a: asked.append(a[4].sum(1).tolist()) or original(*a))
    found = tokens(generate(engine, schedule(["codes"], scheme=scheme, steps=steps), list(range(9)), list(range(9))))
    assert all(len(sample["codes"]) == 16 and set(sample["codes"]) <= set(range(20)) for sample in found)
    counts = tokens_per_step(16, Decoding(scheme=scheme, steps=steps))
    left = [16 - sum(counts[:i]) for i in range(len(counts))]
    assert asked == [[n] * 9 for n in (left if scheme == "maskgit" else counts)]


@pytest.mark.parametrize(
    "how",
    [
        {"scheme": "halton"},
        {"scheme": "entropy"},
        {"scheme": "margin", "choice_temperature": 0.5},
        {"scheme": "moment", "choice_temperature": Ramp(2.0, 0.0)},
        {"scheme": "maskgit", "choice_temperature": 1.0},
        {"scheme": "roar", "remask": Remasking("conf", 0.5)},
        {"scheme": "maskgit", "steps": 10, "remask": Remasking("loop", 0.3, (0.3, 0.8), 0.7)},
    ],
    ids=lambda how: "-".join([how["scheme"], *("remask" for key in how if key == "remask")]),
)
def test_other_orders_know_each_sample_alone_and_keep_what_was_known(engine, how) -> None:
    steps = schedule(["codes"], guidance=GUIDANCE["one"], top_p=0.95, **how)
    rng = np.random.default_rng(0)
    kept = np.stack([rng.random(16) < share for share in (0.0, 0.2, 0.5, 0.9, 1.0)])
    ids = rng.integers(0, 20, kept.shape)
    made = generate(engine, steps, list(range(5)), list(range(5)), {"codes": TokenState(kept.copy(), ids.copy())})
    assert made["codes"].mask.all() and (made["codes"].ids[kept] == ids[kept]).all()
    assert made["codes"].ids.max() < 20 and made["codes"].ids.min() >= 0
    for b in range(5):
        alone = generate(engine, steps, [b], [b], {"codes": TokenState(kept[b : b + 1].copy(), ids[b : b + 1].copy())})
        assert (alone["codes"].ids[0] == made["codes"].ids[b]).all()


def test_remasking_masks_generated_tokens_again_and_predicts_as_many_more(engine, monkeypatch) -> None:
    states, asked = [], []
    step = decode.roar_step
    monkeypatch.setitem(
        decode.STEPS,
        "roar",
        lambda e, s, f, c, g: asked.append((f["codes"].mask.copy(), c.copy())) or step(e, s, f, c, g),
    )
    forget = TokenState.forget
    monkeypatch.setattr(TokenState, "forget", lambda f, m: states.append((m.copy(), f.mask.copy())) or forget(f, m))
    kept = np.zeros((3, 16), bool)
    kept[1, :8] = True
    steps = schedule(["codes"], scheme="roar", steps=4, remask=Remasking("conf", 1.0))
    assert [(s.tokens, s.remask) for s in steps.steps] == [(4, 0), (4, 4), (4, 4), (4, 0)]
    made = generate(
        engine, steps, [0, 1, 2], [0, 1, 2], {"codes": TokenState(kept.copy(), np.zeros((3, 16), np.int64))}
    )
    assert made["codes"].mask.all() and (made["codes"].ids[1, :8] == 0).all()
    for number, ((before, count), (masked, after)) in enumerate(zip(asked, states, strict=True)):
        again = np.array([4, 2, 4]) * (number in (1, 2))
        assert (masked.sum(axis=1) == again).all() and (count == np.array([4, 2, 4]) + again).all()
        assert not (masked & kept).any() and not (masked & ~before).any(), "only what earlier steps generated"
        assert ((after & ~before).sum(axis=1) == count).all()


@pytest.mark.parametrize("scheme", ["roar", "maskgit", "margin"])
def test_remasking_by_confidence_keeps_the_probability_of_each_token_as_it_was_sampled(
    engine, monkeypatch, scheme
) -> None:
    expected = np.ones((2, 16))
    settle = decode._settle

    def watched(field, asked, settled, chosen, logits):
        settle(field, asked, settled, chosen, logits)
        where, shares = np.argwhere(asked), torch.softmax(logits.double(), dim=1)
        for (b, place), id, share in zip(where.tolist(), chosen.tolist(), shares.tolist(), strict=True):
            if settled[b, place]:
                expected[b, place] = share[id]
        assert field.confidence == pytest.approx(expected, abs=1e-6)

    monkeypatch.setattr(decode, "_settle", watched)
    kept = np.zeros((2, 16), bool)
    kept[1, :8] = True
    steps = schedule(["codes"], scheme=scheme, steps=4, guidance=GUIDANCE["one"], remask=Remasking("conf", 0.5))
    given_codes = {"codes": TokenState(kept.copy(), np.zeros((2, 16), np.int64))}
    made = generate(engine, steps, [0, 1], [0, 1], given_codes)
    assert made["codes"].mask.all() and (expected[1, :8] == 1).all() and (expected[~kept] < 1).all()
    assert made["codes"].confidence == pytest.approx(expected, abs=1e-6)


def test_remasking_by_confidence_prefers_tokens_that_were_unlikely() -> None:
    """Frequencies of a single choice are softmax(-probability)."""
    probability = np.array([0.05, 0.5, 0.9, 1.0])
    counts = np.zeros(4)
    field = TokenState(np.ones((1, 8), bool), np.zeros((1, 8), np.int64), confidence=np.ones((1, 8)))
    field.mask[0, 4:], field.confidence[0, :4] = False, probability
    step = Step("codes", "roar", 1, remask=1, remask_by="confidence")
    rng = np.random.default_rng(0)
    for _ in range(4000):
        counts += decode.remasked(step, field, np.ones((1, 8), bool), 8, np.array([1]), [rng])[0, :4]
    expected = np.exp(-probability) / np.exp(-probability).sum()
    assert np.abs(counts / 4000 - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_positions_come_in_their_order(engine, monkeypatch) -> None:
    """Each order, computed here from the logits that the step saw."""
    seen = []
    settle = decode._settle

    def watched(field, asked, settled, chosen, logits):
        seen.append((field.mask.copy(), settled.copy()))
        settle(field, asked, settled, chosen, logits)

    monkeypatch.setattr(decode, "_settle", watched)
    logits = []
    original = Engine.ask
    monkeypatch.setattr(Engine, "ask", lambda *a: logits.append((a[4].copy(), original(*a))) or logits[-1][1])
    by_hand = {
        "entropy": lambda p: -(p * np.log(p)).sum(axis=1),
        "margin": lambda p: np.sort(p, axis=1)[:, -2] - np.sort(p, axis=1)[:, -1],
        "moment": lambda p: -(p ** (1 + 1 / 0.5)).sum(axis=1),
    }
    for scheme, disorder in by_hand.items():
        seen.clear(), logits.clear()
        if scheme == "moment":  # its scores without its noise
            monkeypatch.setattr(decode.orders, "choice_noise", lambda counts, generators: np.zeros(counts.sum()))
        how = {"choice_temperature": 0.5} if scheme == "moment" else {}
        generate(engine, schedule(["codes"], scheme=scheme, **how), list(range(9)), [0] * 9)
        assert len(seen) == 4
        for (before, settled), (asked, found) in zip(seen, logits, strict=True):
            score = np.full(before.shape, np.nan)
            score[asked] = disorder(found.double().softmax(dim=-1).numpy())
            assert (asked == ~before).all()
            for b in range(9):
                left = ~before[b] & ~settled[b]
                assert not left.any() or score[b][settled[b]].max() <= score[b][left].min() + 1e-6
    seen.clear()
    generate(engine, schedule(["codes"], scheme="halton"), [0, 1], [0, 1])
    rank = halton_rank(CATALOG["codes"].grid)
    for before, settled in seen:
        assert (settled == (rank < (before | settled)[0].sum()) & ~before).all()


def test_the_moment_order_samples_from_sharpened_probabilities(engine, monkeypatch) -> None:
    """At choice temperature 1, tokens come from p squared, except in the last step, where nothing is left to choose from."""
    seen = []
    original = decode.sample
    monkeypatch.setattr(decode, "sample", lambda logits, *a: seen.append(logits) or original(logits, *a))
    answers = []
    ask = Engine.ask
    monkeypatch.setattr(Engine, "ask", lambda *a: answers.append(ask(*a)) or answers[-1])
    generate(engine, schedule(["codes"], scheme="moment", choice_temperature=1.0, steps=3), [0], [0])
    for number, (used, answer) in enumerate(zip(seen, answers, strict=True)):
        rows = {tuple(row) for row in (answer * (2 if number < 2 else 1)).tolist()}
        assert all(tuple(row) in rows for row in used.tolist())


def test_maskgit_keeps_the_surest_and_never_changes_them(engine, monkeypatch) -> None:
    states, sure = [], []
    settle, confidence = decode._settle, decode.confidence

    def watched(field, asked, settled, chosen, logits):
        before = field.ids.copy(), field.mask.copy()
        settle(field, asked, settled, chosen, logits)
        full = np.full(asked.shape, np.nan)
        full[asked] = sure[-1].numpy()
        states.append((*before, field.ids.copy(), field.mask.copy(), full))

    monkeypatch.setattr(decode, "_settle", watched)
    monkeypatch.setattr(decode, "confidence", lambda *a: sure.append(confidence(*a)) or sure[-1])
    generate(engine, schedule(["codes"], scheme="maskgit", temperature=0), list(range(9)), [0] * 9)
    assert len(states) == 4
    for ids, mask, later_ids, later_mask, confidence in states:
        assert (later_ids[mask] == ids[mask]).all()
        new, still = later_mask & ~mask, ~later_mask
        for b in range(9):
            assert not still[b].any() or confidence[b][new[b]].min() >= confidence[b][still[b]].max()


def test_guided_logits_are_the_weighted_sum_of_passes_each_by_itself(engine) -> None:
    """u + Σ s (c - u), by hand, from the model alone."""
    step = schedule(["codes"], guidance=GUIDANCE["several, one negative"]).steps[0]
    fields = {**given(range(9)), "codes": TokenState.empty(9, 16)}
    fields["codes"].mask[:, :3] = True
    asked = np.random.default_rng(0).random((9, 16)) < 0.4
    asked[:, :3], asked[4] = False, False
    found = engine.ask(fields, passes(step, fields), "codes", asked)

    def alone(names: set[str]) -> torch.Tensor:
        logits = []
        for b in range(9):
            if not asked[b].any():
                continue
            one = {
                n: TokenState(f.mask[b : b + 1], *(None if a is None else a[b : b + 1] for a in (f.ids, f.rows)))
                for n, f in fields.items()
            }
            inputs, rows = pack_inputs(CATALOG, one, [frozenset(names)], np.arange(1))
            positions = np.flatnonzero(asked[b])
            slots, _ = pack(
                {"codes": TokenSlice(np.zeros_like(positions), np.zeros_like(positions), positions)}, {"codes": 2}, 1
            )
            with torch.no_grad():
                y = engine.model.decode(slots, engine.model.encode(inputs, rows), inputs)
                ((_, _, part),) = engine.model.logits(y, slots.index).values()
            logits.append(part)
        return torch.cat(logits)

    u = alone({"codes"})
    expected = u + 2.5 * (alone({"codes", "photo"}) - u) - 1.0 * (alone({"codes", "feature"}) - u)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variants", [{}, {"qk_norm": True, "registers": 2}], ids=["plain", "qk_norm, registers"])
def test_the_cached_decoder_writes_what_plain_recomputation_writes(variants) -> None:
    """Greedy captions of three samples, token by token from the whole prefix, the encoder and all keys computed anew each time."""
    engine = Engine(make_model(ending=0.1, **variants), CATALOG)
    made = tokens(generate(engine, schedule(["caption"], temperature=0), [0, 1, 2], [0, 0, 0]))
    lengths = {len(sample["caption"]) for sample in made}
    assert max(lengths) > 3, "there is something to compare"
    model, entry = engine.model, CATALOG["caption"]
    for b, sample in enumerate(made):
        frame = TokenState(np.ones((1, 1), bool), np.full((1, 1), FIRST + 1))
        read, written = [FIRST + 1], []
        while len(written) < entry.max_tokens and (not written or written[-1] != EOS):
            fields = {**given([b]), "caption": frame}
            inputs, rows = pack_inputs(CATALOG, fields, [frozenset(fields)], np.arange(1))
            part = TokenSlice(np.zeros(len(read), np.int64), np.array(read), np.arange(len(read)))
            slots, _ = pack({"caption": part}, {"caption": entry.id}, 1)
            with torch.no_grad():
                y = model.decode(slots, model.encode(inputs, rows), inputs)
                ((_, _, logits),) = model.logits(y, slots.index).values()
            id = int(logits[-1].argmax())
            if id in SENTINELS:
                break
            written.append(id)
            read.append(id)
        assert sample["caption"] == written


def test_the_encoder_runs_once_where_nothing_changes(engine, monkeypatch) -> None:
    runs = []
    original = engine.model.encode
    monkeypatch.setattr(engine.model, "encode", lambda *a: runs.append(1) or original(*a))
    one_step = schedule(["codes", "spectrum"], steps=1, chain=False)
    generate(engine, one_step, [0, 0], [0, 1])
    assert len(runs) == 1, "two grids asked for in one step each, from the same inputs"
    generate(engine, schedule(["codes"], steps=4), [0, 0], [0, 1])
    assert len(runs) == 5, "what a step settles is encoded for the next"
    generate(engine, schedule(["caption"]), [0, 0], [0, 1])
    assert len(runs) == 6, "once for a whole text"


def test_samples_that_have_ended_leave_the_batch(engine, monkeypatch) -> None:
    sizes = []
    original = Engine.read
    monkeypatch.setattr(
        Engine, "read", lambda self, reader, ids, p: sizes.append(len(ids)) or original(self, reader, ids, p)
    )
    made = tokens(
        generate(engine, schedule(["caption"], guidance=GUIDANCE["one"]), list(range(9)), list(range(100, 109)))
    )
    steps = [len(s["caption"]) + (s["caption"][-1:] != [EOS] and len(s["caption"]) < 20) for s in made]
    assert sizes == [sum(n > i for n in steps) for i in range(max(steps))]


def test_seeds_reproduce_and_differ(engine) -> None:
    first = tokens(generate(engine, schedule(), [0] * 4, [5, 5, 6, 7]))
    assert first[0] == first[1]
    assert all(first[0][name] != first[2][name] for name in CHAIN)
    cold = tokens(generate(engine, schedule(["caption", "facts"], temperature=0), [0] * 2, [1, 2]))
    assert cold[0] == cold[1], "without temperature there is nothing to draw"


def test_sequences_end(engine) -> None:
    """At [EOS], at a sentinel, which is not part of it, or at the longest length."""
    endings = set()
    for sample in tokens(generate(engine, schedule(["caption"]), [0] * 60, list(range(60)))):
        ids = sample["caption"]
        assert len(ids) <= 20
        assert not set(ids) & set(SENTINELS)
        assert EOS not in ids[:-1]
        endings.add("longest" if len(ids) == 20 else "end" if ids and ids[-1] == EOS else "sentinel")
    assert {"end", "sentinel"} <= endings


def test_a_schedule_may_shorten_a_sequence(engine) -> None:
    steps = Schedule((Step("caption", "autoregressive", 3),))
    assert max(len(s["caption"]) for s in tokens(generate(engine, steps, list(range(9)), list(range(9))))) == 3


@pytest.mark.parametrize("choice", cpu.CHOICES)
def test_bf16_stays_close(engine, choice, monkeypatch) -> None:
    monkeypatch.setattr(cpu, "KERNELS", cpu.CHOICES[choice])
    model = make_model()
    half = Engine(model, CATALOG, "bf16")
    fields = {**given(range(9)), "codes": TokenState.empty(9, 16)}
    asked = np.ones((9, 16), bool)
    one = passes(schedule(["codes"]).steps[0], fields)
    exact, rough = engine.ask(fields, one, "codes", asked), half.ask(fields, one, "codes", asked)
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.05 * exact.abs().max()
    assert model.heads["text"].weight.dtype == torch.float32, "the model itself stays as it is"
    assert len(tokens(generate(half, schedule(["caption", "codes"]), [0, 1], [0, 1]))[0]["codes"]) == 16


@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
@pytest.mark.parametrize("guidance", ["none", "one"])
def test_ids_that_stay_on_the_device_are_the_same(engine, scheme, guidance) -> None:
    other = Engine(make_model(), CATALOG)
    other.keeps_ids = True
    steps = schedule(scheme=scheme, guidance=GUIDANCE[guidance])
    kept = np.random.default_rng(0).random((9, 16)) < 0.3
    started = {"codes": TokenState(kept, np.full(kept.shape, 3))}
    runs = [tokens(generate(e, steps, list(range(9)), list(range(9)), copy.deepcopy(started))) for e in (engine, other)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("keeps_ids", [False, True])
@pytest.mark.parametrize("scheme", ["maskgit", "roar"])
def test_runs_in_turn_are_the_same_as_alone(keeps_ids, scheme, monkeypatch) -> None:
    """Two runs of one engine know the same positions in every step, and only their tokens differ. What moves to a GPU is a copy; so it is here."""
    move = Slots.to
    monkeypatch.setattr(Slots, "to", lambda slots, device: copy.deepcopy(move(slots, device)))
    engine = Engine(make_model(), CATALOG)
    engine.keeps_ids = keeps_ids
    # Whole rows of the same inputs: the order in which ROAR settles positions depends on the seed alone.
    steps = [schedule(["codes"], scheme=scheme, steps=8, temperature=t) for t in (9.0, 0.3)]
    if scheme == "maskgit":
        monkeypatch.setattr(decode, "confidence", lambda logits, ids: -torch.arange(len(ids), dtype=torch.float32))

    def started(which: Schedule, made: dict[str, TokenState]) -> Iterator[int]:
        return decode.run(engine, which, given(range(9)), made, [np.random.default_rng(seed) for seed in range(9)])

    alone: list[dict[str, TokenState]] = [{}, {}]
    for which, made in zip(steps, alone, strict=True):
        assert len(list(started(which, made))) == 8
    in_turn: list[dict[str, TokenState]] = [{}, {}]
    for _ in zip(*(started(which, made) for which, made in zip(steps, in_turn, strict=True)), strict=True):
        assert (in_turn[0]["codes"].mask == in_turn[1]["codes"].mask).all()
    assert [tokens(made) for made in in_turn] == [tokens(made) for made in alone]
    assert tokens(alone[0]) != tokens(alone[1])


def test_tokens_ahead_of_the_host_are_the_same(engine) -> None:
    """Samples that end leave the batch later, and what they generate then does not count. Without temperature, no numbers are drawn for it."""
    other = Engine(make_model(), CATALOG)
    steps = schedule(["caption", "facts"], temperature=0, guidance=GUIDANCE["one"])
    expected = tokens(generate(engine, steps, list(range(9)), [0] * 9))
    for ahead in (3, 8, 100):
        other.ahead = ahead
        assert tokens(generate(other, steps, list(range(9)), [0] * 9)) == expected
    warm = schedule(["caption"])
    together = tokens(generate(other, warm, list(range(9)), list(range(9))))
    assert [tokens(generate(other, warm, [b], [b]))[0] for b in range(9)] == together


class Recording(TorchDispatchMode):
    """Records operators, as a CUDA graph does: they run again on the same tensors, and whatever the host computed stays as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], None]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = operator(*args, **kwargs)

        def again() -> None:
            for old, new in zip(tree_leaves(made), tree_leaves(operator(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

        self.calls.append(again)
        return made


def test_recorded_steps_are_the_same(engine, monkeypatch) -> None:
    records: list[Recording] = []

    def record(function: Callable[[], None]) -> Callable[[], None]:
        records.append(Recording())
        with records[-1] as recording:
            function()
        replays = itertools.count()

        def replay() -> None:
            for call in recording.calls if next(replays) else ():  # recording on a CPU was the first run
                call()

        return replay

    steps = schedule(["caption", "facts"], temperature=0, guidance=GUIDANCE["one"])
    expected = tokens(generate(engine, steps, list(range(9)), [0] * 9))
    monkeypatch.setattr("maskweave.generate.engine.recorder", lambda device, steps: record)
    assert tokens(generate(engine, steps, list(range(9)), [0] * 9)) == expected
    assert len(records) == 2, "once for each sequence"
