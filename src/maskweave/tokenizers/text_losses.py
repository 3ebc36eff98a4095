"""What a vocabulary loses of texts: those that it does not restore exactly, and those that are longer than their entry's `max_tokens`."""

from collections.abc import Callable, Sequence

from maskweave.errors import shown
from maskweave.tokenizers.sequence import SequenceTokenizer

EXAMPLES = 2


def text_losses(tokenizer: SequenceTokenizer, texts: Sequence[str]) -> list[str]:
    """Describes the share of texts that are not restored exactly, and the share that is cut, each with two examples; empty if there are none."""
    text, modality = tokenizer.text, tokenizer.modality
    encoded = text.encode_batch(texts)
    decoded = [text.decode(ids) for ids in encoded]
    changed = [i for i, found in enumerate(decoded) if found != texts[i]]
    cut = [i for i, ids in enumerate(encoded) if len(ids) > modality.max_tokens]
    lines = []
    if changed:
        vocabulary = text.vocabulary
        examples = _examples(changed, lambda i: f"{shown(texts[i])} becomes {shown(decoded[i])}")
        lines.append(
            f"{modality.name}: {_share(changed, texts)} are not restored exactly by the vocabulary {vocabulary.name!r} of type {vocabulary.type!r}: {examples}; type 'byte_bpe' restores any text"
        )
    if cut:
        longest = max(map(len, encoded))
        examples = _examples(cut, lambda i: f"{shown(texts[i])} has {len(encoded[i])} tokens")
        lines.append(
            f"{modality.name}: {_share(cut, texts)} are longer than max_tokens {modality.max_tokens} and are cut: {examples}; raise max_tokens (the longest has {longest})"
        )
    return lines


def _share(some: Sequence[int], texts: Sequence[str]) -> str:
    return f"{100 * len(some) / len(texts):.2g}% of {len(texts):,} texts"


def _examples(some: Sequence[int], say: Callable[[int], str]) -> str:
    return "; ".join(say(i) for i in some[:EXAMPLES])
