"""Scenes by tiles: equal to each tile's own result without overlap, to the weighted mean with it; unknown points, resolutions, files, memory."""

import errno
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from small_bundle import save, small_bundle

from maskweave.cli.main import main
from maskweave.errors import FullDisk, MaskweaveError
from maskweave.generate.tiles import Output, TileLayout, plane_output, predict_tiles, tile_seed
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.values.binary import Binary
from maskweave.values.classes import Classes
from maskweave.values.direction import Direction
from maskweave.values.image import Image
from maskweave.values.map import Map

pytestmark = pytest.mark.usefixtures("to_the_end")

BANDS = Modality("bands", 1, "patches", Map((8, 8), channels=2, range=(0, 100), missing=("nan", 0)), grid=(2, 2))
FINE = Modality("fine", 2, "patches", Map((16, 16), range=(0, 100)), grid=(2, 2))
COVER = Modality("cover", 3, "grid", Classes((8, 8), classes=("a", "b", "c"), ignore=(255,)), grid=(2, 2))
COARSE = Modality("coarse", 4, "grid", Map((4, 4), range=(0, 100), missing=("nan",)), grid=(2, 2))
CATALOG = Catalog([BANDS, FINE, COVER, COARSE])
RNG = np.random.default_rng(0)


def scene(height: int, width: int) -> np.ndarray:
    return RNG.uniform(1, 99, (height, width, 2)).astype(np.float32)


def first_band(samples: Any, numbers: Any) -> list[dict[str, np.ndarray]]:
    return [{"copy": sample["bands"][..., :1]} for sample in samples]


COPY = {"copy": Output((8, 8), 1, lambda mean: mean[..., 0])}


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("size", [(8, 8), (24, 16), (21, 19), (9, 40)])
def test_copied_tiles_are_the_scene(size: tuple[int, int], overlap: float) -> None:
    """Any weights blend equal values to themselves; every point is covered."""
    whole = scene(*size)
    found = predict_tiles(CATALOG, {"bands": whole}, COPY, first_band, overlap=overlap)
    assert found["copy"].shape == size and found.known["copy"].all()
    assert np.allclose(found["copy"], whole[..., 0], atol=1e-4)


def test_blending_by_hand() -> None:
    """Two tiles that overlap by half: weights fall linearly to the border, so that the prediction moves from one tile's to the other's."""
    constants = {0: 10.0, 1: 30.0}

    def predict(samples: Any, numbers: Any) -> list[dict[str, np.ndarray]]:
        return [{"copy": np.full((8, 8, 1), constants[n], np.float32)} for n in numbers]

    found = predict_tiles(CATALOG, {"bands": scene(8, 12)}, COPY, predict, overlap=0.5)
    up = (np.arange(4) + 0.5) / 4
    middle = (10 * up[::-1] + 30 * up) / (up + up[::-1])
    assert np.allclose(found["copy"][3], [10] * 4 + middle.tolist() + [30] * 4, atol=1e-5)
    assert found.tiles == 2


def test_layouts() -> None:
    assert TileLayout.of([8], 24, 8, 0.0) == TileLayout(8, [0, 8, 16], 0)
    assert TileLayout.of([8], 21, 8, 0.25).starts == [0, 6, 12, 13]
    assert TileLayout.of([64, 8], 100, 64, 0.25) == TileLayout(8, [0, 5], 2), (
        "8 points a step; the last tile reaches beyond the scene"
    )
    assert TileLayout.of([8], 5, 8, 0.5).starts == [0]


def test_unknown_points_stay_unknown() -> None:
    whole = scene(24, 24)
    whole[:, :3] = np.nan
    whole[10, 12] = np.nan
    whole[20, 20, 0] = np.nan  # one band of two is known
    seen = []

    def predict(samples: Any, numbers: Any) -> list[dict[str, np.ndarray]]:
        seen.extend(sample["bands"] for sample in samples)
        return [{"copy": np.full((8, 8, 1), 5, np.float32)} for _ in samples]

    found = predict_tiles(CATALOG, {"bands": whole}, COPY, predict)
    expected = ~np.isnan(whole).all(axis=-1)
    assert (found.known["copy"] == expected).all() and (np.isnan(found["copy"]) == ~expected).all()
    assert sum(bool(np.isnan(tile[0, 0, 0])) for tile in seen) >= 3
    whole[:8, :8] = np.nan
    skipped = predict_tiles(CATALOG, {"bands": whole}, COPY, predict, overlap=0.0)
    assert skipped.tiles == 8 and np.isnan(skipped["copy"][:8, :8]).all()
    with pytest.raises(MaskweaveError, match="the scene has no tile with a known point"):
        predict_tiles(CATALOG, {"bands": np.full((9, 9, 2), np.nan, np.float32)}, COPY, predict)


