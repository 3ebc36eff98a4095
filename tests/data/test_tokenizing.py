"""Running tokenizers over a data set: restarts, bad samples, full disks, foreign tokens."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from job_parts import check_parts
from tiny_catalog import tiny

from maskweave.data import tokenizing
from maskweave.data.error_budget import remark_lines
from maskweave.data.parts import read_part
from maskweave.data.pictures import Pictures
from maskweave.data.reading import read
from maskweave.data.token_store import TokenData
from maskweave.data.tokenizing import column_of, tokenize
from maskweave.errors import BadSample, FullDisk, MaskweaveError
from maskweave.files import read_json, read_json_lines
from maskweave.modality.catalogs import Catalog
from maskweave.ranks import ONLY_FINISH, JobPart
from maskweave.tokenizers.base import Tokenizer
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.tokenizers.sequence import SequenceTokenizer
from maskweave.tokenizers.text import TextTokenizer
from maskweave.values.codec import EOS
from maskweave.values.remarks import remark

pytestmark = pytest.mark.usefixtures("to_the_end")

COUNT = 230
SHARD = 50


class Samples:
    """Random samples of the tiny catalog; some lack parts, those in `bad` cannot be read, those in `wild` do not fit, `deadly` kills."""

    names = ("photo", "spectrum", "caption", "facts", "feature")

    def __init__(self, count: int = COUNT, bad=(), wild=(), deadly: int = -1):
        self.count, self.bad, self.wild, self.deadly = count, bad, wild, deadly

    def __len__(self) -> int:
        return self.count

    def key(self, i: int) -> str:
        return f"s{i:04d}"

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if i in self.bad:
            raise BadSample(f"s{i:04d}.png: truncated")
        rng = np.random.default_rng(i)
        sample = {
            "photo": rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
            "spectrum": rng.random(20).astype(np.float32),
            "caption": f"sample {i} of many",
            "facts": {"height": float(rng.random() * 10), "light": 3.0},
            "feature": rng.normal(size=(1 + i % 4, 6)).astype(np.float32),
        }
        if i in self.wild:
            sample["spectrum"][3] = np.inf
        if i % 3 == 1:
            del sample[self.names[i % 5]]
        return sample


def tokenizers(catalog: Catalog, seed: int = 0) -> dict[str, Tokenizer]:
    torch.manual_seed(seed)
    text = TextTokenizer.train(catalog.vocabularies["text"], ["sample 0 1 2 3 4 of many"])
    return {
        name: GridTokenizer(m).eval() if m.kind == "grid" else SequenceTokenizer(m, text)
        for name, m in catalog.items()
        if m.is_target
    }


@pytest.fixture(scope="module")
def made() -> tuple[Catalog, dict[str, Tokenizer]]:
    return tiny(), tokenizers(tiny())


def lists(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((out / "samples").glob("shard-*.json"))}


def leftovers(out: Path) -> list[str]:
    return [str(path) for path in out.rglob(".*")]


def test_the_samples_to_read_are_not_listed(made, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of a billion numbers takes 36 GB."""
    asked: list[Any] = []

    def stop(source: Any, indices: Any, *options: Any) -> Any:
        asked.append(indices)
        raise MaskweaveError("enough")

    monkeypatch.setattr(tokenizing, "read", stop)
    catalog, parts = made
    with pytest.raises(MaskweaveError, match="enough"):
        tokenize(Samples(), catalog, parts, tmp_path, shard_size=SHARD, part=JobPart(1, 2))
    expected = [*range(50, 100), *range(150, 200)]
    assert list(asked[0]) == expected == list(asked[0]) and len(asked[0]) == 100
    assert not isinstance(asked[0], (list, tuple, np.ndarray))


