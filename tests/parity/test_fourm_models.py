"""Published 4M models give the published numbers: losses, next-token logits, encoder output, greedy and guided captions."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from reference_case import Case
from safetensors.torch import load_file
from torch import Tensor

from maskweave.interop.fourm import load_model
from maskweave.interop.fourm.backbone import load_backbone
from maskweave.interop.fourm.model import Loaded, export_model
from maskweave.masking.batch import Slots, TokenBatch, TokenSlice, pack
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM
from maskweave.nn.patches import patchify
from maskweave.objectives.fourm import FourMObjective

GUIDANCE = 2.5
CAPTION_SLOTS = 24


@pytest.fixture(scope="session")
def loaded(fourm_case: Case) -> Loaded:
    torch.set_num_threads(1)
    return load_model(fourm_case.checkpoint)


def taken(case: Case, name: str, side: str) -> np.ndarray:
    """(B, L) True where a token takes part; False in a published mask."""
    return ~case.inputs[f"{name}/{side}_mask"].numpy()


def side_of(case: Case, catalog: Catalog, names: list[str], side: str) -> tuple[Slots, dict[str, Tensor], Tensor]:
    parts: dict[str, TokenSlice] = {}
    rows: dict[str, Tensor] = {}
    B = len(next(iter(case.inputs.values())))
    for name in names:
        modality, mask = catalog[name], taken(case, name, side)
        content = case.inputs[f"{name}/tensor"]
        sample, place = np.nonzero(mask)
        if not modality.has_tokens:
            raw = content if modality.kind == "vectors" else patchify(content.movedim(1, -1), modality.grid)
            rows[name] = raw[sample, place]
            parts[name] = TokenSlice(sample, np.zeros_like(place), place)
            continue
        ids = content.numpy()[sample, place]
        if modality.kind == "grid":
            parts[name] = TokenSlice(sample, ids, place, ids)
            continue
        rank = (mask.cumsum(axis=1) - 1)[sample, place]
        if side == "input":
            parts[name] = TokenSlice(sample, ids, rank)
        else:  # reads all but the last, each predicts its successor
            reads = rank < mask.sum(axis=1)[sample] - 1
            parts[name] = TokenSlice(sample[reads], ids[reads], rank[reads], np.roll(ids, -1)[reads])
    parts = {name: part for name, part in parts.items() if len(part.ids)}
    slots, labels = pack(parts, {m.name: m.id for m in catalog.values()}, B)
    return slots, {name: rows[name] for name in rows if len(rows[name])}, labels


def inputs_of(case: Case, catalog: Catalog, names: list[str]) -> tuple[Slots, dict[str, Tensor]]:
    slots, rows, _ = side_of(case, catalog, names, "input")
    return slots, rows


def batch_of(case: Case, catalog: Catalog) -> TokenBatch:
    inputs, rows = inputs_of(case, catalog, list(catalog))
    targets, _, labels = side_of(case, catalog, [m.name for m in catalog.values() if m.is_target], "target")
    return TokenBatch(inputs, rows, targets, labels)


def ask(catalog: Catalog, name: str, mask: np.ndarray) -> Slots:
    sample, place = np.nonzero(mask)
    part = TokenSlice(sample, np.zeros_like(place), place)
    return pack({name: part}, {m.name: m.id for m in catalog.values()}, len(mask))[0]


def test_losses(fourm_case: Case, loaded: Loaded, assert_near) -> None:
    batch = batch_of(fourm_case, loaded.catalog)
    with torch.no_grad():
        loss, metrics = FourMObjective(loaded.model).eval()(batch)
    expected = {name: value for name, value in fourm_case.expected.items() if name.startswith("loss/")}
    assert expected.keys() == {name for name in metrics if name.startswith("loss/")}
    for name, value in expected.items():
        assert_near(metrics[name], value[0])
    assert_near(loss, fourm_case.expected["loss"][0])


def test_encoder(fourm_case: Case, loaded: Loaded, assert_near) -> None:
    inputs, rows = inputs_of(fourm_case, loaded.catalog, list(loaded.catalog))
    with torch.no_grad():
        encoded = loaded.model.encode(inputs, rows)[:, loaded.model.config.registers :]
    there = (inputs.modality != 0)[..., None]
    assert torch.equal(there.sum(dim=(1, 2)), fourm_case.expected["encoder_tokens"])
    assert_near((encoded * there).sum(dim=1) / there.sum(dim=1), fourm_case.expected["encoder_mean"])


def test_next_tokens(fourm_case: Case, loaded: Loaded, assert_near) -> None:
    model, catalog = loaded
    inputs, rows = inputs_of(fourm_case, catalog, list(catalog))
    names = {key.split("/")[1] for key in fourm_case.expected if key.startswith("next/")}
    assert names == {m.name for m in catalog.values() if m.kind == "grid" and m.is_target}
    with torch.no_grad():
        encoded = model.encode(inputs, rows)
        for name in names:
            unknown = ~taken(fourm_case, name, "input")
            slots = ask(catalog, name, unknown)
            ((_, _, logits),) = model.logits(model.decode(slots, encoded, inputs), slots.index).values()
            expected = {
                k: fourm_case.expected[f"next/{name}/{k}"] for k in ("position", "argmax", "logsumexp", "logits_head")
            }
            logits = logits.unflatten(0, expected["position"].shape)
            assert np.array_equal(np.nonzero(unknown)[1].reshape(expected["position"].shape), expected["position"])
            assert torch.equal(logits.argmax(dim=-1), expected["argmax"])
            assert_near(logits.logsumexp(dim=-1), expected["logsumexp"])
            assert_near(logits[:, :3, :64], expected["logits_head"])


def greedy(model: FourM, case: Case, catalog: Catalog, name: str, weights: Mapping[bool, float]) -> list[list[int]]:
    """Ids after the first sentinel of each sample. `weights`: of the logits with the grid inputs (True) and without (False)."""
    vocabulary = catalog.vocabularies[catalog[name].vocabulary]
    first = vocabulary.first_sentinel
    ids_of = {m.name: m.id for m in catalog.values()}
    grids = [m.name for m in catalog.values() if m.kind in ("grid", "patches")]
    B = len(next(iter(case.inputs.values())))
    start = np.full((B, 1), first + 1)

    def sequence(ids: np.ndarray) -> TokenSlice:
        B, n = ids.shape
        return TokenSlice(np.repeat(np.arange(B), n), ids.flatten(), np.tile(np.arange(n), B))

    contexts = {}
    for conditional in weights:
        parts, rows = {name: sequence(start)}, {}
        for grid in grids if conditional else []:
            sample, place = np.nonzero(taken(case, grid, "input"))
            if not len(sample):
                continue
            content = case.inputs[f"{grid}/tensor"]
            if catalog[grid].kind == "patches":
                rows[grid] = patchify(content.movedim(1, -1), catalog[grid].grid)[sample, place]
                parts[grid] = TokenSlice(sample, np.zeros_like(place), place)
            else:
                parts[grid] = TokenSlice(sample, content.numpy()[sample, place], place)
        inputs, _ = pack(parts, ids_of, B)
        contexts[conditional] = inputs, model.encode(inputs, rows)
    read = start
    while read.shape[1] < CAPTION_SLOTS:
        slots, _ = pack({name: sequence(read)}, ids_of, B)
        last = {name: slots.index[name].view(B, -1)[:, -1]}
        logits = sum(
            weights[c] * model.logits(model.decode(slots, encoded, inputs), last)[name][2]
            for c, (inputs, encoded) in contexts.items()
        )
        read = np.concatenate([read, logits.argmax(dim=-1).numpy()[:, None]], axis=1)
    said = []
    for row in read[:, 1:].tolist():
        ends = [i for i, id in enumerate(row) if first <= id < first + vocabulary.sentinels]
        said.append(row[: ends[0]] if ends else row)
    return said


@pytest.mark.parametrize(
    ("key", "weights"),
    [("caption/greedy", {True: 1.0}), ("caption/greedy_guided2.5", {True: GUIDANCE, False: 1 - GUIDANCE})],
)
def test_captions(fourm_case: Case, loaded: Loaded, key: str, weights: Mapping[bool, float]) -> None:
    if key not in fourm_case.expected:
        pytest.skip(f"the case has no {key}")
    with torch.no_grad():
        said = greedy(loaded.model, fourm_case, loaded.catalog, "caption", weights)
    expected = fourm_case.expected[key]
    if not expected.numel():  # a sentinel came first
        assert said == [[]] * len(said)
    else:
        assert said == [[id for id in row if id > 0] for row in expected.tolist()]


def test_export_gives_an_equal_file(fourm_case: Case, loaded: Loaded, tmp_path) -> None:
    export_model(loaded.model, loaded.catalog, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) == fourm_case.config
    found, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path, fourm_case.checkpoint))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_backbone(backbone_case: Case, assert_near) -> None:
    backbone = load_backbone(backbone_case.checkpoint)
    (pixels,) = backbone_case.inputs.values()
    with torch.no_grad():
        assert_near(backbone(pixels), backbone_case.expected["tokens"])