def test_a_small_scene_is_filled_up_with_unknown_points() -> None:
    seen = []

    def predict(samples: Any, numbers: Any) -> list[dict[str, np.ndarray]]:
        seen.extend(samples)
        return first_band(samples, numbers)

    small = scene(5, 8)
    found = predict_tiles(CATALOG, {"bands": small}, COPY, predict)
    assert found["copy"].shape == (5, 8) and np.allclose(found["copy"], small[..., 0])
    assert np.isnan(seen[0]["bands"][5:]).all()
    with pytest.raises(MaskweaveError, match="the scene is 5×8, smaller than a tile of 16×16"):
        predict_tiles(CATALOG, {"fine": np.ones((5, 8), np.float32)}, COPY, predict)


def test_modalities_of_different_resolution() -> None:
    """The finer input has twice the points; the coarse target half of them."""
    bands = scene(24, 20)
    fine = np.repeat(np.repeat(bands[..., 0], 2, 0), 2, 1)
    outputs = {"coarse": plane_output(COARSE.value, "coarse"), **COPY}

    def predict(samples: Any, numbers: Any) -> list[dict[str, np.ndarray]]:
        for sample in samples:
            assert np.allclose(sample["fine"][::2, ::2], sample["bands"][..., 0])
        return [
            {
                "copy": s["bands"][..., :1],
                "coarse": s["bands"][..., :1].reshape(4, 2, 4, 2).mean(axis=(1, 3))[..., None],
            }
            for s in samples
        ]

    found = predict_tiles(CATALOG, {"bands": bands, "fine": fine}, outputs, predict)
    assert found["coarse"].shape == (12, 10) and np.allclose(found["copy"], bands[..., 0], atol=1e-4)
    assert np.allclose(found["coarse"], bands[..., 0].reshape(12, 2, 10, 2).mean(axis=(1, 3)), atol=1e-4)
    with pytest.raises(
        MaskweaveError, match=r"input 'bands': the scene is 24×20, but expected 24×18 beside 'fine' with 48×36"
    ):
        predict_tiles(CATALOG, {"bands": bands, "fine": fine[:, :36]}, outputs, predict)


def test_values_blend_by_their_type() -> None:
    classes = COVER.value
    votes = classes.to_blend(np.array([[0, 2], [-1, 1]]))
    assert votes[0, 1].tolist() == [0, 0, 1] and np.isnan(votes[1, 0]).all()
    assert classes.from_blend(votes).tolist() == [[0, 2], [-1, 1]]
    assert replace(classes, ignore=()).from_blend(np.array([[[0.2, 0.5, 0.3]]])).tolist() == [[1]]
    picture = Image((2, 2), 3)
    assert picture.from_blend(np.full((1, 1, 3), 254.6)).tolist() == [[[255, 255, 255]]]
    direction = Direction((2, 2))
    mean = direction.from_blend(np.array([[[0.5, 0.5, 0.0]]], np.float32))
    assert np.linalg.norm(mean) == pytest.approx(1)
    assert Binary((2, 2)).from_blend(np.array([[[0.5], [0.4]]])).tolist() == [[True, False]]
    with pytest.raises(MaskweaveError, match="tiles give planes, and values of type 'map'"):
        plane_output(Map((8,), range=(0, 1)), "spectrum")


