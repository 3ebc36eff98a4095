"""Videos: rates and lengths, folders of frames, views, what results write, scores and figures."""

import io
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from format_helpers import lacking
from PIL import Image as Picture

from maskweave.data.parts import noting, read_part
from maskweave.data.transforms import apply, fit
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.values.files import read_value
from maskweave.values.formats.frames import is_frames, pack
from maskweave.values.formats.video import read_video, write_gif, write_mp4
from maskweave.values.geometry import Geometry
from maskweave.values.image import Image
from maskweave.values.variation import Variation
from maskweave.values.video import Video

VIDEO = Video((8, 16, 16), fps=8.0)
ENTRY = {"id": 1, "kind": "grid", "grid": [2, 2, 2], "value": {"type": "video", "size": [8, 16, 16], "fps": 8}}


def levels(count: int, height: int = 16, width: int = 16, step: int = 10) -> np.ndarray:
    """Frame i has the level `step` · i."""
    return np.repeat(np.arange(0, step * count, step, dtype=np.uint8), height * width * 3).reshape(
        count, height, width, 3
    )


def remarks_of(read: Any) -> tuple[Any, list[str]]:
    with noting("sample") as notes:
        value = read_part("clip", read)
    return value, [text for _, text in notes.remarks]


def catalog(**values: dict[str, Any]) -> Catalog:
    entries = {
        name: {"id": k, "kind": "grid", "grid": [1] * len(value["size"]), "value": value}
        for k, (name, value) in enumerate(values.items(), 1)
    }
    return catalog_from({"modalities": entries}, "own.yaml")


# Rates and lengths.


def test_videos_of_other_rates_keep_their_speed() -> None:
    fast, told = remarks_of(lambda: VIDEO.check((levels(24), 24), "x"))
    assert fast[:, 0, 0, 0].tolist() == [10, 40, 70, 100, 130, 160, 190, 220], "every third frame"
    assert told == ["videos of 24 frames per second, resampled to 8"]
    slow, _ = remarks_of(lambda: VIDEO.check((levels(2), 2), "x"))
    assert slow[:, 0, 0, 0].tolist() == [0] * 4 + [10] * 4, "one second of two frames"
    same, told = remarks_of(lambda: VIDEO.check((levels(8), 8.001), "x"))
    assert np.array_equal(same, levels(8)) and not told


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_files_have_their_own_rate(kind: str) -> None:
    write = {"mp4": lambda v, fps: write_mp4(v, fps, "x"), "gif": write_gif}[kind]
    video, told = remarks_of(lambda: VIDEO.read(write(levels(20), 20), kind, "x"))
    assert video.shape == (8, 16, 16, 3) and told == ["videos of 20 frames per second, resampled to 8"]
    assert np.abs(video[:, 0, 0, 0].astype(int) - [10, 30, 60, 80, 110, 130, 160, 180]).max() <= 10


def test_shorter_videos_are_unknown_past_their_end_and_longer_ones_cut() -> None:
    entries = catalog_from({"modalities": {"clip": ENTRY}}, "here")
    value = entries["clip"].value
    short, told = remarks_of(lambda: fit({"clip": value.check(levels(5), "x")}, entries)["clip"])
    assert short.shape == (5, 16, 16, 3) and not told
    x = value.to_network(value.check_batch([short, levels(8)], "clip"))
    assert x.shape == (2, 3, 8, 16, 16) and x.dtype == torch.float32
    assert x[0, :, 5:].isnan().all() and not x[0, :, :5].isnan().any() and not x[1].isnan().any()
    assert [len(v) for v in value.from_network(x)] == [5, 8]
    assert np.array_equal(value.from_network(x)[1], levels(8)), "8 bits survive"
    with noting("sample") as notes:
        assert len(fit({"clip": levels(11)}, entries)["clip"]) == 8
    assert notes.remarks == {("clip", "videos longer than 8 frames, cut at their end"): 1}


def test_predicted_videos_end_where_their_frames_are_mostly_known() -> None:
    logits = torch.full((2, 3, 8, 16, 16), -1.0)
    logits[0, :, :5] = 0.5
    logits[0, :, 2] = -0.3
    decoded = VIDEO.from_network(torch.zeros(2, 3, 8, 16, 16))
    assert [len(video) for video in VIDEO.with_unknown(decoded, logits)] == [5, 1]
    assert not Video((8, 16, 16), missing="nan").predicts_unknown


