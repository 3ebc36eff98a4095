"""What was found out about one folder of files."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Finding:
    """The facts about the files of one modality, and the entry that suits them."""

    name: str
    files: int
    """Number of files."""
    looked: int = 0
    """Files that were read."""
    found: str = ""
    """What the files hold, in words."""
    type: str = ""
    """Value type; empty: undecided."""
    value: dict[str, Any] = field(default_factory=dict)
    """Fields of the value, without its type."""
    why: dict[str, str] = field(default_factory=dict)
    """What a field of the value is based on, for the comment behind it."""
    grid: tuple[int, ...] = ()
    """Tokens along each axis; empty for sequences, and for values that rules tokenize."""
    size: tuple[int, ...] = ()
    """Points along each axis, for types without a field `size`."""
    max_tokens: int = 0
    chunk: int = 1
    special: dict[str, int] = field(default_factory=dict)
    """Special values that its sequences need, by prefix."""
    words: list[str] = field(default_factory=list)
    """Words that its vocabulary must have as one token each."""
    texts: list[str] = field(default_factory=list)
    """Texts that its vocabulary must write."""
    numbers: dict[str, list[float]] = field(default_factory=dict)
    """Numbers by key, of objects with so few that each can be a modality."""
    extents: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Height and width of planes by the sample's name."""
    view: str = ""
    doubts: list[str] = field(default_factory=list)
    """What could not be decided, and what to do about it."""
    faults: list[str] = field(default_factory=list)
    """Why files could not be read."""
    folder: str = ""
    """Name of the folder or column, if the modality has another one."""

    @property
    def place(self) -> str:
        """Name of its folder or column."""
        return self.folder or self.name

    @property
    def is_sequence(self) -> bool:
        return self.max_tokens > 0

    @property
    def is_raw(self) -> bool:
        """Whether the model also reads the unquantized points: numbers, pictures, sounds and videos, but not classes."""
        return self.type in ("image", "map", "series", "audio", "video")

    @property
    def points(self) -> tuple[int, ...]:
        """Points along each axis of a value with a grid."""
        return self.size or tuple(self.value["size"])

    def undecided(self, doubt: str) -> "Finding":
        """Returns this finding without a value type, with the reason."""
        self.doubts.append(doubt)
        return self
