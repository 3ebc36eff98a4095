"""What is found in a folder of many kinds of files, and the catalog and the recipe that are written: word for word as in `golden/`.

If they change on purpose, `python tests/init/test_golden_projects.py` writes them.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parents[1])]  # where this file is run by itself
from project_helpers import folder  # noqa: E402

from maskweave.init import project as projects  # noqa: E402
from maskweave.init.project import make_project  # noqa: E402

GOLDEN = Path(__file__).with_name("golden")
SPEED = 100.0
"""Billion operations per second, instead of a measurement."""


def depth(i: int) -> np.ndarray:
    y, x = np.mgrid[:48, :64].astype(np.float32)
    return np.where((x < 3) & (i < 2), np.float32(-9999), (2 * x + y + i) / 10)


def write_files(root: Path) -> None:
    """16 samples of each kind of file; what lacks one, or cannot be read, is written below."""
    folder(
        root,
        photo__png=lambda i: (np.arange(48 * 64 * 3).reshape(48, 64, 3) * (i + 7) % 251).astype(np.uint8),
        depth__npy=depth,
        segments__png=lambda i: (np.arange(48 * 64).reshape(48, 64) // 600 + i % 3).astype(np.uint8),
        note__txt=lambda i: None if i == 5 else f"sample {i} is number {i * i} of all" + " and so on" * (2 - i),
        kind__txt=lambda i: ["cat", "dog", "cow"][i % 3],
        height__json=lambda i: {"height": 1.5 + i * 0.25},
        boxes__json=lambda i: [{"box": [0.1, 0.2, 0.5, 0.5 + 0.01 * n], "class": "car"} for n in range(i % 4)],
        facts__json=lambda i: {"rooms": i % 5, "area": 20.5 + 3 * i, "rent": 500 + 10 * i},
        sound__wav=lambda i: ((np.arange(8000) % (i + 3)) / (i + 3) - 0.5, 16000),
        wave__npy=lambda i: ((np.arange(256).reshape(128, 2) * (i + 3)) % 37 - 9.5).astype(np.float32),
        vector__npy=lambda i: ((np.arange(24) * (i + 5)) % 19 / 4 - 2).astype(np.float32),
        rare__txt=lambda i: "x y z" if i == 3 else None,
    )
    (root / "vector" / "007.npy").write_bytes(b"no array")
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "other.txt").write_text("of no sample", encoding="utf-8")


def written(place: Path) -> dict[str, str]:
    """The texts of a project in a folder, whose own name is left out."""
    write_files(place / "files")
    project = make_project(place / "files", place / "project")
    texts = {"survey.txt": project.survey_text() + "\n\n" + project.next_text() + "\n"}
    texts |= {name: (place / "project" / name).read_text(encoding="utf-8") for name in ("catalog.yaml", "recipe.yaml")}
    found = {name: text.replace(str(place), "HERE") for name, text in texts.items()}
    return {
        name: re.sub(r"(HERE.*?) +#", r"\1  #", text) for name, text in found.items()
    }  # columns depend on its length


def test_a_project_of_many_kinds_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "machine_speed", lambda: SPEED)
    for name, text in written(tmp_path).items():
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), (
            f"{name} changed; on purpose: python tests/init/test_golden_projects.py"
        )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    projects.machine_speed = lambda: SPEED
    with tempfile.TemporaryDirectory() as place:
        for name, text in written(Path(os.path.realpath(place))).items():
            (GOLDEN / name).write_text(text, encoding="utf-8")
