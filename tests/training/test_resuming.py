"""What may change when a run resumes, key by key; and run folders in which nothing was made yet."""

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from stub_training import WIDTH, StubBatch, StubBatches, train
from torch import Tensor, nn

from maskweave.config import build, plain
from maskweave.data.permutation import LISTED
from maskweave.data.token_store import entry_fingerprint
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_json, write_yaml
from maskweave.modality.catalogs import shipped_folder
from maskweave.report.html import is_current, write_report
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.training.data_settings import DataSettings
from maskweave.training.loop import fit
from maskweave.training.optimizer import LARGE
from maskweave.training.pipeline import claim
from maskweave.training.recipe import Recipe
from maskweave.training.resuming import FREE, is_free
from maskweave.training.settings import TrainSettings
from maskweave.transfer.recipe import TransferRecipe

BASE = {"modalities": ["depth"], "data": {"samples": 16}}
REFUSED = [
    "data.source", "data.sidecar", "data.samples", "data.validation", "data.seed", "data.shard_size", "data.mix.a.weight",
    "tokenizers.samples", "tokenizers.reuse", "tokenizers.steps.depth", "tokenizers.train.steps", "tokenizers.train.batch_size",
    "tokenizers.train.learning_rate", "train.optimizer", "tokenizers.train.precision", "tokenizers.train.ema",
    "model.family", "model.masking.input_tokens", "model.masking.mixtures", "model.size", "model.width", "model.tied",
    "model.mask_ratio.patches", "model.unpaired", "model.normalized_patches",
    "tokenizers.train.accumulate", "tokenizers.train.seed", "seed", "start",
    "inputs", "target", "label", "scratch", "data.crop", "data.flip", "data.augment.flip", "data.color", "data.noise", "data.held_out", "tuning.parameters", "tuning.rank", "head.width",
]  # fmt: skip
ALLOWED = [
    "train.steps", "train.learning_rate", "train.schedule", "train.betas", "train.precision", "train.ema", "train.lazy_embeddings", "train.seed",
    "train.batch_size", "train.accumulate", "train.processes", "train.skip_nonfinite", "train.log_every", "train.validate_every", "train.checkpoint_every", "train.keep", "train.workers", "train.threads",
    "train.device", "train.compile", "train.static_shapes", "tokenizers.train.log_every", "tokenizers.train.device", "tokenizers.jobs",
    "data.workers", "data.limit", "model.loss", "model.loss_weight.patches", "evaluate.samples", "evaluate.requests", "catalog",
    "tuning.layer_decay",
]  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    """A recipe with dotted keys, `__` for a dot, replaced."""
    content = {**BASE, "data": dict(BASE["data"])}  # type: ignore[call-overload]
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place: Any = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return build(Recipe, content, "test")


def begin(folder: Path) -> None:
    (folder / "tokenizers" / "depth").mkdir(parents=True)
    (folder / "tokenizers" / "depth" / "config.json").write_text("{}", encoding="utf-8")


