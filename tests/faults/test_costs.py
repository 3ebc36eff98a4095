"""Small files must not cost minutes or gigabytes. A process reads them, and its peak of memory and its time are measured."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import bombs
import pytest
from PIL import Image

from maskweave.data.shards import scan
from maskweave.errors import BadSample
from maskweave.modality.catalogs import load_catalog
from maskweave.values.items import check_items

MEASURE = """
import json, os, sys, time
from pathlib import Path
import maskweave.data.shards, maskweave.modality.catalogs, maskweave.values
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml
from maskweave.modality.catalogs import catalog_from, load_catalog
from maskweave.values.files import read_value
import PIL.Image, PIL.PngImagePlugin, PIL.ImageOps, zipfile, numpy.lib.format
import astropy.io.fits, av, h5py, rasterio, rasterio.io, soundfile, zarr, zarr.storage
def value(settings):
    entry = {"id": 1, "kind": "grid", "grid": [1] * len(settings.get("size", [8, 8])), "value": settings}
    return catalog_from({"modalities": {"x": entry}}, "here")["x"].value
def peak():
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be that of the parent, if it is larger
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
scenes, found = load_catalog("scenes"), []
for kind, path, most in json.load(sys.stdin):
    os.environ["MASKWEAVE_MAX_VALUE_MB"] = most
    before, start, said = peak(), time.process_time(), ""
    try:
        if kind == "catalog":
            catalog_from(read_yaml(path), path)
        elif kind == "tar":
            said = maskweave.data.shards.scan(Path(path)).damage
        else:
            said = str(type(read_value(Path(path), value(kind) if isinstance(kind, dict) else scenes[kind].value)))
    except MaskweaveError as error:
        said = str(error)
    found.append([said, peak() - before, time.process_time() - start])