def test_memory_grows_with_the_outputs_only(tmp_path: Path) -> None:
    """A scene of 96 MB in a file, with its outputs in files too: the memory is that of a strip."""
    shape = (3000, 4000, 2)
    big = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=shape)
    big[:] = 7
    del big
    large = Catalog([replace(BANDS, value=replace(BANDS.value, size=(500, 500)))])
    output = {"copy": Output((500, 500), 1, lambda mean: mean[..., 0])}
    tracemalloc.start()
    found = predict_tiles(
        large, {"bands": tmp_path / "big.npy"}, output, first_band, folder=tmp_path / "out", batch_size=2
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70e6, f"{peak / 1e6:.0f} MB"
    assert isinstance(found["copy"], np.memmap) and float(found["copy"][2999, 3999]) == 7
    assert np.load(tmp_path / "out" / "copy.npy", mmap_mode="r").shape == (3000, 4000)


def test_a_full_disk_is_told_before_the_map_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a map of a file without space ends the process."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    scene = {"bands": np.ones((16, 16, 2), np.float32)}
    with pytest.raises(FullDisk, match=r"no space left for .*copy.npy of 1,024 bytes"):
        predict_tiles(CATALOG, scene, COPY, first_band, folder=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_windows_of_a_geotiff(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    numbers = RNG.integers(1, 100, (2, 20, 24)).astype(np.uint16)
    numbers[:, 4, 5] = 0
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=20,
        width=24,
        count=2,
        dtype="uint16",
        nodata=0,
        tiled=True,
        blockxsize=16,
        blockysize=16,
    ) as out:
        out.write(numbers)
    found = predict_tiles(CATALOG, {"bands": path}, COPY, first_band)
    known = found.known["copy"]
    assert not known[4, 5] and known.sum() == 20 * 24 - 1
    assert np.allclose(found["copy"][known], numbers[0][known], atol=1e-4)
    (tmp_path / "no.tif").write_bytes(b"no picture")
    with pytest.raises(MaskweaveError, match="found no TIFF"):
        predict_tiles(CATALOG, {"bands": tmp_path / "no.tif"}, COPY, first_band)
    with pytest.raises(MaskweaveError, match="no such file"):
        predict_tiles(CATALOG, {"bands": tmp_path / "missing.tif"}, COPY, first_band)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "tiles need an input with rows and columns, found no inputs"),
        (
            {"bands": np.ones((8, 8, 2), np.float32)},
            {"overlap": 1.0},
            "overlap must be a share of a tile from 0 to below 1",
        ),
        (
            {"bands": np.ones((8, 8, 2), np.float32)},
            {"batch_size": 0},
            "batch_size is 0; expected a whole number of 1 or more",
        ),
        ({"bands": np.full((8, 8, 2), 500, np.float32)}, {}, "rows 0 to 8, columns 0 to 8: .*expected 0 to 100"),
        ({"bands": np.ones(8, np.float32)}, {}, r"shape \(8,\); expected \(height, width\)"),
    ],
)
def test_what_is_refused(given: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        predict_tiles(CATALOG, given, COPY, first_band, **options)


def test_a_bundle_tiles_as_it_generates() -> None:
    bundle = small_bundle()
    picture = RNG.integers(0, 256, (128, 192, 3), np.uint8)
    tiled = bundle.tiles({"rgb": picture, "caption": "a red cube."}, ["depth"], overlap=0.0, seed=3)
    assert tiled["depth"].shape == (128, 192) and tiled.tiles == 6
    for number, (y, x) in enumerate((y, x) for y in (0, 64) for x in (0, 64, 128)):
        tile = {"rgb": picture[y : y + 64, x : x + 64], "caption": "a red cube."}
        alone = bundle.generate(tile, ["depth"], seed=tile_seed(3, number))["depth"]
        assert np.allclose(tiled["depth"][y : y + 64, x : x + 64], alone, atol=1e-4)
    for targets, message in (
        (["caption"], "tiles give planes"),
        (["global"], "tiles give planes"),
        ([], "expected a list"),
    ):
        with pytest.raises(MaskweaveError, match=message):
            bundle.tiles({"rgb": picture}, targets)


def test_features_of_a_scene() -> None:
    features = small_bundle().encoder(["rgb"])
    picture = RNG.integers(0, 256, (64, 128, 3), np.uint8)
    found = features.tiles({"rgb": picture}, overlap=0.0)
    alone = features([{"rgb": picture[:, 64:]}]).feature_map("rgb")[0].movedim(0, -1).numpy()
    assert found.shape == (8, 16, 32) and np.allclose(found[:, 8:], alone, atol=1e-4)
    with pytest.raises(MaskweaveError, match="no feature map of 'caption'"):
        features.tiles({"rgb": picture}, "caption")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save(small_bundle(), tmp_path / "run")
    Picture.fromarray(RNG.integers(0, 256, (100, 130, 3), np.uint8)).save(tmp_path / "scene.png")
    words = ["generate", str(run), "--input", f"rgb={tmp_path / 'scene.png'}", "--target", "depth", "--tiles"]
    assert main([*words, "--overlap", "0.5", "--out", str(tmp_path / "out")]) == 0
    assert "tiles blended" in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "depth.npy").shape == (100, 130)
    assert Picture.open(tmp_path / "out" / "depth.picture.png").width == 130
    assert main([*words, "--samples", "2", "--out", str(tmp_path / "two")]) == 1
    assert "--tiles cannot be combined with --samples" in capsys.readouterr().err
