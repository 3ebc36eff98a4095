"""What a modality is: one declarative entry, validated. Everything else in the library follows from its kind and value type.

A catalog is a YAML file of entries and of the vocabularies that they share. Names follow 4M (https://arxiv.org/abs/2312.06647).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from maskweave import limits
from maskweave.errors import MaskweaveError, shown

Kind = Literal["grid", "sequence", "patches", "vectors"]
ValueType = Literal[
    "image", "map", "direction", "features", "classes", "binary", "vector",
    "text", "boxes", "palette", "metadata", "instances", "poses", "queries",
]  # fmt: skip

DENSE_TYPES = ("image", "map", "direction", "features", "classes", "binary")
"""Value types that are arrays over a lattice of points; `vector` is an array too, but has no lattice."""
STRUCTURED_TYPES = ("text", "boxes", "palette", "metadata", "instances", "poses", "queries")
"""Value types that are written as text-like tokens."""

TOKENIZER_LOSSES = {
    "image": ("mse", "smooth_l1", "cosine"),
    "map": ("smooth_l1", "mse", "cosine"),
    "features": ("smooth_l1", "mse", "cosine"),
    "vector": ("smooth_l1", "mse", "cosine"),
    "direction": ("cosine", "mse", "smooth_l1"),
    "classes": ("cross_entropy",),
    "binary": ("binary",),
}
"""Losses that suit each value type; the first is `auto`."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
PAD, UNK, SOS, EOS = range(4)


@dataclass(frozen=True)
class Key:
    """One key of a metadata value."""

    id: int
    """Written as `v1=id`; stable."""
    range: tuple[float, float]
    """Lowest and highest value; values outside are clipped."""
    bins: int = 50
    """The range is cut into this many equal bins; for whole numbers use highest - lowest + 1."""
    integer: bool = False
    """Whole numbers: decoded to the nearest whole number rather than to a bin's center."""
    top: bool = False
    """The last bin holds the highest value alone, and the others share the range: bin = int((bins - 1) * fraction)."""
    splits: tuple[float, ...] = ()
    """Where the range is cut, ascending, in place of equal bins, of which `bins` says one more than there are splits."""
    unit: str = ""


@dataclass(frozen=True)
class Part:
    """A group of numbers that a person of `poses`, or an instance of `queries`, has under one name."""

    count: int
    """Numbers in the group."""
    range: tuple[float, float] | None = None
    """Lowest and highest number; others are clipped, and all are cut into the value's bins."""
    codes: int = 0
    """In place of a range: whole numbers from 0 to below this, the codes of a tokenizer, written as they are."""
    bones: tuple[tuple[int, int], ...] = ()
    """Of a person's joints, the pairs that are drawn joined. The numbers are then x, y of joint 0, of joint 1 and so on, as those of boxes."""


