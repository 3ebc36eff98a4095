"""Files as people have them, few and small, for the pages of docs/your-data: one function for each page, which writes its folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

COUNT = 12


def galaxies(root: Path, rng: np.random.Generator) -> None:
    """Pictures over powers of ten, FITS tables of unequal length with wavelengths of their own, objects with missing numbers."""
    from astropy.io import fits

    for name in ("image", "spectrum", "scalars"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        name, flux = f"gal{i:04d}", float(10 ** rng.uniform(0, 3))
        np.save(root / f"image/{name}.npy", (flux * rng.random((32, 32, 5)) ** 6).astype(np.float32))
        points = 200 + 5 * (i % 4)
        spectrum = (flux * (1 + rng.random(points))).astype(np.float32)
        spectrum[rng.random(points) < 0.05] = np.nan
        columns = {"loglam": np.log10(3600 + i) + 1e-3 * np.arange(points), "flux": spectrum, "ivar": np.ones(points)}
        if i % 6 != 2:
            table = fits.BinTableHDU.from_columns([fits.Column(k, "E", array=v) for k, v in columns.items()])
            table.writeto(root / f"spectrum/{name}.fits")
        scalars = {"redshift": None if i == 5 else i / 20, "mass": 10.0 ** (8 + i / 4)}
        (root / f"scalars/{name}.json").write_text(json.dumps(scalars), encoding="utf-8")


def tiles(root: Path, rng: np.random.Generator) -> None:
    """GeoTIFF with nodata, NaN borders, ignored classes and a large scene."""
    import rasterio
    from rasterio.transform import from_origin

    def write(path: Path, array: np.ndarray, nodata: float | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = array[None] if array.ndim == 2 else array
        with rasterio.open(
            path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype,
            crs="EPSG:32632", transform=from_origin(5e5, 5e6, 10, 10), nodata=nodata,
        ) as file:  # fmt: skip
            file.write(array)

    def scene(side: int) -> dict[str, np.ndarray]:
        classes = np.kron(rng.integers(0, 4, (side // 16, side // 16)), np.ones((16, 16))).astype(np.uint8)
        bands = (1000.0 * (1 + classes[None]) * (1 + rng.random((3, side, side)) / 9)).astype(np.uint16)
        radar = (-8.0 - classes[None] + rng.normal(size=(2, side, side))).astype(np.float32)
        return {"s2": bands, "s1": radar, "dem": (100.0 * classes).astype(np.float32), "landcover": classes}

    for i in range(COUNT):
        found = scene(32)
        found["s2"][:, :, :3] = 0
        found["s1"][:, :2] = np.nan
        found["landcover"][rng.random((32, 32)) < 0.02] = 255
        found["dem"] += rng.normal(size=(32, 32)).astype(np.float32)
        for name, nodata in (("s2", 0), ("s1", np.nan), ("dem", None), ("landcover", 255)):
            if name != "s1" or i % 5:
                write(root / name / f"tile_{i:04d}.tif", found[name], nodata)
        (root / "meta").mkdir(exist_ok=True)
        meta = {"biomass": float(found["dem"].mean()), "month": i % 12 + 1, "latitude": 46 + i / 7}
        (root / f"meta/tile_{i:04d}.json").write_text(json.dumps(meta), encoding="utf-8")
    write(root / "scene512/s2/big.tif", scene(80)["s2"], 0)


def speech(root: Path, rng: np.random.Generator) -> None:
    """Sounds of unequal length with words, speakers and numbers."""
    for name in ("wav", "caption", "speaker", "prosody"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        name, pitch = f"utt{i:04d}", 200 + 100 * (i % 3)
        time = np.arange(3000 + 500 * (i % 4)) / 8000
        soundfile.write(root / f"wav/{name}.wav", 0.3 * np.sin(2 * np.pi * pitch * time), 8000)
        (root / f"caption/{name}.txt").write_text(["go left", "go right", "stop"][i % 3], encoding="utf-8")
        (root / f"speaker/{name}.txt").write_text(f"spk{i % 2}", encoding="utf-8")
        (root / f"prosody/{name}.json").write_text(json.dumps({"pitch": pitch, "rate": 100 + i}), encoding="utf-8")


def arm(root: Path, rng: np.random.Generator) -> None:
    """Videos, a second camera that some lack, joints of unequal length."""
    for name in ("video", "cam2", "joints", "actions", "instruction", "success"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        name = f"ep{i:04d}"
        np.savez_compressed(root / f"video/{name}.npz", rng.integers(0, 256, (4, 16, 16, 3), np.uint8))
        if i % 3:
            np.savez_compressed(root / f"cam2/{name}.npz", rng.integers(0, 256, (4, 16, 16, 3), np.uint8))
        np.save(root / f"joints/{name}.npy", rng.normal(size=(20 + i, 6)).cumsum(axis=0))
        np.save(root / f"actions/{name}.npy", rng.normal(size=(8, 2)).astype(np.float32))
        (root / f"instruction/{name}.txt").write_text(f"reach the {['red', 'blue'][i % 2]} ball", encoding="utf-8")
        (root / f"success/{name}.txt").write_text(str(i % 4 and 1), encoding="utf-8")


def emoji(root: Path, rng: np.random.Generator) -> None:
    """Transparent pictures with names and categories."""
    for name in ("twitter", "google", "caption", "keywords", "category"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        for vendor in ("twitter", "google"):
            Image.fromarray(rng.integers(0, 256, (32, 32, 4), np.uint8)).save(root / vendor / f"1f6{i:02d}.png")
        (root / f"caption/1f6{i:02d}.txt").write_text(f"red heart {i} ❤", encoding="utf-8")
        (root / f"keywords/1f6{i:02d}.txt").write_text(f"love | herz | 心 | {i}", encoding="utf-8")
        (root / f"category/1f6{i:02d}.txt").write_text(["Symbols", "Food"][i % 2], encoding="utf-8")


def photographs(root: Path, rng: np.random.Generator) -> None:
    """Pictures of unequal sizes, depth in millimeters that some lack, captions and boxes."""
    for name in ("rgb", "depth", "caption", "boxes"):
        (root / name).mkdir(parents=True)
    for i in range(COUNT):
        name, height, color = f"img{i:04d}", 40 + 8 * (i % 3), ("red", "blue")[i % 2]
        Image.fromarray(rng.integers(0, 256, (height, 48, 3), np.uint8)).save(root / f"rgb/{name}.jpg")
        if i % 4:
            depth = rng.integers(500, 9000, (height, 48)).astype(np.uint16)
            Image.fromarray(depth).save(root / f"depth/{name}.png")
        (root / f"caption/{name}.txt").write_text(f"a {color} car, number {i}", encoding="utf-8")
        box = {"class": f"{color} car", "box": [0.1, 0.2, 0.5 + i / 40, 0.9]}
        (root / f"boxes/{name}.json").write_text(json.dumps([box]), encoding="utf-8")


RAW: Mapping[str, Callable[[Path, np.random.Generator], None]] = {
    "astronomy": galaxies,
    "earth-observation": tiles,
    "speech": speech,
    "robot-arm": arm,
    "emoji": emoji,
    "photographs": photographs,
}
"""By page; the name of the function is the name of the folder."""
