"""Plain-text tables."""

import math
from collections.abc import Mapping, Sequence

from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.metadata import Metadata


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats rows under headings; each column is as wide as its widest cell."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def short_number(x: float) -> str:
    """Formats a score with three decimals, or three significant digits of one below 0.1 or from 100,000."""
    return f"{x:.3f}" if 0.1 <= abs(x) < 1e5 or not x else f"{x:.3g}"


def best_reference(references: Mapping[str, float], better: str) -> str:
    """Returns the best of some scores with its name, or a dash. Scores with another ideal than the lowest or highest have no best."""
    known = {name: score for name, score in references.items() if not math.isnan(score)}
    if better not in ("lower", "higher") or not known:
        return "–"
    name = (min if better == "lower" else max)(known, key=lambda one: known[one])
    return f"{short_number(known[name])} ({name})"


def modality_table(catalog: Catalog) -> str:
    """Returns one line per modality: id, name, kind, tokens, codebook size, tokenizer, values, range and unit."""
    heads = ["id", "name", "kind", "tokens", "codebook", "tokenizer", "value", "range", "unit"]
    return text_table(heads, [_row(catalog, m) for m in catalog.values()])


def key_table(catalog: Catalog) -> str:
    """Returns one line per key of each metadata modality: id, name, bins, range and unit; empty if there is none."""
    rows = [
        [m.name, str(key.id), name, str(key.bins), f"{key.range[0]:g} to {key.range[1]:g}", key.unit or "–"]
        for m in catalog.values()
        if isinstance(m.value, Metadata)
        for name, key in m.value.keys.items()
    ]
    return text_table(["modality", "id", "key", "bins", "range", "unit"], rows) if rows else ""


def _row(catalog: Catalog, m: Modality) -> list[str]:
    tokens = f"{m.tokens} ({'×'.join(map(str, m.grid))})" if m.grid else f"≤ {m.max_tokens}"
    codebook = str(catalog.vocabulary_size(m.name)) if m.has_tokens else "–"
    rules = "rules" if m.kind == "grid" and m.value.tokenized_by == "rules" else "–"
    tokenizer = f"{m.network.model}, {m.network.quantizer.type}" if m.network else m.vocabulary or rules
    tokenizer = m.external.external if m.external else tokenizer
    return [
        str(m.id),
        m.name,
        m.kind,
        tokens,
        codebook,
        tokenizer,
        m.value.describe(),
        m.value.describe_range(),
        m.value.unit or "–",
    ]
