"""What one entry or vocabulary must fulfill by itself. Between entries, see `maskweave.modality.catalogs`.

Errors name the entry, the field, what was found and what to do.
"""

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise

from maskweave import limits
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.entry import (
    DENSE_TYPES,
    STRUCTURED_TYPES,
    Diffusion,
    Modality,
    TokenizerSpec,
    Value,
    Vocabulary,
)


def checked(m: Modality, vocabularies: Mapping[str, Vocabulary], where: str) -> Modality:
    """The entry with what follows from its kind filled in.

    Args:
        vocabularies: of its catalog.
        where: what to call it in errors.

    Raises:
        MaskweaveError: it contradicts itself, or names a vocabulary that is not there.
    """
    if m.id < 1:
        raise MaskweaveError(f"{where}: id {m.id} must be 1 or more (0 is padding)")
    limits.check_most(f"{where}: id", m.id, limits.MODALITY_ID)
    _check_name(m.name, where)
    _check_value(m, where)
    match m.kind:
        case "grid" | "patches":
            _check_grid(m, where)
        case "sequence" | "vectors":
            if m.max_tokens < 2 or m.grid:
                raise MaskweaveError(
                    f"{where}: a {m.kind} modality needs max_tokens (2 or more) and no grid, found max_tokens {m.max_tokens}, grid {shown(m.grid)}"
                )
            limits.check_most(f"{where}: max_tokens", m.max_tokens, limits.TOKENS)
    if m.kind == "sequence":
        if m.vocabulary not in vocabularies:
            raise MaskweaveError(
                f"{where}: vocabulary {shown(m.vocabulary)} is not one of the catalog's: {', '.join(vocabularies) or 'none'}; add it under 'vocabularies' or correct the name"
            )
        if m.chunk < 1 or m.chunk >= m.max_tokens:
            raise MaskweaveError(f"{where}: chunk {m.chunk} must be from 1 to less than max_tokens {m.max_tokens}")
        if m.decoding.scheme != "autoregressive":
            m = dataclasses.replace(m, decoding=dataclasses.replace(m.decoding, scheme="autoregressive"))
    elif m.vocabulary:
        raise MaskweaveError(f"{where}: a {m.kind} modality has no shared vocabulary; remove 'vocabulary'")
    if m.tokenizer is not None and m.kind != "grid":
        raise MaskweaveError(f"{where}: only grids have a tokenizer network; remove 'tokenizer'")
    if m.kind == "grid" and m.name in vocabularies:
        raise MaskweaveError(
            f"{where}: a vocabulary has this name too, and a grid's codes are stored under its own; rename one of them"
        )
    if m.kind == "grid" and m.decoding.scheme == "autoregressive":
        raise MaskweaveError(
            f"{where}: decoding.scheme 'autoregressive' is for sequences; a grid takes 'maskgit' or 'roar'"
        )
    if m.kind == "grid" and m.tokenizer is None:
        m = dataclasses.replace(m, tokenizer=TokenizerSpec(model="mlp" if m.value.type == "vector" else "vit"))
    if m.kind == "grid":
        _check_tokenizer(m, where)
    return m


def check_vocabulary(v: Vocabulary, where: str) -> None:
    """Raise MaskweaveError where a vocabulary contradicts itself."""
    _check_name(v.name, where)
    limits.check_most(f"{where}: size", v.size, limits.VOCABULARY)
    if min(v.values.values(), default=0) < 0:
        raise MaskweaveError(
            f"{where}: values gives how many there are of each prefix, 0 or more, found {shown(v.values)}"
        )
    # The first is kept free; a sequence that is dropped as a whole has one for its span and one that closes.
    if v.sentinels < 3:
        raise MaskweaveError(f"{where}: needs at least 3 sentinels, found {v.sentinels}")
    if v.fixed > v.size:
        raise MaskweaveError(
            f"{where}: special tokens, sentinels, values and words take {v.fixed} ids, more than its size {v.size}; raise size to at least {v.fixed}"
        )


def _check_name(name: str, where: str) -> None:
    """Names become those of folders and of the model's parts."""
    if not name.replace("_", "").replace("@", "").replace("-", "").isalnum():
        raise MaskweaveError(f"{where}: a name is letters, digits, '_', '-' and '@' alone")
    limits.check_most(f"{where}: length of the name in bytes", len(name.encode()), limits.NAME_BYTES, fixed=True)


