"""From a recipe to tokenizers and tokens: parts alone, parts taken from another run, parts that are missing."""

import dataclasses
import shutil
from pathlib import Path

import fsspec
import pytest
from leftovers import left_aside

from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import Catalog, shipped_folder
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.folder import load_tokenizers
from maskweave.training.data_settings import DataSettings
from maskweave.training.pipeline import claim, make_tokens, train_model
from maskweave.training.recipe import Recipe, TokenizersSettings, load_recipe
from maskweave.training.settings import TrainSettings
from maskweave.training.sources import open_source
from maskweave.training.tokenizers import train_tokenizers

QUICK = TokenizersSettings(samples=16, train=TrainSettings(steps=2, batch_size=8))


def test_tokenizers_are_taken_from_another_run(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    ready = shutil.copytree(tiny_run / "tokenizers", tmp_path / "ready")
    shutil.rmtree(ready / "edges")
    recipe = load_recipe(tiny_recipe, {"tokenizers.reuse": str(ready), "tokenizers.steps": {"edges": 2}})
    catalog = claim(recipe, tmp_path / "run")
    train_tokenizers(recipe, catalog, tmp_path / "run")
    old, new = (load_tokenizers(folder / "tokenizers", catalog) for folder in (tiny_run, tmp_path / "run"))
    assert {name for name in catalog if name in new and new[name].fingerprint != old[name].fingerprint} == {"edges"}
    assert not (tmp_path / "run" / "tokenizers" / "depth" / "checkpoints").exists()
    assert (tmp_path / "run" / "tokenizers" / "depth" / "metrics.jsonl").exists(), "the report shows its curves"


def test_tokenizers_of_no_run(tmp_path: Path) -> None:
    reuse = dataclasses.replace(QUICK, reuse=str(tmp_path / "gone"))
    recipe = Recipe(modalities=["depth"], data=DataSettings(samples=16), tokenizers=reuse)
    with pytest.raises(
        MaskweaveError, match=r"tokenizers.reuse: .*gone: no such folder; set it to the 'tokenizers' folder"
    ):
        train_tokenizers(recipe, claim(recipe, tmp_path / "run"), tmp_path / "run")


def test_what_a_vocabulary_lacks_is_told_before_networks_are_trained(tmp_path: Path) -> None:
    content = read_yaml(shipped_folder() / "scenes.yaml")
    content["vocabularies"]["text"]["values"]["v0"] = 32
    write_yaml(tmp_path / "own.yaml", content)
    recipe = Recipe(
        str(tmp_path / "own.yaml"), modalities=["depth", "palette"], data=DataSettings(samples=16), tokenizers=QUICK
    )
    with pytest.raises(MaskweaveError, match=r"'palette': value.bins needs v0=0 to v0=63.*has 32 of v0"):
        train_tokenizers(recipe, claim(recipe, tmp_path / "run"), tmp_path / "run")
    assert not (tmp_path / "run" / "tokenizers").exists()


def test_only_some_tokenizers(tmp_path: Path) -> None:
    recipe = Recipe(modalities=["depth", "edges", "caption"], data=DataSettings(samples=16), tokenizers=QUICK)
    catalog = claim(recipe, tmp_path)
    train_tokenizers(recipe, catalog, tmp_path, only=["edges", "text"])
    assert {path.name for path in (tmp_path / "tokenizers").iterdir()} == {"edges", "text"}
    with pytest.raises(MaskweaveError, match=r"no tokenizer to train for caption; expected any of depth, edges, text"):
        train_tokenizers(recipe, catalog, tmp_path, only=["caption"])
    train_tokenizers(recipe, catalog, tmp_path)
    assert {path.name for path in (tmp_path / "tokenizers").iterdir()} == {"depth", "edges", "text"}
    assert {path.name for path in tmp_path.iterdir()} == {"modalities.yaml", "recipe.yaml", "tokenizers"}


def test_tokens_need_every_tokenizer(tmp_path: Path) -> None:
    recipe = Recipe(modalities=["depth", "edges"], data=DataSettings(samples=16), tokenizers=QUICK)
    catalog = claim(recipe, tmp_path)
    with pytest.raises(MaskweaveError, match="no tokenizer for depth, edges; train one"):
        make_tokens(recipe, catalog, tmp_path)
    assert not (tmp_path / "tokens").exists()


def test_a_modality_that_no_sample_has_is_named(
    tmp_path: Path, scenes_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(modalities=["depth", "edges"], data=DataSettings(samples=16), tokenizers=QUICK)
    catalog = claim(recipe, tmp_path)
    only_depth = Scenes(scenes_catalog.subset(["depth"]), 16, 0)
    monkeypatch.setattr("maskweave.training.tokenizers.open_source", lambda *_, **__: only_depth)
    with pytest.raises(MaskweaveError, match=r"no sample has 'edges'.*remove the modality from the recipe"):
        train_tokenizers(recipe, catalog, tmp_path)


def test_tokens_of_other_tokenizers_are_refused(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    recipe = load_recipe(tiny_recipe, {"tokenizers.steps": {"edges": 2}})
    shutil.rmtree(run / "tokenizers" / "edges")
    catalog = recipe.load_catalog()
    train_tokenizers(recipe, catalog, run)
    with pytest.raises(
        MaskweaveError, match=r"tokens made with other settings \(tokenizers differ\); remove the folder"
    ):
        make_tokens(recipe, catalog, run)


@pytest.mark.parametrize("by_url", [False, True])
def test_tokens_are_taken_from_another_run(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_url: bool
) -> None:
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))
    if by_url:
        files = fsspec.filesystem("memory")
        files.put(str(tiny_run / "tokens"), "/tiny/tokens", recursive=True)
    place = "memory://tiny/tokens" if by_url else str(tiny_run / "tokens")
    recipe = load_recipe(tiny_recipe, {"tokenizers.reuse": str(tiny_run / "tokenizers"), "data.tokens": place})
    assert recipe.data.tokens == place
    catalog = claim(recipe, tmp_path / "run")
    train_tokenizers(recipe, catalog, tmp_path / "run")
    make_tokens(recipe, catalog, tmp_path / "run")
    assert not (tmp_path / "run" / "tokens").exists()
    train_model(recipe, catalog, tmp_path / "run")
    weights = [folder / "model" / "model.safetensors" for folder in (tiny_run, tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_tokens_of_another_run_need_its_tokenizers(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, {"data.tokens": str(tiny_run / "tokens")})
    catalog = claim(recipe, tmp_path / "run")
    shutil.copytree(tiny_run / "tokenizers", tmp_path / "run" / "tokenizers")
    make_tokens(recipe, catalog, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tokenizers" / "edges")
    train_tokenizers(load_recipe(tiny_recipe, {"tokenizers.steps": {"edges": 2}}), catalog, tmp_path / "run")
    with pytest.raises(
        MaskweaveError, match=r"tokens/train: its tokens of edges were made with other tokenizers .*tokenizers.reuse"
    ):
        make_tokens(recipe, catalog, tmp_path / "run")


def test_claiming_a_folder(tmp_path: Path) -> None:
    recipe = Recipe(modalities=["depth"], data=DataSettings(samples=16))
    claim(recipe, tmp_path)
    when = (tmp_path / "recipe.yaml").stat().st_mtime_ns
    claim(recipe, tmp_path)
    assert (tmp_path / "recipe.yaml").stat().st_mtime_ns == when, "an unchanged recipe stays as old as it is"
    longer = dataclasses.replace(recipe, train=TrainSettings(steps=2000))
    claim(longer, tmp_path)
    assert read_yaml(tmp_path / "recipe.yaml")["train"]["steps"] == 2000


def test_too_few_steps_are_refused_before_the_recipe_is_written(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = (run / "recipe.yaml").read_text(encoding="utf-8")
    recipe = load_recipe(run / "recipe.yaml")
    short = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=1))
    with pytest.raises(MaskweaveError, match=r"the checkpoint is at step \d+, but train.steps is 1; raise train.steps"):
        claim(short, run)
    assert (run / "recipe.yaml").read_text(encoding="utf-8") == before


def test_what_a_killed_process_left_aside_is_removed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    left = [
        left_aside(tmp_path / "model") / "x",
        left_aside(tmp_path / "cache" / "depth.npy"),
        left_aside(tmp_path / "model", "old") / "x",
    ]
    own = tmp_path / ".note.partial"
    for path in (*left, own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    claim(Recipe(modalities=["depth"], data=DataSettings(samples=16)), tmp_path)
    assert not any(path.exists() for path in left) and own.exists()


def test_held_out_scenes_are_others(scenes_catalog: Catalog) -> None:
    recipe = Recipe(data=DataSettings(samples=5, validation=3, seed=4))
    train, held_out = (open_source(recipe, scenes_catalog, part) for part in ("train", "validation"))
    assert (len(train), len(held_out)) == (5, 3)
    assert not any((train[i]["rgb"] == held_out[j]["rgb"]).all() for i in range(5) for j in range(3))
    assert (
        open_source(recipe, scenes_catalog, "validation", 9, 1)[0]["rgb"] == Scenes(scenes_catalog, 1, 9)[0]["rgb"]
    ).all()