def test_how_videos_of_other_lengths_and_sizes_are_fitted() -> None:
    def fitted(fit_ways: Any, value: np.ndarray) -> np.ndarray:
        entries = catalog(clip={"type": "video", "size": [4, 8, 8], "fit": fit_ways})
        return fit({"clip": value}, entries)["clip"]

    wide = levels(4, 8, 16)
    wide[:, :, 8:] = 255
    assert fitted("crop", wide)[:, :, 0].max() < 60 and fitted("crop", wide)[:, :, 7].min() == 255
    assert fitted("resize", wide).shape == (4, 8, 8, 3)
    assert fitted(["crop", "crop", "crop"], wide).max() < 60, "axis by axis, the end is cut"
    assert fitted(["resize", "crop", "crop"], levels(8, 8, 8))[:, 0, 0, 0].tolist() == [10, 30, 50, 70]
    with pytest.raises(
        BadSample, match=r"'clip': found a video of 5 frames; expected at most 4 at 8 frames per second"
    ):
        fitted("refuse", levels(5, 8, 8))
    with pytest.raises(BadSample, match=r"'clip': found size 8×16; expected 8×8"):
        fitted("refuse", wide)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (8, 8)}, r"must be \[frames, height, width\], found \[8, 8\]"),
        ({"size": (2, 8, 8), "fps": 0.0}, "value.fps must be 0.001 to 1000"),
        ({"size": (2, 8, 8), "channels": 4}, "1 or 3 channels, found value.channels 4"),
        ({"size": (2, 8, 8), "fit": ("pad", "crop", "crop")}, "shorter videos are unknown past their end anyway"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        Video(**settings).check_settings("grid")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((8, 16, 16, 3), np.float32), "a picture of type float32; expected uint8"),
        (np.zeros((16, 16, 3), np.uint8), r"shape \(16, 16, 3\), one color picture; expected"),
        ((levels(2), -1), "a video of -1 frames per second; expected 0.001 to 1000"),
    ],
)
def test_values_that_are_refused(value: Any, message: str) -> None:
    with pytest.raises(BadSample, match=f"^x: found {message}"):
        VIDEO.check(value, "x")


def test_batches_have_the_size_of_the_entry() -> None:
    with pytest.raises(BadSample, match=r"clip: value 2 of the batch: found shape \(9, 16, 16, 3\)"):
        VIDEO.check_batch([levels(9)], "clip", first=2)


# Folders of frames.


