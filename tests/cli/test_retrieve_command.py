import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from small_bundle import save, small_bundle

from maskweave.cli.main import main
from maskweave.config import plain
from maskweave.evaluate.run import read_recipe
from maskweave.files import read_yaml, write_yaml
from maskweave.generate.bundle import load
from maskweave.training.recipe import load_recipe
from maskweave.training.sources import open_source


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_bundle(), tmp_path_factory.mktemp("runs") / "small")


def test_index_query_and_evaluate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "index"
    words = ["retrieve", "index", str(run), "scenes", "--out", str(index), "--samples", "12", "--scenes-seed", "3"]
    assert main([*words, "--views", "rgb,caption", "--shard-size", "5"]) == 0
    assert "rgb 12, caption 12" in capsys.readouterr().out
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "12", "--seed", "3"]) == 0
    capsys.readouterr()
    sheet = tmp_path / "sheets" / "found.png"
    query = ["retrieve", "query", str(index), "--input", f"rgb={tmp_path / 'files' / 'rgb' / '3-0000004.png'}"]
    more = ["--input", "caption=a cube", "--weight", "caption=0.1", "--count", "3", "--out", str(sheet)]
    assert main([*query, *more]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[::2] == ["1", "3-0000004"] and len(out.splitlines()) == 4
    assert Image.open(sheet).format == "PNG"
    assert main(["retrieve", "evaluate", str(index), "--query", "rgb", "--query", "caption,depth"]) == 0
    assert "caption + depth" in capsys.readouterr().out
    rows = json.loads((index / "recall.json").read_text(encoding="utf-8"))
    assert [row["query"] for row in rows] == [["rgb"], ["caption", "depth"]]
    assert rows[0]["at"]["1"] == 1 and rows[0]["chance"]["1"] == pytest.approx(1 / 12)


def test_the_held_out_part_of_a_run_is_indexed(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, index = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "index"
    recipe, data = read_yaml(run / "recipe.yaml"), tmp_path / "data"
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "20", "--seed", "3"]) == 0
    assert main(["data", "import", str(tmp_path / "files"), str(data), "--catalog", "scenes"]) == 0
    split = {"group": "[0-9]$"}  # scenes whose numbers end alike are in one part
    recipe["data"] |= {"source": str(data), "samples": 0, "validation": 6, "split": split}
    write_yaml(run / "recipe.yaml", recipe)
    words = ["retrieve", "index", str(run), "--out", str(index), "--views", "rgb", "--device", "cpu"]
    assert main([*words, "--held-out"]) == 0
    shards = [json.loads(path.read_text(encoding="utf-8")) for path in index.glob("shard-*.json")]
    kept = {key for shard in shards for key in shard["keys"]}
    built = read_recipe(run)
    held_out, train = (open_source(built, load(run).catalog, part) for part in ("validation", "train"))
    assert kept == {held_out.key(i) for i in range(len(held_out))} and len(kept) == 6
    assert not kept & {train.key(i) for i in range(len(train))}
    assert len({key[-1] for key in kept}) == 3
    assert main(["retrieve", "evaluate", str(index), "--query", "rgb", "--query", "caption"]) == 0
    rows = json.loads((index / "recall.json").read_text(encoding="utf-8"))
    assert rows[0]["at"]["1"] == 1 and [row["vectors"] for row in rows] == [6, 6]
    recipe["data"]["split"] = {}
    write_yaml(run / "recipe.yaml", recipe)
    capsys.readouterr()
    assert main(["retrieve", "evaluate", str(index), "--query", "rgb"]) == 1
    assert f"the held-out part of {run} has changed since it was indexed" in capsys.readouterr().err


