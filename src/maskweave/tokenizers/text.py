"""Text as tokens, with sentinels, special values and complete words in one vocabulary.

The layout is 4M's (https://arxiv.org/abs/2312.06647): special tokens, sentinels, special values, complete words, then
learned pieces: of bytes (`byte_bpe`), or WordPiece as in the published models. User input is always treated as text: "[S_1]", "[EOS]" or "v0=3"
in a text is split into ordinary pieces and never gives the ids of these entries.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from torch import Tensor

from maskweave.config import build, plain
from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.files import digest, read_json, write_aside
from maskweave.modality.checks import check_vocabulary
from maskweave.modality.vocabulary import Vocabulary
from maskweave.nn.layers import sine_cosine
from maskweave.tokenizers.byte_bpe import BYTES, ByteBPE
from maskweave.tokenizers.pieces import Pieces, fixed_entries
from maskweave.tokenizers.wordpiece import WordPieces
from maskweave.values.codec import EOS, SPECIAL_TOKENS

# One thread: data workers fork, and the library's threads would compete for the same cores. A user's setting has priority.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

EMBEDDING_WIDTH = 64
"""Width of `TextTokenizer.token_embeddings`."""

PIECES: dict[str, Pieces] = {"byte_bpe": ByteBPE(), "wordpiece": WordPieces()}
"""The pieces of each type of vocabulary."""

Array = TypeVar("Array")  # a NumPy array or a torch tensor


class TextTokenizer:
    """Converts text to ids and back, and looks up the ids of a vocabulary's special values, words and sentinels.

    Words of the vocabulary with a space or punctuation are looked up by `word`; encoding text never gives them. Words of
    letters and digits may be found in text like any other piece. (The published file declares that all of its words are found
    in text, "hot dog" for instance; with this file, they are.)
    """

    def __init__(self, vocabulary: Vocabulary, tokenizer: Tokenizer):
        """Wrap a tokenizer whose ids follow the vocabulary's layout; `train` and `load` create one.

        Raises:
            MaskweaveError: the ids do not follow the layout.
        """
        where = f"vocabulary {vocabulary.name!r}"
        check_vocabulary(vocabulary, where)
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer
        self.pieces = PIECES[vocabulary.type]
        tokenizer.encode_special_tokens = True  # treat special tokens in user input as text
        self._ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self._entries = [""] * vocabulary.size
        for entry, id in self._ids.items():
            if id >= vocabulary.size:
                raise MaskweaveError(
                    f"{where}: the tokenizer has id {id} ({shown(entry)}), beyond the vocabulary's size {vocabulary.size}; train it again"
                )
            self._entries[id] = entry
        for id, entry in enumerate(fixed_entries(vocabulary, self.pieces)):
            if self._entries[id] != entry:
                raise MaskweaveError(
                    f"{where}: the tokenizer's id {id} is {shown(self._entries[id])}, the layout expects {entry!r}; it was trained for another vocabulary, train it again"
                )
        if vocabulary.type == "byte_bpe" and any(byte not in self._ids for byte in BYTES):
            raise MaskweaveError(
                f"{where}: is of type 'byte_bpe', but the tokenizer does not have all single bytes; train it again"
            )
        self._first_word = vocabulary.fixed - len(vocabulary.words)
        self._values: dict[int, tuple[str, int]] = {}
        self._starts: dict[str, int] = {}
        start = vocabulary.first_sentinel + vocabulary.sentinels
        for prefix, count in vocabulary.values.items():
            self._starts[prefix] = start
            self._values.update((start + n, (prefix, n)) for n in range(count))
            start += count

    @classmethod
    def train(cls, vocabulary: Vocabulary, texts: Iterable[str]) -> "TextTokenizer":
        """Learn pieces from texts. The order of the texts does not matter.

        Raises:
            BadSample: an item of texts is not text.
            MaskweaveError: the vocabulary is not valid.
        """
        return cls(vocabulary, PIECES[vocabulary.type].train(vocabulary, texts))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` (Hugging Face tokenizers) and `config.json` (the vocabulary) to a temporary folder, then rename it.

        Raises:
            FullDisk: no space is left; the old folder is kept.
        """
        with write_aside(folder) as aside:
            aside.mkdir()
            (aside / "tokenizer.json").write_text(self.tokenizer.to_str(pretty=True), encoding="utf-8")
            config = {**plain(self.vocabulary), "fingerprint": digest(aside / "tokenizer.json")}
            (aside / "config.json").write_text(
                json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str = "text") -> "TextTokenizer":
        """Load a folder written by `save`, or a single tokenizer file of the same layout, such as 4M's published file.

        Args:
            name: the vocabulary's name, for a single file. Its other settings are read from the file's entries.

        Raises:
            MaskweaveError: a file is missing or damaged, or its ids do not follow the layout.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        content = read_json(file)
        try:
            added = {int(entry["id"]): entry for entry in content["added_tokens"]}
            config = read_json(path / "config.json") if path.is_dir() else None
            # Two exchanged ids would give other texts without any error; versions before had no fingerprint.
            if config is not None and (expected := config.pop("fingerprint", "")) and expected != digest(file):
                raise MaskweaveError(
                    f"{file}: has changed since it was made (its fingerprint is not the one in config.json); restore the file, or copy the complete folder again"
                )
            vocabulary = (
                _infer(name, content, added)
                if config is None
                else build(Vocabulary, {"type": "wordpiece", **config}, f"{path / 'config.json'}")
            )  # files without a type are from versions that had only WordPiece
            first_word = vocabulary.fixed - len(vocabulary.words)
            for id, entry in added.items():
                entry["special"] = id < first_word  # words are text, also those that the file marks as special
            tokenizer = Tokenizer.from_str(json.dumps(content))
        except MaskweaveError:
            raise
        except Exception as error:  # the tokenizers library raises plain Exception
            raise MaskweaveError(
                f"{file}: cannot be read as a tokenizer file ({error!r}); save or train the tokenizer again"
            ) from error
        return cls(vocabulary, tokenizer)

    def require(self, vocabulary: Vocabulary, where: str) -> None:
        """Check that the layout of the ids equals that of a catalog's vocabulary. The learned pieces may differ, or be fewer.

        Args:
            where: name of this tokenizer in the error, for example its file.

        Raises:
            MaskweaveError: the layouts differ. The message names the first difference.
        """
        for key in ("type", "sentinels", "values", "words", "size"):
            found, wanted = getattr(self.vocabulary, key), getattr(vocabulary, key)
            if key == "values":
                found, wanted = list(found.items()), list(wanted.items())  # their order matters too
            if found > wanted if key == "size" else found != wanted:
                if key == "words":
                    pairs = zip_longest(found, wanted)
                    number, (found, wanted) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
                    key = f"words[{number}]"
                raise MaskweaveError(
                    f"{where}: was made for another vocabulary {vocabulary.name!r} than the catalog's: {key} is {shown(found)}, expected {shown(wanted)}; use the text tokenizer made for this catalog, or train one for it"
                )

    @property
    def token_embeddings(self) -> Tensor:
        """(V, C) a vector per token, to initialize a model's embeddings so that tokens of similar meaning start close together.

        The special values of a prefix lie on a curve, in their order. A word of the vocabulary lies between the pieces of its name: "red cube"
        between "red" and "cube". All other vectors are random, with a fixed seed.
        """
        width, vocabulary = EMBEDDING_WIDTH, self.vocabulary
        table = torch.randn(vocabulary.size, width, generator=torch.Generator().manual_seed(0)) / width**0.5
        for prefix, count in vocabulary.values.items():
            start = self._starts[prefix]
            curve = sine_cosine((count,), width) / (width / 2) ** 0.5
            table[start : start + count] = (table[start] + curve) / 2**0.5
        for word in vocabulary.words:
            pieces = [id for id in self.encode(f" {word}")[:-1] if id != self.word(word)]  # as inside a text
            if pieces:
                table[self.word(word)] = table[pieces].sum(dim=0) / len(pieces) ** 0.5
        return table

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, [EOS] last. With WordPiece, a word with characters outside the alphabet becomes [UNK].

        Raises:
            BadSample: `text` is not text, or cannot be encoded as UTF-8.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Like `encode`, for many texts at once; raises the same errors."""
        for text in texts:
            if not isinstance(text, str):
                raise BadSample(f"vocabulary {self.vocabulary.name!r}: expected text, found {type(text).__name__}")
        try:
            encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeError) as error:
            raise BadSample(
                f"vocabulary {self.vocabulary.name!r}: a text has characters that UTF-8 cannot encode (lone surrogates); remove them"
            ) from error
        return [[*encoding.ids, EOS] for encoding in encodings]

    def cut(self, ids: list[int], most: int) -> list[int]:
        """Returns at most `most` of the ids that `encode` gave, [EOS] last, cut between two characters."""
        if len(ids) <= most:
            return ids
        kept = ids[: most - 1]
        return [*kept[: self.pieces.complete([self._entries[id] for id in kept])], EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of the ids before the first [EOS], without special tokens, sentinels and special values.

        With `byte_bpe` it is exactly the text that was encoded. With WordPiece, encoding it again gives the same ids if they were returned by
        `encode` and contain no [UNK].
        """
        entries = []
        for id in ids:
            if id == EOS:
                break
            if self.is_text(id):
                entries.append(self._entries[id])
        return self.pieces.decode(entries)

    def decode_with_gaps(self, ids: Sequence[int], masked: Sequence[bool], sign: str) -> str:
        """Returns the text of ids for people to read, with a sign in place of each masked one."""
        pairs = zip(ids, masked, strict=True)
        return self.pieces.decode_with_gaps(
            [None if hidden else self._entries[id] for id, hidden in pairs if hidden or id != EOS], sign
        )

    def words(self, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Returns the words of a text before its [EOS], each with the positions of its tokens."""
        ids = list(ids)
        ids = ids[: ids.index(EOS)] if EOS in ids else ids
        return self.pieces.words([self._entries[id] if self.is_text(id) else "" for id in ids])

    def find(self, ids: Sequence[int], part: str) -> list[bool]:
        """Returns which of the ids of a text write `part`, at any of its occurrences."""
        entries = [self._entries[id] if self.is_text(id) else "" for id in ids]
        return self.pieces.find(entries, part, [self._entries[id] for id in self.encode(part)[:-1]])

    def is_text(self, id: int) -> bool:
        """Whether the id is a word or a learned piece."""
        return self._first_word <= id < len(self._entries) and bool(self._entries[id])

    def piece(self, id: int) -> str:
        """The entry of an id, for messages; "?" if the id has no entry."""
        if self.is_text(id):
            return self.pieces.shown(self._entries[id])
        return (self._entries[id] or "?") if 0 <= id < len(self._entries) else "?"

    def value(self, prefix: str, n: int) -> int:
        """Id of the special value `prefix=n`.

        Raises:
            MaskweaveError: the vocabulary has no such value.
        """
        count = self.vocabulary.values.get(prefix, 0)
        if not 0 <= n < count:
            raise MaskweaveError(
                f"vocabulary {self.vocabulary.name!r}: has no special value {prefix}={n}; expected one of {self.describe_values()}"
            )
        return self._starts[prefix] + n

    def as_value(self, id: int) -> tuple[str, int] | None:
        """Prefix and number of a special value; None for any other id."""
        return self._values.get(id)

    def describe_values(self) -> str:
        return (
            ", ".join(f"{prefix}=0 to {prefix}={count - 1}" for prefix, count in self.vocabulary.values.items())
            or "none"
        )

    def word(self, name: str) -> int:
        """Id of a word of the vocabulary, or of a learned piece that is a complete word.

        Raises:
            MaskweaveError: the vocabulary has no such entry.
        """
        id = self._ids.get(self.pieces.entry_of(name), -1)
        if self.as_word(id) is None:
            raise MaskweaveError(
                f"vocabulary {self.vocabulary.name!r}: has no entry for {shown(name)}; add it to its words and train the text tokenizer again"
            )
        return id

    def as_word(self, id: int) -> str | None:
        """The entry of an id that is a word or the first piece of a word; None for any other id."""
        if not self.is_text(id) or (id >= self.vocabulary.fixed and not self.pieces.is_word(self._entries[id])):
            return None
        return self.pieces.shown(self._entries[id])

    def sentinel(self, n: int) -> int:
        """Id of the sentinel [S_n].

        Raises:
            MaskweaveError: the vocabulary has fewer.
        """
        if not 0 <= n < self.vocabulary.sentinels:
            raise MaskweaveError(
                f"vocabulary {self.vocabulary.name!r}: has no sentinel [S_{n}]; expected [S_0] to [S_{self.vocabulary.sentinels - 1}]"
            )
        return self.vocabulary.first_sentinel + n

    def is_sentinel(self, ids: Array) -> Array:
        """Whether each id is a sentinel, elementwise, for an array or tensor of any shape."""
        first: Any = self.vocabulary.first_sentinel
        return (ids >= first) & (ids < first + self.vocabulary.sentinels)


def _infer(name: str, content: dict[str, Any], added: dict[int, dict[str, Any]]) -> Vocabulary:
    """Infer the vocabulary of a single tokenizer file from its declared entries."""
    entries = [added[id]["content"] for id in sorted(added)]
    sentinels = sum(bool(re.fullmatch(r"\[S_\d+\]", entry)) for entry in entries)
    values = Counter(entry.split("=")[0] for entry in entries if re.fullmatch(r"\w+=\d+", entry))
    words = entries[len(SPECIAL_TOKENS) + sentinels + sum(values.values()) :]
    size = 1 + max([*content["model"]["vocab"].values(), *added])
    return Vocabulary(
        name,
        size,
        sentinels,
        dict(values),
        tuple(words),
        type="byte_bpe" if content["model"]["type"] == "BPE" else "wordpiece",
    )
