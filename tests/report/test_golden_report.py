"""Reports, cards, tables, curves and contact sheets of small runs: word for word, and each figure in words, as in `golden/`.

If they change on purpose, `python tests/report/test_golden_report.py` writes them.
"""

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1])]  # where this file is run by itself
from layouts import drawn_in_words, figure_lines  # noqa: E402

from maskweave.data.stats import DataStats, Histogram, ModalityStats  # noqa: E402
from maskweave.families.base import family_named  # noqa: E402
from maskweave.families.sheets import Tile, TileRow  # noqa: E402
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog  # noqa: E402
from maskweave.provenance import Origin, Provenance  # noqa: E402
from maskweave.report import curves, data_stats  # noqa: E402
from maskweave.report.card import model_card  # noqa: E402
from maskweave.report.clips import ClipRow, ClipTable  # noqa: E402
from maskweave.report.html import Sections, write_report  # noqa: E402
from maskweave.report.sheets import contact_sheet, sheet_for  # noqa: E402
from maskweave.report.tables import key_table, modality_table  # noqa: E402
from maskweave.values.playable import Playable  # noqa: E402

GOLDEN = Path(__file__).with_name("golden")
ROWS: list[dict[str, Any]] = [
    {"inputs": ["rgb"], "target": "depth", "metric": "AbsRel", "better": "lower", "value": 0.1234, "constant": 0.3, "tokenizer": 0.05, "samples": 300,
     "seed": 1, "low": 0.12, "high": 0.131, "references": {"knn": 0.2, "ridge": 0.15, "none": None}},
    {"inputs": ["rgb"], "target": "depth", "metric": "far", "better": "lower", "value": 0.5, "constant": 0.3, "tokenizer": None, "part": True},
    {"inputs": ["rgb"], "target": "depth", "metric": "near", "better": "lower", "value": 0.00005, "constant": 1234.5, "tokenizer": 99.96, "part": True},
    {"inputs": ["rgb"], "target": "depth", "metric": "delta1", "better": "higher", "value": 0.4, "constant": 0.4, "tokenizer": 0.9, "samples": 300, "seed": 1},
    {"inputs": ["rgb", "caption"], "target": "semseg", "metric": "mIoU", "better": "higher", "value": 0.2, "constant": 0.4, "tokenizer": 0.4, "samples": 9, "seed": 0},
    {"inputs": ["rgb", "caption"], "target": "semseg", "metric": "mIoU", "better": "higher", "value": 0.97, "constant": 0.4, "tokenizer": 0.9, "samples": 9, "seed": 0},
    {"inputs": [], "target": "depth", "metric": "coverage", "better": 0.9, "value": 0.85, "constant": 0.5, "tokenizer": None, "samples": 9, "seed": 0},
    {"inputs": [], "target": "depth", "metric": "AbsRel", "better": "lower", "value": None, "constant": 12345.6, "tokenizer": None, "low": 1.0},
]  # fmt: skip
MODEL_LINES = [
    *({"step": step, "split": "train", "loss": 5 - step / 50, "loss/rgb": 3.0 + (step == 40), "loss/a$b": 2.0} for step in range(0, 100, 20)),
    *({"step": step, "split": "validation", "loss": 3.5, "loss/rgb": 3.1 - step / 1000} for step in (40, 80)),
]  # fmt: skip
TOKENIZER_LINES = [
    {"step": s, "split": "train", "loss": 1.0, "reconstruction": 0.25 / s, "codebook_use": 0.875, "perplexity": 300.0}
    for s in (1, 2)
]


