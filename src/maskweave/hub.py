"""Folders here or on the Hugging Face Hub."""

import os
from collections.abc import Sequence
from pathlib import Path

from maskweave.errors import MaskweaveError


def folder_of(place: str | os.PathLike[str], patterns: Sequence[str], expected: str) -> Path:
    """The folder `place`, or a downloaded copy of the Hub repository `owner/name`.

    Args:
        patterns: files of the repository that are wanted.
        expected: what should be there, for messages.

    Raises:
        MaskweaveError: there is neither, or the Hub cannot be reached.
    """
    folder, name = Path(place), str(place)
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~", "runs/")):
        if folder.is_dir():
            return folder
        raise MaskweaveError(f"{folder}: no such folder; expected {expected}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise MaskweaveError(
            f"{name}: no such folder here, nor a repository on the Hub that can be reached; expected {expected} ({error})"
        ) from error