def _check_value(m: Modality, where: str) -> None:
    """Raise MaskweaveError where a value's declaration contradicts itself or its kind."""
    v = m.value
    if (v.type in STRUCTURED_TYPES) != (m.kind == "sequence"):
        allowed = ", ".join(STRUCTURED_TYPES) if m.kind == "sequence" else ", ".join((*DENSE_TYPES, "vector"))
        raise MaskweaveError(f"{where}: a {m.kind} modality cannot hold values of type {v.type!r}; it takes {allowed}")
    if m.kind == "patches" and v.type == "classes":
        raise MaskweaveError(f"{where}: class indices are no quantities, so they cannot be patches; make it a grid")
    if v.type in DENSE_TYPES and not (1 <= len(v.size) <= 3 and min(v.size) > 0):
        raise MaskweaveError(f"{where}: value.size must be 1 to 3 positive numbers, found {v.size}")
    if v.type in ("classes", "boxes", "instances") and not v.classes:
        raise MaskweaveError(f"{where}: values of type {v.type!r} need value.classes, a list of names")
    if v.type == "instances" and (len(v.size) != 2 or not 1 <= v.mask[1] <= 8 or v.mask[0] < 1):
        raise MaskweaveError(
            f"{where}: instances need value.size (height, width) and value.mask of at most 8 columns, found {v.size} and {v.mask}"
        )
    if v.type == "queries" and len(v.size) != 2:
        raise MaskweaveError(f"{where}: queries need value.size, the picture's (height, width), found {v.size}")
    _check_keys(v, where)
    _check_parts(v, where)
    ranges = (v.range, *(key.range for key in v.keys.values()), *(part.range for part in v.parts.values()))
    for low, high in filter(None, ranges):
        if not -math.inf < low < high < math.inf:
            raise MaskweaveError(f"{where}: a range is [lowest, highest], both finite, found [{low}, {high}]")
    if v.type == "map" and (v.range is None) == (v.tails is None):
        raise MaskweaveError(
            f"{where}: a map needs value.range, its lowest and highest value in {v.unit or 'its unit'}, or else value.tails, which standardizes each map by itself; found {'both' if v.range else 'neither'}"
        )
    if v.tails is not None and not (v.type == "map" and 0 <= v.tails < 0.5):
        raise MaskweaveError(f"{where}: value.tails is for maps, a share from 0 to below 0.5, found {v.tails}")
    if v.tails is not None and m.kind == "patches":
        raise MaskweaveError(f"{where}: patches take maps with a value.range, found value.tails; make it a grid")
    expected = {"image": (1, 3, 4), "direction": (3,), "classes": (1,), "binary": (1,)}.get(v.type)
    if expected and v.channels not in expected:
        raise MaskweaveError(
            f"{where}: values of type {v.type!r} have {' or '.join(map(str, expected))} channels, found value.channels {v.channels}"
        )
    if v.max_items < 0 or v.max_characters < 1:
        raise MaskweaveError(
            f"{where}: value.max_items must be 0 or more and value.max_characters 1 or more, found {v.max_items} and {v.max_characters}"
        )
    if v.channels < 1 or v.bins < 2:
        raise MaskweaveError(
            f"{where}: value.channels must be 1 or more and value.bins 2 or more, found {v.channels} and {v.bins}"
        )
    if len(v.mean) != len(v.deviation) or len(v.mean) not in (0, v.channels):
        raise MaskweaveError(
            f"{where}: value.mean and value.deviation need one number per channel ({v.channels}), found {len(v.mean)} and {len(v.deviation)}"
        )


def _check_keys(v: Value, where: str) -> None:
    if v.type == "metadata" and not v.keys:
        raise MaskweaveError(f"{where}: metadata needs value.keys")
    for name, key in v.keys.items():
        at = f"{where}: value.keys.{name}"
        if key.id < 0 or key.bins < 1 + key.top:
            raise MaskweaveError(
                f"{at} needs an id from 0 and at least {1 + key.top} bin{'s' * key.top}, found id {key.id}, bins {key.bins}"
            )
        cuts = (key.range[0], *key.splits, key.range[1])
        if key.splits and (key.bins != len(key.splits) + 1 or key.top or any(a >= b for a, b in pairwise(cuts))):
            raise MaskweaveError(
                f"{at}.splits must ascend within its range, with one more bins than splits and without 'top', found {key.splits}, bins {key.bins}"
            )
    if len({key.id for key in v.keys.values()}) < len(v.keys):
        raise MaskweaveError(f"{where}: two metadata keys share an id; ids are stable and unique")


