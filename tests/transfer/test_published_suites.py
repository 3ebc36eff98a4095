"""Suites of the papers' tables, end to end on miniatures of their data sets, against scores that are computed another way."""

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arkit_miniature import write_scan
from miniatures import ade20k, cifar, coco_panoptic, diode, hypersim, imagenet, nyuv2
from PIL import Image
from scipy.stats import mode
from sklearn.covariance import EmpiricalCovariance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from solids import average_precision
from torchmetrics.functional.classification import multiclass_jaccard_index

import maskweave
from maskweave.cli.main import main
from maskweave.data.opening import open_data
from maskweave.errors import MaskweaveError
from maskweave.evaluate.run import EvaluationRow
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import member_seeds
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog
from maskweave.modality.decoding import Decoding
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.synthetic.scenes import NAMES as OBJECTS
from maskweave.synthetic.scenes import Scenes
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.transfer.build import load_transferred
from maskweave.transfer.suite import load_suite, run_suite

SIZE = (32, 32)


BIG = (48, 64)
"""Of the miniatures: larger than the model's, and not square."""


SMALL = {"width": 16, "heads": 2, "depth": 1, "decoder_depth": 1, "quantizer": {"type": "fsq", "levels": [5, 4]}}


CLASSES = ["unlabeled", "cat", "road", "sky-other-merged"]


def entry(number: int, **value: Any) -> dict[str, Any]:
    shared = {"kind": "grid", "grid": [4, 4], "tokenizer": SMALL, "decoding": {"scheme": "roar", "steps": 1}}
    return {"id": number, **shared, "value": {"size": list(SIZE), "fit": "crop", **value}}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A model that nobody trained, with the published names of the modalities."""
    picture = {"type": "image", "size": list(SIZE), "channels": 3}
    catalog = catalog_from(
        {
            "modalities": {
                "rgb@224": {"id": 1, "kind": "patches", "grid": [4, 4], "value": picture},
                "tok_depth@224": entry(2, type="map", trim_quantile=0.1),
                "tok_normal@224": entry(3, type="direction", channels=3),
                "tok_semseg@224": entry(4, type="classes", classes=CLASSES),
            }
        },
        "test",
    )
    torch.manual_seed(0)
    tokenizers = {n: GridTokenizer(m).eval() for n, m in catalog.items() if m.kind == "grid"}
    return Bundle(catalog, tokenizers, FourM(catalog, FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1)))


def scored(bundle: Bundle, name: str, path: Path, ensemble: int = 1) -> list[EvaluationRow]:
    suite = load_suite(name, {"rgb": "rgb@224"}).at(str(path)).merging(ensemble)
    return [row for row in run_suite(bundle, suite, name) if not row.part]


def predictions(bundle: Bundle, pictures: list[np.ndarray], target: str) -> list[Any]:
    return [out[target] for out in bundle.generate_batch([{"rgb@224": in_size(p)} for p in pictures], [target])]


def cropped(value: np.ndarray) -> np.ndarray:
    """The middle square of a value of a miniature's size."""
    return value[:, 8:56]


def in_size(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(cropped(picture)).resize(SIZE, Image.Resampling.BILINEAR))


def smooth(value: np.ndarray) -> np.ndarray:
    """Numbers (H, W) or (H, W, C) at the model's size."""
    x = torch.from_numpy(cropped(value).astype(np.float64).reshape(48, 48, -1)).movedim(-1, 0)[None]
    small = torch.nn.functional.interpolate(x, SIZE, mode="bilinear", antialias=True)
    return small[0].movedim(0, -1).numpy().reshape(*SIZE, *value.shape[2:])


