"""From folders of files, made here, to the entries of a catalog."""

from pathlib import Path

import numpy as np
import pytest
from project_helpers import COUNT, folder, made, noise, put

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.init import sizes
from maskweave.init.project import import_files, make_project
from maskweave.modality.catalogs import load_catalog
from maskweave.training.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("to_the_end")


def test_pictures_and_texts(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        photo__png=lambda i: noise(rng, 60, 90, 3),
        note__txt=lambda i: f"picture number {i}",
        kind__txt=lambda i: ["bird", "tree"][i % 2],
        few__txt=lambda i: ["a small bird", "a tall tree"][i % 2],
    )
    project, catalog = made(root, tmp_path, texts=["few"])
    assert catalog["photo"].kind == "patches" and catalog["tok_photo"].source == "photo"
    assert catalog["photo"].value.size == (64, 96) and catalog["photo"].grid == (8, 12)
    assert catalog["note"].vocabulary and catalog["few"].value.type == "text"
    assert catalog.vocabularies[catalog["note"].vocabulary].type == "byte_bpe"
    assert catalog["kind"].value.classes == ("bird", "tree")
    recipe = load_recipe(project.folder / "recipe.yaml")
    targets = [request.targets for request in recipe.evaluate.requests]
    assert targets == [["few"], ["kind"], ["note"], ["tok_photo"]]
    assert all(
        set(r.inputs) == {"few", "kind", "note", "photo"} - {r.targets[0].removeprefix("tok_")}
        for r in recipe.evaluate.requests
    )


def test_planes_of_one_width_are_no_series(tmp_path: Path, rng: np.random.Generator) -> None:
    """Depth as PNG of 16 bits and gray photographs, all as wide, but not as high, as each other; arrays of such shapes are series."""
    height = (40, 48, 56)
    root = folder(
        tmp_path / "files",
        depth__png=lambda i: rng.integers(500, 9000, (height[i % 3], 48)).astype(np.uint16),
        gray__png=lambda i: noise(rng, height[i % 3], 48),
        joints__npy=lambda i: rng.normal(size=(height[i % 3], 48)),
    )
    _, catalog = made(root, tmp_path)
    assert catalog["depth"].value.type == "map" and catalog["depth"].value.fit == ("crop",)
    assert catalog["gray"].value.type == "image" and catalog["gray"].value.channels == 1
    assert catalog["joints"].value.type == "series" and catalog["joints"].value.channels == 48


def test_earth_observation(tmp_path: Path, rng: np.random.Generator) -> None:
    rasterio = pytest.importorskip("rasterio")
    root = tmp_path / "files"
    for i in range(COUNT):
        bands = rng.integers(1, 3000, (4, 32, 32)).astype(np.uint16)
        land = np.repeat(np.repeat(rng.integers(0, 5, (4, 4)), 8, 0), 8, 1).astype(np.uint8)
        height = rng.normal(500, 100, (32, 32)).astype(np.float32)
        bands[:, :3], land[:3], height[0, 0] = 0, 255, -9999
        for name, array, nodata in (("bands", bands, 0), ("land", land[None], 255), ("height", height[None], None)):
            path = root / name / f"{i}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {"driver": "GTiff", "width": 32, "height": 32, "count": len(array), "dtype": array.dtype}
            with rasterio.open(path, "w", nodata=nodata, **profile) as out:
                out.write(array)
                if name == "bands":
                    out.descriptions, out.units = ("B2", "B3", "B4", "B8"), ("1e-4",) * 4
        put(root / "tags" / f"{i}.json", ["wet", "dry"][: i % 3])
        put(root / "facts" / f"{i}.json", {"month": i % 12 + 1, "mass": 10 ** rng.uniform(0, 5), "place": "here"})
    project, catalog = made(root, tmp_path)
    bands_, land_, height_ = (catalog[n].value for n in ("bands", "land", "height"))
    assert (bands_.type, bands_.channels, bands_.missing, bands_.outside) == ("map", 4, ("nan",), "clip")
    assert 0 <= bands_.range[0] <= 1 and 2990 <= bands_.range[1] <= 3100, "without the nodata"
    assert bands_.channel_names == ("B2", "B3", "B4", "B8") and bands_.unit == "1e-4"
    assert land_.type == "classes" and len(land_.classes) == 5 and land_.ignore == (255,)
    assert height_.missing == (-9999.0,) and height_.range[0] > 0
    assert catalog["tags"].value.classes == ("dry", "wet")
    month, mass = catalog["month"], catalog["mass"]
    assert month.folder == mass.folder == "facts" and month.value.key == "month" and mass.value.scale == "log"
    text = project.survey_text()
    assert "the keys place hold no numbers" in text and "land: the files do not name their classes" in text