def _check_parts(v: Value, where: str) -> None:
    if v.parts and v.type not in ("poses", "queries"):
        raise MaskweaveError(f"{where}: value.parts is for poses and queries; remove it")
    for name, part in v.parts.items():
        if part.count < 1 or part.codes < 0 or (part.range is None) == (part.codes == 0) or name in ("box", "point"):
            raise MaskweaveError(
                f"{where}: value.parts.{name} needs a name of its own, a count of 1 or more, and either a range or codes, found {part}"
            )
        joints = part.count // 2 if part.range and v.type == "poses" and part.count % 2 == 0 else 0
        if any(not 0 <= joint < joints for bone in part.bones for joint in bone):
            raise MaskweaveError(
                f"{where}: value.parts.{name}.bones join the joints of poses: numbers from 0 to below half the part's count, which is even, "
                f"and a range; found {part}"
            )


def _check_grid(m: Modality, where: str) -> None:
    if not 1 <= len(m.grid) <= 3 or min(m.grid) < 1 or m.max_tokens:
        raise MaskweaveError(
            f"{where}: a {m.kind} modality needs grid (1 to 3 positive numbers) and no max_tokens, found grid {shown(m.grid)}, max_tokens {m.max_tokens}"
        )
    limits.check_most(f"{where}: number of tokens of grid {m.grid}", m.tokens, limits.TOKENS)
    if m.value.type == "vector":
        if len(m.grid) != 1:
            raise MaskweaveError(f"{where}: a vector's codes form a grid of one axis, found {m.grid}")
    elif len(m.grid) != len(m.value.size) or any(s % g for s, g in zip(m.value.size, m.grid, strict=True)):
        raise MaskweaveError(f"{where}: grid {m.grid} must divide value.size {m.value.size} along each axis")


