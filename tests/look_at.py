"""What to look at when a test fails: the place in the package, the changes that the test is about, and the command that runs it alone."""

import ast
from collections.abc import Iterable
from pathlib import Path
from subprocess import run  # by name: a test may have replaced subprocess.run when it fails

ROOT = Path(__file__).parent.parent


def advice(frames: Iterable[tuple[str, int, str]], test: str, changed: Iterable[str], root: Path = ROOT) -> list[str]:
    """Returns lines for the report of a failed test.

    Args:
        frames: file, line and function of the traceback, the innermost last.
        test: the test's id, FILE::NAME.
        changed: changed files, relative to the root.
    """
    package = root / "src" / "maskweave"
    inside = [(Path(file), line, name) for file, line, name in frames if Path(file).is_relative_to(package)]
    lines = [f"{file.relative_to(root)}:{line}, in {name}" for file, line, name in inside[-1:]]
    path = root / test.partition("::")[0]
    used = _imported(path) if path.is_file() else set()
    lines += [f"{name} has changed, and this test imports it" for name in changed if name in used]
    mirror = package / path.relative_to(root / "tests").parent / f"{path.stem.removeprefix('test_')}.py"
    if not lines and mirror.is_file():
        lines.append(f"{mirror.relative_to(root)}, which this file tests")
    return [*lines, f"alone: .venv/bin/python -m pytest '{test}'"]


def _imported(path: Path) -> set[str]:
    modules = [
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    return {f"src/{module.replace('.', '/')}.py" for module in modules if module}


def changed_files() -> list[str]:
    """Returns the files with changes that are not committed; none outside a checkout."""
    try:
        found = run(["git", "diff", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return []
    return found.stdout.splitlines()
