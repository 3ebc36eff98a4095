"""Builds the site: `make docs`, or `python docs/site/assemble.py`. It writes build/site, and stops if a link leads nowhere.

The pages of docs/ are copied to build/docs together with those that are made here: reference pages from the code, notebooks with their outputs,
and the sources that pages link to. `--no-notebooks` leaves the notebooks unexecuted.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import links
import notebooks
import reference
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BUILD = ROOT / "build"
OWN = ("site", "notebooks")
"""Folders of docs/ that hold what pages are made from."""


def main(arguments: list[str]) -> int:
    """Builds the site and checks its links.

    Returns:
        0, or 1 if a link leads nowhere.
    """
    pages = BUILD / "docs"
    assemble(pages, execute="--no-notebooks" not in arguments)
    (BUILD / "mkdocs.yml").write_text(configuration(pages), encoding="utf-8")
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    subprocess.run([zensical, "build", "--strict", "--config-file", str(BUILD / "mkdocs.yml")], cwd=ROOT, check=True)
    broken = links.broken_in_site(BUILD / "site")
    print("\n".join(broken) or f"the site is in {BUILD / 'site'}; all links lead somewhere")
    return int(bool(broken))


def assemble(pages: Path, execute: bool = True) -> None:
    """Writes the Markdown pages of the site.

    Args:
        pages: the folder; what it held is removed.
        execute: whether notebooks are executed. Their pages then have outputs.
    """
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns(*OWN))
    shutil.copy(DOCS / "site" / "site.css", pages)
    for page in [*pages.rglob("*.md")]:
        page.write_text(
            with_sources(page.read_text(encoding="utf-8"), DOCS / page.relative_to(pages), page.parent, pages),
            encoding="utf-8",
        )
    for name, text in reference.pages().items():
        _write(pages / name, text)
    notebooks.write_pages(DOCS / "notebooks", pages / "notebooks", execute)


def with_sources(text: str, source: Path, folder: Path, pages: Path) -> str:
    """Returns a page whose links to files outside of docs/ lead to pages that show these files."""
    for target, file in _outside(text, source):
        name = file.relative_to(ROOT)
        page = pages / "source" / f"{name}.md"
        ending = file.suffix.lstrip(".")
        _write(
            page,
            f"# {name}\n\n```{ending}\n{file.read_text(encoding='utf-8')}```\n"
            if ending != "md"
            else file.read_text(encoding="utf-8"),
        )
        text = text.replace(f"]({target})", f"]({os.path.relpath(page, folder)})")
    return text


def _outside(text: str, source: Path) -> Iterator[tuple[str, Path]]:
    for target in sorted(set(re.findall(r"\]\((\.\./[^)#]*)\)", text))):
        file = (source.parent / target).resolve()
        if file.is_file() and not file.is_relative_to(DOCS):
            yield target, file


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def configuration(pages: Path) -> str:
    """Returns the configuration for the assembled pages; those that its navigation lacks are added to the guides, but for shown sources."""
    config = yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(_paths(config["nav"]))
    found = {page.relative_to(pages).as_posix() for page in pages.rglob("*.md")}
    guides: list[Any] = next(section["Guides"] for section in config["nav"] if "Guides" in section)
    guides += sorted(name for name in found - listed if not name.startswith("source/"))
    return yaml.safe_dump(config, sort_keys=False)


def _paths(nav: Any) -> Iterator[str]:
    """Every page that a navigation lists."""
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _paths(item)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
