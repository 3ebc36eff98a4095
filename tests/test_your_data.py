"""The pages of docs/your-data: their commands, run from raw files to results with few steps."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from raw_data import RAW

from maskweave.cli.main import main

PAGES = Path(__file__).parent.parent / "docs" / "your-data"
FEW: dict[str, list[str]] = {
    "init": ["--minutes", "0.1"],
    "run": [
        "--train.steps", "2", "--tokenizers.train.steps", "2", "--tokenizers.jobs", "1", "--train.processes", "1", "--data.validation", "3",
        "--evaluate.samples", "2", "--evaluate.sheets", "[]",
    ],
    "transfer": ["--train.steps", "2", "--train.batch_size", "4", "--data.validation", "3"],
    "probe": ["--validation", "3"],
}  # fmt: skip
"""Options that make a command fast."""


def test_every_page_has_files_to_try_it_on() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(RAW)


SLOW = ("earth-observation", "robot-arm", "astronomy")


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in RAW])
def test_commands_of_a_page_work(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = RAW[page]
    make(tmp_path / make.__name__, np.random.default_rng(0))
    monkeypatch.chdir(tmp_path)
    text = (PAGES / f"{page}.md").read_text()
    for name, content in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", text, re.DOTALL):
        Path(name).write_text(content)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("maskweave ")]
    assert {words[0] for words in commands} >= {"init", "run", "generate"}
    for words in commands:
        assert main([*words, *FEW.get(words[0], [])]) == 0, shlex.join(words)
        if "--out" in words:
            out = Path(words[words.index("--out") + 1])
            assert out.is_file() or any(out.iterdir())
