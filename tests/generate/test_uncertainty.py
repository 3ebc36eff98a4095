"""Uncertainty: probabilities of generated tokens, their entropies, spreads of ensembles, and calibration by temperature."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from small_bundle import scenes, small_bundle
from tiny_catalog import tiny
from value_helpers import value_of

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import Bundle
from maskweave.generate.calibration import calibrate
from maskweave.generate.token_state import Tokens
from maskweave.generate.uncertainty import entropies
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import Decoding

SAMPLES = [scenes(12)[i] for i in range(12)]
PICTURE = {"rgb": SAMPLES[0]["rgb"]}


@pytest.fixture
def bundle() -> Bundle:
    """Untrained, with guesses that differ."""
    made = small_bundle()
    with torch.no_grad():
        for head in made.model.heads.values():
            head.weight *= 10
    return made


def test_entropies() -> None:
    shares = np.array([[0.5, 0.5, 0, 0], [0.25] * 4, [1, 0, 0, 0], [np.nan] * 4], np.float32)
    assert entropies(shares)[:3] == pytest.approx([np.log(2), np.log(4), 0], abs=1e-6)
    assert np.isnan(entropies(shares)[3])


def test_probabilities_of_generated_tokens(bundle) -> None:
    """Of a grid in one step, they are softmax of the logits that `score` uses; a text's are those of its own tokens; what is sampled is the same without."""
    once = {"depth": Decoding("roar", steps=1, temperature=0)}
    out = bundle.generate(PICTURE, ["depth", "caption"], decoding=once, return_probs=True, chain=False)
    plain = bundle.generate(PICTURE, ["depth", "caption"], decoding=once, chain=False)
    assert not plain.probabilities and (plain.tokens["caption"] == out.tokens["caption"]).all()
    for name in ("depth", "caption"):
        shares, ids = out.probabilities[name], out.tokens[name].flatten()
        assert shares.shape == (len(ids), bundle.catalog.vocabulary_size(name))
        assert shares.sum(axis=1) == pytest.approx(np.ones(len(ids)), abs=1e-5)
        scored = bundle.score(PICTURE, {name: Tokens(ids)})[name]
        assert np.log(shares[np.arange(len(ids)), ids]) == pytest.approx(scored.tokens, abs=1e-4)
    assert out.entropy("depth").shape == (8, 8) and out.entropy("caption").shape == out.tokens["caption"].shape
    with pytest.raises(MaskweaveError, match="'depth' has no probabilities in this result; ask for them"):
        plain.entropy("depth")


def test_given_tokens_have_no_probabilities(bundle) -> None:
    depth = SAMPLES[0]["depth"]
    out = bundle.generate({**PICTURE, "depth": depth}, ["depth"], edit={"depth": [0, 0, 0.5, 0.5]}, return_probs=True)
    known = np.isnan(out.entropy("depth"))
    assert not known[:4, :4].any() and known[4:].all() and known[:, 4:].all()
    text = bundle.generate(
        {"caption": "1 object: a red cube."}, ["caption"], edit={"caption": "red"}, return_probs=True
    )
    assert 0 < np.isnan(text.entropy("caption")).sum() < len(text.tokens["caption"])


def test_ensembles_have_spreads_and_mean_probabilities(bundle, tmp_path) -> None:
    members = bundle.generate_batch([PICTURE] * 3, ["depth"], seeds=[1, 2, 3], return_probs=True)
    merged = maskweave.generate.ensemble.merge_results(members)
    assert merged.spread["depth"] == pytest.approx(np.std([m["depth"] for m in members], axis=0), abs=1e-5)
    assert merged.probabilities["depth"] == pytest.approx(np.mean([m.probabilities["depth"] for m in members], axis=0))
    merged.save(tmp_path / "out")
    assert (np.load(tmp_path / "out" / "depth-entropy.npy") == merged.entropy("depth")).all()
    assert (tmp_path / "out" / "depth-spread.picture.png").is_file()
    assert merged.sheet().width > dataclasses.replace(merged, spread={}, probabilities={}).sheet().width


def test_ensembles_leave_out_thoughts_that_cannot_be_merged(bundle) -> None:
    merged = bundle.ensemble(PICTURE, ["depth"], samples=2, think=["caption"])
    assert list(merged.values) == ["depth"]
    with pytest.raises(MaskweaveError, match="'caption': values of type 'text' cannot be merged"):
        bundle.ensemble(PICTURE, ["depth", "caption"], samples=2)


def test_spreads_by_value_type() -> None:
    classes = value_of("classes", size=(1, 4), classes=("a", "b", "c"))
    votes = [np.array([[0, 1, 2, 0]]), np.array([[0, 1, 1, 1]]), np.array([[0, 2, 0, 1]])]
    assert classes.spread(votes) == pytest.approx(np.array([[0, 1 / 3, 2 / 3, 1 / 3]]))
    many = value_of("map", size=(1, 1), channels=2, range=(0, 10))
    values = [np.array([[[1.0, 4.0]]]), np.array([[[3.0, 4.0]]])]
    assert many.spread(values) == pytest.approx(np.array([[np.sqrt((1 + 0) / 2)]]))
    assert tiny()["caption"].value.spread(["a", "b"]) is None


