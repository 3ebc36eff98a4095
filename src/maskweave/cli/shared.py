"""Arguments of several commands: the device, and the part of a job."""

from jsonargparse import ArgumentParser, Namespace

from maskweave import ranks
from maskweave.errors import MaskweaveError
from maskweave.ranks import WHOLE, JobPart


def device_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="DEVICE", type=str, default="auto", help="auto (a GPU if there is one), cpu, cuda, ..."
    )


def part_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=str,
        help="do part I of N, from 0 to N - 1, of the shards; parts may run at any time, and the last one finishes the job. 'finish': only finish",
    )


def part_of(given: Namespace) -> JobPart:
    """The part of a job that was typed.

    Raises:
        MaskweaveError: it is none, or a launcher divides the job already.
    """
    if not given.get("part"):
        return WHOLE
    if ranks.world() > 1:
        raise MaskweaveError(
            "--part is for processes that are not connected, but this one was launched with others, which share the job; remove it"
        )
    return JobPart.parse(given.part)
