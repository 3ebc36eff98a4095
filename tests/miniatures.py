"""Miniatures of published data sets in their official layouts, made of random numbers, with what was written."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 32)


def diode(root: Path, count: int, size: tuple[int, int] = SIZE) -> list[tuple[np.ndarray, ...]]:
    """Pictures, meters, whether they are known, and unit vectors, 0 where unknown. Unknown points form blocks, which survive resizing; others have 0 meters
    although the mask says that they were seen."""
    rng = np.random.default_rng(0)
    folder = root / "val" / "indoors" / "scene_00019" / "scan_00183"
    folder.mkdir(parents=True)
    made = []
    for i in range(count):
        picture = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        blocks = lambda share: np.kron(rng.random((size[0] // 4, size[1] // 4)) < share, np.ones((4, 4))) > 0  # noqa: E731
        seen = ~blocks(0.2)
        meters = np.where(blocks(0.1), 0, rng.uniform(0.6, 50, size)).astype(np.float32)
        vectors = rng.normal(size=(*size, 3))
        vectors = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
        vectors[blocks(0.1)] = 0
        stem = f"00019_00183_indoors_000_{i:03d}"
        Image.fromarray(picture).save(folder / f"{stem}.png")
        np.save(folder / f"{stem}_depth.npy", meters[..., None])
        np.save(folder / f"{stem}_depth_mask.npy", seen.astype(np.float64))
        np.save(folder / f"{stem}_normal.npy", vectors)
        made.append((picture, meters, seen & (meters > 0), vectors))
    return made


def coco_panoptic(
    root: Path, categories: Mapping[int, str], count: int, size: tuple[int, int] = SIZE
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures, and the name of each point's class, empty where unlabeled."""
    rng = np.random.default_rng(1)
    maps = root / "annotations" / "panoptic_val2017"
    maps.mkdir(parents=True)
    (root / "val2017").mkdir()
    images, annotations, made = [], [], []
    numbers = list(categories)
    for i in range(count):
        picture = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        segments = {
            int(n): numbers[k % len(numbers)] for k, n in enumerate(rng.choice(2**24 - 1, 5, replace=False) + 1)
        }
        ids = np.kron(rng.choice([0, *segments], (4, 4)), np.ones((size[0] // 4, size[1] // 4), np.int64))
        ids.ravel()[: len(segments)] = list(segments)
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        name = f"{i + 139:012d}"
        Image.fromarray(picture).save(root / "val2017" / f"{name}.png")
        Image.fromarray(colors).save(maps / f"{name}.png")
        images.append({"id": i + 139, "file_name": f"{name}.png", "width": size[1], "height": size[0]})
        infos = [{"id": n, "category_id": c, "iscrowd": 0} for n, c in segments.items()]
        annotations.append({"image_id": i + 139, "file_name": f"{name}.png", "segments_info": infos})
        made.append((picture, np.vectorize(lambda n, s=segments: categories[s[n]] if n else "", otypes=[object])(ids)))
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": name, "isthing": 1} for n, name in categories.items()],
    }
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content), encoding="utf-8")
    return made


