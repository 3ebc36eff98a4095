"""Damaged files and wrong requests from a seed, and what comes of them: cases for the bench (`bench.py`) and for the tests.

Each case is a kind and a number. It is clear (one error that says what to do), accepted, raw (another exception) or slow; a process that dies
has crashed.
"""

import contextlib
import copy
import io
import json
import os
import random
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

import maskweave
from maskweave import Tokens
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.generate.schedule import load_schedule
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog, load_saved_catalog
from maskweave.modality.decoding import Decoding
from maskweave.synthetic.scenes import Scenes
from maskweave.training.buildable import check_buildable
from maskweave.training.recipe import load_recipe
from maskweave.values.base import ValueType

SLOW = 5.0
"""Seconds of processor time after which a case is slow."""
WORDS = ("-1", "0", "1e308", "1000000000000", "9999999999999999999999", ".nan", ".inf", "true", "null", "[]", "{}", "''", "x", "[[1]]", "!!binary x", "*a",
         "&a 3", "2020-01-01", '"\\0"', "[1, 2, 3, 4, 5]", "{a: 1, a: 2}", "../..", "/dev/zero", "'" + "y" * 5000 + "'")  # fmt: skip
"""What may stand in place of a value in YAML."""


class Outcome(NamedTuple):
    """What came of a case."""

    kind: str
    number: int
    result: str
    """clear, accepted, raw or slow."""
    said: str
    """The error, or where an exception was raised."""


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Changes some bytes: flips, cuts, repeats, zeros, other numbers."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        if not data:
            break
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
        end = min(len(data), at + rng.choice([1, 2, 4, 8, 100, len(data)]))
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end][:5000]
            case 3:
                data[at:end] = bytes(end - at)
            case 4:
                data[at:end] = b"\xff" * (end - at)
            case 5:
                data[at : at + 1] = rng.choice([b"9" * 20, b"-1", b"NaN", b"[" * 200, b'"', b"\0", b"{", b"true"])
            case _:
                data[at:end] = rng.randbytes(end - at)
    return bytes(data)


def mutated_yaml(text: str, rng: random.Random) -> str:
    """Changes the structure: another value, a line that is missing, repeated or moved, or some bytes."""
    lines = text.splitlines()
    for _ in range(rng.choice([1, 1, 2, 4])):
        i = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0 | 1 | 2:
                head, colon, _ = lines[i].rpartition(":") if rng.random() < 0.5 else lines[i].partition(":")
                lines[i] = f"{head}{colon} {rng.choice(WORDS)}"
            case 3:
                del lines[i]
            case 4:
                lines.insert(rng.randrange(len(lines)), lines[i])
            case _:
                return mutated("\n".join(lines).encode(), rng).decode("utf-8", "replace")
        lines = lines or ["x: 1"]
    return "\n".join(lines)


ODD: tuple[Any, ...] = (
    None,
    -1,
    0,
    1.5,
    10**30,
    1e308,
    float("nan"),
    "",
    "x",
    "\0",
    "../..",
    [],
    {},
    [[1]],
    True,
    "y" * 5000,
    ["x"] * 3,
    -(10**12),
)
"""What may stand in place of a value in JSON."""


def mutated_json(content: bytes, rng: random.Random) -> bytes:
    """Changes the structure: another value, one that is missing or repeated, keys that are exchanged; or some bytes."""
    places: list[tuple[Any, Any]] = []

    def collect(found: Any) -> None:
        for key in found if isinstance(found, dict) else range(len(found) if isinstance(found, list) else 0):
            places.append((found, key))
            collect(found[key])

    try:
        document = [json.loads(content)]
    except ValueError:
        return mutated(content, rng)
    collect(document)
    for _ in range(rng.choice([1, 1, 2, 5])):
        parent, key = rng.choice(places)
        other, its = rng.choice(places)
        with contextlib.suppress(KeyError, IndexError):
            match rng.randrange(5):
                case 0 | 1:
                    parent[key] = rng.choice(ODD)
                case 2:
                    del parent[key]
                case 3:
                    parent[key], other[its] = other[its], copy.deepcopy(parent[key])
                case _:
                    parent[key] = copy.deepcopy(other[its])
    with contextlib.suppress(ValueError, IndexError):
        return json.dumps(document[0]).encode()
    return mutated(content, rng)


def value_of(**settings: Any) -> ValueType:
    axes = len(settings.get("size", [8, 8]))
    entry = {"id": 1, "kind": "grid", "grid": [1] * axes, "value": settings}
    return catalog_from({"modalities": {"thing": entry}}, "here")["thing"].value


