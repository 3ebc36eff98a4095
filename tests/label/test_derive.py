"""Labels computed from real photographs: import, label, read back."""

import errno
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_parts import check_parts
from PIL import Image

from maskweave.data.error_budget import Fault
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.errors import FullDisk, MaskweaveError
from maskweave.files import read_json, read_json_lines, write_json
from maskweave.label import derive
from maskweave.label.derive import LabelReport, label
from maskweave.modality.catalogs import Catalog, catalog_from, load_catalog
from maskweave.ranks import ONLY_FINISH, WHOLE, JobPart
from maskweave.values import measures

pytestmark = pytest.mark.usefixtures("to_the_end")


def write_photographs(root: Path) -> list[str]:
    """Photographs that come inside scikit-image and scikit-learn, all but one with a caption; their keys in order."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    pictures = {name: getattr(data, name)() for name in ("astronaut", "camera", "chelsea", "coffee", "rocket")}
    sample = load_sample_images()
    pictures |= {Path(name).stem: image for name, image in zip(sample.filenames, sample.images, strict=True)}
    for folder in ("rgb", "caption"):
        (root / folder / "trip").mkdir(parents=True)
    for i, name in enumerate(sorted(pictures)):
        Image.fromarray(pictures[name][::2, ::2]).save(root / "rgb" / "trip" / f"{name}.{'png' if i % 2 else 'JPG'}")
        if name != "coffee":
            (root / "caption" / "trip" / f"{name}.txt").write_text(f"a picture called {name}\n", encoding="utf-8")
    return [f"trip/{name}" for name in sorted(pictures)]


@pytest.fixture(scope="module")
def photos() -> Catalog:
    return load_catalog("photos")


@pytest.fixture
def out(tmp_path: Path, photos: Catalog) -> Path:
    write_photographs(tmp_path / "in")
    import_folders(tmp_path / "in", tmp_path / "out", photos, shard_size=3)
    return tmp_path / "out"


def tars(out: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(out.rglob("*.tar"))}


def test_photographs_are_imported_labeled_and_read_back(out: Path, photos: Catalog) -> None:
    report = label(out, photos, jobs=2)
    assert report.labels == {"edges": 7, "palette": 7, "metadata": 7} and report.picture == "rgb" and not report.faults
    shards = Shards(out, photos)
    assert len(shards) == 7
    for i in range(len(shards)):
        image = shards.raw(i)["rgb"]
        raw, sample = shards.raw(i), shards[i]
        np.testing.assert_array_equal(raw["edges"], measures.canny(image))  # at the picture's own resolution
        assert raw["palette"] == measures.palette(image, 7)
        assert raw["metadata"] == pytest.approx(measures.statistics(image))
        assert sample["rgb"].shape == (64, 64, 3) and sample["edges"].shape == (64, 64)
        assert ("caption" in sample) == (shards.key(i) != "trip/coffee")
    assert (shards[1]["rgb"] == shards[1]["rgb"][..., :1]).all()  # the camera man is gray


def test_labels_follow_the_keys_of_their_pictures(out: Path, photos: Catalog) -> None:
    label(out, photos)
    for shard in ("shard-00000", "shard-00002"):
        names = {}
        for name in ("rgb", "palette"):
            with tarfile.open(out / name / f"{shard}.tar") as tar:
                names[name] = [member.rpartition(".")[0] for member in tar.getnames()]
        assert names["rgb"] == names["palette"]


def test_a_second_run_keeps_the_labels_and_new_pictures_are_labeled(out: Path, photos: Catalog) -> None:
    label(out, photos)
    before = tars(out)
    assert label(out, photos).kept == 3 and tars(out) == before
    picture = out.parent / "in" / "rgb" / "trip" / "astronaut.JPG"
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(picture)
    import_folders(out.parent / "in", out, photos, shard_size=3)
    assert "palette" not in Shards(out, photos)[0]  # never the labels of the old picture
    assert label(out, photos).kept == 2
    assert Shards(out, photos)[0]["palette"] == [[200, 200, 200]]


def test_own_values_are_left_as_they_are(tmp_path: Path, photos: Catalog) -> None:
    write_photographs(tmp_path / "in")
    (tmp_path / "in" / "palette" / "trip").mkdir(parents=True)
    (tmp_path / "in" / "palette" / "trip" / "rocket.json").write_text("[[1, 2, 3]]", encoding="utf-8")
    import_folders(tmp_path / "in", tmp_path / "out", photos)
    report = label(tmp_path / "out", photos)
    assert set(report.labels) == {"edges", "metadata"} and "palette: kept, the data set has its own values" in str(
        report
    )
    shards = Shards(tmp_path / "out", photos)
    assert [shards[i].get("palette") for i in range(7)] == [None] * 6 + [[[1, 2, 3]]]


def with_keys(keys: dict[str, Any], photos: Catalog) -> Catalog:
    content = photos.to_plain()
    content["modalities"]["metadata"]["value"]["keys"] = keys
    for entry in content["modalities"].values():
        if entry["tokenizer"] is None:
            del entry["tokenizer"]
    return catalog_from(content, "test")


def test_the_picture_size_and_keys_that_pictures_do_not_tell(out: Path, photos: Catalog) -> None:
    keys = {
        name: {"id": i, "range": [0, 999]}
        for i, name in enumerate(["original_width", "original_height", "entropy", "mood"])
    }
    report = label(out, with_keys(keys, photos))
    assert "metadata: without mood" in str(report)
    found = Shards(out, with_keys(keys, photos)).raw(0)["metadata"]
    assert set(found) == {"original_width", "original_height", "entropy"}
    assert found["original_width"] == 256


def test_metadata_that_cannot_be_computed_is_left_out_with_a_note(out: Path, photos: Catalog) -> None:
    report = label(out, with_keys({"mood": {"id": 0, "range": [0, 1]}}, photos))
    assert "metadata" not in report.labels and "metadata: skipped, none of its keys can be computed" in str(report)


def test_without_pictures_there_is_a_clear_error(tmp_path: Path, photos: Catalog) -> None:
    write_photographs(tmp_path / "in")
    import_folders(tmp_path / "in", tmp_path / "out", photos.subset(["caption"]))
    with pytest.raises(
        MaskweaveError, match="labels are computed from pictures; expected shards of rgb, found caption"
    ):
        label(tmp_path / "out", photos)


def test_nothing_to_label(out: Path, photos: Catalog) -> None:
    assert "nothing to label" in str(label(out, photos.subset(["rgb", "caption"])))


def test_bad_pictures_are_skipped_named_and_limited(out: Path, photos: Catalog) -> None:
    path = out / "rgb" / "shard-00001.tar"
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        start = tar.getmembers()[1].offset_data
    content[start : start + 500] = bytes(500)
    path.write_bytes(content)
    with pytest.raises(MaskweaveError, match=r"(?s)1 of 7 samples are unusable.*trip/coffee: .*shard-00001\.tar"):
        label(out, photos)
    report = label(out, photos, limit=0.2)
    assert [fault.key for fault in report.faults] == ["trip/coffee"] and report.labels["edges"] == 6
    again = label(out, photos, limit=0.2)
    assert again.faults == report.faults and again.kept == len(Shards(out, photos).shards)
    for name in report.labels:
        assert [Fault(*row) for row in read_json_lines(out / name / "shard-00001.skipped.jsonl")] == report.faults
        parts = {shard: read_json(out / name / f"{shard}.json") for shard in Shards(out, photos).shards}
        assert [part["skipped"] for part in parts.values()] == [int(shard == "shard-00001") for shard in parts]


def test_a_full_disk_leaves_finished_labels_and_nothing_half_written(
    out: Path, photos: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = tarfile.TarFile.addfile, 0

    def full(self: tarfile.TarFile, info: tarfile.TarInfo, content: io.BytesIO) -> None:
        nonlocal count
        count += 1
        if count > 3 * 3 + 4:  # in the middle of the second shard
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, info, content)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", full)
        with pytest.raises(FullDisk, match=r"shard-00001\.tar"):
            label(out, photos)
    assert not list(out.rglob("*.partial"))
    assert [path.stem for path in (out / "edges").glob("*.tar")] == ["shard-00000"]
    assert len(Shards(out, photos)) == 7
    assert label(out, photos).kept == 1


def test_pictures_are_read_once_and_by_their_own_part(
    out: Path, photos: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = derive.digest
    monkeypatch.setattr(derive, "digest", lambda path: read.append(path.stem) or whole(path))
    shards = ["shard-00000", "shard-00001", "shard-00002"]
    for part, expected in ((WHOLE, shards), (WHOLE, shards), (JobPart(1, 3), shards[1:2]), (ONLY_FINISH, shards)):
        read.clear()
        assert not label(out, photos, part=part).unfinished and read == expected
    path = out / "edges" / "shard-00001.json"
    write_json(path, {**read_json(path), "picture": "of other pictures"})
    assert label(out, photos, part=JobPart(0, 3)).kept == 1
    with pytest.raises(MaskweaveError, match="1 of 3 shards are not finished"):
        label(out, photos, part=ONLY_FINISH)
    assert label(out, photos, part=JobPart(1, 3)).kept == 0
    assert label(out, photos, part=ONLY_FINISH).labels["edges"] == 7


def test_parts_of_a_labeling_make_the_whole(out: Path, photos: Catalog, tmp_path: Path) -> None:
    def job(folder: Path, part: JobPart) -> LabelReport:
        if not folder.exists():
            shutil.copytree(out, folder)
        return label(folder, photos, part=part)

    last = check_parts(job, tmp_path)
    assert last.labels == {"edges": 7, "palette": 7, "metadata": 7} and not last.unfinished
