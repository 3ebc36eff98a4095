"""The best of several results: chosen by the likelihood of the inputs, in Python, from the command line, and in evaluations."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from small_bundle import save, scenes, small_bundle

import maskweave
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.evaluate.predicting import predict
from maskweave.files import read_json, read_yaml, write_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import member_seeds
from maskweave.generate.folders import generate_files
from maskweave.modality.catalogs import load_catalog
from maskweave.training.recipe import EvaluationRequest, check_evaluation

CAPTION = {"caption": "1 object: a large red cube."}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Untrained, with guesses that differ."""
    made = small_bundle()
    with torch.no_grad():
        for head in made.model.heads.values():
            head.weight *= 10
    return made


def test_the_result_is_the_member_from_which_the_input_is_likeliest(bundle: Bundle) -> None:
    members = bundle.generate_batch([CAPTION] * 5, ["depth"], seeds=member_seeds(3, 5))
    totals = [bundle.score({"depth": member["depth"]}, CAPTION)["caption"].total for member in members]
    assert len(set(totals)) == 5
    best = bundle.best_of(CAPTION, ["depth"], samples=5, seed=3, batch_size=2)
    np.testing.assert_array_equal(best["depth"], members[int(np.argmax(totals))]["depth"])
    assert best.likelihoods["caption"] == pytest.approx(max(totals), rel=1e-5)
    assert not members[0].likelihoods


def test_inputs_that_decide_are_those_that_can_be_predicted_or_are_named(bundle: Bundle) -> None:
    """Thoughts do not count: what they show would say the same of every result."""
    sample = {**CAPTION, "rgb": scenes(1)[0]["rgb"], "depth": scenes(1)[0]["depth"]}
    assert bundle.best_of(sample, ["global"], samples=2).likelihoods.keys() == {"caption", "depth"}
    assert bundle.best_of(sample, ["global"], samples=2, by=["depth"]).likelihoods.keys() == {"depth"}
    out = bundle.best_of(CAPTION, ["global"], samples=2, think=["depth"])
    given = {"global": out["global"]}
    assert out.likelihoods["caption"] == pytest.approx(bundle.score(given, CAPTION)["caption"].total, rel=1e-5)


@pytest.mark.parametrize(
    ("inputs", "targets", "more", "message"),
    [
        ({"rgb": scenes(1)[0]["rgb"]}, ["depth"], {}, "none of the inputs rgb can choose among results"),
        (CAPTION, ["caption"], {}, "none of the inputs caption can choose"),
        (CAPTION, ["depth"], {"by": ["rgb"]}, "by: 'rgb' cannot choose among results; expected .*: caption"),
        (CAPTION, ["depth"], {"samples": 0}, "samples"),
        (CAPTION, ["depth"], {"samples": 10**6}, "samples"),
    ],
)
def test_what_cannot_be_chosen(inputs: dict, targets: list[str], more: dict, message: str, bundle: Bundle) -> None:
    with pytest.raises(MaskweaveError, match=message):
        bundle.best_of(inputs, targets, **more)


def test_results_that_cannot_be_decoded_are_judged_by_their_tokens(bundle: Bundle) -> None:
    blind = small_bundle()
    blind.model.load_state_dict(bundle.model.state_dict())
    del blind.tokenizers["depth"]
    members = blind.generate_batch([CAPTION] * 4, ["depth"], seeds=member_seeds(2, 4))
    assert not any(member.values for member in members)
    given = [{"depth": maskweave.Tokens(member.tokens["depth"])} for member in members]
    totals = [blind.score(one, CAPTION)["caption"].total for one in given]
    best = blind.best_of(CAPTION, ["depth"], samples=4, seed=2)
    assert best.likelihoods["caption"] == pytest.approx(max(totals), rel=1e-5)
    np.testing.assert_array_equal(best.tokens["depth"], members[int(np.argmax(totals))].tokens["depth"])