def report() -> str:
    """The page of a run, without its pictures."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "demo"
        for folder, lines in {
            ".": MODEL_LINES, "tokenizers/depth": TOKENIZER_LINES, "tokenizers/normal": [],
            "tokenizers/plain": [{"step": 12345, "split": "train", "loss": 2.0}], "tokenizers/rules": [],
        }.items():  # fmt: skip
            (run / folder).mkdir(parents=True, exist_ok=True)
            if lines:
                (run / folder / "metrics.jsonl").write_text(
                    "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
                )
        (run / "tokenizers" / "rules" / "rules.json").write_text("{}", encoding="utf-8")
        (run / "evaluation.json").write_text(json.dumps(ROWS), encoding="utf-8")
        (run / "recipe.yaml").write_text("name: <b>\n", encoding="utf-8")
        sheet = Image.new("RGB", (30, 20))
        clips = ClipTable(
            "a <sheet>",
            [
                ClipRow(
                    [("sound, input", Playable("audio/wav", b"abc")), ("film, truth", Playable("image/gif", b"x" * 99))]
                )
            ],
        )
        sections = Sections(
            "",
            "1 May 2025",
            "A <summary>.",
            ["do <this>", "and that"],
            {"parameters": 1234567, "hours": 0.5, "device": True},
            [("first <sheet>", sheet)],
            [clips],
        )
        page = write_report(run, sections).read_text(encoding="utf-8")
    body = page.partition("<body>")[2]
    return re.sub(r"><(?=tr|h\d|div|p|dl|details|table)", ">\n<", re.sub(r"png;base64,[\w+/=]*", "png;base64,…", body))


def tables() -> str:
    metadata = {"id": 9, "kind": "sequence", "max_tokens": 8, "vocabulary": "text",
                "value": {"type": "metadata", "keys": {"height": {"id": 3, "range": [0, 5], "unit": "m", "bins": 7}, "other": {"id": 1, "range": [-0.5, 100000]}}}}  # fmt: skip
    content = {"vocabularies": {"text": {"size": 3000}}, "modalities": {"facts": metadata}}
    scenes = load_catalog("scenes")
    return "\n\n".join(
        [modality_table(scenes), key_table(catalog_from(content, "x")), f"[{key_table(scenes.subset(['rgb']))}]"]
    )


def card() -> str:
    """Of a bundle that predicts, with scores; and of one without anything."""
    catalog, family = load_catalog("scenes"), family_named("fourm")
    origins = [
        Origin("model", "a/b", "abc", "cc-by-nc-4.0", "https://x.org"),
        Origin("text", "words|json"),
        Origin("start", "c", "", "mit"),
    ]
    with tempfile.TemporaryDirectory() as name:
        scores = Path(name) / "evaluation.json"
        scores.write_text(json.dumps([{"samples": 1, **row} for row in ROWS]), encoding="utf-8")
        cards = [
            model_card("me/x", catalog, family, 123_456_789, Provenance("mit", "maskweave 1", origins), scores),
            model_card(
                "me/x", catalog.subset(["rgb", "depth"]), family, 50_000, Provenance("MIT", "", origins[:1]), None
            ),
            model_card(
                "me/x", catalog.subset(["depth"]), family, 0, Provenance("Apache-2.0"), scores.with_name("none")
            ),
            model_card(
                "me/x", catalog.subset(["rgb", "caption"]), family_named("m3ae"), 99_950_000, Provenance(), None
            ),
        ]
    return "\n=====\n".join(cards)


def data_set() -> DataStats:
    catalog = load_catalog("scenes")
    rgb, caption, depth = (ModalityStats(catalog[name]) for name in ("rgb", "caption", "depth"))
    rgb.present, rgb.sizes = 90, Counter({(8, 12): 50, (64, 64): 30, (9, 9): 9, (1, 1): 1})
    rgb.faults = [("a", "no picture"), ("b", "empty"), ("c", "lost")]
    rgb.remarks = Counter({"was cropped": 30, "was resized": 90})
    rgb.points, rgb.unknown, rgb.whole, rgb.low, rgb.high = 1000, 15, 45, 0.0, 254.98765
    caption.present, caption.lengths = 100, [3, 4, 4, 9, 30]
    depth.sizes = Counter({(8, 12): 5, (64, 64): 3})
    skipped = [("k1", "torn"), ("k2", "gone"), ("k3", "bad")]
    return DataStats("some/<place>", 1234, 100, {"rgb": rgb, "caption": caption, "depth": depth}, skipped)


def statistics() -> str:
    whole = DataStats(
        "p", 2, 2, {"caption": ModalityStats(load_catalog("scenes")["caption"], present=2, lengths=[5, 5])}, []
    )
    bars = data_stats.bar_lines(Histogram(["a", "long", "b", "c"], [1000, 1, 0, 500], "t"))
    with tempfile.TemporaryDirectory() as name:
        data_stats.write_stats(data_set(), Path(name) / "deep" / "x.HTML")
        page = re.sub('base64,[^"]*', "base64,…", (Path(name) / "deep" / "x.HTML").read_text(encoding="utf-8"))
    return "\n-----\n".join(
        [
            data_stats.stats_text(data_set()),
            data_stats.stats_text(data_set(), bars=False),
            data_stats.stats_text(whole),
            "\n".join(bars),
            page,
        ]
    )


def figures() -> str:
    """Curves and histograms."""

    def words(figure: Any) -> bytes:
        return "\n".join(figure_lines(figure)).encode()

    one = [{"step": 3, "split": "train", "loss": 2.0, "loss/x": 1.0}, {"step": 3, "split": "validation", "loss": 2.5}]
    many = [{"step": s, "split": "train", **{f"loss/{n:02}": float(n + s) for n in range(15)}} for s in (0, 1)]
    panels = {f"c{n}": load_catalog("scenes")["caption"] for n in range(61)}
    stats = DataStats(
        "p", 2, 2, {name: ModalityStats(m, present=2, lengths=[5, 7, 30]) for name, m in panels.items()}, []
    )
    with patch.object(curves, "as_png", words), patch.object(data_stats, "as_png", words):
        found = {
            "loss": curves.loss_curves(MODEL_LINES), "one point": curves.loss_curves(one), "by modality": curves.modality_curves(MODEL_LINES),
            "one point by modality": curves.modality_curves(one), "many modalities": curves.modality_curves(many),
            "tokenizer": curves.tokenizer_curves(TOKENIZER_LINES), "only its loss": curves.tokenizer_curves(one), "smooth": None,
            "statistics": data_stats.stats_figure(data_set()),
        }  # fmt: skip
        count = len(data_stats.stats_figure(stats).decode().split("\naxes ")) - 1
    values = curves.smooth(np.arange(200.0) ** 2)[[0, 1, 50, 199]]
    found["smooth"] = f"{values.round(4).tolist()}, {count} panels".encode()
    return "\n\n".join(f"{name}\n{(text or b'nothing').decode()}" for name, text in found.items())


def sheets() -> str:
    """A sheet of a request with and without its truth, and one with notes and labels."""
    catalog: Catalog = load_catalog("scenes")
    rng = np.random.default_rng(0)
    rgb, depth = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), rng.random((64, 64)) + 1
    sample: dict[str, Any] = {
        "inputs": {"rgb": rgb, "caption": "a cube", "palette": [[9, 8, 7]]}, "predictions": {"depth": depth, "semseg": None},
        "truth": {"depth": depth + 1}, "instead": {"semseg": "64 tokens"},
    }  # fmt: skip
    without = {key: value for key, value in sample.items() if key != "truth"}
    notes = [
        TileRow(
            [Tile("rgb", rgb, note="a note that is much longer than one line"), None, Tile("depth", None)],
            "first",
            starts=True,
        ),
        TileRow([Tile("depth", depth), Tile("caption", "a", note="b")], "the second", starts=True),
    ]
    with drawn_in_words():
        pages: list[Any] = [
            sheet_for("a title", [sample, sample], catalog),
            sheet_for(
                "a title that is quite a bit longer than the page is wide, which makes it wider",
                [without],
                catalog,
                tile=50,
            ),
            contact_sheet(notes, catalog, "", ["one", "a heading that is too long for its column"], tile=60),
            contact_sheet(notes, catalog, "title", divider=2, tile=61),
            sheet_for("", [], catalog),
        ]
    return "\n\n".join("\n".join(page.made) for page in pages)


PARTS: dict[str, Callable[[], str]] = {
    "report.html": report, "tables.txt": tables, "card.md": card, "statistics.txt": statistics, "figures.txt": figures, "sheets.txt": sheets,
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_what_is_made_is_what_is_stored(name: str) -> None:
    text = PARTS[name]().rstrip() + "\n"
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), (
        f"{name} changed; on purpose: python tests/report/test_golden_report.py"
    )


if __name__ == "__main__":
    for name, make in PARTS.items():
        (GOLDEN / name).write_text(make().rstrip() + "\n", encoding="utf-8")
