"""The worked examples of CONTRIBUTING.md run, as files of another package and of this one, and do what the page says."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from test_rules import ROOT, tracked

from maskweave.errors import BadSample
from maskweave.modality.catalogs import catalog_from
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values import formats, value_types

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SCREEN = 75
"""Lines of a worked example that fit on a screen."""


def example(heading: str) -> str:
    """The code under a heading."""
    section = re.search(rf"^### {heading}$(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, heading
    (code,) = re.findall(r"^```python\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """The examples, installed as modules of another package with its entry points."""
    site = tmp_path_factory.mktemp("site")
    names = {"worked_angle": "Add a value type", "worked_bsq": "Add a quantizer", "worked_grid": "Add a reader"}
    for name, heading in names.items():
        (site / f"{name}.py").write_text(example(heading), encoding="utf-8")
    info = site / "worked-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worked\nVersion: 1.0\n", encoding="utf-8")
    points = "[maskweave.values]\nangle = worked_angle:Angle\n\n[maskweave.formats]\nasc = worked_grid:read\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    caches = (value_types, formats.installed, formats.array_endings, formats._long_endings, formats.reader)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        for cache in caches:
            cache.cache_clear()
        yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name)
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("heading", ["Add a value type", "Add a quantizer", "Add a reader"])
def test_an_example_fits_on_a_screen(heading: str) -> None:
    assert example(heading).count("\n") <= SCREEN


def test_a_value_type(package: dict[str, ModuleType]) -> None:
    entry = {"id": 1, "kind": "grid", "grid": [2], "value": {"type": "angle"}}
    tokenizer = {
        "model": "mlp",
        "width": 32,
        "depth": 1,
        "decoder_depth": 1,
        "quantizer": {"type": "vq", "codes": 16, "dim": 8},
    }
    wind = catalog_from({"modalities": {"wind": {**entry, "tokenizer": tokenizer}}}, "here")["wind"]
    assert type(wind.value).__name__ == "Angle" and wind.value.check([-1.0], "here") == [359]
    with pytest.raises(BadSample, match=r"here: found shape \(2,\); expected one angle in degrees"):
        wind.value.check([1, 2], "here")
    angles = [np.array([a], np.float32) for a in (0, 30, 90, 200, 359)]
    network = wind.value.to_network(angles)
    assert network[2].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert np.allclose(wind.value.from_network(network)[:, 0], np.ravel(angles), atol=1e-3)
    metric = wind.value.metrics()["degrees"]
    assert metric.score([np.array([359.0]), np.array([10.0])], [np.array([1.0]), np.array([350.0])]) == (2 + 20) / 2
    assert metric.best_constant([angles[i] for i in (1, 0, 4)]) == [0], "30 + 1 degrees off"
    picture = wind.value.draw(np.array([90.0]), (64, 64))
    assert picture.shape == (64, 64, 3) and picture[:32].min() < 128 <= picture[40:].min(), "up"
    ids = GridTokenizer(wind).eval().encode(angles)
    assert ids.shape == (5, 2)


def test_a_quantizer(package: dict[str, ModuleType]) -> None:
    quantizer = package["worked_bsq"].BSQ(64)
    z = torch.randn(6, 20, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = quantizer(z)
    assert out.ids.shape == (6, 20) and out.ids.min() >= 0 and out.ids.max() < quantizer.size
    torch.testing.assert_close(quantizer.decode(out.ids), out.z_q)
    assert torch.equal(out.z_q.sign(), z.sign()) and torch.allclose(out.z_q.norm(dim=-1), torch.ones(6, 20))
    out.z_q.square().mean().backward()
    assert z.grad is not None
    assert len({tuple(code) for code in quantizer.decode(torch.arange(64)).tolist()}) == 64


GRID = b"ncols 3\nnrows 2\nxllcorner 0.0\nyllcorner 0.0\ncellsize 50\nNODATA_value -9999\n1 2 -9999\n4.5 5 6\n"


def test_a_reader(package: dict[str, ModuleType], tmp_path: Path) -> None:
    entry = {
        "id": 1,
        "kind": "grid",
        "grid": [1, 1],
        "value": {"type": "map", "size": [2, 3], "range": [0, 10], "unit": "m"},
    }
    height = catalog_from({"modalities": {"height": entry}}, "here")["height"].value
    assert "asc" in height.endings and formats.split_ending("hills.ASC") == ("hills", "asc")
    assert np.array_equal(height.parse(GRID, "asc", "hills.asc"), [[1, 2, np.nan], [4.5, 5, 6]], equal_nan=True)
    with pytest.raises(BadSample, match=r"hills\.asc: found 5 numbers; expected 2 rows of 3"):
        height.parse(GRID[:-3], "asc", "hills.asc")
    with pytest.raises(BadSample, match="corrupt or truncated Esri ASCII grid"):
        height.parse(b"\xff\xfe", "asc", "hills.asc")
    with pytest.raises(BadSample, match=r"takes 4,000,000,000,000 bytes"):
        height.parse(b"ncols 1000000\nnrows 1000000\n", "asc", "hills.asc")


PLACES = {
    "values/angle.py": "Add a value type",
    "tokenizers/quantizers/bsq.py": "Add a quantizer",
    "values/formats/ascii_grid.py": "Add a reader",
}
STEPS = (
    ("src/maskweave/values/__init__.py", "(?<=Queries,)(?=\n\\))", " Angle,"),
    ("src/maskweave/values/__init__.py", "(?=from maskweave.values.audio)", "from maskweave.values.angle import Angle\n"),
    ("tests/values/test_types.py", "(?<=NOT_MERGEABLE = {)", '"angle", '),
    ("src/maskweave/tokenizers/quantizers/__init__.py", '(?=        case "lfq")', '        case "bsq":\n            return BSQ(spec.codes)\n'),
    ("src/maskweave/tokenizers/quantizers/__init__.py", "(?=from .*fsq import)", "from maskweave.tokenizers.quantizers.bsq import BSQ\n"),
    ("src/maskweave/modality/tokenizer.py", r'(?<=type: Literal\[)', '"bsq", '),
    ("src/maskweave/modality/tokenizer.py", r'(?<=return self.type in \("lfq",)', ' "bsq"'),
    ("docs/modalities.md", "(?<=with a quantizer: )", "`bsq` (signs on a sphere), "),
    ("tests/tokenizers/test_quantizers.py", r"(?<=SPECS = \[)", 'Quantizer(type="bsq", codes=256), '),
    ("src/maskweave/values/formats/__init__.py", r"(?<=frames:read\",\n)", '    "asc": f"{_HERE}.ascii_grid:read",\n'),
    ("src/maskweave/values/formats/__init__.py", r"(?<=PLANES = \()", '"asc", '),
    ("docs/files.md", r"(?=\| `.npy`)", "| `.asc` | Esri ASCII grids | every array over two axes | |\n"),
)  # fmt: skip
"""The steps of the examples in this package: file, place and new text."""
AFTER = (
    "tests/values/test_types.py", "tests/values/test_docs.py", "tests/values/test_variation.py", "tests/values/formats/test_registry.py",
    "tests/tokenizers/test_quantizers.py", "tests/modality/test_catalogs.py", "tests/test_constants.py", "tests/test_settings.py",
)  # fmt: skip
"""Tests that run over all value types, quantizers and formats."""
USED = """
from maskweave.modality.catalogs import catalog_from
grid = {"id": 1, "kind": "grid", "grid": [2, 2], "value": {"type": "map", "size": [4, 4], "range": [0, 1]}}
for codes in (64, 100):
    tokenizer = {"tokenizer": {"quantizer": {"type": "bsq", "codes": codes}}}
    print(catalog_from({"modalities": {"height": {**grid, **tokenizer}}}, "here")["height"].tokenizer.quantizer.latent_dim)
