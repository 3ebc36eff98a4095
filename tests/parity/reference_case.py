"""One reference case: a folder with the inputs and outputs of a published implementation."""

import importlib.util
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor


class Case:
    """One folder: `config`, `inputs`, `expected`, and `checkpoint`, a folder in the published format made when first asked for."""

    def __init__(self, folder: Path, place: Path):
        self.folder, self.name, self._place = folder, folder.name, place
        self.config: dict[str, Any] = read_config(folder)
        self.inputs: dict[str, Tensor] = load_file(folder / "inputs.safetensors")
        self.expected: dict[str, Tensor] = load_file(folder / "expected.safetensors")

    @cached_property
    def checkpoint(self) -> Path:
        path = self.folder.parent / "checkpoint.py"
        spec = importlib.util.spec_from_file_location("parity_checkpoint", path)
        assert spec is not None and spec.loader is not None
        writer = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(writer)
        writer.write_checkpoint(self.folder, self._place)
        return self._place


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "case.json").read_text(encoding="utf-8"))["config"]
