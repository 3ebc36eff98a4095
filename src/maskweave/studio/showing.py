"""Results as HTML: cards with a picture, a text or a player for each value. All text from values, names and models is escaped."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from maskweave.errors import MaskweaveError
from maskweave.generate.result import Generated
from maskweave.generate.token_state import Tokens
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.report.clips import player
from maskweave.report.figures import common_span, draw
from maskweave.report.sheets import picture_among
from maskweave.studio.running import Likelihood, RequestState
from maskweave.values.binary import Binary
from maskweave.values.distribution import Distribution, NumberDistribution
from maskweave.values.drawing import color_bar, color_mapped
from maskweave.values.lettering import message

HEIGHT = 176
"""Height of a figure in pixels."""
MOST_TEXT = 4000
"""Characters of a text that are shown."""


def png_source(picture: np.ndarray | Image.Image) -> str:
    """Returns a picture, uint8 (height, width, 3) if it is an array, as a `data:` URL."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, "PNG")
    return source_of(buffer.getvalue())


def source_of(content: bytes) -> str:
    """Returns the bytes of a PNG as a `data:` URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def png_tag(picture: np.ndarray | Image.Image, words: str) -> str:
    """Returns an `img` element with a picture; see `png_source`."""
    return f'<img alt="{html.escape(words)}" src="{png_source(picture)}">'


def image_tag(content: bytes, words: str) -> str:
    """Returns an `img` element with the bytes of a PNG."""
    return f'<img alt="{html.escape(words)}" src="{source_of(content)}">'


def figure(modality: Modality, value: Any, over: Any = None, span: tuple[float, float] | None = None) -> str:
    """Returns the element that shows one value: text, a player, or a picture."""
    kind = modality.value
    if value is not None and kind.is_text and isinstance(value, str):
        return f"<blockquote>{html.escape(value[:MOST_TEXT]) or '<em>empty</em>'}</blockquote>"
    size = (HEIGHT, round(HEIGHT * kind.aspect))
    words = modality.name
    if isinstance(value, NumberDistribution):
        low, high = value.interval()
        words += f": {value.value:.4g} {value.unit}, 90% from {low:.4g} to {high:.4g}"
    try:
        picture = draw(modality, value, size, over, span)
    except MaskweaveError as error:
        return f'<p class="mw-note">{html.escape(str(error))}</p>'
    clip = None if value is None or isinstance(value, Distribution) else kind.playable(value)
    beneath = None if value is None else kind.legend(span, [value], size[1])
    parts = [png_tag(picture, words)]
    if clip is not None:
        parts = [player(modality.name, clip)] if clip.mime.startswith("image/") else [*parts, player(words, clip)]
    if beneath is not None:
        parts.append(png_tag(beneath, f"legend of {modality.name}"))
    return "".join(parts)


def card(title: str, body: str, note: str = "") -> str:
    """Returns a card. The title and the note are plain text; the body is HTML."""
    foot = f'<p class="mw-note">{html.escape(note)}</p>' if note else ""
    return f'<figure class="mw-card"><figcaption>{html.escape(title)}</figcaption>{body}{foot}</figure>'


def cards(parts: Sequence[str], title: str = "") -> str:
    """Returns a row of cards that wraps."""
    head = f'<h3 class="mw-head">{html.escape(title)}</h3>' if title else ""
    return f'{head}<div class="mw-cards">{"".join(parts)}</div>'


def values_html(catalog: Catalog, values: Mapping[str, Any], title: str = "") -> str:
    """Returns the cards of a sample's values."""
    plain = {name: value for name, value in values.items() if not isinstance(value, Tokens)}
    over = picture_among(catalog, plain)
    return cards([card(name, figure(catalog[name], value, over)) for name, value in plain.items()], title)


