"""What a bundle does beside plain requests: steps one by one, edits, tokens without tokenizers, replays, ensembles and scores."""

import itertools
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from small_model import CATALOG, FIRST, make_model

import maskweave
from maskweave.bundle.io import trained_settings
from maskweave.errors import MaskweaveError
from maskweave.families.base import family_named
from maskweave.files import write_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.engine import Engine
from maskweave.generate.schedule import load_schedule
from maskweave.generate.session import Session, nearest_known
from maskweave.generate.token_state import TokenState, pack_inputs, token_states
from maskweave.masking.batch import TokenSlice, pack
from maskweave.modality.decoding import Decoding
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.codec import EOS

TEXT = CATALOG.vocabularies["text"]


def make_bundle(without: tuple[str, ...] = (), unconditional: bool | None = None) -> Bundle:
    model = make_model()
    text = TextTokenizer.train(TEXT, ["a red cube on a blue table"])
    tokenizers = {}
    for name, m in CATALOG.items():
        if m.is_target and name not in without:
            tokenizers[name] = SequenceTokenizer(m, text) if m.kind == "sequence" else GridTokenizer(m)
    return Bundle(CATALOG, tokenizers, model, unconditional=unconditional)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return make_bundle()


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


# Step by step.


def test_a_session_tells_what_is_known_after_every_step(bundle) -> None:
    session = bundle.start([{"photo": photo()}, {"caption": "a cube"}], ["codes", "facts"], seeds=[3, 4])
    assert session.total == 8 + 9 and session.done == 0 and "codes" not in session.results()[0].values
    seen, known = [], []
    for step in session:
        seen.append((step.target, session.done))
        results = session.results()
        known.append([(r.tokens["codes"] >= 0).sum() for r in results])
        assert all(r["codes"].shape == (8, 8, 3) for r in results), "decoded on demand, unknown tokens filled in"
    assert seen[:8] == [("codes", n) for n in range(1, 9)] and {name for name, _ in seen[8:]} == {"facts"}
    assert known[:8] == [[2 * n] * 2 for n in range(1, 9)]
    assert session.is_finished and session.done == session.total
    whole = bundle.generate_batch([{"photo": photo()}, {"caption": "a cube"}], ["codes", "facts"], seeds=[3, 4])
    for a, b in zip(session.results(), whole, strict=True):
        assert a.tokens["codes"].tolist() == b.tokens["codes"].tolist() and a["facts"] == b["facts"]


@pytest.mark.parametrize("keeps_ids", [False, True])
def test_sessions_in_turn_equal_each_alone(bundle, keeps_ids, monkeypatch) -> None:
    monkeypatch.setattr(bundle._engine({}), "keeps_ids", keeps_ids)

    def started() -> list[Session]:
        """The second differs in its temperature only, so that both know the same positions; the third in its input and target."""
        how = [{"codes": Decoding("roar", steps=8, temperature=t)} for t in (9.0, 0.3)]
        first, second = [bundle.start([{"photo": photo()}], ["codes"], seeds=[3], decoding=d) for d in how]
        return [first, second, bundle.start([{"photo": photo(1)}], ["facts", "codes"], seeds=[3])]

    def found(session: Session) -> dict[str, list[int]]:
        return {name: ids.tolist() for name, ids in session.results()[0].tokens.items()}

    alone = [session.finish()[0].tokens for session in started()]
    in_turn = started()
    for _ in itertools.zip_longest(*in_turn):
        pass
    assert [found(session) for session in in_turn] == [{n: ids.tolist() for n, ids in made.items()} for made in alone]


def test_a_request_that_is_broken_off_returns_what_is_done(bundle) -> None:
    def watch(session) -> bool:
        return session.done < 10

    found = bundle.generate({"photo": photo()}, ["codes", "caption", "spectrum"], seed=1, watch=watch)
    whole = bundle.generate({"photo": photo()}, ["codes", "caption"], seed=1)
    assert found.tokens["codes"].tolist() == whole.tokens["codes"].tolist()
    assert found.tokens["caption"].tolist() == whole.tokens["caption"].tolist()[:2]
    assert "spectrum" not in found.values and "spectrum" not in found.tokens
    few = bundle.generate_batch([{"photo": photo()}] * 5, ["codes"], batch_size=2, watch=lambda session: False)
    assert len(few) == 2 and (few[0].tokens["codes"] >= 0).sum() == 2


