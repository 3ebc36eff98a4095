"""Learning the entries of a WordPiece vocabulary.

Single characters come first, each at the start of and inside a word: those seen in the texts, then ASCII letters, digits and
basic punctuation. Longer pieces get the remaining ids. They are byte-pair merges (https://arxiv.org/abs/1508.07909, as in the
tokenizers library); those that save the most tokens on the texts are kept, so that a small vocabulary has complete words
and not their intermediate merges. The order of the texts does not matter.
"""

import string
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from maskweave.errors import BadSample, MaskweaveError, shown
from maskweave.modality.checks import check_vocabulary
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.codec import SPECIAL_TOKENS

BASIC_PUNCTUATION = ".,!?'\"-:;()/&%"


def fixed_entries(vocabulary: Vocabulary) -> list[str]:
    """The entries before the learned pieces, in order of their ids.

    Raises:
        MaskweaveError: an entry is listed twice, or a word looks like an inner piece of another word.
    """
    entries = [*SPECIAL_TOKENS, *(f"[S_{n}]" for n in range(vocabulary.sentinels))]
    entries += [f"{prefix}={n}" for prefix, count in vocabulary.values.items() for n in range(count)]
    entries += vocabulary.words
    if len(set(entries)) < len(entries):
        twice = next(entry for entry, count in Counter(entries).items() if count > 1)
        raise MaskweaveError(f"vocabulary {vocabulary.name!r}: {shown(twice)} is listed twice; remove it from words")
    for word in vocabulary.words:
        if word.startswith("##") or word != word.strip() or not word:
            raise MaskweaveError(
                f"vocabulary {vocabulary.name!r}: {shown(word)} cannot be a word; a word must not be empty, start or end with a space, or start with '##'; change it"
            )
    return entries


def learn_entries(vocabulary: Vocabulary, texts: Iterable[str]) -> list[str]:
    """All entries in order of their ids: fixed entries, single characters, learned pieces.

    Raises:
        BadSample: an item of texts is not text.
        MaskweaveError: the vocabulary is not valid.
    """
    check_vocabulary(vocabulary, f"vocabulary {vocabulary.name!r}")
    texts = list(texts)
    counts = _word_counts(texts)
    fixed = fixed_entries(vocabulary)
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
