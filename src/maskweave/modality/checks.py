"""Checks of a single entry or vocabulary. `maskweave.modality.catalogs` checks entries against each other.

Errors give the entry, the field, what was found and what to do.
"""

import dataclasses
import math
from collections.abc import Mapping

from maskweave import limits
from maskweave.errors import MaskweaveError, shown
from maskweave.modality.decoding import DEFAULT, Decoding
from maskweave.modality.derivation import COMPUTED, TeacherDerivation
from maskweave.modality.entry import Modality
from maskweave.modality.external import ExternalSpec
from maskweave.modality.tokenizer import Diffusion, TokenizerSpec
from maskweave.modality.vocabulary import NUM_BYTES, Vocabulary
from maskweave.permission import PYTHON
from maskweave.values import value_types


def checked(m: Modality, vocabularies: Mapping[str, Vocabulary], where: str) -> Modality:
    """Checks an entry and fills in the defaults that follow from its kind.

    Args:
        vocabularies: vocabularies of its catalog.
        where: name of the entry in errors.

    Raises:
        MaskweaveError: its settings contradict each other, or its vocabulary does not exist.
    """
    if m.id < 1:
        raise MaskweaveError(f"{where}: id {m.id} must be 1 or more (0 is padding)")
    limits.check_most(f"{where}: id", m.id, limits.MODALITY_ID)
    check_name(m.name, where)
    _check_value(m, where)
    m = _with_defaults(m)
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
            raise MaskweaveError(
                f"{where}: chunk is {m.chunk}; expected 1 to {m.max_tokens - 1}, below max_tokens {m.max_tokens}"
            )
        if m.decoding.scheme != "autoregressive":
            m = dataclasses.replace(m, decoding=dataclasses.replace(m.decoding, scheme="autoregressive"))
    elif m.vocabulary:
        raise MaskweaveError(f"{where}: a {m.kind} modality has no shared vocabulary; remove 'vocabulary'")
    if m.tokenizer is not None and m.kind != "grid":
        raise MaskweaveError(f"{where}: only grids have a tokenizer network; remove 'tokenizer'")
    if m.kind == "grid" and m.name in vocabularies:
        raise MaskweaveError(
            f"{where}: a vocabulary has the same name, under which the grid's codes are stored; rename one of them"
        )
    if problem := decoding_problem(m, m.decoding):
        raise MaskweaveError(f"{where}: decoding.{problem}")
    if m.kind == "grid" and m.value.tokenized_by == "rules":
        _check_rules(m, where)
    elif m.kind == "grid":
        if m.tokenizer is None:
            m = dataclasses.replace(m, tokenizer=TokenizerSpec(model="vit" if m.value.size else "mlp"))
        if m.external is not None:
            _check_external(m, m.external, where)
        else:
            _check_tokenizer(m, where)
    return m


def decoding_problem(m: Modality, decoding: Decoding) -> str:
    """Returns what is wrong with generating an entry like this; empty: nothing."""
    if m.kind == "grid" and decoding.scheme == "autoregressive":
        return "scheme 'autoregressive' is for sequences; a grid takes another, such as 'maskgit' or 'roar'"
    if m.kind == "sequence" and decoding.remask is not None:
        return "remask is for grids; a sequence is generated token by token"
    has_network = m.kind == "grid" and m.value.tokenized_by != "rules"
    if decoding.detokenize == "mean" and not (
        has_network and (m.tokenizer is None or (m.network is not None and m.network.quantizer.heads == 1))
    ):
        return "detokenize 'mean' is for grids with a tokenizer network of one code per token; use 'sampled'"
    return ""


def check_vocabulary(v: Vocabulary, where: str) -> None:
    """Raise MaskweaveError if a vocabulary's settings contradict each other."""
    check_name(v.name, where)
    limits.check_most(f"{where}: size", v.size, limits.VOCABULARY)
    if min(v.values.values(), default=0) < 0:
        raise MaskweaveError(
            f"{where}: values must give the number of ids of each prefix, 0 or more, found {shown(v.values)}"
        )
    # The first is reserved; a sequence whose tokens are all masked needs one for its span and one that closes.
    if v.sentinels < 3:
        raise MaskweaveError(f"{where}: needs at least 3 sentinels, found {v.sentinels}")
    if v.fixed > v.size:
        raise MaskweaveError(
            f"{where}: special tokens, sentinels, values and words take {v.fixed} ids, more than its size {v.size}; raise size to at least {v.fixed}"
        )
    if v.type == "byte_bpe" and v.fixed + NUM_BYTES > v.size:
        raise MaskweaveError(
            f"{where}: special tokens, sentinels, values and words take {v.fixed} ids and single bytes {NUM_BYTES}, more than its size {v.size}; raise size to at least {v.fixed + NUM_BYTES}"
        )