def test_what_is_written_is_what_the_tokenizers_give(made, tmp_path) -> None:
    catalog, parts = made
    source = Samples()
    skips = tokenize(source, catalog, parts, tmp_path, shard_size=SHARD)
    assert skips.summary() == ""
    assert len(lists(tmp_path)) == 5
    data = TokenData(tmp_path, catalog)
    assert len(data) == COUNT
    columns = data.columns(np.arange(COUNT))
    for i in (0, 1, 4, 7, 10, 49, 50, 229):
        sample = source[i]
        assert data.key(i) == source.key(i)
        for name, m in catalog.items():
            column = columns[name]
            assert bool(column.present[i]) == (m.reads in sample)
            if m.reads not in sample:
                continue
            value = sample[m.reads]
            if m.kind == "grid":
                assert column.ids[i].tolist() == parts[name].encode([value])[0].flatten().tolist()
            elif m.kind == "sequence":
                ids = column.ids[i, : column.length[i]].tolist()
                assert ids == parts[name].encode([value])[0]
                assert ids[-1] == EOS
            elif m.kind == "patches":
                expected = [value[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten() for r in range(4) for c in range(4)]
                np.testing.assert_array_equal(column.rows[i], expected)
            else:
                np.testing.assert_allclose(column.rows[i, : column.length[i]], value, atol=2e-3)


def test_workers_give_the_same(made, tmp_path) -> None:
    catalog, parts = made
    tokenize(Samples(60, bad=[7]), catalog, parts, tmp_path / "one", shard_size=SHARD, limit=0.1)
    skips = tokenize(Samples(60, bad=[7]), catalog, parts, tmp_path / "two", shard_size=SHARD, limit=0.1, workers=1)
    assert skips.skipped == [("s0007", "s0007.png: truncated")]
    a, b = (TokenData(tmp_path / name, catalog).columns(np.arange(59)) for name in ("one", "two"))
    for name in catalog:
        for x, y in zip(a[name], b[name], strict=True):
            assert x is y is None or np.array_equal(x, y)


def test_a_killed_job_goes_on_where_it_was(made, tmp_path) -> None:
    catalog, parts = made
    out = tmp_path / "tokens"
    program = (
        "import sys, test_tokenizing as t; from maskweave.data.tokenizing import tokenize; c = t.tiny();"
        f"tokenize(t.Samples(deadly={2 * SHARD + 20}), c, t.tokenizers(c), sys.argv[1], shard_size={SHARD})"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", program, str(out)], env=environment, stderr=subprocess.DEVNULL)
    before = lists(out)
    assert killed.returncode == -signal.SIGKILL and len(before) == 2
    tokens = {p: p.stat().st_mtime_ns for name in before for p in out.glob(f"*/{Path(name).stem}.safetensors")}
    assert len(tokens) == len(before) * len(catalog)
    tokenize(Samples(), catalog, parts, out, shard_size=SHARD)
    assert lists(out).items() >= before.items()
    assert all(p.stat().st_mtime_ns == t for p, t in tokens.items())
    tokenize(Samples(), catalog, parts, tmp_path / "whole", shard_size=SHARD)
    a, b = (TokenData(folder, catalog).columns(np.arange(COUNT)) for folder in (out, tmp_path / "whole"))
    for name in catalog:
        for x, y in zip(a[name], b[name], strict=True):
            assert x is y is None or np.array_equal(x, y)


def test_bad_samples_are_skipped_counted_and_named(made, tmp_path) -> None:
    catalog, parts = made
    source = Samples(bad=[3, 120], wild=[51])
    skips = tokenize(source, catalog, parts, tmp_path, shard_size=SHARD, limit=0.02, bad="sample")
    assert [key for key, _ in skips.skipped] == ["s0003", "s0051", "s0120"]
    assert "skipped 3 of 230 samples" in skips.summary()
    assert "spectrum" in skips.summary() and "NaN" in skips.summary()
    data = TokenData(tmp_path, catalog)
    assert len(data) == COUNT - 3
    keys = [data.key(i) for i in range(len(data))]
    assert keys == [f"s{i:04d}" for i in range(COUNT) if i not in (3, 51, 120)]
    expected = tokenizers(catalog)["caption"].encode(["sample 54 of many"])[0]
    found = data.columns(np.array([keys.index("s0054")]))["caption"]
    assert found.ids[0, : found.length[0]].tolist() == expected, "columns stay aligned with their keys"
    rows = data.columns(np.array([keys.index("s0060")]))["photo"].rows
    assert rows[0, 0].tolist() == source[60]["photo"][:2, :2].flatten().tolist(), (
        "also of what was encoded before the fault was found"
    )
    # Starting again tells of the same samples, though nothing is read, not even the lists.
    kept = {path: path.read_bytes() for path in (tmp_path / "samples").glob("shard-*.json")}
    for path in kept:
        path.write_text("", encoding="utf-8")
    again = tokenize(Samples(bad=range(COUNT)), catalog, parts, tmp_path, shard_size=SHARD, limit=0.02, bad="sample")
    assert again.skipped == skips.skipped and again.seen == COUNT
    for path, content in kept.items():
        path.write_bytes(content)
    assert read_json(tmp_path / "samples" / "shard-00002.json")["skipped"] == 1
    beside = [list(read_json_lines(path)) for path in sorted((tmp_path / "samples").glob("*.skipped.jsonl"))]
    assert [tuple(row) for rows in beside for row in rows] == skips.skipped


def test_a_value_that_does_not_fit_is_dropped_from_its_sample(made, tmp_path) -> None:
    catalog, parts = made
    skips = tokenize(Samples(wild=[51]), catalog, parts, tmp_path, shard_size=SHARD)
    assert not skips.skipped and [(f.key, f.modality) for f in skips.dropped] == [("s0051", "spectrum")]
    assert "dropped 1 values of 1 samples:\n  spectrum: 1 values, s0051: " in skips.summary()
    data = TokenData(tmp_path, catalog)
    columns = data.columns(np.arange(COUNT))
    assert len(data) == COUNT and not columns["spectrum"].present[51] and columns["photo"].present[51]
    whole = tokenize(Samples(), catalog, parts, tmp_path / "whole", shard_size=SHARD)
    assert not whole.faults
    expected = TokenData(tmp_path / "whole", catalog).columns(np.arange(COUNT))["spectrum"].ids
    kept = columns["spectrum"].present
    assert np.array_equal(columns["spectrum"].ids[kept], expected[kept])
    again = tokenize(Samples(bad=range(COUNT)), catalog, parts, tmp_path, shard_size=SHARD)
    assert again.faults == skips.faults and again.seen == COUNT


def test_too_many_bad_samples_stop_the_job_until_they_are_mended(made, tmp_path) -> None:
    catalog, parts = made
    source = Samples(bad=[3, 60, 61])
    for _ in range(2):  # a second start must not pass over them
        with pytest.raises(MaskweaveError, match="3 of .* samples are unusable.*\n.*s0003.png: truncated"):
            tokenize(source, catalog, parts, tmp_path, shard_size=SHARD)
    tokenize(Samples(), catalog, parts, tmp_path, shard_size=SHARD)
    assert len(TokenData(tmp_path, catalog)) == COUNT


@pytest.mark.parametrize("parts", [1, 2])
def test_a_lower_limit_stops_finished_tokens_until_they_are_mended(made, tmp_path, parts) -> None:
    def job(source: Samples, limit: float) -> None:
        for index in range(parts):
            tokenize(source, *made, tmp_path, shard_size=SHARD, limit=limit, part=JobPart(index, parts))

    job(Samples(110, bad=[60, 61]), 0.1)
    with pytest.raises(MaskweaveError, match="2 of 110 samples are unusable"):
        job(Samples(110, bad=[60, 61]), 0.0)
    assert list(lists(tmp_path)) == ["shard-00000.json", "shard-00002.json"]
    job(Samples(110), 0.0)
    assert len(TokenData(tmp_path, made[0])) == 110


@pytest.mark.parametrize("part", [JobPart(0, 3), ONLY_FINISH])
def test_parts_of_finished_tokens_read_only_the_index(made, tmp_path, monkeypatch, part) -> None:
    source = Samples(110, bad=[60])
    first = tokenize(source, *made, tmp_path, shard_size=SHARD)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(tokenizing, "_count", lambda *args: pytest.fail("read a list"))
    again = tokenize(source, *made, tmp_path, shard_size=SHARD, part=part)
    assert again.faults == first.faults and again.seen == first.seen == 110
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "samples" / "shard-00001.json").unlink()  # of another part: the index is not trusted
    monkeypatch.undo()
    if part.count:
        assert tokenize(source, *made, tmp_path, shard_size=SHARD, part=part).seen < 110
    else:
        with pytest.raises(MaskweaveError, match="1 of 3 shards are not finished"):
            tokenize(source, *made, tmp_path, shard_size=SHARD, part=part)


def test_a_last_small_shard_does_not_stop_a_job_that_goes_on(made, tmp_path) -> None:
    catalog, parts = made
    source = Samples(bad=[228])  # 1 of 230, but 1 of 30 in the last shard
    tokenize(source, catalog, parts, tmp_path, shard_size=SHARD)
    (tmp_path / "samples" / "shard-00004.json").unlink()
    assert tokenize(source, catalog, parts, tmp_path, shard_size=SHARD).seen == COUNT


def test_a_full_disk_leaves_nothing_half_written(made, tmp_path, monkeypatch) -> None:
    catalog, parts = made
    original, calls = tokenizing.write_column, []

    def failing(root, name, shard, column):
        calls.append(name)
        if shard == 1 and name == "caption":
            monkeypatch.setattr("maskweave.data.token_store.save_tensors", full)
        original(root, name, shard, column)

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tokenizing, "write_column", failing)
        with pytest.raises(FullDisk, match="no space left while writing .*caption/shard-00001"):
            tokenize(Samples(), catalog, parts, tmp_path, shard_size=SHARD)
    monkeypatch.undo()
    assert list(lists(tmp_path)) == ["shard-00000.json"]
    assert not leftovers(tmp_path)
    assert not (tmp_path / "caption" / "shard-00001.safetensors").exists()
    before = lists(tmp_path)
    tokenize(Samples(), catalog, parts, tmp_path, shard_size=SHARD)
    assert lists(tmp_path).items() >= before.items()
    assert len(TokenData(tmp_path, catalog)) == COUNT


