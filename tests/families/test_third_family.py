"""A third model family in one file: brought by another package's entry point, it trains, is saved, reported and used for features."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import maskweave
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.families.base import families, family_named, family_of
from maskweave.synthetic.scenes import Scenes
from maskweave.training.metrics import read_metrics
from maskweave.training.pipeline import build_model
from maskweave.training.recipe import load_recipe

RECIPE = {
    "catalog": "scenes",
    "modalities": ["rgb", "caption"],
    "data": {"samples": 32, "validation": 8, "shard_size": 16},
    "tokenizers": {"samples": 16},
    "model": {"family": "denoiser", "noise": 0.2},
    "train": {"steps": 30, "batch_size": 8, "learning_rate": 1e-2, "log_every": 1},
}


def package(folder: Path, line: str, module: str | None = None) -> Path:
    """An installed package with one entry point."""
    info = folder / "third_family-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-family\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[maskweave.families]\n{line}\n", encoding="utf-8")
    if module is None:
        shutil.copy(Path(__file__).with_name("third_family.py"), folder / "third_family.py")
    else:
        (folder / f"{line.partition(' = ')[2].partition(':')[0]}.py").write_text(module, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = package(tmp_path_factory.mktemp("site"), "denoiser = third_family:DenoiserFamily")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def run(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("denoiser")
    (folder / "own.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    assert main(["run", str(folder / "own.yaml"), "--out", str(folder / "run"), "--model.loss", "2.0"]) == 0
    return folder / "run"


def test_it_trains_by_a_recipe(run: Path) -> None:
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.model == family_named("denoiser").Settings(noise=0.2, loss=2.0)  # type: ignore[call-arg]
    lines = [line for line in read_metrics(run) if line["split"] == "train"]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[0]["loss"] == pytest.approx(2 * lines[0]["loss/rgb"]), "the number typed for `loss` is used"


def test_it_is_saved_and_loaded(run: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(run)
    assert bundle.family is family_named("denoiser") is family_of(bundle.model)
    assert type(bundle.model).__name__ == "Denoiser" and bundle.model.config.width == 16
    again = maskweave.load(bundle.save(tmp_path / "again"))
    one, other = bundle.model.state_dict(), again.model.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_shows_in_the_report(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "A denoiser of patches." in page and 'alt="seen"' in page and ">noise<" in page
    assert (run / "sheets" / "seen.png").exists()


def test_its_features_are_used(run: Path) -> None:
    bundle = maskweave.load(run)
    scenes = Scenes(bundle.catalog, 3, seed=1)
    encoded = bundle.encoder(["rgb"])([scenes[i] for i in range(3)])
    assert encoded.tokens.shape == (3, 64, 16) and encoded.pooled.std() > 0
    assert encoded.feature_map("rgb").shape == (3, 16, 8, 8)
    with pytest.raises(MaskweaveError, match="does not read caption; it reads rgb"):
        bundle.encoder(["caption"])


def test_what_it_cannot_do_is_told(run: Path, tmp_path: Path) -> None:
    bundle = maskweave.load(run)
    with pytest.raises(MaskweaveError, match="of family 'denoiser', which cannot generate"):
        bundle.generate({}, ["caption"])
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "start": str(run)}), encoding="utf-8")
    recipe = load_recipe(path)
    with pytest.raises(MaskweaveError, match="start: a model of family 'denoiser' cannot start from another model"):
        build_model(recipe, recipe.load_catalog(), run)
    for changes, words in (
        ({"modalities": ["caption"]}, "own.yaml: a denoiser needs a modality of kind patches"),
        ({"model": {"family": "denoiser", "noise": "much"}}, "'model.noise' expects a number"),
        ({"model": {"noise": 0.2}}, "unknown key 'model.noise'; it is only valid if model.family is 'denoiser'"),
    ):
        path.write_text(yaml.safe_dump({**RECIPE, **changes}), encoding="utf-8")
        with pytest.raises(MaskweaveError, match=words):
            load_recipe(path)


@pytest.mark.parametrize(
    ("line", "module", "words"),
    [
        ("broken = broken_family:X", "import no_such_module", "'broken'.*cannot be imported: No module named"),
        ("broken = misdeclared_family:X", "X = 3", "'broken'.*expected a subclass of maskweave.families.base.Family"),
    ],
)
def test_a_package_that_is_broken_stops_only_its_own_family(
    line: str, module: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package(tmp_path, line, module))
    with pytest.raises(MaskweaveError, match=words):
        family_named("broken")
    assert [family.name for family in families()][:2] == ["fourm", "m3ae"]
    assert "broken" not in [family.name for family in families()]
    with pytest.raises(MaskweaveError, match="unknown model family 'brokn'; known: fourm, m3ae, contrastive, broken"):
        family_named("brokn")


def test_a_model_of_no_family_is_told() -> None:
    with pytest.raises(
        MaskweaveError, match=r"Linear is not a model of a known family; expected one of fourm \(FourM\), m3ae \(M3AE\)"
    ):
        family_of(torch.nn.Linear(2, 2))
