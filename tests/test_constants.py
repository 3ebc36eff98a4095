"""The numbers that the code states by name, and the defaults of its functions: thresholds, limits, and what a call that leaves an argument out means.

A number that changes on purpose changes in constants.yaml, too: `python tests/test_constants.py` writes it. Defaults of recipes and catalogs are in
settings.yaml.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from test_settings import STORED as STORED_SETTINGS

import maskweave

PACKAGE = Path(maskweave.__file__).parent
STORED = Path(__file__).with_name("constants.yaml")
KNOWN = {"__builtins__": {"tuple": tuple, "range": range}}
SETTINGS = yaml.safe_load(STORED_SETTINGS.read_text(encoding="utf-8"))
HEADER = "# Written by `python tests/test_constants.py`\n"


def numbers_of(value: Any) -> bool:
    """Whether a value has a number or a truth value anywhere but in bytes."""
    if isinstance(value, dict):
        return any(map(numbers_of, value.values()))
    return any(map(numbers_of, value)) if isinstance(value, (list, tuple)) else isinstance(value, (int, float))


def evaluated(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of an expression of numbers, texts and names before it; of tables and calls with other parts, what is in those parts, with None for
    each of the others; None of any other."""
    try:
        value = eval(compile(ast.Expression(node), "", "eval"), {**KNOWN, **names})
        return value if ast.literal_eval(repr(value)) == value else None
    except (NameError, AttributeError, TypeError, ValueError, SyntaxError):
        pass
    if isinstance(node, ast.Dict):
        found = {}
        for key, value in zip(node.keys, node.values, strict=True):
            name = None if key is None else evaluated(key, names)
            found[ast.unparse(key or value) if name is None else name] = evaluated(value, names)
        return found
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return [evaluated(item, names) for item in node.elts]
    if isinstance(node, ast.Call):
        return [evaluated(item, names) for item in (*node.args, *(keyword.value for keyword in node.keywords))]
    return None


def assigned(body: list[ast.stmt], names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of the assignments of a module or a class."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        else:
            continue
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = [*zip(target.elts, value.elts, strict=True)]
        for name, part in pairs:
            if isinstance(name, ast.Name) and (found := evaluated(part, names)) is not None:
                yield name.id, found


def defaults(function: ast.FunctionDef) -> Iterator[tuple[str, Any]]:
    plain = [*function.args.posonlyargs, *function.args.args]
    own = zip(plain[len(plain) - len(function.args.defaults) :], function.args.defaults, strict=True)
    for argument, node in [*own, *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)]:
        if isinstance(node, ast.expr) and numbers_of(found := evaluated(node, {})):
            yield argument.arg, found


def of_body(body: list[ast.stmt], prefix: str, names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in assigned(body, names):
        names[name] = value
        if numbers_of(value):
            yield prefix + name, value
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from of_body(node.body, f"{prefix}{node.name}.", dict(names))
        elif isinstance(node, ast.FunctionDef):
            yield from ((f"{prefix}{node.name}({name})", value) for name, value in defaults(node))


def is_setting(module: str, name: str) -> bool:
    """Whether a name is a field of a class in settings.yaml."""
    owner, _, field = name.partition(".")
    return field in SETTINGS.get(f"{module}.{owner}", ())


def constants() -> dict[str, dict[str, str]]:
    """Numbers by module and name, as Python writes them."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        own = {name: repr(value) for name, value in of_body(ast.parse(path.read_bytes()).body, "", {})}
        if own := {name: value for name, value in own.items() if not is_setting(module, name)}:
            found[module] = own
    return found


def test_numbers_are_those_that_are_written_down() -> None:
    stored, found = yaml.safe_load(STORED.read_text(encoding="utf-8")), constants()
    for name in stored.keys() | found.keys():
        assert found.get(name) == stored.get(name), (
            f"a number of {name} changed; on purpose: python tests/test_constants.py"
        )


def test_what_counts_as_a_number() -> None:
    code = "A, B = 2**3, 'b'\nC: int = A + 1\nD = (A, 0.5)\nE = open\nclass X:\n  f: float = 1.0\n  def g(self, h=True, *, i='', j=-1): k = 5"
    found = {"A": 8, "C": 9, "D": (8, 0.5), "X.f": 1.0, "X.g(h)": True, "X.g(j)": -1}
    assert dict(of_body(ast.parse(code).body, "", {})) == found
    code = "A = 2\nB = {'x': here, there: (A, f(1, key=[True]))}\nC = f(here)\nD = {**here, 1: (f, 2)}"
    found = {"A": 2, "B": {"x": None, "there": [2, [1, [True]]]}, "D": {"here": None, 1: [None, 2]}}
    assert dict(of_body(ast.parse(code).body, "", {})) == found


def test_attributes_of_classes_with_settings_are_numbers_too() -> None:
    found = constants()
    assert found["values.features"]["Features.can_be_weighted"] == "True"
    assert "Features.channels" not in found["values.features"], "a setting"


if __name__ == "__main__":
    STORED.write_text(HEADER + yaml.safe_dump(constants(), default_flow_style=None, width=150), encoding="utf-8")