@dataclass(frozen=True)
class Value:
    """What a modality's value is, outside the model.

    | type | in Python |
    | --- | --- |
    | image | uint8 (*size, channels), 0 to 255 |
    | map | float32 (*size, channels), or (*size) for one channel, in `unit`, within `range`; or of any scale, see `tails` |
    | direction | float32 (*size, 3), unit vectors in the camera frame: x right, y up, z towards the viewer |
    | features | float32 (*size, channels), the outputs of another network at each place, taken as they are |
    | classes | integers (*size), indices into `classes` |
    | binary | bool (*size) |
    | vector | float32 (channels,) |
    | text | str |
    | boxes | list of {"class": str, "box": [xmin, ymin, xmax, ymax]}, coordinates 0 to 1 from the top left |
    | palette | list of [red, green, blue], 0 to 255 |
    | metadata | {key: number} |
    | instances | list of {"class": str, "mask": bool (*size)} |
    | poses | list of people {"box": as of boxes, PART: list of numbers}, with those of `parts` that are known |
    | queries | list of {"point": [x, y], "instances": list of {"box": as of boxes, PART: list of numbers}} with all of `parts` |
    """

    type: ValueType
    size: tuple[int, ...] = ()
    """Extent of the value's lattice: (length,), (height, width) or (frames, height, width)."""
    channels: int = 1
    range: tuple[float, float] | None = None
    """Lowest and highest value of a map; checked, and scaled to [-1, 1] for the network."""
    tails: float | None = None
    """In place of a range, for maps of which only relative values matter: each is standardized by itself, channel by channel. The mean and
    the deviation (the root of the variance + 1e-6) are those of the values between the quantiles `tails` and 1 - `tails`, these included;
    all values are then less that mean, over that deviation. Values come back from a tokenizer in these relative units, without a unit."""
    unit: str = ""
    classes: tuple[str, ...] = ()
    """Class names by index: of class maps, boxes and instances."""
    bins: int = 64
    """Bins of each box coordinate (0 to 1), of each palette color (0 to 255), or of each number of a pose."""
    mask: tuple[int, int] = (8, 8)
    """Instances: rows and columns of the lattice, stretched over its box, on which a mask is written; at most 8 columns."""
    keys: dict[str, Key] = field(default_factory=dict)
    """Metadata keys by name."""
    parts: dict[str, Part] = field(default_factory=dict)
    """Groups of numbers of poses and queries by name, in the order in which they are written unless it is drawn."""
    max_items: int = 0
    """Most boxes, colors, instances, people or points that are written; the rest is dropped from the end. 0: as many as fit."""
    max_characters: int = 10_000
    """Text longer than this is refused."""
    mean: tuple[float, ...] = ()
    """Of an image, per channel, in units of 0 to 1; with `deviation` used in place of scaling to [-1, 1]."""
    deviation: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quantizer:
    """How a tokenizer turns latents into codes."""

    type: Literal["fsq", "vq", "lfq", "memcodes"] = "vq"
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ: levels of each latent channel; the codebook size is their product."""
    codes: int = 1024
    """VQ, LFQ and Memcodes: codebook size (a power of two for LFQ)."""
    dim: int = 16
    """VQ and Memcodes: width of the latent that is quantized."""
    heads: int = 1
    """Memcodes: number of codebooks, and so of tokens a latent gives."""

    @property
    def size(self) -> int:
        return math.prod(self.levels) if self.type == "fsq" else self.codes

    @property
    def latent_dim(self) -> int:
        """Channels of the latent handed to the quantizer."""
        match self.type:
            case "fsq":
                return len(self.levels)
            case "lfq":
                return int(math.log2(self.codes))
            case _:
                return self.dim


@dataclass(frozen=True)
class Diffusion:
    """A decoder that removes noise step by step, given the codes. The network is a U-Net of the ADM type (https://arxiv.org/abs/2105.05233)."""

    prediction: Literal["sample", "epsilon", "v_prediction"] = "v_prediction"
    """What the network predicts: the value, the noise, or the velocity between them (https://arxiv.org/abs/2202.00512)."""
    schedule: Literal["linear", "cosine", "shifted_cosine"] = "linear"
    """How noise grows with the step."""
    shift: float = 1.0
    """Of the shifted cosine schedule (https://arxiv.org/abs/2301.11093): above 1 there is more noise at every step."""
    zero_terminal_snr: bool = False
    """Let nothing of the value remain at the last step (https://arxiv.org/abs/2305.08891); always so with a shifted cosine."""
    clip: bool = False
    """While decoding, clip predicted values to [-1, 1]."""
    threshold: bool = False
    """While decoding, clip predicted values to their 0.995 quantile, and to [-1, 1] (https://arxiv.org/abs/2205.11487)."""
    training_steps: int = 1000
    """Steps from a value to pure noise."""
    steps: int = 25
    """Steps of decoding."""
    patch: int = 4
    """Points along each axis that become channels of one place of the U-Net."""
    widths: tuple[int, ...] = (256, 512, 512, 512)
    """Channels of the U-Net's levels, each half as fine as the one before; multiples of 32."""
    layers: int = 3
    """Residual blocks of a level."""
    attention: int = 2
    """How many levels, from the coarsest, have attention."""

    @property
    def multiple(self) -> int:
        """What the value's size must be a multiple of."""
        return self.patch * 2 ** (len(self.widths) - 1)


@dataclass(frozen=True)
class TokenizerSpec:
    """The network that turns values of a grid modality into codes and back."""

    model: Literal["vit", "mlp"] = "vit"
    width: int = 64
    heads: int = 2
    depth: int = 1
    """Blocks of the encoder."""
    decoder_depth: int = 1
    decoder_width: int = 0
    """0: as the encoder's."""
    decoder_heads: int = 0
    """0: as the encoder's."""
    tail: Literal["norm", "mlp", "none"] = "norm"
    """ViT: what stands after the blocks of the encoder and of the decoder."""
    trained_grid: tuple[int, int] | None = None
    """ViT: rows and columns that the fixed positions are made for; they are resized to the entry's grid. None: the entry's grid."""
    class_width: int = 8
    """ViT: width of a class's embedding."""
    image_blocks: int = 0
    """ViT: convolutional blocks on the decoder's output."""
    image_scale: bool = False
    """ViT: let these blocks scale what they add, channel by channel."""
    inner_width: int = 0
    """MLP: width of one more linear layer before the quantizer; 0: none."""
    decoder_inner_width: int = 0
    """MLP: width of one more linear layer after the quantizer; 0: none."""
    diffusion: Diffusion | None = None
    """A diffusion decoder in place of a ViT."""
    loss: Literal["auto", "mse", "smooth_l1", "cosine", "cross_entropy", "binary"] = "auto"
    """`auto`: the first of those that suit the value type (`TOKENIZER_LOSSES`); a diffusion decoder takes mse."""
    quantizer: Quantizer = field(default_factory=Quantizer)


@dataclass(frozen=True)
class Decoding:
    """How a modality is generated unless a request says otherwise."""

    scheme: Literal["maskgit", "roar", "autoregressive"] = "roar"
    steps: int = 8
    """Passes over a grid; sequences take one per token."""
    token_schedule: Literal["auto", "cosine", "linear"] = "auto"
    """How many tokens of a grid each step settles: few at first, or evenly. `auto`: cosine for MaskGIT, linear for ROAR."""
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    """`constant`; `linear`, which falls evenly towards 0; or `onex:MIN:POWER`, temperature / number of the step ** POWER, at least MIN."""
    guidance: float = 1.0
    """Weight of the inputs, in u + guidance * (c - u): c with the inputs, u without. 1: no guidance, and half the work."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""

    def __post_init__(self) -> None:
        for key, holds, expected in (
            ("steps", self.steps >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < math.inf, "a number of 0 or more"),
            (
                "temperature_schedule",
                self.onex is not None,
                "constant, linear or onex:MIN:POWER, two numbers of 0 or more",
            ),
            ("guidance", math.isfinite(self.guidance), "a finite number"),
            ("top_p", 0 < self.top_p <= 1, "a share above 0, up to 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
        ):
            if not holds:
                raise MaskweaveError(f"{key} is {shown(getattr(self, key))}; expected {expected}")
        limits.check_most("steps", self.steps, limits.TOKENS)

    @property
    def onex(self) -> tuple[float, ...] | None:
        """MIN and POWER of the temperature schedule, nothing for the others; None where it is none of them."""
        name, *numbers = self.temperature_schedule.split(":")
        if name in ("constant", "linear") and not numbers:
            return ()
        try:
            least, power = map(float, numbers)
        except ValueError:
            return None
        return (least, power) if name == "onex" and 0 <= least < math.inf and 0 <= power < math.inf else None


@dataclass(frozen=True)
class Vocabulary:
    """A set of token ids shared by text-like modalities: special tokens, sentinels, special values, whole words, then WordPiece.

    Layout (spec of the published files): 0 [PAD], 1 [UNK], 2 [SOS], 3 [EOS], then [S_0]..., then `v0=0`... prefix by prefix,
    then `words`, then learned pieces.
    """

    name: str
    size: int
    """Ids in all; learned pieces fill what the rest leaves (fewer may be learned)."""
    sentinels: int = 200
    values: dict[str, int] = field(default_factory=dict)
    """Special values by prefix: `{v0: 64}` gives the tokens `v0=0` to `v0=63`."""
    words: tuple[str, ...] = ()
    """Words kept whole, class names for instance."""

    @property
    def first_sentinel(self) -> int:
        return len(SPECIAL_TOKENS)

    @property
    def fixed(self) -> int:
        """Ids taken before the learned pieces."""
        return len(SPECIAL_TOKENS) + self.sentinels + sum(self.values.values()) + len(self.words)


@dataclass(frozen=True)
class Modality:
    """One way of seeing a sample. `name` and `kind` decide nothing but what this entry says."""

    name: str
    id: int
    """Stable number of the modality, from 1 (0 is padding); never reuse one."""
    kind: Kind
    value: Value
    source: str = ""
    """Modality whose values are tokenized, where that is not this one; its value type and size must agree."""
    grid: tuple[int, ...] = ()
    """Tokens along each axis of a grid or of patches."""
    max_tokens: int = 0
    """Longest sequence, end token included, or most vectors."""
    vocabulary: str = ""
    """Set of ids; sequences must name one of the catalog's, grids have their own (named after them)."""
    chunk: int = 1
    """Sequences: tokens masked together, 2 for key-value pairs."""
    positions: Literal["sine", "learned"] = "sine"
    tokenizer: TokenizerSpec | None = None
    """Grids only; defaults apply where an entry gives none."""
    decoding: Decoding = field(default_factory=Decoding)
    input_only: bool = False
    """A grid or sequence that the model reads and never predicts; patches and vectors never are predicted."""

    @property
    def tokens(self) -> int:
        """Most tokens that one sample can have."""
        return math.prod(self.grid) if self.grid else self.max_tokens

    @property
    def patch(self) -> tuple[int, ...]:
        """Points of the value along each axis that one token of a grid or patch stands for."""
        return tuple(s // g for s, g in zip(self.value.size, self.grid, strict=True)) if self.value.size else ()

    @property
    def row_width(self) -> int:
        """Width of one row of raw values: a flattened patch, or a vector."""
        return math.prod(self.patch) * self.value.channels if self.kind == "patches" else self.value.channels

    @property
    def has_tokens(self) -> bool:
        """Whether it has token ids, rather than raw rows."""
        return self.kind in ("grid", "sequence")

    @property
    def is_target(self) -> bool:
        """Whether the model can predict it."""
        return self.has_tokens and not self.input_only

    @property
    def losses(self) -> tuple[str, ...]:
        """Losses that suit a grid's tokenizer; the first is `auto`."""
        diffusion = self.tokenizer is not None and self.tokenizer.diffusion is not None
        return ("mse",) if diffusion else TOKENIZER_LOSSES[self.value.type]

    @property
    def reads(self) -> str:
        """The modality in whose folder this one's values lie."""
        return self.source or self.name
