"""Wrong arguments of every public function: one clear error, or a result, but no other exception."""

import ast
import inspect
from pathlib import Path

import pytest
from entry_points import OBJECTS, WRONG, Call, calls

import maskweave
from maskweave.errors import MaskweaveError

NAMES = (
    "load", "Bundle.save", "Bundle.push", "Bundle.card", "compress", "Bundle.to", "Bundle.generate", "Bundle.generate_batch", "Bundle.start", "Bundle.schedule", "Bundle.best_of", "Bundle.ensemble", "Bundle.score",
    "Bundle.score_batch", "Bundle.calibrate", "Bundle.tiles", "Bundle.encoder", "Bundle.read", "Generated.save", "sheet_of", "Schedule.save", "load_schedule", "load_catalog",
    "Catalog.subset", "load_recipe", "load_transfer", "load_suite", "open_data", "import_data", "import_folders", "import_source", "Shards",
    "data_stats", "label", "export", "Scenes", "evaluate", "generate_files", "make_index", "Index", "Index.query", "exported.export", "export_model", "export_tokenizer", "load_transferred", "load_bundle",
    "load_backbone", "load_model", "load_tokenizer", "load_m3ae",
)  # fmt: skip


@pytest.fixture(scope="module")
def found(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Call]:
    made = calls(tiny_run, tmp_path_factory.mktemp("calls"))
    assert tuple(made) == NAMES
    for call in made.values():
        inspect.signature(call.function).bind(**call.arguments)  # raises if an argument has another name now
    return made


def test_every_function_that_checks_its_arguments_is_tried(found: dict[str, Call]) -> None:
    package = Path(maskweave.__file__).parent
    checked = set()
    for path in (path for path in package.rglob("*.py") if "@check_arguments" in path.read_text(encoding="utf-8")):
        module = ".".join(("maskweave", *path.relative_to(package).with_suffix("").parts))
        scopes = [("", ast.parse(path.read_text(encoding="utf-8")))]
        for name, scope in scopes:
            scopes += [(f"{name}{n.name}.", n) for n in scope.body if isinstance(n, ast.ClassDef)]
            functions = [n for n in scope.body if isinstance(n, ast.FunctionDef)]
            checked |= {
                f"{module}.{name}{f.name}" for f in functions if "check_arguments" in map(ast.unparse, f.decorator_list)
            }
    tried = [call.function.__init__ if isinstance(call.function, type) else call.function for call in found.values()]
    assert len(checked) > 40 and checked - {f"{f.__module__}.{f.__qualname__}" for f in tried} == set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments(name: str, found: dict[str, Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some texts are paths
    call, raw, refused = found[name], [], 0
    keys = {key for key, given in call.arguments.items() if key not in OBJECTS or isinstance(given, str)}
    for key in sorted(keys):
        for value in WRONG:
            try:
                call.function(**{**call.arguments, key: value})
            except MaskweaveError as error:
                refused += 1
                if not 0 < len(str(error)) < 9000:
                    raw.append((key, repr(value)[:40], f"a message of {len(str(error))} characters"))
            except Exception as error:
                raw.append((key, repr(value)[:40], repr(error)[:100]))
    assert not raw
    assert refused > len(WRONG) / 3
