"""Absurd numbers fail before anything of their size is built."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskweave import limits
from maskweave.config import build, plain
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_yaml
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog
from maskweave.modality.decoding import Decoding
from maskweave.models.embeddings import check_positions
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.models.m3ae import M3AE, M3AEConfig
from maskweave.training import recipe as recipes
from maskweave.training.recipe import Recipe, check_recipe, load_recipe
from maskweave.training.resuming import changes
from maskweave.training.run_folder import claim_folder
from maskweave.training.settings import TrainSettings
from maskweave.transfer.recipe import HeadSettings, TransferData, TransferRecipe, Tuning

BILLION = 10**9


def content(**changes: Any) -> dict[str, Any]:
    """A small catalog in which dotted keys are set."""
    found: dict[str, Any] = {
        "vocabularies": {"text": {"size": 1000, "values": {"v0": 4}}},
        "modalities": {
            "photo": {
                "id": 1,
                "kind": "grid",
                "value": {"type": "image", "size": [32, 32], "channels": 3},
                "grid": [4, 4],
            },
            "words": {"id": 2, "kind": "sequence", "value": {"type": "text"}, "max_tokens": 16, "vocabulary": "text"},
        },
    }
    found["modalities"]["photo"]["tokenizer"] = {"quantizer": {"type": "vq"}}
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return found


def test_the_small_catalog_is_valid() -> None:
    assert len(catalog_from(content(), "here")) == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vocabularies__text__size", BILLION, "vocabulary 'text': size is 1000000000; expected at most 1,048,576"),
        ("vocabularies__text__sentinels", BILLION, "more than its size 1000"),
        ("vocabularies__text__values", {"v0": BILLION}, "more than its size 1000"),
        ("modalities__words__max_tokens", BILLION, "max_tokens is 1000000000; expected at most 262,144"),
        ("modalities__words__id", BILLION, "id is 1000000000"),
        ("modalities__photo__tokenizer__width", 64 * BILLION, "tokenizer.width is"),
        ("modalities__photo__tokenizer__depth", BILLION, "tokenizer.depth is"),
        ("modalities__photo__tokenizer__heads", BILLION, "tokenizer.heads is"),
        ("modalities__photo__tokenizer__decoder_width", 64 * BILLION, "tokenizer.decoder_width is"),
        ("modalities__photo__tokenizer__decoder_depth", BILLION, "tokenizer.decoder_depth is"),
        ("modalities__photo__tokenizer__image_blocks", BILLION, "tokenizer.image_blocks is"),
        ("modalities__photo__tokenizer__class_width", BILLION, "tokenizer.class_width is"),
        ("modalities__photo__tokenizer__trained_grid", [BILLION, 2], "tokens × width of the tokenizer's positions is"),
        ("modalities__photo__tokenizer__quantizer__codes", 2**30, "tokenizer.quantizer.codes is 1073741824"),
        ("modalities__photo__tokenizer__quantizer__dim", BILLION, "tokenizer.quantizer.dim is"),
        (
            "modalities__photo__tokenizer__quantizer",
            {"type": "fsq", "levels": [1000] * 5},
            "product of tokenizer.quantizer.levels is",
        ),
        ("modalities__photo__tokenizer__diffusion", {"training_steps": BILLION}, "diffusion.training_steps is"),
        ("modalities__photo__tokenizer__diffusion", {"widths": [32 * BILLION]}, "diffusion.largest width is"),
        ("modalities__photo__tokenizer__diffusion", {"widths": [32] * 64}, "diffusion.number of widths is 64"),
        ("modalities__photo__tokenizer__diffusion", {"layers": BILLION}, "diffusion.layers is"),
        ("modalities__photo__decoding", {"steps": BILLION}, "steps is 1000000000"),
    ],
)  # fmt: skip
def test_entries(key: str, value: Any, message: str) -> None:
    with pytest.raises(MaskweaveError, match=message) as caught:
        catalog_from(content(**{key: value}), "here")
    assert len(str(caught.value)) < 500


def test_a_grid_of_too_many_tokens() -> None:
    side = 2**12
    changes = {
        "modalities__photo__value": {"type": "image", "size": [side, side], "channels": 3},
        "modalities__photo__grid": [side, side],
    }
    with pytest.raises(MaskweaveError, match=r"number of tokens of grid \(4096, 4096\) is 16777216"):
        catalog_from(content(**changes), "here")


def test_a_long_name() -> None:
    found = content()
    found["modalities"]["n" * 101] = {**found["modalities"].pop("words")}
    with pytest.raises(MaskweaveError, match="length of the name in bytes is 101; expected at most 100"):
        catalog_from(found, "here")


@pytest.mark.parametrize("key", ["width", "heads", "encoder_depth", "decoder_depth", "mlp_ratio", "registers"])
def test_4m_models(key: str) -> None:
    numbers = {"width": 2 * BILLION, "heads": 1, key: 2 * BILLION} if key == "heads" else {key: 2**40}
    if key == "heads":
        numbers = {"width": 2**40, "heads": 2**30}
    with pytest.raises(MaskweaveError, match="model: .* is .*; expected at most"):
        FourMConfig(**numbers).resolved()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key", ["width", "heads", "depth", "decoder_width", "decoder_heads", "decoder_depth", "mlp_ratio"]
)
def test_m3ae_models(key: str) -> None:
    numbers = {key: 2**40} if "heads" not in key else {key.replace("heads", "width"): 2**40, key: 2**30}
    with pytest.raises(MaskweaveError, match=r"model: .* is .*; expected at most"):
        M3AEConfig(**numbers).resolved()  # type: ignore[arg-type]


def test_positions_of_many_places_times_a_large_width(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = catalog_from(content(), "here")
    check_positions(catalog, 64)
    monkeypatch.setattr(limits, "POSITION_NUMBERS", 16 * 64)
    with pytest.raises(MaskweaveError, match="here: positions of all modalities × model width is"):
        FourM.without_weights(catalog, FourMConfig())
    words = Catalog([replace(catalog["words"], id=1)], catalog.vocabularies.values())
    with pytest.raises(MaskweaveError, match="positions of all modalities × model width is"):
        M3AE.without_weights(words, M3AEConfig())


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("seed", 2**70),
        ("threads", BILLION),
        ("workers", BILLION),
        ("processes", BILLION),
        ("batch_size", 10**12),
        ("batch_size", 10**8),
        ("accumulate", 10**12),
    ],
)
def test_training(key: str, number: int) -> None:
    with pytest.raises(MaskweaveError, match=f"{key} is {number}; expected at most"):
        TrainSettings(**{key: number})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2**70}, "demo.yaml: seed is"),
        ({"evaluate.seed": 2**70}, "evaluate.seed is"),
        ({"data.seed": 2**70}, "data.seed is"),
        ({"data.workers": BILLION}, "data.workers is"),
        ({"data.samples": 10**12}, "data.samples is"),
        ({"data.validation": 10**12}, "data.validation is"),
        ({"data.shard_size": BILLION}, "data.shard_size is"),
        ({"tokenizers.samples": 10**12}, "tokenizers.samples is"),
        ({"evaluate.samples": 10**12}, "evaluate.samples is"),
        ({"tokenizers.jobs": BILLION}, "tokenizers.jobs is"),
        ({"model.masking.input_tokens": 10**12}, "model.masking: input_tokens is"),
        (
            {"train.batch_size": 2**20, "model.masking.input_tokens": 2**20},
            "tokens of a batch of train.batch_size samples is",
        ),
    ],
)
def test_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        load_recipe("recipes/demo.yaml", changes)


def test_transfers() -> None:
    for make, key in ((HeadSettings, "width"), (HeadSettings, "queries"), (HeadSettings, "upsample"), (Tuning, "rank")):
        with pytest.raises(MaskweaveError, match=f"{key} is {2**40}; expected at most"):
            make(**{key: 2**40})
    for other in (TransferData, TransferRecipe):
        with pytest.raises(MaskweaveError, match="seed is .*; expected at most"):
            other(seed=2**70)


def bomb(folder: Path, before: str, at: str) -> Path:
    """A short recipe in which aliases repeat a value 10,000 times where a name is expected."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 5)]
    path = folder / "bomb.yaml"
    path.write_text("\n".join(["a0: &a0 " + "x" * 1000, *lines, before, at]), encoding="utf-8")
    return path


