"""Facts about a data set as text with bars, as a figure, and as a page."""

import base64
import html
from pathlib import Path

from maskweave.data.stats import DataStats, Histogram, ModalityStats
from maskweave.errors import MaskweaveError
from maskweave.files import write_aside
from maskweave.report.curves import as_png
from maskweave.report.tables import text_table

BAR = 40
"""Characters of the longest bar."""
EXAMPLES = 2
MOST_LISTED = 10
MOST_PANELS = 60
COLUMNS = 3


def stats_text(stats: DataStats, bars: bool = True) -> str:
    """Returns a table, what each modality needs to be told about, and its histograms as bars."""
    part = "" if stats.read == stats.samples else f", {stats.read:,} of them read"
    heads = ["modality", "type", "present", "unusable", "unknown points", "own sizes", "numbers"]
    rows = [_row(name, one, stats.read) for name, one in stats.modalities.items()]
    lines = [f"{stats.place}: {stats.samples:,} samples{part}", "", text_table(heads, rows)]
    if stats.skipped:
        examples = "; ".join(f"{key}: {reason}" for key, reason in stats.skipped[:EXAMPLES])
        lines += ["", f"{len(stats.skipped)} samples cannot be used at all, such as {examples}"]
    for name, one in stats.modalities.items():
        told = remarks_of(one)
        histograms = one.histograms() if bars else []
        if told or histograms:
            lines += ["", f"{name}:", *(f"  {text}" for text in told)]
        for histogram in histograms:
            lines += [f"  {histogram.title}:", *(f"    {line}" for line in bar_lines(histogram))]
    return "\n".join(lines)


def remarks_of(one: ModalityStats) -> list[str]:
    """What was changed, dropped or never seen, in lines."""
    lines = [f"{text}: {count} ({_percent(count, one.present)})" for text, count in one.remarks.most_common()]
    if one.faults:
        examples = "; ".join(f"{key}: {reason}" for key, reason in one.faults[:EXAMPLES])
        lines.append(f"unusable: {len(one.faults)}, such as {examples}")
    if one.never:
        lines.append(f"never seen: {', '.join(one.never[:MOST_LISTED])}{' …' * (len(one.never) > MOST_LISTED)}")
    return lines


def bar_lines(histogram: Histogram) -> list[str]:
    """Returns one line per bin: its label, a bar and its count."""
    most, width = max(max(histogram.counts), 1), max(map(len, histogram.labels))
    return [
        f"{label.rjust(width)} {('█' * round(BAR * count / most) or '▏' * bool(count)).ljust(BAR)} {count:,}"
        for label, count in zip(histogram.labels, histogram.counts, strict=True)
    ]


def stats_path(name: str) -> Path:
    """Returns the path that `write_stats` writes to.

    Raises:
        MaskweaveError: it ends in something else than .png or .html.
    """
    if not name.lower().endswith((".png", ".html")):
        raise MaskweaveError(f"--out {name}: expected a file that ends in .png or .html")
    return Path(name)


def write_stats(stats: DataStats, out: Path) -> None:
    """Write the histograms as a PNG, or all facts as an HTML page, by the ending of `out`."""
    figure = stats_figure(stats)
    if out.suffix.lower() == ".html":
        picture = f'<img alt="histograms" src="data:image/png;base64,{base64.b64encode(figure).decode()}">'
        text = html.escape(stats_text(stats, bars=False))
        page = (
            f'<!doctype html><meta charset="utf-8"><title>{html.escape(stats.place)}</title><pre>{text}</pre>{picture}'
        )
        figure = page.encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(out) as aside:
        aside.write_bytes(figure)


def stats_figure(stats: DataStats) -> bytes:
    """Returns the histograms of all modalities as a PNG; at most the first 60."""
    from matplotlib.figure import Figure

    panels = [(name, h) for name, one in stats.modalities.items() for h in one.histograms()][:MOST_PANELS]
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel().tolist()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, histogram) in zip(axes, panels, strict=False):
        axis.bar(range(len(histogram.counts)), histogram.counts, width=0.9)
        every = max(1, len(histogram.labels) // 5)
        ticks = range(0, len(histogram.labels), every)
        labels = [histogram.labels[t].split(" to ")[0][:14] for t in ticks]
        axis.set_xticks(list(ticks), labels, fontsize=7, parse_math=False)
        axis.tick_params(axis="y", labelsize=7)
        axis.set_title(f"{name}: {histogram.title}", fontsize=9, parse_math=False)
    return as_png(figure)


def _row(name: str, one: ModalityStats, read: int) -> list[str]:
    sizes = ["×".join(map(str, size)) for size, _ in one.sizes.most_common(2)]
    more = f" and {len(one.sizes) - 2} more" if len(one.sizes) > 2 else ""
    return [
        name,
        one.modality.value.type,
        f"{one.present:,} ({_percent(one.present, read)})",
        f"{len(one.faults):,}" if one.faults else "–",
        f"{one.unknown / one.points:.1%}, in {_percent(one.present - one.whole, one.present)} of values"
        if one.unknown
        else "–",
        (", ".join(sizes) + more) or "–",
        f"{one.low:.4g} to {one.high:.4g}" if one.low <= one.high else "–",
    ]


def _percent(count: int, whole: int) -> str:
    share = count / whole if whole else 0.0
    return "100%" if share == 1 else f"{share:.1%}"