def keys(content: Any, prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        yield from keys(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [f"{prefix}{name}"]


def test_every_key_stands_where_the_policy_says() -> None:
    assert [key for key in REFUSED if is_free(key)] == []
    assert [key for key in ALLOWED if not is_free(key)] == []
    known = [*keys(plain(Recipe())), *keys(plain(TransferRecipe()))]
    assert [pattern for pattern in FREE if not any(fnmatchcase(key, pattern) for key in known)] == [], "names no key"


def test_what_may_change_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(recipe(), tmp_path)
    begin(tmp_path)
    changed = recipe(
        data__workers=2,
        tokenizers__jobs=3,
        train__log_every=7,
        train__keep=5,
        train__workers=1,
        model__loss="token",
        evaluate__samples=9,
    )
    claim(changed, tmp_path)
    said = capsys.readouterr().out
    for words in (
        "data.workers was 0 and is 2",
        "tokenizers.jobs was 1 and is 3",
        "model.loss was 'mod' and is 'token'",
        "evaluate.samples was 200 and is 9",
    ):
        assert words in said
    for words in ("train.log_every was 20 and is 7", "train.keep was 2 and is 5", "train.workers was 0 and is 1"):
        assert words in said, "no training has begun that could tell of these"
    assert read_yaml(tmp_path / "recipe.yaml") == plain(changed)
    claim(changed, tmp_path)
    assert capsys.readouterr().out == ""


def test_a_training_that_resumes_tells_of_its_settings_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"train__batch_size": 16}  # samples of a step of `train`
    claim(recipe(**own), tmp_path)
    train(tmp_path, steps=10)  # the model's
    finished, begun = (tmp_path / "tokenizers" / name for name in ("depth", "edges"))
    train(finished, steps=10)
    (finished / "config.json").write_text("{}", encoding="utf-8")
    capsys.readouterr()
    claim(recipe(train__log_every=7, tokenizers__train__log_every=8, data__workers=2, **own), tmp_path)
    said = capsys.readouterr().out
    assert "data.workers was 0 and is 2" in said and " train.log_every" not in said
    assert "tokenizers.train.log_every was 20 and is 8" in said, "no tokenizer resumes"
    train(begun, steps=10)
    capsys.readouterr()
    claim(recipe(tokenizers__train__log_every=9, data__workers=3, **own), tmp_path)
    said = capsys.readouterr().out
    assert "data.workers was 2 and is 3" in said and "tokenizers.train" not in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__seed": 3, "tokenizers__train__batch_size": 8, "train__log_every": 3}, r"another recipe \(data.seed, tokenizers.train.batch_size differ\)"),
        ({"tokenizers__train__steps": 9}, r"\(tokenizers.train.steps differ\)"),
        ({"model__masking__input_tokens": 9, "model__size": "micro"}, r"\(model.size, model.masking.input_tokens differ\)"),
        ({"data__mix": {"a": {"source": "scenes", "samples": 9}}, "data__samples": 0}, r"data.source, data.mix.a, data.samples differ"),
        ({"modalities": ["depth", "edges"]}, r"a run, and its modality entries differ from those of .*scenes.yaml \(edges\)"),
    ],
)  # fmt: skip
def test_another_run_is_refused_by_the_keys(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    claim(recipe(), tmp_path)
    begin(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(MaskweaveError, match=words):
        claim(recipe(**changes), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("data_set", ["", "a"])
def test_runs_of_earlier_versions_shuffled_all_samples_together(tmp_path: Path, data_set: str) -> None:
    wanted = recipe()
    claim(wanted, tmp_path)
    begin(tmp_path)
    before = plain(wanted)
    del before["data"]["shuffle_window"]
    index = tmp_path / "tokens" / "train" / data_set / "index.json"
    write_json(index, {"samples": LISTED + 1})
    write_yaml(tmp_path / "recipe.yaml", before)
    with pytest.raises(
        MaskweaveError,
        match=r"\(data.shuffle_window differ\); set data.shuffle_window to 0 to resume it, choose another",
    ):
        claim(wanted, tmp_path)
    claim(recipe(data__shuffle_window=0), tmp_path)
    write_yaml(tmp_path / "recipe.yaml", before)
    write_json(index, {"samples": LISTED})  # by default shuffled together in this version, too
    claim(wanted, tmp_path)


def test_an_entry_that_changed_is_named(tmp_path: Path) -> None:
    claim(recipe(), tmp_path / "run")
    begin(tmp_path / "run")
    own = own_catalog(tmp_path, 32)
    with pytest.raises(MaskweaveError, match=r"entries differ from those of .*own.yaml \(depth\)"):
        claim(recipe(catalog=str(own)), tmp_path / "run")
    same = tmp_path / "same.yaml"
    same.write_bytes((shipped_folder() / "scenes.yaml").read_bytes())
    claim(recipe(catalog=str(same)), tmp_path / "run")  # the same entries from another place


def changed_entry(folder: Path, name: str, **changes: Any) -> Path:
    """The catalog of scenes with changes of one entry."""
    content = read_yaml(shipped_folder() / "scenes.yaml")
    entry = content["modalities"][name]
    for key, value in changes.items():
        entry[key] = {**entry.get(key, {}), **value} if isinstance(value, dict) else value
    write_yaml(folder / "changed.yaml", content)
    return folder / "changed.yaml"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("depth", {"metrics": ["mae"]}, "depth.metrics was ['abs_rel', 'delta1'] and is ['mae']"),
        ("depth", {"decoding": {"temperature": 0.5}}, "depth.decoding.temperature was 0.1 and is 0.5"),
        ("depth", {"value": {"unit": "meters"}}, "depth.value.unit was 'm' and is 'meters'"),
        ("depth", {"value": {"channel_names": ["z"]}}, "depth.value.channel_names was [] and is ['z']"),
        ("edges", {"value": {"tolerance": 3}}, "edges.value.tolerance was 1 and is 3"),
        ("edges", {"derive": None}, "edges.derive was {'from': 'rgb', 'by': 'canny'} and is None"),
    ],
)  # fmt: skip
def test_what_only_scores_and_figures_depend_on_may_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, changes: dict[str, Any], words: str
) -> None:
    run, both = tmp_path / "run", recipe(modalities=[name], catalog=str(changed_entry(tmp_path, name)))
    old = claim(both, run)
    begin(run)
    write_report(run)
    changed_entry(tmp_path, name, **changes)
    new = claim(both, run)
    assert f"{words} from now on" in capsys.readouterr().out
    assert read_yaml(run / "modalities.yaml") == new.to_plain() != old.to_plain()
    assert not is_current(run), "the report has to be made again"
    assert entry_fingerprint(new[name]) == entry_fingerprint(old[name]), "the tokens stay valid"
    GridTokenizer(old[name]).save(tmp_path / "tokenizer")
    assert GridTokenizer.load(tmp_path / "tokenizer", new[name]).modality.value == new[name].value
    claim(both, run)
    assert capsys.readouterr().out == ""
    changed_entry(tmp_path, name, value={"size": [16, 16]})
    other = both.load_catalog()[name]
    with pytest.raises(MaskweaveError, match=rf"entries differ .*\({name}\)"):
        claim(both, run)
    with pytest.raises(MaskweaveError, match="has changed since this tokenizer was trained: value.size is"):
        GridTokenizer.load(tmp_path / "tokenizer", other)
    assert entry_fingerprint(other) != entry_fingerprint(old[name])