def test_arrays_and_scalars(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        joints__npy=lambda i: rng.normal(size=(20 + 2 * i, 3)),
        mel__npy=lambda i: rng.normal(size=(80, 100 + 5 * i)).astype(np.float32),
        clip__npz=lambda i: {"frames": noise(rng, 8, 32, 32, 3)},
        mass__txt=lambda i: 10 ** rng.uniform(6, 11),
        count__txt=lambda i: i % 5,
        mask__png=lambda i: rng.random((32, 32)) > 0.5,
        camera__npy=lambda i: noise(rng, 40, 60, 3) if i % 4 else None,
    )
    _, catalog = made(root, tmp_path)
    joints, mel = catalog["joints"].value, catalog["mel"].value
    assert (joints.type, joints.size, joints.channels, joints.missing) == ("series", (50,), 3, ("predicted",))
    assert joints.scaling == catalog["tok_joints"].value.scaling == "fit"
    assert mel.size[0] == 80 and mel.size[1] >= 175 and mel.fit == ("crop", "crop") and mel.has_unknown
    assert catalog["clip"].value.size == (8, 32, 32) and catalog["clip"].value.type == "video"
    assert (catalog["mass"].value.scale, catalog["count"].value.scale) == ("log", "linear")
    assert catalog["mask"].value.type == "binary"
    assert {catalog["camera"].view, catalog["mask"].view} == {"", "mask"}, "another frame"


def test_objects_of_many_numbers_are_metadata(tmp_path: Path) -> None:
    root = folder(tmp_path / "files", facts__json=lambda i: {f"k{n}": i + n / 7 for n in range(9)})
    _, catalog = made(root, tmp_path)
    assert list(catalog) == ["facts"] and len(catalog["facts"].value.keys) == 9


def test_units_of_scientific_files(tmp_path: Path, rng: np.random.Generator) -> None:
    """BUNIT, TUNIT and the attribute `units`; files that differ state none."""
    h5py, fits = pytest.importorskip("h5py"), pytest.importorskip("astropy.io.fits")
    root = tmp_path / "files"
    for name in ("image", "table", "grid", "mixed"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        image = fits.PrimaryHDU(rng.normal(size=(16, 16)).astype(np.float32))
        image.header["BUNIT"] = "nJy"
        image.writeto(root / f"image/{i}.fits")
        column = fits.Column("flux", "D", unit="erg", array=rng.normal(size=40))
        fits.BinTableHDU.from_columns([column]).writeto(root / f"table/{i}.fits")
        for kind, unit in (("grid", "K"), ("mixed", "K" if i else "m")):
            with h5py.File(root / f"{kind}/{i}.h5", "w") as file:
                file["data/t2m"] = rng.normal(size=(16, 16))
                file["data/t2m"].attrs["units"] = unit
    _, catalog = made(root, tmp_path)
    assert {n: m.value.unit for n, m in catalog.items() if not m.source} == {
        "image": "nJy",
        "table": "erg",
        "grid": "K",
        "mixed": "",
    }


def test_sounds(tmp_path: Path, rng: np.random.Generator) -> None:
    def tone(seconds: float, rate: int) -> tuple[np.ndarray, int]:
        return 0.1 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate), rate

    root = folder(
        tmp_path / "files",
        speech__wav=lambda i: tone(0.5 + 0.02 * i, 8000 if i % 4 else 16_000),
        music__flac=lambda i: tone(11 if i == 3 else 0.1, 44_100),
        speaker__txt=lambda i: "ab"[i % 2],
    )
    project, catalog = made(root, tmp_path)
    speech, music = catalog["tok_speech"].value, catalog["tok_music"].value
    assert (speech.type, speech.rate, speech.window, speech.hop, speech.mels) == ("audio", 8000, 512, 128, 64)
    assert 0.8 <= speech.max_seconds <= 0.95 and speech.size[1] % catalog["tok_speech"].grid[1] == 0
    assert speech.range == (-100, -20), "80 dB below the loudest"
    assert music.rate == 24_000 and catalog["music"].kind == "patches"
    text = project.survey_text()
    assert "sound, 0.5 to 0.8 s, 8000 Hz, 16000 Hz" in text
    assert "music: files have 44100 samples per second; rate 24000 keeps frequencies up to 12000 Hz" in text
    assert "the longest has 11 s" in text


