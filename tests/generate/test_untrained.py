"""Requests that a training never saw: told once, refused, or ignored."""

import warnings
from pathlib import Path

import pytest
from small_bundle import save, scenes, small_bundle

import maskweave
from maskweave.errors import MaskweaveError
from maskweave.files import write_yaml
from maskweave.generate.bundle import Bundle

MASKING = {
    "input_tokens": 64,
    "target_tokens": 64,
    "mixtures": [{"inputs": {"rgb": 1}, "targets": {"depth": 1}}, {"inputs": {"depth": 1}, "targets": {"caption": 1}}],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = save(small_bundle(), tmp_path / "bundle")
    write_yaml(folder / "recipe.yaml", {"model": {"masking": MASKING}})
    return maskweave.load(folder)


def test_an_untrained_path_is_told_once(bundle: Bundle) -> None:
    sample = {"rgb": scenes(1)[0]["rgb"]}
    with pytest.warns(UserWarning, match="caption from rgb was never trained"):
        first = bundle.generate(sample, ["caption"], seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bundle.generate(sample, ["caption"], seed=3)["caption"] == first["caption"]
        bundle.generate(sample, ["depth"])
        bundle.generate({"depth": scenes(1)[0]["depth"]}, ["caption"])


def test_earlier_targets_join_the_inputs_of_a_chain(bundle: Bundle) -> None:
    sample = {"rgb": scenes(1)[0]["rgb"]}
    with pytest.raises(MaskweaveError, match=r"caption from rgb \+ depth was never trained.*chain=False"):
        bundle.generate(sample, ["depth", "caption"], on_untrained="refuse")
    with pytest.raises(MaskweaveError, match=r"caption from rgb was never trained"):
        bundle.generate(sample, ["depth", "caption"], chain=False, on_untrained="refuse")
    assert bundle.generate(sample, ["depth"], on_untrained="refuse")["depth"].shape == (64, 64)


def test_thoughts_join_the_inputs_without_a_chain(bundle: Bundle) -> None:
    sample = {"rgb": scenes(1)[0]["rgb"]}
    with pytest.raises(MaskweaveError, match=r"caption from rgb \+ depth was never trained"):
        bundle.generate(sample, ["caption"], think=["depth"], chain=False, on_untrained="refuse")


def test_it_may_be_ignored_and_is_not_known_of_other_bundles(bundle: Bundle) -> None:
    sample = {"rgb": scenes(1)[0]["rgb"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bundle.generate(sample, ["caption"], on_untrained="ignore")
        small_bundle().generate(sample, ["caption"])
    with pytest.raises(MaskweaveError, match="on_untrained is 'no'; expected warn or refuse or ignore"):
        bundle.generate(sample, ["caption"], on_untrained="no")  # type: ignore[arg-type]
