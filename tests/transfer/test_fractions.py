"""Label efficiency: shares are parts of each other, and each has a row in the table and a point in the figure."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_transfer import make_bundle, write_recipe

from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow
from maskweave.transfer.fractions import CurvePoint, counts, parse_fractions, write_curve


def test_shares() -> None:
    assert parse_fractions("1,0.1,0.01") == [0.01, 0.1, 1]
    assert counts([0.01, 0.5, 1], 400) == [4, 200, 400]
    for text in ("0,1", "2", "a", ""):
        with pytest.raises(MaskweaveError, match="expected shares above 0 up to 1, such as 0.01,0.1,1"):
            parse_fractions(text)
    with pytest.raises(MaskweaveError, match="0.01 of 100 training examples are 1, expected 2 or more"):
        counts([0.01], 100)


def pictures(folder: Path) -> Path:
    for label in range(2):
        for i in range(24):
            path = folder / f"class{label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 40, 3), 40 + 150 * label + i, np.uint8)).save(path)
    return folder


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, folder = make_bundle(tmp_path / "start"), pictures(tmp_path / "pictures")
    train = {"steps": 3, "batch_size": 8, "checkpoint_every": 0}
    recipe = write_recipe(tmp_path, start, data={"source": str(folder), "validation": 8}, train=train)
    out = tmp_path / "curve"
    assert main(["transfer", str(recipe), "--fractions", "0.25,1", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "0.25 (10)" in table and "1 (40)" in table and "accuracy" in table
    points = json.loads((out / "fractions.json").read_text(encoding="utf-8"))
    assert [p["examples"] for p in points] == [10, 40] and set(points[0]["scores"]) == {"accuracy"}
    stored = json.loads((out / "fraction-0.25" / "evaluation.json").read_text(encoding="utf-8"))
    assert stored[0]["value"] == points[0]["scores"]["accuracy"]
    assert Image.open(out / "fractions.png").width > 100
    words = ["probe", str(start), str(folder), "--inputs", "rgb", "--validation", "8", "--fractions", "0.25,1"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "linear-probe accuracy" in table and "0.25 (10)" in table
    points = json.loads((start / "fractions.json").read_text(encoding="utf-8"))
    assert points[1]["scores"]["linear-probe accuracy"] == 1.0


def test_a_constant_without_a_score_is_null_in_the_file(tmp_path: Path) -> None:
    def row(metric: str, constant: float) -> EvaluationRow:
        return EvaluationRow(["rgb"], "count", metric, "lower", 0.5, constant, 0.0, 8, 0)

    write_curve([CurvePoint(0.1, 4, [row("MAE", 2.5), row("NLL", float("nan"))])], tmp_path)
    (point,) = json.loads((tmp_path / "fractions.json").read_text(encoding="utf-8"))
    assert point["constants"] == {"MAE": 2.5, "NLL": None} and point["scores"] == {"MAE": 0.5, "NLL": 0.5}
