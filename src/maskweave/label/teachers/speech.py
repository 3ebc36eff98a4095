"""Teachers that hear: speech recognition, and features of sounds."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import BadSample
from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.transformers import TransformersTeacher
from maskweave.values.base import ValueType
from maskweave.values.sound import resampled
from maskweave.values.text import Text
from maskweave.values.vector import Vector
from maskweave.values.vectors import Vectors

WHISPER_SECONDS = 30.0
"""Longest sound that sequence-to-sequence models take at once; longer ones cannot be labeled."""


class SoundTeacher(TransformersTeacher):
    """A model that is called with waveforms, one at a time."""

    reads = "sounds"

    def waveform(self, sample: Sample) -> np.ndarray:
        """The sound, float32 (samples,), at the model's rate."""
        sound, extractor = sample[self.source.name], getattr(self.processor, "feature_extractor", self.processor)
        self.rate: int = extractor.sampling_rate
        return resampled(sound.waveform, sound.rate, self.rate, self.source.name)

    def inputs(self, waveform: np.ndarray) -> dict[str, Any]:
        found = self.processor(waveform, sampling_rate=self.rate, return_tensors="pt")
        return {name: value.to(self.device) for name, value in found.items()}


class SpeechTeacher(SoundTeacher):
    """`automatic-speech-recognition`: the text that is spoken. CTC models (Wav2Vec2) take sounds of any length, others (Whisper) up to 30 seconds. The
    confidence is the geometric mean of the probabilities of the frames (CTC) or tokens. A sound without words has no label."""

    auto_classes = ("AutoModelForCTC", "AutoModelForSpeechSeq2Seq")
    processor_class = "AutoProcessor"
    values: ClassVar[tuple[type[ValueType], ...]] = (Text,)

    def prepare(self) -> None:
        self.is_ctc = "ForCTC" in type(self.model).__name__
        known = getattr(self.model, "generation_config", None)
        is_multilingual = getattr(known, "is_multilingual", False) and hasattr(known, "task_to_id")
        self.task = {"task": "transcribe"} if is_multilingual else {}  # Whisper could also translate

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel | BadSample | None]:
        return [self._label(self.waveform(sample)) for sample in samples]

    def _label(self, waveform: np.ndarray) -> TeacherLabel | BadSample | None:
        if not self.is_ctc and len(waveform) > WHISPER_SECONDS * self.rate:
            return BadSample(
                f"{self.source.name}: {len(waveform) / self.rate:.1f} s; expected at most {WHISPER_SECONDS:g} s for this model; cut the sounds"
            )
        inputs = self.inputs(waveform)
        if self.is_ctc:
            with self.compute():
                logits_TV = self.model(**inputs).logits[0].float()
            ids_T = logits_TV.argmax(-1)
        else:
            output = self.generate(inputs, **self.task)
            logits_TV = torch.cat(output.logits).float()
            ids_T = output.sequences[0, -len(logits_TV) :]
        sure = logits_TV.log_softmax(-1).gather(-1, ids_T[:, None]).mean().exp()
        text = " ".join(self._text(ids_T).split())
        return TeacherLabel(text, float(sure)) if text else None

    def _text(self, ids_T: Tensor) -> str:
        if not self.is_ctc:
            return self.processor.decode(ids_T, skip_special_tokens=True)
        tokenizer = self.processor.tokenizer
        # Padding tokens tell repeated letters apart, so special tokens become padding instead of being skipped.
        space = getattr(tokenizer, "word_delimiter_token_id", None)
        special = torch.isin(ids_T.cpu(), torch.tensor([id for id in tokenizer.all_special_ids if id != space]))
        return self.processor.decode(torch.where(special, tokenizer.pad_token_id, ids_T.cpu()))


class SoundEmbeddingTeacher(SoundTeacher):
    """`audio-feature-extraction`: the last layer of a model of sounds. For entries of type `vectors`, a vector for each frame, at most `max_tokens` of the
    entry; for `vector`, their mean."""

    auto_classes = ("AutoModel",)
    processor_class = "AutoFeatureExtractor"
    values: ClassVar[tuple[type[ValueType], ...]] = (Vector, Vectors)

    def prepare(self) -> None:
        self.cut = 0
        self.check_width(self.model.config.hidden_size)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        return [TeacherLabel(self._value(self.waveform(sample))) for sample in samples]

    def _value(self, waveform: np.ndarray) -> np.ndarray:
        with self.compute():
            vectors_TD = self.model(**self.inputs(waveform)).last_hidden_state[0].float().cpu().numpy()
        if not isinstance(self.entry.value, Vectors):
            return vectors_TD.mean(0)
        if len(vectors_TD) > self.entry.max_tokens:
            self.cut += 1
            self.notes = [f"{self.cut} sounds of more than {self.entry.max_tokens} frames are cut"]
        return vectors_TD[: self.entry.max_tokens]
