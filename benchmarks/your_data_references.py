"""Simple methods of scikit-learn on the raw files of benchmarks/your_data.py: what a model must beat. The last samples by name are held out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTIES = np.logspace(-3, 4, 15)
PIXELS = 60_000
GRID = 10 ** np.linspace(np.log10(3800), np.log10(8900), 512)
"""Wavelengths at which spectra are compared, in angstrom."""


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


def ridge() -> Any:
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES))


def earth_observation(raw: Path, held_out: int) -> dict[str, float]:
    """Ridge and logistic regression per pixel; ridge on means and deviations of bands. Radar is missing in some tiles."""
    import rasterio

    keys = names(raw / "s2")

    def read(kind: str, key: str) -> np.ndarray:
        with rasterio.open(raw / kind / f"{key}.tif") as file:
            return np.moveaxis(file.read(), 0, -1).astype(np.float64)

    bands = [np.where((x := read("s2", k)) == 0, np.nan, np.minimum(x, 16000)) for k in keys]
    classes, heights = ([read(kind, k)[..., 0] for k in keys] for kind in ("landcover", "dem"))
    biomass = np.array([json.loads((raw / "meta" / f"{k}.json").read_text(encoding="utf-8"))["biomass"] for k in keys])
    cut = len(keys) - held_out
    known = [~np.isnan(x).any(-1) for x in bands]
    usable = [k & (c != 255) for k, c in zip(known, classes, strict=True)]
    some = np.random.default_rng(0).permutation(sum(int(u.sum()) for u in usable[:cut]))[:PIXELS]
    x = np.concatenate([b[u] for b, u in zip(bands[:cut], usable, strict=False)])[some]
    land = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        x, np.concatenate([c[u] for c, u in zip(classes[:cut], usable, strict=False)])[some]
    )
    height = ridge().fit(x, np.concatenate([h[u] for h, u in zip(heights[:cut], usable, strict=False)])[some])
    hits, unions = np.zeros(9), np.zeros(9)
    errors = []
    for b, c, h, k, u in zip(*(v[cut:] for v in (bands, classes, heights, known, usable)), strict=True):
        found = land.predict(b[u])
        for i in range(9):
            hits[i] += ((found == i) & (c[u] == i)).sum()
            unions[i] += ((found == i) | (c[u] == i)).sum()
        errors.append(np.abs(height.predict(b[k]) - h[k]))
    features = np.array([np.r_[np.nanmean(b, axis=(0, 1)), np.nanstd(b, axis=(0, 1))] for b in bands])
    mass = ridge().fit(features[:cut], biomass[:cut]).predict(features[cut:])
    radar = {k: read("s1", k) for k in names(raw / "s1")}
    seen = {k: usable & np.isfinite(radar[k]).all(-1) for k, usable in zip(keys, known, strict=True) if k in radar}
    by_key = dict(zip(keys, bands, strict=True))
    first, last = ([k for k in seen if (k in keys[cut:]) == held] for held in (False, True))
    some = np.random.default_rng(0).permutation(sum(int(seen[k].sum()) for k in first))[:PIXELS]
    x, y = (np.concatenate([v[k][seen[k]] for k in first])[some] for v in (radar, by_key))
    color = ridge().fit(x, y)
    misses = [np.abs(color.predict(radar[k][seen[k]]) - by_key[k][seen[k]]) for k in last]
    return {
        "bands": float(np.concatenate(misses).mean()),
        "land": float(np.mean(hits[unions > 0] / unions[unions > 0])),
        "elevation": float(np.concatenate(errors).mean()),
        "biomass": float(np.abs(mass - biomass[cut:]).mean()),
    }


def shape(spectra: np.ndarray) -> np.ndarray:
    """Spectra divided by their medians."""
    return spectra / np.median(spectra, axis=1, keepdims=True)


def spectra(raw: Path) -> dict[str, np.ndarray]:
    """Fluxes at GRID by name."""
    from astropy.io import fits

    found = {}
    for key in names(raw / "spectrum"):
        with fits.open(raw / "spectrum" / f"{key}.fits") as file:
            table = file[1].data
            known = np.isfinite(table["flux"])
            found[key] = np.interp(GRID, 10 ** table["loglam"].astype(np.float64)[known], table["flux"][known])
    return found


def astronomy(raw: Path, held_out: int) -> dict[str, float]:
    """Ridge on five means of the picture; the better of a random forest and a ridge on the spectrum."""
    keys, flux = names(raw / "image"), spectra(raw)
    last = set(keys[-held_out:])
    redshift = {k: json.loads((raw / "scalars" / f"{k}.json").read_text(encoding="utf-8"))["redshift"] for k in keys}
    train, test = ([k for k in flux if (k in last) == held] for held in (False, True))
    means = {k: np.load(raw / "image" / f"{k}.npy").mean((0, 1)) for k in flux}
    x, z = (np.array([means[k] for k in some]) for some in (train, test))
    truth = shape(np.array([flux[k] for k in test]))
    known = shape(np.array([flux[k] for k in train]))
    errors = [
        np.abs(ridge().fit(form(x), known).predict(form(z)) - truth).mean()
        for form in (lambda v: v, lambda v: np.log10(np.maximum(v, 1e-4)))
    ]
    train, test = ([k for k in some if redshift[k] is not None] for some in (train, test))
    x, z = (shape(np.array([flux[k] for k in some])).reshape(len(some), 64, 8).mean(2) for some in (train, test))
    y, wanted = (np.array([redshift[k] for k in some]) for some in (train, test))
    models = RandomForestRegressor(300, random_state=0), ridge()
    return {
        "spectrum": float(min(errors)),
        "redshift": float(min(np.abs(model.fit(x, y).predict(z) - wanted).mean() for model in models)),
    }


def shape_error(transfer: Path, folder: Path, held_out: int) -> tuple[float, float]:
    """Returns the error of the predicted shapes of spectra, and that of the best constant."""
    from maskweave.transfer.build import load_transferred

    raw = folder / "galaxies"
    keys, flux = names(raw / "image"), spectra(raw)
    last = set(keys[-held_out:])
    test = [k for k in flux if k in last]
    truth = shape(np.array([flux[k] for k in test]))
    constant = np.median(shape(np.array([flux[k] for k in flux if k not in last])), axis=0)
    model = load_transferred(transfer)
    value = model.catalog["spectrum"].value
    ends = np.log10([value.axis.start, value.axis.stop])
    axis = 10 ** np.linspace(*ends, value.size[0])
    images = [{"image": np.load(raw / "image" / f"{k}.npy")} for k in test]
    predicted = [np.asarray(y).ravel() for y in model.predict(images)]
    found = shape(np.array([np.interp(GRID, axis[np.isfinite(y)], y[np.isfinite(y)]) for y in predicted]))
    return float(np.abs(found - truth).mean()), float(np.abs(constant - truth).mean())


def speech(raw: Path, held_out: int) -> dict[str, float]:
    """The nearest neighbor on coarse log-mel spectrograms."""
    keys = names(raw / "logmel")
    x = []
    for key in keys:
        mel = np.load(raw / "logmel" / f"{key}.npy")[:, :208]
        mel = np.pad(mel, ((0, 0), (0, 208 - mel.shape[1])), constant_values=-6)
        x.append(mel.reshape(8, 10, 16, 13).mean((1, 3)).ravel())
    cut = len(keys) - held_out
    scores = {}
    for task, kind in (("phrase", "caption"), ("speaker", "speaker")):
        y = [(raw / kind / f"{k}.txt").read_text(encoding="utf-8") for k in keys]
        scores[task] = float(KNeighborsClassifier(1).fit(x[:cut], y[:cut]).score(x[cut:], y[cut:]))
    return scores


def robot_arm(raw: Path, held_out: int) -> dict[str, float]:
    """The reference has none; this is ridge regression on coarse frames."""
    keys = names(raw / "actions")
    cut = len(keys) - held_out
    x = []
    for key in keys:
        with np.load(raw / "video" / f"{key}.npz") as file:
            video = file[file.files[0]].astype(np.float64)
        x.append(video.reshape(8, 8, 4, 8, 4, 3).mean((2, 4)).ravel())
    y = np.array([np.load(raw / "actions" / f"{k}.npy").ravel() for k in keys])
    found = ridge().fit(np.array(x[:cut]), y[:cut]).predict(np.array(x[cut:]))
    return {"actions": float(np.abs(found - y[cut:]).mean())}


def emoji(raw: Path, held_out: int) -> dict[str, float]:
    """Ten nearest neighbors of pixels, on the samples that maskweave holds out; and how often the other vendor's emoji is among the ten nearest of them."""
    from PIL import Image

    from maskweave.data.split import hash_names

    def small(path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            white = Image.new("RGBA", picture.size, "white")
            opaque = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
            return np.asarray(opaque.resize((16, 16)), np.float64).ravel()

    keys = names(raw / "twitter")
    pixels, other = (np.array([small(raw / vendor / f"{key}.png") for key in keys]) for vendor in ("twitter", "google"))
    y = np.array([(raw / "category" / f"{k}.txt").read_text(encoding="utf-8") for k in keys])
    last = np.argsort(hash_names(keys), kind="stable")[:held_out]
    first = np.setdiff1d(np.arange(len(keys)), last)
    ten = NearestNeighbors(n_neighbors=10).fit(other[last]).kneighbors(pixels[last], return_distance=False)
    return {
        "category": float(KNeighborsClassifier(10).fit(pixels[first], y[first]).score(pixels[last], y[last])),
        "index": float((ten == np.arange(len(last))[:, None]).any(axis=1).mean()),
    }


FIELDS = {
    "earth-observation": earth_observation,
    "astronomy": astronomy,
    "speech": speech,
    "robot-arm": robot_arm,
    "emoji": emoji,
}
