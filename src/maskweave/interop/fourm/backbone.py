"""The encoder of a published 4M model as a plain ViT. It may be published separately or as part of a complete model."""

import os

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError
from maskweave.interop.fourm.model import CATALOG, StoredTensor, encoder_blocks, model_config, read, take
from maskweave.interop.published import Tensors, locate
from maskweave.modality.catalogs import Catalog
from maskweave.models.backbone import Backbone
from maskweave.nn.layers import sine_cosine, without_memory


@check_arguments
def load_backbone(
    folder_or_hub_id: str | os.PathLike[str], catalog: str | os.PathLike[str] | Catalog = CATALOG
) -> Backbone:
    """Load the encoder of a published model with pictures as input, in evaluation mode.

    Args:
        catalog: must have an entry for each of the model's modalities.

    Raises:
        MaskweaveError: the model has no pictures as input, or as in `load_model`.
    """
    folder = locate(folder_or_hub_id)
    _, config, chosen = read(folder, catalog)
    patches = [m for m in chosen.values() if m.kind == "patches"]
    if not patches:
        raise MaskweaveError(
            f"{folder / 'config.json'}: domains_in has no modality of kind patches ({', '.join(chosen)}), so the model has no encoder of pictures; use another checkpoint"
        )
    modality = patches[0]
    with without_memory():
        backbone = Backbone(modality, model_config(config, folder / "config.json"))
    D = backbone.config.width
    backbone.positions = sine_cosine(modality.grid, D)
    tensors = Tensors(folder)
    published = f"encoder_embeddings.{modality.name}"
    stored = [
        StoredTensor(f"{published}.proj.weight", (D, modality.row_width), ("patches.weight",)),
        StoredTensor(f"{published}.mod_emb", (1, 1, D), ("embedding",)),
        StoredTensor(f"{published}.pos_emb", (1, modality.tokens, D), value=backbone.positions[None]),
        *encoder_blocks(backbone.config),
    ]
    if backbone.registers is not None:
        stored.append(StoredTensor("register_tokens", tuple(backbone.registers.shape), ("registers",)))
    state, _ = take(tensors, stored, backbone)
    tensors.left = {name: t for name, t in tensors.left.items() if not _is_unused(name)}
    tensors.finish()
    backbone.load_state_dict(state, assign=True)
    return backbone.eval()


def _is_unused(name: str) -> bool:
    """Whether a tensor belongs to other inputs or to the decoder."""
    return name == "mask_token" or name.startswith(("encoder_embeddings.", "decoder"))
