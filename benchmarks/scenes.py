"""Scenes per second on one core: all modalities of the shipped catalog at 64×64 pixels, and the time of each part.

OMP_NUM_THREADS=1 python benchmarks/scenes.py [COUNT]
"""

import sys
import time
from collections.abc import Callable

import cv2
import numpy as np

from maskweave.modality.catalogs import load_catalog
from maskweave.synthetic import raycast
from maskweave.synthetic.scenes import Scenes
from maskweave.values import measures

cv2.setNumThreads(1)


def rate(work: Callable[[int], object], count: int) -> float:
    """Calls per second of CPU time, which other jobs on the machine do not affect."""
    for i in range(min(count, 20)):
        work(i)
    start = time.process_time()
    for i in range(count):
        work(i)
    return count / (time.process_time() - start)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    scenes = Scenes(load_catalog("scenes"), count, seed=1)
    height, width = scenes.size
    print(
        f"all {len(scenes.modalities)} modalities at {height}×{width}: {rate(scenes.__getitem__, count):.0f} scenes/s on one core"
    )

    kept = [scenes.scene(i) for i in range(min(count, 200))]
    pictures = [scene.view.rgb for scene in kept]
    solids = [[o.solid for o in scene.objects] for scene in kept]
    parts: dict[str, Callable[[int], object]] = {
        "sample and trace": scenes.scene,
        "trace": lambda i: raycast.trace(kept[i].room, solids[i], scenes.size),
        "shade": lambda i: raycast.shade(kept[i].room, solids[i], kept[i].hits),
        "edges": lambda i: measures.canny(pictures[i]),
        "palette": lambda i: measures.palette(pictures[i]),
        "statistics": lambda i: measures.statistics(pictures[i]),
    }
    for name, work in parts.items():
        print(f"  {name}: {1000 / rate(work, len(kept)):.3f} ms")
    print(f"objects per scene: {np.mean([len(s.objects) for s in kept]):.2f}")


if __name__ == "__main__":
    main()