def result_cards(
    catalog: Catalog, result: Generated, targets: Sequence[str], spans: Mapping[str, tuple[float, float] | None]
) -> list[str]:
    """Returns a card for each target, also for those that are not begun."""
    known = {n: v for n, v in result.inputs.items() if not isinstance(v, Tokens)}
    over = picture_among(catalog, known, result.values)
    parts = []
    for name in targets:
        note = "; ".join(result.problems.get(name, ()))
        if name in result.values:
            parts.append(card(name, figure(catalog[name], result.prediction(name), over, spans.get(name)), note))
        elif name in result.tokens and len(result.tokens[name]) and np.any(np.asarray(result.tokens[name]) >= 0):
            parts.append(
                card(name, f"<p>{int((result.tokens[name] >= 0).sum())} tokens; this bundle cannot decode them</p>")
            )
        else:
            shape = (HEIGHT, round(HEIGHT * catalog[name].value.aspect))
            parts.append(card(name, png_tag(message("not begun", shape), f"{name}: not begun")))
    return parts


def spread_card(modality: Modality, spread: np.ndarray) -> str:
    """Returns the card of `ValueType.spread`, of a map (height, width) with its scale; of other shapes, of its mean."""
    if isinstance(modality.value, Binary):
        unit = "share that disagrees"
    elif modality.value.num_classes:
        unit = "share of other classes"
    else:
        unit = f"standard deviation {modality.value.unit}".strip()
    title, known = f"{modality.name}: uncertainty", spread[np.isfinite(spread)]
    note = f"mean {known.mean():.3g} ({unit})" if known.size else f"unknown everywhere ({unit})"
    if spread.ndim != 2 or not known.size:
        return card(title, "", note)
    high = max(float(known.max()), 1e-6)
    colors = Image.fromarray(color_mapped(spread, 0.0, high))
    width = round(HEIGHT * modality.value.aspect)
    picture = png_tag(colors.resize((width, HEIGHT), Image.Resampling.NEAREST), f"{title}, {note}")
    return card(title, picture + png_tag(color_bar(0.0, high, "", width), f"0 to {high:.3g}"), note)


def progress_html(catalog: Catalog, progress: RequestState, names: Sequence[str]) -> str:
    """Returns the cards of a request's results: the merged one of an ensemble first, then its samples side by side."""
    all_values = {name: [one.values[name] for one in progress.results if name in one.values] for name in names}
    spans = {name: common_span(catalog[name], values, []) for name, values in all_values.items() if values}
    parts = []
    if progress.merged is not None:
        own = result_cards(catalog, progress.merged, names, spans)
        own += [spread_card(catalog[name], spread) for name, spread in progress.merged.spread.items()]
        parts.append(cards(own, f"Merged from {len(progress.results)} samples"))
    for n, result in enumerate(progress.results):
        title = f"Sample {n + 1}" if len(progress.results) > 1 else ""
        parts.append(cards(result_cards(catalog, result, names, spans), title))
    return "".join(parts)


def status_html(progress: RequestState, seconds: float, number: int) -> str:
    """Returns the line that says how far a request is, the `number`-th of its window."""
    share = progress.done / max(1, progress.total)
    if progress.stopped:
        words = progress.stopped
    elif progress.done >= progress.total and not progress.target:
        words = f"finished in {seconds:.1f} s"
    else:
        words = f"{progress.target}: pass {progress.done} of {progress.total}"
    return (
        f'<div class="mw-status" role="status"><progress value="{share:.3f}" max="1"></progress>'
        f"<span>Request {number}: {html.escape(words)}</span></div>"
    )


def likelihood_html(name: str, found: Likelihood) -> str:
    """Returns the log-likelihood of a value and of its tokens, the unlikely ones darker."""
    tokens = found.score.tokens
    mean = float(tokens.mean()) if len(tokens) else 0.0
    spans = []
    for word, log in zip(found.words, tokens.tolist(), strict=True):
        shade = min(1.0, max(0.0, -log / 8))
        spans.append(
            f'<span class="mw-token" style="background:rgba(217,83,59,{shade:.2f})" title="{log:.3f} nats">{html.escape(word)}</span>'
        )
    shown = "".join(spans[:512])
    return (
        f"<p><strong>{html.escape(name)}</strong>: {found.score.total:.3f} nats in all, {mean:.3f} for each of {len(tokens)} tokens. "
        f"Darker tokens are less likely.</p><div>{shown}</div>"
    )


def error_html(error: Exception) -> str:
    """Returns a message for the page."""
    return f'<div class="mw-error" role="alert">{html.escape(str(error))}</div>'
