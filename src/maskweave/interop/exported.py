"""Parts of a bundle as files that run without maskweave: ONNX, for onnxruntime, or programs of `torch.export`.

    OUT/encoder.onnx            tokens of the inputs → features, and their mean
    OUT/NAME.encode.onnx        network tensor of a value → ids, of the tokenizer of NAME
    OUT/NAME.decode.onnx        ids → network tensor
    OUT/predict-NAME.onnx       tokens of the inputs → logits of all tokens of the grid NAME, predicted in one step
    OUT/export.json             names, shapes and types of all inputs and outputs, and the largest error of each file

The number of samples is free in every file, and so is the length of sequences. All inputs are given completely, without padding, so the sequences of one
call have the same length. Each file is run once after it is written, on other samples than those it was made with, and must give the numbers of the
model: ids equal, floats within `TOLERANCE`.

Dimension letters: B samples, L tokens of a modality, N tokens of all inputs, C width of a raw row, D width, V codes.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.arguments import check_arguments
from maskweave.errors import MaskweaveError, reason
from maskweave.files import write_aside, write_json
from maskweave.generate.bundle import Bundle
from maskweave.masking.batch import Slots
from maskweave.masking.inputs import Inputs
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.models.encoder import Encoded, Encoder
from maskweave.tokenizers.grid import GridTokenizer

Format = Literal["onnx", "pt2"]
TOLERANCE = 1e-3
"""Largest difference of a float, relative to the largest value of its tensor."""
TRACED, TRIED = 2, 3
"""Samples with which a program is made and then tried. Sequences have another length each time, if they may be so long."""


class EncoderProgram(nn.Module):
    """Complete inputs → (B, N, D) features at each token, and (B, D) their mean."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder, self.names = encoder, encoder.names

    def forward(self, *contents: Tensor) -> tuple[Tensor, Tensor]:
        encoded: Encoded = self.encoder(complete(dict(zip(self.names, contents, strict=True))))
        return encoded.tokens, encoded.pooled


class PredictorProgram(nn.Module):
    """Complete inputs → (B, L, V) logits of all tokens of a grid, each predicted from the inputs alone."""

    def __init__(self, model: Any, catalog: Catalog, names: Sequence[str], target: Modality):
        super().__init__()
        self.model, self.catalog, self.names, self.target = model, catalog, list(names), target

    def forward(self, *contents: Tensor) -> Tensor:
        inputs, rows = complete(dict(zip(self.names, contents, strict=True))).as_slots(self.catalog)
        B, L = contents[0].shape[0], self.target.tokens
        position = torch.arange(L, device=inputs.ids.device).expand(B, L)
        asked = torch.full_like(position, self.target.id)
        index = {self.target.name: torch.arange(B * L, device=inputs.ids.device)}
        targets = Slots(torch.zeros_like(position), asked, position, index)
        y_BLD = self.model.decode(targets, self.model.encode(inputs, rows), inputs)
        return self.model.heads[self.model.tables[self.target.name]](y_BLD)


class EncodeProgram(nn.Module):
    """Network tensor (B, C, *size) → ids (B, *grid)."""

    def __init__(self, tokenizer: GridTokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, x: Tensor) -> Tensor:
        return self.tokenizer.encode_tensor(x)


