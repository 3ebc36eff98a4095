"""`make test FAST=1`: within a minute, the tests that a change needs most.

    python tests/fast.py [--seconds 42] [--since main] [--list]

Which files have changed comes from git: what is not committed, and what the branch has beyond `--since`. The tests are taken in this order until
the time is up, which starts with the process: files are collected for a third of it, no test starts after it, and one that runs is stopped a third
later. How many were left, and the seconds in total, are printed at the end:

1. changed tests, and the test of the same name as a changed module (tests/values/test_map.py of values/map.py);
2. the rules of the house;
3. tests that import a changed module, those that import fewest modules first, because they test it most directly;
4. without changes, or with time left, the tests of every package's smallest files.
"""

import argparse
import ast
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

START = time.monotonic()
TESTS = Path(__file__).parent
ROOT = TESTS.parent
MOST_FILES = 30
"""Files of tests that are collected, which alone may take a second each."""
RULES = ("test_rules.py", "test_suite_itself.py", "test_repository.py")


class Deadline:
    """A pytest plugin that collects no more files and runs no more tests once the time for it is up."""

    def __init__(self, seconds: float, start: float = START):
        self.start, self.seconds = start, seconds
        self.files = self.skipped = self.done = self.left = 0

    def is_up(self, share: float = 1.0) -> bool:
        return time.monotonic() >= self.start + share * self.seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> pytest.CollectReport | None:
        if not isinstance(collector, pytest.Module):
            return None
        self.files += 1
        if self.files == 1 or not self.is_up(1 / 3):
            return None
        self.skipped += 1
        return pytest.CollectReport(collector.nodeid, "passed", None, [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        if self.is_up():
            self.left += 1
            return True
        if hasattr(signal, "setitimer"):  # Windows cannot stop a test
            signal.signal(signal.SIGALRM, lambda *_: self.stop(item.session))
            signal.setitimer(signal.ITIMER_REAL, min(self.start + 4 / 3 * self.seconds - time.monotonic(), 1e6))
        return None

    def stop(self, session: pytest.Session) -> None:
        self.left = session.testscollected - self.done
        pytest.exit("this test ran long after the time was up", 1 if session.testsfailed else 0)

    def pytest_runtest_logfinish(self) -> None:
        self.done += 1
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left or self.skipped:
            left = f"{self.left} tests and {self.skipped} files"
            terminalreporter.write_line(f"time is up: {left} were not run; make test runs all")
        terminalreporter.write_line(f"{time.monotonic() - self.start:.0f} seconds in total")


def changed_files(root: Path, since: str) -> list[str]:
    """Paths relative to the repository; deleted files are left out."""

    def git(*words: str) -> list[str]:
        found = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        return found.stdout.splitlines() if found.returncode == 0 else []

    names = [
        *git("diff", "--name-only", "HEAD"),
        *git("ls-files", "--others", "--exclude-standard"),
        *git("diff", "--name-only", f"{since}...HEAD"),
    ]
    return [name for name in dict.fromkeys(names) if (root / name).is_file()]


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("maskweave")}


def chosen(root: Path, changed: list[str]) -> list[str]:
    """Returns the test files to run, in order."""
    tests = root / "tests"
    files = sorted(tests.rglob("test_*.py"))
    modules = [Path(name).relative_to("src").with_suffix("") for name in changed if name.startswith("src/maskweave/")]
    names = {".".join(module.parts).removesuffix(".__init__") for module in modules}
    mirrors = {tests.joinpath(*module.parts[1:-1], f"test_{module.stem}.py") for module in modules}
    mirrors |= {root / name for name in changed}
    uses = {path: imported(path) for path in files}
    first = [path for path in files if path in mirrors]
    rules = [tests / name for name in RULES]
    using = sorted((path for path in files if uses[path] & names), key=lambda path: len(uses[path]))
    folders = {path.parent for path in files} - {tests}
    small = [min((p for p in files if p.parent == f), key=lambda p: p.stat().st_size) for f in sorted(folders)]
    order = dict.fromkeys(path for path in (*first, *rules, *using, *small) if path in uses)
    return [path.relative_to(root).as_posix() for path in order]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=42.0)
    parser.add_argument("--since", default="main")
    parser.add_argument("--list", action="store_true", help="print the files and run nothing")
    given = parser.parse_args(arguments)
    changed = changed_files(ROOT, given.since)
    files = chosen(ROOT, changed)
    print(f"{len(changed)} changed files; {len(files)} files of tests, the closest first", flush=True)
    if given.list:
        print("\n".join(files))
        return 0
    return int(pytest.main(["-p", "no:xdist", *files[:MOST_FILES]], plugins=[Deadline(given.seconds)]))


if __name__ == "__main__":
    sys.exit(main())
