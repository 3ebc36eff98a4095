"""Damaged parts of bundles, data sets and tokens are refused with one clear message, instead of giving wrong results."""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from truncation import KINDS, TRIES

from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import load
from maskweave.modality.catalogs import load_catalog, load_saved_catalog
from maskweave.tokenizers.text import TextTokenizer

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run whose files may be damaged."""
    ignored = shutil.ignore_patterns("checkpoints", "tokens", "report.html", "sheets", "events*")
    return shutil.copytree(tiny_run, tmp_path / "run", ignore=ignored)


def weights_of(run: Path, rng: random.Random) -> Path:
    return rng.choice(sorted([*run.glob("model/model.safetensors"), *run.glob("tokenizers/*/model.safetensors")]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
@pytest.mark.parametrize("seed", range(2))
def test_weights_that_are_no_weights(run: Path, value: float, seed: int) -> None:
    rng = random.Random(f"{seed} {value}")
    path = weights_of(run, rng)
    tensors = load_file(path)
    name = rng.choice([name for name, t in sorted(tensors.items()) if t.is_floating_point() and t.numel()])
    flat = tensors[name].reshape(-1)
    flat[rng.randrange(len(flat))] = value
    save_file(tensors, path)
    with pytest.raises(MaskweaveError, match=rf"{path}: {name}: has values from .*; expected finite weights"):
        load(run)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_are_converted(run: Path, dtype: torch.dtype) -> None:
    for path in [*run.glob("model/model.safetensors"), *run.glob("tokenizers/*/model.safetensors")]:
        save_file({n: t.to(dtype) if t.is_floating_point() else t for n, t in load_file(path).items()}, path)
    bundle = load(run)
    assert {p.dtype for p in bundle.model.parameters()} == {torch.float32}
    depth = bundle.generate({"rgb": PICTURE}, ["depth"])["depth"]
    assert np.isfinite(depth).all() and depth.min() >= 0 and depth.max() <= 16
    for target in ("caption", "semseg"):
        bundle.generate({"rgb": PICTURE}, [target])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_weights_of_another_kind(run: Path, dtype: torch.dtype) -> None:
    path = weights_of(run, random.Random(str(dtype)))
    tensors = load_file(path)
    name = next(name for name, t in sorted(tensors.items()) if t.is_floating_point())
    save_file({**tensors, name: tensors[name].to(dtype)}, path)
    with pytest.raises(MaskweaveError, match=rf"{name}: has type {dtype}, expected torch.float32"):
        load(run)


@pytest.mark.parametrize("seed", range(4))
def test_two_exchanged_ids_of_a_text_tokenizer(run: Path, seed: int) -> None:
    file = next(run.glob("tokenizers/*/tokenizer.json"))
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    one, other = random.Random(seed).sample(sorted(vocabulary), 2)
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    file.write_text(json.dumps(content), encoding="utf-8")
    for call in (lambda: load(run), lambda: TextTokenizer.load(file.parent)):
        with pytest.raises(MaskweaveError, match="tokenizer.json: has changed since it was made"):
            call()


@pytest.mark.parametrize("seed", range(4))
def test_tokens_truncated_while_they_are_mapped(tiny_run: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    shutil.copytree(tiny_run / "tokens" / "train", tmp_path / "tokens")
    data = TokenData(tmp_path / "tokens", load_saved_catalog(tiny_run))
    everything = np.arange(len(data))
    data.columns(everything)
    shards = sorted((tmp_path / "tokens").glob("*/*.safetensors"))
    path = rng.choice(shards)
    os.truncate(path, rng.randrange(path.stat().st_size))
    with pytest.raises(MaskweaveError, match=rf"{path}: was changed while it was read"):
        data.columns(everything)
    with pytest.raises(MaskweaveError, match="truncated"):
        TokenData(tmp_path / "tokens", load_saved_catalog(tiny_run)).columns(everything)
    path.unlink()
    with pytest.raises(MaskweaveError, match="was changed while it was read"):
        data.columns(everything)


@pytest.fixture(scope="module")
def truncated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What came of the use of opened files that were truncated."""
    tests = Path(__file__).parent
    command = [sys.executable, str(tests / "truncation.py"), str(tiny_run), str(tmp_path_factory.mktemp("cut"))]
    paths = os.pathsep.join([str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert not done.returncode, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_truncated_after_they_were_opened(truncated: dict[str, list[str]], kind: str) -> None:
    """Never a signal: the values that were there, or a message."""
    assert len(truncated[kind]) == TRIES
    for said in truncated[kind]:
        assert said == "same" or "was changed while it was read" in said or "probably truncated" in said, said


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "in" / "depth").mkdir(parents=True)
    for i in range(6):
        np.save(tmp_path / "in" / "depth" / f"{i}.npy", np.full((4, 4), i + 1, np.float32))
    import_folders(tmp_path / "in", tmp_path / "out", load_catalog("scenes"), shard_size=3)
    return tmp_path / "out"


@pytest.mark.parametrize("seed", range(12))
def test_an_index_that_was_edited(shards: Path, seed: int) -> None:
    """No sample gets the values of another, and none loses its values silently."""
    rng = random.Random(seed)
    path = rng.choice([shards / "index.json", shards / ".index" / "shard-00000.json"])
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "index.json":
        change = [
            lambda: content["shards"].update({"shard-00000": 2}),
            lambda: content["shards"].pop("shard-00001"),
            lambda: content["modalities"]["depth"]["value"].update(channels=3),
        ][seed % 3]
    else:
        change = [
            lambda: content["keys"].__setitem__(1, "other"),
            lambda: content["keys"].pop(),
            lambda: content["keys"].append("3"),
            lambda: content["modalities"]["depth"].update(bytes=1024),
            lambda: content["modalities"]["depth"].update(samples=1),
            lambda: content["keys"].__setitem__(0, 5),
        ][seed % 6]
    change()
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        found = Shards(shards, load_catalog("scenes"))
        values = [int(found[i]["depth"][0, 0]) for i in range(len(found))]
    except MaskweaveError as error:
        assert any(word in str(error) for word in ("index", "import", "channels", "restore"))
    else:
        assert found.problems and "as imported" in found.problems[0]
        assert [found.key(i) for i in range(len(found))] == [str(value - 1) for value in values]


@pytest.mark.parametrize("seed", range(20))
def test_tars_with_changed_bytes(shards: Path, seed: int) -> None:
    """A sample of a damaged tar has its own value, or is refused."""
    rng = random.Random(seed)
    path = shards / "depth" / "shard-00000.tar"
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        header = rng.randrange(3) * 1024 + rng.randrange(512)
        content[header] = rng.randrange(256)
    path.write_bytes(content)
    try:
        found = Shards(shards, load_catalog("scenes"))
    except MaskweaveError:
        return
    for i in range(len(found)):
        try:
            sample = found[i]
        except MaskweaveError:
            continue
        assert "depth" in sample and found.key(i) == str(int(sample["depth"][0, 0]) - 1)


def test_a_set_of_tars_without_samples(tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    for n in range(2):
        tarfile.open(tmp_path / "depth" / f"shard-{n:05d}.tar", "w").close()
    with pytest.raises(MaskweaveError, match="no samples"):
        Shards(tmp_path, load_catalog("scenes"))