def check_name(name: str, where: str) -> None:
    """Names are also used for folders and for parts of the model."""
    if not name.replace("_", "").replace("@", "").replace("-", "").isalnum():
        raise MaskweaveError(f"{where}: a name may only contain letters, digits, '_', '-' and '@'")
    limits.check_most(f"{where}: length of the name in bytes", len(name.encode()), limits.NAME_BYTES, fixed=True)


def _check_value(m: Modality, where: str) -> None:
    """Raise MaskweaveError if a value's settings contradict each other or the entry."""
    v = m.value
    if m.kind not in v.kinds:
        fitting = [name for name, cls in value_types().items() if m.kind in cls.kinds]
        raise MaskweaveError(
            f"{where}: a {m.kind} modality cannot hold values of type {v.type!r}; it takes {', '.join(fitting)}"
        )
    try:
        v.check_settings(m.kind)
    except MaskweaveError as error:
        raise MaskweaveError(f"{where}: {error}") from error
    for key, names, known in (
        ("metrics", m.metrics, v.metrics()),
        ("derive.by", [m.derive.by] if m.derive else [], {**v.derivations, **COMPUTED}),
    ):
        for name in names:
            if name not in known:
                possible = ", ".join(known) or "none"
                raise MaskweaveError(f"{where}: unknown {key} {shown(name)}; values of type {v.type!r} have {possible}")
    if (
        isinstance(m.derive, TeacherDerivation)
        and m.derive.confidence.unknown_below is not None
        and not (v.has_unknown and v.size)
    ):
        raise MaskweaveError(
            f"{where}: derive.confidence.unknown_below makes points unknown, but values of type {v.type!r} have none here; set value.missing: nan "
            "or value.ignore, or use drop_below"
        )


def _with_defaults(m: Modality) -> Modality:
    """Returns the entry with the value type's grid and decoding, if it has none of its own."""
    if m.decoding is DEFAULT and m.value.default_decoding:
        m = dataclasses.replace(m, decoding=Decoding(**m.value.default_decoding))
    if m.kind == "grid" and m.value.tokenized_by == "rules" and not m.grid:
        m = dataclasses.replace(m, grid=m.value.rule_tokens[:1])
    return m


def _check_rules(m: Modality, where: str) -> None:
    """Raise MaskweaveError if an entry whose values are tokenized by rules has another grid, or a network."""
    tokens, ids = m.value.rule_tokens
    if m.tokenizer is not None:
        raise MaskweaveError(
            f"{where}: values of type {m.value.type!r} are tokenized by rules, not by a network; remove 'tokenizer'"
        )
    if m.grid != (tokens,):
        raise MaskweaveError(
            f"{where}: values of type {m.value.type!r} here have the grid [{tokens}], found {list(m.grid)}; remove 'grid'"
        )
    limits.check_most(f"{where}: size of the vocabulary", ids, limits.VOCABULARY)


def _check_grid(m: Modality, where: str) -> None:
    if not 1 <= len(m.grid) <= 3 or min(m.grid) < 1 or m.max_tokens:
        raise MaskweaveError(
            f"{where}: a {m.kind} modality needs grid (1 to 3 positive numbers) and no max_tokens, found grid {shown(m.grid)}, max_tokens {m.max_tokens}"
        )
    limits.check_most(f"{where}: number of tokens of grid {m.grid}", m.tokens, limits.TOKENS)
    if m.external is not None:  # its grid is known when it is opened
        return
    if not m.value.size:
        if len(m.grid) != 1:
            raise MaskweaveError(
                f"{where}: the codes of a {m.value.type} form a grid of one axis, found {shown(list(m.grid))}"
            )
    elif len(m.grid) != len(m.value.size) or any(s % g for s, g in zip(m.value.size, m.grid, strict=True)):
        raise MaskweaveError(f"{where}: grid {m.grid} must divide value.size {m.value.size} along each axis")


def _check_external(m: Modality, spec: ExternalSpec, where: str) -> None:
    for key, number, least, most in (
        ("tokenizer.codes", spec.codes, 2, limits.VOCABULARY),
        ("tokenizer.depth", spec.depth, 1, limits.QUANTIZERS),
    ):
        if number < least:
            raise MaskweaveError(f"{where}: {key} must be {least} or more, found {number}")
        limits.check_most(f"{where}: {key}", number, most)
    if spec.size > limits.VOCABULARY * limits.limit_factor():
        raise MaskweaveError(
            f"{where}: tokenizer.codes {spec.codes} to the power of depth {spec.depth} are more than {limits.VOCABULARY:,} ids; lower depth, or set "
            "tokenizer.tokens: separate, so that each level has its own tokens"
        )
    if spec.tokens == "separate" and m.grid[0] != spec.depth:
        raise MaskweaveError(
            f"{where}: with tokenizer.tokens: separate, the first axis of the grid is the levels, so it must be tokenizer.depth {spec.depth}, found {list(m.grid)}"
        )
    if getattr(m.value, "learned", None):
        raise MaskweaveError(
            f"{where}: value.scaling is learned while a tokenizer is trained, but this one is external; set value.range, or value.mean and value.std"
        )
    if spec.options and not spec.is_code:
        raise MaskweaveError(f"{where}: tokenizer.options are arguments of a function {PYTHON} …; remove them")


