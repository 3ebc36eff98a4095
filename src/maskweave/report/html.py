"""The report of a run: one self-contained HTML file, without network access or scripts.

It combines files of the run folder (evaluation.json, metrics.jsonl, tokenizers/NAME/metrics.jsonl, recipe.yaml) with the caller's
sections. The report lists whatever is missing.
"""

import base64
import html
import io
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from maskweave.errors import MaskweaveError
from maskweave.files import digest, read_json, write_aside
from maskweave.report.clips import ClipTable, clip_tables
from maskweave.report.curves import final, loss_curves, modality_curves, tokenizer_curves
from maskweave.report.tables import best_reference
from maskweave.training.metrics import read_metrics

MAX_RECIPE_CHARACTERS = 200_000
PAGE = "report.html"
HEAD = 2000
"""Characters at the start of a report that have the digest of its sources."""
METRIC_NAMES = {"delta1": "δ1", "angle": "mean angle (°)", "PSNR": "PSNR (dB)"}
"""Display names of metrics in evaluation.json."""
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclass(frozen=True)
class Sections:
    """The caller's parts of a report."""

    name: str = ""
    """Title; the run folder's name by default."""
    date: str = ""
    """As printed in the report."""
    summary: str = ""
    """A sentence or two under the title."""
    advice: Sequence[str] = ()
    """What to do next, at the head of the report; see `maskweave.report.advice`."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Named facts in a row (steps, parameters, wall time ...); steps are read from the metrics if they are not given."""
    sheets: Sequence[tuple[str, Image.Image]] = ()
    """Contact sheets, each with its alternative text (the title is part of the picture)."""
    clips: Sequence[ClipTable] = ()
    """Sounds and moving pictures of the sheets."""


def write_report(run: Path, sections: Sections | None = None) -> Path:
    """Writes RUN/report.html atomically and returns its path.

    Raises:
        FullDisk: no space is left; an earlier report is unchanged.
    """
    run = Path(run)
    sections = sections or Sections()
    lines = read_metrics(run)
    name = sections.name or run.resolve().name
    body = [
        _header(name, sections, lines),
        "<h2>Evaluation</h2>",
        _evaluation(run / "evaluation.json"),
        "<h2>Contact sheets</h2>",
        _sheets(sections.sheets),
        *(["<h2>Sounds and videos</h2>", clip_tables(sections.clips)] if sections.clips else []),
        "<h2>Training</h2>",
        _training(lines),
        "<h2>Tokenizers</h2>",
        _tokenizers(run / "tokenizers"),
        "<h2>Recipe</h2>",
        _recipe(run / "recipe.yaml"),
    ]
    template = string.Template(Path(__file__).with_name("template.html").read_text(encoding="utf-8"))
    page = template.substitute(title=html.escape(name), body="\n".join(body), made_from=_sources(run))
    target = run / PAGE
    with write_aside(target) as aside:
        aside.write_text(page, encoding="utf-8", errors="replace")
    return target


def is_current(run: Path) -> bool:
    """Whether RUN/report.html was written for the recipe, the entries and the model that the folder has now."""
    try:
        with open(run / PAGE, encoding="utf-8", errors="replace") as file:
            return f'content="{_sources(run)}"' in file.read(HEAD)
    except OSError:
        return False


def _sources(run: Path) -> str:
    """Digest of what a report belongs to."""
    return digest(run / "recipe.yaml", run / "modalities.yaml", run / "model" / "config.json")


def _header(name: str, sections: Sections, lines: Sequence[Mapping[str, Any]]) -> str:
    facts = dict(sections.facts)
    if "steps" not in facts and lines:
        facts = {"steps": int(lines[-1]["step"]), **facts}
    parts = [f"<header><h1>{html.escape(name)}</h1>"]
    if sections.date:
        parts.append(f'<p class="soft">{html.escape(sections.date)}</p>')
    if sections.summary:
        parts.append(f"<p>{html.escape(sections.summary)}</p>")
    if facts:
        items = [f"<div><dt>{html.escape(str(k))}</dt><dd>{html.escape(_fact(v))}</dd></div>" for k, v in facts.items()]
        parts.append('<dl class="facts">' + "".join(items) + "</dl>")
    if sections.advice:
        items = [f"<li>{html.escape(text)}</li>" for text in sections.advice]
        parts.append('<div class="card advice"><strong>What to do</strong><ul>' + "".join(items) + "</ul></div>")
    return "\n".join([*parts, "</header>"])


