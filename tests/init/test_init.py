"""From folders of files, made here, to a catalog, a recipe, imported data and a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
import soundfile
from PIL import Image

from maskweave.cli.main import main
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml
from maskweave.init import sizes
from maskweave.init.project import Project, import_files, make_project
from maskweave.modality.catalogs import Catalog, load_catalog
from maskweave.training.recipe import load_recipe
from maskweave.values.formats.video import write_mp4
from maskweave.values.map import Map

COUNT = 16


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def put(path: Path, content: object) -> None:
    """Write a file as its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".npy":
            np.save(path, content)
        case ".npz":
            np.savez(path, **content)  # type: ignore[arg-type]
        case ".txt":
            path.write_text(str(content))
        case ".wav" | ".flac":
            soundfile.write(path, *content)  # type: ignore[misc]
        case ".mp4":
            path.write_bytes(write_mp4(*content, "x"))  # type: ignore[misc]
        case ".json":
            path.write_text(json.dumps(content))
        case _:
            Image.fromarray(content).save(path)  # type: ignore[arg-type]


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, np.uint8)


def folder(root: Path, **files: Callable[[int], object]) -> Path:
    """Write `NAME__EXT=file` for each sample; None is no file."""
    for name, make in files.items():
        modality, _, ending = name.partition("__")
        for i in range(COUNT):
            if (content := make(i)) is not None:
                put(root / modality / f"{i:03d}.{ending}", content)
    return root


def made(root: Path, tmp_path: Path, **options: object) -> tuple[Project, Catalog]:
    project = make_project(root, tmp_path / "project", **options)  # type: ignore[arg-type]
    return project, load_catalog(project.folder / "catalog.yaml")


def value(catalog: Catalog, name: str) -> object:
    return catalog[name].value


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


def test_unreadable_files_and_unused_folders_are_told(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files",
        photo__png=lambda i: noise(rng, 64, 64, 3),
        note__txt=lambda i: f"number {i}",
        sound__wav=lambda i: None,
    )
    (root / "photo" / "003.png").write_bytes(b"no picture")
    put(root / "elsewhere" / "x.txt", "a")
    put(root / "two words" / "001.txt", "a")
    (root / "README.md").write_text("about")
    (root / "wave").mkdir()
    (root / "wave" / "001.wav").write_bytes(b"RIFF")
    project, catalog = made(root, tmp_path)
    text = project.survey_text()
    assert list(catalog) == ["note", "photo", "tok_photo"]
    assert "elsewhere/: none of its 1 names" in text and "two words/: cannot be the name" in text
    assert (
        "README.md" in text
        and "wave: " in text
        and "001.wav: corrupt or truncated sound file" in text
        and "003.png" in text
    )
    assert main(["init", str(root), "--out", str(tmp_path / "project")]) == 0, "the same again, with the import"
    assert read_yaml(tmp_path / "project" / "recipe.yaml")["data"]["source"] == str(tmp_path / "project" / "data")
    assert (tmp_path / "project" / "data" / "index.json").exists()


