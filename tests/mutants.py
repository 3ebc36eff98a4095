"""Puts small faults into the code, one at a time, and prints which of them the tests notice: `make mutants`.

    python tests/mutants.py --seed 0 --count 100 --rooms files,nn
    python tests/mutants.py --named   # those of named_faults.py instead

A seed chooses the faults: another comparison, number or operator, a dropped check, a dropped call, a flipped condition. The package is copied, the
fault is put into the copy, and the few test files that are most likely to notice it run on it, until one test fails. At the end, the tests that
failed, or did not end, run without faults: those that fail then, too, have noticed nothing. A fault that no test notices is a test to write, or
changes nothing that anyone can see. The exit code is 1 if fewer than nine in ten are noticed, or not all of those that have names.
"""

import argparse
import ast
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

# Before the forks that run tests, which need them, and without maskweave, of which each fork has its own.
import numpy  # noqa: F401
import pytest
import torch
from named_faults import NAMED, NamedFault

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "maskweave"
SWAPPED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in", ast.NotIn: "in",
    ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "//", ast.And: "or",
    ast.Or: "and",
}  # fmt: skip
"""What takes the place of an operator."""
SILENT = ("_shown", "shown", "describe", "print", "say", "warn", "warning")
"""Calls whose arguments are words for people."""
MOST_FILES = 16
"""Test files that run for one fault, beside those that look at every module."""
MARK = 0.9
"""Share of the faults that tests are to notice."""
OF_ALL = ("test_declarations.py", "test_settings.py", "test_constants.py")
WALL = 10
"""Times its processor time that a run of tests may take on a busy machine."""
IDLE = 120
"""Seconds without any use of the processor after which tests are taken to wait forever."""
NO_RESULT = {
    2: "was interrupted",
    3: "had an internal error",
    4: "cannot run",
    5: "has no tests in",
    70: "did not start with",
}
"""Exit codes with which no test passed or failed, and what pytest did with the test files."""


@dataclass(frozen=True)
class Fault:
    """One change of the text of a module."""

    path: Path
    line: int
    start: int
    """Offset in the file, in bytes."""
    end: int
    new: str
    what: str
    tests: tuple[Path, ...] = ()
    """Test files to run; none: those that are likely to notice it."""

    def apply(self, text: bytes) -> bytes:
        return text[: self.start] + self.new.encode() + text[self.end :]

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE)}:{self.line}: {self.what}"


class Finder(ast.NodeVisitor):
    """Finds the faults that a module's code allows. Words for people, types and docstrings stay."""

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_bytes()
        self.faults: list[Fault] = []
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.visit(ast.parse(self.text))

    def add(self, node: ast.AST, new: str, what: str, end: ast.AST | None = None) -> None:
        at, to = self.span(node)[0], self.span(end or node)[1]
        self.faults.append(Fault(self.path, node.lineno, at, to, new, what))  # type: ignore[attr-defined]

    def span(self, node: ast.AST) -> tuple[int, int]:
        n: ast.expr = node  # type: ignore[assignment]
        assert n.end_lineno is not None and n.end_col_offset is not None
        return self.starts[n.lineno - 1] + n.col_offset, self.starts[n.end_lineno - 1] + n.end_col_offset

    def source(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.text[start:end].decode()

    def between(self, left: ast.AST, right: ast.AST, operator: ast.AST) -> None:
        """Swaps the operator between two expressions."""
        new = SWAPPED.get(type(operator))  # type: ignore[call-overload]
        start, end = self.span(left)[1], self.span(right)[0]
        old = self.text[start:end].decode()
        if new and (word := re.search(r"(not\s+in|is\s+not|[a-z]+|[-+*/%<>=!]+)", old)) and "#" not in old:
            changed = old[: word.start()] + new + old[word.end() :]
            line = self.text[:start].count(b"\n") + 1
            self.faults.append(Fault(self.path, line, start, end, changed, f"{word[0]} becomes {new}"))

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self.between(left, right, operator)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        words = any(
            isinstance(n, ast.JoinedStr) or (isinstance(n, ast.Constant) and isinstance(n.value, str))
            for n in ast.walk(node)
        )
        if not words:
            self.between(node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, node.op)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
            self.add(node, f"({self.source(node.operand)})", f"{self.source(node)[:40]} loses its sign")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(node, str(not value), f"{value} becomes {not value}")
        elif isinstance(value, int):
            self.add(node, str(value + 1), f"{value} becomes {value + 1}")
        elif isinstance(value, float) and value:
            self.add(node, repr(value * 1.25), f"{value} becomes {value * 1.25}")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.body[-1], (ast.Raise, ast.Return)) and not node.orelse:
            kind = "check" if isinstance(node.body[-1], ast.Raise) else "case"
            self.add(node.test, "False", f"the {kind} {self.source(node.test)[:60]!r} is dropped")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.add(node, f"({self.source(node.body)})", f"always {self.source(node.body)[:40]!r}")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.add(node, "pass", f"{self.source(node)[:60]!r} is dropped")
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in SILENT:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if not node.name.startswith(("describe", "__repr__", "__str__", "draw", "advi")):
            for part in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
                self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in ("strict", "width", "indent", "stacklevel"):  # they check or format
            self.generic_visit(node)

    def skip(self, node: ast.AST) -> None:
        """Messages, texts, imports and assertions for the type checker."""

    visit_Raise = visit_JoinedStr = visit_Import = visit_ImportFrom = visit_Assert = skip


