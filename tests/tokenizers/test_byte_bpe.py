"""Byte-level vocabularies: any text is restored exactly, special ids stay special, and what a model generates can always be decoded."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import catalog_from, load_catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import NUM_BYTES, Vocabulary
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.tokenizers.text_losses import text_losses
from maskweave.values.codec import EOS, UNK
from maskweave.values.text import Text

WORDS = ("red cube", "zebra", "naïve", "a", "Ã¯")
VOCABULARY = Vocabulary("text", 700, sentinels=8, values={"v0": 64, "v1": 16}, words=WORDS)
TEXTS = [
    *("A red cube of Größe 3.14,  and\r\n\ta zebra 日本 日本語 🙂🙂 naïve",) * 3,
    *("[EOS] v0=3 [S_1] v0=3 [EOS]", "a red cube left of a zebra", "don't") * 4,
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.train(VOCABULARY, TEXTS)


@given(ANY_TEXT)
@example("3.14  two spaces\r\n\nÉcole e\u0301 İstanbul ß 😀👩‍👩‍👧 日本語 \u00a0\u2028\ufeff\ufffd\0")
@example("[EOS] [PAD] v0=3 [S_1] red cube")
def test_any_text_is_restored_exactly(text, written):
    ids = text.encode(written)
    assert text.decode(ids) == written
    assert UNK not in ids and min(ids[:-1], default=999) >= text.word("red cube"), "text never gives special ids"


def test_it_is_the_default_and_the_shipped_catalogs_of_published_results_say_wordpiece():
    assert Vocabulary("text", 600).type == load_catalog("photos").vocabularies["text"].type == "byte_bpe"
    for name in ("4m", "4m-7", "4m-21", "scenes", "scenes-global", "scenes-128", "captioned", "emoji"):
        assert load_catalog(name).vocabularies["text"].type == "wordpiece", name


def test_ids_follow_the_layout(text):
    assert text.sentinel(0) == 4 and text.value("v0", 0) == 12 and text.as_value(77) == ("v1", 1)
    assert [text.word(name) for name in WORDS] == [92, 93, 94, 95, 96] and text.as_word(92) == "red cube"
    assert [text.piece(id) for id in (0, 4, 12, 94, 96)] == ["[PAD]", "[S_0]", "v0=0", "naïve", "Ã¯"]
    assert text.decode([92, 94, 96]) == "red cubenaïveÃ¯"
    assert text.tokenizer.get_vocab_size() <= VOCABULARY.size
    for missing in (
        "green cube",
        "ï",
    ):  # the bytes of ï are not the word of the two characters that files write them as
        with pytest.raises(MaskweaveError, match=f"has no entry for '{missing}'"):
            text.word(missing)


def test_pieces_are_words_with_their_space_and_common_characters(text):
    assert [text.piece(id) for id in text.encode("a red cube 日本語")] == ["a", " red", " cube", " 日本語", "[EOS]"]


def test_training_depends_on_the_texts_not_on_their_order(text):
    assert TextTokenizer.train(VOCABULARY, reversed(TEXTS)).tokenizer.to_str() == text.tokenizer.to_str()


def test_a_vocabulary_is_filled_but_never_overfull():
    full = dataclasses.replace(VOCABULARY, size=VOCABULARY.fixed + NUM_BYTES)
    few = dataclasses.replace(full, size=full.size + 3)
    for vocabulary, pieces in ((full, 0), (few, 3)):
        trained = TextTokenizer.train(vocabulary, TEXTS)
        assert trained.decode(trained.encode("Größe 🙂")) == "Größe 🙂"
        # The bytes of the word "a" need no further id, so one more piece is learned.
        assert trained.tokenizer.get_vocab_size() == vocabulary.size and len(trained.encode(" red")) > 1 - pieces
    with pytest.raises(MaskweaveError, match=f"take 97 ids and single bytes 256, .* size to at least {full.size}$"):
        TextTokenizer.train(dataclasses.replace(full, size=full.size - 1), TEXTS)


def test_bytes_of_characters_are_joined_and_invalid_ones_replaced(text):
    rocket = text.encode("🚀")[:-1]
    assert len(rocket) > 1 and text.decode(rocket) == "🚀"
    assert text.decode([*text.encode("a")[:-1], *rocket[:-1], *text.encode("b")]) == "a\ufffdb"
    assert set(text.decode(reversed(rocket))) == {"\ufffd"}
    assert text.decode([2, text.sentinel(1), rocket[0], text.value("v0", 3), *rocket[1:], EOS, 99]) == "🚀"


@given(st.lists(st.integers(-5, VOCABULARY.size + 5), max_size=30))
def test_any_ids_decode_to_a_valid_value(text, ids):
    value = Text()
    tokenizer = SequenceTokenizer(Modality("caption", 1, "sequence", value, max_tokens=64, vocabulary="text"), text)
    (decoded,) = tokenizer.decode_with_problems([ids])
    assert value.check(decoded.value, "decoded") == decoded.value


@given(ANY_TEXT, st.integers(2, 20))
def test_a_text_is_cut_between_characters(text, written, most):
    ids = text.encode(written)
    cut = text.cut(ids, most)
    assert len(cut) <= most and cut[-1] == EOS and written.startswith(text.decode(cut))
    assert cut == ids or len(cut) > most - 4


def test_saves_and_loads_and_tells_the_types_apart(text, tmp_path):
    text.save(tmp_path / "text")
    loaded = TextTokenizer.load(tmp_path / "text")
    assert loaded.vocabulary == VOCABULARY and loaded.encode("Größe 🙂") == text.encode("Größe 🙂")
    with pytest.raises(MaskweaveError, match="type is 'byte_bpe', expected 'wordpiece'"):
        loaded.require(dataclasses.replace(VOCABULARY, type="wordpiece"), "f.json")
    plain = dataclasses.replace(VOCABULARY, words=())
    TextTokenizer.train(plain, TEXTS).save(tmp_path / "plain")
    alone = TextTokenizer.load(tmp_path / "plain" / "tokenizer.json")
    assert alone.vocabulary.type == "byte_bpe" and alone.decode(alone.encode("É")) == "É"


def test_files_without_all_bytes_are_refused(text, tmp_path):
    text.save(tmp_path / "text")
    file = tmp_path / "text" / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["merges"] = []
    del content["model"]["vocab"]["Ġ"]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="has changed since it was made"):
        TextTokenizer.load(tmp_path / "text")
    config = tmp_path / "text" / "config.json"
    older = json.loads(config.read_text(encoding="utf-8"))
    del older["fingerprint"]
    config.write_text(json.dumps(older), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="does not have all single bytes; train it again"):
        TextTokenizer.load(tmp_path / "text")


def test_files_of_versions_that_had_only_wordpiece_stay_wordpiece(tmp_path):
    old = dataclasses.replace(VOCABULARY, type="wordpiece")
    TextTokenizer.train(old, TEXTS).save(tmp_path / "text")
    config = tmp_path / "text" / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    del content["type"]
    config.write_text(json.dumps(content), encoding="utf-8")
    assert TextTokenizer.load(tmp_path / "text").vocabulary == old

    entry = {"id": 1, "kind": "sequence", "vocabulary": "text", "max_tokens": 9, "value": {"type": "text"}}
    saved = {"vocabularies": {"text": {"size": 700, "sentinels": 8, "values": {}, "words": []}}}
    for name, type in (("modalities.yaml", "wordpiece"), ("own.yaml", "byte_bpe")):
        catalog = catalog_from({**saved, "modalities": {"caption": entry}}, str(Path("run") / name))
        assert catalog.vocabularies["text"].type == type
    short = {"vocabularies": {"text": {"size": 700}}, "modalities": {"caption": entry}}
    assert catalog_from(short, "modalities.yaml").vocabularies["text"].type == "byte_bpe"


def test_words_are_found_in_a_text_also_in_scripts_without_spaces(text):
    def found(written: str, part: str) -> str:
        ids = text.encode(written)[:-1]
        return text.decode([id for id, hit in zip(ids, text.find(ids, part), strict=True) if hit])

    assert found("a red cube, reddish and red", "red") == " red red"
    assert found("a red cube", "red cube") == " red cube"
    assert "本" in found("日本語", "本"), "a piece may hold bytes of the next character, too"
    assert found("学校と学生", "学") == "学学"
    assert found("a red cube", "green") == ""


def test_words_and_gaps_for_figures(text):
    ids = text.encode("A Größe, red cubes")
    assert [word for word, _ in text.words(ids) if word] == ["A", "Größe", ",", "red", "cubes"]
    assert sorted(p for _, positions in text.words(ids) for p in positions) == list(range(len(ids) - 1))
    ids = text.encode("a red cube left")
    assert text.decode_with_gaps(ids, [False, True, False, False, False], "_") == "a _ cube left"
    assert text.decode_with_gaps(ids, [True, False, False, True, True], "_") == "_ red cube _ _"


def test_places_are_alike_where_tokens_are(text):
    places = torch.nn.functional.normalize(text.token_embeddings, dim=1)
    word, (red, cube) = text.word("red cube"), text.encode(" red cube")[:-1]
    assert min(places[word] @ places[red], places[word] @ places[cube]) > 0.4


def test_what_is_lost_is_told_with_examples():
    texts = ["a red cube", "Größe 3.14", "A", "a red cube of a red cube"]
    lossy = dataclasses.replace(VOCABULARY, type="wordpiece")
    entry = Modality("caption", 1, "sequence", Text(), max_tokens=6, vocabulary="text")
    told = [
        text_losses(SequenceTokenizer(entry, TextTokenizer.train(vocabulary, ["a red cube of"] * 9)), texts)
        for vocabulary in (lossy, VOCABULARY)
    ]
    changed, cut = told[0]
    assert "caption: 50% of 4 texts are not restored exactly by the vocabulary 'text' of type 'wordpiece'" in changed
    assert "'A' becomes 'a'" in changed and "type 'byte_bpe' restores any text" in changed
    assert "'a red cube of a red cube' has 8 tokens" in cut and "raise max_tokens" in cut
    assert len(told[1]) == 1 and "are longer than max_tokens 6 and are cut: 'Größe 3.14' has" in told[1][0]
    assert text_losses(SequenceTokenizer(entry, TextTokenizer.train(VOCABULARY, texts)), ["A"]) == []