def _check_tokenizer(m: Modality, where: str) -> None:
    spec = m.tokenizer
    assert spec is not None
    quantizer = spec.quantizer
    if (spec.model == "mlp") != (m.value.type == "vector"):
        raise MaskweaveError(
            f"{where}: tokenizer.model is {spec.model!r}; vectors take 'mlp' and everything else 'vit'"
        )
    for key, number, least, most in (
        ("tokenizer.width", spec.width, 1, limits.WIDTH),
        ("tokenizer.heads", spec.heads, 1, limits.HEADS),
        ("tokenizer.depth", spec.depth, 0, limits.DEPTH),
        ("tokenizer.decoder_depth", spec.decoder_depth, 0, limits.DEPTH),
        ("tokenizer.decoder_width", spec.decoder_width, 0, limits.WIDTH),
        ("tokenizer.decoder_heads", spec.decoder_heads, 0, limits.HEADS),
        ("tokenizer.class_width", spec.class_width, 1, limits.CODE_WIDTH),
        ("tokenizer.image_blocks", spec.image_blocks, 0, limits.DEPTH),
        ("tokenizer.inner_width", spec.inner_width, 0, limits.WIDTH),
        ("tokenizer.decoder_inner_width", spec.decoder_inner_width, 0, limits.WIDTH),
        ("tokenizer.quantizer.dim", quantizer.dim, 1, limits.CODE_WIDTH),
        ("tokenizer.quantizer.heads", quantizer.heads, 1, limits.HEADS),
        ("tokenizer.quantizer.codes", quantizer.codes, 2, limits.VOCABULARY),
    ):
        if number < least:
            raise MaskweaveError(f"{where}: {key} must be {least} or more, found {number}")
        limits.check_most(f"{where}: {key}", number, most)
    places = max(m.tokens, math.prod(spec.trained_grid or ()))
    width = max(spec.width, spec.decoder_width)
    limits.check_most(f"{where}: tokens × width of the tokenizer's positions", places * width, limits.POSITION_NUMBERS)
    if spec.loss not in ("auto", *m.losses):
        raise MaskweaveError(
            f"{where}: tokenizer.loss {shown(spec.loss)} does not suit values of type {m.value.type!r}; leave it at 'auto'"
        )
    decoder_width, decoder_heads = spec.decoder_width or spec.width, spec.decoder_heads or spec.heads
    for prefix, width, heads in (("", spec.width, spec.heads), ("decoder_", decoder_width, decoder_heads)):
        if width % (2 * heads):
            raise MaskweaveError(
                f"{where}: tokenizer.{prefix}width {width} must be an even multiple of tokenizer.{prefix}heads {heads}"
            )
    planar = spec.trained_grid is not None or spec.image_blocks > 0 or spec.diffusion is not None
    if planar and len(m.grid) != 2:
        raise MaskweaveError(
            f"{where}: tokenizer.trained_grid, image_blocks and diffusion need a grid of two axes, found {m.grid}"
        )
    if spec.trained_grid is not None and min(spec.trained_grid) < 1:
        raise MaskweaveError(f"{where}: tokenizer.trained_grid must be positive, found {spec.trained_grid}")
    if spec.diffusion is not None:
        _check_diffusion(m, spec.diffusion, where)
    if quantizer.type == "fsq" and (not quantizer.levels or min(quantizer.levels) < 2):
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.levels must be numbers of 2 or more, found {shown(quantizer.levels)}"
        )
    if quantizer.type == "fsq":
        limits.check_most(f"{where}: product of tokenizer.quantizer.levels", quantizer.size, limits.VOCABULARY)
    if quantizer.type == "lfq" and quantizer.codes & (quantizer.codes - 1):
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.codes must be a power of two for lfq, found {quantizer.codes}"
        )
    if quantizer.type == "memcodes" and quantizer.dim % quantizer.heads:
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.dim {quantizer.dim} must be a multiple of its heads {quantizer.heads}"
        )
    if quantizer.heads > 1 and (m.value.type != "vector" or quantizer.type != "memcodes"):
        raise MaskweaveError(
            f"{where}: several codes a latent (tokenizer.quantizer.heads {quantizer.heads}) are for vectors with memcodes alone"
        )
    if m.tokens % quantizer.heads:
        raise MaskweaveError(
            f"{where}: grid {m.grid} must be a multiple of tokenizer.quantizer.heads {quantizer.heads}, the codes of each latent"
        )


def _check_diffusion(m: Modality, d: Diffusion, where: str) -> None:
    where += ": tokenizer.diffusion"
    if m.value.type == "classes":
        raise MaskweaveError(f"{where}: class indices are no quantities that noise can be added to; leave it out")
    if min(d.training_steps, d.steps, d.patch, d.layers, d.shift) <= 0 or d.steps > d.training_steps:
        raise MaskweaveError(
            f"{where}: training_steps, steps, patch, layers and shift must be positive, and steps at most training_steps, "
            f"found {d.training_steps}, {d.steps}, {d.patch}, {d.layers} and {d.shift}"
        )
    for key, number, most in (
        ("training_steps", d.training_steps, limits.DIFFUSION_STEPS),
        ("patch", d.patch, limits.DIFFUSION_PATCH),
        ("layers", d.layers, limits.DIFFUSION_LAYERS),
        ("largest width", max(d.widths, default=0), limits.DIFFUSION_WIDTH),
        ("number of widths", len(d.widths), limits.DIFFUSION_LEVELS),
    ):
        limits.check_most(f"{where}.{key}", number, most)
    if not d.widths or any(width < 32 or width % 32 for width in d.widths):
        raise MaskweaveError(f"{where}.widths must be multiples of 32, found {shown(d.widths)}")
    if not 0 <= d.attention <= len(d.widths):
        raise MaskweaveError(f"{where}.attention must be 0 to {len(d.widths)}, the levels, found {d.attention}")
    if any(s % d.multiple for s in m.value.size):
        raise MaskweaveError(f"{where}: value.size must be a multiple of {d.multiple}, found {m.value.size}")
    if d.prediction == "epsilon" and (d.zero_terminal_snr or d.schedule == "shifted_cosine"):
        raise MaskweaveError(
            f"{where}: where nothing of the value remains at the last step, the noise alone says nothing of it; "
            "use prediction 'sample' or 'v_prediction'"
        )
