"""The commands of the pages, run from top to bottom with few steps: those of docs/your-data from raw files, those of the guides beside a tiny run."""

import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from page_blocks import ROOT, blocks, commands
from PIL import Image
from raw_data import COUNT, RAW, photographs

from maskweave.cli.main import main

DOCS = ROOT / "docs"
FIELDS = DOCS / "your-data"
FEW: dict[str, list[str]] = {
    "init": ["--minutes", "0.1"],
    "run": [
        "--train.steps", "2", "--tokenizers.train.steps", "2", "--tokenizers.jobs", "1", "--train.processes", "1", "--data.validation", "3",
        "--evaluate.samples", "2", "--evaluate.sheets", "[]",
    ],
    "run recipes/": ["--tokenizers.steps", "{}", "--train.validate_every", "0"],
    "transfer": ["--train.steps", "2", "--train.batch_size", "4", "--data.validation", "3"],
    "probe": ["--validation", "3"],
    "probe runs/demo scenes": ["--samples", "24"],
    "evaluate runs/demo --scenes-seed": ["--samples", "8"],
    "retrieve index": ["--samples", "24"],
}  # fmt: skip
"""Options that make a command fast."""
FEWER = {r"samples: \d{4,}": "samples: 32", r"steps: \d{3,}": "steps: 2"}
"""The recipes that the guides name, with few scenes and steps."""
MY_CATALOG = """
modalities:
  rgb: {id: 1, kind: patches, grid: [4, 4], value: {type: image, size: [32, 32], channels: 3, fit: crop}}
  edges: {id: 2, kind: grid, grid: [4, 4], value: {type: binary, size: [32, 32]}, derive: {from: rgb, by: canny}}
"""
NOT_RUN = {
    "cluster": "several machines, and storage at a URL; the tests of parts, ranks and uploads run its commands",
    "coming-from": "published weights",
    "published": "published weights",
    "teachers": "the teachers' weights",
}
"""Guides whose commands need what is not here."""
NOT_ALONE = (
    "import 4m",
    "studio",
    "label shards/ --catalog photographs",
    "data emoji",
    "data import emoji/",
    "run recipes/m3ae-emoji",
)
"""Commands of other guides that need the same, or a font."""


DEMO = ["run", "recipes/demo.yaml", "--out", "runs/demo"]


def page_commands(page: Path) -> list[list[str]]:
    """Words after `maskweave` of every command of a page. `make demo` is one, too."""
    found = [words for _, block in blocks("bash", pages=[page]) for words in commands(block)]
    return [DEMO if words == ["make", "demo"] else words[1:] for words in found if words[0] in ("make", "maskweave")]


def run(words: Sequence[str]) -> None:
    """Runs a command with few steps and looks for what it wrote."""
    more = [word for name in FEW if shlex.join(words).startswith(name) for word in FEW[name]]
    assert main([*words, *more]) == 0, shlex.join([*words, *more])
    if "--out" in words:
        out = Path(words[words.index("--out") + 1])
        assert out.is_file() or any(out.iterdir())


def run_blocks(page: Path) -> None:
    """Runs the Python blocks that need what the commands of their page wrote."""
    for where, code in blocks("python", pages=[page], alone=False) if page.stem not in ELSEWHERE else ():
        exec(compile(code, where, "exec"), {"__name__": "__main__"})


ELSEWHERE = {"generation": "tests/test_scalars_labels_tags.py"}


def test_blocks_that_need_more_are_run_after_the_commands() -> None:
    pages = [path for path in (*DOCS.glob("*.md"), *FIELDS.glob("*.md")) if blocks("python", pages=[path], alone=False)]
    assert {page.stem for page in pages} == {"astronomy", "transfer", *ELSEWHERE}


def test_every_page_has_files_to_try_it_on() -> None:
    assert {page.stem for page in FIELDS.glob("*.md")} == set(RAW)


SLOW = ("earth-observation", "robot-arm", "astronomy", "bundles", "index", "retrieval", "training", "transfer")


def some_slow(pages: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "page", [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in pages]
    )


@some_slow(RAW)
def test_commands_of_a_field_work(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = RAW[page]
    make(tmp_path / make.__name__, np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    text = (FIELDS / f"{page}.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(content, encoding="utf-8")
    found = page_commands(FIELDS / f"{page}.md")
    assert {words[0] for words in found} >= {"init", "run", "generate"}
    for words in found:
        run(words)
    run_blocks(FIELDS / f"{page}.md")


GUIDES = [page.stem for page in sorted(DOCS.glob("*.md")) if page.stem not in NOT_RUN and page_commands(page)]


def test_every_guide_is_run_or_says_why_not() -> None:
    assert {"bundles", "data", "generation", "index", "retrieval", "transfer"} <= set(GUIDES)
    assert all(page_commands(DOCS / f"{name}.md") for name in NOT_RUN)


@some_slow(GUIDES)
def test_commands_of_a_guide_work(page: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shutil.copytree(tiny_run, tmp_path / "runs/demo")
    photographs(tmp_path / "photographs", rng)
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    for path in (ROOT / "recipes").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        for long, short in FEWER.items():
            text = re.sub(long, short, text)
        Path("recipes", path.name).write_text(text, encoding="utf-8")
    Path("my.yaml").write_text(MY_CATALOG, encoding="utf-8")
    found = page_commands(DOCS / f"{page}.md")
    sides = {"photo.jpg": 96, "large.png": 160}
    if any("rgb=photos/" in words for words in found):
        sides["photos/a.png"] = 64
        Path("photos").mkdir()
    for name, side in sides.items():
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(name)
    Image.fromarray(np.kron([[0, 255], [0, 0]], np.ones((48, 48))).astype(np.uint8)).save("mask.png")
    np.save("depth.npy", rng.random((64, 64), np.float32) * 9 + 1)
    for number in range(COUNT):
        (folder := Path("animals", ("cat", "dog")[number % 2])).mkdir(parents=True, exist_ok=True)
        shutil.copy("photo.jpg", folder / f"{number}.jpg")
    for words in found:
        if words == DEMO:
            shutil.rmtree("runs/demo")  # of another recipe
        if not shlex.join(words).startswith(NOT_ALONE):
            run(words)
    run_blocks(DOCS / f"{page}.md")
