"""The rules of the house that a machine can check: over the source, the recipes, the README, the imports."""

import ast
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from page_blocks import PAGES, ROOT, blocks, commands
from PIL import Image

import maskweave
from maskweave.cli.main import COMMANDS
from maskweave.families.base import BUILT_IN, family_named
from maskweave.files import read_yaml
from maskweave.modality.catalogs import load_catalog, shipped
from maskweave.modality.entry import Kind
from maskweave.training.recipe import load_recipe
from maskweave.transfer.recipe import load_transfer
from maskweave.values import value_types

PACKAGE = Path(maskweave.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "catalog" not in path.relative_to(PACKAGE).parts)
RECIPES = sorted((ROOT / "recipes").glob("**/*.yaml"))

GROUND = (
    "errors",
    "arguments",
    "limits",
    "deadline",
    "locks",
    "files",
    "config",
    "progress",
    "interruption",
    "hub",
    "ranks",
    "shipped",
    "system",
    "provenance",
    "permission",
)
"""Modules without torch, which may import each other."""
ROOMS = (
    "values", "modality", "nn", "tokenizers", "data", "masking", "models", "objectives", "families", "training", "bundle", "report",
    "generate", "evaluate", "transfer", "retrieve", "interop", "label", "init", "synthetic", "doctor", "studio", "cli", "__main__",
)  # fmt: skip
"""Packages in order: each imports only from the ground and from packages before it."""
HEAVY = (
    "matplotlib", "rich", "cv2", "diffusers", "tokenizers", "huggingface_hub", "jsonargparse", "tensorboard", "PIL",
    "rasterio", "astropy", "h5py", "zarr", "soundfile", "av", "torch.utils.tensorboard", "gradio",
)  # fmt: skip
MOST_LINES = 500


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 50 and RECIPES and PAGES and len(shipped()) > 1


# Rule 1: no modality's name in library code.


@cache
def modality_names() -> set[str]:
    """Names of all shipped entries, but for those that are also words of the entries' own language.

    "boxes", "palette", "metadata" and "instances" are value types, which is what code should go by; a test cannot tell the two apart.
    """
    names = {name for catalog in shipped() for name in load_catalog(catalog)}
    return names - set(value_types()) - set(get_args(Kind))


KEYS = {"interop/m3ae.py": {"depth"}}
"""Names of modalities that are also keys of a published configuration, by the file that reads it."""
FORMATS = {
    "data/coco.py": {"caption"},
    "data/layouts/diode.py": {"depth", "normal"},
    "data/layouts/hypersim.py": {"depth_meters"},
}
"""Names of modalities that are also keys of a published file format, by the file that reads it."""


