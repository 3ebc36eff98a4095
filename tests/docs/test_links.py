"""Links of the pages lead somewhere, in the sources and in the built site; and the checker notices those that do not."""

from pathlib import Path

import assemble
import links
import pytest
import reference

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def made() -> set[Path]:
    """Pages that are made when the site is built."""
    notebooks = {f"notebooks/{script.stem}.md" for script in (ROOT / "docs" / "notebooks").glob("*.py")}
    return {ROOT / "docs" / name for name in {*reference.PAGES, *notebooks}}


def test_links_of_the_sources_lead_somewhere() -> None:
    assert len(PAGES) > 20
    assert links.broken_in_sources(PAGES, made()) == []


def test_broken_links_of_sources_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# A title, with words\n\n[x](#a-title-with-words) [b](b.md#there) [made](made.md) [out](https://example.org/x)\n"
        "```\n[not a link](nowhere.md)\n```\n",
        encoding="utf-8",
    )
    (tmp_path / "b.md").write_text(
        "## There\n\n![picture](none.png) [a](a.md#nowhere) [self](#here)\n\n| x |\n| - |\n| [c](c.md) |\n",
        encoding="utf-8",
    )
    wrong = links.broken_in_sources([tmp_path / "a.md", tmp_path / "b.md"], {tmp_path / "made.md"})
    found = [line.split(": ")[1:3] for line in wrong]
    assert found == [
        ["none.png", "no such file"],
        ["a.md#nowhere", "no such heading; known"],
        ["#here", "no such heading; known"],
        ["c.md", "no such file"],
    ]


def test_broken_links_of_a_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="sub/">1</a><a href="sub/#top">2</a><a href="sub/#no">3</a><img src="p.png">', encoding="utf-8"
    )
    (tmp_path / "sub" / "index.html").write_text(
        '<h1 id="top">x</h1><a href="..">1</a><a href="../gone/">2</a><a href="../../x">3</a><a href="https://a.b">4</a>',
        encoding="utf-8",
    )
    (tmp_path / "p.png").touch()
    assert links.broken_in_site(tmp_path) == [
        "index.html: sub/#no: no such heading",
        "sub/index.html: ../../x: no such file",
        "sub/index.html: ../gone/: no such file",
    ]


def test_every_page_is_in_the_navigation(tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("# New\n", encoding="utf-8")
    (tmp_path / "data.md").write_text("# Data\n", encoding="utf-8")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x.py.md").write_text("# x.py\n", encoding="utf-8")
    text = assemble.configuration(tmp_path)
    assert text.count(": data.md") == 1 and text.count("- new.md") == 1 and "x.py" not in text


def test_files_outside_of_docs_become_pages(tmp_path: Path) -> None:
    page = ROOT / "docs" / "modalities.md"
    text = assemble.with_sources("[q](../examples/quaternion.py) [d](data.md)", page, tmp_path, tmp_path)
    assert text == "[q](source/examples/quaternion.py.md) [d](data.md)"
    shown = (tmp_path / "source" / "examples" / "quaternion.py.md").read_text(encoding="utf-8")
    assert (ROOT / "examples" / "quaternion.py").read_text(encoding="utf-8") in shown


@pytest.mark.slow
def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "BUILD", tmp_path)
    assert assemble.main(["--no-notebooks"]) == 0
    api = (tmp_path / "site" / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="maskweave.load"' in api and "no such folder or device" in api
    how = (tmp_path / "site" / "how-it-works" / "index.html").read_text(encoding="utf-8")
    assert how.count('class="diagram"') == 3