"""


@pytest.mark.slow
def test_the_steps_in_this_package_leave_no_test_that_fails(tmp_path: Path) -> None:
    for name in tracked():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for place, heading in PLACES.items():
        (tmp_path / "src/maskweave" / place).write_text(example(heading), encoding="utf-8")
    for name, where, text in STEPS:
        changed, count = re.subn(where, text, (tmp_path / name).read_text(encoding="utf-8"), count=1)
        assert count == 1, where
        (tmp_path / name).write_text(changed, encoding="utf-8")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    (tmp_path / "docs/values.md").write_text(run("-m", "maskweave", "values").stdout, encoding="utf-8")
    assert run("tests/test_constants.py").returncode == 0
    found = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *AFTER)
    assert found.returncode == 0, found.stdout[-3000:]
    assert "`.asc`" in (tmp_path / "docs/values.md").read_text(encoding="utf-8")
    used = run("-c", USED)
    assert used.stdout == "6\n" and "codes must be a power of two for bsq, found 100" in used.stderr


def test_the_steps_are_named() -> None:
    section = PAGE.partition("## Three worked examples")[2]
    files = {name.removeprefix("src/maskweave/") for name, _, _ in STEPS}
    assert [name for name in files if name not in section] == []
    for command in (
        "maskweave values > docs/values.md",
        "python tests/test_constants.py",
        "NOT_MERGEABLE",
        "has_bits",
        "PLANES",
    ):
        assert f"`{command}`" in section