def frames(folder: Path, video: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(video):
        Picture.fromarray(frame).save(folder / f"frame{i}.png")
    return folder


def test_a_folder_of_frames_is_one_video_in_the_order_of_numbers(tmp_path: Path) -> None:
    folder = frames(tmp_path / "a", levels(12, step=20))
    assert is_frames(folder)
    assert np.array_equal(read_value(folder, VIDEO), levels(12, step=20)), "frame2 is before frame10"
    assert pack(folder) == pack(folder)
    assert VIDEO.read(pack(folder), "frames.zip", "x").shape == (12, 16, 16, 3)
    (folder / "notes.txt").write_text("not a frame", encoding="utf-8")
    assert not is_frames(folder)


def test_odd_digits_in_the_names_of_frames(tmp_path: Path) -> None:
    expected = ["shot", "shot_9", "shot_0010", "shot_011", "shot_٣", "shot²", "0007", "8", f"{12:035d}"]
    for i in np.random.default_rng(0).permutation(len(expected)):
        (tmp_path / "a").mkdir(exist_ok=True)
        Picture.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(tmp_path / "a" / f"{expected[i]}.png")
    found = read_value(tmp_path / "a", Video((12, 16, 16)))
    assert found[:, 0, 0, 0].tolist() == [20 * i for i in range(len(expected))]
    Picture.new("RGB", (16, 16)).save(tmp_path / "a" / "shot_10.png")
    message = "'shot_0010.png' and 'shot_10.png' have the same number, so the order of the frames is unknown"
    with pytest.raises(BadSample, match=message):
        read_value(tmp_path / "a", Video((12, 16, 16)))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": 8, "00.jpg": 8}, "'0.png' and '00.jpg' have the same number"),
        ({}, "found 0 frames; expected 1 to 100,000"),
        ({"a.txt": b"text"}, "found 'a.txt'; expected pictures: png"),
        ({"a.png": b"no picture"}, "a.png: corrupt or truncated png picture"),
        ({"0.png": 16, "1.png": 8}, r"found frames of \(16, 16\) and of \(8, 8\) pixels; expected one size"),
    ],
)
def test_unusable_frames(members: dict[str, Any], message: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            if isinstance(content, int):
                picture = io.BytesIO()
                Picture.new("RGB", (content, content)).save(picture, "PNG")
                content = picture.getvalue()
            packed.writestr(name, content)
    with pytest.raises(BadSample, match=f"^x: {message}"):
        VIDEO.read(buffer.getvalue(), "frames.zip", "x")
    with pytest.raises(BadSample, match="^x: corrupt or truncated zip file of frames"):
        VIDEO.read(b"PK of another kind", "frames.zip", "x")


# Views.


def test_videos_and_volumes_are_cropped_and_flipped_with_the_pictures_of_their_view() -> None:
    entries = catalog(
        clip={"type": "video", "size": [4, 8, 8]},
        still={"type": "image", "size": [8, 8], "channels": 3},
        volume={"type": "map", "size": [4, 8, 8], "range": [0, 255], "fit": "crop"},
        ids={"type": "classes", "size": [4, 8, 8], "classes": [str(i) for i in range(256)], "fit": "crop"},
    )
    column = np.arange(0, 240, 10, dtype=np.uint8)  # 8×24: the middle third is kept
    plane = np.broadcast_to(column, (8, 24))
    color = np.repeat(plane[..., None], 3, axis=2)
    sample = {
        "clip": np.stack([color] * 4),
        "still": color,
        "volume": np.stack([plane] * 4).astype(np.float32),
        "ids": np.stack([plane] * 4).astype(np.int64),
    }
    checked = {name: entries[name].value.check(value, name) for name, value in sample.items()}
    fitted = fit(checked, entries)
    for name, value in fitted.items():
        rows = value.reshape(-1, 8, *value.shape[(2 if name == "still" else 3) :])[:, :, ...]
        middle = np.asarray(rows, np.float32)[0] if name != "still" else np.asarray(value, np.float32)[0]
        middle = middle[..., 0] if middle.ndim == 2 else middle
        assert middle.tolist() == column[8:16].tolist(), name
    moved = apply(checked, entries, {"": Geometry((0.25, 0.0, 0.75, 1.0), flip=True)})
    for name in ("clip", "volume", "ids"):
        frames_of = np.asarray(moved[name], np.float32).reshape(4, 8, 8, -1)[..., 0]
        assert np.array_equal(frames_of[0], frames_of[3]), "all frames alike"
        assert (
            frames_of[0, 0, 0] > frames_of[0, 0, 7]
            and np.abs(frames_of[0, 0] - np.asarray(moved["still"])[0, :, 0]).max() <= 10
        )


@pytest.mark.parametrize("ways", ["crop", "resize", "refuse"])
def test_random_crops_apply_to_all_frames_however_sizes_are_fitted(ways: str) -> None:
    entries = catalog(
        clip={"type": "video", "size": [3, 8, 8], "fit": ways},
        volume={"type": "map", "size": [3, 8, 8], "range": [0, 255], "fit": ways},
    )
    plane = np.broadcast_to(np.arange(0, 80, 10, dtype=np.uint8), (8, 8))
    sample = {"clip": np.stack([np.stack([plane] * 3, -1)] * 2), "volume": np.stack([plane] * 3).astype(np.float32)}
    moved = apply(sample, entries, {"": Geometry((0.5, 0.0, 1.0, 1.0), flip=True)})
    assert moved["clip"].shape == (2, 8, 8, 3) and moved["volume"].shape == (3, 8, 8)
    for frame in (*moved["clip"][..., 0], *moved["volume"]):
        assert frame[0, 0] == 70 and frame[0, 7] == 40, "the right half, mirrored"


def test_a_video_of_another_frame_needs_its_own_view() -> None:
    clip, still = {"type": "video", "size": [2, 8, 8]}, {"type": "image", "size": [8, 8], "channels": 3}
    sample = {"clip": levels(2, 8, 8), "still": np.zeros((8, 16, 3), np.uint8)}
    with pytest.raises(BadSample, match="values of one view show the same frame, so their aspect ratios must agree"):
        fit(sample, catalog(clip=clip, still=still))
    stretched = catalog(clip={**clip, "fit": "resize"}, still=still)
    with pytest.raises(BadSample, match="'clip' and the pictures of its view cannot be fitted together"):
        fit(sample, stretched)


def test_variations_shift_and_color_all_frames() -> None:
    assert VIDEO.varied_by == ("shift", "color", "noise")
    later = VIDEO.vary(levels(4), Variation(shift=0.25))
    assert later[:, 0, 0, 0].tolist() == [0, 0, 0, 10], "a quarter of 8 frames"
    brighter = VIDEO.vary(levels(4), Variation(brightness=2.0))
    assert brighter[:, 0, 0, 0].tolist() == [0, 20, 40, 60] and brighter.dtype == np.uint8
    padded = VIDEO.vary(VIDEO.padded(levels(4)), Variation(shift=0.25))
    assert np.array_equal(padded, VIDEO.padded(later), equal_nan=True), "what is past the end stays unknown"


# What results write.


def test_results_are_written_as_mp4_and_gif(monkeypatch: pytest.MonkeyPatch) -> None:
    video = levels(5, 16, 15, 40)
    value = Video((8, 16, 15), fps=5.0)
    found, problems = value.result_files(video, "x")
    assert list(found) == ["mp4", "gif"] and not problems
    for ending, content in found.items():
        again, rate = read_video(content, ending)
        assert rate == pytest.approx(5, abs=0.01) and again.shape == (5, 16, 16 if ending == "mp4" else 15, 3)
        assert np.abs(again[:, :, :15].astype(int) - video).max() < 12
    with av.open(io.BytesIO(found["mp4"])) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p", "browsers play it"
    assert np.array_equal(value.read(*value.write(video), "x"), video), "data are written without loss"
    lacking("av", monkeypatch)
    found, problems = value.result_files(video, "x")
    assert list(found) == ["gif"] and "no mp4 was written" in problems[0] and "maskweave[av]" in problems[0]


def test_forms_in_python() -> None:
    pictures = [Picture.fromarray(frame) for frame in levels(3)]
    for form in (levels(3), (levels(3), 8), pictures, torch.from_numpy(levels(3)), levels(3)[..., :1]):
        assert np.array_equal(VIDEO.check(VIDEO.from_python(form, "x"), "x"), levels(3))
    gray = Video((8, 16, 16), channels=1)
    assert gray.read(write_mp4(levels(3), 8, "x"), "mp4", "x").shape == (3, 16, 16, 1)
    assert gray.result_files(gray.check(levels(3)[..., 0], "x"), "x")[0]["gif"][:3] == b"GIF"


# Scores, ensembles and figures.


def test_scores_over_the_frames_of_the_truth() -> None:
    metrics = VIDEO.metrics()
    videos = [levels(n, step=20) for n in (4, 6, 8)]
    assert metrics["psnr"].score(videos, videos) == np.inf
    longer = np.concatenate([videos[0], np.full((4, 16, 16, 3), 255, np.uint8)])
    assert metrics["psnr"].score([longer], videos[:1]) == np.inf, "what follows the truth's end is unknown"
    early = metrics["psnr"].score([videos[1][:3]], videos[1:2])
    assert early == pytest.approx(10 * np.log10(255**2 / np.mean([0, 0, 0, 60**2, 80**2, 100**2])), abs=1e-3)
    assert metrics["seconds"].score([longer], videos[:1]) == 0.5
    for metric in metrics.values():
        differing = [levels(4), levels(6, step=30), levels(8, step=20)]
        best = metric.score([metric.best_constant(differing)] * 3, differing)
        others = [metric.score([video] * 3, differing) for video in differing]
        assert best >= max(others) if metric.better == "higher" else best <= min(others)
    picture = Image((8, 16, 16), 3).metrics()["psnr"]
    full = [levels(8), levels(8, step=5)]
    assert metrics["psnr"].score(full, full[::-1]) == pytest.approx(picture.score(full, full[::-1]))


def test_ensembles_average_frames() -> None:
    assert VIDEO.merge([levels(4), levels(6, step=30)], 0.5)[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 120]


def test_figures_are_strips_with_hatched_ends_and_clips_play() -> None:
    assert VIDEO.aspect == 4 and VIDEO.natural_size() == (16, 64)
    strip = VIDEO.draw(levels(5, step=60), (32, 128)).astype(int)
    assert strip.shape == (32, 128, 3)
    assert [round(strip[16, 16 + 32 * i].mean() / 60) for i in range(2)] == [0, 2]
    assert strip[:, 64:].std() > 10 and np.ptp(strip[:, 100:], axis=2).max() <= 3, "frames 5 and 7 are past the end"
    clip = VIDEO.playable(levels(5))
    assert clip.mime == "image/gif" and read_video(clip.content, "x")[0].shape == (5, 128, 128, 3)


@pytest.mark.parametrize("rate", [None, np.nan, "8", 10**400, True, 1j])
def test_rates_that_are_no_numbers_are_refused(rate: Any) -> None:
    with pytest.raises(BadSample, match="^x: found a video of .* frames per second; expected 0.001 to 1000"):
        VIDEO.check(VIDEO.from_python((levels(2), rate), "x"), "x")


def test_ragged_frames_are_refused() -> None:
    pictures = [Picture.new("RGB", (8, size)) for size in (8, 9)]
    for value in ([[[1]], [[1, 2]]], (levels(2), [8, [9]]), pictures):
        with pytest.raises(BadSample, match="^x: found .*; expected an array of numbers, all rows of one length"):
            VIDEO.check(VIDEO.from_python(value, "x"), "x")
        with pytest.raises(BadSample, match="^x: found "):
            VIDEO.check(value, "x")
