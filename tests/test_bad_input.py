"""Bad input, at the command line: one clear message that names the thing, what was expected and what to do; exit code 1; nothing lost.

The checks themselves are tested beside the code that makes them; here is what a user sees.
"""

import errno
import io
import json
import os
import shlex
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskweave import files
from maskweave.cli.main import main
from maskweave.files import read_yaml, write_yaml
from maskweave.generate.bundle import load
from maskweave.training.metrics import read_metrics

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must fail with one clear message, and returns what it said."""

    def run(*words: str | Path, says: tuple[str, ...]) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        message = said[said.index(f"maskweave {words[0]}") :]
        for part in says:
            assert part in message, message
        return message

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Aligned folders of ten samples."""
    root = tmp_path / "in"
    rng = np.random.default_rng(0)
    for name in ("rgb", "depth", "semseg", "caption", "boxes"):
        (root / name).mkdir(parents=True)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / "rgb" / f"{i}.png")
        np.save(root / "depth" / f"{i}.npy", rng.uniform(1, 9, (64, 64)).astype(np.float32))
        Image.fromarray(rng.integers(0, 6, (64, 64), np.uint8)).save(root / "semseg" / f"{i}.png")
        (root / "caption" / f"{i}.txt").write_text(f"picture {i}", encoding="utf-8")
        (root / "boxes" / f"{i}.json").write_text(
            json.dumps([{"class": "red cube", "box": [0.1, 0.1, 0.5, 0.5]}]), encoding="utf-8"
        )
    return root


def imported(root: Path, *more: str) -> list[str]:
    return ["data", "import", str(root), str(root.parent / "out"), "--catalog", "scenes", *more]


# Recipes and what is typed.


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "catalog: scenes\ndata: {samples: 5}\ntrain: {stepz: 3}",
            ("own.yaml", "'train.stepz'", "did you mean 'train.steps'"),
        ),
        (
            "catalog: scenes\ndata: {samples: 5}\nmodalities: [depht]",
            ("own.yaml", "unknown modality 'depht'", "known: rgb"),
        ),
        (
            "catalog: scenes\ndata: {samples: 5}\ntrain: {steps: lots}",
            ("own.yaml", "'train.steps'", "a whole number", "'lots'"),
        ),
        (
            "catalog: scenes\ndata: {samples: 5}\nmodel: {width: 50, heads: 4}",
            ("own.yaml", "width 50", "even multiple of heads 4"),
        ),
        ("catalog: gone.yaml", ("own.yaml", "gone.yaml", "no such file")),
        ("catalog: [", ("own.yaml", "not valid YAML")),
    ],
)
@pytest.mark.parametrize("command", ["run", "recipe check"])
def test_recipe(command: str, content: str, says: tuple[str, ...], tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "own.yaml").write_text(content, encoding="utf-8")
    more = ["--out", tmp_path / "run"] if command == "run" else []
    refused(*command.split(), tmp_path / "own.yaml", *more, says=says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--train.stepz", "5"], ("'--train.stepz'", "did you mean '--train.steps'", "--help")),
        (["--train.steps", "many"], ("--train.steps", "a whole number", "many")),
        (["--train.schedule", "linear"], ("--train.schedule", "'cosine', 'constant'", "linear")),
        (["--train.steps", "-3"], ("steps is -3", "1 or more")),
    ],
)
def test_typed_keys(
    words: list[str], says: tuple[str, ...], tiny_recipe: Path, tmp_path: Path, refused: Refused
) -> None:
    refused("run", tiny_recipe, "--out", tmp_path / "run", *words, says=says)
    assert not (tmp_path / "run").exists()


def test_a_grid_that_does_not_divide(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "own.yaml").write_text(
        "modalities:\n  heat: {id: 1, kind: grid, grid: [5, 5], value: {type: map, size: [64, 64], range: [0, 1]}}\n",
        encoding="utf-8",
    )
    refused(
        "modalities",
        tmp_path / "own.yaml",
        says=("own.yaml", "'heat'", "grid (5, 5)", "must divide value.size (64, 64)"),
    )


@pytest.mark.parametrize("word", ["\0", "x" * 5000, "a red cube", ""])
def test_text_that_is_no_path(word: str, tiny_run: Path, tmp_path: Path, refused: Refused) -> None:
    refused(
        "generate",
        tiny_run,
        "--input",
        f"rgb={word}",
        "--target",
        "depth",
        "--out",
        tmp_path / "o",
        says=("input 'rgb'", "no such file"),
    )
    assert not (tmp_path / "o").exists()