class DecodeProgram(EncodeProgram):
    """Ids (B, *grid) → network tensor; logits of classes and binary values."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokenizer.decode_tensor(ids)


def complete(content: dict[str, Tensor]) -> Inputs:
    """Returns inputs without padding, of any number of samples."""
    first = next(iter(content.values()))
    B, lengths = first.shape[0], [tokens.shape[1] for tokens in content.values()]
    sample, index, start = torch.arange(B, device=first.device)[:, None] * sum(lengths), {}, 0
    for name, length in zip(content, lengths, strict=True):
        index[name] = (sample + torch.arange(start, start + length, device=first.device)).flatten()
        start += length
    return Inputs(content, {}, index)


@check_arguments
def export(
    bundle: Bundle,
    out: str | os.PathLike[str],
    inputs: Sequence[str] = (),
    targets: Sequence[str] = (),
    tokenizers: Sequence[str] = (),
    format: Format = "onnx",
) -> dict[str, Any]:
    """Writes parts of a bundle into a folder, and tries them. Returns the content of `export.json`.

    Args:
        inputs: modalities that the encoder and the predictors read; none: neither is written.
        targets: grids, each with a predictor from the inputs.
        tokenizers: grids whose tokenizers are written.
        format: `onnx`, or `pt2` for `torch.export`.

    Raises:
        MaskweaveError: unknown names, a part that cannot be exported, a missing package, `out` exists, or a file that gives other numbers.
    """
    folder = Path(out)
    if folder.exists():
        raise MaskweaveError(f"{folder}: exists already; choose another folder, or remove it")
    programs = list(_programs(bundle, inputs, targets, tokenizers))
    if not programs:
        raise MaskweaveError("nothing to export; give inputs, for the encoder, or tokenizers")
    device = bundle.device
    bundle.to("cpu")
    described: dict[str, Any] = {"format": 1, "license": bundle.provenance.describe_license(), "files": {}}
    try:
        with write_aside(folder) as aside:
            aside.mkdir()
            for name, program, samples, outputs in programs:
                path = aside / f"{name}.{format}"
                described["files"][path.name] = _write(program.eval(), path, samples, outputs, bundle.catalog)
            write_json(aside / "export.json", described)
    finally:
        bundle.to(device)
    return described


Samples = Callable[[int], dict[str, Tensor]]
"""Makes random inputs of a number of samples, by name."""


def _programs(bundle: Bundle, inputs: Sequence[str], targets: Sequence[str], tokenizers: Sequence[str]) -> Any:
    """Yields file name, program, its inputs, and the names of its outputs."""
    catalog = bundle.catalog
    if inputs:
        encoder = bundle.family.encoder(bundle.model, catalog, list(inputs))
        entries = [catalog[name] for name in encoder.names]

        def contents(count: int) -> dict[str, Tensor]:
            return {m.name: _content(m, catalog, count) for m in entries}

        yield "encoder", EncoderProgram(encoder), contents, ["features", "pooled"]
        for name in targets:
            if catalog[name].kind != "grid" or not bundle.family.generates:
                raise MaskweaveError(
                    f"{name!r} cannot be predicted in one step; expected a grid of a model that generates"
                )
            yield (
                f"predict-{name}",
                PredictorProgram(bundle.model, catalog, encoder.names, catalog[name]),
                contents,
                ["logits"],
            )
    elif targets:
        raise MaskweaveError("targets are predicted from inputs; give inputs")
    for name in tokenizers:
        tokenizer = bundle.tokenizers.get(catalog[name].name)
        if not isinstance(tokenizer, GridTokenizer) or tokenizer.spec.diffusion is not None:
            raise MaskweaveError(
                f"{name!r} has no tokenizer network that can be exported; expected a grid without a diffusion decoder"
            )
        if catalog[name].value.predicts_unknown:
            raise MaskweaveError(f"{name!r}: its tokenizer predicts unknown points, which cannot be exported")
        yield f"{name}.encode", EncodeProgram(tokenizer), _values_of(tokenizer), ["ids"]
        yield f"{name}.decode", DecodeProgram(tokenizer), _ids_of(tokenizer), ["value"]


def _content(m: Modality, catalog: Catalog, count: int) -> Tensor:
    if m.has_tokens:
        length = m.tokens // count if _has_free_length(m) else m.tokens
        return torch.randint(0, catalog.vocabulary_size(m.name), (count, length))
    return torch.randn(count, m.tokens, m.row_width)


def _has_free_length(m: Modality) -> bool:
    return m.kind == "sequence" and m.tokens >= TRACED * TRIED


def _values_of(tokenizer: GridTokenizer) -> Samples:
    value = tokenizer.modality.value
    channels = () if value.num_classes else (value.channels,)

    def samples(count: int) -> dict[str, Tensor]:
        shape = (count, *channels, *value.size)
        return {"value": torch.randint(0, value.num_classes, shape) if value.num_classes else torch.randn(shape)}

    return samples


def _ids_of(tokenizer: GridTokenizer) -> Samples:
    return lambda count: {"ids": torch.randint(0, tokenizer.quantizer.size, (count, *tokenizer.modality.grid))}


def _write(
    program: nn.Module, path: Path, samples: Samples, outputs: Sequence[str], catalog: Catalog
) -> dict[str, Any]:
    """Writes one file, runs it, and returns its description."""
    given = samples(TRACED)
    takes_all = isinstance(program, (EncoderProgram, PredictorProgram))  # a tuple, of *contents
    batch = torch.export.Dim("batch", min=1, max=2**16)
    shapes = tuple(
        {0: batch, 1: torch.export.Dim(f"length{n}", min=1, max=catalog[name].tokens)}
        if takes_all and _has_free_length(catalog[name])
        else {0: batch}
        for n, name in enumerate(given)
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = torch.export.export(
                program, tuple(given.values()), dynamic_shapes=(shapes,) if takes_all else shapes
            )
            run = _save_pt2(made, path) if path.suffix == ".pt2" else _save_onnx(made, path, list(given), outputs)
        except (MaskweaveError, OSError):
            raise
        except Exception as error:  # whatever torch and ONNX raise about code that they cannot trace or write
            raise MaskweaveError(
                f"{path.name}: torch cannot export this part ({reason(error)}); use it with maskweave"
            ) from error
        tried = samples(TRIED)
        traced, expected = (_as_tuple(program(*one.values())) for one in (given, tried))
        found = run({name: tensor.numpy() for name, tensor in tried.items()})
    errors = [_error(a, torch.from_numpy(b), path) for a, b in zip(expected, found, strict=True)]
    return {
        "inputs": {name: _describe(tensor, tried[name], f"length {name}") for name, tensor in given.items()},
        "outputs": {name: _describe(a, b, "tokens") for name, a, b in zip(outputs, traced, expected, strict=True)},
        "largest_error": max(errors),
    }


def _as_tuple(found: Any) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _describe(one: Tensor, other: Tensor, free_axis: str) -> dict[str, Any]:
    """Type and shape of a tensor, of which two examples differ in what is free: the number of samples, and an axis that is called `free_axis`."""
    free = [n if n == m else free_axis for n, m in zip(one.shape[1:], other.shape[1:], strict=True)]
    return {"type": str(one.dtype).removeprefix("torch."), "shape": ["batch", *free]}


Run = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]


def _save_pt2(made: Any, path: Path) -> Run:
    torch.export.save(made, path)
    program = made.module()

    def run(given: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        return [one.numpy() for one in _as_tuple(program(*(torch.from_numpy(array) for array in given.values())))]

    return run


def _save_onnx(made: Any, path: Path, inputs: list[str], outputs: Sequence[str]) -> Run:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise MaskweaveError(f"ONNX needs {error.name}; install it with: pip install 'maskweave[onnx]'") from error
    torch.onnx.export(
        made,
        (),
        str(path),
        input_names=inputs,
        output_names=list(outputs),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    onnx.checker.check_model(str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(list(outputs), dict(given))


def _error(expected: Tensor, found: Tensor, path: Path) -> float:
    """Returns the largest difference, relative to the largest value.

    Raises:
        MaskweaveError: it is too large.
    """
    if expected.shape != found.shape:
        raise MaskweaveError(f"{path.name}: gives shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    if not expected.is_floating_point():
        differing = float((expected != found).float().mean())
        error, most = differing, 0.0
    else:
        error = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-6))
        most = TOLERANCE
    if not error <= most:
        raise MaskweaveError(
            f"{path.name}: its results differ from the model's by {error:.2g}, more than {most:g}; use it with maskweave"
        )
    return error
