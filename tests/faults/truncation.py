"""Opens each kind of large file, truncates it as another program might, and uses what was opened. Prints what came of it, as JSON.

Each try is a process of its own, because access to a map beyond the new end of its file ends the process. Command: truncation.py RUN WORK
"""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from miniatures import cifar

from maskweave.data.batches import ValueBatches
from maskweave.data.opening import open_data
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import load
from maskweave.generate.scenes import open_plane
from maskweave.modality.catalogs import catalog_from, load_catalog, load_saved_catalog
from maskweave.nn.tensor_files import open_file
from maskweave.nn.weights import fingerprint
from maskweave.values.formats.numpy_rows import NpyRows

KINDS = ("weights", "tensors while open", "tokens", "index of tokens", "scene", "pictures of CIFAR", "values", "arrow")
TRIES = 2
Opened = tuple[list[Path], Callable[[], Any]]
"""Files that were opened, and what uses them."""


def opened(kind: str, run: Path, work: Path) -> Opened:
    catalog = load_catalog("scenes")
    depth = catalog["depth"]
    array = work / "x.npy"
    if kind in ("scene", "values"):
        np.save(
            array, np.arange(40 * 64 * 64, dtype=np.float32).reshape(40 if kind == "values" else 40 * 64, 64, -1) % 16
        )
    match kind:
        case "weights":
            shutil.copytree(run, work / "run", ignore=shutil.ignore_patterns("checkpoints", "tokens"))
            bundle = load(work / "run")
            parts = [bundle.model, *(t for t in bundle.tokenizers.values() if hasattr(t, "state_dict"))]
            return sorted((work / "run").rglob("*.safetensors")), lambda: [fingerprint(p.state_dict()) for p in parts]
        case "tensors while open":
            path = Path(shutil.copy(run / "model" / "model.safetensors", work))
            stored = open_file(path)
            file = stored.__enter__()

            def tensors() -> str:
                try:
                    return fingerprint({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
                except Exception as error:
                    stored.gen.throw(error)  # as in a block of `with`
                    raise

            return [path], tensors
        case "tokens" | "index of tokens":
            tokens = Path(shutil.copytree(run / "tokens" / "train", work / "tokens"))
            data = TokenData(tokens, load_saved_catalog(run))
            everything = np.arange(len(data))
            data.columns(everything[:1])
            files = [tokens / "samples" / "starts.npy"] if kind != "tokens" else sorted(tokens.glob("*/*.safetensors"))
            wanted = everything if kind == "tokens" else everything[:1]
            return files, lambda: [repr(np.asarray(part)) for c in data.columns(wanted).values() for part in c]
        case "scene":
            plane = open_plane(array, depth)
            return [array], lambda: plane.window(1500, 1564, 0, 64).tobytes()
        case "values":
            batches = ValueBatches(depth, NpyRows(array).part(0, 36), 4)
            return [array], lambda: [batches[i].values.sum().item() for i in range(9)]
        case "pictures of CIFAR":
            cifar(work, 3, 200, 5)
            entry = {
                "id": 1,
                "kind": "grid",
                "grid": [4, 4],
                "value": {"type": "image", "size": [32, 32], "channels": 3},
            }
            pictures = open_data(
                f"layout: cifar10 train {work}",
                catalog_from({"modalities": {"p": entry}}, "here"),
                fields={"p": "picture"},
            )
            files = sorted((work / "cifar-10-batches-bin").glob("data*"))
            return files, lambda: [pictures[i]["p"].tobytes() for i in range(len(pictures))]
        case _:
            return datasets_folder(work, depth.name)


def datasets_folder(work: Path, name: str) -> Opened:
    """A folder as `save_to_disk` of `datasets` writes it."""
    import pyarrow as pa

    rows = pa.array((np.arange(50 * 64, dtype=np.float32) % 16).reshape(50, 64).tolist(), pa.list_(pa.float32()))
    table = pa.table({name: rows})
    with pa.OSFile(str(work / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    (work / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}), encoding="utf-8")
    (work / "dataset_info.json").write_text("{}", encoding="utf-8")
    entry = {"id": 1, "kind": "patches", "grid": [8], "value": {"type": "series", "size": [64], "channels": 1}}
    catalog = catalog_from({"modalities": {name: entry}}, "here")
    source = open_data(str(work), catalog, fields={name: name})
    return [work / "data.arrow"], lambda: [source[i][name].tobytes() for i in range(len(source))]


def outcome(kind: str, number: int, run: Path, work: Path) -> str:
    """Returns `same`, `other values`, or the message of the error."""
    work.mkdir(parents=True)
    files, use = opened(kind, run, work)
    before = use() if number else None  # the first time, nothing was used before
    for path in files:
        os.truncate(path, random.Random(f"{path.name} {number}").randrange(path.stat().st_size))
    try:
        return "same" if use() == before or before is None else "other values"
    except MaskweaveError as error:
        return str(error)


def results(run: Path, work: Path) -> Iterator[tuple[str, list[str]]]:
    for kind in KINDS:
        found = []
        for number in range(TRIES):
            read, write = os.pipe()
            if not (child := os.fork()):
                os.write(write, outcome(kind, number, run, work / kind / str(number)).encode())
                os._exit(0)
            os.close(write)
            said = os.fdopen(read).read()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            found.append(said or f"died: {status}")
        yield kind, found


if __name__ == "__main__":
    print(json.dumps(dict(results(Path(sys.argv[1]), Path(sys.argv[2])))))
