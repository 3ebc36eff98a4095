"""Tensors in several files: large models, and checkpoints of which each process wrote some rows."""

import json
from pathlib import Path

import pytest
import torch
from small_bundle import m3ae_bundle, save

from maskweave.errors import MaskweaveError
from maskweave.families import base
from maskweave.families.weights import load_model
from maskweave.modality.catalogs import load_saved_catalog
from maskweave.nn import weights
from maskweave.nn.tensor_files import open_files
from maskweave.nn.weights import load_tensors, open_tensors, save_tensors, save_weights

TENSORS = {"a": torch.arange(6.0).view(3, 2), "b": torch.arange(4), "c": torch.tensor(7.0), "d": torch.zeros(0, 2)}


def test_large_models_are_saved_as_several_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(TENSORS, path, most=40)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["metadata"] == {"total_size": 24 + 32 + 4}
    assert index["weight_map"] == {
        "a": "model-00001-of-00002.safetensors", **dict.fromkeys("bcd", "model-00002-of-00002.safetensors"),
    }  # fmt: skip
    found = {name: torch.full_like(t, -1) for name, t in TENSORS.items()}
    load_tensors(found, path)
    assert all(torch.equal(found[name], t) for name, t in TENSORS.items())
    save_weights(TENSORS, tmp_path / "small.safetensors")
    assert (tmp_path / "small.safetensors").is_file() and not (tmp_path / "small.safetensors.index.json").exists()


def test_a_bundle_of_several_files_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = save(m3ae_bundle(), tmp_path / "one")
    for module in (weights, base):
        monkeypatch.setattr(module, "save_weights", lambda tensors, path: save_weights(tensors, path, most=20_000))
    monkeypatch.setattr("maskweave.families.m3ae.save_weights", base.save_weights)
    several = save(m3ae_bundle(), tmp_path / "several")
    assert len(list((several / "model").glob("model-*.safetensors"))) > 2
    assert not (several / "model" / "model.safetensors").exists()
    a, b = (load_model(folder, load_saved_catalog(folder)).state_dict() for folder in (one, several))
    assert a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


@pytest.mark.parametrize("name", ["../model-00001-of-00002.safetensors", "/tmp/x"])
def test_an_index_names_files_beside_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}), encoding="utf-8")
    with (
        pytest.raises(MaskweaveError, match="expected a file in the same folder"),
        open_tensors(tmp_path / "m.safetensors"),
    ):
        pass
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": [name]}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="'weight_map' is"), open_tensors(tmp_path / "m.safetensors"):
        pass


def write_rows(folder: Path, *parts: slice, total: int = 5) -> list[Path]:
    whole = torch.arange(10.0).view(5, 2)
    files = []
    for number, part in enumerate(parts):
        files.append(folder / f"{number}.safetensors")
        save_tensors({"w": whole[part]}, files[-1], {"rows": json.dumps({"w": [part.start, total]})})
    return files


def test_any_rows_are_read_from_files_with_others(tmp_path: Path) -> None:
    whole = torch.arange(10.0).view(5, 2)
    with open_files(write_rows(tmp_path, slice(3, 5), slice(0, 3), slice(5, 5))) as stored:
        assert torch.equal(stored.get_tensor("w"), whole) and stored.get_slice("w").get_shape() == [5, 2]
        for start in range(5):
            for end in range(start, 6):
                rows = torch.full((end - start, 2), -1.0)
                stored.copy_rows("w", start, rows)
                assert torch.equal(rows, whole[start:end])


@pytest.mark.parametrize(
    "parts", [[slice(0, 3)], [slice(0, 2), slice(3, 5)], [slice(0, 3), slice(2, 5)], [slice(0, 3), slice(0, 3)]]
)
def test_missing_and_double_rows_are_refused(parts: list[slice], tmp_path: Path) -> None:
    with (
        pytest.raises(MaskweaveError, match="the rows of 'w' are not complete"),
        open_files(write_rows(tmp_path, *parts)),
    ):
        pass


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    for rows in ("[1]", '{"w": 3}', "{"):
        save_tensors({"w": torch.zeros(3)}, tmp_path / "x.safetensors", {"rows": rows})
        with pytest.raises(MaskweaveError, match="'rows' cannot be read"), open_files([tmp_path / "x.safetensors"]):
            pass
    files = write_rows(tmp_path, slice(0, 3), slice(3, 5))
    save_tensors({"w": torch.zeros(2, 3)}, files[1], {"rows": '{"w": [3, 5]}'})
    with pytest.raises(MaskweaveError, match="has another shape than in the files beside it"), open_files(files):
        pass
