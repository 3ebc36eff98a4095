"""Folders here or on the Hugging Face Hub."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from maskweave.errors import MaskweaveError, shown

PREFIX = "hf://"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LOCAL = "runs"
"""Where commands write by default, so never the owner of a repository."""


def folder_of(
    place: str | os.PathLike[str], patterns: Sequence[str], expected: str, revision: str | None = None
) -> Path:
    """The folder `place`, or a downloaded copy of the Hub repository `owner/name`, `owner/name@REVISION` or `hf://owner/name`.

    The Hub is asked only for what can be the id of a repository: there is no folder `place`, nor a folder `owner` that it could lie in.

    Args:
        patterns: files of the repository that are wanted.
        expected: what should be there, for messages.
        revision: branch, tag or commit of the repository.

    Raises:
        MaskweaveError: there is neither, the Hub cannot be reached, or a folder here is to have a revision.
    """
    folder = Path(place)
    if folder.is_dir():
        if revision:
            raise MaskweaveError(f"{folder}: is a folder here, which has no revisions; leave out {shown(revision)}")
        return folder
    name, _, given = str(place).removeprefix(PREFIX).partition("@")
    if revision and given and revision != given:
        raise MaskweaveError(f"{place}: names the revision {shown(given)}, and revision is {shown(revision)}; give one")
    fault = _local_fault(folder, name, str(place).startswith(PREFIX))
    if fault:
        raise MaskweaveError(f"{place}: {fault}; expected {expected}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision or given or None, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = " ".join(str(error).split())[:500]
        raise MaskweaveError(
            f"{place}: no such folder here, and the Hugging Face Hub has no such repository or cannot be reached ({said}); "
            f"expected {expected}"
        ) from error


def _local_fault(folder: Path, name: str, is_hub: bool) -> str:
    """Why a place that is no folder is not looked for on the Hub; empty if it is."""
    if is_hub:
        return "" if HUB_ID.fullmatch(name) else "is no id of a repository on the Hub, such as hf://owner/name"
    if folder.exists():
        return "is a file, not a folder"
    owner, slash, _ = name.partition("/")
    if HUB_ID.fullmatch(name) and owner != LOCAL and not Path(owner).exists():
        return ""
    parent = next(path for path in (folder.parent, *folder.parents, Path("/")) if path.exists())
    if parent != folder.parent or not parent.is_dir():
        return f"no such folder; there is no {shown(str(folder.parent))} either"
    there = [path.name for path in parent.iterdir() if path.is_dir()]
    near = difflib.get_close_matches(folder.name, there, n=1, cutoff=0.5)
    hint = f"; did you mean {str(parent / near[0])!r}?" if near else ""
    hub = f" (write {PREFIX}{name} if you mean the Hub)" if HUB_ID.fullmatch(name) and slash else ""
    return f"no such folder in {shown(str(parent.resolve()))}{hint}{hub}"