def test_an_index_opens_its_data_from_any_folder(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    run = Path(shutil.copytree(tiny_run, "run"))
    assert main(["data", "scenes", "files", "--count", "8", "--seed", "3"]) == 0
    assert main(["data", "import", "files", "data", "--catalog", "scenes"]) == 0
    Path("mine.yaml").write_text("catalog: scenes\ndata: {source: data, validation: 4}\n", encoding="utf-8")
    write_yaml(run / "recipe.yaml", plain(load_recipe("mine.yaml")))
    words = ["retrieve", "index", "run", "--views", "rgb", "--device", "cpu", "--held-out", "--out"]
    assert main([*words, "index"]) == 0
    monkeypatch.chdir(tmp_path / "b")
    search = ["retrieve", "evaluate", "../a/index", "--query", "rgb"]
    assert main(search) == 0
    capsys.readouterr()
    moved = "of the index cannot be {}; if it has moved, move it back or index {} again: "
    (tmp_path / "a" / "data").rename(tmp_path / "b" / "data")
    assert main(search) == 1
    assert moved.format("opened", "it") + str(tmp_path / "a" / "data") in capsys.readouterr().err
    (tmp_path / "a" / "run").rename(tmp_path / "b" / "run")
    assert main(search) == 1
    assert moved.format("loaded", "the data") + str(tmp_path / "a" / "run") in capsys.readouterr().err
    recipe = read_yaml(Path("run/recipe.yaml"))
    write_yaml(Path("run/recipe.yaml"), recipe | {"data": recipe["data"] | {"source": "data"}})
    assert main([*words, "other"]) == 1, "of a recipe that was edited"
    assert (
        f"data.source is the relative path 'data', but an index must find its data from any folder; write an absolute path, such as {tmp_path}/b/data"
        in capsys.readouterr().err
    )


def test_data_that_changed_are_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "3"]) == 0
    pictures, index = tmp_path / "files" / "rgb", str(tmp_path / "index")
    assert main(["retrieve", "index", str(run), str(pictures), "--out", index]) == 0
    next(pictures.iterdir()).rename(pictures / "other.png")
    capsys.readouterr()
    assert main(["retrieve", "evaluate", index, "--query", "rgb"]) == 1
    assert "has changed since it was indexed; index it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retrieve", "index", "RUN", "scenes"], "--out is missing"),
        (["retrieve", "index", "RUN", "--out", "OUT"], "give either DATA or --held-out"),
        (["retrieve", "index", "RUN", "scenes", "--held-out", "--out", "OUT"], "give either DATA or --held-out"),
        (["retrieve", "index", "RUN", "--held-out", "--out", "OUT"], "has no recipe.yaml, so it is not a run"),
        (["retrieve", "index", "RUN", "scenes", "--out", "OUT", "--shard-size", "0"], "--shard-size must be 1 or more"),
        (["retrieve", "index", "RUN", "nowhere", "--out", "OUT"], "nowhere: no such folder"),
        (["retrieve", "query", "OUT"], "--input is missing"),
        (["retrieve", "query", "OUT", "--input", "caption"], "expected NAME=VALUE"),
        (["retrieve", "query", "OUT", "--input", "caption=x", "--weight", "caption=much"], "expected a number"),
        (["retrieve", "query", "OUT", "--input", "caption=x"], "has no index.json"),
        (["retrieve", "evaluate", "OUT"], "--query is missing"),
        (["data", "features", "recipe.yaml"], "--encoder is missing"),
    ],
)
def test_misuse_is_told_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    folders = {"RUN": str(run), "OUT": str(tmp_path / "index")}
    assert main([folders.get(word, word) for word in words]) == 1
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.startswith("maskweave ")


def test_an_index_is_aligned_or_says_why_not(
    run: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scenes", "--samples", "6", "--views", "rgb", "--device", "cpu", "--out"]

    def index(*more: str) -> str:
        assert main(["retrieve", "index", *more]) == 0
        return capsys.readouterr().out

    few = index(str(tiny_run), *words, str(tmp_path / "few"))
    assert "\nnot aligned: fewer than 100 usable samples have rgb and another modality; name data with --align" in few
    cause = f"the run's training data cannot be read: {run}: has no recipe.yaml, so it is not a run; name data"
    assert f"\nnot aligned: {cause}" in index(str(run), *words, str(tmp_path / "no recipe"))
    assert index(str(run), *words, str(tmp_path / "none"), "--align", "none") == f"{tmp_path / 'none'}: rgb 6\n"
    assert main(["retrieve", "index", str(run), *words, str(tmp_path / "no"), "--align", str(tmp_path / "lost")]) == 1
    assert f"{tmp_path / 'lost'}: no such folder" in capsys.readouterr().err
    data = str(tmp_path / "data")
    assert main(["data", "scenes", str(tmp_path / "files"), "--count", "110", "--seed", "3"]) == 0
    assert main(["data", "import", str(tmp_path / "files"), data, "--catalog", "scenes"]) == 0
    capsys.readouterr()
    own = str(tmp_path / "own")
    out = index(str(run), data, "--samples", "50", "--views", "rgb", "--out", own, "--whole", "--align", data)
    assert (
        f"aligned with 110 samples of {data}; recall at 10 among a fifth of them, before and after:\n  depth → rgb: "
        in out
    )
    assert "(of 22; chance 0.455)" in out
    assert json.loads((tmp_path / "own" / "index.json").read_text(encoding="utf-8"))["quarters"] is False
    assert main(["retrieve", "evaluate", own, "--query", "caption"]) == 0
    assert "50 of 50 samples have the names of samples that the modalities were aligned with" in capsys.readouterr().err


def test_by_default_an_index_is_aligned_with_the_training_data_of_the_run(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    recipe = read_yaml(run / "recipe.yaml")
    recipe["data"]["samples"] = 120
    write_yaml(run / "recipe.yaml", recipe)
    words = ["retrieve", "index", str(run), "scenes", "--samples", "8", "--views", "rgb", "--out", str(tmp_path / "i")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "aligned with 120 samples of the run's training data; recall at 10 among a fifth of them" in told
    recipe["data"]["source"] = str(tmp_path / "lost")
    write_yaml(run / "recipe.yaml", recipe)
    (tmp_path / "i" / "shard-00000.json").unlink()
    assert main(words) == 0, "it goes on without the data"
    assert capsys.readouterr().out == told
    recipe["data"]["source"] = "s3://b/data"
    write_yaml(run / "recipe.yaml", recipe)
    assert main([*words[:-1], str(tmp_path / "other")]) == 0
    assert "s3://b/data is not on this machine" in capsys.readouterr().out
    assert main([*words, "--align", "none"]) == 1
    assert "made with other settings (aligned differ)" in capsys.readouterr().err
