"""Georeferences through generation: outputs are GeoTIFF with the input's reference system and transform."""

from pathlib import Path

import numpy as np
import pytest
from small_bundle import save, small_bundle

from maskweave.cli.main import main
from maskweave.errors import BadSample
from maskweave.generate.places import Place, as_geotiff, find_places
from maskweave.modality.catalogs import catalog_from
from maskweave.values.formats.georeference import Georeference, read_georeference, write_geotiff

rasterio = pytest.importorskip("rasterio")
CRS, PIXEL, LEFT, TOP = "EPSG:32632", 10.0, 500_000.0, 5_300_000.0


def geotiff(path: Path, array: np.ndarray, located: bool = True) -> Path:
    """Writes (H, W, bands) with pixels of 10 m, north up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": CRS, "transform": rasterio.transform.from_origin(LEFT, TOP, PIXEL, PIXEL)} if located else {}
    height, width, count = array.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": array.dtype}
    with rasterio.open(path, "w", **profile, **place) as out:
        out.write(np.moveaxis(array, -1, 0))
    return path


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def test_outputs_of_a_picture_cropped_to_the_center(tmp_path: Path) -> None:
    bundle = small_bundle()
    path = geotiff(tmp_path / "in.tif", picture(96, 128))
    folder = bundle.generate({"rgb": path}, ["depth", "caption"]).save(tmp_path / "out")
    assert not (folder / "depth.npy").exists() and (folder / "caption.txt").exists()
    size = bundle.catalog["depth"].value.size
    with rasterio.open(folder / "depth.tif") as found:
        assert found.crs.to_epsg() == 32632 and (found.height, found.width) == size
        step = 96 * PIXEL / size[0]
        assert tuple(found.transform)[:6] == pytest.approx((step, 0, LEFT + 16 * PIXEL, 0, -step, TOP))
        assert found.bounds.right == pytest.approx(LEFT + 112 * PIXEL)
    value = bundle.generate({"rgb": path}, ["depth"])["depth"]
    again = bundle.catalog["depth"].value.read((folder / "depth.tif").read_bytes(), "tif", "again")
    np.testing.assert_array_equal(again, value)


def test_a_plain_tiff_gives_the_usual_files(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "in.tif", picture(64, 64), located=False)
    folder = small_bundle().generate({"rgb": path}, ["depth"]).save(tmp_path / "out")
    assert (folder / "depth.npy").exists() and not (folder / "depth.tif").exists()


def test_commands(tmp_path: Path) -> None:
    bundle = save(small_bundle(), tmp_path / "bundle")
    for name in ("a", "b"):
        geotiff(tmp_path / f"in/{name}.tif", picture(64, 64))
    command = ["generate", str(bundle), "--target", "depth"]
    given = f"rgb={tmp_path / 'in'}"
    assert main([*command, "--input", given, "--out", str(tmp_path / "out")]) == 0
    for name in ("a", "b"):
        with rasterio.open(tmp_path / f"out/{name}/depth.tif") as found:
            assert found.crs.to_epsg() == 32632 and found.transform.c == LEFT
    scene = geotiff(tmp_path / "scene.tif", picture(80, 100))
    assert main([*command, "--input", f"rgb={scene}", "--tiles", "--out", str(tmp_path / "tiles")]) == 0
    with rasterio.open(tmp_path / "tiles/depth.tif") as found:
        assert (found.height, found.width) == (80, 100)
        assert tuple(found.transform)[:6] == (PIXEL, 0, LEFT, 0, -PIXEL, TOP)


def test_ids_and_unknown_points(tmp_path: Path) -> None:
    place = Georeference("", (2.0, 0.0, 7.0, 0.0, -2.0, 9.0))
    ids = np.array([[0, 3], [-1, 254]])
    (tmp_path / "ids.tif").write_bytes(write_geotiff(ids, place))
    with rasterio.open(tmp_path / "ids.tif") as found:
        assert found.dtypes == ("uint8",) and found.nodata == 255 and found.read(1).tolist() == [[0, 3], [255, 254]]
    (tmp_path / "many.tif").write_bytes(write_geotiff(ids + 1000 * (ids > 0), place))
    with rasterio.open(tmp_path / "many.tif") as found:
        assert found.dtypes == ("uint16",) and found.nodata == 65535
    with pytest.raises(BadSample, match="expected at most 65534"):
        write_geotiff(np.array([[70_000]]), place)
    (tmp_path / "map.tif").write_bytes(write_geotiff(np.float32([[[1, np.nan]]]), place, ("B2", "B3"), "m"))
    with rasterio.open(tmp_path / "map.tif") as opened:
        assert opened.descriptions == ("B2", "B3") and opened.units == ("m", "m") and np.isnan(opened.nodata)
    assert read_georeference(tmp_path / "map.tif") == (place, (1, 1))


def test_places_of_entries_that_are_fitted_otherwise(tmp_path: Path) -> None:
    def entry(id: int, view: str, **more: object) -> dict[str, object]:
        value = {"type": "map", "size": [8, 8], "range": [0, 1], "missing": "nan", **more}
        return {"id": id, "kind": "patches", "grid": [2, 2], "view": view, "value": value}

    entries = {"a": entry(1, "", fit="resize"), "b": entry(2, "b", fit="pad"), "c": entry(3, "c", size=[4, 4])}
    catalog = catalog_from({"modalities": entries}, "own.yaml")
    path = geotiff(tmp_path / "in.tif", np.zeros((16, 24, 1), np.float32))
    places = find_places({"a": str(path), "b": path}, catalog)
    assert set(places) == {""} and places[""].size == (16, 24), "a padded plane has no place"
    located = as_geotiff(np.zeros((8, 8, 1), np.float32), catalog["a"], places)
    assert located is not None
    (tmp_path / "out.tif").write_bytes(located)
    with rasterio.open(tmp_path / "out.tif") as found:
        assert tuple(found.transform)[:6] == (30, 0, LEFT, 0, -20, TOP)
    assert as_geotiff(np.zeros((4, 4, 1), np.float32), catalog["c"], places) is None, "another view"
    scene = find_places({"c": path}, catalog, tiled=True)
    assert scene == {"c": Place(places[""].position, (4.0, 4.0))}
