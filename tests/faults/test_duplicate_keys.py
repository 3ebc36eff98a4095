"""JSON with a key twice, whose value is not known, is refused wherever it comes from."""

import contextlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from maskweave.data.cells import NamedFiles, cell_part
from maskweave.data.coco import CocoFolder
from maskweave.data.json_lines import JsonLines
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, read_json_lines
from maskweave.modality.catalogs import load_catalog
from maskweave.nn.tensor_files import open_files
from maskweave.values.files import read_json_value
from maskweave.values.formats import zarr_zip
from maskweave.values.formats.base import Selection

SCENES = load_catalog("scenes")


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def in_zarr(folder: Path, text: str) -> None:
    path, selection = written(folder, "x.zarr.zip", ""), Selection()
    meta = {"zarr_format": 3, "node_type": "array", "shape": [1], "data_type": "float32"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/zarr.json", f'{json.dumps(meta)[:-1]}, "attributes": {text}}}')
    zarr_zip.read(path.read_bytes(), "here", selection)


def in_weights(folder: Path, text: str) -> None:
    path = written(folder, "x.safetensors", "")
    save_file({"a": np.zeros((2, 2))}, path, {"rows": text})
    with open_files([path]):
        pass


READ: dict[str, Callable[[Path, str], Any]] = {
    "file": lambda folder, text: read_json(written(folder, "x.json", text)),
    "record": lambda folder, text: read_json(written(folder, "x.json", text), limit=None),
    "value": lambda folder, text: read_json_value(text.encode(), "here"),
    "cell": lambda folder, text: cell_part(text, SCENES["boxes"], "here", NamedFiles(Path()), paths=False),
    "lines": lambda folder, text: JsonLines(written(folder, "x.jsonl", f'{{"a": 1}}\n{{"a": {text}}}\n')),
    "records": lambda folder, text: [*read_json_lines(written(folder, "x.jsonl", f"1\n{text}\n"))],
    "coco": lambda folder, text: CocoFolder(
        str(written(folder, "x.json", f'{{"images": [], "annotations": [], "info": {text}}}'))
    ),
    "zarr": in_zarr,
    "weights": in_weights,
}


@st.composite
def objects(draw: st.DrawFn, twice: bool) -> str:
    """An object, inside of others, one of whose keys appears twice."""
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3))
    pairs = [*draw(st.dictionaries(st.text(max_size=3), scalars, min_size=1, max_size=4)).items()]
    if twice:
        pairs.insert(draw(st.integers(0, len(pairs))), (pairs[0][0], draw(scalars)))
    text = "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}"
    for around in draw(st.lists(st.sampled_from(["[1, %s]", '{"a": %s}', '[{"b": [%s]}, {"b": 2}]']), max_size=3)):
        text = around.replace("%s", text)
    return text


@pytest.mark.parametrize("place", READ)
@settings(max_examples=20, deadline=None)
@given(text=objects(twice=True), other=objects(twice=False))
def test_a_key_that_appears_twice(place: str, text: str, other: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("read")
    with pytest.raises(MaskweaveError, match="the key .* appears twice; remove one"):
        READ[place](folder, text)
    with contextlib.suppress(MaskweaveError):  # such as a cell that is no box
        READ[place](folder, other)
