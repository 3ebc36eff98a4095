"""Right values of training in several processes and of published configurations, for faults that tests once did not notice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_catalog import tiny
from torch import Tensor, nn

from maskweave.config import build
from maskweave.data.columns import Column
from maskweave.data.places import LocalFolder
from maskweave.errors import MaskweaveError
from maskweave.generate.bundle import load
from maskweave.generate.engine import Engine
from maskweave.generate.token_state import token_states
from maskweave.interop.fourm import load_model
from maskweave.interop.fourm.model import export_model
from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.synthetic import grammar
from maskweave.training import loop
from maskweave.training.distributed import DistContext
from maskweave.training.recipe import Recipe
from maskweave.training.settings import TrainSettings
from maskweave.training.updates import Updates


class Batch:
    """Three samples of nothing."""

    names = ("sight",)

    def __len__(self) -> int:
        return 3

    def to(self, device: torch.device) -> "Batch":
        return self


class Batches:
    def __getitem__(self, i: int) -> Batch:
        return Batch()

    def __len__(self) -> int:
        return 10**6


class OtherIsAsked(DistContext):
    """Two processes, of which the other one gets a stop signal in the second round of agreeing."""

    rounds = 0

    def sum(self, numbers: Tensor) -> Tensor:
        type(self).rounds += 1
        numbers = 2 * numbers
        numbers[-1] += float(type(self).rounds == 2)
        return numbers


def test_a_stop_signal_to_one_rank_alone_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes take the same number of steps: this one, too, which got no signal."""
    monkeypatch.setattr(OtherIsAsked, "rounds", 0)

    def endless() -> Iterator[Batch]:
        while True:
            yield Batch()

    ranks = OtherIsAsked(0, 2, torch.device("cpu"))
    updates = Updates(endless(), nn.Linear(1, 1), ranks, 1, 1000, stop=lambda: False)
    taken = [update.totals["samples"] for update in updates]
    assert updates.stopped and taken == [6.0] * 8, "those that were agreed on before"


class Seen(Exception):
    pass


class Looks(nn.Module):
    """Says which seed it is trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, batch: Batch) -> Any:
        raise Seen(torch.initial_seed())


@pytest.mark.parametrize(("rank", "seed"), [(0, 7), (1, 8)])
def test_each_rank_has_a_seed_of_its_own(rank: int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout and the noise of samples must differ between processes."""
    monkeypatch.setattr(loop, "connect", lambda device: DistContext(rank, 1, torch.device("cpu")))
    with pytest.raises(Seen) as seen:
        loop.fit(Looks(), Batches(), TrainSettings(steps=2, batch_size=3, device="cpu", seed=7), tmp_path)  # type: ignore[arg-type]
    assert seen.value.args == (seed,)


