"""Local folders, and repositories on the Hugging Face Hub."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from maskweave.arguments import check_path
from maskweave.errors import MaskweaveError, shown

PREFIX = "hf://"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
BUNDLE = (
    "modalities.yaml",
    "recipe.yaml",
    "calibration.yaml",
    "provenance.json",
    "evaluation.json",
    "model/*",
    "tokenizers/*",
)
"""Patterns of the files of a bundle, which a new one replaces."""
LOCAL = "runs"
"""Folder that commands write to by default; never taken for the owner of a repository."""


def folder_of(
    place: str | os.PathLike[str], patterns: Sequence[str], expected: str, revision: str | None = None
) -> Path:
    """Returns the folder `place`, or a downloaded copy of the Hub repository `owner/name`, `owner/name@REVISION` or `hf://owner/name`.

    The Hub is queried only if `place` can be the id of a repository and neither the folder `place` nor the folder `owner` exists.

    Args:
        patterns: patterns of the files to download.
        expected: what the folder should hold, for messages.
        revision: branch, tag or commit of the repository.

    Raises:
        MaskweaveError: neither exists, the Hub cannot be reached, or a revision is given for a local folder.
    """
    folder = Path(check_path("the place", place))
    if folder.is_dir():
        if revision:
            raise MaskweaveError(f"{folder}: a local folder, which has no revisions; leave out {shown(revision)}")
        return folder
    name, _, given = str(place).removeprefix(PREFIX).partition("@")
    if revision and given and revision != given:
        raise MaskweaveError(
            f"{place}: contains the revision {shown(given)}, but revision is {shown(revision)}; give only one"
        )
    is_hub = str(place).startswith(PREFIX)
    fault = _local_fault(folder, name, is_hub)
    if fault:
        raise MaskweaveError(f"{place}: {fault}; expected {expected}")
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or given or None, allow_patterns=list(patterns)))
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:  # type: ignore[attr-defined]
        missing = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError)
        if isinstance(error, missing):
            fault = "the Hugging Face Hub has no such repository"
        elif isinstance(error, OSError) and error.errno:  # a full disk, for example
            fault = "the download from the Hugging Face Hub failed"
        else:
            fault = "the Hugging Face Hub cannot be reached"
        owner = name.partition("/")[0]
        local = "" if is_hub else f"there is no folder {shown(owner)} in {Path.cwd()}, so it was looked up on the Hub: "
        raise MaskweaveError(f"{place}: {local}{fault} ({_reason(error)}); expected {expected}") from error


def check_hub_id(name: str) -> None:
    """Raises:
    MaskweaveError: a name cannot be the id of a repository.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if not HUB_ID.fullmatch(name):
        raise MaskweaveError(f"{shown(name)} is not a repository id of the Hub; expected OWNER/NAME")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise MaskweaveError(f"{shown(name)} is not a repository id of the Hub ({_reason(error)})") from error


def upload_folder(folder: Path, name: str, private: bool, revision: str, message: str) -> str:
    """Uploads the files of a folder as one commit to a repository, which is made if it does not exist.
    Files of a bundle that the repository has and the folder lacks are deleted; all others stay.

    Returns:
        its URL.

    Raises:
        MaskweaveError: no possible name, not logged in, no right to write there, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, errors

    check_hub_id(name)
    api = HfApi()
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        if revision != "main":
            api.create_branch(name, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, revision=revision, commit_message=message, delete_patterns=list(BUNDLE)
        )
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        advice = "log in with 'hf auth login', as someone who may write there" if status in (401, 403) else "try again"
        raise MaskweaveError(f"{name}: the Hugging Face Hub refused the upload ({_reason(error)}); {advice}") from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
        raise MaskweaveError(
            f"{name}: the Hugging Face Hub cannot be reached ({_reason(error)}); save the bundle to a folder, and push it when you are online"
        ) from error
    return str(url)


def _reason(error: Exception) -> str:
    """Returns an error of the Hub's library in one line, without its advice, which is about that library."""
    text = " ".join(str(error).split())
    return text.split(" An error happened while trying to locate")[0][:500]


def _local_fault(folder: Path, name: str, is_hub: bool) -> str:
    """Returns why a place, which is not a folder, is not looked up on the Hub; empty if it is looked up."""
    if is_hub:
        return "" if HUB_ID.fullmatch(name) else "is not a repository id of the Hub, such as hf://owner/name"
    if folder.exists():
        return "is a file, not a folder"
    owner, slash, _ = name.partition("/")
    if HUB_ID.fullmatch(name) and owner != LOCAL and not Path(owner).exists():
        return ""
    parent = next(path for path in (folder.parent, *folder.parents, Path("/")) if path.exists())
    if parent != folder.parent or not parent.is_dir():
        return f"no such folder; there is no {shown(str(folder.parent))} either"
    folders = [path.name for path in parent.iterdir() if path.is_dir()]
    near = difflib.get_close_matches(folder.name, folders, cutoff=0.5)
    hint = f"; did you mean {str(parent / near[0])!r}?" if near else ""
    hub = f" (write {PREFIX}{name} if you mean the Hub)" if HUB_ID.fullmatch(name) and slash else ""
    return f"no such folder in {shown(str(parent.resolve()))}{hint}{hub}"
