"""Paths that a training's mixtures cover, against probabilities worked out by hand."""

import pytest
from small_bundle import catalog

from maskweave.masking.fourm import MaskingConfig, Mixture
from maskweave.masking.paths import TrainedPaths

TWO = [
    Mixture({"rgb": 1.0}, {"depth": 1.0}, weight=3.0),
    Mixture({"caption": 1.0, "depth": 1.0}, {"caption": 1.0}, weight=1.0),
    Mixture({"rgb": 1.0}, {"caption": 1.0}, weight=0.0),
]


def paths(masking: MaskingConfig) -> TrainedPaths:
    return TrainedPaths(catalog("rgb", "depth", "caption"), masking)


def test_shares_are_those_of_the_mixtures() -> None:
    found = paths(MaskingConfig(32, 32, TWO))
    assert found.share(["rgb"], "depth") == pytest.approx(0.75, abs=0.02)
    assert found.share(["rgb"], "caption") == 0 and found.share(["caption", "rgb"], "depth") == 0
    # A symmetric Dirichlet split of 32 tokens over two modalities gives one of them nothing in about 2 of 33 cases.
    assert 0.19 < found.share(["caption", "depth"], "caption") < 0.25
    assert found.problem(["rgb"], "depth") == ""


def test_what_no_mixture_has_was_never_trained() -> None:
    found = paths(MaskingConfig(32, 32, TWO))
    assert found.problem(["rgb"], "caption").startswith("caption from rgb was never trained: no mixture")
    assert found.problem(["rgb", "depth"], "depth").startswith("depth from rgb + depth was never trained")
    assert found.problem([], "depth").startswith("depth from nothing was never trained")


def test_samples_without_inputs_are_a_path() -> None:
    found = paths(MaskingConfig(32, 32, TWO[:1], unconditional=0.25))
    assert found.share([], "depth") == pytest.approx(0.25, abs=0.02)
    assert found.share(["rgb"], "depth") == pytest.approx(0.75, abs=0.02)
    assert found.problem([], "depth") == ""


def test_rare_paths_are_told_with_their_share() -> None:
    rare = Mixture({"rgb": 1.0}, {"caption": 1.0}, weight=0.0005)
    found = paths(MaskingConfig(32, 32, [Mixture({"rgb": 1.0}, {"depth": 1.0}), rare]))
    assert found.problem(["rgb"], "caption").startswith("caption from rgb was hardly trained: about 1 of ")
    rarer = Mixture({"rgb": 1.0}, {"caption": 1.0}, weight=1e-7)
    found = paths(MaskingConfig(32, 32, [Mixture({"rgb": 1.0}, {"depth": 1.0}), rarer]))
    assert "fewer than 1 of 8,192 training samples" in found.problem(["rgb"], "caption")
