"""The page of a data set: its samples, what each has, and statistics."""

import html
from functools import partial
from typing import Any

from maskweave.data.source import Source
from maskweave.data.stats import data_stats
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.report.data_stats import stats_figure, stats_text
from maskweave.studio.bounds import Bounds
from maskweave.studio.desk import Desk
from maskweave.studio.events import HIDDEN, MODEL, on, page_load
from maskweave.studio.showing import image_tag, values_html

MOST_COUNTED = 500
"""Samples that the statistics of a page read."""


def sample_html(source: Source, number: int, catalog: Catalog) -> str:
    """Returns the values of a sample, with what is missing and what is unknown in them.

    Raises:
        MaskweaveError: there is no such sample.
    """
    sample = read_sample(source, number)
    lines = []
    for name in catalog:
        if catalog[name].source:
            continue
        value = sample.get(name)
        if value is None:
            lines.append(f"<li>{html.escape(name)}: missing</li>")
            continue
        kind = catalog[name].value
        facts = [kind.type]
        extent = kind.extent(value)
        if extent:
            facts.append(" × ".join(map(str, extent)))
        if hasattr(value, "dtype"):
            known = kind.known(value)
            if not known.all():
                facts.append(f"{1 - known.mean():.1%} unknown")
        lines.append(f"<li>{html.escape(name)}: {html.escape(', '.join(facts))}</li>")
    shown = {name: value for name, value in sample.items() if name in catalog}
    key = html.escape(str(source.key(number)))
    return f'<p>Sample {number} of {len(source)}: <code>{key}</code></p>{values_html(catalog, shown)}<ul class="mw-note">{"".join(lines)}</ul>'


def read_sample(source: Source, number: int) -> dict[str, Any]:
    """Returns a sample, counted from 0.

    Raises:
        MaskweaveError: there is no such sample, or it cannot be used.
    """
    if not 0 <= number < len(source):
        raise MaskweaveError(f"sample {number}: the data set has samples 0 to {len(source) - 1}")
    try:
        return dict(source[number])
    except BadSample as error:
        raise MaskweaveError(f"sample {number} cannot be used: {error}") from error


def stats_html(place: str, catalog: Catalog, options: dict[str, Any], bounds: Bounds) -> str:
    """Returns the statistics of a data set, of at most `MOST_COUNTED` samples spread over it, as far as the time of a request allows."""
    stats = data_stats(place, catalog, MOST_COUNTED, bounds.seconds, **options)
    text = html.escape(stats_text(stats, bars=False))
    wanted = min(MOST_COUNTED, stats.samples)
    early = f"<p>{bounds.stopped}: {stats.read} of {wanted} samples were read</p>" if stats.read < wanted else ""
    return f'{early}{image_tag(stats_figure(stats), "histograms")}<pre class="mw-pre">{text}</pre>'


def data_page(page: Any, desk: Any, version: Any) -> None:
    """Draws the page of the data sets."""
    import gradio as gr

    offered = page.offered
    names = [*offered.data]
    with gr.Row():
        data = gr.Dropdown(names, value=names[0], label="Data set", scale=3)
        number = gr.Number(0, label="Sample, from 0", precision=0, minimum=0, scale=1, min_width=110)
    with gr.Row():
        back, forth = gr.Button("Previous", min_width=90), gr.Button("Next", min_width=90)
        use = gr.Button("Use as inputs", min_width=130, visible=bool(offered.bundles))
        count = gr.Button("Statistics", min_width=110)
    said, shown, stats = gr.HTML(), gr.HTML(), gr.HTML()

    def show(name: str, at: float) -> str:
        found: str = page.said(
            lambda: sample_html(offered.source(name), int(at or 0), offered.catalog()), lambda words: words
        )
        return found

    def step(by: int) -> Any:
        def work(name: str, at: float) -> Any:
            def move() -> int:
                return min(max(int(at or 0) + by, 0), len(offered.source(name)) - 1)

            return page.said(move, lambda words: gr.skip())

        return work

    def take(name: str, at: float, state: Desk) -> Any:
        def work() -> list[Any]:
            catalog = offered.bundle(state.bundle).catalog
            sample = read_sample(offered.source(name), int(at or 0))
            given = {n: catalog[n].value.check(v, n) for n, v in sample.items() if n in catalog and n in state.inputs}
            if not given:
                wanted = ", ".join(state.inputs) or "none"
                raise MaskweaveError(
                    f"the sample has none of the chosen inputs ({wanted}); choose inputs on the page Generate first"
                )
            state.hold(given)
            return [state.version, f"<p>{html.escape(', '.join(given))} are inputs now, on the page Generate</p>"]

        return page.said(work, lambda words: [gr.skip(), words])

    def counted(name: str) -> str:
        def work() -> str:
            return stats_html(offered.data[name], offered.catalog(), offered.how_read(name), page.bounds)

        found: str = page.said(work, lambda words: words)
        return found

    on(partial(gr.on, [data.input, number.change]), show, [data, number], [shown], **HIDDEN)
    on(back.click, step(-1), [data, number], [number], **HIDDEN)
    on(forth.click, step(1), [data, number], [number], **HIDDEN)
    on(use.click, take, [data, number, desk], [version, said], **HIDDEN)
    on(count.click, counted, [data], [stats], **MODEL)
    on(page_load(), show, [data, number], [shown], **HIDDEN)