print(json.dumps(found))
"""
"""Reads files one after another. The peak of memory never falls, so those that need the most come last."""


class Cost(NamedTuple):
    said: str
    memory: float
    """By how many MB the peak of memory grew."""
    seconds: float


def yaml_bombs() -> dict[str, str]:
    many = ", ".join(["*a"] * 20)
    merges = "a: &a {k: 1}\n" + "".join(f"a{n}: &a {{<<: [{many}]}}\n" for n in range(4))
    lists = "a: &a [x, x, x, x, x, x]\n" + "".join(f"a{n}: &a [{many}]\n" for n in range(6))
    entry = "modalities: {{seg: {{id: 1, kind: grid, grid: [4, 4], value: {{type: classes, size: [16, 16], classes: {0}}}}}}}\n"
    return {
        "merges": merges + "modalities: {rgb: *a}\n",
        "classes": lists + entry.format("*a"),
        "modalities": lists + "modalities: *a\n",
        "bins": "vocabularies: {text: {size: 1000}}\nmodalities: {b: {id: 1, kind: sequence, max_tokens: 8, vocabulary: text, value: {type: boxes, classes: [x], bins: 1000000000}}}\n",
    }


NUMBERS = {"type": "map", "size": [8, 8], "range": [0, 64]}
TYPES = {
    ".flac": {"type": "audio", "rate": 16000, "max_seconds": 0.128},
    ".mp4": {"type": "video", "size": [5, 2048, 2048]},
}
"""Types of values by ending; of others: `NUMBERS`."""


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    """What reading each file says and takes."""
    folder = tmp_path_factory.mktemp("bombs")
    cases: dict[str, tuple[str | dict[str, Any], Path, int]] = {}
    for name, text in yaml_bombs().items():
        assert len(text) < 2000
        cases[name] = ("catalog", folder / f"{name}.yaml", 1024)
        cases[name][1].write_text(text, encoding="utf-8")
    cases["tar"] = ("tar", tar_with_header(folder / "x.tar", b"L", 8 * 2**30), 1024)
    (folder / "packed").mkdir()
    for name, path in bombs.write(folder / "packed").items():
        cases[name] = (TYPES.get(path.suffix, NUMBERS), path, 40 if path.suffix == ".mp4" else 128)
    cases["npz"] = ("depth", npz_of_zeros(folder / "x.npz"), 255)
    Image.new("RGB", (4000, 4000)).save(folder / "x.png")
    cases["picture, refused"] = ("rgb", folder / "x.png", 180)
    item = {"class": "red cube", "mask": {"size": [1, 1], "counts": [0, 1]}}
    (folder / "x.json").write_text(json.dumps([item] * 130_000), encoding="utf-8")
    cases["masks"] = ("instances", folder / "x.json", 1024)
    cases["picture"] = ("rgb", folder / "x.png", 184)
    asked = json.dumps([(kind, str(path), str(most)) for kind, path, most in cases.values()])
    done = subprocess.run([sys.executable, "-c", MEASURE], input=asked, capture_output=True, text=True, check=True)
    return dict(zip(cases, [Cost(*found) for found in json.loads(done.stdout)], strict=True))


@pytest.mark.parametrize(
    ("name", "says", "memory", "seconds"),
    [
        *((name, f"{name}.yaml", 100, 2) for name in yaml_bombs()),
        ("tar", "a header of 8,589,93", 50, 1),
        (
            "npz",
            "takes 268,435,456 bytes; expected at most 267,386,880; if you trust the file, raise the environment variable MASKWEAVE_MAX_VALUE_MB",
            50,
            1,
        ),
        ("picture, refused", "decoding 4000 × 4000 pixels takes 192,000,000 bytes", 50, 1),
        ("masks", "130,000 instances; expected at most 2,048", 300, 5),
        ("picture", "ndarray", 184 + 30, 5),
    ],
)
def test_small_files_cost_little(costs: dict[str, Cost], name: str, says: str, memory: float, seconds: float) -> None:
    cost = costs[name]
    assert says in cost.said and cost.memory < memory and cost.seconds < seconds, cost


def test_small_files_that_unpack_to_much_cost_little(costs: dict[str, Cost]) -> None:
    packed = {name: cost for name, cost in costs.items() if "." in name}
    assert len(packed) == 12
    for name, cost in packed.items():
        chunk = "can unpack to" if name.startswith("chunk") else "takes"
        assert cost.memory < 90 and cost.seconds < 3, (name, cost)
        assert ("Sound" if name == "long.flac" else chunk) in cost.said, (name, cost)


def tar_with_header(path: Path, kind: bytes, size: int) -> Path:
    """Writes a small tar with an extended header that claims a size."""
    digits = b"%011o\0" % size if size < 8**11 else (2**95 | size).to_bytes(12, "big")
    header = bytearray(512)
    header[:13], header[100:108], header[124:136], header[156:157] = b"././@LongLink", b"0000644\0", digits, kind
    header[257:265], header[148:156] = b"ustar  \0", b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(header + bytes(9728))
    return path


def npz_of_zeros(path: Path) -> Path:
    """Writes 256 MB of zeros, packed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (8192, 8192), }".ljust(117) + "\n"
        file.write(b"\x93NUMPY\x01\x00" + len(shape).to_bytes(2, "little") + shape.encode())
        for _ in range(256):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    return path


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
@pytest.mark.parametrize("size", [8 * 2**30, 2**40, 2**20 + 1])
def test_headers_of_tars_are_bounded(kind: bytes, size: int, tmp_path: Path) -> None:
    assert "truncated or damaged" in scan(tar_with_header(tmp_path / "x.tar", kind, size)).damage


def test_lists_of_items_are_bounded() -> None:
    with pytest.raises(BadSample, match="expected at most 10,000"):
        check_items([{}] * 10_001, "here", (), "an item")
    with pytest.raises(BadSample, match="2,049 instances; expected at most 2,048"):
        load_catalog("scenes")["instances"].value.check([{}] * 2049, "here")
