"""The files of checkpoints: which there are, whether they are complete, and how the processes of a training write one together.

All processes write into one folder with a temporary name; when all have finished, the first process renames it. So a checkpoint is complete or not there,
whenever a process is killed.
"""

import contextlib
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskweave.errors import FullDisk, MaskweaveError, shown
from maskweave.files import digest, is_full_disk, make_durable, read_json, remove, write_aside, write_json
from maskweave.nn.tensor_files import open_file, part_of
from maskweave.training.distributed import DistContext
from maskweave.training.shares import Share

FORMAT = 1
NEEDED = {
    "step": int,
    "world": int,
    "has_ema": bool,
    "settings": dict,
    "seconds": float,
    "metrics": dict,
    "meters": list,
}


def path_of(folder: Path, step: int) -> Path:
    """Path of the checkpoint at a step."""
    return Path(folder) / "checkpoints" / f"step-{step:08d}"


def found_in(folder: Path) -> dict[int, Path]:
    """Returns the checkpoints of a run folder by step."""
    paths = Path(folder, "checkpoints").glob("step-*")
    return {int(path.name[5:]): path for path in paths if re.fullmatch(r"step-\d+", path.name)}


def latest(folder: Path) -> Path | None:
    """Returns the newest readable checkpoint of run `folder`, or None. Unreadable ones are skipped with a warning."""
    for _, path in sorted(found_in(folder).items(), reverse=True):
        try:
            read_state(path)
        except MaskweaveError as error:
            warnings.warn(f"checkpoint skipped: {error}", stacklevel=2)
        else:
            return path
    return None


def read_state(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint's state.json, after checking that all files are complete.

    Raises:
        MaskweaveError: a file is damaged or missing.
    """
    content = read_json(path / "state.json", limit=None)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MaskweaveError(f"{path / 'state.json'}: not the state of a maskweave checkpoint of format {FORMAT}")
    for key, kind in NEEDED.items():
        if not isinstance(content.get(key), kind):
            raise MaskweaveError(
                f"{path / 'state.json'}: {key!r} is {shown(content.get(key))}, expected {kind.__name__}"
            )
    shares = content.setdefault("shares", 1)
    if not isinstance(shares, int) or not 1 <= shares <= content["world"]:
        raise MaskweaveError(f"{path / 'state.json'}: 'shares' is {shown(shares)}, expected 1 to {content['world']}")
    names = ("model", "optimizer", *(["ema"] if content["has_ema"] else []))
    for file in [path / "random.safetensors", *(file for name in names for file in files_of(path, name, shares))]:
        with open_file(file):  # compares the header with the length of the file
            pass
    return content


def files_of(path: Path, name: str, shares: int) -> list[Path]:
    """Returns the files of a checkpoint that hold its `model`, `optimizer` or `ema`."""
    return [part_of(path / f"{name}.safetensors", number, shares) for number in range(shares)]


def weights_digest(path: Path) -> str:
    """Returns a hash of a checkpoint's weights, and of their average."""
    shares = read_state(path)["shares"]
    return digest(*(file for name in ("model", "ema") for file in files_of(path, name, shares)))


class Writing:
    """A checkpoint that the processes of a training are writing. All processes must create it, and later call `commit`.

    Args:
        files: what this process writes, by file names.
        content: of state.json.
        in_background: return at once and write in a thread. `files` must not change then.
    """

    def __init__(
        self, target: Path, ranks: DistContext, files: Mapping[str, Share], content: dict[str, Any], in_background: bool
    ):
        self.target, self._ranks, self._content = target, ranks, content
        self._failure: Exception | None = None
        name = ""
        with contextlib.ExitStack() as stack:
            if ranks.is_main:
                aside = stack.enter_context(write_aside(target))
                aside.mkdir()
                name = aside.name
            self._stack = stack.pop_all()
        self._aside = target.with_name(ranks.gather(name)[0])
        self._thread = threading.Thread(target=self._write, args=(files,), daemon=True) if in_background else None
        if self._thread is not None:
            self._thread.start()
        else:
            self._write(files)

    @property
    def best(self) -> int:
        """Step of the best validation when it was begun. A better one since then may have no checkpoint yet."""
        return int(self._content["best"]["step"])

    def _write(self, files: Mapping[str, Share]) -> None:
        try:
            for name, share in files.items():
                share.save(self._aside / name)
                make_durable(self._aside / name)
        except Exception as error:  # of a thread, which nobody else would notice
            self._failure = error

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether all processes have written their files. All processes must ask."""
        return not self._ranks.any(self._thread is not None and self._thread.is_alive())

    def commit(self) -> None:
        """Waits for all processes; then the checkpoint is there.

        Raises:
            FullDisk: no space was left for a process; earlier checkpoints are unchanged.
            MaskweaveError: a file could not be written for another reason.
        """
        self._wait()
        with self._stack:  # an error removes what was written
            faults = [fault for fault in self._ranks.gather(self._fault()) if fault]
            if any(full for full, _ in faults):
                raise FullDisk(
                    f"no space left while writing {self.target}; free some space and run the same command again"
                ) from self._failure
            if faults:
                raise MaskweaveError(f"{self.target} cannot be written: {faults[0][1]}") from self._failure
            if self._ranks.is_main:
                write_json(self._aside / "state.json", self._content)

    def _fault(self) -> tuple[bool, str] | None:
        """Whether the disk was full, and the error."""
        full = isinstance(self._failure, OSError) and is_full_disk(self._failure)
        return None if self._failure is None else (full, str(self._failure))

    def abandon(self) -> None:
        """Removes what was written, after a failure."""
        self._wait()
        # A process that still writes may put a file into the folder while it is removed; the next start removes the rest.
        with contextlib.suppress(OSError), self._stack:
            raise InterruptedError


def remove_old(folder: Path, step: int, keep: int, best: set[int]) -> None:
    """Removes checkpoints before `step` but the newest `keep`, and those at the steps `best`."""
    for other, path in sorted(found_in(folder).items())[:-keep]:
        if other < step and other not in best:
            remove(path)
