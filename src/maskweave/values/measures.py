"""Measures computed from a picture without a network: edges, palette, statistics.

Edges: Canny, "A computational approach to edge detection", 1986. Colorfulness: Hasler and Süsstrunk, "Measuring colorfulness
in natural images", 2003, section 7. Ranges are those of the metadata of 4M-21 (https://arxiv.org/abs/2406.09406).
"""

import numpy as np

from maskweave.errors import BadSample

MERGE_DISTANCE = 56.0
"""Colors closer than this (Euclidean distance, channels 0 to 255) count as one color of a palette."""
STATISTICS = ("brightness", "contrast", "colorfulness", "saturation", "entropy")
"""Keys of the result of `statistics`."""
SMALLEST_SHARE = 0.005
"""Colors that cover a smaller share of the picture are left out of a palette."""


def canny(image: np.ndarray, low: float = 100.0, high: float = 200.0) -> np.ndarray:
    """Returns the Canny edges of a uint8 (height, width, 3) picture, as bool (height, width).

    Args:
        image: the picture, RGB.
        low: edges weaker than this gradient are dropped.
        high: edges start where the gradient is at least this.

    Raises:
        BadSample: the picture has another shape or type.
    """
    import cv2

    # OpenCV uses the color channel with the strongest gradient, so edges between colors of equal gray are found too.
    return cv2.Canny(np.ascontiguousarray(_checked(image)), low, high) > 0


def palette(image: np.ndarray, most: int = 7) -> list[list[int]]:
    """Returns the dominant colors of a uint8 (height, width, 3) picture, largest share first, as [red, green, blue] of 0 to 255.

    The bins of an 8 × 8 × 8 histogram are merged greedily, starting with the largest. The result is deterministic.

    Args:
        image: the picture, RGB.
        most: most colors to return; at least one is returned.

    Raises:
        BadSample: the picture has another shape or type.
    """
    flat = _checked(image).reshape(-1, 3)
    r, g, b = (np.ascontiguousarray(flat[:, c]) for c in range(3))
    bin_of = ((r & 0xE0).astype(np.intp) << 1) | ((g & 0xE0) >> 2) | (b >> 5)
    counts = np.bincount(bin_of, minlength=512)
    used = np.flatnonzero(counts)
    used = used[np.argsort(-counts[used], kind="stable")]
    weight = counts[used].astype(np.float64)
    sums = np.stack([np.bincount(bin_of, weights=channel, minlength=512)[used] for channel in (r, g, b)], 1)
    colors = sums / weight[:, None]  # mean color of each used bin, largest bin first

    cluster = np.full(len(used), -1)
    centers: list[np.ndarray] = []
    while len(centers) < max(most, 1) and (open_bins := np.flatnonzero(cluster < 0)).size:
        center = colors[open_bins[0]]
        near = ((colors[open_bins] - center) ** 2).sum(1) < MERGE_DISTANCE**2
        cluster[open_bins[near]] = len(centers)
        centers.append(center)
    left = np.flatnonzero(cluster < 0)
    if left.size:
        cluster[left] = ((colors[left, None] - np.stack(centers)[None]) ** 2).sum(2).argmin(1)

    share = np.bincount(cluster, weights=weight)
    means = np.stack([np.bincount(cluster, weights=sums[:, c]) for c in range(3)], 1) / share[:, None]
    order = np.argsort(-share, kind="stable")
    kept = [k for k in order if share[k] >= SMALLEST_SHARE * len(flat)] or order[:1]
    return [[int(v) for v in np.rint(means[k])] for k in kept]


def statistics(image: np.ndarray) -> dict[str, float]:
    """Computes statistics of a uint8 (height, width, 3) picture.

    Returns:
        brightness, mean gray, 0 to 255; contrast, standard deviation of gray, 0 to 127; colorfulness, 0 to 150 (clipped);
        saturation, mean of HSV's S, 0 to 255; entropy of the histogram of 256 grays in bits, 0 to 8.

    Raises:
        BadSample: the picture has another shape or type.
    """
    x = _checked(image).reshape(-1, 3).T.astype(np.float32, order="C")  # (3, pixels)
    r, g, b = x
    gray = np.array([0.299, 0.587, 0.114], np.float32) @ x
    red_green, yellow_blue = r - g, 0.5 * (r + g) - b
    spread = float(np.hypot(red_green.std(), yellow_blue.std()))
    shift = float(np.hypot(red_green.mean(), yellow_blue.mean()))
    highest = np.maximum(np.maximum(r, g), b)
    lowest = np.minimum(np.minimum(r, g), b)
    histogram = np.bincount(np.rint(gray).astype(np.intp), minlength=256)
    p = histogram[histogram > 0] / gray.size
    return {
        "brightness": float(gray.mean()),
        "contrast": min(float(gray.std()), 127.0),
        "colorfulness": min(spread + 0.3 * shift, 150.0),
        "saturation": 255.0 * float(((highest - lowest) / np.maximum(highest, 1.0)).mean()),
        "entropy": abs(float((p * np.log2(p)).sum())),
    }


def _checked(image: np.ndarray) -> np.ndarray:
    found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".strip()
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        raise BadSample(
            f"a picture must be uint8 (height, width, 3), found {found}; convert it to RGB with 8 bits per channel"
        )
    return image
