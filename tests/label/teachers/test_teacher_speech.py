"""Speech by a small Whisper whose tokens are forced, so that the transcripts are known."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import tiny_teachers  # noqa: E402
from teacher_helpers import asked, entries  # noqa: E402

from maskweave.errors import BadSample  # noqa: E402
from maskweave.label.teachers.opening import open_teacher  # noqa: E402

SOUND = {"kind": "grid", "grid": [4, 8], "value": {"type": "audio", "rate": 8000, "max_seconds": 40.96, "mels": 16, "window": 1024}}  # fmt: skip
TEXT = {"kind": "sequence", "vocabulary": "text", "max_tokens": 64, "value": {"type": "text"}}


class Forced(torch.nn.Module):
    """Logits of a transcript in place of a model's own: each token of it has `score` more than the others; then comes the end."""

    def __init__(self, ids: list[int], start: int, score: float, size: int, suppressed: int):
        super().__init__()
        self.ids, self.start, self.score, self.size, self.suppressed = ids, start, score, size, suppressed
        self.prompts: list[list[int]] = []

    def logits(self, input_ids: torch.Tensor, cached: int) -> torch.Tensor:
        """(1, T, V) for the tokens after `cached` others."""
        found = torch.zeros(*input_ids.shape, self.size)
        for place in range(input_ids.shape[1]):
            number = cached + place - self.start  # how many tokens of the transcript are known here
            found[0, place, self.ids[max(0, min(number, len(self.ids) - 1))]] = self.score
            found[0, place, self.suppressed] = self.score + 2  # never chosen, but as probable as it is
        return found


def forced(teacher: Any, text: str, score: float, monkeypatch: pytest.MonkeyPatch) -> Forced:
    """Makes a teacher's model write a text."""
    tokenizer, model = teacher.processor.tokenizer, teacher.model
    (suppressed,) = tokenizer.encode("!", add_special_tokens=False)
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    made = Forced(ids, 3, score, len(tokenizer), suppressed)
    forward = type(model).forward

    def instead(
        self: Any, *given: Any, decoder_input_ids: torch.Tensor, past_key_values: Any = None, **more: Any
    ) -> Any:
        cached = past_key_values.get_seq_length() if past_key_values is not None else 0
        out = forward(self, *given, decoder_input_ids=decoder_input_ids, past_key_values=past_key_values, **more)
        out.logits = made.logits(decoder_input_ids, cached)
        if cached == 0:
            made.prompts.append(decoder_input_ids[0].tolist())
            if decoder_input_ids.shape[1] == 1:  # the language is asked for
                out.logits[0, 0, tokenizer.convert_tokens_to_ids("<|en|>")] = 99
        return out

    monkeypatch.setattr(type(model), "forward", instead)
    return made


@pytest.fixture
def teacher(tmp_path: Path) -> Any:
    derive = {"from": "sound", "by": "teacher", "model": tiny_teachers.whisper(tmp_path / "whisper"), "task": "automatic-speech-recognition"}  # fmt: skip
    catalog = entries(sound=SOUND, label={**TEXT, "derive": derive})
    return open_teacher(catalog, catalog["label"], "cpu")


def sounds(teacher: Any, *seconds: float) -> list[Any]:
    rng = np.random.default_rng(0)
    return [teacher.source.value.check(rng.normal(0, 0.1, int(8000 * s)).astype(np.float32), "sound") for s in seconds]


def test_whisper_writes_its_transcript_and_how_sure_it_is(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = forced(teacher, "two  words ", 5.0, monkeypatch)
    labels = asked(teacher, sounds(teacher, 0.5, 2.0), "sound")
    probability = np.exp(5) / (np.exp(5) + np.exp(7) + made.size - 2)
    for label in labels:
        assert label.value == "two words"
        assert label.confidence == pytest.approx(probability, rel=1e-4)
    marks = teacher.processor.tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    )
    assert made.prompts == [marks[:1], marks] * 2, "the language is found, then the text is written"


def test_whisper_has_no_label_without_words_and_for_long_sounds(teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(teacher, "\n ", 5.0, monkeypatch)
    silent, long = asked(teacher, sounds(teacher, 0.5, 30.1), "sound")
    assert silent is None
    assert isinstance(long, BadSample) and "30.1 s; expected at most 30 s for this model; cut the sounds" in str(long)


def test_whisper_is_asked_without_warnings(
    teacher: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forced(teacher, "words", 5.0, monkeypatch)
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.addHandler(handler)
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    capfd.readouterr()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asked(teacher, sounds(teacher, 0.5, 0.5), "sound")
        assert told == [] and capfd.readouterr().err == ""
        assert logger.level == before, "others are still told"
    finally:
        logger.removeHandler(handler)
