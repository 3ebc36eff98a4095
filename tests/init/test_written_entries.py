"""How long sequences may be, and how large the vocabulary is that they share."""

import pytest

from maskweave.init.entries import fit_vocabulary
from maskweave.init.finding import Finding


def texts(*lengths: int) -> Finding:
    """Texts of as many tokens, if no pieces are learned: single letters and their end."""
    letters = "qxzjvkwybpgfm"
    return Finding("note", len(lengths), type="text", max_tokens=1, texts=[letters[n % 13] * (n - 1) for n in lengths])


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "cut"),
    [
        ([2, 8], 8, 0),
        ([2, 9], 16, 0),
        ([2, 16], 16, 0),
        ([2, 128], 128, 0),
        ([129, *[9] * 99], 16, 1),  # of 100 texts, the 98th
        ([*[129] * 2, *[9] * 98], 16, 2),
        ([*[129] * 3, *[9] * 97], 128, 3),
        ([130] * 4, 128, 4),
    ],
)
def test_the_longest_sequence(lengths: list[int], max_tokens: int, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A multiple of 8, up to 128, of all texts, or if one is longer than 128 of 98% of them."""
    finding = texts(*lengths)
    monkeypatch.setattr("maskweave.init.entries.TextTokenizer", Letters)
    assert fit_vocabulary([finding]) is not None
    assert finding.max_tokens == max_tokens
    told = [f"{cut} of {len(lengths)} texts are longer than max_tokens {max_tokens} and are cut"] if cut else []
    assert [doubt.partition(";")[0] for doubt in finding.doubts] == told


class Letters:
    """A text tokenizer with a token for each letter, and one for the end."""

    @classmethod
    def train(cls, vocabulary: object, texts: list[str]) -> "Letters":
        return cls()

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[0] * (len(text) + 1) for text in texts]


def test_the_size_of_the_vocabulary() -> None:
    """4 special tokens, 24 sentinels, 256 bytes; then numbers, words, and two pieces for each different word, 64 to 2,000."""

    def size(*words: int, special: int = 0, own: int = 0) -> int | None:
        findings = [
            Finding(f"n{i}", 1, max_tokens=1, texts=[" ".join(f"w{j}" for j in range(n))] if n else [])
            for i, n in enumerate(words)
        ]
        findings[0].special, findings[0].words = {"v0": special} if special else {}, [f"own{i}" for i in range(own)]
        found = fit_vocabulary(findings)
        return found and found.size

    assert size(0) == 284 and size(1) == size(32) == 348 and size(33) == 350
    assert size(50, 60) == 404  # the shorter text's words are the first of the longer one's
    assert size(1200) == 2284 and size(0, special=10, own=3) == 297
    assert fit_vocabulary([Finding("photo", 1, type="image")]) is None


def test_the_name_of_the_vocabulary_is_free() -> None:
    findings = [Finding("text", 1, max_tokens=1, texts=["a"]), Finding("text_", 1, type="image")]
    assert (found := fit_vocabulary(findings)) is not None and found.name == "text__"
