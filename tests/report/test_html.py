"""The report is whole, escaped, self-contained, and honest about what is missing; curves read what was written."""

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskweave.report import html as report_html
from maskweave.report.clips import ClipRow, ClipTable, clip_tables, packed, unpacked
from maskweave.report.curves import final, loss_curves, modality_curves, series, smooth, tokenizer_curves
from maskweave.report.html import Sections, write_report
from maskweave.values.playable import Playable

PNG = b"\x89PNG"


class Balanced(html.parser.HTMLParser):
    """Collects tags and fails on one that closes what isn't open."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write_lines(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def model_lines():
    for step in range(0, 100, 10):
        yield {
            "step": step,
            "split": "train",
            "loss": 5 - step / 50,
            "loss/rgb": 3.0,
            "loss/$\\nosuch$": 2.0,
            "seconds": step,
        }
    yield {"step": 90, "split": "validation", "loss": 3.5, "loss/rgb": 3.1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "demo"
    write_lines(run / "metrics.jsonl", model_lines())
    lines = [
        {"step": s, "split": "train", "loss": 1.0, "reconstruction": 0.25, "codebook_use": 0.875, "perplexity": 300.0}
        for s in (1, 2)
    ]
    write_lines(run / "tokenizers" / "depth" / "metrics.jsonl", lines)
    (run / "tokenizers" / "normal").mkdir()
    rows = [
        {
            "inputs": ["rgb"],
            "target": "depth",
            "metric": "AbsRel",
            "better": "lower",
            "value": 0.1234,
            "constant": 0.3,
            "tokenizer": 0.05,
            "samples": 300,
            "seed": 1,
        },
        {
            "inputs": ["rgb", "caption"],
            "target": "semseg",
            "metric": "mIoU",
            "better": "higher",
            "value": 0.2,
            "constant": 0.4,
            "tokenizer": None,
            "samples": 300,
            "seed": 1,
        },
    ]
    (run / "evaluation.json").write_text(json.dumps(rows), encoding="utf-8")
    (run / "recipe.yaml").write_text("name: <script>alert('recipe')</script>\n", encoding="utf-8")
    return run


def test_whole_report(run: Path):
    sheet = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    path = write_report(
        run, Sections(name="A demo", date="1 May 2025", facts={"parameters": 1234567}, sheets=[("first sheet", sheet)])
    )
    assert path == run / "report.html"
    page = path.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    for words in (
        "A demo",
        "1 May 2025",
        "1,234,567",
        "from rgb + caption",
        "0.123",
        "✓ better",
        "✗ not better",
        "88%",
        "no metrics recorded",
        "first sheet",
    ):
        assert words in page, words
    assert "width:71%" in page  # (0.1234 - 0.3) / (0.05 - 0.3)
    assert sum(tag == "img" for tag, _ in parser.seen) == 4  # loss, by modality, one tokenizer, one sheet
    assert not list(run.glob(".*partial"))


def test_self_contained(run: Path):
    page = write_report(run).read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    for tag, attributes in parser.seen:
        assert tag not in ("script", "link", "iframe")
        assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"https?://|@import|url\(", page)


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "${title} $$ & < >"])
def test_text_is_escaped(run: Path, evil: str):
    row = {
        "inputs": [evil],
        "target": evil,
        "metric": evil,
        "better": evil,
        "value": 1,
        "constant": 2,
        "samples": evil,
        "seed": evil,
    }
    (run / "evaluation.json").write_text(json.dumps([row]), encoding="utf-8")
    write_lines(
        run / "tokenizers" / evil.replace("/", "") / "metrics.jsonl", [{"step": 1, "split": "train", "loss": 1.0}]
    )
    sheet = (evil, Image.new("RGB", (4, 4)))
    page = write_report(run, Sections(evil, evil, evil, {evil: evil}, [sheet])).read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert all(tag != "script" and "onerror" not in attributes for tag, attributes in parser.seen)
    assert "<script" not in page


def test_an_empty_run_says_what_is_missing(tmp_path: Path):
    page = write_report(tmp_path / "new").read_text(encoding="utf-8")
    for words in (
        "evaluation.json is missing",
        "metrics.jsonl is missing",
        "No tokenizers",
        "recipe.yaml is missing",
        "No contact sheets",
    ):
        assert words in page


@pytest.mark.parametrize(
    "content", ["{", "[]", "7", '[1, null, {"value": "x"}]', '[{"inputs": null, "value": NaN, "constant": Infinity}]']
)
def test_broken_evaluations_are_no_error(run: Path, content: str):
    (run / "evaluation.json").write_text(content, encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "could not be read" in page or "no rows" in page or "–" in page
    assert "nan" not in page.split("<h2>Contact")[0].split("<body>")[1].lower()


def test_an_old_report_survives_a_failure(run: Path, monkeypatch):
    path = write_report(run)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_html.Path, "write_text", full)
    with pytest.raises(ValueError, match="no space left"):
        write_report(run, Sections(name="other"))
    assert path.read_bytes() == before and not list(run.glob(".*partial"))


def test_metrics_of_a_killed_run_are_shown(tmp_path: Path):
    lines = (
        '{"step": 1, "split": "train", "loss": 3}\n{"step": 2, "split": "train", "loss": 2}\n{"step": 3, "split": "tr'
    )
    (tmp_path / "metrics.jsonl").write_text(lines, encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<dt>steps</dt><dd>2</dd>" in page and 'alt="curves: loss"' in page


def test_series_leaves_out_what_is_not_finite():
    lines = [{"step": s, "split": "train", "loss": v} for s, v in enumerate([1.0, float("nan"), "x", True, None, 2])]
    steps, values = series(lines, "loss", "train")
    assert steps.tolist() == [0, 5] and values.tolist() == [1, 2]
    assert final(lines, "loss") == 2 and final(lines, "nothing") is None
    assert final([*lines, {"step": 1, "split": "validation", "loss": 7.0}], "loss") == 7


def test_curves_are_pictures_or_nothing():
    lines = list(model_lines())
    assert loss_curves(lines).startswith(PNG) and modality_curves(lines).startswith(PNG)
    assert tokenizer_curves([{"step": 1, "split": "train", "loss": 2.0}]).startswith(PNG)
    assert (
        loss_curves([]) is None
        and modality_curves([{"step": 1, "split": "train", "loss": 1.0}]) is None
        and tokenizer_curves([]) is None
    )


def test_smoothing_keeps_a_constant_and_calms_noise():
    assert np.allclose(smooth(np.full(500, 3.0)), 3)
    noise = np.random.default_rng(0).normal(size=1000)
    assert smooth(noise)[100:].std() < 0.4 * noise.std()


def test_clips_that_do_not_fit_are_counted():
    """Those that fit are played, in order; the label of the others stays."""
    clips = [
        ("a", Playable("audio/wav", b"x" * 5)),
        ("b", Playable("audio/wav", b"x" * 4)),
        ("c", Playable("image/gif", b"x")),
    ]
    tables = [ClipTable("one", [ClipRow(clips), ClipRow([])]), ClipTable("two", [ClipRow(clips[:1])])]
    whole = clip_tables(tables, 15)
    assert whole.count("<audio") == 3 and whole.count("<img") == 1 and "left out" not in whole
    assert whole.count("<tr>") == 2, "rows without clips are no rows"
    for most, played in ((14, "abc"), (10, "abc"), (9, "ab"), (6, "ac"), (5, "a"), (4, "b"), (0, "")):
        found = clip_tables(tables, most)
        labels = re.findall(r"<td>(\w)<(?=audio|img)", found)
        assert "".join(labels) == played and f"{4 - len(played)} clips are left out" in found
    assert len(re.findall(r"<td>\w", found)) == 4


def test_clips_in_json():
    table = ClipTable("one", [ClipRow([("a", Playable("audio/wav", b"\0\xff"))]), ClipRow([])])
    assert packed(table) == ["one", [[["a", "audio/wav", "AP8="]], []]] and unpacked(packed(table)) == table
    assert packed(None) is None


def test_photographs_are_jpeg_and_drawings_png():
    flat = Image.new("RGB", (200, 200), "red")
    noise = np.random.default_rng(0).normal(size=(25, 25, 3)).repeat(8, 0).repeat(8, 1).cumsum(0).cumsum(1)
    smooth_noise = np.random.default_rng(0).integers(0, 6, (200, 200, 3)) + np.linspace(0, 200, 200)[:, None, None]
    photograph = Image.fromarray(np.clip(smooth_noise + noise / 99, 0, 255).astype(np.uint8))
    assert report_html._embedded(flat).startswith("data:image/png;base64,")
    assert report_html._embedded(photograph).startswith("data:image/jpeg;base64,")
    assert report_html._embedded(flat.convert("RGBA")).startswith("data:image/png;base64,"), "without the alpha channel"


def test_a_long_recipe_is_cut(tmp_path: Path):
    for length, is_cut in ((200_000, False), (200_001, True)):
        (tmp_path / "recipe.yaml").write_text("x" * length, encoding="utf-8")
        page = write_report(tmp_path).read_text(encoding="utf-8")
        assert "x" * 200_000 in page and "x" * 200_001 not in page and ("truncated" in page) == is_cut


def test_a_report_is_current_until_what_it_shows_changes(run: Path):
    assert not report_html.is_current(run)
    write_report(run)
    assert report_html.is_current(run)
    for name in ("recipe.yaml", "modalities.yaml", "model/config.json"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("new", encoding="utf-8")
        assert not report_html.is_current(run)
        write_report(run)
        assert report_html.is_current(run)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0.00"), (1e-4, "0.000100"), (9.9e-5, "9.90e-05"), (-5e-5, "-5.00e-05"), (0.12345, "0.123"), (999.4, "999"), (123.4, "123"),
        (1000.4, "1,000"), (-12345.6, "-12,346"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str):
    assert report_html._number(value) == text