def test_paths_that_cannot_be(tiny_recipe: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path in ("x" * 5000, tmp_path / "file" / "below"):
        refused("recipe", "check", path, says=("check the path",) if isinstance(path, str) else ("file/below",))
        refused("run", tiny_recipe, "--out", path, says=("check the path",))
    refused("evaluate", tmp_path / "gone", says=("gone", "no such folder", "'maskweave run'"))
    refused("run", tmp_path, says=("is a folder, expected a YAML file",))


# Folders.


def test_empty_or_missing_folder(tmp_path: Path, refused: Refused) -> None:
    refused(*imported(tmp_path / "gone"), says=("gone", "no such folder", "one folder per modality"))
    (tmp_path / "empty").mkdir()
    refused(*imported(tmp_path / "empty"), says=("empty: is empty", "expected folders named", "rgb"))
    (tmp_path / "empty" / "rgb").mkdir()
    refused(*imported(tmp_path / "empty"), says=("rgb: contains no files", "NAME.EXT", "png"))
    refused("data", "label", tmp_path / "gone", says=("gone",))


def test_a_folder_without_matching_names(root: Path, refused: Refused) -> None:
    for path in (root / "depth").iterdir():
        path.rename(path.with_name(f"other{path.name}"))
    refused(
        *imported(root), says=("depth: none of its 10 file names", "in the folder of another modality", "the same name")
    )


def test_a_data_set_too_small_or_missing(root: Path, tmp_path: Path, refused: Refused) -> None:
    assert main(imported(root)) == 0
    (tmp_path / "own.yaml").write_text(
        f"catalog: scenes\nmodalities: [depth]\ndata: {{source: {tmp_path / 'out'}, validation: 10}}\n",
        encoding="utf-8",
    )
    refused(
        "run",
        tmp_path / "own.yaml",
        "--out",
        tmp_path / "run",
        says=("has 10 samples, too few to hold out 10", "lower data.validation"),
    )
    refused("recipe", "check", tmp_path / "own.yaml", says=("has 10 samples, too few to hold out 10",))
    refused(
        "run",
        tmp_path / "own.yaml",
        "--out",
        tmp_path / "run2",
        "--data.source",
        tmp_path / "gone",
        says=("gone", "no such folder"),
    )


# Single samples: skipped, counted, named; too many stop the job.


def big_picture() -> bytes:
    """A small file whose header tells of 70,000 × 70,000 pixels."""
    content = png(np.zeros((8, 8), np.uint8))
    header = b"IHDR" + struct.pack(">II", 70_000, 70_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def npy(value: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, value, allow_pickle=True)
    return content.getvalue()


def deep(value: float) -> bytes:
    depth = np.full((64, 64), 3, np.float32)
    depth[5, 5] = value
    return npy(depth)


FAULTS: dict[str, tuple[str, Callable[[bytes], bytes], tuple[str, ...]]] = {
    "truncated picture": ("rgb/3.png", lambda old: old[: len(old) // 2], ("3.png", "corrupt or truncated", "replace")),
    "corrupt picture": ("rgb/3.png", lambda old: old[:40] + bytes(1000), ("3.png", "corrupt or truncated")),
    "no picture": ("rgb/3.png", lambda old: b"hello", ("3.png", "corrupt or truncated")),
    "empty file": ("rgb/3.png", lambda old: b"", ("3.png", "the file is empty")),
    "giant picture": ("semseg/3.png", lambda old: big_picture(), ("3.png", "too large", "4900000000 pixels", "expected at most 64,000,000")),
    "truncated npy": ("depth/3.npy", lambda old: old[:-9], ("3.npy", "expected")),
    "pickled npy": ("depth/3.npy", lambda old: npy(np.array([{}], object)), ("3.npy", "never unpickled")),
    "NaN depth": ("depth/3.npy", lambda old: deep(np.nan), ("3.npy", "1 of 4096 values NaN or infinite", "set the entry's value.missing: nan")),
    "infinite depth": ("depth/3.npy", lambda old: deep(np.inf), ("3.npy", "NaN or infinite", "finite")),
    "depth in millimeters": ("depth/3.npy", lambda old: deep(3000), ("3.npy", "3000", "0 to 16 m", "check the unit")),
    "class id": ("semseg/3.png", lambda old: png(np.full((64, 64), 6, np.uint8)), ("3.png", "class ids from 6 to 6", "0 to 5", "renumber")),
    "broken json": ("boxes/3.json", lambda old: old[:-5], ("3.json", "JSON")),
    "unknown class": ("boxes/3.json", lambda old: old.replace(b"red", b"pink"), ("3.json", "'pink cube'", "one of the entry's")),
    "box in pixels": ("boxes/3.json", lambda old: old.replace(b"0.5", b"32"), ("3.json", "0 to 1", "if these are pixels")),
    "endless caption": ("caption/3.txt", lambda old: b"a " * 50_000, ("3.txt", "100,000 characters", "at most 10,000", "shorten")),
    "caption in latin-1": ("caption/3.txt", lambda old: "déjà".encode("latin-1"), ("3.txt", "UTF-8")),
}  # fmt: skip


def png(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize("fault", FAULTS)
def test_one_unusable_file(fault: str, root: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    name, change, says = FAULTS[fault]
    (root / name).write_bytes(change((root / name).read_bytes()))
    refused(*imported(root), says=("1 of 10 samples have unusable values", "1.0%", *says, "raise the limit"))
    assert main(imported(root, "--limit", "0.2")) == 0, "the job goes on where it stopped"
    said = capsys.readouterr().out
    assert "10 samples" in said and "dropped 1 values of 1 samples" in said and all(part in said for part in says)
    assert f"{name.split('/')[0]} 9" in said
    assert main(imported(root, "--limit", "0.2", "--bad", "sample")) == 0
    said = capsys.readouterr().out
    assert "9 samples" in said and "skipped 1 of 10 samples" in said and all(part in said for part in says)


def test_a_damaged_tar(root: Path, tmp_path: Path, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(imported(root)) == 0
    tar = tmp_path / "out" / "depth" / "shard-00000.tar"
    with tarfile.open(tar) as opened:
        member = opened.getmember("3.npy")
    content = bytearray(tar.read_bytes())
    content[member.offset_data + 200 : member.offset_data + 204] = np.float32(np.nan).tobytes()
    tar.write_bytes(content)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        f"catalog: scenes\nmodalities: [depth]\ndata: {{source: {tmp_path / 'out'}, validation: 2, split: {{by: order}}}}\ntokenizers: {{train: {{steps: 1, batch_size: 4}}}}\n",
        encoding="utf-8",
    )
    refused(
        "tokenizer", recipe, "--out", tmp_path / "run", says=("1 of 8 samples are unusable", "3", "NaN or infinite")
    )
    tar.write_bytes(content[:5000])
    refused("tokenizer", recipe, "--out", tmp_path / "run", says=("depth/shard-00000.tar", "truncated"))
    assert not (tmp_path / "run" / "tokenizers" / "depth").exists()


# Inputs of a trained model.


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("depth=3channels.npy", ("input 'depth'", "shape (64, 64, 3)", "1 channel")),
        ("depth=far.npy", ("far.npy", "3000", "0 to 16 m", "check the unit")),
        ("depth=short.npy", ("short.npy", "expected", "16")),
        ("rgb=float.npy", ("float.npy", "float64", "uint8, 0 to 255")),
        ("rgb=note.txt", ("note.txt", "'txt' cannot hold", "png")),
        ("semseg=classes.png", ("classes.png", "class ids", "0 to 5")),
        ("caption=" + "a " * 50_000, ("caption", "100,000 characters", "at most 10,000")),
        ("dpeth=far.npy", ("unknown modality 'dpeth'", "known: rgb")),
        ("depth", ("'depth'", "expected NAME=VALUE")),
    ],
    ids=lambda item: item.split("=")[0] if isinstance(item, str) else "",
)
def test_inputs_that_do_not_fit(
    given: str, says: tuple[str, ...], tiny_run: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("3channels.npy", np.ones((64, 64, 3), np.float32))
    np.save("far.npy", np.full((64, 64), 3000, np.float32))
    np.save("float.npy", np.ones((64, 64, 3)))
    Path("short.npy").write_bytes(deep(1)[:-20])
    Path("note.txt").write_text("a note", encoding="utf-8")
    Path("classes.png").write_bytes(png(np.full((64, 64), 9, np.uint8)))
    refused("generate", tiny_run, "--input", given, "--target", "caption", "--out", "o", says=says)
    assert not Path("o").exists()


def test_requests_that_cannot_be(tiny_run: Path, refused: Refused) -> None:
    words = ["generate", tiny_run, "--input", "caption=a red cube", "--out", "o"]
    refused(*words, says=("--target is missing",))
    refused(*words, "--target", "dept", says=("unknown modality 'dept'", "known: rgb"))
    refused(*words, "--target", "depth,depth", says=("targets: found one twice", "depth"))
    refused(*words, "--target", "depth", "--input", "caption=b", says=("'caption=b'", "each name once"))
    refused("evaluate", tiny_run, "--samples", "0", says=("--samples must be 1 or more", "found 0"))


# Run folders.


def test_half_written_run_folders(tiny_run: Path, tmp_path: Path, refused: Refused) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    words = ["generate", run, "--input", "caption=hi", "--target", "depth", "--out", tmp_path / "o"]
    weights = run / "tokenizers" / "depth" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    refused(*words, says=("tokenizers/depth/model.safetensors", "probably truncated", "copy or make it again"))
    weights.unlink()
    refused(*words, says=("tokenizers/depth", "model.safetensors is missing", "train it again or copy"))
    weights.write_bytes(content)
    (run / "model" / "config.json").unlink()
    refused(*words, says=("no trained model yet", f"maskweave run {run / 'recipe.yaml'} --out {run}"))
    (run / "modalities.yaml").unlink()
    refused(*words, says=("has no modalities.yaml", "give the folder that 'maskweave run' made"))
    refused("report", tmp_path / "gone", says=("gone", "give the folder"))


def test_an_unfinished_run_is_finished_by_the_command_it_names(
    tiny_run: Path, tmp_path: Path, refused: Refused
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "a run")
    shutil.rmtree(run / "model")
    said = refused("report", run, says=("finish the run with: maskweave run",))
    assert main(shlex.split(said.split("finish the run with: ")[1])[1:]) == 0
    assert (run / "model" / "model.safetensors").read_bytes() == (tiny_run / "model" / "model.safetensors").read_bytes()


def test_a_run_of_another_catalog(tiny_run: Path, tmp_path: Path, refused: Refused) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    entries = (run / "modalities.yaml").read_text(encoding="utf-8")
    other = read_yaml(run / "modalities.yaml")
    other["modalities"]["depth"]["value"]["range"] = [0, 8]
    write_yaml(run / "modalities.yaml", other)
    words = ["--input", "caption=hi", "--target", "depth", "--out", tmp_path / "o"]
    refused(
        "generate",
        run,
        *words,
        says=(
            "tokenizers/depth",
            "the entry of 'depth' has changed",
            "value.range is [0.0, 16.0] there, [0.0, 8.0] here",
            "train the tokenizer again",
        ),
    )
    (run / "modalities.yaml").write_text(
        entries.replace("  instances:\n    id: 11\n", "  instances:\n    id: 12\n"), encoding="utf-8"
    )
    refused(
        "generate",
        run,
        *words,
        says=("model", "has changed since the model was trained", "instances", "modalities.yaml"),
    )
    refused("run", run / "recipe.yaml", "--out", run, says=("its modality entries differ", "--out"))


# A full disk.


class FullDisk:
    """There is no space left for files whose path has `match` in it, as the system tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, match: str):
        self.sync = files.make_durable
        monkeypatch.setattr(files, "make_durable", self)
        self.match = match

    def __call__(self, path: Path) -> None:
        if self.match in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.sync(path)


@pytest.mark.parametrize("match", ["step-00000020", "tokens/train/depth/.shard-00003", "out/depth/.shard"])
def test_a_full_disk(match: str, tiny_run: Path, tiny_recipe: Path, root: Path, refused: Refused) -> None:
    run = root.parent / "run"
    says = (
        "no space left while writing",
        match.replace(".", ""),
        "no partial files were left",
        "run the same command again",
    )
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, match)
        if match.startswith("out"):
            refused(*imported(root), says=says)
        else:
            shutil.copytree(
                tiny_run,
                run,
                ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl", "model", "tokens", "report.html"),
            )
            refused("run", tiny_recipe, "--out", run, says=says)
    assert not list(root.parent.rglob("*.partial"))
    if match.startswith("out"):
        assert not (root.parent / "out" / "index.json").exists() and not list(
            (root.parent / "out" / ".index").iterdir()
        )
        assert main(imported(root)) == 0
        return
    if match.startswith("step"):
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000010"]
    assert main(["train" if match.startswith("step") else "run", str(tiny_recipe), "--out", str(run)]) == 0
    assert read_metrics(run)[-1]["loss"] == read_metrics(tiny_run)[-1]["loss"]
    load(run)