def test_the_calibrated_temperature_minimizes_the_likelihood_of_held_out_tokens(bundle, tmp_path) -> None:
    """Of truths that the model samples at temperature 2, it is about 2, and scipy's minimum over the same logits."""
    hot = {"depth": Decoding("roar", steps=1, temperature=2.0)}
    pictures = [{"rgb": sample["rgb"]} for sample in SAMPLES]
    sampled = bundle.generate_batch(pictures, ["depth"], decoding=hot, return_probs=True)
    truths = [{**picture, "depth": Tokens(out.tokens["depth"])} for picture, out in zip(pictures, sampled, strict=True)]
    found = bundle.calibrate(truths, ["rgb"], ["depth"], batch_size=5)["depth"]
    assert bundle.calibration == {"depth": found.temperature}
    log_nV = torch.cat([torch.from_numpy(out.probabilities["depth"]) for out in sampled]).double().log()
    ids_n = torch.cat([torch.from_numpy(out.tokens["depth"]).flatten() for out in sampled])
    nll = lambda t: float(torch.nn.functional.cross_entropy(log_nV.clamp_min(-1e4) / t, ids_n))  # noqa: E731
    best = minimize_scalar(nll, bounds=(0.1, 10), method="bounded")
    assert found.tokens == len(ids_n) == 768 and found.before == pytest.approx(nll(1), rel=1e-3)
    assert found.temperature == pytest.approx(best.x, rel=5e-3) and found.temperature == pytest.approx(2, rel=0.15)
    assert found.after == pytest.approx(best.fun, abs=1e-3) and best.fun < nll(1) - 0.01
    once = {"depth": Decoding("roar", steps=1, temperature=0)}
    bundle.calibration.clear()

    before = bundle.generate(PICTURE, ["depth"], decoding=once, return_probs=True)
    bundle.calibration["depth"] = 2.0
    after = bundle.generate(PICTURE, ["depth"], decoding=once, return_probs=True)
    assert (after.tokens["depth"] == before.tokens["depth"]).all(), "what is sampled stays the same"
    softer = torch.from_numpy(before.probabilities["depth"]).double().log().div(2).softmax(dim=-1)
    assert after.probabilities["depth"] == pytest.approx(softer.numpy(), abs=1e-5)
    bundle.save(tmp_path / "saved")
    assert maskweave.load(tmp_path / "saved").calibration == {"depth": 2.0}
    (tmp_path / "saved" / "calibration.yaml").write_text("temperatures: {dept: 2}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"calibration.yaml: the temperature of 'dept' is 2.0; expected"):
        maskweave.load(tmp_path / "saved")


@pytest.mark.parametrize("given", ["entry", "decoding", "conditions"])
def test_calibration_uses_the_guidance_of_generation(bundle, given) -> None:
    """Of truths that are sampled from the guided distribution, which kept probabilities have, it is 1: for grids, and for texts of which each token is guided."""
    guided = {name: dataclasses.replace(bundle.catalog[name].decoding, steps=1, temperature=1.0, top_p=1.0, guidance=3.0) for name in ("depth", "caption")}  # fmt: skip
    pictures = [{"rgb": sample["rgb"]} for sample in SAMPLES]
    if given == "entry":
        entries = [dataclasses.replace(m, decoding=guided.get(m.name, m.decoding)) for m in bundle.catalog.values()]
        catalog = Catalog(entries, bundle.catalog.vocabularies.values(), "test")
        bundle = Bundle(catalog, bundle.tokenizers, bundle.model)
    options = {"entry": {}, "decoding": {"decoding": guided}, "conditions": {"conditions": {"rgb": 3.0}}}[given]
    sampled = bundle.generate_batch(pictures, ["depth", "caption"], decoding=guided, chain=False)
    tokens = [{name: Tokens(ids) for name, ids in out.tokens.items() if len(ids)} for out in sampled]
    truths = [{**picture, **ids} for picture, ids in zip(pictures, tokens, strict=True)]
    found = bundle.calibrate(truths, ["rgb"], ["depth", "caption"], **options)
    assert found["depth"].temperature == pytest.approx(1, rel=0.1)
    assert found["caption"].temperature == pytest.approx(1, rel=0.1)
    plain = bundle.calibrate(truths, ["rgb"], ["depth", "caption"], conditions={})
    assert plain["depth"].temperature > 1.2 and plain["caption"].temperature != found["caption"].temperature


def test_calibration_needs_samples_that_have_everything(bundle) -> None:
    with pytest.raises(MaskweaveError, match="none of 1 samples has depth and the inputs rgb"):
        bundle.calibrate([{"rgb": SAMPLES[0]["rgb"]}], ["rgb"], ["depth"])
    with pytest.raises(MaskweaveError, match="unknown modality 'dept'"):
        bundle.calibrate(SAMPLES, ["rgb"], ["dept"])
    assert (
        calibrate(bundle._engine({}), bundle.tokenizers, SAMPLES[:2], ["rgb"], ["depth"], 1, {})["depth"].tokens == 128
    )
