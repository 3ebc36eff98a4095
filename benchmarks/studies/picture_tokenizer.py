"""Is a tokenizer of many kinds of pictures better than one of 500? python benchmarks/studies/picture_tokenizer.py [--tokenizer picture-p8] [--entry picture-p16]

Two tokenizers of patches of 8×8 or 16×16 pixels are trained for equally many steps of 16 pictures: on 4,000 pictures that are free to use
(`maskweave.synthetic.pictures`), and on the first 500 of them. Both, and those of `--tokenizer`, encode photographs that none has seen, tile by tile. Printed are
the peak signal-to-noise ratio, and that of JPEG with at most as many bits.
Cost: 11 minutes of one busy core for each training with patches of 8×8, 4 with 16×16. Result: docs/results.md (picture-p8 and picture-p16, which ship, and a tokenizer of 500 pictures).
"""

import argparse
import importlib.util
import io
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from maskweave.data.batches import ValueBatches
from maskweave.modality.catalogs import load_catalog
from maskweave.modality.entry import Modality
from maskweave.objectives.tokenizer import TokenizerObjective
from maskweave.synthetic.pictures import FreePictures
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.pretrained import load_pretrained
from maskweave.training.loop import fit
from maskweave.training.settings import TrainSettings

ENTRIES, MANY, FEW, LARGEST, BATCH = ("picture-p8", "picture-p16"), 4000, 500, 512, 16
LOOKED_AT = 300
"""Pictures of a folder."""
HELD_OUT = {"skimage": ("data/coffee.png", "data/rocket.jpg"), "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg")}  # fmt: skip


def photographs() -> Iterator[tuple[str, np.ndarray]]:
    """Yields the held-out photographs of the installed packages, uint8 (H, W, 3), with sides that are multiples of 64."""
    for package, names in HELD_OUT.items():
        spec = importlib.util.find_spec(package)
        for name in names if spec and spec.origin else ():
            with Image.open(Path(str(spec.origin)).parent / name) as file:  # type: ignore[union-attr]
                picture = np.asarray(file.convert("RGB"))
            height, width = (min(side, LARGEST) // 64 * 64 for side in picture.shape[:2])
            yield Path(name).stem, picture[:height, :width]


def pictures_of(folder: Path) -> list[np.ndarray]:
    """Returns the first `LOOKED_AT` pictures of a folder, by name, on white where they are transparent, uint8 (64, 64, 3)."""
    found = []
    for path in sorted(folder.glob("*.png"))[:LOOKED_AT]:
        with Image.open(path) as file:
            opaque = Image.alpha_composite(Image.new("RGBA", file.size, "white"), file.convert("RGBA")).convert("RGB")
        found.append(np.asarray(opaque.resize((64, 64), Image.Resampling.BOX)))
    return found


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(float(np.square(a.astype(float) - b).mean()), 1e-2))


def by_tokens(tokenizer: GridTokenizer, picture: np.ndarray) -> tuple[float, float]:
    """Returns the ratio of a picture that is encoded in tiles, and its bits per pixel."""
    (rows, columns), m = tokenizer.modality.value.size, tokenizer.modality
    height, width = picture.shape[:2]
    tiles = picture.reshape(height // rows, rows, width // columns, columns, 3).swapaxes(1, 2)
    decoded = tokenizer.decode(tokenizer.encode(tiles.reshape(-1, rows, columns, 3))).reshape(tiles.shape)
    bits = m.tokens * math.log2(m.codes) / (rows * columns)
    return psnr(decoded.swapaxes(1, 2).reshape(picture.shape), picture), bits


def by_jpeg(picture: np.ndarray, bits: float) -> tuple[float, float]:
    """Returns the ratio of the best JPEG file that has at most so many bits per pixel, or the smallest there is, and its bits per pixel."""
    best = (0.0, 0.0)
    for quality in range(1, 96):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality, optimize=True)
        used = 8 * len(file.getvalue()) / picture[..., 0].size
        if quality > 1 and used > bits:
            break
        best = psnr(np.asarray(Image.open(file)), picture), used
    return best


def trained(entry: Modality, pictures: np.ndarray, steps: int) -> tuple[GridTokenizer, float]:
    """Returns a tokenizer trained for so many steps, and the CPU seconds that they took."""
    settings = TrainSettings(steps=steps, batch_size=BATCH, warmup=min(1.0, 50 / steps), checkpoint_every=0)
    torch.manual_seed(settings.seed)
    tokenizer = GridTokenizer(entry)
    with TemporaryDirectory() as folder:
        start = time.process_time()
        fit(TokenizerObjective(tokenizer), ValueBatches(entry, pictures, BATCH), settings, Path(folder))
        return tokenizer.eval(), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=1500, help="training steps of each tokenizer; 0: only those of --tokenizer"
    )
    parser.add_argument(
        "--tokenizer",
        action="append",
        default=[],
        help="another tokenizer to measure: its name, if it ships, or BUNDLE#NAME",
    )
    parser.add_argument(
        "--folder", action="append", type=Path, default=[], help="folder of PNG files to measure, too: means over them"
    )
    parser.add_argument("--entry", choices=ENTRIES, default=ENTRIES[0], help="entry of the catalog pictures")
    given = parser.parse_args()
    catalog = load_catalog("pictures").subset([given.entry])
    entry, source = catalog[given.entry], FreePictures(catalog, MANY, 0)
    tokenizers, seconds = {}, {}
    if given.steps:
        pictures = np.stack([source[i][source.names[0]] for i in range(MANY)])
        for n in (MANY, FEW):
            label = f"{n:,} pictures"
            tokenizers[label], seconds[label] = trained(entry, pictures[:n], given.steps)
    for place in given.tokenizer:
        assert entry.network is not None
        tokenizers[place] = load_pretrained(replace(entry, tokenizer=replace(entry.network, pretrained=place)))
    measured = [(name, [picture]) for name, picture in photographs()]
    for name, some in measured + [(folder.name, pictures_of(folder)) for folder in given.folder]:
        for label, tokenizer in tokenizers.items():
            ratio, bits = np.mean([by_tokens(tokenizer, picture) for picture in some], axis=0)
            jpeg, used = np.mean([by_jpeg(picture, bits) for picture in some], axis=0)
            taken = f"{seconds[label]:.0f} CPU seconds" if label in seconds else "trained elsewhere"
            print(
                f"{name:10} {label:16} {ratio:5.2f} dB at {bits:.3f} bits per pixel; JPEG {jpeg:5.2f} dB at {used:.3f}; {taken}"
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
