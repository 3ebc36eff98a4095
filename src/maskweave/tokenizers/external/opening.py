"""Finds the files of a tokenizer that was trained elsewhere, and opens it with the class for its architecture."""

from pathlib import Path

from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_json_object
from maskweave.hub import folder_of
from maskweave.modality.entry import Modality
from maskweave.modality.external import ExternalSpec
from maskweave.provenance import LICENSE_FILES, Origin, origin_of
from maskweave.tokenizers.external.base import ExternalTokenizer
from maskweave.tokenizers.external.own import make_own
from maskweave.tokenizers.external.pictures import Emu3Tokenizer, JanusTokenizer, TiTokTokenizer, VQModelTokenizer
from maskweave.tokenizers.external.published import PublishedTokenizer
from maskweave.tokenizers.external.sounds import DacTokenizer, EncodecTokenizer, MimiTokenizer
from maskweave.tokenizers.external.titok import is_titok

ARCHITECTURES: dict[str, type[PublishedTokenizer]] = {
    "encodec": EncodecTokenizer,
    "dac": DacTokenizer,
    "mimi": MimiTokenizer,
    "janus_vqgan": JanusTokenizer,
    "emu3_vqgan": Emu3Tokenizer,
    "VQModel": VQModelTokenizer,
}
"""By `model_type`, or `_class_name` for diffusers, of `config.json`."""
CONFIG = "config.json"
INDEXES = "*.safetensors.index*.json"
"""Pattern of lists that say which file a weight is in; a variant has a name after `index`."""
FILES = (CONFIG, "*.safetensors", INDEXES)
"""Patterns of the files that are read and copied."""
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.jit", "*.th")
"""Patterns of weights that run code when they are read."""
ADAPTER = "adapter_config.json"
"""File from which transformers loads the weights of an adapter, from any place that it names, if peft is installed."""


def find_files(spec: ExternalSpec) -> Path:
    """Returns the folder of a published tokenizer; one on the Hub is downloaded.

    Raises:
        MaskweaveError: there is none.
    """
    inside = f"{spec.subfolder}/" if spec.subfolder else ""
    patterns = [*(inside + pattern for pattern in FILES), *LICENSE_FILES]
    return folder_of(spec.external, patterns, "a folder or Hub id of a published tokenizer")


def model_folder(spec: ExternalSpec) -> Path:
    """Returns the folder of the model itself, which must lie within that of the tokenizer.

    Raises:
        MaskweaveError: `subfolder` leads elsewhere.
    """
    root = find_files(spec)
    folder = root / spec.subfolder
    if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
        raise MaskweaveError(f"{spec.external}: has no folder {shown(spec.subfolder)}; correct tokenizer.subfolder")
    return folder


def _check_index(folder: Path, where: str) -> None:
    """Refuses lists of weights that name files outside the folder."""
    for path in sorted(folder.glob(INDEXES)):
        files = read_json_object(path).get("weight_map")
        if not isinstance(files, dict):
            raise MaskweaveError(f"{where}: {path.name} has no weight_map; expected the file of each weight")
        for file in files.values():
            if not (isinstance(file, str) and file == Path(file).name and (folder / file).is_file()):
                raise MaskweaveError(
                    f"{where}: {path.name} names the file {shown(file)}; expected names of safetensors files in the same folder"
                )


def open_published(modality: Modality, spec: ExternalSpec, folder: Path) -> PublishedTokenizer:
    """Opens the tokenizer in a folder.

    Raises:
        MaskweaveError: it is not a tokenizer of a known architecture, its weights are not safetensors, its library is missing, or the entry does not fit it.
    """
    where = f"{modality.name!r}: {spec.external}"
    known = "EnCodec, DAC, Mimi, Janus' and Emu3's VQ models, TiTok, or VQModel of diffusers"
    if not (folder / CONFIG).is_file():
        raise MaskweaveError(f"{where}: has no {CONFIG}; expected {known}")
    if (folder / ADAPTER).exists():
        raise MaskweaveError(
            f"{where}: has {ADAPTER}, so transformers would load an adapter into it; expected complete weights; merge the adapter into them and save them again, "
            "or remove the file if they are complete without it"
        )
    if not any(folder.glob("*.safetensors")):
        unsafe = sorted(path.name for pattern in UNSAFE for path in folder.glob(pattern))
        found = f"only {unsafe[0]}, and reading it can run code" if unsafe else "none"
        raise MaskweaveError(
            f"{where}: expected weights in the format safetensors, found {found}; convert them with the tokenizer's own library: save_pretrained(FOLDER)"
        )
    _check_index(folder, where)
    config = read_json_object(folder / CONFIG)
    if config.get("quantization_config") is not None:
        raise MaskweaveError(
            f"{where}: its {CONFIG} has quantization_config, which loads further libraries; expected unquantized weights; choose such a tokenizer, or remove the key if they are"
        )
    if is_titok(config):
        return TiTokTokenizer(modality, spec, folder)
    kind = config.get("model_type") or config.get("_class_name")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise MaskweaveError(
            f"{where}: is {shown(kind)}, which is not one of the tokenizers that can be opened; expected {known}, or code of your own, python: package.module:function"
        )
    return ARCHITECTURES[kind](modality, spec, folder)


def open_external(modality: Modality, spec: ExternalSpec, folder: Path | None = None) -> ExternalTokenizer:
    """Opens the tokenizer that an entry names.

    Args:
        folder: the copy of its files in a bundle; None: where the entry says.

    Raises:
        MaskweaveError: as `open_published` and `make_own`.
    """
    if spec.is_code:
        return make_own(modality, spec)
    return open_published(modality, spec, folder or model_folder(spec))


def origin_of_external(spec: ExternalSpec, part: str) -> Origin:
    """Returns where an entry's tokenizer comes from, with its license.

    Args:
        part: of the bundle, for the record.
    """
    return Origin(part, spec.external) if spec.is_code else origin_of(part, spec.external, find_files(spec))