def test_videos_and_folders_of_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        film__mp4=lambda i: (noise(rng, 20 + i, 32, 48, 3), 10),
        task__txt=lambda i: "ab"[i % 2],
        still__png=lambda i: noise(rng, 64, 96, 3),
        cut__npz=lambda i: {"frames": noise(rng, 8, 32, 48, 3), "time": np.arange(8)},
    )
    for i in range(COUNT):
        for frame in range(3 + i % 2):
            put(root / "frames" / f"{i:03d}" / f"{frame}.png", noise(rng, 40, 40, 3))
    project, catalog = made(root, tmp_path, arrays={"cut": "frames"})
    film, frames, cut = (catalog[f"tok_{name}"].value for name in ("film", "frames", "cut"))
    assert film.type == frames.type == cut.type == "video"
    assert (film.size, film.fps, film.missing) == ((16, 32, 48), 4.0, "predicted"), "4 per second hold all of 3.5 s"
    assert frames.size == (4, 32, 32) and frames.fps == 8
    assert (cut.size, cut.array, cut.missing) == ((8, 32, 48), "frames", "nan"), "all are equally long"
    views = {name: catalog[name].view for name in ("film", "frames", "cut", "still")}
    assert views == {"film": "", "still": "", "frames": "frames", "cut": ""}
    text = project.survey_text()
    assert "videos of 20 to 35 frames, 10 frames per second" in text
    assert "frames: arrays and folders of frames state no frames per second" in text
    assert main(["init", str(root), "--out", str(tmp_path / "project"), "--array", "cut=frames"]) == 0
    shards = Shards(tmp_path / "project" / "data", catalog)
    assert len(shards) == COUNT and {len(shards[i]["frames"]) for i in range(COUNT)} == {3, 4}


def test_frames_of_another_name_stay_pictures(tmp_path: Path, rng: np.random.Generator) -> None:
    for place in ("a", "b"):
        for number in range(4):
            put(tmp_path / "files" / "photo" / place / f"{number}.png", noise(rng, 64, 64, 3))
            put(tmp_path / "files" / "note" / place / f"{number}.txt", f"{place} {number}")
    _, catalog = made(tmp_path / "files", tmp_path)
    assert catalog["photo"].value.type == "image"


def test_several_arrays_are_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        spectrum__npz=lambda i: {"flux": rng.normal(size=64), "ivar": np.ones(64)},
        z__txt=lambda i: rng.random(),
    )
    project, catalog = made(root, tmp_path)
    assert (
        list(catalog) == ["z"]
        and "--array spectrum=NAME" in project.survey_text()
        and "flux, ivar" in project.survey_text()
    )
    project = make_project(root, tmp_path / "other", arrays={"spectrum": "flux"})
    assert load_catalog(project.folder / "catalog.yaml")["tok_spectrum"].value.array == "flux"
    with pytest.raises(MaskweaveError, match="--array names 'nothing'"):
        make_project(root, tmp_path / "third", arrays={"nothing": "flux"})


@pytest.mark.parametrize("length", range(1, 300))
def test_grids_divide_their_sizes(length: int) -> None:
    series, volume = sizes.for_series([length]), sizes.for_volume([(length, 5, 70)])
    strip = sizes.for_strip([(length, 50), (length, 100)], axis=1)
    picture, plane = sizes.for_picture([(length, 64)], 10), sizes.for_picture([(64, length)], 10, kept=True)
    for fitted in (series, volume, strip, picture, plane):
        assert all(s % g == 0 and g >= 1 for s, g in zip(fitted.size, fitted.grid, strict=True)), fitted
    assert series.size[0] >= length and strip.size[1] >= 100, "nothing is cut"