def test_an_untrained_way_back_is_told_or_refused(tmp_path: Path) -> None:
    folder = save(small_bundle(), tmp_path / "bundle")
    mixture = {"inputs": {"caption": 1}, "targets": {"depth": 1}}
    write_yaml(
        folder / "recipe.yaml",
        {"model": {"masking": {"input_tokens": 64, "target_tokens": 64, "mixtures": [mixture]}}},
    )
    bundle = maskweave.load(folder)
    with pytest.warns(UserWarning, match="caption from depth was never trained"):
        bundle.best_of(CAPTION, ["depth"], samples=2)
    with pytest.raises(MaskweaveError, match="caption from depth was never trained"):
        bundle.best_of(CAPTION, ["depth"], samples=2, on_untrained="refuse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bundle.generate(CAPTION, ["depth"])


def test_files_and_the_command(bundle: Bundle, tmp_path: Path) -> None:
    words = ["--input", "caption=1 object: a large red cube.", "--target", "depth", "--best-of", "3", "--seed", "4"]
    saved = save(bundle, tmp_path / "bundle")
    assert main(["generate", str(saved), *words, "--batch", "2", "--out", str(tmp_path / "out")]) == 0
    best = maskweave.load(saved).best_of(CAPTION, ["depth"], samples=3, seed=4)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "depth.npy"), best["depth"])
    assert read_json(tmp_path / "out" / "likelihoods.json") == pytest.approx(best.likelihoods, rel=1e-5)
    with pytest.raises(MaskweaveError, match="merge samples, or choose one of them"):
        generate_files(bundle, CAPTION, ["depth"], tmp_path / "both", best_of=2, ensemble=2)
    with pytest.raises(MaskweaveError, match="can choose among results"):
        generate_files(bundle, CAPTION, ["caption"], tmp_path / "none", best_of=2)
    with pytest.raises(MaskweaveError, match="by: 'rgb' cannot choose"):
        generate_files(bundle, CAPTION, ["depth"], tmp_path / "none", best_of=2, by=["rgb"])
    with pytest.raises(MaskweaveError, match="best_of is 1; raise best_of"):
        generate_files(bundle, CAPTION, ["depth"], tmp_path / "none", by=["caption"])
    assert not (tmp_path / "none").exists()


def test_named_inputs_decide_on_the_command_line(bundle: Bundle, tmp_path: Path) -> None:
    saved, texts = save(bundle, tmp_path / "bundle"), tmp_path / "texts"
    texts.mkdir()
    (texts / "one.txt").write_text(CAPTION["caption"], encoding="utf-8")
    np.save(tmp_path / "depth.npy", scenes(1)[0]["depth"])
    words = ["generate", str(saved), "--input", f"caption={texts}/", "--input", f"depth={tmp_path}/depth.npy"]
    words += ["--target", "global", "--best-of", "2", "--best-of-by", "caption", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert read_json(tmp_path / "out/one/likelihoods.json").keys() == {"caption"}
    assert read_yaml(tmp_path / "out/request.yaml")["by"] == ["caption"]


def test_evaluations(bundle: Bundle) -> None:
    found = predict(bundle, [CAPTION, CAPTION], ["global"], 5, lambda n: None, ["depth"], best_of=3)
    for seed, values in zip((5, 6), found, strict=True):
        best = bundle.best_of(CAPTION, ["global"], samples=3, seed=seed, think=["depth"])
        np.testing.assert_array_equal(values["global"], best["global"])
    catalog = load_catalog("scenes")
    check_evaluation(EvaluationRequest(["caption"], ["tok_rgb"], best_of=8), catalog, None, "here")
    for request, message in (
        (EvaluationRequest(["rgb"], ["tok_rgb"], best_of=8), "cannot predict any of the inputs"),
        (EvaluationRequest(["caption"], ["depth"], best_of=0), "best_of must be from 1"),
        (EvaluationRequest(["caption"], ["depth"], best_of=2, ensemble=2), "1 beside an ensemble"),
    ):
        with pytest.raises(MaskweaveError, match=message):
            check_evaluation(request, catalog, None, "here")
