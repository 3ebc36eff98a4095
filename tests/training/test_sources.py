"""Samples of a recipe: which are held out, for runs, their tokenizers and their evaluation, and of runs of earlier versions."""

from pathlib import Path
from typing import Any

import pytest

from maskweave.data.folders import import_folders
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import read_recipe
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import load_catalog
from maskweave.training.pipeline import claim
from maskweave.training.recipe import Recipe, load_recipe
from maskweave.training.sources import open_source, open_sources
from maskweave.training.tokenizers import order_by_split

NAMES = [f"{kind}/episode_{n // 4}_{n % 4}" for kind in ("cat", "dog") for n in range(20)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name in NAMES:
        path = root / "files" / "caption" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    import_folders(root / "files", root / "shards", load_catalog("photos"), shard_size=16)
    return root / "shards"


def recipe(folder: Path, data: Path | str, **changes: Any) -> Recipe:
    path = folder / "own.yaml"
    settings = {"source": str(data), "validation": 8}
    write_yaml(path, {"catalog": "photos", "modalities": ["caption"], "data": settings})
    return load_recipe(path, {key.replace("__", "."): value for key, value in changes.items()})


def texts(wanted: Recipe, part: str, **options: Any) -> list[str]:
    source = open_source(wanted, wanted.load_catalog(), part, **options)
    return [source[i]["caption"] for i in range(len(source))]


def test_parts_are_disjoint_and_of_all_kinds(data: Path, tmp_path: Path) -> None:
    wanted = recipe(tmp_path, data)
    train, held_out = texts(wanted, "train"), texts(wanted, "validation")
    assert len(held_out) == 8 and sorted(train + held_out) == sorted(NAMES)
    assert {name[:3] for name in held_out} == {"cat", "dog"}
    few = texts(wanted, "validation", samples=4)
    assert len(few) == 4 and set(few) < set(held_out) and (few[0], few[-1]) == (held_out[0], held_out[-1])
    fewer = texts(recipe(tmp_path, data, data__samples=12), "train")
    assert len(fewer) == 12 and set(fewer) < set(train) and {name[:3] for name in fewer} == {"cat", "dog"}


def test_the_split_of_a_recipe(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = texts(recipe(tmp_path, data, data__split={"group": r"\w+/episode_\d+"}), "validation")
    assert len(grouped) == 8 and len({name[:-1] for name in grouped}) == 2
    assert texts(recipe(tmp_path, data, data__split__by="order"), "validation") == NAMES[-8:]
    assert texts(recipe(tmp_path, data, data__split__by="order"), "validation", samples=3) == NAMES[-8:-5]
    (tmp_path / "split.csv").write_text(
        "name,part\n" + "".join(f"{n},{'validation' if i % 5 == 0 else 'train'}\n" for i, n in enumerate(NAMES)),
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    listed = recipe(tmp_path, data, data__split__file="split.csv")
    assert listed.data.split.file == str(tmp_path / "split.csv") and texts(listed, "validation") == NAMES[::5]


def test_data_sets_of_a_mix_have_their_own_split(data: Path, tmp_path: Path) -> None:
    mix = {"a": {"source": str(data), "split": {"by": "order"}}, "b": {"source": str(data)}}
    wanted = recipe(tmp_path, "", data__mix=mix)
    sources = open_sources(wanted, wanted.load_catalog(), "validation")
    a, b = ([source.key(i) for i in range(len(source))] for source in sources.values())
    assert a == NAMES[-4:] and len(b) == 4 and a != b
    with pytest.raises(MaskweaveError, match="data.split.file is for one data set, .*set data.mix.NAME.split.file"):
        recipe(tmp_path, "", data__mix=mix, data__split__file="a.csv")
    with pytest.raises(MaskweaveError, match="data.split is for data sets of fixed samples, but scenes is endless"):
        recipe(tmp_path, "scenes", data__samples=9, data__split__fraction=0.5)


def test_tokenizers_are_validated_on_samples_of_all_kinds(data: Path, tmp_path: Path) -> None:
    last = order_by_split(recipe(tmp_path, data), NAMES)[-4:]
    assert {NAMES[i][:3] for i in last} == {"cat", "dog"}
    last = order_by_split(recipe(tmp_path, data, data__split__group=r"\w+/episode_\d+"), NAMES)[-4:]
    assert len({NAMES[i][:-1] for i in last}) == 1
    for unchanged in (recipe(tmp_path, data, data__split__by="order"), recipe(tmp_path, "scenes", data__samples=9)):
        assert order_by_split(unchanged, NAMES) == list(range(40))


def test_runs_of_earlier_versions_keep_their_held_out_samples(data: Path, tmp_path: Path) -> None:
    wanted, run = recipe(tmp_path, data), tmp_path / "run"
    claim(wanted, run)
    (run / "tokenizers" / "text").mkdir(parents=True)
    (run / "tokenizers" / "text" / "config.json").write_text("{}", encoding="utf-8")
    old = read_yaml(run / "recipe.yaml")
    del old["data"]["split"]
    write_yaml(run / "recipe.yaml", old)
    assert texts(read_recipe(run), "validation") == NAMES[-8:]
    with pytest.raises(MaskweaveError, match=r"a run of another recipe \(data.split.by differ\)"):
        claim(wanted, run)
    claim(recipe(tmp_path, data, data__split__by="order"), run)

    made, run = recipe(tmp_path, "scenes", data__samples=9), tmp_path / "scenes"
    claim(made, run)
    (run / "tokenizers").mkdir()
    (run / "tokenizers" / "begun").touch()
    old = read_yaml(run / "recipe.yaml")
    del old["data"]["split"]
    write_yaml(run / "recipe.yaml", old)
    claim(made, run)  # scenes are held out as before