def quoted(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string in code; texts for people, such as docstrings and messages, are longer than a name and do no harm."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


def test_names_of_modalities_are_found() -> None:
    assert {"rgb", "tok_rgb", "depth", "normal", "semseg", "edges", "caption"} <= modality_names()
    assert [
        node.value for node in quoted(ast.parse('def f(x):\n    "depth"\n    return x["rgb"] + f"{x} caption"'))
    ] == ["depth", "rgb", " caption"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_library_code_names_no_modality(path: Path) -> None:
    file = path.relative_to(PACKAGE).as_posix()
    names = modality_names() - KEYS.get(file, set()) - FORMATS.get(file, set())
    found = [
        f"line {node.lineno}: {node.value!r}"
        for node in quoted(ast.parse(path.read_text(encoding="utf-8")))
        if set(re.split(r"[,\s]+", node.value)) <= names
    ]
    assert not found, "behavior must follow from kind and value type"


@pytest.mark.parametrize("file", KEYS)
def test_the_exceptions_are_keys_of_a_published_configuration(file: str) -> None:
    from maskweave.interop.m3ae import PublishedM3AEConfig

    quotes = [node.value for node in quoted(ast.parse((PACKAGE / file).read_text(encoding="utf-8")))]
    for name in KEYS[file]:
        assert name in {f.name for f in dataclasses.fields(PublishedM3AEConfig)}
        assert quotes.count(name) == 1, "only where the largest values of the keys are listed"


# Rule 10 and safety, over the text of every file.


OBJECTS = ("gather_object", "object_list")
"""Of torch.distributed; they unpickle what other processes send."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_are_short_and_unpickle_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES and path.name != "utils.py"
    modules = {*imports(ast.parse(text))}
    assert not any(name.startswith("torch.distributed.checkpoint") for name in modules), "its metadata is a pickle"
    assert not {name.split(".")[0] for name in modules} & {"pickle", "dill", "joblib", "marshal", "shelve"}
    for forbidden in (
        "torch.load(",
        "yaml.load(",
        "yaml.unsafe_load",
        "allow_pickle=True",
        "weights_only=False",
        *OBJECTS,
    ):
        assert forbidden not in text


ONLY_HERE = {
    r"json\.loads?\(|JSONDecoder": {
        "files.py": "it is `parse_json`, which refuses a key that appears twice",
        "locks.py": "a lock that is no JSON has an owner without process",
        "label/derive.py": "what it has just written",
        "tokenizers/byte_bpe.py": "what its own learner has written",
        **dict.fromkeys((f"training/{x}.py" for x in ("distributed", "gathering", "launch", "processes")), "messages"),
    },
    r"memmap\(|mmap_mode|memory_map\(|mapped=True": {
        "data/arrow.py": "compares the size of the file before each use",
        "data/token_store.py": "does, too",
        "generate/tiles.py": "writes it",
        "training/tokenizers.py": "only for a moment",
    },
}
"""What only some files may do, and why."""


@pytest.mark.parametrize("pattern", ONLY_HERE)
def test_what_only_some_files_do(pattern: str) -> None:
    found = [p.relative_to(PACKAGE).as_posix() for p in SOURCES if re.search(pattern, p.read_text(encoding="utf-8"))]
    assert found == sorted(ONLY_HERE[pattern]), "use parse_json; read a file instead of mapping it (NpyRows, open_file)"


# One name for one thing.


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno}")
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


# The house: every room imports only from rooms above it in the list.


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, anywhere in it; of `from maskweave import x`, also maskweave.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parent != PACKAGE or path.stem != "__init__"],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_rooms_import_only_from_rooms_above(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in (*GROUND, *ROOMS), f"{room} is not in the list of rooms"
    above = {*GROUND, *(ROOMS[: ROOMS.index(room)] if room in ROOMS else ())}
    names = [name for name in imports(ast.parse(path.read_text(encoding="utf-8"))) if name.startswith("maskweave.")]
    used = {name.split(".")[1] for name in names if name != "maskweave.__version__"}
    assert used - above - {room} == set()


# Model families: only `models/` and `families/` know which there are.

FAMILY_ROOMS = ("models", "families", "interop")
"""Rooms that may name families; in `interop` they are the names of published formats."""


def family_switches(tree: ast.AST) -> Iterator[str]:
    """Where code goes by the family: an `isinstance` of a model, or a family's name in code."""
    old_keys = {
        id(key)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target) == "renamed"
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
    }
    for node in ast.walk(tree):
        if id(node) in old_keys:
            continue
        if isinstance(node, ast.Constant) and node.value in BUILT_IN:
            yield f"line {node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            if set(re.findall(r"\w+", ast.unparse(node.args[1]))) & MODELS:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.match_case) and set(re.findall(r"\w+", ast.unparse(node.pattern))) & MODELS:
            yield f"line {node.pattern.lineno}: case {ast.unparse(node.pattern)}"


MODELS = {family_named(name).Model.__name__ for name in BUILT_IN}


def test_family_switches_are_found() -> None:
    code = """
if isinstance(model, (FourM, Other)) or issubclass(kind, m.M3AE) or recipe.objective == "m3ae": ...
match model:
    case FourM(): ...
NAMES = ["fourm", "other"]
renamed: dict[str, str] = {"m3ae": "model"}
x = isinstance(model, nn.Module) or "use a run of family fourm"
"""
    found = list(family_switches(ast.parse(code)))
    assert len(found) == 5 and sorted(MODELS) == ["Contrastive", "FourM", "M3AE"], found


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] not in FAMILY_ROOMS],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_no_code_goes_by_the_family(path: Path) -> None:
    assert list(family_switches(ast.parse(path.read_text(encoding="utf-8")))) == [], (
        "ask the family, maskweave.families.base.Family"
    )


