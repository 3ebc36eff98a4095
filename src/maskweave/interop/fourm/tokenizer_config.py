"""Converts the configuration of a published 4M tokenizer to our `TokenizerSpec`: ViT encoders with ViT or diffusion decoders, and MLPs."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maskweave.config import build
from maskweave.errors import MaskweaveError, shown
from maskweave.interop.published import Tensors, defaults, read_config
from maskweave.modality.tokenizer import Diffusion, Quantizer, TokenizerSpec
from maskweave.tokenizers.grid import GridTokenizer


class ViTSize(NamedTuple):
    """Size of a published ViT."""

    width: int
    heads: int
    depth: int


VIT = {"vit_s": ViTSize(512, 8, 8), "vit_b": ViTSize(768, 12, 12), "vit_l": ViTSize(1024, 16, 24)}
MLP = re.compile(r"BottleneckMLP/B_(\d+)-Wi_(\d+)")
UNET = "unet_patched"
SCHEDULE = re.compile(r"(linear)|(cosine|squaredcos_cap_v2)|shifted_cosine:(\d+\.?\d*|\.\d+)")
UNET_SIZE = Diffusion()
MOST = {
    "n_channels": 2**16, "codebook_size": 2**18, "latent_dim": 2**13, "num_codebooks": 2**10, "n_labels": 2**16,
    "num_train_timesteps": 2**16, "ddim_steps": 2**16,
}  # fmt: skip
"""Largest allowed values: typos fail before anything is allocated."""
MOST_PIXELS = 2**13
"""Largest side of a picture."""
MOST_BLOCKS, MOST_WIDTH = 2**10, 2**15
IMAGE_BLOCKS = 2
"""Number of blocks of `out_conv`."""


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The keys of a published configuration that define the architecture. None: absent."""

    enc_type: str
    dec_type: str
    n_channels: int
    """Channels of the values; with `n_labels`, width of the class embedding."""
    codebook_size: int
    latent_dim: int
    image_size: tuple[int, int] = (224, 224)
    image_size_enc: tuple[int, int] | None = None
    image_size_dec: tuple[int, int] | None = None
    patch_size: tuple[int, int] = (16, 16)
    quant_type: Literal["lucid", "memcodes"] = "lucid"
    norm_codes: bool = False
    num_codebooks: int = 1
    n_labels: int | None = None
    patch_proj: bool = True
    """False: the values are feature maps, with one token for each point."""
    post_mlp: bool | None = None
    """None: inferred from the tensors."""
    out_conv: bool | None = None
    """None: inferred from the tensors."""
    prediction_type: Literal["sample", "epsilon", "v_prediction"] | None = None
    beta_schedule: str | None = None
    num_train_timesteps: int | None = None
    zero_terminal_snr: bool | None = None
    clip_sample: bool | None = None
    thresholding: bool | None = None
    ddim_steps: int | None = None
    conditioning: Literal["concat"] | None = None
    """How the denoiser is conditioned on the codes."""

    @property
    def grid(self) -> tuple[int, int]:
        (height, width), (rows, columns) = self.image_size, self.patch_size
        return height // rows, width // columns


FIELDS = defaults(TokenizerConfig)
DIFFUSION = ("prediction_type", "beta_schedule", "num_train_timesteps", "zero_terminal_snr", "clip_sample", "thresholding", "ddim_steps", "conditioning")  # fmt: skip
TRAINING = (
    "sync_codebook", "ema_decay", "threshold_ema_dead_code", "coef_ema_dead_code", "code_replacement_policy", "dead_code_batches",
    "commitment_weight", "kmeans_init", "kmeans_iters", "norm_latents", "scheduler", "loss_fn", "loss_fns", "percept_loss_weight",
    "undo_std", "freeze_enc", "input_size_min", "input_size_max", "resolution_step", "cls_free_guidance_dropout", "masked_cfg",
    "masked_cfg_low", "masked_cfg_high",
)  # fmt: skip
"""Keys that are only for training; they are kept for export."""


def read_tokenizer_config(folder: Path) -> tuple[dict[str, Any], TokenizerConfig]:
    """Returns the configuration as written and as a checked `TokenizerConfig`.

    Raises:
        MaskweaveError: the file is missing or damaged, or keys are missing, unknown or contradictory.
    """
    where = str(folder / "config.json")
    written = read_config(folder, FIELDS | dict.fromkeys(TRAINING), "a 4M tokenizer").written
    content = {key: value for key, value in written.items() if key in FIELDS}
    for key in ("image_size", "image_size_enc", "image_size_dec", "patch_size"):
        if isinstance(content.get(key), int):
            content[key] = [content[key]] * 2
    config = build(TokenizerConfig, content, where)
    if faults := [*_faults(config)]:
        raise MaskweaveError(f"{where}: {'; '.join(faults)}")
    return written, config


