"""Values do not change once they are made: dataclasses are frozen, all but those that collect something."""

import ast
from pathlib import Path

import maskweave

PACKAGE = Path(maskweave.__file__).parent
MUTABLE = {
    "AlignedListing", "Best", "DataStats", "Desk", "FolderListing", "Finding", "Fitted", "Generated", "Histogram", "Hits", "Line", "ModalityStats",
    "PartNotes", "Project", "Scene", "Skipped", "State", "Tiled", "TokenState", "_Held", "_Owner", "_Range",
}  # fmt: skip


def mutable_dataclasses(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            words = ast.unparse(decorator)
            if "dataclass" in words and "frozen=True" not in words:
                found.add(node.name)
    return found


def test_only_what_collects_something_can_be_changed() -> None:
    assert set().union(*map(mutable_dataclasses, PACKAGE.rglob("*.py"))) == MUTABLE