def test_photographs_of_scikit_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gray, color, transparent, palette, 1 bit and 16 bits, from 102 to 1,411 points."""
    photographs = [path for path in Path(skimage.data_dir).iterdir() if path.suffix in (".png", ".jpg")]
    assert len(photographs) >= 20
    root = tmp_path / "photographs"
    root.mkdir()
    for path in photographs:
        shutil.copy(path, root)
    assert main(["init", str(root), "--out", str(tmp_path / "p")]) == 0
    told = capsys.readouterr().out
    assert "pictures of many shapes are cropped to the center square" in told
    assert "chessboard_RGB.png: found a picture of 16 bits a channel" in told
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    assert list(catalog) == ["photographs", "tok_photographs"] and catalog["photographs"].value.channels == 3
    source = Shards(tmp_path / "p" / "data", catalog)
    assert len(source) == len(photographs) - 1
    seen = {source.key(i): source[i]["photographs"] for i in range(len(source))}
    assert seen["astronaut"].shape == (64, 64, 3)
    assert np.abs(seen["astronaut"].astype(float).mean() - skimage.data.astronaut().mean()) < 3
    assert (seen["camera"][..., 0] == seen["camera"][..., 2]).all() and seen["logo"][0, 0].tolist() == [255] * 3
    assert main(["recipe", "check", str(tmp_path / "p" / "recipe.yaml")]) == 0


def test_a_photograph_and_its_disparity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A true pair, cut into 35 parts. The disparity is infinite where it is unknown."""
    root, data = tmp_path / "pairs", Path(skimage.data_dir)
    left = np.array(Image.open(data / "motorcycle_left.png"))
    with np.load(data / "motorcycle_disp.npz") as file:
        disparity = file["arr_0"]
    for y, x in np.ndindex(5, 7):
        part = slice(100 * y, 100 * y + 100), slice(100 * x, 100 * x + 100)
        put(root / "left" / f"{y}-{x}.png", left[part])
        put(root / "disparity" / f"{y}-{x}.npy", disparity[part])
    assert main(["init", str(root), "--out", str(tmp_path / "p")]) == 0
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    value = catalog["disparity"].value
    assert isinstance(value, Map) and value.missing == (np.inf,) and value.range == (7.1, 60.0)
    source = Shards(tmp_path / "p" / "data", catalog)
    assert len(source) == 35 and {*source[0]} == {"disparity", "left"}
    known = np.stack([value.known(source[i]["disparity"]) for i in range(35)])
    assert 0.9 < known.mean() < 0.95 and "unusable" not in capsys.readouterr().out
    assert main(["recipe", "check", str(tmp_path / "p" / "recipe.yaml")]) == 0


