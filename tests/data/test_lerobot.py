"""LeRobot folders of versions 2 and 3: episodes and windows with video, numbers and tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_set_helpers import LENGTHS, LEVELS, rows_of_episode, version_2, version_3, video

from maskweave.data.import_source import import_data
from maskweave.data.lerobot import LeRobot
from maskweave.data.opening import open_data
from maskweave.data.shards import Shards
from maskweave.data.split import Split, divide
from maskweave.errors import BadSample, MaskweaveError
from maskweave.modality.catalogs import Catalog, catalog_from

MODALITIES = {
    "top": {"id": 1, "kind": "grid", "grid": [2, 2, 2], "value": {"type": "image", "size": [4, 16, 16], "channels": 3, "fit": "resize"}},
    "state": {"id": 2, "kind": "grid", "grid": [4], "value": {"type": "map", "size": [8], "channels": 2, "range": [-100, 100], "fit": "resize"}},
    "caption": {"id": 3, "kind": "sequence", "vocabulary": "text", "max_tokens": 30, "value": {"type": "text"}},
}  # fmt: skip
FIELDS = {"caption": "task"}


@pytest.fixture
def catalog() -> Catalog:
    return catalog_from({"vocabularies": {"text": {"size": 600}}, "modalities": MODALITIES}, "own.yaml")


@pytest.fixture(params=[version_2, version_3])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path / "robot")


def levels_of(frames: np.ndarray) -> list[int]:
    return frames.mean(axis=(1, 2, 3)).round().astype(int).tolist()


def test_episodes(root: Path, catalog: Catalog) -> None:
    source = open_data(str(root), catalog, fields=FIELDS)
    assert isinstance(source, LeRobot) and len(source) == 3 and set(source.names) == {"top", "state", "caption"}
    assert [source.key(i) for i in range(3)] == ["episode_000000", "episode_000001", "episode_000002"]
    for i, length in enumerate(LENGTHS):
        parts = {name: value for name, _, value in source.parts(i)}
        assert parts["top"].shape == (4, 16, 16, 3), "scaled down and thinned out"
        expected = np.linspace(0, length - 1, 4).round() * LEVELS
        np.testing.assert_allclose(levels_of(parts["top"]), expected, atol=4)
        np.testing.assert_array_equal(parts["state"], [[t, -i] for t in range(length)])
        assert parts["caption"] == f"reach {i % 2}"


def test_windows_cover_all_frames_and_stay_in_one_part(root: Path, catalog: Catalog) -> None:
    source = open_data(str(root), catalog, fields=FIELDS, window=8)
    assert isinstance(source, LeRobot)
    found = {source.key(i): i for i in range(len(source))}
    starts = {0: (0, 4), 1: (0,), 2: (0, 8, 12)}
    assert list(found) == [f"episode_{e:06d}/{s:06d}" for e, all_of in starts.items() for s in all_of]
    parts = {name: value for name, _, value in source.parts(found["episode_000002/000012"])}
    assert parts["state"][:, 0].tolist() == list(range(12, 20))
    np.testing.assert_allclose(levels_of(parts["top"]), np.float64([12, 14, 17, 19]) * LEVELS, atol=4)
    parts = {name: value for name, _, value in source.parts(found["episode_000001/000000"])}
    assert len(parts["state"]) == 7
    for seed in range(5):
        train, held_out = divide(source, Split(seed=seed), 2, "robot")
        groups = [{source.key(i)[:14] for i in part.tolist()} for part in (train, held_out)]
        assert not groups[0] & groups[1], "windows of one episode are in one part"


def test_an_import(root: Path, catalog: Catalog, tmp_path: Path) -> None:
    report = import_data(str(root), tmp_path / "out", catalog, fields=FIELDS, window=8)
    assert report.samples == 6 and "data.split.group: '^episode_" in str(report)
    sample = Shards(tmp_path / "out", catalog)[0]
    assert sample["top"].shape == (4, 16, 16, 3) and sample["state"].shape == (8, 2)
    assert import_data(str(root), tmp_path / "out", catalog, fields=FIELDS, window=8).kept == 1


def test_missing_and_damaged_videos(tmp_path: Path, catalog: Catalog) -> None:
    root = version_2(tmp_path / "robot")
    top = root / "videos/chunk-000/observation.images.top"
    (top / "episode_000000.mp4").unlink()
    (top / "episode_000001.mp4").write_bytes((top / "episode_000001.mp4").read_bytes()[:300])
    video(top / "episode_000002.mp4", [0, 10])
    source = open_data(str(root), catalog, fields=FIELDS)
    assert set(source[0]) == {"state", "caption"}, "no video is a missing part"
    with pytest.raises(
        BadSample, match=r"episode_000001: observation.images.top \(top\): .*corrupt or truncated video"
    ):
        source[1]
    windows = open_data(str(root), catalog, fields=FIELDS, window=8)
    with pytest.raises(BadSample, match=r"has no frames from 1.20 to 2.00 s"):
        windows[len(windows) - 1]


def test_columns_of_one_value(tmp_path: Path) -> None:
    entries: dict[str, Any] = {
        "episode": {"id": 1, "kind": "grid", "grid": [1], "value": {"type": "scalar", "bins": 4}},
        "reward": {"id": 2, "kind": "grid", "grid": [1], "value": {"type": "scalar", "bins": 4}},
    }
    catalog = catalog_from({"modalities": entries}, "own.yaml")
    source = open_data(str(version_2(tmp_path / "robot")), catalog, fields={"episode": "episode_index"})
    assert source.names == ("episode", "reward"), "next.reward ends in reward"
    with pytest.raises(
        BadSample, match=r"next.reward \(reward\): has other values in other frames, such as 0.0 and 6.0"
    ):
        source[1]
    one = open_data(str(tmp_path / "robot"), catalog, names=["episode"], fields={"episode": "episode_index"})
    assert one[1] == {"episode": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fields": {"top": "observation.images.front"}},
            "there is no feature 'observation.images.front'; found .*task",
        ),
        ({"fields": {"wrist": "action"}}, "data.fields has 'wrist'"),
        ({"window": -1}, "data.window must be 0 .* found -1"),
    ],
)
def test_wrong_settings(tmp_path: Path, catalog: Catalog, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        open_data(str(version_2(tmp_path / "robot")), catalog, **options)


def test_damaged_folders(tmp_path: Path, catalog: Catalog) -> None:
    root = version_2(tmp_path / "robot")
    pq.write_table(pa.table(rows_of_episode(0, 0)), root / "data/chunk-000/episode_000003.parquet")
    with pytest.raises(MaskweaveError, match="episode 0 is in two places"):
        open_data(str(root), catalog)
    (root / "meta/info.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="fps is None; expected frames per second"):
        open_data(str(root), catalog)
    (tmp_path / "t.csv").write_text("state\n1\n", encoding="utf-8")
    with pytest.raises(MaskweaveError, match="data.window is for LeRobot folders"):
        open_data(str(tmp_path / "t.csv"), catalog, window=3)


def test_damaged_metadata(tmp_path: Path, catalog: Catalog) -> None:
    root = version_2(tmp_path / "robot")
    last = root / "data/chunk-000/episode_000002.parquet"
    rows = rows_of_episode(2, 19)
    pq.write_table(pa.table({**rows, "task_index": [None] * LENGTHS[2]}), last)
    assert set(open_data(str(root), catalog, fields=FIELDS)[2]) == {"top", "state"}, "no task"
    pq.write_table(pa.table({**rows, "episode_index": [None, *rows["episode_index"][1:]]}), last)
    with pytest.raises(MaskweaveError, match="the column episode_index has cells that are no numbers; expected"):
        open_data(str(root), catalog)
    for path in last.parent.iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["task_index"]), path)
    with pytest.raises(MaskweaveError, match="there is no feature 'task'; found"):
        open_data(str(root), catalog, fields=FIELDS)
    (root / "meta/info.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"info.json: found \[1\]; expected a JSON object"):
        open_data(str(root), catalog)


def test_places_of_videos_that_are_no_numbers(tmp_path: Path, catalog: Catalog) -> None:
    root = version_3(tmp_path / "robot")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("episode_index"), "episode_index", [[0, None, 2]]), path)
    source = open_data(str(root), catalog, fields=FIELDS)
    assert "top" in source[0] and "top" not in source[1]


def test_videos_at_the_rate_of_their_entry(root: Path) -> None:
    entries: dict[str, Any] = {
        "top": {"id": 1, "kind": "grid", "grid": [5, 2, 2], "value": {"type": "video", "size": [10, 16, 16], "fps": 5}}
    }
    source = open_data(str(root), catalog_from({"modalities": entries}, "own.yaml"))
    for i, length in enumerate(LENGTHS):
        expected = np.arange(round(length / 2)) * 2 * LEVELS
        (_, _, frames), *_ = source.parts(i)
        np.testing.assert_allclose(levels_of(frames), expected, atol=4)
