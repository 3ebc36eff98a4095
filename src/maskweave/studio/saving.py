"""Saved requests: a ZIP file with the request, its files, its Python code and its command line, which run where it is unpacked.

request.json      what `open_request` reads
request.py        Python code
command.sh        command line
schedule.yaml     the steps
inputs/NAME.EXT   values, written by their types; edit/NAME.png masks
"""

import io
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maskweave.config import build
from maskweave.errors import MaskweaveError, shown
from maskweave.files import parse_json
from maskweave.generate.bundle import Bundle
from maskweave.generate.request import twin
from maskweave.modality.catalogs import Catalog
from maskweave.studio.bounds import Bounds
from maskweave.studio.desk import DECODING
from maskweave.studio.request import SCHEDULE, StudioRequest, as_command, as_python, schedule_text
from maskweave.values.binary import Binary
from maskweave.values.formats import split_ending

FORMAT = 1
RECORD = "request.json"
MOST_MEMBERS = 1000
UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
TIME = (1980, 1, 1, 0, 0, 0)
"""Date of all members, so that equal requests give equal files."""


def save_request(request: StudioRequest, bundle: Bundle, name: str) -> bytes:
    """Returns the ZIP file of a request.

    Args:
        name: of the bundle, as the command line takes it.

    Raises:
        MaskweaveError: the request is invalid.
    """
    catalog = bundle.catalog
    files = request.files(catalog)
    texts = {n: value for n, value in request.inputs.items() if not any(f.startswith(f"inputs/{n}.") for f in files)}
    regions = {n: region for n, region in request.edit.items() if not isinstance(region, np.ndarray)}
    facts = {
        "format": FORMAT,
        "bundle": name,
        "inputs": {"order": list(request.inputs), "texts": texts},
        "targets": list(request.targets),
        "decoding": {n: dict(changes) for n, changes in request.decoding.items()},
        "conditions": dict(request.conditions),
        "guide_with_finished": request.guide_with_finished,
        "chain": request.chain,
        "edit": regions,
        "seed": request.seed,
        "samples": request.samples,
        "ensemble": request.ensemble,
        "own_schedule": bool(request.schedule),
    }
    contents = {
        RECORD: json.dumps(facts, indent=1, ensure_ascii=False).encode(),
        "request.py": as_python(request, catalog, name).encode(),
        "command.sh": as_command(request, catalog, name).encode() + b"\n",
        SCHEDULE: schedule_text(request.schedule_of(bundle)).encode(),
        **files,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in contents.items():
            archive.writestr(zipfile.ZipInfo(path, TIME), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def open_request(content: bytes, catalog: Catalog, bounds: Bounds, where: str = "saved request") -> StudioRequest:
    """Returns the request in a ZIP file. Nothing is unpacked to the disk, and every value is checked.

    Raises:
        MaskweaveError: it is no saved request, is too large, or does not fit the catalog.
    """
    members = _members(content, bounds, where)
    if RECORD not in members:
        raise MaskweaveError(f"{where}: has no {RECORD}; give a file that 'Save the request' wrote")
    try:
        facts = parse_json(members[RECORD].decode())
    except (ValueError, RecursionError) as error:
        raise MaskweaveError(f"{where}: {RECORD} is not JSON") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise MaskweaveError(f"{where}: is of another version; save the request again")
    given, regions = facts.pop("inputs", None), facts.pop("edit", None)
    own_schedule = facts.pop("own_schedule", False)
    for key in ("format", "bundle"):
        facts.pop(key, None)
    if not isinstance(given, dict) or not isinstance(regions, dict) or not isinstance(given.get("texts"), dict):
        raise MaskweaveError(f"{where}: {RECORD} lacks its inputs; save the request again")
    order = given.get("order")
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise MaskweaveError(f"{where}: {RECORD} has inputs {shown(order)}; expected names")
    inputs = {name: _value(name, given["texts"], members, catalog, where) for name in order}
    edit = {str(name): _region(region, name, where) for name, region in regions.items()}
    for path in members:
        if path.startswith("edit/"):
            name = split_ending(Path(path).name)[0]
            catalog[name]
            edit[name] = Binary(size=catalog[name].value.size or (1, 1)).read(members[path], "png", f"{where}: {path}")
    schedule = members.get(SCHEDULE, b"").decode(errors="replace") if own_schedule else ""
    request = replace(build(StudioRequest, {**facts, "schedule": schedule}, where), inputs=inputs, edit=edit)
    _check(request, catalog, where)
    return request


def _check(request: StudioRequest, catalog: Catalog, where: str) -> None:
    """Checks that a request fits the catalog, and that the form can show it."""
    for name, changes in request.decoding.items():
        for key, value in changes.items():
            kind = DECODING.get(key)
            if kind is None:
                raise MaskweaveError(
                    f"{where}: decoding of {shown(name)} has {shown(key)}; expected {', '.join(DECODING)}"
                )
            if not (isinstance(value, str) if kind is str else _is_number(value)):
                expected = "a name" if kind is str else "a number"
                raise MaskweaveError(f"{where}: {key} of {shown(name)} is {shown(value)}; expected {expected}")
    for name, weight in request.conditions.items():
        if not _is_number(weight):
            raise MaskweaveError(f"{where}: condition {shown(name)} is {shown(weight)}; expected a number")
        for part in name.split("+"):
            catalog[part]
    for name in (*request.targets, *request.edit):
        twin(catalog, name)
    request.options(catalog)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def _members(content: bytes, bounds: Bounds, where: str) -> dict[str, bytes]:
    most = bounds.upload_mb * 2**20
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            if len(infos) > MOST_MEMBERS or sum(info.file_size for info in infos) > most:
                raise MaskweaveError(
                    f"{where}: its {len(infos):,} files are larger than {bounds.upload_mb} MB together, or more than {MOST_MEMBERS:,}"
                )
            found = {}
            for info in infos:
                with archive.open(info) as member:
                    found[info.filename] = member.read(most + 1)
            return found
    except (*UNREADABLE, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, MaskweaveError):
            raise
        raise MaskweaveError(f"{where}: no readable ZIP file; give a file that 'Save the request' wrote") from error


def _value(name: str, texts: Mapping[str, Any], members: Mapping[str, bytes], catalog: Catalog, where: str) -> Any:
    value = catalog[name].value
    at = f"{where}: input {name!r}"
    if name in texts:
        return value.check(texts[name], at)
    paths = [path for path in members if split_ending(path)[0] == f"inputs/{name}"]
    if not paths:
        raise MaskweaveError(f"{at}: its file is missing; save the request again")
    found = value.read(members[paths[0]], split_ending(paths[0])[1], at)
    if found is None:
        raise MaskweaveError(f"{at}: its file holds no value; save the request again")
    return found


def _region(region: Any, name: str, where: str) -> Any:
    if isinstance(region, (str, int, float)) and not isinstance(region, bool):
        return region
    if isinstance(region, list) and len(region) == 4 and all(isinstance(x, (int, float)) for x in region):
        return region
    raise MaskweaveError(f"{where}: edit of {name!r} is {shown(region)}; expected a share, a box or words")
