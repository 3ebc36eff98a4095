"""Sheets of a masked autoencoder: reconstructions at several mask ratios, and attention from words to image patches.

M3AE (https://arxiv.org/abs/2205.14204), figures 3 and 5.
Dimension letters: B samples, L tokens of a modality, P patches, C values of a raw patch, H heads, N tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskweave.families.sheets import Sheet, Tile, TileRow
from maskweave.masking.m3ae import MaskedTokens, MaskRatio, mask_values
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.m3ae import M3AE
from maskweave.nn.patches import unpatchify
from maskweave.objectives.m3ae import patch_statistics
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer

MASK_SIGN = "_"
"""Shown in place of a masked token."""
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
) -> Sheet:
    """For every sample and mask ratio: the visible input, the reconstruction and the truth.

    Args:
        normalized: the model predicts patches relative to their own mean and standard deviation; these are taken from the truth.
        seed: of the masks.
    """
    found: dict[tuple[int, float], list[Tile | None]] = {}
    for ratio in ratios:
        batch = mask_values(samples, catalog, tokenizers, MaskRatio(ratio, ratio), seed)
        for group in batch.groups:
            outputs = {name: output.float().cpu() for name, output in model(_on(model, group.parts)).items()}
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
        TileRow(found[i, ratio], f"{ratio:.0%}", starts=ratio == ratios[0])
        for i in range(len(samples))
        for ratio in ratios
        if (i, ratio) in found
    ]
    headings = [heading for name in catalog for heading in (f"{name}, visible", "restored", "truth")]
    return Sheet("restored", rows, catalog, "Reconstructions of masked inputs, by mask ratio", headings)


@torch.inference_mode()
def attention_sheet(model: M3AE, catalog: Catalog, tokenizers: Tokenizers, samples: Samples) -> Sheet | None:
    """The encoder's attention from the words of each sample's text to its image, as the mean over blocks and heads.

    None if the catalog has no color image and text, or no sample has both.
    """
    pictures = [m for m in catalog.values() if m.kind == "patches" and m.value.is_picture]
    texts = [m for m in catalog.values() if m.kind == "sequence" and m.value.is_text]
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
        part = {name: 1 + i for i, name in enumerate(group.parts)}
        attention = model.attention(_on(model, group.parts)).float().cpu()
        from_words = attention.mean(dim=(0, 2)).split(counts, dim=1)[part[text.name]]
        attention_BLP = from_words.split(counts, dim=2)[part[picture.name]]
        for row, sample in enumerate(group.samples.tolist()):
            tokens = group.parts[text.name]
            words = _words(tokenizers[text.name], tokens.content[row].tolist())
            attention_LP = attention_BLP[row]
            value = np.asarray(samples[sample][picture.reads])
            chosen = sorted(sorted(words, key=len)[-MOST_WORDS:], key=lambda word: words[word][0])
            tiles = [Tile(picture.name, value)]
            tiles += [
                Tile(picture.name, _brightened(value, attention_LP[words[w]].mean(dim=0), picture.grid), w)
                for w in chosen
            ]
            rows[sample] = tiles
    if not rows:
        return None
    title = "Attention from words to the image, mean over all blocks and heads"
    return Sheet("attention", [TileRow(rows[i]) for i in sorted(rows)], both, title)


def _on(model: M3AE, parts: Mapping[str, MaskedTokens]) -> dict[str, MaskedTokens]:
    """The tokens on the model's device."""
    device = next(model.parameters()).device
    return {name: tokens.to(device) for name, tokens in parts.items()}


def _restored_rows(modality: Modality, tokens: MaskedTokens, output: Tensor, normalized: bool) -> list[tuple[Any, ...]]:
    """(visible, restored, true) values of each sample; visible patches are kept in the restored value."""
    truth = tokens.content
    if normalized:
        mean, std = patch_statistics(truth)
        output = output * std + mean
    masked = tokens.masked[..., None]

    def values(rows_BLC: Tensor) -> np.ndarray:
        return modality.value.from_network(unpatchify(rows_BLC, modality.grid, modality.patch).movedim(-1, 1))

    return list(
        zip(
            values(truth.masked_fill(masked, 0.0)),
            values(torch.where(masked, output, truth)),
            values(truth),
            strict=True,
        )
    )


def _restored_texts(tokenizer: Tokenizer, tokens: MaskedTokens, output: Tensor) -> list[tuple[Any, ...]]:
    """(visible, restored, true) of each sample, for sequences. Only texts have a visible part: other values cannot be decoded with gaps."""
    assert isinstance(tokenizer, SequenceTokenizer)
    truth = tokens.content
    restored = torch.where(tokens.masked, output.argmax(dim=-1), truth)
    lengths = [truth.shape[1]] * len(truth) if tokens.present is None else tokens.present.sum(dim=1).tolist()
    found = []
    for row, length in enumerate(lengths):
        seen = None
        if tokenizer.modality.value.is_text:
            ids, masked = truth[row, :length].tolist(), tokens.masked[row, :length].tolist()
            seen = tokenizer.text.decode_with_gaps(ids, masked, MASK_SIGN)
        found.append((seen, *tokenizer.decode([restored[row, :length], truth[row, :length]])))
    return found


def _words(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, list[int]]:
    """Words of letters, each with the positions of all its tokens, over all its occurrences."""
    assert isinstance(tokenizer, SequenceTokenizer)
    found: dict[str, list[int]] = {}
    for word, positions in tokenizer.text.words(ids):
        if word.isalpha():
            found.setdefault(word, []).extend(positions)
    return found


def _brightened(picture: np.ndarray, attention_P: Tensor, grid: Sequence[int]) -> np.ndarray:
    """The image, brighter where attention is higher."""
    from PIL import Image

    attention = attention_P.reshape(*grid).numpy()
    attention = (attention - attention.min()) / max(float(np.ptp(attention)), 1e-9)
    height, width = picture.shape[:2]
    light = np.asarray(
        Image.fromarray((attention * 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    )
    return (picture * (0.15 + 0.85 * light[..., None] / 255)).astype(np.uint8)
