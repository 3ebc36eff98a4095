"""Where a bundle comes from and under which license: `provenance.json`, beside its modalities.

An import records the license that the published files state; a training records the bundles that it started from or took tokenizers of. Nothing is
guessed: a license that nobody states is shown as not stated.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import maskweave
from maskweave.config import build, plain
from maskweave.errors import MaskweaveError
from maskweave.files import max_text_mb, parse_yaml, read_json, write_json

FILE = "provenance.json"
NOT_STATED = "not stated"
LICENSE_FILES = ("README.md", "LICENSE*")
"""Patterns of files beside published weights that may state their license."""


@dataclass(frozen=True)
class Origin:
    """Published weights, or another bundle, that a bundle was made from."""

    part: str
    """What was taken: `model`, `tokenizers/NAME`, `text`, `start`."""
    place: str
    """Name of a folder or file, or Hub id."""
    revision: str = ""
    """Commit on the Hub."""
    license: str = ""
    """As stated there; empty: not stated."""
    license_url: str = ""


@dataclass(frozen=True)
class Provenance:
    """What is known about where a bundle comes from."""

    license: str = ""
    """License of the bundle as a whole, stated by whoever made it."""
    made_with: str = ""
    origins: list[Origin] = field(default_factory=list)

    def describe_license(self) -> str:
        """Returns the license in words; of what was taken from elsewhere, each license with its parts."""
        parts: dict[str, list[str]] = {}
        for origin in self.origins:
            parts.setdefault(origin.license or NOT_STATED, []).append(origin.part)
        taken = "; ".join(f"{license} ({', '.join(names)})" for license, names in parts.items())
        if not taken:
            return self.license or NOT_STATED
        return f"{self.license}; made from: {taken}" if self.license else taken

    def card_license(self) -> str:
        """Returns the only license that is stated, if all that was taken has it too; otherwise empty."""
        stated = {self.license} if self.license else set()
        stated |= {origin.license for origin in self.origins}
        return stated.pop() if len(stated) == 1 else ""


def made_now(license: str = "", origins: list[Origin] | None = None) -> Provenance:
    return Provenance(license, f"maskweave {maskweave.__version__}", origins or [])


def read_provenance(folder: Path) -> Provenance:
    """Returns the record of a bundle; an empty one if there is none.

    Raises:
        MaskweaveError: the file is damaged.
    """
    path = folder / FILE
    return build(Provenance, read_json(path), str(path)) if path.is_file() else Provenance()


def write_provenance(provenance: Provenance, folder: Path) -> None:
    write_json(folder / FILE, plain(provenance))


def origin_of(part: str, place: Any, folder: Path) -> Origin:
    """Returns the origin of files in a folder, with the license stated there: in the head of README.md, as on the Hub, or by a file LICENSE.

    Args:
        place: as the user gave it.
        folder: the local folder or, of the Hub, the local copy, whose name is the commit.
    """
    revision = folder.name if folder.parent.name == "snapshots" else ""
    found = _front_matter(folder / "README.md")
    license, url = str(found.get("license_name") or found.get("license") or ""), str(found.get("license_link") or "")
    if not license:
        files = sorted(path for path in folder.glob("LICENSE*") if path.is_file())
        license = f"see {files[0].name} there" if files else ""
    return Origin(part, place_name(place), revision, license[:200], url[:500])


def carried(start: Path, part: str) -> list[Origin]:
    """Returns the origins of what is made from the bundle or run in a folder: that folder, and what it was made from itself."""
    before = read_provenance(start)
    earlier = [replace(origin, place=place_name(origin.place)) for origin in before.origins]
    return [Origin(part, place_name(start), license=before.license), *earlier]


def place_name(place: str | os.PathLike[str]) -> str:
    """Returns a Hub id as it is, and only the name of a local folder or file: the record is published with the bundle."""
    path = Path(place)
    return path.resolve().name if path.is_absolute() or path.exists() else str(place)


def with_license(provenance: Provenance, license: str) -> Provenance:
    return replace(provenance, license=license) if license else provenance


def _front_matter(readme: Path) -> dict[str, Any]:
    """Returns the YAML between two lines of --- at the head of a page; empty if there is none that can be read."""
    if not readme.is_file() or readme.stat().st_size > max_text_mb() * 2**20:
        return {}
    text = readme.read_text(encoding="utf-8", errors="replace")
    _, start, rest = text.partition("---\n")
    content, end, _ = rest.partition("\n---")
    if not start or not end or text.index("---\n"):
        return {}
    try:
        found = parse_yaml(content, str(readme))
    except MaskweaveError:
        return {}
    return found if isinstance(found, dict) else {}
