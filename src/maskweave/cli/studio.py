"""`maskweave studio`: its arguments."""

from jsonargparse import ArgumentParser, Namespace

from maskweave.studio.bounds import Bounds
from maskweave.studio.offered import Offered
from maskweave.studio.serve import serve


def studio_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "places",
        metavar="BUNDLE",
        type=str,
        nargs="*",
        help="bundles (folders, or ids on the Hugging Face Hub), runs, indexes, and folders with some of them (default: what the folder runs holds, and the shipped bundle scenes)",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        type=str,
        action="append",
        help="data set to browse: a folder, a file, or a name such as scenes; can be repeated",
    )
    parser.add_argument(
        "--catalog",
        metavar="CATALOG",
        type=str,
        default="",
        help="of the data sets (default: that of the first bundle)",
    )
    parser.add_argument("--port", metavar="N", type=int, help="port on this machine (default: a free one from 7860 on)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page in the browser")
    bounds = Bounds()
    for key, words in (
        ("upload_mb", "size of an uploaded file in MB"),
        ("value_mb", "memory in MB that one value may take while it is read"),
        ("seconds", "duration of a request; then it stops"),
        ("waiting", "requests that may wait"),
        ("samples", "samples of a request"),
    ):
        name = f"--{key.replace('_', '-')}"
        parser.add_argument(name, metavar="N", type=int, default=getattr(bounds, key), help=f"at most: {words}")


def studio(given: Namespace) -> None:
    """Serves the page until it is stopped.

    Raises:
        MaskweaveError: there is nothing to offer, or a number is out of bounds.
    """
    bounds = Bounds(given.upload_mb, given.value_mb, given.seconds, given.waiting, given.samples)
    places, usual = (given.places, "") if given.get("places") else (["scenes"], "runs")
    offered = Offered(places, given.get("data") or [], given.catalog, usual)
    serve(offered, bounds, port=given.get("port"), opens=not given.no_browser)
