"""Data sets in the layouts of other tools, as tests write them."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
LENGTHS = (12, 7, 20)
"""Frames of the episodes."""
LEVELS = 12
"""Gray levels from one frame to the next."""


def video(path: Path, levels: list[int], size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=FPS)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for level in levels:
            picture = np.full((size, size, 3), level, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def rows_of_episode(episode: int, start: int) -> dict[str, Any]:
    length = LENGTHS[episode]
    return {
        "episode_index": [episode] * length,
        "frame_index": list(range(length)),
        "timestamp": [i / FPS for i in range(length)],
        "task_index": [episode % 2] * length,
        "observation.state": [[float(i), float(-episode)] for i in range(length)],
        "next.reward": [float(i) for i in range(length)],
        "index": list(range(start, start + length)),
    }


def version_2(root: Path) -> Path:
    start = 0
    for e, length in enumerate(LENGTHS):
        (root / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows_of_episode(e, start)), root / f"data/chunk-000/episode_{e:06d}.parquet")
        video(
            root / f"videos/chunk-000/observation.images.top/episode_{e:06d}.mp4", [LEVELS * i for i in range(length)]
        )
        start += length
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps({"codebase_version": "v2.1", "fps": FPS}), encoding="utf-8")
    tasks = [{"task_index": i, "task": f"reach {i}"} for i in range(2)]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)), encoding="utf-8")
    return root


def version_3(root: Path) -> Path:
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    tables, start, levels = [], 0, list[int]()
    places: dict[str, list[Any]] = {"episode_index": []}
    for e, length in enumerate(LENGTHS):
        tables.append(pa.table(rows_of_episode(e, start)))
        camera = "videos/observation.images.top"
        for key, number in {"chunk_index": 0, "file_index": 0, "from_timestamp": start / FPS, "to_timestamp": (start + length) / FPS}.items():  # fmt: skip
            places.setdefault(f"{camera}/{key}", []).append(number)
        places["episode_index"].append(e)
        levels += [LEVELS * i for i in range(length)]
        start += length
    pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet", row_group_size=9)
    pq.write_table(pa.table(places), root / "meta/episodes/chunk-000/file-000.parquet")
    tasks = {"task_index": [0, 1], "__index_level_0__": ["reach 0", "reach 1"]}
    pq.write_table(pa.table(tasks), root / "meta/tasks.parquet")
    video(root / "videos/observation.images.top/chunk-000/file-000.mp4", levels)
    (root / "meta/info.json").write_text(json.dumps({"codebase_version": "v3.0", "fps": FPS}), encoding="utf-8")
    return root


def picture(path: Path, value: int, size: tuple[int, int] = (70, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)


def coco_folder(root: Path) -> Path:
    """A folder as COCO's own: three pictures, of which one has no captions."""
    for i in range(3):
        picture(root / f"val2017/{i}.jpg", 40 * i, (16, 8) if i == 2 else (8, 8))
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 16 if i == 2 else 8, "height": 8} for i in range(3)]
    categories = [{"id": 1, "name": "cat"}, {"id": 18, "name": "dog"}]
    lengths = {"size": [8, 8], "counts": [8, 16, 40]}  # columns 1 and 2
    objects = [
        {"image_id": 0, "category_id": 1, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
        {"image_id": 0, "category_id": 18, "bbox": [1, 0, 2, 8], "segmentation": lengths},
        {"image_id": 1, "category_id": 18, "bbox": [0, 0, 8, 8], "segmentation": [[1, 2]]},
    ]
    captions = [{"image_id": i, "caption": f"number {i} {n}"} for n in ("first", "second") for i in (0, 2)]
    (root / "annotations").mkdir()
    instances = {"images": images, "categories": categories, "annotations": objects}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(instances), encoding="utf-8")
    (root / "annotations/captions_val2017.json").write_text(
        json.dumps({"images": images, "annotations": captions}), encoding="utf-8"
    )
    return root
