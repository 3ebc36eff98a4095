"""Notebooks: jupytext scripts in docs/notebooks, executed, and written as .ipynb and as pages with their outputs."""

import base64
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

TIMEOUT = 300
"""Seconds that one cell may take."""


def write_pages(scripts: Path, folder: Path, execute: bool) -> None:
    """Writes each notebook as NAME.ipynb and as a page, NAME.md, that links to it.

    Args:
        scripts: folder of the jupytext scripts.
        folder: where the pages are written.
        execute: whether the notebooks are executed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for script in sorted(scripts.glob("*.py")):
        notebook = executed(script) if execute else jupytext.read(script, fmt="py:percent")
        nbformat.write(notebook, folder / f"{script.stem}.ipynb")
        (folder / f"{script.stem}.md").write_text(page(notebook, script.stem, folder), encoding="utf-8")


def executed(script: Path) -> Any:
    """Returns a notebook with its outputs. It runs in an empty folder.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = jupytext.read(script, fmt="py:percent")
    with TemporaryDirectory() as folder, TemporaryDirectory() as sockets:
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, kernel_name="python3", timeout=TIMEOUT, resources=resources, config=config).execute()
    return notebook


def page(notebook: Any, name: str, folder: Path) -> str:
    """Returns a notebook as Markdown. Its pictures are written into the folder."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for count, output in enumerate(cell.outputs):
            parts.append(_shown(output, f"{name}-{number}-{count}.png", folder))
    title, *rest = parts
    link = f"Download [{name}.ipynb]({name}.ipynb)."
    return "\n\n".join(filter(None, [title, link, *rest])) + "\n"


def _shown(output: Any, file: str, folder: Path) -> str:
    """Returns one output in Markdown; empty for warnings and progress."""
    data = output.get("data", {})
    if "image/png" in data:
        (folder / file).write_bytes(base64.b64decode(data["image/png"]))
        return f"![Output]({file})"
    text = output.text if output.output_type == "stream" and output.name == "stdout" else data.get("text/plain", "")
    return f"``` {{ .text .output }}\n{text.rstrip()}\n```" if text.strip() else ""