def test_messages_about_aliases_are_short(tmp_path: Path) -> None:
    content = read_yaml(bomb(tmp_path, "model:", "  {family: *a4}"))
    with pytest.raises(MaskweaveError, match="'model': unknown model family") as caught:
        build(Recipe, {"model": content["model"]}, "here")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("found", "words"), [(["map"], r"\['map'\]"), ({"a": "map"}, r"\{'a': 'map'\}"), ("x" * 10**6, "'xxx"), (3, "3")]
)
def test_a_value_type_that_is_no_name(found: Any, words: str) -> None:
    with pytest.raises(
        MaskweaveError, match=f"'photo': 'value': there is no value type {words}.*known: image"
    ) as caught:
        catalog_from(content(modalities__photo__value={"type": found}), "here")
    assert len(str(caught.value)) < 500


UNFIT: dict[str, Any] = {
    "text": "x" * 5000,
    "texts": ["x" * 5000] * 9,
    "numbers": list(range(5000)),
    "mapping": {"x" * 5000: [[["y" * 50000] * 50] * 50] * 50},
    "large": 10**3000,
}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path


def replaced(value: dict[str, Any], path: tuple[str, ...], by: Any) -> dict[str, Any]:
    first, *rest = path
    return {**value, first: replaced(value[first], tuple(rest), by) if rest else by}


