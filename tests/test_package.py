"""The release: source archive and wheel are built once and must be whole. The wheel is tried from an empty folder, as after an installation."""

import email.message
import email.parser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from page_blocks import blocks
from test_rules import ROOT, tracked

from maskweave import shipped
from maskweave.errors import MaskweaveError
from maskweave.training.recipe import load_recipe
from maskweave.transfer.recipe import load_transfer

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"


class Release(NamedTuple):
    source: Path
    """The unpacked source archive."""
    wheel: Path
    """The unpacked wheel, made from the source archive."""
    metadata: email.message.Message


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("a päckage")  # paths with spaces and letters of other languages
    for name in tracked():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "tree" / name)
    with tarfile.open(build("sdist", folder / "tree", folder)) as archive:
        archive.extractall(folder / "source", filter="data")
    source = folder / "source" / f"maskweave-{PROJECT['version']}"
    with zipfile.ZipFile(build("wheel", source, folder)) as archive:
        archive.extractall(folder / "wheel")
    metadata = next((folder / "wheel").glob("*.dist-info")) / "METADATA"
    return Release(source, folder / "wheel", email.parser.Parser().parsestr(metadata.read_text(encoding="utf-8")))


def build(kind: str, tree: Path, to: Path) -> Path:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", BUILD.format(kind), str(to)]
    found = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return to / found.stdout.splitlines()[-1]


def run(release: Release, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the unpacked wheel in place of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(release.wheel)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_source_archive_holds_every_file(release: Release) -> None:
    missing = [name for name in tracked() if not (release.source / name).is_file()]
    assert missing == [], "add them to MANIFEST.in"


@pytest.mark.slow  # imports all tests
def test_tests_are_collected_from_the_source_archive(release: Release) -> None:
    found = run(release, release.source, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert found.returncode == 0 and "error" not in found.stdout.splitlines()[-1], found.stdout[-2000:]


def test_the_wheel_runs_shipped_recipes_in_an_empty_folder(release: Release, tmp_path: Path) -> None:
    names = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    code = "import maskweave.shipped as s; print(s.PACKAGE); print(*s.shipped_recipes())"
    where, found = run(release, tmp_path, "-c", code).stdout.splitlines()
    assert Path(where) == release.wheel / "maskweave" and set(found.split()) == names
    checked = run(release, tmp_path, "-m", "maskweave", "recipe", "check", "demo")
    assert checked.returncode == 0 and "demo: valid; " in checked.stdout, checked.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_wheel_runs_a_recipe_from_start_to_end(release: Release, tmp_path: Path) -> None:
    found = run(release, tmp_path, "-m", "maskweave", "run", "smoke", "--train.steps", "2", "--evaluate.samples", "4")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "runs" / "smoke" / "report.html").is_file()


def test_the_wheel_holds_the_package_and_nothing_else(release: Release) -> None:
    top = {path.name.removeprefix(f"maskweave-{PROJECT['version']}") for path in release.wheel.iterdir()}
    assert top == {"maskweave", ".dist-info"}
    files = [name.removeprefix("src/") for name in tracked() if name.startswith("src/")]
    assert [name for name in files if not (release.wheel / name).is_file()] == []


def test_the_metadata_are_complete(release: Release) -> None:
    metadata = release.metadata
    assert metadata["Name"] == "maskweave" and metadata["Author"] == "The maskweave contributors"
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["Description-Content-Type"] == "text/markdown"
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL") or [])
    assert set(urls) == {"Repository", "Documentation", "Changelog", "Issues"}
    versions = [c.rsplit(" ", 1)[1] for c in metadata.get_all("Classifier") or [] if re.search(r":: 3\.\d+$", c)]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert set(metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])


def test_all_is_every_extra_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (every,) = extras["all"]
    assert every == f"maskweave[{','.join(name for name in extras if name not in ('all', 'docs', 'dev'))}]"


