"""Opens the teacher of an entry: by its `derive.by`, and for networks by `model` and `task`."""

from maskweave.errors import MaskweaveError, shown
from maskweave.label.teachers.agreement import Agreement
from maskweave.label.teachers.base import TaskTeacher
from maskweave.label.teachers.dense import DepthTeacher, PanopticTeacher, SemanticTeacher
from maskweave.label.teachers.embeddings import EmbeddingTeacher
from maskweave.label.teachers.function import FunctionTeacher
from maskweave.label.teachers.language import CaptionTeacher, TextEmbeddingTeacher
from maskweave.label.teachers.normals import NormalsOfDepth
from maskweave.label.teachers.objects import DetectionTeacher, InstanceTeacher
from maskweave.label.teachers.onnx import OnnxTeacher
from maskweave.label.teachers.pose import PoseTeacher
from maskweave.label.teachers.sam import MaskTeacher
from maskweave.label.teachers.speech import SoundEmbeddingTeacher, SpeechTeacher
from maskweave.label.teachers.transformers import TransformersTeacher
from maskweave.modality.catalogs import Catalog
from maskweave.modality.derivation import AgreementDerivation, NormalsDerivation, TeacherDerivation
from maskweave.modality.entry import Modality
from maskweave.permission import PYTHON, check_code_allowed
from maskweave.training.distributed import local_device

TASKS: dict[str, type[TransformersTeacher]] = {
    "depth-estimation": DepthTeacher,
    "semantic-segmentation": SemanticTeacher,
    "panoptic-segmentation": PanopticTeacher,
    "object-detection": DetectionTeacher,
    "instance-segmentation": InstanceTeacher,
    "mask-generation": MaskTeacher,
    "pose-estimation": PoseTeacher,
    "image-to-text": CaptionTeacher,
    "text-embedding": TextEmbeddingTeacher,
    "image-feature-extraction": EmbeddingTeacher,
    "automatic-speech-recognition": SpeechTeacher,
    "audio-feature-extraction": SoundEmbeddingTeacher,
}
"""Tasks of models of the transformers library; those that pipelines know have their names."""


def open_teacher(catalog: Catalog, entry: Modality, device: str = "auto") -> TaskTeacher:
    """Opens what computes an entry's values.

    Raises:
        MaskweaveError: the model cannot be opened or is code that is not allowed to run, the task is unknown, or the entry cannot hold the labels.
    """
    settings = entry.derive
    if isinstance(settings, AgreementDerivation):
        return Agreement(settings, entry, catalog[settings.source], catalog[settings.other])
    if isinstance(settings, NormalsDerivation):
        return NormalsOfDepth(settings, entry, catalog[settings.source])
    assert isinstance(settings, TeacherDerivation)
    if settings.model.startswith(PYTHON):
        check_code_allowed(f"{entry.name!r}: its teacher", settings.model)
        return FunctionTeacher(settings, entry)
    if settings.model.endswith(".onnx"):
        return OnnxTeacher(settings, entry, catalog[settings.source], local_device(device))
    if settings.task not in TASKS:
        raise MaskweaveError(
            f"{entry.name!r}: unknown derive.task {shown(settings.task)}; expected one of {', '.join(TASKS)}"
        )
    return TASKS[settings.task](settings, entry, catalog[settings.source], local_device(device))
