"""Labels of teachers: batches, chains, filters, failures, provenance, resuming."""

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import own_teachers
import pytest
from job_parts import check_parts
from PIL import Image
from safetensors.torch import load_file, save_file

from maskweave.cli.main import main
from maskweave.data.folders import import_folders
from maskweave.data.shards import Shards
from maskweave.errors import MaskweaveError
from maskweave.files import read_json, write_yaml
from maskweave.label import derive
from maskweave.label.derive import LabelReport
from maskweave.modality.catalogs import Catalog, catalog_from
from maskweave.ranks import JobPart
from maskweave.values.measures import canny as canny_edges

label = partial(derive.label, allow_code=True)
TEXT = {"kind": "sequence", "vocabulary": "text", "max_tokens": 32, "value": {"type": "text"}}
LEVEL = {"kind": "grid", "grid": [4, 4], "value": {"type": "map", "size": [16, 16], "fit": "crop", "range": [0, 1], "missing": "nan"}}  # fmt: skip
FACES = {"kind": "sequence", "vocabulary": "text", "max_tokens": 32, "chunk": 5, "value": {"type": "boxes", "classes": ["face"], "bins": 32}}  # fmt: skip


def by(function: str, source: str = "rgb", **more: Any) -> dict[str, Any]:
    return {"derive": {"from": source, "by": "teacher", "model": f"python: own_teachers:{function}", **more}}


def content(**entries: Any) -> dict[str, Any]:
    rgb = {"id": 1, "kind": "patches", "grid": [4, 4], "value": {"type": "image", "size": [16, 16], "channels": 3}}
    vocabulary = {"size": 400, "sentinels": 4, "values": {"v0": 64}, "words": ["face"]}
    numbered = {name: {"id": n, **entry} for n, (name, entry) in enumerate(entries.items(), 2)}
    return {"vocabularies": {"text": vocabulary}, "modalities": {"rgb": rgb, **numbered}}