@pytest.mark.parametrize("unfit", UNFIT)
def test_every_message_about_a_recipe_or_an_entry_is_short(unfit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key after the other gets an unfit value. Some are accepted, a long name of a unit for instance."""

    monkeypatch.setattr(recipes, "load_catalog", functools.cache(load_catalog))

    def check(found: Any) -> None:
        check_recipe(build(Recipe, found, "here"), "here")

    def read(found: Any) -> None:
        catalog_from(found, "here", saved=True)

    bases: list[tuple[Any, Any]] = [
        (plain(load_recipe("recipes/smoke.yaml")), check),
        (plain(TransferRecipe()), lambda found: build(TransferRecipe, found, "here")),
    ]
    for catalog in (
        load_catalog("scenes").subset(["tok_rgb", "semseg", "boxes"]),
        load_catalog("4m").subset(["human_poses", "sam_instance"]),
    ):
        content = catalog.to_plain()
        bases += [({**content, "modalities": {name: entry}}, read) for name, entry in content["modalities"].items()]
    refused = 0
    for base, make in bases:
        for path in leaves(base):
            try:
                make(replaced(base, path, UNFIT[unfit]))
            except MaskweaveError as error:
                refused += 1
                assert len(str(error)) < 700, (path, str(error)[:200])
    assert refused > 100


def test_a_catalog_with_a_long_name() -> None:
    for name in ("x" * 5000, "x" * 5000 + ".yaml"):
        with pytest.raises(
            MaskweaveError, match="'xxx.*; expected at most 4,095 bytes, and 255 in each name; check the path"
        ) as caught:
            load_catalog(name)
        assert len(str(caught.value)) < 500


def test_reports_of_changes_are_short(tmp_path: Path) -> None:
    long = "k" * 10**5
    many: dict[str, Any] = {long: dict.fromkeys((f"{long}{n}" for n in range(9)), 1)}
    found = list(changes({"model": many, "seed": [[["x"] * 10**5] * 50] * 50}, {"model": {long: {}}}))
    assert len(found) == 10 and max(len(str(change)) for change in found) < 500
    write_yaml(tmp_path / "recipe.yaml", {f"key{n}": 1 for n in range(300)})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"key1, .* and \d+ more differ") as caught:
        claim_folder(tmp_path, plain(Recipe()), Catalog([]))
    assert len(str(caught.value)) < 1000


def test_the_setting_multiplies_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MaskweaveError, match="MASKWEAVE_LIMIT_FACTOR, which multiplies"):
        Decoding(steps=2 * limits.TOKENS)
    monkeypatch.setenv("MASKWEAVE_LIMIT_FACTOR", "2")
    assert Decoding(steps=2 * limits.TOKENS).steps == 2 * limits.TOKENS
    with pytest.raises(MaskweaveError, match="seed is"):
        TrainSettings(seed=2**63)
    monkeypatch.setenv("MASKWEAVE_LIMIT_FACTOR", "half")
    with pytest.raises(MaskweaveError, match="MASKWEAVE_LIMIT_FACTOR is 'half'; expected a whole number of 1 or more"):
        Decoding(steps=2 * limits.TOKENS)


LIMITS = {
    "NAME_BYTES": 100, "MODALITY_ID": 65_536, "TOKENS": 262_144, "VOCABULARY": 1_048_576, "WIDTH": 32_768, "DEPTH": 1024, "HEADS": 1024,
    "REGISTERS": 4096, "MLP_RATIO": 64, "POSITION_NUMBERS": 268_435_456, "CODE_WIDTH": 8192, "QUANTIZERS": 64, "DIFFUSION_STEPS": 65_536,
    "DIFFUSION_WIDTH": 8192, "DIFFUSION_LEVELS": 16, "DIFFUSION_LAYERS": 64, "DIFFUSION_PATCH": 1024, "SEED": 4_611_686_018_427_387_904,
    "PROCESSES": 1024, "SAMPLES": 68_719_476_736, "SHARD_SIZE": 16_777_216, "COPIES": 1024, "STEPS": 68_719_476_736, "BATCH_SIZE": 1_048_576,
    "ACCUMULATE": 1_048_576, "GUIDANCE": 10_000, "ENSEMBLE": 65_536, "SAMPLED_TOKENS": 1_048_576, "BATCH_TOKENS": 268_435_456,
    "MOST_MB": 1_048_576,
}  # fmt: skip


def test_the_limits_are_these() -> None:
    assert {name: value for name, value in vars(limits).items() if isinstance(value, int) and name.isupper()} == LIMITS