def _faults(c: TokenizerConfig) -> Iterator[str]:
    """Invalid and contradictory values of a configuration."""
    is_mlp, is_unet = bool(MLP.fullmatch(c.enc_type)), c.dec_type == UNET
    mlp = "BottleneckMLP/B_DEPTH-Wi_WIDTH"
    if not is_mlp and c.enc_type not in (encoders := [f"{name}_enc" for name in VIT]):
        yield f"enc_type is {shown(c.enc_type)}, expected one of {', '.join([*encoders, mlp])}"
    decoders = [mlp] if is_mlp else [*(f"{name}_dec" for name in VIT), UNET]
    if not (MLP.fullmatch(c.dec_type) if is_mlp else c.dec_type in decoders):
        yield f"dec_type is {shown(c.dec_type)}, expected for this encoder: {', '.join(decoders)}"
    for key in ("enc_type", "dec_type"):
        if (found := MLP.fullmatch(getattr(c, key))) and (int(found[1]) > MOST_BLOCKS or int(found[2]) > MOST_WIDTH):
            yield f"{key} is {shown(found[0])}, expected at most B_{MOST_BLOCKS} and Wi_{MOST_WIDTH}"
    for key, most in MOST.items():
        if (number := getattr(c, key)) is not None and not 1 <= number <= most:
            yield f"{key} is {number}, expected 1 to {most}"
    sizes = [*zip(c.image_size, c.patch_size, strict=True)]
    if not is_mlp and any(patch < 1 or not patch <= size <= MOST_PIXELS or size % patch for size, patch in sizes):
        yield f"image_size is {c.image_size}, expected a multiple of patch_size {c.patch_size}, at most {MOST_PIXELS}"
    for key in ("image_size_enc", "image_size_dec"):
        if getattr(c, key) not in (None, c.image_size):
            yield f"{key} is {getattr(c, key)}, expected image_size {c.image_size}"
    if c.quant_type == "lucid" and not c.norm_codes:
        yield "norm_codes is false, expected true: the codes of quant_type 'lucid' are compared by cosine"
    if c.num_codebooks > 1 and not (is_mlp and c.quant_type == "memcodes"):
        yield f"num_codebooks is {c.num_codebooks}, but only an MLP with quant_type 'memcodes' can have several"
    if c.latent_dim % max(c.num_codebooks, 1):
        yield f"latent_dim is {c.latent_dim}, expected a multiple of num_codebooks {c.num_codebooks}"
    absent = (None, False)
    for keys, holds, what in (
        (("n_labels", "post_mlp", "out_conv"), not is_mlp, f"not possible with enc_type {shown(c.enc_type)}"),
        (("n_labels", "out_conv"), not is_unet, f"not possible with dec_type {UNET!r}"),
        (DIFFUSION, is_unet, f"only possible with dec_type {UNET!r}"),
    ):
        if not holds and (stray := [key for key in keys if getattr(c, key) not in absent]):
            yield f"found {', '.join(stray)}, {what}"
    if is_unet and (missing := [key for key in ("prediction_type", "beta_schedule") if getattr(c, key) is None]):
        yield f"missing {', '.join(missing)}, required for dec_type {UNET!r}"
    if c.beta_schedule is not None and not SCHEDULE.fullmatch(c.beta_schedule):
        yield f"beta_schedule is {shown(c.beta_schedule)}, expected 'linear', 'cosine' or 'shifted_cosine:NUMBER'"


def specification(config: TokenizerConfig, tensors: Tensors) -> TokenizerSpec:
    """Converts a published configuration to our architecture."""
    quantizer = Quantizer(
        type="vq" if config.quant_type == "lucid" else "memcodes",
        codes=config.codebook_size,
        dim=config.latent_dim,
        heads=config.num_codebooks,
    )
    encoder, decoder = MLP.fullmatch(config.enc_type), MLP.fullmatch(config.dec_type)
    if encoder and decoder:
        return TokenizerSpec(
            model="mlp",
            heads=1,
            depth=int(encoder[1]),
            width=int(encoder[2]),
            decoder_depth=int(decoder[1]),
            decoder_width=int(decoder[2]),
            inner_width=_width(tensors, "encoder.linear_out.bias", config.latent_dim),  # the configuration doesn't say
            decoder_inner_width=_width(tensors, "post_quant_proj.bias", config.latent_dim),
            quantizer=quantizer,
        )
    size = VIT[config.enc_type.removesuffix("_enc")]
    decoder_size = VIT.get(config.dec_type.removesuffix("_dec"), size)
    has_tail = "encoder.norm_mlp.weight" in tensors if config.post_mlp is None else config.post_mlp
    convolves = "decoder.out_conv.0.norm.weight" in tensors if config.out_conv is None else config.out_conv
    return TokenizerSpec(
        width=size.width,
        heads=size.heads,
        depth=size.depth,
        decoder_width=decoder_size.width,
        decoder_heads=decoder_size.heads,
        decoder_depth=decoder_size.depth,
        tail="mlp" if has_tail else "none",
        trained_grid=config.grid,
        class_width=config.n_channels,
        image_blocks=IMAGE_BLOCKS if convolves else 0,
        image_scale="decoder.out_conv.0.gamma" in tensors,
        diffusion=_diffusion(config) if config.dec_type == UNET else None,
        quantizer=quantizer,
    )


