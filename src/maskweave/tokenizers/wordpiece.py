"""WordPiece (https://arxiv.org/abs/1609.08144), as in BERT and the published 4M models. Text is lower-cased, and accents are removed.

Single characters come first, each at the start of and inside a word: those seen in the texts, then ASCII letters, digits and
basic punctuation. Longer pieces get the remaining ids. They are byte-pair merges (https://arxiv.org/abs/1508.07909, as in the
tokenizers library); those that save the most tokens on the texts are kept, so that a small vocabulary has complete words
and not their intermediate merges. The order of the texts does not matter.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from maskweave.errors import BadSample
from maskweave.modality.checks import check_vocabulary
from maskweave.modality.vocabulary import Vocabulary
from maskweave.tokenizers.pieces import fixed_entries
from maskweave.values.codec import SPECIAL_TOKENS

BASIC_PUNCTUATION = ".,!?'\"-:;()/&%"


class WordPieces:
    """The pieces of a vocabulary of type `wordpiece`. An entry that continues a word begins with "##"."""

    def train(self, vocabulary: Vocabulary, texts: Iterable[str]) -> Tokenizer:
        return assemble(vocabulary, learn_entries(vocabulary, texts))

    def entry_of(self, word: str) -> str:
        return word

    def shown(self, entry: str) -> str:
        return entry

    def is_word(self, entry: str) -> bool:
        return not entry.startswith("##")

    def decode(self, entries: Sequence[str]) -> str:
        """Readable text. Encoding it again gives the same entries if it has none that is unknown."""
        text = "".join(entry[2:] if entry.startswith("##") else " " + entry for entry in entries)
        text = re.sub(r" ([.,!?;:%)])", r"\1", text.strip())
        return re.sub(r"(?<=\w) ' (?=\w)", "'", text.replace("( ", "("))

    def decode_with_gaps(self, entries: Sequence[str | None], sign: str) -> str:
        return " ".join(sign if entry is None else entry for entry in entries).replace(" ##", "")

    def words(self, entries: Sequence[str]) -> list[tuple[str, list[int]]]:
        words: list[tuple[str, list[int]]] = []
        for position, entry in enumerate(entries):
            if entry.startswith("##") and words:
                words[-1] = (words[-1][0] + entry[2:], [*words[-1][1], position])
            else:
                words.append((entry, [position]))
        return words

    def find(self, entries: Sequence[str], part: str, part_entries: Sequence[str]) -> list[bool]:
        found, wanted = [False] * len(entries), list(part_entries)
        for start in range(len(entries) - len(wanted) + 1) if wanted else ():
            if list(entries[start : start + len(wanted)]) == wanted:
                found[start : start + len(wanted)] = [True] * len(wanted)
        return found

    def complete(self, entries: Sequence[str]) -> int:
        return len(entries)


def learn_entries(vocabulary: Vocabulary, texts: Iterable[str]) -> list[str]:
    """All entries in order of their ids: fixed entries, single characters, learned pieces.

    Raises:
        BadSample: an item of texts is not text.
        MaskweaveError: the vocabulary is not valid.
    """
    check_vocabulary(vocabulary, f"vocabulary {vocabulary.name!r}")
    texts = list(texts)
    counts = _word_counts(texts)
    fixed = fixed_entries(vocabulary, WordPieces())
    taken, free = set(fixed), vocabulary.size - len(fixed)
    alphabet = [p for p in _alphabet(counts) if p not in taken][:free]
    free -= len(alphabet)
    learned = _learn([*fixed, *alphabet], texts, counts, free) if free else []
    spare = [p for p in string.punctuation if p not in taken and p not in alphabet]
    return [*fixed, *sorted(alphabet), *learned, *spare][: vocabulary.size]


def _word_counts(texts: Sequence[str]) -> Counter[str]:
    """Count the words, split as by the WordPiece tokenizer."""
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    chunks: Counter[str] = Counter()
    for text in texts:
        if not isinstance(text, str):
            raise BadSample(f"training texts of the tokenizer: expected text, found {type(text).__name__}")
        try:
            chunks.update(normalizer.normalize_str(text).split())
        except UnicodeError as error:
            raise BadSample(
                "training texts of the tokenizer: a text has characters that UTF-8 cannot encode (lone surrogates); remove them"
            ) from error
    counts: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word, _ in splitter.pre_tokenize_str(chunk):
            counts[word] += count
    return counts


def _alphabet(counts: Counter[str]) -> list[str]:
    """Pieces of one character: those in the texts by frequency, then ASCII."""
    seen: Counter[str] = Counter()
    for word, count in counts.items():
        seen[word[0]] += count
        for character in word[1:]:
            seen[f"##{character}"] += count
    plain_ascii = string.ascii_lowercase + string.digits
    usual = [*plain_ascii, *(f"##{c}" for c in plain_ascii), *BASIC_PUNCTUATION]
    return list(dict.fromkeys([*sorted(seen, key=lambda piece: (-seen[piece], piece)), *usual]))


def _learn(known: list[str], texts: list[str], counts: Counter[str], free: int) -> list[str]:
    """At most `free` pieces of two or more characters, most useful first."""
    characters = sorted({piece[-1] for piece in known if len(piece.removeprefix("##")) == 1})
    trainer = WordPieceTrainer(
        vocab_size=len(known) + 4 * free + 1000,  # more than needed: most merges are only intermediate steps
        special_tokens=known,  # single characters get the first ids, so that ties do not depend on the order of the texts
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        min_frequency=1,
        show_progress=False,
    )
    learner = Tokenizer(WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    learner.train_from_iterator(texts, trainer)
    model, new = learner.model, set(learner.get_vocab(with_added_tokens=False)) - set(known)
    saved: Counter[str] = Counter()
    for word, count in counts.items():
        for token in model.tokenize(word):
            if token.value in new:
                saved[token.value] += count * (len(token.value.removeprefix("##")) - 1)
    return sorted(saved, key=lambda piece: (-saved[piece], piece))[:free]


def assemble(vocabulary: Vocabulary, pieces: list[str]) -> Tokenizer:
    """Returns a Hugging Face tokenizer with these entries, in order of their ids."""
    tokenizer = Tokenizer(
        WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder(prefix="##", cleanup=True)
    special = pieces[: vocabulary.fixed - len(vocabulary.words)]
    tokenizer.add_special_tokens(
        [AddedToken(p, single_word=p not in SPECIAL_TOKENS, normalized=False) for p in special]
    )
    return tokenizer