def faults_of(rooms: list[str]) -> list[Fault]:
    """All faults of the modules of some rooms; of all rooms if there are none."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if (not rooms or room in rooms) and room not in ("__init__", "__main__") and "draw" not in path.name:
            found += Finder(path).faults
    return found


def users(module: Path, files: Iterable[Path]) -> list[Path]:
    """Returns the files that import a module."""
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    name, parent = ".".join(parts), ".".join(parts[:-1])
    pattern = re.compile(rf"from {name}(\.| import)|import {name}\b|from {parent} import [^\n]*\b{parts[-1]}\b")
    return [file for file in files if pattern.search(file.read_text(encoding="utf-8"))]


def names_at(module: Path, line: int) -> set[str]:
    """The functions, classes and constants at a line of a module; of private ones also those of the module that use them."""
    tops: dict[str, set[str]] = {}
    found, text = set(), module.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = {n.id for target in filter(None, targets) for n in ast.walk(target) if isinstance(n, ast.Name)}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names = {node.name}
        used = {
            n.id if isinstance(n, ast.Name) else n.attr
            for n in ast.walk(node)
            if isinstance(n, (ast.Name, ast.Attribute))
        }
        tops |= dict.fromkeys(names, used)
        if node.lineno <= line <= (node.end_lineno or 0):
            inner = (
                n for n in ast.walk(node) if isinstance(n, ast.FunctionDef) and n.lineno <= line <= (n.end_lineno or 0)
            )
            found |= names | {n.name for n in inner}
    todo = [*found]
    while todo:
        if (name := todo.pop()).startswith("_"):
            todo += (users := {other for other, used in tops.items() if name in used} - found)
            found |= users
    return {name for name in found if not name.startswith("_")}


def tests_of(module: Path, line: int) -> list[Path]:
    """The test files that are most likely to notice a fault of a module: those that import it, then in turn those of its room and those that import
    a module that does. Files that have its name, then those with a name of what is at the line, and small ones, come first. Before them, those that
    look at every module."""
    tests = [*(ROOT / "tests").rglob("test_*.py")]
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    room = [file for file in tests if ROOT / "tests" / parts[0] in file.parents]
    between = users(module, PACKAGE.rglob("*.py")) + [PACKAGE / "cli" / "main.py"] * (parts[0] == "cli")  # by name
    further = {file for other in between for file in users(other, tests)}
    names = {name.removesuffix("_arguments").replace("_", "[_ ]") for name in names_at(module, line)}
    pattern = re.compile(rf"\b({'|'.join(sorted(names)) or '$.'})\b")
    naming = {file for file in tests if pattern.search(file.read_text(encoding="utf-8"))}

    def sorted_of(files: Iterable[Path]) -> list[Path]:
        return sorted(files, key=lambda f: (parts[-1] not in f.stem, f not in naming, f not in room, f.stat().st_size))

    turns = zip_longest(sorted_of(room), sorted_of(further))
    found = [*sorted_of(users(module, tests)), *(file for pair in turns for file in pair if file is not None)]
    return [*(ROOT / "tests" / name for name in OF_ALL), *list(dict.fromkeys(found))[:MOST_FILES]]


def named(fault: NamedFault) -> Fault:
    """Returns a named fault as a change of the text of its module."""
    path = PACKAGE / fault.module
    text, old = path.read_bytes(), fault.old.encode()
    if text.count(old) != 1:
        sys.exit(f"{fault.what}: {fault.module} has its code {text.count(old)} times; correct named_faults.py")
    start = text.index(old)
    line = text[:start].count(b"\n") + 1
    tests = tuple(ROOT / "tests" / name for name in fault.tests)
    return Fault(path, line, start, start + len(old), fault.new, fault.what, tests)


def files_for(fault: Fault) -> list[str]:
    """Returns the test files that run for a fault."""
    return [str(path.relative_to(ROOT)) for path in fault.tests or tests_of(fault.path, fault.line)]


def notices(fault: Fault, limit: int) -> str:
    """Returns the test, or the test file, that fails with a fault; nothing if all pass; otherwise how the process ended: "timeout" or an exit code."""
    files = files_for(fault)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = shutil.copytree(PACKAGE, Path(folder) / "maskweave", copy_function=linked)
        target = copy / fault.path.relative_to(PACKAGE)
        target.unlink()
        target.write_bytes(fault.apply(fault.path.read_bytes()))
        code, said = run_tests(["-x", *files], Path(folder), limit) if files else (0, "")
    if code == 4 and run_without_fault(["--collect-only", *files], limit)[0] == 0:
        return "exit code 4"  # with the fault, what all tests share cannot be imported
    check_result(code, said, files)
    if code in (0, -signal.SIGXCPU, -signal.SIGKILL):
        return "timeout" if code else ""
    return next(iter(failures(said)), f"exit code {code}")


def is_test(found: str) -> bool:
    """Whether what `notices` returned is a test or a test file."""
    return found.startswith("tests/")


def check_result(code: int, said: str, tests: Sequence[str]) -> None:
    """Ends this program if no test passed or failed."""
    if code in NO_RESULT:
        sys.exit(f"pytest {NO_RESULT[code]} {' '.join(tests)}:\n{said[-1000:]}")


def linked(source: str, target: str) -> str:
    """Makes a file appear at another place, compiled modules included, with a copy only where there is no other way."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def failures(said: str) -> list[str]:
    """Returns the names of the tests that failed, and of the test files that could not be imported."""
    return re.findall(r"^(?:FAILED|ERROR) ([^\[\n]+?(?:\[.*?\])?)(?: - .*)?$", said, re.MULTILINE)