def _check_tokenizer(m: Modality, where: str) -> None:
    spec = m.network
    assert spec is not None
    quantizer = spec.quantizer
    if not m.value.losses:
        raise MaskweaveError(f"{where}: values of type {m.value.type!r} have no tokenizer network")
    if (spec.model == "mlp") == bool(m.value.size):
        raise MaskweaveError(
            f"{where}: tokenizer.model is {spec.model!r}; values with a size take 'vit', and others, such as vectors, 'mlp'"
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
        ("tokenizer.quantizer.depth", quantizer.depth, 1, limits.QUANTIZERS),
    ):
        if number < least:
            raise MaskweaveError(f"{where}: {key} must be {least} or more, found {number}")
        limits.check_most(f"{where}: {key}", number, most)
    positions = max(m.tokens, math.prod(spec.trained_grid or ()))
    width = max(spec.width, spec.decoder_width)
    limits.check_most(
        f"{where}: tokens × width of the tokenizer's positions", positions * width, limits.POSITION_NUMBERS
    )
    losses = ("mse",) if spec.diffusion is not None else tuple(m.value.losses)
    if spec.loss not in ("auto", *losses):
        raise MaskweaveError(
            f"{where}: tokenizer.loss {shown(spec.loss)} does not suit values of type {m.value.type!r}; expected auto, {', '.join(losses)}"
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
    if spec.overlap == "blend" and (len(m.grid) > 2 or spec.model != "vit" or spec.diffusion is not None):
        raise MaskweaveError(
            f"{where}: tokenizer.overlap: blend is for the ViT decoder and grids of one or two axes, found grid {list(m.grid)}, model {spec.model}"
            f"{' with diffusion' * (spec.diffusion is not None)}; remove it"
        )
    if spec.trained_grid is not None and min(spec.trained_grid) < 1:
        raise MaskweaveError(f"{where}: tokenizer.trained_grid must be positive, found {spec.trained_grid}")
    if spec.diffusion is not None:
        _check_diffusion(m, spec.diffusion, where)
    if quantizer.is_scalar and (not quantizer.levels or min(quantizer.levels) < 2):
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.levels must be numbers of 2 or more, found {shown(quantizer.levels)}"
        )
    if quantizer.type == "fsq":
        limits.check_most(f"{where}: product of tokenizer.quantizer.levels", quantizer.size, limits.VOCABULARY)
    if quantizer.type == "residual":
        limits.check_most(
            f"{where}: codebook size of tokenizer.quantizer to the power of depth", quantizer.size, limits.VOCABULARY
        )
    for key, changed in (("codebook", quantizer.codebook != "ema"), ("rotation", quantizer.rotation)):
        if changed and quantizer.type != "vq":
            raise MaskweaveError(
                f"{where}: tokenizer.quantizer.{key} is for type vq, found type {quantizer.type}; remove it"
            )
    if quantizer.has_bits and quantizer.codes & (quantizer.codes - 1):
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.codes must be a power of two for {quantizer.type}, found {quantizer.codes}"
        )
    if quantizer.type == "memcodes" and quantizer.dim % quantizer.heads:
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.dim {quantizer.dim} must be a multiple of its heads {quantizer.heads}"
        )
    if quantizer.heads > 1 and (m.value.size or quantizer.type != "memcodes"):
        raise MaskweaveError(
            f"{where}: tokenizer.quantizer.heads {quantizer.heads} (codes per latent) is only for vectors with type 'memcodes'; set heads to 1"
        )
    if m.tokens % quantizer.heads:
        raise MaskweaveError(
            f"{where}: grid {m.grid} must be a multiple of tokenizer.quantizer.heads {quantizer.heads}, the codes of each latent"
        )


def _check_diffusion(m: Modality, d: Diffusion, where: str) -> None:
    where += ": tokenizer.diffusion"
    if m.value.predicts_unknown:
        raise MaskweaveError(
            f"{where}: a diffusion decoder cannot predict which points are unknown; leave it out, or use another value.missing than predicted"
        )
    if not m.value.can_add_noise:
        raise MaskweaveError(
            f"{where}: values of type {m.value.type!r} are categorical, and noise cannot be added to them; leave it out"
        )
    are_positive = min(d.training_steps, d.steps, d.patch, d.layers) > 0 and 0 < d.shift < math.inf
    if not are_positive or d.steps > d.training_steps:
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
            f"{where}: prediction 'epsilon' cannot recover the value, because the last step of this schedule is pure noise; "
            "use prediction 'sample' or 'v_prediction'"
        )
