"""The page of a run: its curves, codebooks and sheets, also while it trains."""

import html
import time
from pathlib import Path
from typing import Any

from maskweave.files import read_json
from maskweave.report.curves import final, loss_curves, modality_curves, tokenizer_curves
from maskweave.studio.events import HIDDEN, on, page_load
from maskweave.studio.showing import card, cards, image_tag, source_of
from maskweave.training.metrics import read_metrics

REFRESHED = 5.0
"""Seconds between two looks at a run."""
MOST_SHEETS = 20
MOST_SHEET_MB = 16


def run_html(folder: Path) -> str:
    """Returns the state of a run: what is finished, curves of the model and of its tokenizers, evaluation and sheets. Parts that do not exist yet
    are left out."""
    lines = read_metrics(folder)
    done = [name for name in ("tokenizers", "tokens", "model") if (folder / name).is_dir()]
    parts = [f"<p>{html.escape(_stage(folder, lines))}. Folders: {', '.join(done) or 'none yet'}.</p>"]
    curves = [("loss", loss_curves(lines)), ("loss by modality", modality_curves(lines))] if lines else []
    found = [card(title, image_tag(content, f"curve: {title}")) for title, content in curves if content]
    if found:
        parts.append(cards(found, "Model"))
    tokenizers = folder / "tokenizers"
    found = []
    for path in sorted(p for p in tokenizers.iterdir() if p.is_dir()) if tokenizers.is_dir() else []:
        own = read_metrics(path)
        content = tokenizer_curves(own) if own else None
        if content:
            use = final(own, "codebook_use")
            note = "" if use is None else f"{use:.0%} of the codebook in use"
            found.append(card(path.name, image_tag(content, f"curves: {path.name}"), note))
    if found:
        parts.append(cards(found, "Tokenizers and codebooks"))
    if rows := _evaluation(folder / "evaluation.json"):
        parts.append(f'<h3 class="mw-head">Evaluation</h3><table class="mw-table">{rows}</table>')
    found = []
    sheets = folder / "sheets"
    for path in sorted(sheets.glob("*.png"))[:MOST_SHEETS] if sheets.is_dir() else []:
        content = path.read_bytes()
        if len(content) <= MOST_SHEET_MB * 2**20:
            found.append(card(path.stem, f'<img alt="{html.escape(path.stem)}" src="{source_of(content)}">'))
    if found:
        parts.append(cards(found, "Sheets"))
    return "".join(parts)


def _stage(folder: Path, lines: list[dict[str, Any]]) -> str:
    if (folder / "model" / "config.json").is_file():
        return f"Finished after {int(lines[-1]['step']):,} steps" if lines else "Finished"
    if lines:
        return f"The model is in training, at step {int(lines[-1]['step']):,}"
    return "The model is not in training yet"


def _evaluation(path: Path) -> str:
    if not path.is_file():
        return ""
    rows = read_json(path)
    cells = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("part"):
            continue
        inputs = row.get("inputs")
        names = " + ".join(map(str, inputs)) if isinstance(inputs, list) else str(inputs)
        numbers = [row.get(key) for key in ("value", "constant", "tokenizer")]
        words = [f"{x:.4g}" if isinstance(x, (int, float)) else "–" for x in numbers]
        one = [names, str(row.get("target")), str(row.get("metric")), *words]
        cells.append("<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in one) + "</tr>")
    if not cells:
        return ""
    heads = ("inputs", "target", "metric", "value", "best constant", "tokenizer")
    return "<tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>" + "".join(cells)


def run_page(page: Any) -> None:
    """Draws the page of the runs."""
    import gradio as gr

    names = [*page.offered.runs]
    with gr.Row():
        run = gr.Dropdown(names, value=names[0], label="Run", scale=3)
        follow = gr.Checkbox(False, label="Follow: look again every 5 s", scale=1, min_width=160)
    shown = gr.HTML()
    timer = gr.Timer(REFRESHED, active=False)

    def show(name: str) -> str:
        found: str = page.said(lambda: run_html(page.offered.run(name)), lambda words: words)
        return found

    def again(name: str) -> str:
        return show(name) + f'<p class="mw-note">looked at {time.strftime("%H:%M:%S")}</p>'

    on(run.input, show, [run], [shown], **HIDDEN)
    on(follow.input, lambda active: gr.Timer(active=active), [follow], [timer], **HIDDEN)
    on(timer.tick, again, [run], [shown], **HIDDEN)
    on(page_load(), show, [run], [shown], **HIDDEN)
