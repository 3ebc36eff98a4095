"""The notebooks run from their first cell to their last, and become pages with their outputs."""

import re
from pathlib import Path

import nbformat
import notebooks
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

SCRIPTS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.py"))


def test_there_are_four() -> None:
    assert len(SCRIPTS) == 4


@pytest.mark.parametrize("page", ["docs/index.md", "docs/notebooks/first-steps.py", "README.md"])
def test_the_first_model_of_a_page_needs_no_training(page: str) -> None:
    text = (SCRIPTS[0].parents[2] / page).read_text(encoding="utf-8")
    (first, *_) = re.findall(r"maskweave\.load\((.*?)\)", text)
    assert first == '"scenes"'


@pytest.mark.slow  # `make docs` runs them, too
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_notebooks_run(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has torch already; `make docs` runs them in kernels."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), names)
    assert (tmp_path / "run" / "model" / "model.safetensors").exists() and "bundle" in names


def test_a_script_becomes_cells_and_a_page_with_outputs(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text("# %% [markdown]\n# # Two\n\n# %%\n1 + 1\n", encoding="utf-8")
    notebooks.write_pages(tmp_path, tmp_path / "pages", execute=False)
    notebook = nbformat.read(tmp_path / "pages" / "two.ipynb", 4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [("markdown", "# Two"), ("code", "1 + 1")]
    expected = "# Two\n\nDownload [two.ipynb](two.ipynb).\n\n```python\n1 + 1\n```\n"
    assert (tmp_path / "pages" / "two.md").read_text(encoding="utf-8") == expected

    outputs = [
        new_output("stream", name="stdout", text="said\n"),
        new_output("stream", name="stderr", text="progress\n"),
        new_output("execute_result", {"image/png": "aGk=", "text/plain": "<picture>"}),
        new_output("execute_result", {"text/plain": "2"}),
    ]
    cells = [new_markdown_cell("# T"), new_code_cell("x", outputs=outputs)]
    page = notebooks.page(new_notebook(cells=cells), "t", tmp_path)
    assert page.endswith(
        "```python\nx\n```\n\n``` { .text .output }\nsaid\n```\n\n![Output](t-1-2.png)\n\n``` { .text .output }\n2\n```\n"
    )
    assert (tmp_path / "t-1-2.png").read_bytes() == b"hi"


@pytest.mark.slow
def test_a_kernel_runs_the_cells_and_a_failure_stops(tmp_path: Path) -> None:
    script = tmp_path / "cells.py"
    script.write_text("# %%\nimport os\nprint(os.listdir())\n\n# %%\n40 + 2\n", encoding="utf-8")
    outputs = [cell.outputs[0] for cell in notebooks.executed(script).cells]
    assert outputs[0].text == "[]\n" and outputs[1].data["text/plain"] == "42"
    script.write_text("# %%\n1 / 0\n", encoding="utf-8")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.executed(script)