@pytest.mark.parametrize("key", ["qkv_bias", "proj_bias", "mlp_bias"])
def test_a_published_configuration_without_a_key_has_its_bias(key: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    biases = {"qkv_bias": True, "proj_bias": True, "mlp_bias": True, "norm_bias": True}
    config = FourMConfig(width=32, heads=4, encoder_depth=1, decoder_depth=1, separate=True, gated=False, **biases)
    export_model(FourM(tiny(), config).eval(), tiny(), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert content.pop(key) is True
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    loaded, _ = load_model(tmp_path, tiny())
    assert getattr(loaded.config, key) is True
    (tmp_path / "config.json").write_text(json.dumps({**content, key: False}), encoding="utf-8")
    with pytest.raises(MaskweaveError, match="bias"):
        load_model(tmp_path, tiny())


def test_rows_of_raw_inputs_are_compared_before_the_encoder_is_spared() -> None:
    """Two pictures have the same ids, modalities and positions; only their rows differ."""
    torch.manual_seed(0)
    catalog = tiny()
    name = next(m.name for m in catalog.values() if m.kind == "patches")
    value = catalog[catalog[name].reads].value
    engine = Engine(FourM(catalog, FourMConfig(width=32, heads=4, encoder_depth=1, decoder_depth=1)).eval(), catalog)
    encoded = []
    for shade in (0, 255, 255, 0):
        picture = np.full((*value.size, value.channels), shade, np.uint8)
        states = token_states(catalog, [{catalog[name].reads: picture}], {})
        encoded.append(engine.encode(states, [frozenset([name])], np.arange(1))[1])
    assert torch.equal(encoded[0], encoded[3]) and torch.equal(encoded[1], encoded[2])
    assert (encoded[0] - encoded[1]).abs().max() > 1e-3


@pytest.mark.parametrize("found", [3, "x", [1], True, [["a", 1]]])
def test_a_mapping_of_names_is_one(found: Any) -> None:
    with pytest.raises(MaskweaveError, match="'data.fields' expects a mapping from names to text, found"):
        build(Recipe, {"data": {"fields": found}}, "here")


def test_only_valid_tokens_can_be_masked() -> None:
    """A modality with 16 tokens, of which a sample knows 5: its capacity is 5."""
    catalog = tiny()
    name = next(m.name for m in catalog.values() if m.kind == "grid")
    tokens = catalog[name].tokens
    valid = np.zeros((2, tokens), bool)
    valid[0, :5] = True
    valid[1, ::2] = True
    column = Column(np.array([True, True]), ids=np.zeros((2, tokens), np.int64), valid=valid)
    sampler = MaskSampler(catalog, MaskingConfig(12, 12))
    assert sampler._capacity(name, column, 2).tolist() == [5, -(-tokens // 2)]
    whole = Column(np.array([True, False]), ids=np.zeros((2, tokens), np.int64))
    assert sampler._capacity(name, whole, 2).tolist() == [tokens, 0]


def test_what_a_4m_model_sees_of_a_sample() -> None:
    recipe = build(Recipe, {"model": {"masking": {"input_tokens": 12, "target_tokens": 20}}}, "here")
    catalog = recipe.load_catalog()
    assert recipe.family.tokens_per_sample(recipe.model, catalog) == 32
    assert recipe.family.target_tokens(recipe.model) == 20


def test_relations_between_neighbors_are_told() -> None:
    left = grammar.Seen("small", "red", "cube", 0.2, 3.0)
    right = grammar.Seen("large", "blue", "sphere", 0.7, 3.1)
    listed = "2 objects: a small red cube and a large blue sphere."
    assert grammar.caption([right, left], [0.0, 0.0, 0.0, 0.9]) == f"{listed} the red cube is left of the blue sphere."
    assert grammar.caption([right, left], [0.0, 0.0, 0.0, 0.1]) == f"{listed} the blue sphere is right of the red cube."


def test_a_result_without_value_says_why(tiny_run: Path) -> None:
    bundle = load(tiny_run)
    del bundle.tokenizers["depth"]
    result = bundle.generate({"caption": "a red cube"}, ["depth"])
    for ask in (result.prediction, result.__getitem__):
        with pytest.raises(MaskweaveError, match="'depth' has no value: the bundle has no tokenizer for it"):
            ask("depth")
    with pytest.raises(MaskweaveError, match="'semseg' has no value: it is no target of this result"):
        result["semseg"]


def test_a_bundle_is_saved_into_a_new_or_empty_folder(tiny_run: Path, tmp_path: Path) -> None:
    bundle = load(tiny_run)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(MaskweaveError, match=f"{name}: exists already; choose another folder"):
            bundle.save(tmp_path / name)
    assert load(bundle.save(tmp_path / "empty")).catalog.to_plain() == bundle.catalog.to_plain()


def test_where_a_file_of_a_store_is(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    (tmp_path / "a").write_text("1", encoding="utf-8")
    assert folder.where("a") == f"{tmp_path}/a" and folder.use("a", Path.read_text) == "1"
