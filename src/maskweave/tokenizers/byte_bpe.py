"""Byte-level byte-pair encoding, as in GPT-2 (https://arxiv.org/abs/1909.03341): text of any language is restored exactly.

A text is the bytes of its UTF-8 form. There is a token for each byte, and each learned piece joins two earlier ones, the most frequent pair first
(https://arxiv.org/abs/1508.07909, by the tokenizers library). A piece never reaches over the end of a word, and begins with the space before
the word. Nothing is normalized: case, accents, spaces and line breaks are kept.

Files write bytes as printable characters, as GPT-2's do: a space as "Ġ".
"""

import codecs
import json
import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from maskweave.errors import BadSample
from maskweave.modality.checks import check_vocabulary
from maskweave.modality.vocabulary import NUM_BYTES, Vocabulary
from maskweave.tokenizers.pieces import fixed_entries
from maskweave.values.codec import SPECIAL_TOKENS

FEWEST = 2
"""A pair of pieces that occurs less often in the texts is not joined."""


def _byte_characters() -> list[str]:
    """GPT-2's character for each byte: itself if it is printable and not a space, otherwise the next character from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 2 * NUM_BYTES))
    return [chr(byte if byte in printable else next(others)) for byte in range(NUM_BYTES)]


BYTES = _byte_characters()
_BYTE_OF = {character: byte for byte, character in enumerate(BYTES)}


class ByteBPE:
    """The pieces of a vocabulary of type `byte_bpe`."""

    def train(self, vocabulary: Vocabulary, texts: Iterable[str]) -> Tokenizer:
        check_vocabulary(vocabulary, f"vocabulary {vocabulary.name!r}")
        fixed = fixed_entries(vocabulary, self)
        entries = dict.fromkeys([*fixed, *BYTES])
        merges = []
        for left, right in _learn(texts, vocabulary.size - len(entries) + len(vocabulary.words)):
            if left + right not in entries and len(entries) == vocabulary.size:
                break
            merges.append((left, right))
            entries[left + right] = None
        tokenizer = Tokenizer(BPE({entry: id for id, entry in enumerate(entries)}, merges))
        tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
        special = fixed[: vocabulary.fixed - len(vocabulary.words)]
        tokenizer.add_special_tokens(
            [AddedToken(e, single_word=e not in SPECIAL_TOKENS, normalized=False) for e in special]
        )
        return tokenizer

    def entry_of(self, word: str) -> str:
        return "".join(BYTES[byte] for byte in word.encode())

    def shown(self, entry: str) -> str:
        return _bytes(entry).decode("utf-8", "backslashreplace")

    def is_word(self, entry: str) -> bool:
        return "\ufffd" not in self.decode([entry])

    def decode(self, entries: Sequence[str]) -> str:
        """The text that entries write. Bytes that are not valid UTF-8, which only a model generates, become U+FFFD."""
        return b"".join(map(_bytes, entries)).decode("utf-8", "replace")

    def decode_with_gaps(self, entries: Sequence[str | None], sign: str) -> str:
        text, run = "", list[str]()
        for entry in [*entries, None]:
            if entry is not None:
                run.append(entry)
                continue
            text += f"{self.decode(run)} {sign}"
            run = []
        return text.removesuffix(f" {sign}").removeprefix(" ")  # the last one is not a gap

    def words(self, entries: Sequence[str]) -> list[tuple[str, list[int]]]:
        found: list[tuple[bytes, list[int]]] = []
        for position, entry in enumerate(entries):
            piece = _bytes(entry)
            if found and _in_word(found[-1][0][-1:]) and _in_word(piece[:1]):
                found[-1] = (found[-1][0] + piece, [*found[-1][1], position])
            else:
                found.append((piece, [position]))
        return [(word.decode("utf-8", "replace").strip(), positions) for word, positions in found]

    def find(self, entries: Sequence[str], part: str, part_entries: Sequence[str]) -> list[bool]:
        """Which entries write `part`: at its occurrences as complete words, or else, as in scripts without spaces, at all of its occurrences."""
        pieces = [_bytes(entry) for entry in entries]
        text = b"".join(pieces).decode("utf-8", "surrogateescape")
        whole, anywhere = rf"(?<!\w){re.escape(part)}(?!\w)", re.escape(part)
        matches = list(re.finditer(whole, text)) or list(re.finditer(anywhere, text))
        spans = [
            tuple(len(text[:at].encode("utf-8", "surrogateescape")) for at in match.span())
            for match in matches
            if match[0]
        ]
        found, start = [], 0
        for piece in pieces:
            end = start + len(piece)
            found.append(any(first < end and start < last for first, last in spans))
            start = end
        return found

    def complete(self, entries: Sequence[str]) -> int:
        for count in range(len(entries), 0, -1):
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            decoder.decode(b"".join(map(_bytes, entries[:count])))
            if not decoder.getstate()[0]:  # bytes of a character that is not complete
                return count
        return 0


def _bytes(entry: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in entry)


def _in_word(byte: bytes) -> bool:
    """Whether a byte is an ASCII letter or digit, or part of a character beyond ASCII."""
    return byte.isalnum() or byte >= b"\x80"


def _learn(texts: Iterable[str], most: int) -> list[tuple[str, str]]:
    """Pairs of entries to join, most frequent first."""
    checked = []
    for text in texts:
        if not isinstance(text, str):
            raise BadSample(f"training texts of the tokenizer: expected text, found {type(text).__name__}")
        try:
            text.encode()
        except UnicodeError as error:
            raise BadSample(
                "training texts of the tokenizer: a text has characters that UTF-8 cannot encode (lone surrogates); remove them"
            ) from error
        checked.append(text)
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=NUM_BYTES + most, initial_alphabet=BYTES, min_frequency=FEWEST, show_progress=False)
    learner.train_from_iterator(checked, trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