def known_mean(value: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over known points, and where at least half of a point is known."""
    share = smooth(known)
    assert np.abs(share - 0.5).min() > 1e-5, "rounding does not decide"
    assert 0.02 < (share < 0.5).mean() < 0.5
    weights = known.reshape(*known.shape, *[1] * (value.ndim - 2))
    return smooth(value * weights) / share.reshape(*SIZE, *[1] * (value.ndim - 2)).clip(1e-9), share >= 0.5


def nearest(ids: np.ndarray) -> np.ndarray:
    """Ids at the model's size."""
    index = ((np.arange(32) + 0.5) * 1.5).astype(int)
    return cropped(ids)[index[:, None], index].astype(np.int64)


def standardized(x: np.ndarray) -> np.ndarray:
    """By the values between the tenth and the last tenth."""
    known = np.sort(x[~np.isnan(x)])
    low, high = known[int(np.floor(0.1 * (len(known) - 1)))], known[int(np.ceil(0.9 * (len(known) - 1)))]
    inside = known[(known >= low) & (known <= high)].astype(np.float64)
    return (x - inside.mean()) / np.sqrt(inside.var() + 1e-6)


def l1_errors(found: list[np.ndarray], made: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    errors = []
    for prediction, (_, meters, known, _) in zip(found, made, strict=True):
        truth, seen = known_mean(meters, known)
        errors.append(np.abs(standardized(prediction) - standardized(np.where(seen, truth, np.nan)))[seen])
    return errors


def mean_l1(found: list[np.ndarray], made: list[tuple[np.ndarray, ...]]) -> float:
    return float(np.concatenate(l1_errors(found, made)).mean())


def mean_angle(found: list[np.ndarray], made: list[tuple[np.ndarray, ...]]) -> float:
    degrees = []
    for prediction, (*_, vectors) in zip(found, made, strict=True):
        truth, seen = known_mean(vectors, np.linalg.norm(vectors, axis=-1) > 0)
        pair = torch.from_numpy(prediction[seen]).double(), torch.from_numpy(truth[seen])
        degrees.append(np.rad2deg(torch.nn.functional.cosine_similarity(*pair).clamp(-1, 1).arccos().numpy()))
    return float(np.concatenate(degrees).mean())


def mean_iou(found: list[np.ndarray], made: list[tuple[np.ndarray, ...]]) -> float:
    truth = np.stack([nearest(np.vectorize({"": 255, "cat": 1, "road": 2}.get)(names)) for _, names in made])
    ids = torch.from_numpy(np.stack(found).astype(np.int64)), torch.from_numpy(truth)
    ious = multiclass_jaccard_index(*ids, num_classes=len(CLASSES), average="none", ignore_index=255)
    return float(ious[1:3].mean())


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_diode_depth(bundle: Bundle, tmp_path: Path) -> None:
    made = diode(tmp_path, 3, BIG)
    (row,) = scored(bundle, "diode-depth", tmp_path)
    found = predictions(bundle, [picture for picture, *_ in made], "tok_depth@224")
    assert (row.metric, row.better, row.samples) == ("MAE", "lower", 3)
    assert row.value == pytest.approx(mean_l1(found, made), rel=1e-4)
    assert row.low <= row.value <= row.high


def test_intervals_are_percentiles_of_a_bootstrap_over_the_samples(bundle: Bundle, tmp_path: Path) -> None:
    made = diode(tmp_path, 30, BIG)
    (row,) = scored(bundle, "diode-depth", tmp_path)
    errors = l1_errors(predictions(bundle, [picture for picture, *_ in made], "tok_depth@224"), made)
    counts = np.random.default_rng(1).multinomial(30, [1 / 30] * 30, size=4000)  # the usual one, with replacement
    means = counts @ np.array([one.sum() for one in errors]) / (counts @ np.array([one.size for one in errors]))
    low, high = np.quantile(means, [0.025, 0.975])
    assert row.low < row.value < row.high
    assert (row.low, row.high) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_a_damaged_picture_is_no_silent_gap(bundle: Bundle, tmp_path: Path) -> None:
    diode(tmp_path, 3, SIZE)
    next(tmp_path.rglob("*_depth.npy")).write_bytes(b"torn")
    with pytest.raises(MaskweaveError, match="1 of 3 samples have unusable values, more than the limit of 0"):
        scored(bundle, "diode-depth", tmp_path)


def test_diode_normals(bundle: Bundle, tmp_path: Path) -> None:
    made = diode(tmp_path, 3, BIG)
    (row,) = scored(bundle, "diode-normals", tmp_path)
    found = predictions(bundle, [picture for picture, *_ in made], "tok_normal@224")
    assert row.value == pytest.approx(mean_angle(found, made), rel=1e-4)


def as_published(bundle: Bundle) -> Bundle:
    """With the published decoding, which makes single predictions nearly certain, and with outputs that differ as those of a trained model."""
    maps = Decoding.preset("4m-maps")
    entries = [dataclasses.replace(m, decoding=maps) if m.kind == "grid" else m for m in bundle.catalog.values()]
    made = Bundle(Catalog(entries, (), "test"), bundle.tokenizers, copy.deepcopy(bundle.model))
    with torch.no_grad():
        for head in made.model.heads.values():
            head.weight *= 2.5
    return made


def segmented(root: Path, count: int, size: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return coco_panoptic(root, {17: "cat", 149: "road"}, count, size)


ENSEMBLES: dict[str, tuple[str, Any, Any, Any]] = {
    "diode-normals": ("tok_normal@224", diode, lambda members: unit(np.mean(members, axis=0)), mean_angle),
    "diode-depth": ("tok_depth@224", diode, lambda members: np.mean(members, axis=0), mean_l1),
    "coco-semantic": ("tok_semseg@224", segmented, lambda members: mode(members, axis=0).mode, mean_iou),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_command_merges_predictions_that_differ(
    name: str, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as it is told, at the suite's temperature. At that of single predictions they are equal, which is told."""
    target, write, merge, score = ENSEMBLES[name]
    made = write(tmp_path / "data", 2, BIG)
    published = as_published(bundle)
    folder = Path(published.save(tmp_path / "bundle"))
    words = ["evaluate", str(folder), "--suite", name, "--data", str(tmp_path / "data"), "--device", "cpu"]
    values = []
    for more in (["--ensemble", "4"], []):
        assert main([*words, *more]) == 0
        values.append(json.loads((folder / f"suite-{name}.json").read_text(encoding="utf-8"))[0]["value"])
    assert "equal" not in capsys.readouterr().err
    hot, seed = {target: Decoding.preset("4m-maps", temperature=1.0)}, load_suite(name).data.seed
    found = []
    for number, (picture, *_) in enumerate(made):
        pictures = [{"rgb@224": in_size(picture)}] * 4
        members = published.generate_batch(pictures, [target], seeds=member_seeds(seed + number, 4), decoding=hot)
        assert len({member.tokens[target].tobytes() for member in members}) > 1
        found.append(merge(np.stack([member[target] for member in members])))
    assert values[0] == pytest.approx(score(found, made), rel=1e-5)
    single = score(predictions(published, [picture for picture, *_ in made], target), made)
    assert values[1] == pytest.approx(single, rel=1e-5) != values[0]
    suite = dataclasses.replace(load_suite(name), ensemble_decoding={}).at(str(tmp_path / "data")).merging(4)
    (cold, *_) = run_suite(published, suite, name)
    assert cold.value == pytest.approx(single, rel=1e-5)
    told = f"warning: {target}: in 2 of 2 ensembles, all members are equal, so merging them changes nothing"
    assert capsys.readouterr().err.count(told) == 1


def test_coco_semantic(bundle: Bundle, tmp_path: Path) -> None:
    made = segmented(tmp_path, 3, BIG)
    (row,) = scored(bundle, "coco-semantic", tmp_path)
    found = predictions(bundle, [picture for picture, _ in made], "tok_semseg@224")
    assert row.value == pytest.approx(mean_iou(found, made), rel=1e-5)


def regression(x: np.ndarray, y: np.ndarray, decay: float) -> Any:
    """Logistic regression with this weight decay of the mean loss, on features whose deviation is the unbiased one."""
    count = len(x)
    linear = LogisticRegression(C=(count - 1) / (count**2 * decay), tol=1e-9, max_iter=10_000)
    return make_pipeline(StandardScaler(), linear).fit(x, y)


def test_imagenet_knn_and_linear_probe(bundle: Bundle, tmp_path: Path) -> None:
    imagenet(tmp_path, True, each=8, size=SIZE)
    rows = {row.metric: row for row in scored(bundle, "imagenet-knn", tmp_path)}
    row = rows["20-nearest-neighbor accuracy"]
    data = load_suite("imagenet-knn").at(str(tmp_path)).data
    x, y, keys = dict[str, Any](), dict[str, Any](), list[str]()
    for split, place in (("train", data.source), ("val", data.held_out)):
        source = open_data(place, bundle.catalog, names=["rgb@224"], fields=data.fields)
        samples = [source[i] for i in range(len(source))]
        x[split] = bundle.encoder(["rgb@224"])(samples).pooled.numpy()
        y[split] = source.labels  # type: ignore[attr-defined]
        keys = keys or [source.key(i) for i in range(len(source))]
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    assert row.value == pytest.approx(theirs.fit(x["train"], y["train"]).score(x["val"], y["val"]))
    assert row.samples == 12 and row.constant == pytest.approx(1 / 3)
    linear = {r.metric: r for r in scored(bundle, "m3ae-linear", tmp_path)}["linear-probe accuracy"]
    fold = np.array([int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, salt=bytes(16)).digest(), "little") % 5 for key in keys])  # fmt: skip
    labels, right = np.array(y["train"]), dict.fromkeys((1.0, 1e-1, 1e-2, 1e-3, 1e-4), 0)
    for decay in right:
        for k in set(fold.tolist()):
            fitted = regression(x["train"][fold != k], labels[fold != k], decay)
            right[decay] += int((fitted.predict(x["train"][fold == k]) == labels[fold == k]).sum())
    fitted = regression(x["train"], labels, max(right, key=lambda decay: right[decay]))
    assert linear.value == pytest.approx(fitted.score(x["val"], y["val"]))
    assert linear.value > 0.8, "brightness tells the classes"


def test_m3ae_out_of_distribution(bundle: Bundle, tmp_path: Path) -> None:
    made = cifar(tmp_path, classes=3, train=60, test=30)
    rows = {(row.target, row.metric): row for row in scored(bundle, "m3ae-ood", tmp_path)}
    features = {
        name: bundle.encoder(["rgb@224"])([{"rgb@224": picture} for picture in pictures]).pooled.double().numpy()
        for name, (pictures, _) in made.items()
    }
    train, labels = features["10 train"], made["10 train"][1]
    inside = [1] * 30 + [0] * 30
    scored_ = np.concatenate([features["10 test"], features["100 test"]])
    distance = NearestNeighbors(n_neighbors=20).fit(unit(train)).kneighbors(unit(scored_))[0][:, -1]
    near = rows["CIFAR-100", "AUROC, 20 nearest"]
    assert near.value == pytest.approx(roc_auc_score(inside, -distance), abs=2e-3)
    means = np.stack([train[labels == k].mean(axis=0) for k in range(3)])
    shared = EmpiricalCovariance(assume_centered=True).fit(train - means[labels]).covariance_
    shared += 1e-3 * np.diag(shared).mean() * np.eye(len(shared))
    offset = scored_[:, None] - means
    least = np.einsum("tkd,de,tke->tk", offset, np.linalg.inv(shared), offset).min(axis=1)
    far = rows["CIFAR-100", "AUROC, Mahalanobis"]
    assert far.value == pytest.approx(roc_auc_score(inside, -least), abs=2e-3) and far.value > 0.8
    assert len(rows) == 6 and all(row.low <= row.value <= row.high for row in rows.values())
    assert {row.samples for row in rows.values()} == {30} and near.inputs == ["rgb@224"]


def fine_tuned(
    start: Path, name: str, data: Path, classes: list[str] | None = None, steps: int = 3
) -> tuple[list[EvaluationRow], Any]:
    """The rows of a suite with a few steps on small pictures, and the model of its first fine-tuning."""
    suite = load_suite(name, {"rgb": "rgb@224"}).at(str(data))
    entries = json.loads(json.dumps(suite.entries))
    for changed in entries.values():
        if "grid" in changed:
            changed["grid"], changed["value"]["size"] = [4, 4], list(SIZE)
        changed["value"] |= {"classes": classes} if classes else {}
    small = {
        "train": {"steps": steps, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1, "device": "cpu"},
        "head": {"width": 8 if steps == 3 else 32, "depth": 1},
    }
    transfers = {title: {**content, **small} for title, content in suite.transfers.items()}
    bundle = maskweave.load(start)
    rows = run_suite(bundle, dataclasses.replace(suite, entries=entries, transfers=transfers), name, start)
    return [row for row in rows if not row.part], load_transferred(start / f"suite-{name}-{next(iter(transfers))}")


@pytest.fixture(scope="module")
def start(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(bundle.save(tmp_path_factory.mktemp("start") / "bundle"))


def test_nyuv2_depth(start: Path, tmp_path: Path) -> None:
    made = nyuv2(tmp_path, 7, 4, classes=40, size=BIG)[4:]
    rows, model = fine_tuned(start, "nyuv2-depth", tmp_path)
    found = np.stack(model.predict([{"rgb@224": in_size(picture)} for picture, *_ in made])).astype(np.float64)
    meters = np.stack([smooth(meters) for _, meters, _ in made])
    scores = {row.metric: row for row in rows}
    ratio = np.maximum(found / meters, meters / np.maximum(found, 1e-9))
    assert scores["delta1"].value == pytest.approx((ratio < 1.25).mean()) and scores["delta1"].samples == 3
    assert scores["AbsRel"].value == pytest.approx((np.abs(found - meters) / meters).mean(), rel=1e-5)


def test_nyuv2_semantic_without_and_with_depth(start: Path, tmp_path: Path) -> None:
    made = nyuv2(tmp_path, 7, 4, classes=40, size=BIG)[4:]
    rows, model = fine_tuned(start, "nyuv2-semantic", tmp_path)
    assert [row.inputs for row in rows] == [["rgb@224"], ["rgb@224", "tok_depth@224"]]
    truth = torch.from_numpy(np.stack([nearest(ids) for *_, ids in made]) - 1)
    samples = [
        {"rgb@224": in_size(picture), "tok_depth@224": smooth(meters).astype(np.float32)} for picture, meters, _ in made
    ]
    models = [model, load_transferred(start / "suite-nyuv2-semantic-rgb-depth")]
    for row, one in zip(rows, models, strict=True):
        found = one.predict([{name: sample[name] for name in row.inputs} for sample in samples])
        ids = torch.from_numpy(np.stack(found).astype(np.int64))
        expected = multiclass_jaccard_index(ids, truth, 40, "macro", ignore_index=-1)
        assert row.metric == "mIoU" and row.value == pytest.approx(float(expected), rel=1e-5)
    assert rows[0].value != rows[1].value


def test_items_without_their_modalities_are_skipped_and_told(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nyuv2(tmp_path, 6, 4, classes=40, size=BIG)
    names = ["rgb@224", "tok_normal@224"]
    subset = bundle.catalog.subset(names)
    torch.manual_seed(0)
    model = FourM(subset, FourMConfig(width=32, heads=2, encoder_depth=1, decoder_depth=1))
    few = Bundle(subset, {"tok_normal@224": bundle.tokenizers["tok_normal@224"]}, model)
    rows, _ = fine_tuned(Path(few.save(tmp_path / "bundle")), "nyuv2-semantic", tmp_path)
    assert [row.inputs for row in rows] == [["rgb@224"]]
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert note == (
        "note: suite nyuv2-semantic: transfers.rgb-depth is skipped, as the model lacks tok_depth@224; "
        "if it has them by other names, map them with --names OLD=NEW"
    )


def test_ade20k(start: Path, tmp_path: Path) -> None:
    ids = ade20k(tmp_path, {"training": 4, "validation": 2}, classes=3, size=BIG)["validation"]
    (row,), model = fine_tuned(start, "ade20k", tmp_path, ["1", "2", "3"])
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "images" / "validation").iterdir())]
    found = np.stack(model.predict([{"rgb@224": in_size(picture)} for picture in pictures])).astype(np.int64)
    truth = np.stack([*map(nearest, ids)]) - 1
    expected = multiclass_jaccard_index(torch.from_numpy(found), torch.from_numpy(truth), 3, "macro", ignore_index=-1)
    assert row.value == pytest.approx(float(expected), rel=1e-5)


def test_hypersim(start: Path, tmp_path: Path) -> None:
    made = hypersim(tmp_path, {"train": 4, "val": 2}, classes=3, size=BIG)["val"]
    (row,), model = fine_tuned(start, "hypersim", tmp_path, ["wall", "floor", "cabinet"])
    pictures = [np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("ai_001_002/images/*/*.jpg"))]
    found = np.stack(model.predict([{"rgb@224": in_size(picture)} for picture in pictures])).astype(np.int64)
    truth = np.stack([nearest(np.where(ids > 0, ids - 1, -1)) for *_, ids in made])
    expected = multiclass_jaccard_index(torch.from_numpy(found), torch.from_numpy(truth), 3, "macro", ignore_index=-1)
    assert row.value == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_arkitscenes(start: Path, tmp_path: Path) -> None:
    """The scenes' kinds of objects are taken for the classes of the data set; validation has the scans of training, so that something is found."""
    classes = load_suite("arkitscenes").entries["room_boxes"]["value"]["classes"]
    scenes = Scenes(load_catalog("scenes-3d").subset(["rgb", "depth", "boxes3d"]), 4, seed=11)
    labels = {name: classes[k % 2] for k, name in enumerate(OBJECTS)}
    for fold in ("Training", "Validation"):
        write_scan(tmp_path / fold / "scan", scenes, [0, 1, 2, 3], 0.7)
        path = tmp_path / fold / "scan" / "scan_3dod_annotation.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        for box in content["data"]:
            box["label"] = labels[box["label"]]
        path.write_text(json.dumps(content), encoding="utf-8")
    rows, model = fine_tuned(start, "arkitscenes", tmp_path, steps=150)
    scores = {row.metric: row for row in rows}
    assert scores["AP3D"].samples == 4 and scores["AP3D"].inputs == ["rgb@224"]
    pictures = open_data(tmp_path / "Validation", model.catalog, names=["rgb@224"], fields={"rgb@224": "lowres_wide"})
    found = [
        value["boxes"] for value in model.answers(model.outputs([pictures[k] for k in range(4)]).float(), least=0.0)
    ]
    truth = [[{**box, "class": labels[box["class"]]} for box in scenes[k]["boxes3d"]["boxes"]] for k in range(4)]
    names = sorted({box["class"] for boxes in truth for box in boxes})
    expected = {
        t: np.mean([average_precision(found, truth, n, t) for n in names]) for t in np.linspace(0.05, 0.5, 10).round(2)
    }
    assert scores["AP3D"].value == pytest.approx(np.mean([*expected.values()]), abs=1e-6)
    assert scores["AP3D@25"].value == pytest.approx(expected[0.25], abs=1e-6)
    assert scores["AP3D"].value > 0.01


@pytest.mark.parametrize("name", ["imagenet-finetune", "m3ae-finetune"])
def test_imagenet_finetune(name: str, start: Path, tmp_path: Path) -> None:
    imagenet(tmp_path, False, each=4, size=SIZE)
    rows, model = fine_tuned(start, name, tmp_path)
    files = sorted((tmp_path / "val").rglob("*.JPEG"))
    found = model.predict([{"rgb@224": np.asarray(Image.open(path))} for path in files])
    right = np.mean([one == path.parent.name for one, path in zip(found, files, strict=True)])
    (accuracy,) = [row for row in rows if row.metric == "accuracy"]
    assert accuracy.value == pytest.approx(right) and accuracy.samples == 6


def test_the_command_refuses_what_a_suite_does_not_use(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(start), "--data", str(tmp_path), "--suite"]
    for given, told in (
        (["diode-depth", "--features", "vit"], "--suite does not use --features; remove it, or --suite"),
        (["diode-depth", "--samples", "9"], "data.validation or data.seed"),
        (
            ["diode-depth", "--samples", "0", "--scenes-seed", "0", "--judge", "lpips=x"],
            "--suite does not use --scenes-seed, --samples, --judge; remove them",
        ),
        (["diode-depth", "--ensemble", "0"], "--ensemble must be from 1 to 65536, found 0"),
        (["diode-depth", "--ensemble", "-2"], "--ensemble must be from 1 to 65536, found -2"),
        (
            ["nyuv2-depth", "--ensemble", "2"],
            "suite nyuv2-depth: it has no requests, whose predictions --ensemble merges",
        ),
    ):
        assert main([*words, *given]) == 1
        assert told in capsys.readouterr().err
    assert not (start / "suite-diode-depth.json").exists()


def test_the_command(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diode(tmp_path / "data", 2, SIZE)
    folder = tmp_path / "bundle"
    bundle.save(folder)
    words = ["evaluate", str(folder), "--suite", "diode-depth"]
    assert main([*words, "--data", str(tmp_path / "data"), "--ensemble", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "4M-21 XL" in said and "0.680" in said and "MAE" in said
    assert json.loads((folder / "suite-diode-depth.json").read_text(encoding="utf-8"))[0]["samples"] == 2
    assert main(words) == 1
    assert "give it with --data" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path / "data"), "--names", "tok_depth@224=depth"]) == 1
    said = capsys.readouterr().err
    assert "suite diode-depth: every item needs modalities that this model lacks" in said
    assert "The suite uses depth, rgb@224; the model has rgb@224, tok_depth@224, tok_normal@224" in said
    assert "--names OLD=NEW, such as --names depth=NAME" in said
    assert main(["evaluate", str(folder), "--data", "x"]) == 1
    assert "--data, --ensemble and --names are for suites" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--suite", "scenes", "--data", "x"]) == 1
    assert "makes its own data; remove --data" in capsys.readouterr().err
