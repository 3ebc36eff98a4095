"""What one person may ask of the studio: sizes, numbers and times. Each bound has an option of `maskweave studio`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from maskweave.deadline import OutOfTime, time_limit
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
    """Duration of a request. Then generating and statistics stop and show what they have, a likelihood and a search give up."""
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

    @property
    def stopped(self) -> str:
        """Why a request stopped at the end of its time."""
        return f"stopped after {self.seconds} s, the time of a request (--seconds)"

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Context of a request that has no result before its end.

        Raises:
            MaskweaveError: its time is over.
        """
        try:
            with time_limit(self.seconds):
                yield
        except OutOfTime as error:
            raise MaskweaveError(self.stopped) from error