def run_tests(words: Sequence[str], package: Path, limit: int) -> tuple[int, str]:
    """Runs tests in a fork of this process, which has imported torch.

    Args:
        package: folder with the package to test.
        limit: seconds of processor time.

    Returns:
        the exit code, negative for a signal, and what pytest printed.
    """
    said = package / "said"
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        _test(words, package, limit, said)
    start = busy = time.monotonic()
    used = 0
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        time.sleep(0.05)
        now = time.monotonic()
        if now > busy + IDLE / 2 and (ticks := processor_ticks(pid)) != used:
            busy, used = now, ticks
        if now > min(start + WALL * limit, busy + IDLE):
            os.killpg(pid, signal.SIGKILL)
            found = os.waitpid(pid, 0)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what the tests have started
    return os.waitstatus_to_exitcode(found[1]), said.read_text(errors="replace", encoding="utf-8")


def processor_ticks(session: int) -> int:
    """Returns the processor time of the processes of a session, in ticks; always another number where there is no /proc."""
    stats = [*Path("/proc").glob("[0-9]*/stat")]
    if not stats:
        return time.monotonic_ns()
    total = 0
    for path in stats:
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            total += (int(fields[3]) == session) * (int(fields[11]) + int(fields[12]))
    return total


def _test(words: Sequence[str], package: Path, limit: int, said: Path) -> NoReturn:
    code = 70
    try:
        os.setsid()
        with open(said, "ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        os.environ.update(PYTHONPATH=str(package), OMP_NUM_THREADS="1")
        os.chdir(ROOT)
        sys.path[:0] = [str(package)]
        code = int(pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "-W", "ignore", *words]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def not_theirs(tests: Sequence[str], limit: int) -> set[str]:
    """Returns the tests and test files that fail without any fault, too."""
    if not tests:
        return set()
    functions = sorted({test.partition("[")[0] for test in tests})
    code, said = run_without_fault(["-n0", "--continue-on-collection-errors", *functions], limit)
    check_result(code, said, functions)
    if code not in (0, 1):
        sys.exit(f"the tests that failed do not end without a fault, exit code {code}: {' '.join(functions)}")
    return {*failures(said)}


def run_without_fault(words: Sequence[str], limit: int) -> tuple[int, str]:
    """Like `run_tests`, with the package as it is."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        os.symlink(PACKAGE, Path(folder) / "maskweave")
        return run_tests(words, Path(folder), limit)


def chosen(rooms: list[str], seed: int, count: int) -> Iterator[Fault]:
    """Yields faults: a room, then one of its modules, then one of its faults, each with equal chances."""
    rng = random.Random(seed)
    by_room: dict[str, dict[Path, list[Fault]]] = {}
    for fault in faults_of(rooms):
        room = fault.path.relative_to(PACKAGE).parts[0]
        by_room.setdefault(room, {}).setdefault(fault.path, []).append(fault)
    for _ in range(count):
        modules = by_room[rng.choice(sorted(by_room))]
        yield rng.choice(modules[rng.choice(sorted(modules))])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--numbers", default="", help="only these of the faults, separated by commas")
    parser.add_argument("--named", action="store_true", help="the faults of named_faults.py instead")
    parser.add_argument("--rooms", default="", help="rooms, separated by commas (default: all)")
    parser.add_argument("--limit", type=int, default=200, help="seconds of processor time for the tests of one fault")
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads would not be in the forks
    rooms = [room for room in given.rooms.split(",") if room]
    faults = [*map(named, NAMED)] if given.named else [*chosen(rooms, given.seed, given.count)]
    numbers = [int(number) for number in given.numbers.split(",") if number] or range(len(faults))
    caught: dict[Fault, str] = {}
    for number in numbers:
        fault = faults[number]
        caught[fault] = notices(fault, given.limit)
        print(f"{number:>4} {'caught   ' if caught[fault] else 'UNNOTICED'} {fault}  {caught[fault]}", flush=True)
    failed = sorted({test for test in caught.values() if is_test(test)})
    for test in not_theirs(failed, 10 * given.limit):
        for fault in [fault for fault, other in caught.items() if other == test]:
            caught[fault] = ""
            print(f"     UNNOTICED {fault}  {test} fails without it, too")
    for fault, ended in caught.items():
        if ended and not is_test(ended) and run_without_fault(["-x", *files_for(fault)], given.limit)[0]:
            caught[fault] = ""
            print(f"     UNNOTICED {fault}  its tests do not pass without it, either")
    rooms_of = {fault: fault.path.relative_to(PACKAGE).parts[0] for fault in caught}
    print("\nroom                faults    caught")
    for room, total in sorted(Counter(rooms_of.values()).items()):
        print(f"{room:<20}{total:>6}{sum(bool(t) for f, t in caught.items() if rooms_of[f] == room):>10}")
    noticed = sum(map(bool, caught.values()))
    print(f"caught {noticed} of {len(caught)}")
    return int(noticed < len(caught) * (1 if given.named else MARK))


if __name__ == "__main__":
    sys.exit(main())