@pytest.mark.parametrize("flat", [True, False])
def test_pictures_alone_and_class_folders(
    flat: bool, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "files"
    for i in range(COUNT):
        put(root / f"{i}.png" if flat else root / ["cat", "dog"][i % 2] / f"{i}.png", noise(rng, 40, 40, 3))
    assert main(["init", str(root), "--out", str(tmp_path / "p")]) == 0
    catalog = load_catalog(tmp_path / "p" / "catalog.yaml")
    source = Shards(tmp_path / "p" / "data", catalog)
    if flat:
        assert list(catalog) == ["files", "tok_files"] and len(source) == COUNT
    else:
        assert (
            list(catalog) == ["picture", "tok_picture", "class"] and source[0]["class"] == source.key(0).split("/")[0]
        )
    assert main(["recipe", "check", str(tmp_path / "p" / "recipe.yaml")]) == 0
    assert main(["init", str(root), "--out", str(tmp_path / "q"), "--no-import"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "maskweave data import" in line)
    assert main(line.split()[1:]) == 0 and (tmp_path / "q" / "data" / "index.json").exists()


def test_class_folders_of_the_same_names(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(
        tmp_path / "files", cat__png=lambda i: noise(rng, 32, 32, 3), dog__png=lambda i: noise(rng, 32, 32, 3)
    )
    assert list(made(root, tmp_path)[1]) == ["cat", "tok_cat", "dog", "tok_dog"]
    project = make_project(root, tmp_path / "other", classes=True)
    assert load_catalog(project.folder / "catalog.yaml")["class"].value.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no such folder"),
        (lambda root: root.mkdir(), "contains no files"),
        (lambda root: root.write_text("x"), "is a file"),
        (
            lambda root: folder(root, a__xyz2=lambda i: None) and put(root / "a" / "1.json", [{"x": "y"}]),
            "nothing usable",
        ),
        (lambda root: [put(root / n / f"{n}.txt", "x") for n in "ab"], "no two of its folders"),
    ],
)
def test_nothing_usable(prepare: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    prepare(tmp_path / "files")
    with pytest.raises(MaskweaveError, match=message):
        make_project(tmp_path / "files", tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_project_is_never_overwritten(tmp_path: Path) -> None:
    root = folder(tmp_path / "files", a__txt=lambda i: i / 3, b__txt=lambda i: i * 0.7)
    project, _ = made(root, tmp_path)
    recipe = project.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "# mine\n")
    made(root, tmp_path)
    assert recipe.read_text().endswith("# mine\n")
    catalog = project.folder / "catalog.yaml"
    catalog.write_text(catalog.read_text() + "# mine\n")
    with pytest.raises(MaskweaveError, match="exists already and differs"):
        made(root, tmp_path)
    assert catalog.read_text().endswith("# mine\n")
    put(tmp_path / "full" / "x.txt", "x")
    with pytest.raises(MaskweaveError, match=r"already contains x\.txt"):
        make_project(root, tmp_path / "full")
    with pytest.raises(MaskweaveError, match="is inside"):
        make_project(root, root / "project")
    with pytest.raises(MaskweaveError, match="minutes"):
        make_project(root, tmp_path / "new", minutes=0)


def test_more_minutes_give_more_steps(tmp_path: Path, rng: np.random.Generator) -> None:
    root = folder(tmp_path / "files", a__npy=lambda i: rng.normal(size=64), b__txt=lambda i: i * 0.7)
    short, long = (make_project(root, tmp_path / str(m), minutes=m).plan for m in (0.1, 1000))
    assert short.tokenizer_steps < long.tokenizer_steps and short.steps < long.steps


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


def test_modalities_of_few_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    """A recipe leaves out what hardly any sample has; inputs of requests are what most samples have together."""

    def below(count: int) -> Callable[[int], object]:
        return lambda i: rng.uniform(0, 1, (8, 8)) if i < count else None

    root = folder(
        tmp_path / "files",
        light__npy=below(COUNT),
        level__txt=lambda i: str(i % 3),
        second__npy=below(COUNT - 4),
        third__npy=below(COUNT - 6),
        rare__npy=below(1),
        late__npy=lambda i: None if i < 7 else rng.uniform(0, 1, (8, 8)),
    )
    project, catalog = made(root, tmp_path)
    recipe = load_recipe(project.folder / "recipe.yaml")
    assert "rare" in catalog and "rare" not in recipe.load_catalog() and "tok_third" in recipe.load_catalog()
    assert any(f"only 1 of {COUNT} samples have it" in doubt for f in project.findings for doubt in f.doubts)
    inputs = {tuple(request.targets): request.inputs for request in recipe.evaluate.requests}
    assert inputs["tok_light",] == ["level", "second", "third"], "10 of 16 samples have them"
    assert inputs["tok_third",] == ["level", "light", "second"] and inputs["tok_late",] == ["level", "light", "second"]
    comment = "# each target from the others that most of its samples have;"
    assert comment in (project.folder / "recipe.yaml").read_text()


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
    project, _ = made(root, tmp_path / "second", **options, axes={"flat": "x", "light": "error", "other": "x"})
    doubts = {f.name: " ".join(f.doubts) for f in project.findings}
    assert "have no single axis that x could be" in doubts["flat"] and "error holds no coordinates" in doubts["light"]
    with pytest.raises(MaskweaveError, match="--axis names 'lite', which is no folder"):
        made(root, tmp_path, axes={"lite": "x"})


def test_two_commands(tmp_path: Path, rng: np.random.Generator) -> None:
    """From files to a report, with very few steps."""
    root = folder(
        tmp_path / "files",
        plane__npy=lambda i: np.where(rng.random((16, 16)) < 0.1, np.nan, rng.normal(i, 1, (16, 16))),
        series__npy=lambda i: rng.normal(size=(8 + i, 2)),
        level__txt=lambda i: i * 0.7,
        kind__txt=lambda i: ["low", "high"][i > 8],
        note__txt=lambda i: f"level {i}",
        facts__json=lambda i: {"a": i, "b": i / 7},
    )
    assert main(["init", str(root), "--out", str(tmp_path / "p"), "--minutes", "0.1"]) == 0
    few = ["--train.steps", "2", "--tokenizers.train.steps", "2", "--tokenizers.jobs", "1", "--train.processes", "1"]
    run = tmp_path / "p" / "run"
    assert main(["run", str(tmp_path / "p" / "recipe.yaml"), "--out", str(run), *few]) == 0
    rows = json.loads((run / "evaluation.json").read_text())
    assert {row["target"] for row in rows} == {"tok_plane", "tok_series", "level", "kind", "note", "a", "b"}
    recipe = load_recipe(tmp_path / "p" / "recipe.yaml")
    together = [request for request in recipe.evaluate.requests if "a" in request.targets]
    assert [r.targets for r in together] == [["a", "b"]] and not {"a", "b"} & {*together[0].inputs}, "of one folder"
    assert recipe.model.masking.input_tokens >= 4 + 16 + 24, "all inputs of a sample fit"
    assert (run / "report.html").exists()
