"""The study of orders and schemes: scenes made by code and a data set in a folder are scored alike, and every scheme runs."""

from pathlib import Path

import pytest
import sampling as study

from maskweave.cli.main import main


def test_the_samples_of_a_folder_are_scored_as_those_of_code(tmp_path: Path) -> None:
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "3", "--seed", "12345"]) == 0
    assert main(["data", "import", str(tmp_path / "files"), str(tmp_path / "set"), "--catalog", "scenes"]) == 0
    request = study.Request(("rgb",), (), "depth", "")
    found = [
        study.trial({**study.SCHEMES["halton"], "steps": 2}, 0, "scenes", source, 3, request)
        for source in ("scenes", str(tmp_path / "set"))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-3) and 0 < found[0]["AbsRel"] < 1 and found[0]["samples"] == 3


@pytest.mark.slow
def test_pictures_are_scored_by_what_the_model_reads_from_them() -> None:
    request = study.Request(("caption",), ("boxes",), "tok_rgb", "caption")
    for scheme, settings in study.SCHEMES.items():
        found = study.trial({**settings, "steps": study.LEAST_STEPS}, 1, "scenes", "scenes", 1, request)
        assert 0 <= found["F1"] <= 1, scheme
