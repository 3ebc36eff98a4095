"""The files around the code: workflows, templates, citation, change log. They agree with pyproject.toml and with each other."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_rules import ROOT

import maskweave
from maskweave.files import read_yaml

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_tests_docs_and_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_sound(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["name"] == path.stem and workflow.keys() >= {True, "jobs"}, "YAML reads 'on' as true"
    assert workflow["permissions"] == {"contents": "read"}, "as few rights as possible"
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in workflow["jobs"].values():
        assert {"runs-on", "steps"} <= job.keys() and set(shlex.split(str(job.get("needs", "")))) <= workflow[
            "jobs"
        ].keys()
        assert "timeout-minutes" in job or job.get("needs"), "a job that hangs costs hours"
    for step in steps(workflow):
        assert len({"uses", "run"} & step.keys()) == 1
        if "uses" in step:
            assert re.fullmatch(r"(actions|pypa)/[\w-]+@(v\d+|release/v1)", step["uses"]), (
                "from a known owner, at a version"
            )
        for made in re.findall(r"^make ([\w./-]+)", step.get("run", ""), re.MULTILINE):
            assert made in targets
        for file in re.findall(r"tests/[\w/]+\.py", step.get("run", "")):
            assert (ROOT / file).is_file()
    for value in re.findall(r"\$\{\{\s*(\w+)", path.read_text(encoding="utf-8")):
        assert value in ("github", "matrix"), "no secrets"


def test_tests_run_on_every_supported_python_and_system() -> None:
    jobs = read_yaml(GITHUB / "workflows" / "tests.yml")["jobs"]
    versions = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert jobs["others"]["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    installed = jobs["others"]["steps"][2]["run"]
    extras = {name: len(packages) for name, packages in PROJECT["optional-dependencies"].items()}
    assert '--editable ".[dev,docs]"' in installed and extras["docs"] > 3, "what the tests import, as in the Makefile"
    assert '--editable ".[dev,docs]"' in (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [step.get("run") for step in jobs["linux"]["steps"]]
    assert "make faults SHARE=0.1" in commands, "a tenth of the fault bench for each change"


def test_the_site_is_built_and_published() -> None:
    jobs = read_yaml(GITHUB / "workflows" / "docs.yml")["jobs"]
    assert "make docs" in [step.get("run") for step in jobs["pages"]["steps"]]
    assert jobs["publish"]["needs"] == "pages" and jobs["publish"]["if"] == "github.event_name == 'push'"
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}


def test_a_release_is_published_by_trust_alone() -> None:
    jobs = read_yaml(GITHUB / "workflows" / "release.yml")["jobs"]
    publish = jobs["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["needs"] == "build" and publish["environment"]
    assert not any("with" in step and "password" in step["with"] for step in publish["steps"])
    commands = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    for word in (
        "python -m build",
        "twine check --strict",
        "maskweave run smoke",
        "GITHUB_REF_NAME",
        "dist/*.whl)[all]",
    ):
        assert word in commands


def test_versions_agree() -> None:
    version = PROJECT["version"]
    assert maskweave.__version__ == version == read_yaml(ROOT / "CITATION.cff")["version"]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1] == version  # type: ignore[index]


def test_the_citation_names_what_is_needed() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors", "type"} <= citation.keys()
    assert citation["license"] == PROJECT["license"] and citation["repository-code"] == REPOSITORY
    assert citation["authors"] == PROJECT["authors"]
    for paper in citation["references"]:
        assert {"type", "title", "authors", "year", "url"} <= paper.keys()


def test_issue_templates_are_forms() -> None:
    forms = [read_yaml(path) for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 2
    for form in forms:
        assert {"name", "description", "body"} <= form.keys()
        fields = [field for field in form["body"] if field["type"] != "markdown"]
        ids = [field["id"] for field in fields]
        assert len(set(ids)) == len(ids) and all(field["attributes"]["label"] for field in fields)
        assert any(field.get("validations", {}).get("required") for field in fields)
    config = read_yaml(GITHUB / "ISSUE_TEMPLATE" / "config.yml")
    assert all(
        link["url"].startswith(REPOSITORY) and link["name"] and link["about"] for link in config["contact_links"]
    )


def test_a_pull_request_is_asked_for_what_a_merge_needs() -> None:
    page = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    assert page.count("- [ ] ") >= 4
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = set(re.findall(r"`make ([\w-]+)`", page))
    assert {"check", "test"} <= made <= targets
    named = re.findall(r"[\w/]+\.md", page)
    assert {"docs/status.md", "CHANGELOG.md"} <= set(named) and all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("fails", ["", "demo"])
def test_what_runs_before_a_merge_says_how_long_each_step_took(fails: str, tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    for name, content in (("make", f'test "$1" != "{fails}"'), ("chromium", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    found = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = [re.sub(r"^ +\d+ s  ", "", line) for line in found.stdout.splitlines()]
    steps = ["make check", "make docs", "make demo", "make test", "make faults SHARE=0.1"][: 2 if fails else 5]
    assert (found.returncode != 0, lines) == (bool(fails), [*steps, "in total"]), found.stderr


def test_hooks_before_a_commit_have_the_versions_of_the_checks() -> None:
    hooks = {repo["repo"].rsplit("/", 1)[1]: repo for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert (
        hooks["ruff-pre-commit"]["rev"] == f"v{PINNED['ruff']}"
        and hooks["codespell"]["rev"] == f"v{PINNED['codespell']}"
    )
    assert [hook["id"] for hook in hooks["ruff-pre-commit"]["hooks"]] == ["ruff-check", "ruff-format"]


def test_every_package_of_an_extra_is_pinned() -> None:
    pinned = {name.lower().replace("_", "-") for name in PINNED}
    unpinned = {"gcsfs", "maskweave"}  # gs:// is not tested here; the extra of all extras names them
    for packages in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for package in packages:
            name = re.match(r"[\w.-]+", package)[0].lower().replace("_", "-")  # type: ignore[index]
            assert name in pinned | unpinned, f"add {name} to constraints.txt"


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by name alone, so that two of one name cannot run together."""
    names = Counter(
        path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in ("conftest.py", "__init__.py")
    )
    assert [name for name, count in names.items() if count > 1] == []


def limits_of(page: str) -> set[str]:
    """Names and numbers of the limits in a page's section, such as `value_mb` and 100,000."""
    section = page.split("\n## Limits\n")[1].split("\n## ")[0]
    named = re.findall(r"MASKWEAVE_\w+|--max-[\w-]+|\b\w+_mb(?=:)", section)
    numbers = re.findall(r"[\d,]*\d(?: MB)?", section[section.index("YAML aliases") :])
    return {*named, *numbers}


def test_every_promise_of_the_security_page_names_a_test_that_exists() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[-1] not in ("tested in", "---")]
    assert len(rows) > 15
    for row in rows:
        assert all(cell.strip() for cell in row), row[0]
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row[-1])
        assert named and row[-1] == ", ".join(f"`{file}::{test}`" for file, test in named), row[0]
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
    limits = limits_of((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert {"MASKWEAVE_MAX_VALUE_MB", "--max-value-mb", "text_mb", "100,000", "256 MB", "2,048", "1 MB"} <= limits
    tested = [row[0] for row in rows if len(row) == 2]
    assert [
        limit for limit in sorted(limits) if not any(re.search(rf"(?<![\d,]){limit}\b", row) for row in tested)
    ] == []
