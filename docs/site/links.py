"""Finds links that lead nowhere: in the Markdown sources, and in the built site. Links to other hosts are not followed."""

import re
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt


def broken_in_sources(pages: Collection[Path], made: Collection[Path] = ()) -> list[str]:
    """Returns what is wrong with the links of Markdown pages, one line for each.

    Args:
        pages: Markdown files.
        made: files that do not exist yet, because they are made when the site is built.
    """
    parsed = {page.resolve(): _parsed(page.read_text(encoding="utf-8")) for page in pages}
    wrong = []
    for page, (targets, anchors) in parsed.items():
        for target in targets:
            path, _, anchor = target.partition("#")
            file = (page.parent / unquote(path)).resolve() if path else page
            if file in made:
                continue
            if not file.exists():
                wrong.append(f"{page}: {target}: no such file")
            elif anchor and file.suffix == ".md":
                known = anchors if file == page else (parsed.get(file) or _parsed(file.read_text(encoding="utf-8")))[1]
                if anchor not in known:
                    wrong.append(f"{page}: {target}: no such heading; known: {', '.join(sorted(known))}")
    return wrong


def _parsed(text: str) -> tuple[list[str], set[str]]:
    """Returns the relative targets of links and pictures in a page, and the anchors of its headings."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    targets, anchors = re.findall(r'(?:href|src)="([^"]+)"', text), set[str]()
    for before, token in zip([None, *tokens], tokens, strict=False):
        for part in token.children or ():
            target = part.attrs.get("href") or part.attrs.get("src")
            targets += [str(target)] if target else []
        if before is not None and before.type == "heading_open":
            anchors.add(slug("".join(part.content for part in token.children or ())))
    return [target for target in targets if not urlsplit(target).scheme], anchors


def slug(heading: str) -> str:
    """Returns the anchor of a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


class _Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.targets.add(value)


def broken_in_site(site: Path) -> list[str]:
    """Returns what is wrong with the links of a built site, one line for each."""
    pages = {
        path.resolve(): _Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
        if path.name != "404.html"
    }
    return sorted(fault for path, page in pages.items() for fault in _faults(path, page, pages, site.resolve()))


def _faults(path: Path, page: _Page, pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    for target in page.targets:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        file = file / "index.html" if file.is_dir() else file
        if not file.exists() or not file.is_relative_to(site):
            yield f"{path.relative_to(site)}: {target}: no such file"
        elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
            yield f"{path.relative_to(site)}: {target}: no such heading"
