"""Pictures whose transparent points are unknown: `valid: alpha`, from files to tokens, losses, scores and figures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from maskweave.data.augment import Augment, AugmentedValues
from maskweave.data.batches import ValueBatches
from maskweave.data.tokenizing import column_of
from maskweave.data.transforms import fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.values.geometry import Geometry
from maskweave.values.image import Image
from maskweave.values.variation import Variation

COLOR, GRAY = Image((8, 8), 3, valid="alpha"), Image((8, 8), 1, valid="alpha")


def catalog(**changes: Any) -> Catalog:
    value = {"type": "image", "size": [8, 8], "channels": 3, "valid": "alpha", **changes}
    entries = {
        "photo": {"id": 1, "kind": "grid", "grid": [2, 2], "value": value},
        "patches": {"id": 2, "kind": "patches", "grid": [2, 2], "value": value, "source": "photo"},
    }
    return catalog_from({"modalities": entries}, "own.yaml")


def emoji(channels: int = 3) -> np.ndarray:
    """The left half is transparent, the first token as a whole and a point of the last one too; the colors under it are loud."""
    picture = np.full((8, 8, channels + 1), 60, np.uint8)
    picture[..., -1] = 255
    picture[:4, :4] = 250
    picture[:4, :4, -1] = 0
    picture[7, 7, -1] = 100
    return picture


KNOWN = emoji()[..., -1] == 255


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("value", [COLOR, GRAY], ids=["color", "gray"])
def test_files_and_python_forms(value: Image) -> None:
    picture = emoji(value.channels)
    for given in (
        value.read(png(picture), "png", "a.png"),
        value.check(value.from_python(PIL.Image.fromarray(picture), "it"), "it"),
        value.read(*value.write(picture), "a.png"),
    ):
        assert np.array_equal(given, picture)
    opaque = value.read(png(picture[..., 0]), "png", "a.png")
    assert opaque.shape == picture.shape and (opaque[..., -1] == 255).all() and value.known(opaque).all()
    assert np.array_equal(value.known(picture), KNOWN)
    assert value.read(png(np.zeros_like(picture)), "png", "a.png") is None, "nothing of it is known"
    with pytest.raises(BadSample, match="shape"):
        value.check(np.zeros((8, 8, 7), np.uint8), "it")


def test_the_network_sees_no_hidden_colors() -> None:
    x = COLOR.to_network([emoji()])
    assert x.shape == (1, 3, 8, 8) and np.array_equal(~x[0, 0].isnan().numpy(), KNOWN)
    assert x.nan_to_num(-1).max() < 0, "250 is under transparency"
    prediction = COLOR.from_network(torch.zeros(1, 3, 8, 8))
    assert prediction.shape == (1, 8, 8, 3) and COLOR.known(prediction[0]).all()
    assert COLOR.check(prediction[0], "it").shape == (8, 8, 4), "a prediction can be an input"


def test_resizing_mixes_known_colors_only() -> None:
    big = emoji().repeat(3, 0).repeat(3, 1)
    small = COLOR.transform(big, Geometry())
    assert np.array_equal(COLOR.known(small), KNOWN) and (small[..., :3][KNOWN] == 60).all()
    half = Image((4, 4), 3, valid="alpha").transform(emoji(), Geometry(flip=True))
    assert (half[..., :3][half[..., 3] == 255] == 60).all() and half[:2, 2:, 3].max() == 0
    padded = fit({"photo": emoji()[:, :4]}, catalog(fit="pad"))["photo"]
    assert not COLOR.known(padded)[:, 4:].any(), "what is added is unknown"


def test_tokens_and_rows() -> None:
    entries = catalog()
    torch.manual_seed(0)
    tokenizer = GridTokenizer(entries["photo"]).eval()
    column = column_of(entries["photo"], [emoji(), None], tokenizer)
    assert column.valid is not None and column.valid.tolist() == [[False, True, True, True], [False] * 4]
    loud = emoji()
    loud[..., :3][~KNOWN] = 1
    assert torch.equal(tokenizer.encode([emoji()]), tokenizer.encode([loud])), "hidden colors change nothing"
    rows = column_of(entries["patches"], [emoji()], None)
    assert rows.rows is not None and rows.rows.dtype == np.float16 and rows.valid is not None
    scaled = entries["patches"].value.normalize_rows(rows.rows[0])
    assert scaled.shape == (4, 48) and np.isfinite(scaled).all() and (scaled[0] == 0).all()


def test_losses_and_scores_skip_transparent_points() -> None:
    entries = catalog()
    values = np.stack(COLOR.check_batch([emoji()] * 4, "photo"))
    assert values.dtype == np.float16 and np.array_equal(
        COLOR.check_batch(values, "photo")[0], values[0], equal_nan=True
    )
    torch.manual_seed(0)
    objective = TokenizerObjective(GridTokenizer(entries["photo"]))
    loss, _ = objective(ValueBatches(entries["photo"], values, 4)[0])
    loss.backward()
    assert loss.isfinite()
    metric = COLOR.metrics()["psnr"]
    right = np.full((8, 8, 3), 60, np.uint8)
    assert metric.scores([right], [emoji()])["PSNR"] == float("inf")
    assert metric.scores([right + 10], [emoji()])["PSNR"] == pytest.approx(10 * np.log10(255**2 / 100))
    assert (metric.best_constant([emoji(), emoji()])[KNOWN] == 60).all()


def test_augmentation_keeps_what_is_unknown() -> None:
    darker = COLOR.vary(emoji(), Variation(brightness=0.5))
    assert (darker[..., :3][KNOWN] == 30).all() and np.array_equal(darker[..., 3] >= 128, KNOWN)
    later = COLOR.vary(emoji(), Variation(shift=0.25))
    assert np.array_equal(COLOR.known(later)[:, 2:], KNOWN[:, :6]) and not COLOR.known(later)[:, :2].any()
    entry = catalog()["photo"]
    values = np.stack(COLOR.check_batch([emoji()] * 4, "photo"))
    augment = AugmentedValues(Augment(crop=0.9, flip=1.0, color=0.1, noise={"photo": 0.01}), entry, 0)
    batch = ValueBatches(entry, values, 4, augment=augment)[0].values
    assert batch.shape == (4, 3, 8, 8) and batch[:, :, :3, 6:].isnan().all() and not batch[:, :, :3, :3].isnan().any()
    assert batch.nan_to_num(-1).max() < 0


def test_figures_are_hatched() -> None:
    clear, full = (COLOR.draw(p, (64, 64)) for p in (emoji(), np.full((8, 8, 3), 60, np.uint8)))
    assert (clear != full).any(axis=-1)[:32, :32].mean() > 0.9


@pytest.mark.parametrize("changes", [{"channels": 4}, {"size": [2, 8, 8]}])
def test_settings_that_do_not_fit(changes: dict[str, Any]) -> None:
    with pytest.raises(MaskweaveError, match="value.valid: alpha is for pictures of 1 or 3 channels"):
        catalog(**changes)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    from maskweave.data.pictures import Pictures

    (tmp_path / "a.png").write_bytes(png(emoji()))
    entries = catalog()
    assert np.array_equal(Pictures(tmp_path, entries["photo"])[0]["photo"], emoji())
