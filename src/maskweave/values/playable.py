"""What a page can play."""

from typing import NamedTuple


class Playable(NamedTuple):
    """A sound or a moving picture."""

    mime: str
    """`audio/…` or `image/…`."""
    content: bytes