INFERENCE = ("bundle", "models", "families", "generate", "tokenizers", "interop")
"""Rooms that use models and train none."""


def test_inference_imports_no_training() -> None:
    modules = sorted(
        ".".join(("maskweave", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] in INFERENCE
    )
    assert {"maskweave.generate.bundle", "maskweave.bundle.io", "maskweave.models.fourm"} <= set(modules)
    program = (
        "import importlib, sys, maskweave; maskweave.load, maskweave.Bundle\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print([m for m in sys.modules if m.startswith('maskweave.training')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_importing_the_package_is_light() -> None:
    program = f"import sys, maskweave; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


MODULES = {"faiss-cpu": "faiss", "s3fs": "fsspec", "gcsfs": "fsspec"}
"""Of packages whose module has another name, or is imported by another package."""


def test_every_extra_is_imported_somewhere() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    imported = {name for path in SOURCES for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    for extra, packages in extras.items():
        for package in packages if extra not in ("dev", "docs") else ():
            name = re.match(r"[\w.-]+", package)[0]  # type: ignore[index]
            module = MODULES.get(name, name)
            assert any(f"{one}.".startswith(f"{module}.") for one in imported), f"[{extra}] {name}: nothing imports it"


# Rules 5 and 11: recipes.


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_load_and_say_what_they_cost(path: Path) -> None:
    if "start" in read_yaml(path) and "inputs" in read_yaml(path):
        assert load_transfer(path)
    else:
        assert load_recipe(path).load_catalog()
    header = " ".join(
        line[1:].strip() for line in re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))[0].splitlines()
    )  # type: ignore[index]
    for word in ("Command:", "Cost:", "Result:", "easured"):
        assert word in header, f"the header must say {word!r}"
    assert f"recipes/{path.relative_to(ROOT / 'recipes')}" in header or "make " in header


# Systems differ.

NOT_EVERYWHERE = re.compile(
    r"\bos\.(preadv?|pwritev?|posix_\w+|POSIX_\w+|kill|killpg|fork|fsync|getuid|geteuid|sysconf|sched_\w+|statvfs|uname)\b"
)
"""Names of `os` that another system lacks, or that do something else there: on Windows, `kill` ends a process, and `fsync` refuses files that are open for reading."""
GUARDED = {
    ("files.py", "fsync"): "of folders, where the system can",
    ("locks.py", "fsync"): "of files that are open for writing",
    ("doctor.py", "sysconf"): "or unknown",
    ("doctor.py", "sched_getaffinity"): "or the number of cores",
}


def test_what_systems_do_differently_is_in_one_module() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in SOURCES
        for name in NOT_EVERYWHERE.findall(path.read_text(encoding="utf-8"))
    }
    assert {place for place in found if place[0] != "system.py"} == GUARDED.keys()
    assert ("system.py", "kill") in found


# README and docs: blocks run, the tree is the tree.


def place(item: str) -> str:
    """Of a block's two parts, the one that names its test."""
    return item if re.fullmatch(r"[\w.-]+:\d+", item) else ""


