"""Reference cases: folders with the inputs and outputs of the published implementations.

They are looked for in the folder that `MASKWEAVE_PARITY` names, by default `../shared/parity` beside the repository. A test
takes `tokenizer_case`, `fourm_case`, `backbone_case` or `m3ae_case`, and runs once for each case of that kind, or is skipped where there is none.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from parity_cases import FOLDER, VARIABLE, cases_in
from reference_case import Case, read_config
from safetensors.torch import load_file
from torch import Tensor


def kind(folder: Path) -> str:
    """What a case is of, by the keys of its configuration and what it expects."""
    config = read_config(folder)
    if "enc_type" in config:
        return "tokenizer"
    if "domains_in" not in config:
        return "m3ae"
    return "fourm" if "loss" in load_file(folder / "expected.safetensors") else "backbone"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture in ("tokenizer_case", "fourm_case", "backbone_case", "m3ae_case"):
        if fixture in metafunc.fixturenames:
            wanted = fixture.removesuffix("_case")
            found = [folder for folder in cases_in(FOLDER) if kind(folder) == wanted]
            missing = pytest.mark.skip(reason=f"no {wanted} case in {FOLDER}; set {VARIABLE}")
            cases = [pytest.param(folder, id=folder.name) for folder in found]
            metafunc.parametrize(fixture, cases or [pytest.param(None, marks=missing)], indirect=True, scope="session")


def _case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    place = tmp_path_factory.mktemp(request.param.name)
    yield Case(request.param, place)
    shutil.rmtree(place)  # some are large


tokenizer_case = pytest.fixture(scope="session", name="tokenizer_case")(_case)
fourm_case = pytest.fixture(scope="session", name="fourm_case")(_case)
backbone_case = pytest.fixture(scope="session", name="backbone_case")(_case)
m3ae_case = pytest.fixture(scope="session", name="m3ae_case")(_case)


@pytest.fixture
def assert_near():
    """Floats within `tolerance` absolute or relative, as the cases' README has it."""

    def check(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
        assert found.shape == expected.shape, (tuple(found.shape), tuple(expected.shape))
        difference = (found.double() - expected.double()).abs()
        allowed = tolerance * torch.maximum(torch.ones(()).double(), expected.double().abs())
        worst = (difference / allowed).max()
        assert worst <= 1, f"{worst * tolerance:.2e} away, {tolerance:g} allowed"

    return check