def imagenet(root: Path, flat: bool, each: int = 4, size: tuple[int, int] = SIZE) -> None:
    """Three classes of pictures, of brightness 0, 100 and 200 with some noise; each class has half as many for validation."""
    rng = np.random.default_rng(2)
    base = root / "ILSVRC" / "Data" / "CLS-LOC" if flat else root
    rows, number = [], 0
    for k, name in enumerate(("n01", "n02", "n03")):
        for split, count in (("train", each), ("val", each // 2)):
            for i in range(count):
                picture = np.clip(100 * k + rng.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)
                number += 1
                stem = f"{name}_{i}" if split == "train" else f"ILSVRC2012_val_{number:08d}"
                folder = base / split if flat and split == "val" else base / split / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(folder / f"{stem}.JPEG", quality=95)
                if split == "val":
                    rows.append([stem, f"{name} 1 2 3 4 "])
    if flat:
        with open(root / "LOC_val_solution.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["ImageId", "PredictionString"], *rows])


def cifar(root: Path, classes: int, train: int, test: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The binary versions of CIFAR-10 and CIFAR-100; pictures uint8 (N, 32, 32, 3) and classes of `10 train`, `10 test`, `100 train` and `100 test`.
    The classes of CIFAR-10 have colors of their own; pictures of CIFAR-100 are darker."""
    rng = np.random.default_rng(6)
    colors, made = rng.integers(60, 200, (classes, 3)), {}
    for version, inner, text in ((10, "cifar-10-batches-bin", "batches.meta.txt"), (100, "cifar-100-binary", "")):
        folder = root / inner
        folder.mkdir(parents=True)
        (folder / (text or "fine_label_names.txt")).write_text(
            "\n".join(f"kind_{k}" for k in range(classes)) + "\n\n", encoding="utf-8"
        )
        for split, count in (("train", train), ("test", test)):
            labels = np.arange(count) % classes
            noise = rng.normal(0, 15, (count, 32, 32, 3))
            pictures = (colors[labels][:, None, None] * (1 if version == 10 else 0.5) + noise).clip(0, 255)
            pictures = pictures.astype(np.uint8)
            points = np.moveaxis(pictures, -1, 1).reshape(count, -1)
            heads = [labels] if version == 10 else [labels // 2, labels]
            records = np.concatenate([np.stack(heads, axis=1).astype(np.uint8), points], axis=1)
            names = [f"{split}.bin"] if version == 100 else ["test_batch.bin"]
            if version == 10 and split == "train":
                names = [f"data_batch_{n}.bin" for n in range(1, 6)]
            for name, part in zip(names, np.array_split(records, len(names)), strict=True):
                (folder / name).write_bytes(part.tobytes())
            made[f"{version} {split}"] = pictures, labels
    return made


def nyuv2(
    root: Path, count: int, train: int, classes: int, size: tuple[int, int] = SIZE
) -> list[tuple[np.ndarray, ...]]:
    """Pictures, meters and class numbers from 1 on, 0 where unlabeled. The first `train` samples are for training."""
    import h5py
    from scipy.io import savemat

    rng = np.random.default_rng(3)
    made = [
        (
            rng.integers(0, 256, (*size, 3)).astype(np.uint8),
            rng.uniform(0.7, 9.9, size).astype(np.float32),
            rng.integers(0, classes + 1, size).astype(np.uint8),
        )
        for _ in range(count)
    ]
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([picture.transpose(2, 1, 0) for picture, *_ in made])
        file["depths"] = np.stack([meters.T for _, meters, _ in made])
    numbers = np.arange(1, count + 1)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers[:train], "testNdxs": numbers[train:]})
    savemat(root / "labels40.mat", {"labels40": np.stack([ids for *_, ids in made], axis=-1)})
    return made


def ade20k(
    root: Path, counts: Mapping[str, int], classes: int, size: tuple[int, int] = SIZE
) -> dict[str, list[np.ndarray]]:
    """Class numbers from 1 on, 0 for other, of each picture of each split."""
    rng = np.random.default_rng(4)
    made: dict[str, list[np.ndarray]] = {split: [] for split in counts}
    for split, count in counts.items():
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            ids = rng.integers(0, classes + 1, size).astype(np.uint8)
            Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(
                root / "images" / split / f"ADE_{i:08d}.jpg"
            )
            Image.fromarray(ids).save(root / "annotations" / split / f"ADE_{i:08d}.png")
            made[split].append(ids)
    return made


def hypersim(
    root: Path, splits: Mapping[str, int], classes: int, size: tuple[int, int] = SIZE
) -> dict[str, list[tuple[np.ndarray, ...]]]:
    """Meters, unit vectors and class numbers from 1 on, -1 where unlabeled, of each picture of each split. Each split has one more frame that was not released."""
    import h5py

    rng = np.random.default_rng(5)
    made: dict[str, list[tuple[np.ndarray, ...]]] = {split: [] for split in splits}
    rows = []
    for number, (split, count) in enumerate(splits.items(), 1):
        scene, camera = f"ai_001_{number:03d}", "cam_00"
        pictures = root / scene / "images" / f"scene_{camera}_final_preview"
        geometry = root / scene / "images" / f"scene_{camera}_geometry_hdf5"
        pictures.mkdir(parents=True)
        geometry.mkdir()
        for i in range(count + 1):
            rows.append([scene, camera, i, i < count, "", split])
            if i == count:
                continue
            vectors = rng.normal(size=(*size, 3))
            values = {
                "depth_meters": rng.uniform(0.5, 9, size).astype(np.float16),
                "normal_cam": (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16),
                "semantic": rng.choice([-1, *range(1, classes + 1)], size).astype(np.int16),
            }
            Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(
                pictures / f"frame.{i:04d}.tonemap.jpg"
            )
            for name, value in values.items():
                with h5py.File(geometry / f"frame.{i:04d}.{name}.hdf5", "w") as file:
                    file["dataset"] = value
            made[split].append(tuple(values.values()))
    heads = [
        "scene_name",
        "camera_name",
        "frame_id",
        "included_in_public_release",
        "exclude_reason",
        "split_partition_name",
    ]
    with open(root / "metadata_images_split_scene_v1.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])
    return made
