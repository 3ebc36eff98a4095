"""Teachers of text: captions of pictures, and embeddings of texts."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from maskweave.generate.request import Sample
from maskweave.label.teachers.base import TeacherLabel
from maskweave.label.teachers.transformers import TransformersTeacher
from maskweave.values.base import ValueType
from maskweave.values.text import Text
from maskweave.values.vector import Vector
from maskweave.values.vectors import Vectors


class CaptionTeacher(TransformersTeacher):
    """`image-to-text`: a text about each picture, of the most probable words. The confidence is the geometric mean of their probabilities.

    Options: `prompt` (the question of models that take one), `max_new_tokens` (64).
    """

    auto_classes = ("AutoModelForImageTextToText",)
    processor_class = "AutoProcessor"
    values: ClassVar[tuple[type[ValueType], ...]] = (Text,)

    def prepare(self) -> None:
        self.prompt = self.option("prompt", "")
        self.max_new_tokens = self.option("max_new_tokens", 64)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel | None]:
        found: dict[int, TeacherLabel | None] = {}
        for numbers, inputs in self.groups([self._inputs(picture) for picture in self.pictures(samples)]):
            output = self.generate(inputs, max_new_tokens=self.max_new_tokens)
            new_BT = output.sequences[:, -len(output.logits) :] if output.logits else output.sequences[:, :0]
            logp_BTV = torch.stack(output.logits, dim=1).float().log_softmax(-1)
            logp_BT = logp_BTV.gather(-1, new_BT[..., None])[..., 0]
            texts = self.processor.batch_decode(new_BT, skip_special_tokens=True)
            for i, text, ids_T, logp_T in zip(numbers, texts, new_BT, logp_BT, strict=True):
                text = " ".join(text.split())
                found[i] = TeacherLabel(text, float(logp_T[: self._length(ids_T)].mean().exp())) if text else None
        return [found[i] for i in range(len(samples))]

    def _inputs(self, picture: Any) -> Any:
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image", "image": picture}, {"type": "text", "text": self.prompt or "Describe this picture in one sentence."}]  # fmt: skip
            return self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        text = {"text": self.prompt} if self.prompt else {}
        return self.processor(images=picture, return_tensors="pt", **text)

    def _length(self, ids_T: torch.Tensor) -> int:
        """Tokens up to the first end token, included; what follows is padding."""
        ends = self.model.generation_config.eos_token_id
        for n, id in enumerate(ids_T.tolist(), 1):
            if id in (ends if isinstance(ends, list) else [ends]):
                return n
        return len(ids_T)


class TextEmbeddingTeacher(TransformersTeacher):
    """`text-embedding`: the last layer of a text encoder such as T5. For entries of type `vectors`, a vector for each token, at most `max_tokens` of the
    entry; for `vector`, their mean. Texts that are longer than the encoder takes are cut."""

    auto_classes = ("AutoModelForTextEncoding",)
    processor_class = "AutoTokenizer"
    reads = "text"
    values: ClassVar[tuple[type[ValueType], ...]] = (Vector, Vectors)

    def prepare(self) -> None:
        limits = (
            self.entry.max_tokens,
            self.processor.model_max_length,
            getattr(self.model.config, "max_position_embeddings", None),
        )
        self.most = min(limit for limit in limits if limit)
        self.cut = 0
        self.check_width(self.model.config.hidden_size)

    @torch.inference_mode()
    def __call__(self, samples: Sequence[Sample]) -> list[TeacherLabel]:
        found: dict[int, TeacherLabel] = {}
        for numbers, inputs in self.groups([self._inputs(sample[self.source.name]) for sample in samples]):
            with self.compute():
                vectors_BTD = self.model(**inputs).last_hidden_state.float().cpu().numpy()
            for i, value_TD in zip(numbers, vectors_BTD, strict=True):
                found[i] = TeacherLabel(value_TD if isinstance(self.entry.value, Vectors) else value_TD.mean(0))
        return [found[i] for i in range(len(samples))]

    def _inputs(self, text: str) -> Any:
        whole = self.processor(text, return_tensors="pt")
        if whole["input_ids"].shape[1] <= self.most:
            return whole
        self.cut += 1
        self.notes = [f"{self.cut} texts of more than {self.most} tokens are cut"]
        return self.processor(text, return_tensors="pt", truncation=True, max_length=self.most)
