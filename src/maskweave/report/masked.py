"""What a masked autoencoder restores at several mask ratios, and where its words look. M3AE (https://arxiv.org/abs/2205.14204), figures 3 and 5.

Dimension letters: B samples, L places of a modality, C width of a raw row, H heads, N tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskweave.masking.m3ae import MaskedTokens, MaskRatio, mask_values
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import EOS, Modality
from maskweave.models.m3ae import M3AE
from maskweave.nn.patches import unpatchify
from maskweave.objectives.m3ae import patch_statistics
from maskweave.report.sheets import SheetRow, Tile, contact_sheet
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.values import from_output

HIDDEN_TOKEN = "_"
MOST_WORDS = 6

Samples = Sequence[Mapping[str, Any]]
Tokenizers = Mapping[str, Tokenizer]


@torch.inference_mode()
def restored_sheet(
    model: M3AE,
    catalog: Catalog,
    tokenizers: Tokenizers,
    samples: Samples,
    ratios: Sequence[float] = (0.5, 0.75, 0.9),
    normalized: bool = False,
    seed: int = 0,
) -> Image.Image:
    """For every sample and mask ratio: what the model sees, what it makes of it, and the truth.

    Args:
        normalized: the model restores patches relative to their own mean and deviation, which are then taken from the truth.
        seed: of what is hidden.
    """
    found: dict[tuple[int, float], list[Tile | None]] = {}
    for ratio in ratios:
        batch = mask_values(samples, catalog, tokenizers, MaskRatio(ratio, ratio), seed)
        for group in batch.groups:
            outputs = model(group.parts)
            shown = {
                name: _restored_rows(catalog[name], tokens, outputs[name], normalized)
                if tokens.content.ndim == 3
                else _restored_texts(tokenizers[name], tokens, outputs[name])
                for name, tokens in group.parts.items()
            }
            for row, sample in enumerate(group.samples.tolist()):
                found[sample, ratio] = [
                    Tile(name, value)
                    for name in catalog
                    for value in (shown[name][row] if name in shown else (None,) * 3)
                ]
    rows = [
        SheetRow(found[i, ratio], f"{ratio:.0%}", starts=ratio == ratios[0])
        for i in range(len(samples))
        for ratio in ratios
        if (i, ratio) in found
    ]
    headings = [heading for name in catalog for heading in (f"{name}, seen", "restored", "truth")]
    return contact_sheet(rows, catalog, "What is restored of what is hidden, by mask ratio", headings, tile=112)


@torch.inference_mode()
def attention_sheet(model: M3AE, catalog: Catalog, tokenizers: Tokenizers, samples: Samples) -> Image.Image | None:
    """Where the words of each sample's text look in its picture, by the encoder's attention: the mean of its blocks and heads.

    None where the catalog has no color picture and text, or no sample has both.
    """
    pictures = [
        m for m in catalog.values() if m.kind == "patches" and m.value.type == "image" and m.value.channels == 3
    ]
    texts = [m for m in catalog.values() if m.kind == "sequence" and m.value.type == "text"]
    if not pictures or not texts or len(pictures[0].grid) != 2:
        return None
    picture, text = pictures[0], texts[0]
    both = catalog.subset([picture.name, text.name])
    batch = mask_values(samples, both, tokenizers)
    rows: dict[int, list[Tile]] = {}
    for group in batch.groups:
        if len(group.parts) < 2:
            continue
        counts = [1, *(tokens.kept.shape[1] for tokens in group.parts.values())]  # the class token comes first
        place = {name: 1 + i for i, name in enumerate(group.parts)}
        from_words = model.attention(group.parts).mean(dim=(0, 2)).split(counts, dim=1)[place[text.name]]
        looks_BLP = from_words.split(counts, dim=2)[place[picture.name]]
        for row, sample in enumerate(group.samples.tolist()):
            tokens = group.parts[text.name]
            words = _words(tokenizers[text.name], tokens.content[row].tolist())
            looks_LP = looks_BLP[row]
            value = np.asarray(samples[sample][picture.reads])
            chosen = sorted(sorted(words, key=len)[-MOST_WORDS:], key=lambda word: words[word][0])
            tiles = [Tile(picture.name, value)]
            tiles += [Tile(picture.name, _lit(value, looks_LP[words[w]].mean(dim=0), picture.grid), w) for w in chosen]
            rows[sample] = tiles
    if not rows:
        return None
    title = "Where words look in the picture: attention, mean of all blocks and heads"
    return contact_sheet([SheetRow(rows[i]) for i in sorted(rows)], both, title, tile=112)


def _restored_rows(modality: Modality, tokens: MaskedTokens, output: Tensor, normalized: bool) -> list[tuple[Any, ...]]:
    """Of each sample the values seen, restored (what was seen stays as it is) and true."""
    truth = tokens.content
    if normalized:
        mean, deviation = patch_statistics(truth)
        output = output * deviation + mean
    hidden = tokens.masked[..., None]

    def values(rows_BLC: Tensor) -> np.ndarray:
        return from_output(modality, unpatchify(rows_BLC, modality.grid, modality.patch).movedim(-1, 1))

    return list(
        zip(
            values(truth.masked_fill(hidden, 0.0)),
            values(torch.where(hidden, output, truth)),
            values(truth),
            strict=True,
        )
    )


def _restored_texts(tokenizer: Tokenizer, tokens: MaskedTokens, output: Tensor) -> list[tuple[Any, ...]]:
    """The same of texts. Of other values written as text nothing is shown as seen: with holes they cannot be read."""
    assert isinstance(tokenizer, SequenceTokenizer)
    truth = tokens.content
    restored = torch.where(tokens.masked, output.argmax(dim=-1), truth)
    lengths = [truth.shape[1]] * len(truth) if tokens.present is None else tokens.present.sum(dim=1).tolist()
    found = []
    for row, length in enumerate(lengths):
        seen = None
        if tokenizer.modality.value.type == "text":
            pieces = [
                HIDDEN_TOKEN if hidden else tokenizer.text.piece(id)
                for id, hidden in zip(truth[row, :length].tolist(), tokens.masked[row, :length].tolist(), strict=True)
                if hidden or id != EOS
            ]
            seen = " ".join(pieces).replace(" ##", "")
        found.append((seen, *tokenizer.decode([restored[row, :length], truth[row, :length]])))
    return found


def _words(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, list[int]]:
    """Words of letters, each with the places of its pieces, at every time that it occurs."""
    assert isinstance(tokenizer, SequenceTokenizer)
    words: list[tuple[str, list[int]]] = []
    for place, id in enumerate(ids):
        if id == EOS:
            break
        piece = tokenizer.text.piece(id)
        if piece.startswith("##") and words:
            words[-1] = (words[-1][0] + piece[2:], [*words[-1][1], place])
        else:
            words.append((piece, [place]))
    found: dict[str, list[int]] = {}
    for word, places in words:
        if word.isalpha():
            found.setdefault(word, []).extend(places)
    return found


def _lit(picture: np.ndarray, looks_P: Tensor, grid: Sequence[int]) -> np.ndarray:
    """The picture, bright where it is looked at."""
    looks = looks_P.reshape(*grid).numpy()
    looks = (looks - looks.min()) / max(float(np.ptp(looks)), 1e-9)
    height, width = picture.shape[:2]
    light = np.asarray(
        Image.fromarray((looks * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    )
    return (picture * (0.15 + 0.85 * light[..., None] / 255)).astype(np.uint8)