def test_what_was_done_before_ctrl_c_is_there(bundle, monkeypatch) -> None:
    session = bundle.start([{"photo": photo()}], ["codes"], seeds=[1])
    steps = iter(session)
    next(steps)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Engine, "ask", Mock(side_effect=KeyboardInterrupt))
        next(steps)
    assert (session.results()[0].tokens["codes"] >= 0).sum() == 2 and not session.is_finished
    with pytest.raises(MaskweaveError, match="interrupted within a step and cannot continue"):
        session.finish()
    whole = bundle.start([{"photo": photo()}], ["codes"], seeds=[1])
    next(iter(whole))  # broken off between two steps
    assert (whole.finish()[0].tokens["codes"] >= 0).all() and whole.is_finished
    assert whole.finish()[0].tokens["codes"].tolist() == whole.results()[0].tokens["codes"].tolist()


def test_unknown_tokens_are_shown_as_their_nearest_neighbors() -> None:
    ids, known = np.array([7, 0, 0, 0, 0, 9]), np.array([True, False, False, False, False, True])
    assert ids[nearest_known(known, (6,))].tolist() == [7, 7, 7, 9, 9, 9]
    assert nearest_known(np.ones(6, bool), (2, 3)).tolist() == list(range(6))


# Values from mean codebook vectors.


def test_a_value_is_decoded_from_the_mean_of_its_codebook_vectors(bundle, monkeypatch) -> None:
    how = Decoding("roar", steps=2, detokenize="mean")
    logits: list[torch.Tensor] = []
    ask = Engine.ask

    def record(*given):
        logits.append(ask(*given))
        return logits[-1]

    monkeypatch.setattr(Engine, "ask", record)
    session = bundle.start([{"photo": photo()}], ["codes"], seeds=[5], decoding={"codes": how})
    assert [step.detokenize for step in session.schedule.steps] == ["mean", "mean"]
    order = []
    for _ in session:
        known = session.results()[0].tokens["codes"] >= 0
        order += [n for n in np.flatnonzero(known) if n not in order]
    (result,) = session.results()
    tokenizer = bundle.tokenizers["codes"]
    share_nV = torch.cat(logits)[:, : len(tokenizer.codebook)].softmax(dim=1)
    means_NC = torch.empty(len(order), tokenizer.codebook.shape[1])
    means_NC[order] = share_nV @ tokenizer.codebook  # a ROAR step keeps the order of positions
    with torch.inference_mode():
        (value,) = tokenizer.modality.value.from_network(tokenizer.decoder(means_NC[None]))
    assert np.abs(result["codes"].astype(float) - value).max() <= 1, "rounding"
    sampled = bundle.generate({"photo": photo()}, ["codes"], seed=5, decoding={"codes": Decoding("roar", steps=2)})
    assert result.tokens["codes"].tolist() == sampled.tokens["codes"].tolist(), "the tokens are the sampled ones"
    assert np.abs(sampled["codes"].astype(float) - value).max() > 1
    again = bundle.generate({"photo": photo()}, schedule=session.schedule, seed=5)
    assert (again["codes"] == result["codes"]).all(), "the schedule says it"


def test_given_tokens_are_decoded_as_they_are(bundle) -> None:
    tokenizer = bundle.tokenizers["codes"]
    ids = np.arange(16)[None] % tokenizer.vocabulary_size
    means = np.full((1, 16, tokenizer.codebook.shape[1]), np.nan, np.float32)
    assert (tokenizer.decode(ids, means=means) == tokenizer.decode(ids)).all()
    means[:] = tokenizer.codebook[ids[0]].numpy()
    assert np.abs(tokenizer.decode(ids * 0, means=means).astype(int) - tokenizer.decode(ids)).max() <= 1


def test_means_are_for_grids_with_a_network(bundle) -> None:
    wrong = Decoding("autoregressive", detokenize="mean")
    with pytest.raises(MaskweaveError, match="decoding of 'caption': detokenize 'mean' is for grids with a tokenizer"):
        bundle.generate({"photo": photo()}, ["caption"], decoding={"caption": wrong})


# Schedules.


