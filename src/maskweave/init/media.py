"""From sounds and videos to the value type, rate and length of an entry."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from maskweave.init import sizes
from maskweave.init.contents import FileContent
from maskweave.init.finding import Finding
from maskweave.values.log_mel import LogMel
from maskweave.values.sound import as_waveform

HIGHEST_RATE = 24_000
"""Sounds of higher rates are resampled to this."""
WINDOW = 0.064
"""Seconds of a spectrogram's window."""
MELS, MEL_TOKENS = 64, 4
COLUMNS = 8
"""Columns of the spectrogram that a token covers, at least 4 of short sounds."""
MOST_COLUMN_TOKENS = 48
LONGEST = 10.0
"""Seconds of a sound that are kept."""
LEVELS = 80.0
"""Decibels from the quietest to the loudest point."""
FPS, LOWEST_FPS = 8.0, 2.0
"""Highest rate of videos, and the lowest that longer ones are resampled to."""
FRAMES, FRAME_TOKENS, SIDE_TOKENS = 16, 4, 4
"""Most frames of a video; tokens along time and along its short side."""


def decide_sound(finding: Finding, contents: Mapping[str, FileContent]) -> Finding:
    """Fill in the entry for sound files."""
    sounds = list(contents.values())
    rates, lengths = Counter(int(c.rate) for c in sounds), [c.seconds for c in sounds]
    found = rates.most_common(1)[0][0]
    rate = min(found, HIGHEST_RATE)
    window = 2 ** round(math.log2(WINDOW * rate))
    hop = window // 4
    kept = min(longest(lengths), LONGEST)
    columns = math.ceil(kept * rate / hop)
    patch = max(min(COLUMNS, math.ceil(columns / 4)), math.ceil(columns / MOST_COLUMN_TOKENS))
    tokens = math.ceil(columns / patch)
    high = _loudest(sounds, LogMel(rate, MELS, hop, window, -120, 20))
    finding.type, finding.grid, finding.size = "audio", (MEL_TOKENS, tokens), (MELS, tokens * patch)
    finding.value = {
        "rate": rate,
        "max_seconds": round(tokens * patch * hop / rate, 6),
        "mels": MELS,
        "hop": hop,
        "window": window,
        "range": [high - LEVELS, high],
    }
    finding.found = f"sound, {min(lengths):.3g} to {max(lengths):.3g} s, {', '.join(f'{r} Hz' for r in sorted(rates))}"
    finding.why["rate"] = f"{rates[found]} of {len(sounds)} files have {found}"
    finding.why["max_seconds"] = "longer sounds are cut, and what is past the end of shorter ones is unknown"
    finding.why["range"] = "in dB; the loudest points, and 80 dB below"
    if found > rate:
        finding.doubts.append(
            f"files have {found} samples per second; rate {rate} keeps frequencies up to {rate // 2} Hz; for all, raise rate, hop and window together"
        )
    if max(lengths) > tokens * patch * hop / rate:
        finding.doubts.append(
            f"sounds longer than {tokens * patch * hop / rate:.3g} s are cut (the longest has {max(lengths):.4g} s); cut them into pieces, or raise max_seconds and grid"
        )
    return finding


def longest(seconds: Sequence[float]) -> float:
    """Returns the largest duration, or a high quantile if a few are much longer."""
    high = float(np.quantile(seconds, sizes.ROBUST))
    return max(seconds) if max(seconds) <= sizes.STRETCH * high else high


def _loudest(sounds: Sequence[FileContent], analysis: LogMel) -> float:
    """Returns the level in dB below which nearly all points of the spectrograms are, rounded up."""
    levels = [analysis.analyze(as_waveform((c.data, c.rate), analysis.rate, "sound")).ravel() for c in sounds]
    return float(math.ceil(np.quantile(np.concatenate(levels), 0.9995) / 5) * 5)


def is_color_video(content: FileContent) -> bool:
    """Whether an array has the form of a color video, uint8 (frames, height, width, 3)."""
    array = content.data
    return array.ndim == 4 and array.dtype == np.uint8 and array.shape[-1] == 3 and content.known is None


def decide_video(finding: Finding, contents: Mapping[str, FileContent]) -> Finding:
    """Fill in the entry for videos, folders of frames and color arrays over three axes."""
    videos = list(contents.values())
    shapes = [c.data.shape for c in videos]
    stated = [c.rate for c in videos if c.rate]
    rate = Counter(round(r, 2) for r in stated).most_common(1)[0][0] if stated else 0.0
    fps = min(FPS, rate) if rate else FPS
    lengths = [c.data.shape[0] * (1 / c.rate if c.rate else 1 / FPS) for c in videos]  # seconds
    duration = longest(lengths)
    while rate and duration * fps > FRAMES and fps / 2 >= LOWEST_FPS:
        fps /= 2
    needed = max(1, round(duration * fps))
    frames, tokens = sizes.divisible(min(needed, FRAMES), FRAME_TOKENS, up=True)
    picture = sizes.for_picture([shape[1:3] for shape in shapes], minutes=0)
    height, width = picture.size
    step = min(height, width) // SIDE_TOKENS
    fits = height % step == 0 and width % step == 0
    grid = (height // step, width // step) if fits else picture.grid
    finding.type, finding.grid, finding.size = "video", (tokens, *grid), (frames, height, width)
    finding.value = {"size": [frames, height, width], "fps": fps}
    finding.extents = {key: c.data.shape[1:3] for key, c in contents.items()}
    counts = [shape[0] for shape in shapes]
    finding.found = (
        f"videos of {min(counts)} to {max(counts)} frames"
        if min(counts) < max(counts)
        else f"videos of {counts[0]} frames"
    )
    finding.found += f", {rate:g} frames per second" if rate else ""
    finding.why["size"] = f"frames, height, width; {picture.note}"
    finding.why["fps"] = (
        "videos of other rates are resampled in time" if rate else "the files state none; results play at this rate"
    )
    if not rate:
        finding.doubts.append(
            "arrays and folders of frames state no frames per second: set value.fps, at which results play"
        )
    if max(lengths) * fps > frames + 0.5:
        finding.doubts.append(
            f"videos longer than {frames} frames at {fps:g} per second are cut at their end; cut them into pieces, raise size and grid, or set value.fit: [resize, crop, crop] to shorten them"
        )
    if {round(length * fps) for length in lengths} == {frames}:
        finding.value["missing"] = "nan"
        finding.why["missing"] = "all videos are equally long, so their end need not be predicted"
    finding.doubts += picture.doubts
    return finding
