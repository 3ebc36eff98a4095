"""Text tokenizer: the layout of ids, what text may become, training, files, and the published file."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.vocabulary import Vocabulary
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.codec import EOS, UNK

VOCABULARY = Vocabulary(
    "text", 320, sentinels=8, values={"v0": 64, "v1": 16}, words=("red cube", "zebra"), type="wordpiece"
)
TEXTS = [
    f"There {verb} {number} {size} {color} {shape}{'s' * (verb == 'are')} left of a cone, in front of it."
    for verb, number in (("is", "a"), ("are", "two"))
    for size in ("small", "large")
    for color in ("red", "green", "gray")
    for shape in ("cube", "sphere", "cylinder")
]


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.train(VOCABULARY, TEXTS)


@pytest.fixture(scope="module")
def published() -> TextTokenizer:
    file = Path(os.environ.get("MASKWEAVE_PARITY", "../shared/parity")) / "text_tokenizer_30k.json"
    if not file.exists():
        pytest.skip(f"the published tokenizer is not at {file}; set MASKWEAVE_PARITY to its folder")
    return TextTokenizer.load(file)


def test_ids_follow_the_layout(text):
    assert [text.piece(i) for i in range(4)] == ["[PAD]", "[UNK]", "[SOS]", "[EOS]"]
    assert text.sentinel(0) == 4 and text.piece(11) == "[S_7]"
    assert text.value("v0", 0) == 12 and text.value("v0", 63) == 75 and text.value("v1", 0) == 76
    assert text.word("red cube") == 92 and text.word("zebra") == 93
    assert text.as_value(77) == ("v1", 1) and text.as_value(92) is None and text.as_value(-1) is None
    assert text.as_word(92) == "red cube" and text.as_word(77) is None and text.as_word(10**9) is None
    assert text.tokenizer.get_vocab_size() <= VOCABULARY.size


@pytest.mark.parametrize("ids", [np.array([[3, 4], [11, 12]]), torch.tensor([[3, 4], [11, 12]])])
def test_sentinels_are_found_in_arrays_and_tensors(text, ids):
    assert text.is_sentinel(ids).tolist() == [[False, True], [True, False]]


def test_unknown_entries_name_the_vocabulary(text):
    for call in (
        lambda: text.word("blue cube"),
        lambda: text.word("v0=3"),
        lambda: text.word("[EOS]"),
        lambda: text.value("v0", 64),
        lambda: text.value("v2", 0),
        lambda: text.value("v0", -1),
        lambda: text.sentinel(8),
    ):
        with pytest.raises(MaskweaveError, match="vocabulary 'text'"):
            call()


@given(
    st.lists(
        st.sampled_from(["[S_1]", "v0=3", "[EOS]", "[PAD]", "red cube", "a", " ", "[UNK]", "v1=2", "cube", "[", "="]),
        max_size=12,
    )
)
def test_text_never_gives_special_ids(text, parts):
    ids = text.encode("".join(parts))
    assert ids[-1] == EOS and all(id == UNK or id >= text.word("zebra") for id in ids[:-1])


def test_a_word_with_a_space_is_only_looked_up_a_plain_one_is_met(text):
    assert text.word("red cube") not in text.encode("a red cube")
    assert text.encode("a zebra") == [text.word("a"), text.word("zebra"), EOS]


def test_decoding_is_readable_stops_at_the_end_and_drops_what_is_no_text(text):
    assert text.decode(text.encode("Two GRAY  spheres, left of (it)! don't")) == "two gray spheres, left of (it)! don't"
    ids = text.encode("a cube")
    assert text.decode([2, text.sentinel(1), text.value("v0", 3), *ids, *ids, -1, 10**9]) == "a cube"
    assert text.decode([-1, 10**9, *ids]) == "a cube"
    assert text.encode("") == [EOS] and text.decode([]) == text.decode([EOS]) == ""


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_what_was_decoded_encodes_to_the_same_ids(text, written):
    ids = text.encode(written)
    if UNK not in ids:
        assert text.encode(text.decode(ids)) == ids


def test_letters_digits_and_seen_characters_are_never_unknown():
    text = TextTokenizer.train(VOCABULARY, ["grün ångström 日本 straße"])
    assert UNK not in text.encode("Jumped over 123 quick-brown, foxes' (lazy) dogs: grun straße 日本")
    assert UNK in text.encode("Ω")


def test_a_small_vocabulary_holds_whole_words_not_the_steps_towards_them(text):
    assert all(len(text.encode(t)) <= 2 * len(t.split()) for t in TEXTS)
    assert text.encode("cylinder") == [text.word("cylinder"), EOS]
    assert "cylinde" not in text._entries


def test_training_depends_on_the_texts_not_on_their_order(text):
    again = TextTokenizer.train(VOCABULARY, reversed(TEXTS))
    assert again.tokenizer.to_str() == text.tokenizer.to_str()


def test_no_room_for_learned_pieces_is_no_error():
    full = dataclasses.replace(VOCABULARY, size=VOCABULARY.fixed)
    assert TextTokenizer.train(full, TEXTS).encode("red") == [UNK, EOS]
    few = TextTokenizer.train(dataclasses.replace(full, size=full.size + 3), TEXTS)
    assert few.tokenizer.get_vocab_size() == full.size + 3


@pytest.mark.parametrize("words", [("a b", "a b"), ("##s",), ("v0=1",), ("[PAD]",), (" a",), ("",)])
def test_words_that_cannot_be_told_apart_are_refused(words):
    with pytest.raises(MaskweaveError, match="vocabulary 'text'"):
        TextTokenizer.train(dataclasses.replace(VOCABULARY, words=words), TEXTS)


def test_what_is_not_text_is_refused(text):
    for bad in (3, None, b"a", ["a"], "lone \ud800"):
        with pytest.raises(BadSample, match="text"):
            text.encode(bad)
        with pytest.raises(BadSample, match="text"):
            TextTokenizer.train(VOCABULARY, [bad])


def test_saves_and_loads(text, tmp_path):
    text.save(tmp_path / "text")
    text.save(tmp_path / "text")  # takes the old one's place
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "text", "tokenizer.json"]
    loaded = TextTokenizer.load(tmp_path / "text")
    assert loaded.vocabulary == VOCABULARY
    for written in [*TEXTS, "a [S_1] v0=3 zebra red cube"]:
        assert loaded.encode(written) == text.encode(written)


def test_damaged_files_are_refused(text, tmp_path):
    text.save(tmp_path / "text")
    file, config = tmp_path / "text" / "tokenizer.json", tmp_path / "text" / "config.json"
    good, settings = file.read_text(encoding="utf-8"), json.loads(config.read_text(encoding="utf-8"))
    for content in ("{", "[]", "{}", json.dumps({**json.loads(good), "model": {"type": "WordPiece"}})):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(MaskweaveError, match=r"tokenizer\.json"):
            TextTokenizer.load(tmp_path / "text")
    file.write_text(good, encoding="utf-8")
    for wrong in ({"sentinels": 9}, {"size": 200}, {"words": ["red cube", "horse"]}, {"values": {"v0": 80}}):
        config.write_text(json.dumps({**settings, **wrong}), encoding="utf-8")
        with pytest.raises(MaskweaveError, match="train it again"):
            TextTokenizer.load(tmp_path / "text")
    config.unlink()
    with pytest.raises(MaskweaveError, match=r"config\.json"):
        TextTokenizer.load(tmp_path / "text")
    with pytest.raises(MaskweaveError, match="no such file"):
        TextTokenizer.load(tmp_path / "nothing")


def test_reads_the_published_file(published, tmp_path):
    v = published.vocabulary
    assert (v.size, v.sentinels, v.values) == (30000, 200, dict.fromkeys(("v0", "v1", "v2", "v3"), 1000))
    assert len(v.words) == 80 and published.word("wine glass") == 4282
    assert published.sentinel(199) == 203 and published.value("v3", 999) == 4203
    assert published.encode("A red cube left of a zebra") == [4321, 5135, 12798, 6207, 4925, 4321, 4283, EOS]
    # Its words are declared to be met in text, as its captions were written.
    assert published.encode("a hot dog") == [4321, published.word("hot dog"), EOS]
    assert min(published.encode("v0=3 [S_1] [EOS]")[:-1]) > 4203
    published.save(tmp_path / "text")
    again = TextTokenizer.load(tmp_path / "text")
    assert again.vocabulary == v and again.encode("two hot dogs, a hot dog") == published.encode(
        "two hot dogs, a hot dog"
    )


def test_published_text_is_encoded_as_the_file_says(published):
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(
        str(Path(os.environ.get("MASKWEAVE_PARITY", "../shared/parity")) / "text_tokenizer_30k.json")
    )
    for written in (*TEXTS, "Café naïve; a TEDDY BEAR on the couch", "traffic lights, 3000 people 🙂"):
        assert published.encode(written) == [*plain.encode(written).ids, EOS]


def test_places_are_alike_where_tokens_are(text):
    embeddings = torch.nn.functional.normalize(text.token_embeddings, dim=1)
    assert text.token_embeddings.shape[0] == VOCABULARY.size and torch.equal(
        text.token_embeddings, text.token_embeddings
    )

    def likeness(a: int, b: int) -> float:
        return float(embeddings[a] @ embeddings[b])

    near, far = (likeness(text.value("v0", 10), text.value("v0", n)) for n in (11, 40))
    assert near > 0.9 > far
    word, red = text.word("red cube"), text.encode("red")[0]
    assert likeness(word, red) > 0.4 > abs(likeness(word, text.encode("small")[0]))