def own_catalog(folder: Path, size: int) -> Path:
    content = read_yaml(shipped_folder() / "scenes.yaml")
    content["modalities"]["depth"]["value"]["range"] = [0, size]
    write_yaml(folder / "own.yaml", content)
    return folder / "own.yaml"


@pytest.mark.filterwarnings("ignore:checkpoint skipped")  # its file is a stand-in
def test_a_folder_in_which_nothing_was_made_takes_another_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    claim(recipe(), run)
    (run / "cache").mkdir()
    (run / "cache" / "depth.npy").write_bytes(b"values of the old recipe")
    (run / "tokenizers").mkdir()
    changed = recipe(data__seed=3, catalog=str(own_catalog(tmp_path, 32)), train__steps=7)
    catalog = claim(changed, run)
    assert "data.seed, depth differ from before; replaced" in capsys.readouterr().out
    assert not (run / "cache").exists()
    assert read_yaml(run / "recipe.yaml") == plain(changed) and read_yaml(run / "modalities.yaml") == catalog.to_plain()
    claim(changed, run)
    assert capsys.readouterr().out == ""
    for made in ("tokens/train/index.json", "checkpoints/step-00000001/state.json", "model/config.json"):
        path = run / made
        path.parent.mkdir(parents=True)
        path.write_text("{}", encoding="utf-8")
        with pytest.raises(MaskweaveError, match=r"another recipe \(data.seed differ\)"):
            claim(dataclasses.replace(changed, data=DataSettings(samples=16, seed=4)), run)
        path.unlink()