@pytest.mark.parametrize(("where", "code"), blocks("python"), ids=place)
def test_python_blocks_run(
    where: str, code: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a photo.png, a photo.jpg and a large.png, where runs/demo is a tiny run of the same catalog."""
    shutil.copytree(tiny_run, tmp_path / "runs" / "demo")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))
    for name in ("photo.png", "photo.jpg"):
        picture.save(tmp_path / name)
    picture.resize((160, 112)).save(tmp_path / "large.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda self, **_: None)
    trained = contents(tmp_path / "runs" / "demo" / "model")
    exec(compile(code, where, "exec"), {"__name__": "__main__"})
    assert contents(tmp_path / "runs" / "demo" / "model") == trained, "using a model must not change its files"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("where", "block"), blocks("bash", "sh"), ids=place)
def test_bash_blocks_name_what_there_is(where: str, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from jsonargparse import ArgumentParser

    monkeypatch.chdir(ROOT)
    targets = (
        set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        if (ROOT / "Makefile").exists()
        else set()
    )
    for words in commands(block):
        if words[0] == "make":
            assert set(words[1:]) <= targets, f"{where}: {words}"
        elif Path(words[0]).name in ("maskweave", "torchrun", "srun"):
            words = words[[Path(word).name for word in words].index("maskweave") :]
            name = next((" ".join(words[1 : 1 + n]) for n in (2, 1) if " ".join(words[1 : 1 + n]) in COMMANDS), None)
            assert name, f"{where}: no such command: {shlex.join(words)}"
            parser = ArgumentParser(exit_on_error=False)
            COMMANDS[name].add_arguments(parser)
            parser.parse_args(words[1 + len(name.split()) :], defaults=False)
            for word in words:
                if word.startswith("recipes/"):
                    assert (ROOT / word).exists(), f"{where}: {word}"


def tree_paths(block: str) -> Iterator[str]:
    """Paths in an annotated tree: names that end in / or have an ending, under what is indented less; notes follow two blanks or a #."""
    above: list[tuple[int, str]] = []
    for line in block.splitlines():
        plain = re.sub(r"[│├└─|`]", " ", line)
        indent = len(plain) - len(plain.lstrip())
        names = []
        for word in plain.split():
            word = word.rstrip(",")
            if not re.fullmatch(r"[\w.*-][\w./*-]*(/|\.\w+)|Makefile|LICENSE", word):
                break
            names.append(word)
        while above and above[-1][0] >= indent:
            above.pop()
        parent = above[-1][1] if above else ""
        for name in names:
            yield parent + name
        if len(names) == 1 and names[0].endswith("/"):
            above.append((indent, parent + names[0]))


def test_trees_are_read() -> None:
    block = "src/pack/    the package\n  cli.py     7  commands. no logic\n  a/  b/     what\n  c/\n    d.py\ntests/   # all\nMakefile   demo, test"
    assert list(tree_paths(block)) == [
        "src/pack/",
        "src/pack/cli.py",
        "src/pack/a/",
        "src/pack/b/",
        "src/pack/c/",
        "src/pack/c/d.py",
        "tests/",
        "Makefile",
    ]
    assert list(tree_paths("├── tests/   # all\n│   └── test_x.py\n└── LICENSE")) == [
        "tests/",
        "tests/test_x.py",
        "LICENSE",
    ]


def tracked() -> list[str]:
    """Files of the repository, those about to be added included."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in found.stdout.splitlines() if os.path.exists(ROOT / name)]


def test_the_tree_that_is_shown_is_the_tree() -> None:
    trees = [list(tree_paths(block)) for _, block in blocks("", "text", pages=[ROOT / "CONTRIBUTING.md"])]
    trees = [paths for paths in trees if any(path.startswith("src/maskweave/") for path in paths)]
    (shown,) = trees
    files = tracked()
    folders = {f"{name.rsplit('/', n)[0]}/" for name in files for n in range(1, name.count("/") + 1)}
    assert [path for path in shown if "*" not in path and path not in folders and path not in files] == [], (
        "shown, but not there"
    )
    rooms = {
        f"src/maskweave/{name.split('/')[2]}{'/' if name.count('/') > 2 else ''}"
        for name in files
        if name.startswith("src/maskweave/")
    }
    rooms -= {"src/maskweave/__init__.py", "src/maskweave/py.typed"}
    top = {f"{name.split('/')[0]}/" for name in files if "/" in name and not name.startswith(".")}
    covered = {*shown, *(f"{path.split('/')[0]}/" for path in shown)}
    assert sorted((rooms | top) - covered) == [], "there, but not shown"


# American spelling.


def test_the_spelling_check_finds_words_within_names(tmp_path: Path) -> None:
    pytest.importorskip("codespell_lib")
    wrong = "tokenise_rows QuantiserHead COLOUR_MAP neighbours x_normalised recieve"  # codespell:ignore
    words = "tokenise quantiser colour neighbours normalised recieve"  # codespell:ignore
    (tmp_path / "wrong.py").write_text(wrong.replace(" ", "\n"), encoding="utf-8")
    (tmp_path / "right.py").write_text(
        "tokenize_rows QuantizerHead COLOR_MAP x_BND neighbors np.atleast_1d writeable", encoding="utf-8"
    )
    command = [sys.executable, "-m", "codespell_lib", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = found.stdout.splitlines()
    assert [line.split(" ==> ")[0].split()[-1].lower() for line in lines] == words.split(), found