def test_links_and_pictures_of_the_readme_work_on_the_package_index(release: Release) -> None:
    text = str(release.metadata.get_payload())
    links = re.findall(r"\]\(([^)]+)\)", text)
    repository, tag = PROJECT["urls"]["Repository"], f"v{PROJECT['version']}"
    raw = repository.replace("//github.com", "//raw.githubusercontent.com")
    assert len(links) > 20 and not [link for link in links if not link.startswith(("https://", "#"))]
    own = [link for link in links if link.startswith((repository, raw))]
    assert any(link.endswith(".png") for link in own)
    for link in own:
        start = f"{raw}/{tag}/" if link.endswith(".png") else f"{repository}/blob/{tag}/"
        assert link.startswith(start) and (ROOT / link.removeprefix(start).partition("#")[0]).exists(), link


# Names of what ships.


def test_shipped_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("smoke") == load_recipe(ROOT / "recipes" / "smoke.yaml")
    assert load_recipe("4m-21-l").model.resolved().width == 1024, "it includes another one"
    assert (
        load_transfer("transfer-scenes-count").target
        == load_transfer(ROOT / "recipes/transfer-scenes-count.yaml").target
    )
    with pytest.raises(MaskweaveError, match=r"no recipe 'demp'; did you mean 'demo'\?; give the path .* 4m-21-b, "):
        load_recipe("demp")
    with pytest.raises(MaskweaveError, match=r"demo\.yaml: no such file"):
        load_recipe("demo.yaml")
    (tmp_path / "smoke").write_text("catalog: scenes\ndata: {source: scenes, samples: 8}\nseed: 77\n", encoding="utf-8")
    assert load_recipe("smoke").seed == 77, "a file of that name comes first"


def test_shipped_bundles_are_found_by_name(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import maskweave

    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "some").symlink_to(tiny_run)
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert maskweave.load("some").folder == tmp_path / "bundles" / "some"
    for place in ("other", "some/", "../some", "", "some.x"):
        assert shipped.shipped_bundle(place) is None
    (tmp_path / "here" / "some").mkdir()
    with pytest.raises(MaskweaveError, match=r"some.*modalities\.yaml"):
        maskweave.load("some")  # a folder of that name comes first


# Without extras.


def core(folder: Path) -> Path:
    """Makes a folder of links to the packages that an installation without extras has, and returns it."""
    wanted = [Requirement(line) for line in ("maskweave", *PROJECT["dependencies"])]
    seen: set[tuple[str, str]] = set()
    for requirement in wanted:  # grows while it is read
        for extra in ("", *requirement.extras):
            if (requirement.name.lower(), extra) in seen or not available(requirement.name):
                continue
            seen.add((requirement.name.lower(), extra))
            needed = map(Requirement, importlib.metadata.requires(requirement.name) or [])
            wanted += [one for one in needed if not one.marker or one.marker.evaluate({"extra": extra})]
    for name in {name for name, _ in seen}:
        distribution = importlib.metadata.distribution(name)
        for top in {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def available(name: str) -> bool:
    """Whether a package is installed; others are for other systems."""
    return bool(list(importlib.metadata.distributions(name=name)))


WITHOUT_EXTRAS = """
import importlib.util, sys
from maskweave.cli.main import main
assert not any(importlib.util.find_spec(name) for name in ("gradio", "onnx", "scipy", "transformers", "pytest"))
exec(compile(sys.argv[1], "README.md", "exec"), {"__name__": "__main__"})
for words in ("doctor", "card scenes", "recipe check demo", "studio scenes", "export scenes out --inputs rgb --targets depth"):
    print(words, "->", main(words.split()), flush=True)
"""


def test_what_works_without_extras(tmp_path: Path) -> None:
    """The example of the README and the first commands; the others name their extra in one line."""
    ((_, example),) = blocks("python", pages=[ROOT / "README.md"])
    (tmp_path / "packages").mkdir()
    path = os.pathsep.join([str(ROOT / "src"), str(core(tmp_path / "packages"))])
    words = [sys.executable, "-S", "-c", WITHOUT_EXTRAS, example]
    environment = {**os.environ, "PYTHONPATH": path}
    found = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    codes = dict(re.findall(r"^(\w+)(?: .*)? -> (\d)$", found.stdout, re.MULTILINE))
    assert codes == {"doctor": "0", "card": "0", "recipe": "0", "studio": "1", "export": "1"}
    assert (tmp_path / "runs/out/sheet.png").exists()
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 2 and all(
        f"pip install 'maskweave[{x}]'" in line for x, line in zip(("studio", "onnx"), lines, strict=True)
    ), lines