def test_how_a_training_is_carried_out_may_change_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, steps=10)
    capsys.readouterr()
    other = {"log_every": 5, "keep": 4, "workers": 1, "checkpoint_every": 4, "threads": 1, "validate_every": 0}
    train(tmp_path, steps=20, **other)
    said = capsys.readouterr().err
    for key, was in (("log_every", 3), ("keep", 2), ("workers", 0), ("checkpoint_every", 10), ("threads", 0)):
        assert said.count(f"{key} was {was} before step 10 and is {other[key]} from then on") == 1
    train(tmp_path, steps=30, **other)
    assert "log_every" not in capsys.readouterr().err
    assert train(tmp_path, steps=30, log_every=2).resumed_from == 30
    assert "log_every" not in capsys.readouterr().err, "nothing is trained any more"
    with pytest.raises(
        MaskweaveError, match=r"16 samples .batch_size 8 × accumulate 2 .*, those of this run 8 .batch_size 4"
    ):
        train(tmp_path, steps=40, batch_size=4)


def test_the_seed_of_dropout_may_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = {}
    for name, seed in (("same", 3), ("other", 4), ("again", 4)):
        train(tmp_path / name, steps=10)
        capsys.readouterr()
        losses[name] = train(tmp_path / name, steps=20, seed=seed).metrics["loss"]
        assert ("seed was 3 before step 10 and is 4 from then on" in capsys.readouterr().err) == (seed == 4)
    assert losses["same"] != losses["other"] == losses["again"]


class Words(nn.Module):
    """A table that is large enough to be updated by rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(LARGE, WIDTH)

    def forward(self, batch: StubBatch) -> tuple[Tensor, dict[str, Tensor]]:
        ids = (batch.x[:, 0].abs() * 100).long()
        return (self.table(ids) - batch.y).square().mean(), {}


def test_large_tables_may_change_how_they_are_updated(tmp_path: Path) -> None:
    by_rows = TrainSettings(steps=4, learning_rate=1e-2, lazy_embeddings=True, device="cpu", checkpoint_every=2)
    first = Words()
    fit(first, StubBatches(), by_rows, tmp_path)
    before = first.table.weight.detach().clone()
    for lazy, steps in ((False, 6), (True, 8)):
        model = Words()
        settings = dataclasses.replace(by_rows, lazy_embeddings=lazy, steps=steps)
        assert fit(model, StubBatches(), settings, tmp_path).resumed_from == steps - 2
        moved = (model.table.weight != before).any(dim=1)
        assert 0 < moved.sum() < LARGE, "rows that were read go on, from where they were"
        before = model.table.weight.detach().clone()


def test_the_split_of_a_step_may_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim(recipe(train__batch_size=16), tmp_path)
    train(tmp_path, steps=10)  # its steps have 8 × 2 samples
    before = (tmp_path / "recipe.yaml").read_bytes()
    with pytest.raises(MaskweaveError, match=r"its steps have 16 samples .*, those of this run 32"):
        claim(recipe(train__batch_size=16, train__accumulate=2), tmp_path)
    assert (tmp_path / "recipe.yaml").read_bytes() == before
    claim(recipe(train__batch_size=4, train__accumulate=2, train__processes=2), tmp_path)
    capsys.readouterr()
    train(tmp_path, steps=20, batch_size=4, accumulate=4)
    said = capsys.readouterr().err
    assert "batch_size was 8 before step 10 and is 4" in said and "accumulate was 2 before step 10 and is 4" in said


def test_a_run_that_does_not_know_a_newer_key_of_masking_goes_on(tmp_path: Path) -> None:
    claim(recipe(), tmp_path)
    begin(tmp_path)
    content = read_yaml(tmp_path / "recipe.yaml")
    for key in ("allocation", "target_beta"):
        del content["model"]["masking"][key]
    write_yaml(tmp_path / "recipe.yaml", content)
    with pytest.raises(MaskweaveError, match=r"model\.masking\.allocation"):
        claim(recipe(model__masking__allocation="uniform"), tmp_path)
    claim(recipe(), tmp_path)