def test_a_schedule_is_replayed(bundle, tmp_path) -> None:
    how = {"codes": Decoding("maskgit", steps=3, temperature=20.0, temperature_schedule="linear")}
    first = bundle.generate({"photo": photo()}, ["codes", "caption"], decoding=how, conditions={"photo": 2.0}, seed=5)
    first.schedule.save(tmp_path / "steps.yaml")
    again = bundle.generate({"photo": photo()}, schedule=load_schedule(tmp_path / "steps.yaml"), seed=5)
    assert (
        again.schedule
        == first.schedule
        == bundle.schedule(["photo"], ["codes", "caption"], decoding=how, conditions={"photo": 2.0})
    )
    for name in ("codes", "caption"):
        assert again.tokens[name].tolist() == first.tokens[name].tolist()
    assert (
        bundle.generate({"photo": photo()}, ["codes"], seed=5).tokens["codes"].tolist()
        != first.tokens["codes"].tolist()
    )


def test_whether_a_model_may_be_asked_without_inputs(tmp_path) -> None:
    family = family_named("fourm")
    assert trained_settings(family, tmp_path) is None
    for recipe, expected in (
        ({"model": {"masking": {"unconditional": 0.1}}}, True),
        ({"model": {"masking": {"unconditional": 0.0}}}, False),
        ({"model": {"family": "m3ae"}}, None),
        ({"model": {"of a later version": 1}}, None),
        ({}, None),
    ):
        write_yaml(tmp_path / "recipe.yaml", recipe)
        settings = trained_settings(family, tmp_path)
        assert (settings and family.trained_without_inputs(settings)) is expected
    with pytest.raises(MaskweaveError, match="no inputs: this model was always trained with inputs"):
        make_bundle(unconditional=False).generate({}, ["codes"])
    assert make_bundle(unconditional=True).generate({}, ["codes"])["codes"].shape == (8, 8, 3)


# Editing.


def test_tokens_outside_a_region_are_untouched(bundle) -> None:
    anew = np.zeros((8, 8), bool)
    anew[:3, :5] = True
    kept = np.ones((4, 4), bool)
    kept[:2, :3] = False
    original = bundle.tokenizers["codes"].encode([photo()])[0].numpy()
    for inputs in ({"codes": photo()}, {"photo": photo()}, {"photo": photo(), "caption": "a cube"}):
        for targets in (["codes"], ["photo"]):
            found = bundle.generate(inputs, targets, edit={targets[0]: anew}, seed=2)
            codes = found.tokens["codes"].reshape(4, 4)
            assert (codes[kept] == original[kept]).all() and (codes != original).any()
    nothing = bundle.generate({"codes": photo()}, ["codes"], edit={"codes": np.zeros((8, 8), bool)})
    assert nothing.tokens["codes"].tolist() == original.flatten().tolist()


def test_what_is_made_anew_does_not_depend_on_what_was_there(bundle) -> None:
    """Neither by its tokens nor by the patches of the same picture."""
    other = photo()
    other[:4, :4] = photo(9)[:4, :4]
    box = [0.0, 0.0, 0.5, 0.5]
    codes = [bundle.tokenizers["codes"].encode([p])[0].flatten().numpy() for p in (photo(), other)]
    codes[1][[i for i in range(16) if i not in (0, 1, 4, 5)]] = codes[0][
        [i for i in range(16) if i not in (0, 1, 4, 5)]
    ]
    found = [
        bundle.generate({"photo": p, "codes": maskweave.Tokens(ids)}, ["codes"], edit={"codes": box}).tokens["codes"]
        for p, ids in zip((photo(), other), codes, strict=True)
    ]
    assert found[0].tolist() == found[1].tolist()


def test_edits_differ_by_sample(bundle) -> None:
    inputs, edits = [{"codes": photo(1)}, {"codes": photo(2)}], [{"codes": 0.25}, {"codes": 1.0}]
    together = bundle.generate_batch(inputs, ["codes"], seeds=[7, 8], edit=edits)
    for b in range(2):
        alone = bundle.generate(inputs[b], ["codes"], seed=7 + b, edit=edits[b])
        assert alone.tokens["codes"].tolist() == together[b].tokens["codes"].tolist()
    original = bundle.tokenizers["codes"].encode([photo(1)])[0].flatten().numpy()
    assert (together[0].tokens["codes"] == original).sum() >= 12
    variations = [
        bundle.generate(inputs[0], ["codes"], seed=s, edit=edits[0]).tokens["codes"].tolist() for s in range(3)
    ]
    assert variations[0] != variations[1] != variations[2]


