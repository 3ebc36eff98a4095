"""What a modality is: one declarative entry, validated. Everything else in the library follows from its kind and value type.

A catalogue is a YAML file of entries and of the vocabularies that they share. Names follow 4M (https://arxiv.org/abs/2312.06647).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from maskweave.errors import MaskweaveError

Kind = Literal["grid", "sequence", "patches", "vectors"]
ValueType = Literal[
    "image", "map", "direction", "classes", "binary", "vector", "text", "boxes", "palette", "metadata", "instances"
]

DENSE_TYPES = ("image", "map", "direction", "classes", "binary")
"""Value types that are arrays over a lattice of points; `vector` is an array too, but has no lattice."""
STRUCTURED_TYPES = ("text", "boxes", "palette", "metadata", "instances")
"""Value types that are written as text-like tokens."""

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
    """Whole numbers: decoded to the nearest whole number rather than to a bin's centre."""
    unit: str = ""


@dataclass(frozen=True)
class Value:
    """What a modality's value is, outside the model.

    | type | in Python |
    | --- | --- |
    | image | uint8 (*size, channels), 0 to 255 |
    | map | float32 (*size, channels), or (*size) for one channel, in `unit`, within `range` |
    | direction | float32 (*size, 3), unit vectors in the camera frame: x right, y up, z towards the viewer |
    | classes | integers (*size), indices into `classes` |
    | binary | bool (*size) |
    | vector | float32 (channels,) |
    | text | str |
    | boxes | list of {"class": str, "box": [xmin, ymin, xmax, ymax]}, coordinates 0 to 1 from the top left |
    | palette | list of [red, green, blue], 0 to 255 |
    | metadata | {key: number} |
    | instances | list of {"class": str, "mask": bool (*size)} |
    """

    type: ValueType
    size: tuple[int, ...] = ()
    """Extent of the value's lattice: (length,), (height, width) or (frames, height, width)."""
    channels: int = 1
    range: tuple[float, float] | None = None
    """Lowest and highest value of a map; checked, and scaled to [-1, 1] for the network."""
    unit: str = ""
    classes: tuple[str, ...] = ()
    """Class names by index: of class maps, boxes and instances."""
    bins: int = 64
    """Bins of each box coordinate (0 to 1), or of each palette colour (0 to 255)."""
    mask: tuple[int, int] = (8, 8)
    """Instances: rows and columns of the lattice, stretched over its box, on which a mask is written; at most 8 columns."""
    keys: dict[str, Key] = field(default_factory=dict)
    """Metadata keys by name."""
    max_items: int = 0
    """Most boxes, colours or instances that are written; the rest is dropped from the end. 0: as many as fit."""
    max_characters: int = 10_000
    """Text longer than this is refused."""
    mean: tuple[float, ...] = ()
    """Of an image, per channel, in units of 0 to 1; with `deviation` used in place of scaling to [-1, 1]."""
    deviation: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quantiser:
    """How a tokenizer turns latents into codes."""

    type: Literal["fsq", "vq", "lfq", "memcodes"] = "vq"
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """FSQ: levels of each latent channel; the codebook size is their product."""
    codes: int = 1024
    """VQ, LFQ and Memcodes: codebook size (a power of two for LFQ)."""
    dim: int = 16
    """VQ and Memcodes: width of the latent that is quantised."""
    heads: int = 1
    """Memcodes: number of codebooks, and so of tokens a latent gives."""

    @property
    def size(self) -> int:
        return math.prod(self.levels) if self.type == "fsq" else self.codes

    @property
    def latent_dim(self) -> int:
        """Channels of the latent handed to the quantiser."""
        match self.type:
            case "fsq":
                return len(self.levels)
            case "lfq":
                return int(math.log2(self.codes))
            case _:
                return self.dim


@dataclass(frozen=True)
class TokenizerSpec:
    """The network that turns values of a grid modality into codes and back."""

    model: Literal["vit", "mlp"] = "vit"
    width: int = 64
    heads: int = 2
    depth: int = 1
    """Blocks of the encoder."""
    decoder_depth: int = 1
    loss: Literal["auto", "mse", "smooth_l1", "cosine", "cross_entropy", "binary"] = "auto"
    """`auto` follows the value type: mse for images, smooth_l1 for maps and vectors, cosine for directions, cross_entropy for classes, binary for binary."""
    quantiser: Quantiser = field(default_factory=Quantiser)


@dataclass(frozen=True)
class Decoding:
    """How a modality is generated unless a request says otherwise."""

    scheme: Literal["maskgit", "roar", "autoregressive"] = "roar"
    steps: int = 8
    """Passes of the decoder over a grid; sequences take one per token."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""

    def __post_init__(self) -> None:
        for key, holds, expected in (
            ("steps", self.steps >= 1, "1 or more"),
            ("temperature", 0 <= self.temperature < math.inf, "a number of 0 or more"),
            ("top_p", 0 < self.top_p <= 1, "a share above 0, up to 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
        ):
            if not holds:
                raise MaskweaveError(f"{key} is {getattr(self, key)}; expected {expected}")


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
    """Modality whose values are tokenised, where that is not this one; its value type and size must agree."""
    grid: tuple[int, ...] = ()
    """Tokens along each axis of a grid or of patches."""
    max_tokens: int = 0
    """Longest sequence, end token included, or most vectors."""
    vocabulary: str = ""
    """Set of ids; sequences must name one of the catalogue's, grids have their own (named after them)."""
    chunk: int = 1
    """Sequences: tokens masked together, 2 for key-value pairs."""
    positions: Literal["sine", "learned"] = "sine"
    tokenizer: TokenizerSpec | None = None
    """Grids only; defaults apply where an entry gives none."""
    decoding: Decoding = field(default_factory=Decoding)

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
    def is_target(self) -> bool:
        """Whether the model can predict it."""
        return self.kind in ("grid", "sequence")

    @property
    def reads(self) -> str:
        """The modality in whose folder this one's values lie."""
        return self.source or self.name