def _width(tensors: Tensors, bias: str, default: int) -> int:
    return len(tensors.left[bias]) if bias in tensors and tensors.left[bias].ndim else default


def _diffusion(config: TokenizerConfig) -> Diffusion:
    schedule = SCHEDULE.fullmatch(config.beta_schedule or "")
    assert schedule is not None and config.prediction_type is not None  # checked
    return dataclasses.replace(
        UNET_SIZE,
        prediction=config.prediction_type,
        schedule="linear" if schedule[1] else "cosine" if schedule[2] else "shifted_cosine",
        shift=float(schedule[3] or 1),
        zero_terminal_snr=bool(config.zero_terminal_snr),
        clip=bool(config.clip_sample),
        threshold=bool(config.thresholding),
        training_steps=config.num_train_timesteps or UNET_SIZE.training_steps,
        steps=config.ddim_steps or UNET_SIZE.steps,
    )


def published_config(tokenizer: GridTokenizer) -> dict[str, Any]:
    """The reverse of `specification`, for a tokenizer trained with maskweave.

    Raises:
        MaskweaveError: the published format does not support its architecture.
    """
    spec, modality = tokenizer.spec, tokenizer.modality
    quantizer, d = spec.quantizer, spec.diffusion
    config: dict[str, Any] = {"n_channels": modality.value.channels, "latent_dim": quantizer.dim}
    if modality.value.num_classes:
        config |= {"n_channels": spec.class_width, "n_labels": len(modality.value.classes)}
    match quantizer.type:
        case "vq" if quantizer.codebook == "ema":
            config |= {"quant_type": "lucid", "norm_codes": True, "codebook_size": quantizer.codes}
        case "memcodes":
            config |= {"quant_type": "memcodes", "num_codebooks": quantizer.heads, "codebook_size": quantizer.codes}
        case _:
            raise _unnamed(tokenizer, f"quantizer {quantizer.type!r} with codebook {quantizer.codebook!r}")
    decoder_width, decoder_heads = spec.decoder_width or spec.width, spec.decoder_heads or spec.heads
    if spec.model == "mlp":
        if not (spec.inner_width and spec.decoder_inner_width):
            raise _unnamed(tokenizer, "an MLP without inner_width and decoder_inner_width")
        types = {side: f"BottleneckMLP/B_{n}-Wi_{w}" for side, n, w in (("enc", spec.depth, spec.width), ("dec", spec.decoder_depth, decoder_width))}  # fmt: skip
        return config | {f"{side}_type": name for side, name in types.items()}
    names = {size: name for name, size in VIT.items()}
    encoder = names.get(ViTSize(spec.width, spec.heads, spec.depth))
    decoder = names.get(ViTSize(decoder_width, decoder_heads, spec.decoder_depth))
    if encoder is None or (decoder is None and d is None):
        raise _unnamed(tokenizer, "a ViT of another width, depth or number of heads than S, B and L")
    if spec.tail == "norm" or spec.image_blocks not in (0, IMAGE_BLOCKS) or len(modality.grid) != 2:
        raise _unnamed(tokenizer, f"tail {spec.tail!r}, {spec.image_blocks} image_blocks and a grid {modality.grid}")
    grid = spec.trained_grid or modality.grid
    sizes = {
        "image_size": [g * p for g, p in zip(grid, modality.patch, strict=True)],
        "patch_size": [*modality.patch],
    }
    config |= {key: size[0] if size[0] == size[1] else size for key, size in sizes.items()}
    config |= {"patch_proj": False} if modality.patch == (1, 1) else {}
    config |= {"enc_type": f"{encoder}_enc", "post_mlp": spec.tail == "mlp"}
    if d is None:
        return config | {"dec_type": f"{decoder}_dec", "out_conv": spec.image_blocks > 0}
    if (d.patch, d.widths, d.layers, d.attention) != (UNET_SIZE.patch, UNET_SIZE.widths, UNET_SIZE.layers, UNET_SIZE.attention):  # fmt: skip
        raise _unnamed(tokenizer, "a U-Net of other sizes")
    return config | {
        "dec_type": UNET,
        "prediction_type": d.prediction,
        "beta_schedule": f"shifted_cosine:{d.shift:g}" if d.schedule == "shifted_cosine" else d.schedule,
        "num_train_timesteps": d.training_steps,
        "zero_terminal_snr": d.zero_terminal_snr,
        "clip_sample": d.clip,
        "thresholding": d.threshold,
    }


def _unnamed(tokenizer: GridTokenizer, what: str) -> MaskweaveError:
    return MaskweaveError(
        f"{tokenizer.modality.name}: the published format does not support {what}; keep the tokenizer as a bundle"
    )
