"""What one person may ask of the studio: sizes, numbers and times. Each bound has an option of `maskweave studio`."""

from dataclasses import dataclass

from maskweave.errors import MaskweaveError, shown

MOST_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Bounds:
    """Bounds of the requests that a page may send."""

    upload_mb: int = 20
    """Size of an uploaded file in MB."""
    value_mb: int = 512
    """Memory in MB that one value may take while it is read."""
    seconds: int = 60
    """Duration of a request; then it stops and shows what it has."""
    waiting: int = 16
    """Requests that may wait; further ones are refused."""
    samples: int = 8
    """Samples of a request, or members of an ensemble."""

    def __post_init__(self) -> None:
        most = {"upload_mb": 4096, "value_mb": 2**20, "seconds": MOST_SECONDS, "waiting": 1000, "samples": 1000}
        for key, limit in most.items():
            number = getattr(self, key)
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= limit:
                raise MaskweaveError(
                    f"--{key.replace('_', '-')} is {shown(number)}; expected a whole number, 1 to {limit:,}"
                )