def catalog(**entries: Any) -> Catalog:
    return catalog_from(content(**entries), "test")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seven pictures in three shards; every other one is tall."""
    (tmp_path / "in" / "rgb").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(7):
        shape = (20, 30, 3) if n % 2 else (30, 20, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / "in" / "rgb" / f"{n}.png")
    import_folders(tmp_path / "in", tmp_path / "out", catalog(), shard_size=3)
    own_teachers.BATCHES.clear()
    return tmp_path / "out"


def test_a_teacher_labels_in_batches_and_its_record_says_who_it_was(data: Path) -> None:
    entries = catalog(level={**LEVEL, **by("brightness", batch_size=2, license="MIT", options={"scale": 0.5})})
    report = label(data, entries)
    assert report.labels == {"level": 7} and report.picture == "rgb" and not report.faults
    assert own_teachers.BATCHES == [2, 1, 2, 1, 1]
    shards = Shards(data, entries)
    for i in range(7):
        sample = shards.raw(i)
        np.testing.assert_allclose(sample["level"], sample["rgb"].mean(-1) / 510, rtol=1e-5)
    record = read_json(data / "level" / "label.json")
    assert record["teacher"]["license"] == "MIT" and record["teacher"]["revision"].startswith("sha256:")
    assert record["derive"]["options"] == {"scale": 0.5} and record["made_from"] == "rgb"
    assert label(data, entries).kept == 3 and len(own_teachers.BATCHES) == 5  # not even opened


def test_other_settings_or_another_function_label_anew(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label(data, catalog(level={**LEVEL, **by("brightness")}))
    changed = catalog(level={**LEVEL, **by("brightness", options={"scale": 0.25})})
    assert label(data, changed).kept == 0
    assert Shards(data, changed).raw(0)["level"].max() < 0.3
    (data / "level" / "shard-00001.json").unlink()
    record = read_json(data / "level" / "label.json")
    path = Path(own_teachers.__file__)
    other = data.parent / "others" / "own_teachers.py"
    other.parent.mkdir()
    other.write_text(path.read_text(encoding="utf-8") + "\n# another version\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(other.parent))
    monkeypatch.delitem(sys.modules, "own_teachers")
    assert label(data, changed).kept == 0, "its labels must not mix with those of the former version"
    assert read_json(data / "level" / "label.json")["teacher"] != record["teacher"]


def test_changed_weights_label_all_anew(data: Path, tmp_path: Path) -> None:
    """Weights may change in place, under the same name; labels of both must not mix."""
    pytest.importorskip("transformers")
    import tiny_teachers

    folder = tiny_teachers.depth_anything(tmp_path / "teacher")
    derive = {"from": "rgb", "by": "teacher", "model": folder, "task": "depth-estimation"}
    entries = catalog(depth={**LEVEL, "value": {**LEVEL["value"], "range": [0, 20]}, "derive": derive})

    def made() -> tuple[dict[str, Any], list[np.ndarray]]:
        shards = Shards(data, entries)
        return read_json(data / "depth" / "label.json")["teacher"], [shards.raw(i)["depth"] for i in range(7)]

    label(data, entries)
    (record, depths), weights = made(), load_file(Path(folder, "model.safetensors"))
    weights["head.conv3.bias"] += 1
    save_file(weights, Path(folder, "model.safetensors"), {"format": "pt"})
    (data / "depth" / "shard-00001.json").unlink()
    assert label(data, entries).kept == 0
    other, changed = made()
    assert other == {**record, "revision": other["revision"]} and other["revision"] != record["revision"]
    assert all(abs(a - b).min() > 0.1 for a, b in zip(depths, changed, strict=True))


def test_discarded_labels_are_gone_before_another_record_is_written(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(data, catalog(level={**LEVEL, **by("brightness")}))
    record = read_json(data / "level" / "label.json")
    changed = catalog(level={**LEVEL, **by("too_few")})
    with monkeypatch.context() as patch:
        patch.setattr(derive, "write_json", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            label(data, changed)
    assert read_json(data / "level" / "label.json") == record and not list((data / "level").glob("*.tar"))
    label(data, catalog(level={**LEVEL, **by("brightness")}))
    with pytest.raises(MaskweaveError, match="returned 1 labels for 3 samples"):
        label(data, changed)
    assert read_json(data / "level" / "label.json") != record and not list((data / "level").glob("*.tar"))


def test_labels_of_labels(data: Path) -> None:
    letters = {"kind": "vectors", "max_tokens": 8, "value": {"type": "vectors", "channels": 2}}
    entries = catalog(t5={**letters, **by("letters", "words")}, words={**TEXT, **by("shape_in_words")})
    report = label(data, entries)
    assert report.labels == {"words": 7, "t5": 7} and report.picture == "rgb, words"
    sample = Shards(data, entries).raw(0)
    assert sample["words"] == "30 by 20" and sample["t5"].tolist() == [[ord(c), 8] for c in "30 by 20"]
    with pytest.raises(MaskweaveError, match="a, b are computed from each other"):
        two = {"a": {**TEXT, **by("letters", "b")}, "b": {**TEXT, **by("letters", "a")}}
        shutil.copytree(data / "words", data / "a"), shutil.copytree(data / "words", data / "b")
        label(data, catalog(**two))


def test_rules_read_what_a_teacher_made(data: Path) -> None:
    picture = {"kind": "patches", "grid": [4, 4], "value": {"type": "image", "size": [16, 16], "channels": 3}}
    canny = {"kind": "grid", "grid": [4, 4], "value": {"type": "binary", "size": [16, 16], "fit": "crop"}}
    entries = catalog(
        edges={**canny, "derive": {"from": "clean", "by": "canny"}},
        outlines={**canny, "derive": {"from": "rgb", "by": "canny"}},
        clean={**picture, **by("darker")},
    )
    assert label(data, entries).labels == {"outlines": 7, "clean": 7, "edges": 7}
    sample = Shards(data, entries).raw(0)
    np.testing.assert_array_equal(sample["edges"], canny_edges(sample["rgb"] // 2))


def test_what_a_teacher_cannot_label_is_counted_and_named(data: Path) -> None:
    entries = catalog(words={**TEXT, **by("wide_only")})
    with pytest.raises(MaskweaveError, match=r"(?s)4 of 7 samples .*more than the limit.*a picture that is not wide"):
        label(data, entries)
    report = label(data, entries, limit=0.6)
    assert report.labels == {"words": 3} and [fault.key for fault in report.faults] == ["0", "2", "4", "6"]
    assert {fault.modality for fault in report.faults} == {"words"} and "4 labels could not be computed" in str(report)
    again = label(data, entries, limit=0.6)
    assert again.faults == report.faults and again.kept == 3
    assert Shards(data, entries).raw(1)["words"] == "width 30" and "words" not in Shards(data, entries).raw(0)


def test_labels_pass_the_check_of_their_entry(data: Path) -> None:
    entries = catalog(level={**LEVEL, **by("brightness", options={"scale": 40})})
    with pytest.raises(MaskweaveError, match=r"(?s)7 of 7 samples.*level: found values from .*; expected 0 to 1"):
        label(data, entries)


def test_unsure_items_points_and_labels_are_left_out(data: Path) -> None:
    entries = catalog(
        faces={**FACES, **by("three_boxes", confidence={"drop_below": 0.3})},
        level={**LEVEL, **by("brightness", confidence={"unknown_below": 0.5})},
        words={**TEXT, **by("unsure_of_tall", confidence={"drop_below": 0.5})},
        dim={**LEVEL, **by("brightness", confidence={"drop_below": 0.9})},
    )
    report = label(data, entries)
    assert report.labels == {"faces": 7, "level": 7, "words": 3, "dim": 0}
    assert report.low == {"faces": 0, "level": 0, "words": 4, "dim": 7}
    assert "words: dropped 4 labels below the confidence" in str(report) and not report.faults
    assert label(data, entries).low == report.low
    sample = Shards(data, entries).raw(1)
    assert [item["box"][0] for item in sample["faces"]] == pytest.approx([0, 0.1])
    light = sample["rgb"].mean(-1) / 255
    np.testing.assert_array_equal(np.isnan(sample["level"]), light.astype(np.float32) < 0.5)


def test_a_confidence_that_the_teacher_does_not_tell(data: Path) -> None:
    with pytest.raises(MaskweaveError, match="'words': derive.confidence is set, but its teacher does not tell"):
        label(data, catalog(words={**TEXT, **by("shape_in_words", confidence={"drop_below": 0.5})}))
    with pytest.raises(MaskweaveError, match="values of type 'text' have none here"):
        catalog(words={**TEXT, **by("unsure_of_tall", confidence={"unknown_below": 0.5})})
    with pytest.raises(MaskweaveError, match="drop_below must be above 0 and at most 1, found 3"):
        catalog(words={**TEXT, **by("unsure_of_tall", confidence={"drop_below": 3})})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "python: own_teachers:nothing"}, "module own_teachers has no function or class nothing"),
        ({"model": "python: nowhere:function"}, "module nowhere cannot be imported"),
        ({"model": "python: own_teachers"}, "expected python: package.module:function"),
        ({"options": {"scales": 3}}, "cannot be called with derive.options .*'scales'"),
        ({"model": "python: own_teachers:too_few"}, "returned 1 labels for 3 samples"),
        (
            {"model": "models/none", "task": "painting"},
            "unknown derive.task 'painting'; expected one of depth-estimation",
        ),
    ],
)
def test_teachers_that_cannot_be_opened(data: Path, change: dict[str, Any], message: str) -> None:
    entry = {**LEVEL, **by("brightness")}
    with pytest.raises(MaskweaveError, match=message):
        label(data, catalog(level={**entry, "derive": {**entry["derive"], **change}}))


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        ({"by": "teacher", "task": "x"}, "'derive': the key 'model' is missing"),
        ({"by": "teacher", "model": "a/b"}, "'derive': the key 'task' is missing"),
        ({"by": "teacher", "model": "a/b", "task": "x", "batch_size": 0}, "batch_size must be 1 to 4096"),
        (
            {"by": "teacher", "model": "a/b", "task": "x", "boxes": "det"},
            "derive.also reads 'det', which is not a modality",
        ),
        ({"by": "agreement"}, "with is ''; expected another modality"),
        ({"by": "normals", "field_of_view": 0}, "field_of_view must be 1 to 170"),
        ({"by": "canny", "model": "a/b"}, "unknown key 'derive.model'"),
    ],
)
def test_settings_that_make_no_sense(derive: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskweaveError, match=message):
        catalog(level={**LEVEL, "derive": {"from": "rgb", **derive}})


def test_code_of_a_catalog_does_not_run_unless_it_is_allowed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKWEAVE_ALLOW_CODE", raising=False)
    with pytest.raises(
        MaskweaveError, match="its teacher is code, python: own_teachers:brightness, which runs only if you allow"
    ):
        derive.label(data, catalog(level={**LEVEL, **by("brightness")}))
    assert own_teachers.BATCHES == []
    monkeypatch.setenv("MASKWEAVE_ALLOW_CODE", "1")
    assert derive.label(data, catalog(level={**LEVEL, **by("brightness")})).labels == {"level": 7}


def test_only_some_labels_and_what_is_missing_for_others(data: Path) -> None:
    entries = catalog(
        level={**LEVEL, **by("brightness")},
        words={**TEXT, **by("shape_in_words")},
        notes={**TEXT},
        more={**TEXT, **by("letters", "notes")},
    )
    report = label(data, entries, only=["words"])
    assert report.labels == {"words": 7} and own_teachers.BATCHES == []
    report = label(data, entries)
    assert report.labels == {"words": 7, "level": 7} and "more: skipped, the data set has no 'notes'" in str(report)
    with pytest.raises(MaskweaveError, match="'notes' has no 'derive'"):
        label(data, entries, only=["notes"])


@pytest.mark.parametrize("command", [["label"], ["data", "label"]])
def test_the_command(data: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = data.parent / "mine.yaml"
    write_yaml(path, content(words={**TEXT, **by("shape_in_words")}, level={**LEVEL, **by("brightness")}))
    words = [*command, str(data), "--catalog", str(path), "--only", "words", "--device", "cpu"]
    assert main(words) == 1 and "MASKWEAVE_ALLOW_CODE=1" in capsys.readouterr().err
    assert main([*words, "--allow-code", "--part", "0/2"]) == 0
    assert "words 4" in (first := capsys.readouterr().out) and "1 of 3 shards are left to other parts" in first
    assert main([*words, "--allow-code", "--part", "1/2"]) == 0
    assert "words 7" in capsys.readouterr().out and not (data / "level").exists()


def test_parts_of_a_chain_make_the_whole(data: Path, tmp_path: Path) -> None:
    letters = {"kind": "vectors", "max_tokens": 8, "value": {"type": "vectors", "channels": 2}}
    entries = catalog(
        words={**TEXT, **by("unsure_of_tall", confidence={"drop_below": 0.5})}, t5={**letters, **by("letters", "words")}
    )

    def job(folder: Path, part: JobPart) -> LabelReport:
        if not folder.exists():
            shutil.copytree(data, folder)
        return label(folder, entries, part=part)

    last = check_parts(job, tmp_path)
    assert last.labels == {"words": 3, "t5": 3} and last.low == {"words": 4, "t5": 0} and not last.unfinished