def _evaluation(path: Path) -> str:
    if not path.exists():
        return _missing("Not evaluated yet: evaluation.json is missing.")
    try:
        rows = read_json(path, limit=None)
    except (MaskweaveError, OSError) as error:
        return _missing(f"evaluation.json could not be read: {error}")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if not rows:
        return _missing("evaluation.json contains no rows.")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        inputs = row.get("inputs")
        names = [str(item) for item in inputs] if isinstance(inputs, list) else [str(inputs)]
        groups.setdefault(" + ".join(names), []).append(row)
    body: list[str] = []
    parts: list[dict[str, Any]] = []
    for inputs, members in groups.items():
        body.append(f'<tr><td class="group" colspan="11">from {html.escape(inputs)}</td></tr>')
        for row, following in zip(members, [*members[1:], {}], strict=True):
            if row.get("part"):
                parts.append(row)
            else:
                body.append(_evaluation_row(row))
            if parts and not following.get("part"):
                body.append(_parts(parts))
                parts = []
    heads = (
        "target",
        "metric",
        "value",
        "95%",
        "best constant",
        "simple",
        "tokenizer",
        "",
        "constant → tokenizer",
        "samples",
        "seed",
    )
    numeric = {"value", "95%", "best constant", "simple", "tokenizer", "samples", "seed"}
    head = "".join(f"<th{' class=number' if h in numeric else ''}>{h}</th>" for h in heads)
    return (
        "<p class=soft>Each value is compared with the best constant prediction and with the tokenizer's own reconstruction, "
        "which predictions of its tokens are not expected to exceed. The bar shows how far the value is on the way from constant to tokenizer. "
        "95%: the interval by bootstrap over the samples. Simple: the best of some methods that are fitted in seconds.</p>"
        f'<div class="card"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _parts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the scores of single channels, keys or classes as a collapsed table below the score of all together."""
    cells = "".join(
        f"<tr><td>{html.escape(str(row.get('metric', '?')))}</td>"
        + "".join(
            f'<td class="number">{_number(_real(row.get(key)))}</td>' for key in ("value", "constant", "tokenizer")
        )
        + "</tr>"
        for row in rows
    )
    head = "<tr><th>part</th><th class=number>value</th><th class=number>best constant</th><th class=number>tokenizer</th></tr>"
    return (
        f'<tr><td colspan="11"><details><summary>{len(rows)} parts of {html.escape(str(rows[0].get("target", "?")))}</summary>'
        f"<table><thead>{head}</thead><tbody>{cells}</tbody></table></details></td></tr>"
    )


def _evaluation_row(row: Mapping[str, Any]) -> str:
    value, constant, tokenizer = (_real(row.get(key)) for key in ("value", "constant", "tokenizer"))
    goal = str(row.get("better"))
    mark = rail = ""
    if value is not None and constant is not None and goal in ARROWS:
        better = value < constant if goal == "lower" else value > constant
        mark = '<span class="good">✓ better</span>' if better else '<span class="bad">✗ not better</span>'
        if tokenizer is not None and tokenizer != constant:
            share = min(1.0, max(0.0, (value - constant) / (tokenizer - constant)))
            rail = f'<span class="rail" title="{share:.0%}"><i style="width:{share:.0%}"></i></span>'
    metric = str(row.get("metric", "?"))
    label = f"{METRIC_NAMES.get(metric, metric)} {ARROWS.get(goal, f'→ {goal}')}"
    low, high = _real(row.get("low")), _real(row.get("high"))
    span = "–" if low is None or high is None else f"{_number(low)} to {_number(high)}"
    found = row.get("references")
    scores = {str(name): _real(one) for name, one in (found if isinstance(found, dict) else {}).items()}
    simple = best_reference({name: one for name, one in scores.items() if one is not None}, goal)
    return (
        f"<tr><td>{html.escape(str(row.get('target', '?')))}</td><td>{html.escape(label)}</td>"
        f'<td class="number value">{_number(value)}</td><td class="number">{span}</td>'
        f'<td class="number">{_number(constant)}</td><td class="number">{html.escape(simple)}</td>'
        f'<td class="number">{_number(tokenizer)}</td><td class="mark">{mark}</td><td>{rail}</td>'
        f'<td class="number">{html.escape(str(row.get("samples", "–")))}</td>'
        f'<td class="number">{html.escape(str(row.get("seed", "–")))}</td></tr>'
    )


def _sheets(sheets: Sequence[tuple[str, Image.Image]]) -> str:
    if not sheets:
        return _missing("No contact sheets were made.")
    parts = []
    for title, picture in sheets:
        image = f'<img alt="{html.escape(title)}" width="{picture.width}" height="{picture.height}" src="{_embedded(picture)}">'
        parts.append(f'<div class="wide"><div class="sheet">{image}</div></div>')
    return "\n".join(parts)


def _training(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return _missing("No training metrics: metrics.jsonl is missing or empty.")
    curves = [("loss", loss_curves(lines)), ("loss by modality", modality_curves(lines))]
    cards = "".join(f'<div class="card">{_png(name, data)}</div>' for name, data in curves if data)
    return f'<div class="pair">{cards}</div>' if cards else _missing("metrics.jsonl contains no finite loss.")


def _tokenizers(folder: Path) -> str:
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not found:
        return _missing("No tokenizers in this run.")
    rows, cards = [], []
    for path in found:
        name, lines = html.escape(path.name), read_metrics(path)
        if not lines:
            why = "made by rules, without training" if (path / "rules.json").is_file() else "no metrics recorded"
            rows.append(f'<tr><td>{name}</td><td colspan="4" class="missing">{why}</td></tr>')
            continue
        use = final(lines, "codebook_use")
        cells = (
            _number(final(lines, "reconstruction")),
            "–" if use is None else f"{use:.0%}",
            _number(final(lines, "perplexity")),
            _fact(int(lines[-1]["step"])),
        )
        rows.append(f"<tr><td>{name}</td>" + "".join(f'<td class="number">{cell}</td>' for cell in cells) + "</tr>")
        curve = tokenizer_curves(lines)
        if curve:
            cards.append(f'<h3>{name}</h3><div class="card">{_png(path.name, curve)}</div>')
    heads = "".join(
        f'<th class="number">{h}</th>' for h in ("reconstruction loss", "codebook use", "perplexity", "steps")
    )
    table = f'<div class="card"><table><thead><tr><th>tokenizer</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return table + (f"<details><summary>Curves of each tokenizer</summary>{''.join(cards)}</details>" if cards else "")


def _recipe(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _missing("recipe.yaml is missing.")
    if len(text) > MAX_RECIPE_CHARACTERS:
        text = text[:MAX_RECIPE_CHARACTERS] + "\n… (truncated; see recipe.yaml)"
    return f"<details><summary>recipe.yaml</summary><pre>{html.escape(text)}</pre></details>"


def _missing(words: str) -> str:
    return f'<p class="missing">{html.escape(words)}</p>'


def _embedded(picture: Image.Image) -> str:
    """Returns the picture as a data URL: PNG, or JPEG if that is less than half as large (photographs)."""
    picture, encoded = picture.convert("RGB"), {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 92, "subsampling": 0})):
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        encoded[kind] = buffer.getvalue()
    kind = "jpeg" if 2 * len(encoded["jpeg"]) < len(encoded["png"]) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(encoded[kind]).decode()}"


def _png(name: str, data: bytes) -> str:
    return f'<img alt="curves: {html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _real(value: Any) -> float | None:
    """Returns a finite number as float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _number(value: float | None) -> str:
    """Formats a number with three significant digits."""
    if value is None:
        return "–"
    if 0 < abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _fact(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _number(value) if isinstance(value, float) else str(value)
