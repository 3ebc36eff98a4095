"""Pictures that are free to use, for a tokenizer of pictures of any kind: crops of scikit-image's photographs, procedural textures, scenes, and emoji.

Recipes name the source `python: maskweave.synthetic.pictures:FreePictures`. Photographs need scikit-image, emoji a font; without them, there are more textures.
"""

import importlib.util
import operator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictured

from maskweave.errors import MaskweaveError
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary
from maskweave.synthetic.emoji import FONT, Emoji
from maskweave.synthetic.scenes import Scenes
from maskweave.values.image import Image
from maskweave.values.text import Text

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coins.png", "color.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg",
)  # fmt: skip
"""Files of scikit-image that crops are taken from. `coffee.png` and `rocket.jpg`, and the photographs of scikit-learn, are left for measuring."""


class FreePictures:
    """A source without an end: a quarter each of photographs, textures, scenes and emoji, in turn.

    Args:
        catalog: all its entries without a `source` must be color pictures over two axes, of one size.
        samples: number of pictures.
        seed: 0 or more; different seeds give different pictures.

    Raises:
        MaskweaveError: the catalog has other entries, or none.
    """

    def __init__(self, catalog: Catalog, samples: int, seed: int = 0):
        entries = [m for m in catalog.values() if not m.source]
        sizes = {m.value.size for m in entries}
        if len(sizes) != 1 or not all(self.gives(m) for m in entries):
            raise MaskweaveError(f"{catalog.where}: pictures are for color pictures of one size; remove other entries")
        self.names, (self.size,) = tuple(m.name for m in entries), sizes
        self.samples, self.seed = samples, seed
        self.scenes = Scenes(Catalog(entries[:1]), samples, seed)
        self.photographs = photographs()
        self.emoji = _emoji(entries[0]) if Path(FONT).is_file() else None

    @staticmethod
    def gives(modality: Modality) -> bool:
        """Returns whether an entry is a color picture."""
        return isinstance(modality.value, Image) and modality.value.is_picture

    def __len__(self) -> int:
        return self.samples

    def key(self, index: int) -> str:
        """Returns the name of a picture."""
        return f"{self.seed}-{operator.index(index):07d}"

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = operator.index(index)
        if not 0 <= i < self.samples:
            raise IndexError(f"picture {i} does not exist; expected 0 to {self.samples - 1}")
        rng, kind = np.random.default_rng((self.seed, i, 1)), i % 4
        if kind == 0 and self.photographs:
            picture = crop(self.photographs[rng.integers(len(self.photographs))], self.size, rng)
        elif kind == 1:
            picture = self.scenes[i][self.scenes.names[0]]
        elif kind == 2 and self.emoji is not None:
            drawn = self.emoji[int(rng.integers(len(self.emoji)))][self.emoji.names[0]]
            picture = np.asarray(
                Pictured.fromarray(drawn).resize((self.size[1], self.size[0]), Pictured.Resampling.BOX)
            )
        else:
            picture = texture(self.size, rng)
        return dict.fromkeys(self.names, picture)


def _emoji(entry: Modality) -> Emoji:
    """Returns the emoji as values of an entry, each with a name that is not used."""
    text = Modality(f"{entry.name}-name", entry.id + 1, "sequence", Text(), vocabulary="words", max_tokens=8)
    return Emoji(Catalog([entry, text], [Vocabulary("words", 600)]))


@cache
def photographs() -> list[Path]:
    """Returns the files of the photographs; empty without scikit-image, which is not imported."""
    found = importlib.util.find_spec("skimage")
    folder = Path(found.origin).parent / "data" if found and found.origin else Path()
    return [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]


@cache
def _read(path: Path) -> Pictured.Image:
    with Pictured.open(path) as picture:
        return picture.convert("RGB")


def crop(path: Path, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns a random crop of a photograph, uint8 (*size, 3), at most as large as the whole, scaled down or up by at most 2, flipped half of the time."""
    whole = _read(path)
    height, width = size
    largest = min(whole.width / width, whole.height / height)
    scale = float(np.exp(rng.uniform(np.log(min(0.5, largest)), np.log(largest))))
    box_width, box_height = width * scale, height * scale
    x, y = rng.uniform(0, whole.width - box_width), rng.uniform(0, whole.height - box_height)
    box = (x, y, x + box_width, y + box_height)
    picture = np.asarray(whole.resize((width, height), Pictured.Resampling.LANCZOS, box))
    return np.ascontiguousarray(picture[:, ::-1] if rng.random() < 0.5 else picture)


def texture(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns noise with a random power spectrum and direction, in random colors, with sharp edges half of the time, uint8 (*size, 3)."""
    rows, columns = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    angle, stretch, power = rng.uniform(0, np.pi), rng.uniform(1, 4), rng.uniform(0.5, 2.5)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = (columns * np.cos(angle) - rows * np.sin(angle)) * stretch
    frequency = np.maximum(np.hypot(along, across), 1 / max(size))
    planes = []
    for _ in range(2):
        plane = np.fft.ifft2(np.fft.fft2(rng.normal(size=size)) / frequency**power).real
        plane = (plane - plane.mean()) / max(float(plane.std()), 1e-6)
        planes.append(np.sign(plane) if rng.random() < 0.5 else plane)
    colors = rng.normal(size=(2, 3)) * rng.uniform(10, 60, size=(2, 1))
    picture = rng.uniform(0, 255, 3) + np.tensordot(np.stack(planes, axis=-1), colors, 1)
    return np.clip(picture, 0, 255).astype(np.uint8)
