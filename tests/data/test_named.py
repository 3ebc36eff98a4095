"""Named sources: the built-in ones, those of other packages and of a user's own code; and what cannot be one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import own_sources
import pytest

from maskweave.data.mixing import Mixed
from maskweave.data.named import BUILT_IN, find_source, is_endless, is_named, source_names
from maskweave.data.opening import absolute, open_data
from maskweave.data.reading import read
from maskweave.data.source import Source, Subset, text_labels_of
from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.synthetic.scenes import Scenes

FIXED, ENDLESS = "python: own_sources:fixed", "python: own_sources:Endless"


@pytest.fixture
def pair(scenes_catalog: Catalog) -> Catalog:
    return scenes_catalog.subset(["rgb", "caption"])


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_sources_open_the_catalog_of_their_name(name: str, scenes_catalog: Catalog) -> None:
    found = open_data(name, scenes_catalog, names=list(scenes_catalog), samples=2, seed=7)
    assert isinstance(found, Source) and len(found) == 2
    assert set(found.names) == {m.reads for m in scenes_catalog.values()} == set(found[1])
    assert is_named(name) and is_endless(name) and name in source_names()


def test_scenes_by_name_are_the_scenes(scenes_catalog: Catalog) -> None:
    found = open_data("scenes", scenes_catalog, samples=3, seed=5)
    assert isinstance(found, Scenes) and found.key(2) == Scenes(scenes_catalog, 3, 5).key(2)
    assert open_data("scenes", scenes_catalog, samples=1).key(0) == "0-0000000", "seed 0 unless said otherwise"
    with pytest.raises(MaskweaveError, match=r"scenes is endless: set samples to 1 or more, found 0"):
        open_data("scenes", scenes_catalog)


def test_code_of_ones_own(pair: Catalog, scenes_catalog: Catalog) -> None:
    fixed = open_data(FIXED, pair)
    assert (len(fixed), fixed.names, fixed.key(9)) == (10, ("rgb", "caption"), "fixed-009")
    assert len(open_data(FIXED, pair, samples=4)) == 4
    endless = open_data(ENDLESS, pair, samples=4, seed=2)
    assert [endless.key(i) for i in range(len(endless))] == ["seed-2-200", "seed-2-201", "seed-2-202", "seed-2-203"]
    assert set(open_data(ENDLESS, scenes_catalog, samples=1).names) == {"rgb", "depth", "caption"}, (
        "those that it gives"
    )
    assert open_data(ENDLESS, scenes_catalog, names=["caption"], samples=1).names == ("caption",)
    with pytest.raises(MaskweaveError, match="own_sources:fixed is a fixed data set and takes no seed"):
        open_data(FIXED, pair, seed=1)


def test_worker_processes_read_them(pair: Catalog) -> None:
    items = list(read(open_data(ENDLESS, pair, samples=70, seed=1), range(70), workers=2))
    assert [item.key for item in items] == [f"seed-1-{100 + i:03d}" for i in range(70)]
    assert all((item.sample["rgb"] == 100 + i).all() for i, item in enumerate(items))


def test_labels_of_texts_follow_a_source_through_what_wraps_it(pair: Catalog) -> None:
    fixed, endless = open_data(FIXED, pair), open_data(ENDLESS, pair, samples=3)
    scenes = open_data("scenes", pair, samples=3)
    assert text_labels_of(fixed) is None
    for source in (endless, Subset(endless, [1]), Mixed({"a": endless, "b": Subset(endless, [0])})):
        labels = text_labels_of(source)
        assert labels is not None and list(labels("level 7")) == ["7"]
    assert text_labels_of(Mixed({"a": endless, "b": fixed})) is None
    assert text_labels_of(Mixed({"a": endless, "b": scenes})) is None
    read_caption = text_labels_of(scenes)
    assert read_caption is not None
    assert list(read_caption("2 objects: a small red cube and a large blue cone.")) == ["red cube", "blue cone"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("python: ", "expected python: package.module:function"),
        ("python: own_sources", "expected python: package.module:function"),
        ("python: no_such_module:f", "module no_such_module cannot be imported .*PYTHONPATH"),
        ("python: own_sources:missing", "module own_sources has no function or class missing; expected a function or class"),
        ("python: own_sources:number", "module own_sources has no function or class number"),
        ("python: own_sources:half", r"takes \(catalog, samples\); expected .*\(catalog\), or \(catalog, samples, seed\)"),
        ("python: own_sources:needs_more", r"takes \(catalog, root\); expected"),
        ("python: own_sources:not_a_source", r"returned dict; expected a source with names, len, \[i\] and key\(i\)"),
    ],
)  # fmt: skip
def test_code_that_is_no_source_is_refused(place: str, message: str, pair: Catalog) -> None:
    with pytest.raises(MaskweaveError, match=message):
        open_data(place, pair)


def install(folder: Path, package: str, *points: str) -> None:
    """Entry points as an installed package has them."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[maskweave.sources]\n" + "\n".join(points) + "\n", encoding="utf-8")


def test_packages_bring_their_own(tmp_path: Path, pair: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "a", "grays", "grays = own_sources:Endless", "few-grays = own_sources:fixed")
    assert find_source("grays") is None
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    assert source_names() == ["few-grays", "grays", "scenes"]
    assert is_endless("grays") and not is_endless("few-grays")
    assert isinstance(open_data("grays", pair, samples=2), own_sources.Endless)
    assert absolute("grays") == "grays" and absolute("./grays") == str(Path.cwd() / "grays")
    with pytest.raises(MaskweaveError, match="no such folder; .*a named source \\(few-grays, grays, scenes,"):
        open_data("greys", pair)  # codespell:ignore
    install(tmp_path / "b", "more", "grays = own_sources:fixed", "scenes = own_sources:fixed")
    monkeypatch.syspath_prepend(str(tmp_path / "b"))
    with pytest.raises(MaskweaveError, match=r"several packages have a source of this name \(grays, more\)"):
        open_data("grays", pair, samples=2)
    assert isinstance(open_data("scenes", pair, samples=1), Scenes), "built-in names stay what they are"


def test_a_new_process_finds_them_too(tmp_path: Path) -> None:
    install(tmp_path, "grays", "grays = own_sources:Endless")
    program = (
        "from maskweave.data.opening import open_data\n"
        "from maskweave.modality.catalogs import load_catalog\n"
        "catalog = load_catalog('scenes').subset(['rgb'])\n"
        "for name in ('scenes', 'grays', 'python: own_sources:Endless'):\n"
        "    print(open_data(name, catalog, samples=1, seed=1).key(0))\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(own_sources.__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1-0000000", "seed-1-100", "seed-1-100"]


def test_names_are_not_made_paths() -> None:
    assert absolute("scenes") == "scenes" and absolute("./scenes") == str(Path.cwd() / "scenes")
    assert absolute("python:a.b:c") == absolute("python:  a.b:c") == "python: a.b:c"
    assert not is_named("data/scenes") and not is_named("") and not is_named("photographs")
    assert np.all([is_named(place) for place in ("scenes", "python: nowhere:f")]), "nothing is imported to know that"