def test_other_tokenizers_do_not_mix_into_the_same_folder(made, tmp_path) -> None:
    catalog, parts = made
    tokenize(Samples(60), catalog, parts, tmp_path, shard_size=SHARD)
    with pytest.raises(
        MaskweaveError, match=r"holds tokens made with other settings \(tokenizers differ\); remove the folder"
    ):
        tokenize(Samples(60), catalog, tokenizers(catalog, seed=1), tmp_path, shard_size=SHARD)
    with pytest.raises(MaskweaveError, match="samples, shard_size differ"):
        tokenize(Samples(70), catalog, parts, tmp_path, shard_size=SHARD + 1)


def test_a_missing_tokenizer_is_named_before_any_work(made, tmp_path) -> None:
    catalog, parts = made
    with pytest.raises(MaskweaveError, match="no tokenizer for spectrum"):
        tokenize(Samples(), catalog, {n: t for n, t in parts.items() if n != "spectrum"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_vectors_that_do_not_fit(made) -> None:
    catalog, _ = made
    for wrong, said in (
        (np.zeros((2, 5)), r"found shape \(2, 5\); expected \(vectors, 6\) with one vector or more"),
        (np.zeros(6), r"found shape \(6,\); expected \(vectors, 6\)"),
        (np.zeros((0, 6)), "with one vector or more"),
        (np.full((1, 6), np.inf), "6 of 6 values NaN or infinite"),
        (np.full((1, 6), True), "values of type bool"),
    ):
        with pytest.raises(BadSample, match=f"^feature: value 1 of the batch: .*{said}"):
            column_of(catalog["feature"], [None, np.ones((1, 6)), wrong], None)
    with pytest.raises(BadSample, match="^feature: found 5 vectors, expected at most max_tokens 4"):
        column_of(catalog["feature"], [np.ones((4, 6)), np.ones((5, 6))], None)
    column = column_of(catalog["feature"], [None, np.ones((4, 6))], None)
    assert column.present.tolist() == [False, True]
    assert column.length.tolist() == [0, 4]


def test_reading_processes_do_not_hear_ctrl_c() -> None:
    class Listening(Samples):
        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"ignore_sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN}

    assert [item.sample["ignore_sigint"] for workers in (0, 1) for item in read(Listening(2), [1], workers)] == [
        False,
        True,
    ]


def test_reading_hands_bad_samples_over() -> None:
    for workers in (0, 1):
        found = list(read(Samples(8, bad=[5]), [6, 5, 0], workers))
        assert [(item.key, item.error) for item in found] == [
            ("s0006", ""),
            ("s0005", "s0005.png: truncated"),
            ("s0000", ""),
        ]
        assert found[1].sample == {}


class Remarked(Samples):
    """Samples whose photos were changed by reading; every third one lacks a part."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        sample = super().__getitem__(i)
        if "photo" in sample:
            read_part("photo", lambda: remark("transparent pictures"))
        return sample


@pytest.mark.parametrize("workers", [0, 1])
def test_what_reading_changed_is_counted_once(made, tmp_path, workers) -> None:
    catalog, parts = made
    source, photos = Remarked(60), sum("photo" in Samples(60)[i] for i in range(60))
    first = tokenize(source, catalog, parts, tmp_path, shard_size=SHARD, workers=workers)
    assert first.remarks == {("photo", "transparent pictures"): photos}
    (tmp_path / "samples" / "shard-00001.json").unlink()
    again = tokenize(source, catalog, parts, tmp_path, shard_size=SHARD, workers=workers)
    assert again.remarks == first.remarks, "those of kept shards are told again"
    assert remark_lines(again.remarks, {}) == [f"photo: transparent pictures: {photos}"]
    assert remark_lines(again.remarks, {"photo": photos}) == [f"photo: transparent pictures: {photos} (all)"]


def test_a_folder_of_pictures_tells_what_it_changed(tmp_path) -> None:
    for i, size in enumerate(((8, 8), (16, 8))):
        PIL.Image.new("RGBA", size, (9, 9, 9, 0)).save(tmp_path / f"{i}.png")
    items = list(read(Pictures(tmp_path, tiny()["photo"]), range(2)))
    transparent = ("photo", "transparent pictures, composited on the background [255, 255, 255]")
    assert items[0].remarks == {transparent: 1}
    assert items[1].remarks == {
        transparent: 1,
        ("photo", "values of other sizes than 8×8, cropped to the center and resized"): 1,
    }


def test_parts_of_tokenizing_make_the_whole(made: tuple[Catalog, dict[str, Tokenizer]], tmp_path: Path) -> None:
    source = Samples(count=130, bad={3}, wild={77})
    last = check_parts(lambda out, part: tokenize(source, *made, out, shard_size=SHARD, limit=0.1, part=part), tmp_path)
    assert last.seen == 130 and len(last.faults) == 2