def test_words_of_a_text_are_replaced(bundle) -> None:
    ids = np.array(bundle.tokenizers["caption"].encode(["a red cube on a table"])[0])
    found = bundle.generate({"caption": "a red cube on a table"}, ["caption"], edit={"caption": "red"}, seed=3)
    written = found.tokens["caption"].tolist()
    assert written[0] == ids[0] and (written[-5:] == ids[-5:].tolist() or written[-1] == EOS)


@pytest.mark.parametrize(
    ("inputs", "edit", "message"),
    [
        ({"caption": "a cube"}, {"codes": 0.5}, "edit of 'codes': it is not an input"),
        ({"caption": "a cube"}, {"caption": 0.5}, "edit of 'caption': it is not a target"),
        ({"codes": photo()}, {"sound": 0.5}, "unknown modality 'sound'"),
        (
            {"codes": photo()},
            [{}, {}],
            "edit: found 2 mappings for 1 samples; expected one for each sample, or one for all",
        ),
    ],
)
def test_edits_that_do_not_fit(bundle, inputs, edit, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        bundle.generate(inputs, ["codes"], edit=edit)
    assert message in str(caught.value)


def test_edits_of_all_samples_are_checked_before_any_work(bundle) -> None:
    watch = Mock()
    with pytest.raises(MaskweaveError, match=r"edit of 'caption': 'green' is not a part of the given text"):
        bundle.generate_batch(
            [{"caption": "a red cube"}] * 2,
            ["caption"],
            edit=[{"caption": "red"}, {"caption": "green"}],
            batch_size=1,
            watch=watch,
        )
    watch.assert_not_called()


# Tokens, and tokenizers that are missing.


def test_tokens_go_in_and_come_out_where_a_tokenizer_is_missing(bundle, tmp_path) -> None:
    bare = make_bundle(without=("codes",))
    ids = bundle.tokenizers["codes"].encode([photo()])[0].numpy()
    given = bundle.generate({"codes": photo()}, ["caption"], seed=1)
    for shape in ((4, 4), (16,)):
        found = bare.generate({"codes": maskweave.Tokens(ids.reshape(shape))}, ["caption"], seed=1)
        assert found.tokens["caption"].tolist() == given.tokens["caption"].tolist()
    with pytest.raises(MaskweaveError, match="'codes': this bundle has no tokenizer for it; give its tokens"):
        bare.generate({"codes": photo()}, ["caption"])
    made = bare.generate({"caption": "a cube"}, ["photo", "facts"])
    assert made.tokens["codes"].shape == (16,) and "photo" not in made.values and "facts" in made.values
    made.save(tmp_path)
    assert (np.load(tmp_path / "codes.tokens.npy", allow_pickle=False) == made.tokens["codes"]).all()
    again = bare.generate(made.as_inputs(), ["spectrum"])
    assert {"caption", "codes"} <= set(again.inputs) <= {"caption", "codes", "facts"}
    assert again.sheet().width > 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"photo": np.zeros(16, int)}, "'photo': is of kind patches, which has no tokens"),
        ({"codes": np.zeros(15, int)}, "shape (15,), 0 to 0; expected whole numbers from 0 to 19, shape (4, 4)"),
        ({"codes": np.full((4, 4), 20)}, "20 to 20; expected whole numbers from 0 to 19"),
        ({"codes": np.zeros((4, 4))}, "type float64"),
        ({"caption": np.zeros((2, 2), int)}, "1 to 20 in a row"),
    ],
)
def test_tokens_that_do_not_fit(bundle, given, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        bundle.generate({name: maskweave.Tokens(ids) for name, ids in given.items()}, ["spectrum"])
    assert message in str(caught.value)


def test_results_are_inputs_of_another_bundle(bundle) -> None:
    found = bundle.generate({"caption": "a cube"}, ["codes", "spectrum"], seed=1)
    assert set(found.as_inputs()) == {"caption", "codes", "spectrum"}
    found.values["facts"] = {}  # of which nothing was sound
    assert "facts" not in found.as_inputs()
    other = CATALOG.subset(["codes", "caption"])
    assert set(found.as_inputs(other)) == {"codes", "caption"}
    assert bundle.generate(found.as_inputs(), ["facts"]).inputs["spectrum"].shape == (20,)


# Several results in one, and scores.


def test_an_ensemble_is_the_average_of_its_members(bundle) -> None:
    merged = bundle.ensemble({"photo": photo()}, ["spectrum", "photo"], samples=4, seed=1)
    seeds = [int(s) for s in np.random.SeedSequence(1).generate_state(4)]
    members = bundle.generate_batch([{"photo": photo()}] * 4, ["spectrum", "photo"], seeds=seeds)
    np.testing.assert_allclose(merged["spectrum"], np.mean([m["spectrum"] for m in members], axis=0), atol=1e-6)
    assert len({m["spectrum"].tobytes() for m in members}) > 1
    assert merged["photo"].dtype == np.uint8 and set(merged.values) == {"spectrum", "photo"}
    with pytest.raises(MaskweaveError, match="'caption': values of type 'text' cannot be merged"):
        bundle.ensemble({"photo": photo()}, ["caption"])
    with pytest.raises(MaskweaveError, match="samples is 0; expected a whole number of 1 or more"):
        bundle.ensemble({"photo": photo()}, ["codes"], samples=0)


def test_scores_are_log_likelihoods(bundle) -> None:
    texts = ["a red cube", "a blue table on a red cube"]
    scores = bundle.score_batch([{"photo": photo()}, {}], [{"caption": t, "photo": photo(3)} for t in texts])
    model, caption = bundle.model, CATALOG["caption"]
    for b, (sample, text) in enumerate(zip(({"photo": photo()}, {}), texts, strict=True)):
        ids = np.array(bundle.tokenizers["caption"].encode([text])[0])
        score = scores[b]["caption"]
        assert score.tokens.shape == ids.shape and score.total == pytest.approx(score.tokens.sum(), abs=1e-4)
        fields = {
            **token_states(CATALOG, [sample], bundle.tokenizers),
            "caption": TokenState(np.ones((1, 1), bool), np.full((1, 1), FIRST + 1)),
        }
        inputs, rows = pack_inputs(CATALOG, fields, [frozenset(fields)], np.arange(1))
        read = np.concatenate([[FIRST + 1], ids[:-1]])
        slots, _ = pack(
            {"caption": TokenSlice(np.zeros_like(read), read, np.arange(len(read)))}, {"caption": caption.id}, 1
        )
        with torch.no_grad():
            y = model.decode(slots, model.encode(inputs, rows), inputs)
            ((_, _, logits),) = model.logits(y, slots.index).values()
        expected = logits.log_softmax(dim=1)[torch.arange(len(ids)), torch.from_numpy(ids)]
        np.testing.assert_allclose(score.tokens, expected.numpy(), atol=1e-4)
        assert scores[b]["photo"].tokens.shape == (16,) and (scores[b]["photo"].tokens < 0).all()
    alone = bundle.score({}, {"caption": texts[1]})["caption"]
    assert alone.total == pytest.approx(scores[1]["caption"].total, abs=1e-3)
    with pytest.raises(MaskweaveError, match="the same modalities in all values"):
        bundle.score_batch([{}, {}], [{"caption": "a"}, {"codes": photo()}])


def test_a_target_is_scored_as_if_it_were_not_given(bundle) -> None:
    with_it = bundle.score({"codes": photo(), "caption": "a cube"}, {"codes": photo()})["codes"]
    assert with_it.total == pytest.approx(
        bundle.score({"caption": "a cube"}, {"codes": photo()})["codes"].total, abs=1e-4
    )


def test_bf16_on_request(bundle) -> None:
    found = bundle.generate({"photo": photo()}, ["codes", "caption"], precision="bf16")
    assert found["codes"].shape == (8, 8, 3) and isinstance(found["caption"], str)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_compiled_or_not() -> None:
    """The same tokens whichever way, texts and grids, guided."""
    bundle = make_bundle().to("cuda")
    inputs = [{"photo": photo()}, {"caption": "a cube", "photo": photo(1)}]
    request = {"targets": ["codes", "facts"], "conditions": {"photo": 2.0}, "seeds": [1, 2]}
    plain, compiled = (bundle.generate_batch(inputs, compiled=c, **request) for c in (False, True))
    for a, b in zip(plain, compiled, strict=True):
        assert all(a.tokens[name].tolist() == b.tokens[name].tolist() for name in ("codes", "facts"))
    assert bundle.generate(inputs[0], ["codes"], precision="bf16")["codes"].shape == (8, 8, 3)