def files_of_other_formats(folder: Path) -> dict[str, tuple[bytes, ValueType]]:
    """Returns a small file of each format that needs another library, and the type of its value."""
    import av
    import h5py
    import rasterio
    import soundfile
    import zarr
    from astropy.io import fits

    plane = np.arange(64, dtype=np.float32).reshape(8, 8)
    numbers = {"type": "map", "size": [8, 8], "range": [0, 64]}
    with rasterio.open(
        folder / "x.tif", "w", driver="GTiff", height=8, width=8, count=1, dtype="float32", nodata=-1
    ) as file:
        file.write(plane, 1)
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("group/a", data=plane, chunks=(4, 4), compression="gzip")
    with zarr.storage.ZipStore(folder / "x.zarr.zip", mode="w") as store:
        zarr.create_group(store).create_array("a", data=plane, chunks=(4, 4))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(plane, name="A")]).writeto(folder / "x.fits", overwrite=True)
    sound = np.sin(np.arange(1600) / 5)
    for ending in ("wav", "flac", "ogg"):
        soundfile.write(folder / f"x.{ending}", sound, 16000)
    with av.open(str(folder / "x.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for i in range(6):
            picture = np.full((32, 32, 3), 40 * i, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                out.mux(packet)
        out.mux(stream.encode())
    np.savetxt(folder / "x.csv", plane, delimiter=",")
    audio = {"type": "audio", "rate": 16000, "max_seconds": 0.128}
    video = {"type": "video", "size": [4, 32, 32]}
    settings = {"tif": numbers, "h5": numbers, "zarr.zip": numbers, "fits": numbers, "csv": numbers, "mp4": video}
    settings |= dict.fromkeys(("wav", "flac", "ogg"), audio)
    found = {ending: ((folder / f"x.{ending}").read_bytes(), value_of(**own)) for ending, own in settings.items()}
    for ending, (content, value) in found.items():
        assert value.read(content, ending, "here") is not None, ending
    return found


class Cases:
    """Cases over a finished run.

    Args:
        run: the run; it stays as it is.
        work: a folder for damaged copies.
    """

    KINDS = (
        "value",
        "format",
        "picture",
        "tar",
        "recipe",
        "catalog",
        "schedule",
        "bundle",
        "tokens",
        "request",
        "import",
    )

    def __init__(self, run: Path, work: Path):
        self.run, self.work = run, work
        work.mkdir(parents=True, exist_ok=True)
        self.catalog = load_saved_catalog(run)
        self.scenes = load_catalog("scenes")
        self.sample = Scenes(self.scenes, 2, 7)[1]
        self.bundle = maskweave.load(run)
        self._files = {name: self.scenes[name].value.write(value) for name, value in self.sample.items()}
        self.bundle.schedule(["rgb"], ["depth", "caption"]).save(work / "schedule.yaml")
        self._shards = self._imported(work / "whole")
        self._formats = files_of_other_formats(work)

    def _imported(self, folder: Path) -> Path:
        for name in ("depth", "caption"):
            (folder / "in" / name).mkdir(parents=True, exist_ok=True)
            content, ending = self._files[name]
            for i in range(4):
                (folder / "in" / name / f"{i}.{ending}").write_bytes(content)
        import_folders(folder / "in", folder / "out", self.scenes, shard_size=2)
        return folder / "out"

    def run_case(self, kind: str, number: int) -> Outcome:
        """Runs one case in this process."""
        rng = random.Random(f"{kind} {number}")
        start, result, said = time.process_time(), "accepted", ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(self, f"_{kind}")(rng)
        except MaskweaveError as error:
            result, said = "clear", str(error)
            if not said or len(said) > 3000:
                result = "raw"
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            result, said = "raw", f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        if time.process_time() - start > SLOW:
            result = "slow"
        return Outcome(kind, number, result, " ".join(said.split())[:300])

    def _value(self, rng: random.Random) -> None:
        name = rng.choice(sorted(self._files))
        content, ending = self._files[name]
        value = self.scenes[name].value
        if ending == "npy" and rng.random() < 0.5:
            buffer, ending = io.BytesIO(), "npz"
            np.savez_compressed(buffer, a=np.load(io.BytesIO(content)))
            content = buffer.getvalue()
        is_json = ending == "json" and rng.random() < 0.7
        found = value.read(mutated_json(content, rng) if is_json else mutated(content, rng), ending, "here")
        if found is not None:
            value.check(found, "here")

    def _format(self, rng: random.Random) -> None:
        ending = rng.choice(sorted(self._formats))
        content, value = self._formats[ending]
        value.read(mutated(content, rng), ending, "here")

    def _picture(self, rng: random.Random) -> None:
        buffer = io.BytesIO()
        kind = rng.choice(["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
        Image.fromarray(self.sample["rgb"]).save(buffer, kind)
        ending = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
        self.scenes["rgb"].value.read(mutated(buffer.getvalue(), rng), ending, "here")

    def _tar(self, rng: random.Random) -> None:
        folder = self._copy(self._shards, "shards")
        files = sorted([*folder.rglob("*.tar"), *folder.rglob("*.json"), *folder.rglob("*.jsonl")])
        self._damage(rng.choice(files), rng)
        if rng.random() < 0.5:
            shutil.rmtree(folder / ".index")
        found = Shards(folder, self.scenes)
        for i in range(len(found)):
            found.key(i)
            try:
                found[i]
            except maskweave.errors.BadSample:
                continue

    def _recipe(self, rng: random.Random) -> None:
        path = self.work / "recipe.yaml"
        text = (self.run / "recipe.yaml").read_text(encoding="utf-8")
        path.write_text(mutated_yaml(text, rng), encoding="utf-8", errors="replace")
        recipe = load_recipe(path)
        check_buildable(recipe, recipe.load_catalog())

    def _catalog(self, rng: random.Random) -> None:
        path = self.work / "catalog.yaml"
        text = yaml.safe_dump(self.scenes.to_plain(), sort_keys=False)
        path.write_text(mutated_yaml(text, rng), encoding="utf-8", errors="replace")
        found: Catalog = load_catalog(str(path))
        for m in found.values():
            m.value.describe()

    def _schedule(self, rng: random.Random) -> None:
        path = self.work / "damaged schedule.yaml"
        path.write_text(
            mutated_yaml((self.work / "schedule.yaml").read_text(encoding="utf-8"), rng),
            errors="replace",
            encoding="utf-8",
        )
        schedule = load_schedule(path)
        self.bundle.generate({"rgb": self.sample["rgb"]}, schedule=schedule)

    def _bundle(self, rng: random.Random) -> None:
        folder = self._copy(self.run, "bundle", "checkpoints", "tokens", "sheets")
        files = [folder / "modalities.yaml", folder / "recipe.yaml", *sorted(folder.glob("model/*"))]
        files += sorted(p for p in folder.glob("tokenizers/*/*") if p.suffix in (".json", ".safetensors"))
        self._damage(rng.choice(files), rng)
        bundle = maskweave.load(folder)
        result = bundle.generate({"rgb": self.sample["rgb"]}, [rng.choice(["depth", "caption", "semseg"])])
        for name, value in result.values.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
                raise AssertionError(f"{name} is not finite")

    def _tokens(self, rng: random.Random) -> None:
        folder = self._copy(self.run / "tokens" / "train", "tokens")
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".safetensors"))
        self._damage(rng.choice(files), rng)
        data = TokenData(folder, self.catalog)
        data.columns(np.arange(len(data)))

    def _request(self, rng: random.Random) -> None:
        odd: list[Any] = [
            None,
            "x",
            1.5,
            -1,
            10**30,
            [],
            {},
            [[1], [1, 2]],
            object(),
            float("nan"),
            np.zeros((3, 3)),
            b"x",
            "\0",
            True,
        ]
        inputs: dict[Any, Any] = {"rgb": self.sample["rgb"], "caption": "a red cube"}
        options: dict[str, Any] = {}
        for _ in range(rng.choice([1, 2, 3])):
            match rng.randrange(5):
                case 0:
                    inputs[rng.choice(["rgb", "depth", "caption", "boxes", "metadata", 3, "nothing"])] = rng.choice(odd)
                case 1:
                    inputs["depth"] = Tokens(rng.choice(odd))
                case 2:
                    options[
                        rng.choice(["seed", "decoding", "conditions", "edit", "schedule", "precision", "chain"])
                    ] = rng.choice(odd)
                case 3:
                    key = rng.choice(["steps", "temperature", "top_k", "top_p", "guidance", "scheme", "token_schedule"])
                    options["decoding"] = {rng.choice(["depth", "semseg", "x"]): Decoding(**{key: rng.choice(odd)})}
                case _:
                    options["edit"] = {rng.choice(["depth", "caption", "rgb"]): rng.choice(odd)}
        self.bundle.generate(
            inputs, rng.choice([["depth"], ["caption"], ["semseg", "boxes"], rng.choice(odd)]), **options
        )

    def _import(self, rng: random.Random) -> None:
        folder = self._copy(self._shards.parent / "in", "in")
        for _ in range(rng.choice([1, 2])):
            path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
            match rng.randrange(4):
                case 0:
                    path.unlink()
                case 1:
                    path.rename(path.with_name(rng.choice(["é" * 60, "a b", "x" * 200, "..y", "-z"]) + path.suffix))
                case _:
                    self._damage(path, rng)
        shutil.rmtree(self.work / "imported", ignore_errors=True)
        report = import_folders(folder, self.work / "imported", self.scenes, limit=1.0)
        found = Shards(self.work / "imported", self.scenes)
        for i in range(report.samples):
            found[i]  # all that was imported is readable

    def _copy(self, folder: Path, name: str, *without: str) -> Path:
        """A copy whose files are links; `_damage` replaces the one that it changes."""
        shutil.rmtree(self.work / name, ignore_errors=True)
        return Path(
            shutil.copytree(folder, self.work / name, ignore=shutil.ignore_patterns(*without), copy_function=os.link)
        )

    def _damage(self, path: Path, rng: random.Random) -> None:
        content = path.read_bytes()
        path.unlink()
        is_yaml = path.suffix == ".yaml" and rng.random() < 0.7
        is_json = path.suffix == ".json" and rng.random() < 0.8
        if is_yaml:
            path.write_bytes(mutated_yaml(content.decode(), rng).encode("utf-8", "replace"))
        else:
            path.write_bytes(mutated_json(content, rng) if is_json else mutated(content, rng))


Run = Callable[[str, int], Outcome]