def test_numbers_over_powers_of_ten_need_no_range(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        flux__npy=lambda i: np.exp(rng.normal(0, 2.5, (16, 16))) * rng.choice([-1, 1], (16, 16)),
        counts__npy=lambda i: (np.exp(rng.normal(5, 2, (16, 16)))).astype(np.int64),
    )
    _, catalog = made(root, tmp_path)
    assert (catalog["flux"].value.scaling, catalog["flux"].value.range) == ("fit_asinh", None)
    assert catalog["counts"].value.range is not None


def test_files_that_never_change_are_left_out(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        light__npy=lambda i: rng.uniform(0, 1, (8, 8, 2)),
        noise__npy=lambda i: np.broadcast_to([3.0, 500.0], (8, 8, 2)),
        flat__npy=lambda i: np.full((8, 8), 2.0),
    )
    project, catalog = made(root, tmp_path)
    assert list(catalog) == ["light", "tok_light"]
    doubts = {f.name: " ".join(f.doubts) for f in project.findings}
    assert "all 16 files that were read hold the same numbers (3 to 500, by channel)" in doubts["noise"]
    assert "(2)" in doubts["flat"]


def test_channels_of_different_ranges_have_their_own(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        weather__npy=lambda i: np.stack(
            [rng.uniform(0, 1, (16, 16)), rng.uniform(900, 1100, (16, 16)), np.full((16, 16), 5.0)], -1
        ),
        alike__npy=lambda i: rng.uniform(0, 1, (16, 16, 2)),
    )
    _, catalog = made(root, tmp_path)
    small, large, constant = catalog["weather"].value.range
    assert (
        small == pytest.approx((0, 1), abs=0.02)
        and large == pytest.approx((900, 1100), abs=2)
        and constant[0] < 5 < constant[1]
    )
    assert catalog["alike"].value.range == pytest.approx((0, 1), abs=0.02)


def test_files_with_coordinates_are_resampled_onto_one_axis(tmp_path: Path, rng: np.random.Generator) -> None:
    def spectrum(i: int) -> dict[str, np.ndarray]:
        x = np.log10(np.linspace(400 + i, 700 + i, 90 + i))
        return {"logx": x, "y": 10**x, "error": np.ones_like(x)}

    root = folder(tmp_path / "files", light__npz=spectrum, flat__npy=lambda i: rng.normal(size=(40, 50)))
    options: dict[str, object] = {"arrays": {"light": "y"}}
    project, catalog = made(root, tmp_path, **options, axes={"light": "logx"})
    axis = catalog["light"].value.axis
    assert axis.start == pytest.approx(407.5, abs=1) and axis.stop == pytest.approx(707.5, abs=1)
    assert (axis.array, axis.array_scale, axis.scale) == ("logx", "log10", "log")
    import_files(project)
    shards = Shards(project.folder / "data", catalog)
    for i in (0, 8, 15):
        value = shards[i]["light"]
        known = np.isfinite(value)
        assert known.mean() > 0.9
        assert value[known] == pytest.approx(axis.points(len(value))[known], rel=0.01), (
            "values lie on their coordinates"
        )
    folder(root, other__npy=lambda i: np.full(30, i), last__npy=lambda i: i)  # the last is usable
    folder(root, short__npz=lambda i: {"x": np.arange(29.0), "y": np.arange(30.0)})
    project, _ = made(
        root,
        tmp_path / "second",
        arrays={"light": "y", "short": "y"},
        axes={"flat": "x", "light": "error", "other": "x", "short": "x"},
    )
    doubts = {f.name: " ".join(f.doubts) for f in project.findings}
    assert "have no single axis that x could be" in doubts["flat"] and "error holds no coordinates" in doubts["light"]
    assert "x does not hold one coordinate for each point" in doubts["short"]
    with pytest.raises(MaskweaveError, match="--axis names 'lite', which is no folder"):
        made(root, tmp_path, axes={"lite": "x"})
