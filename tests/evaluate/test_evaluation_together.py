"""Two processes that share an evaluation, a report and probes get what one process gets."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskweave import ranks
from maskweave.evaluate import run as evaluation
from maskweave.evaluate.report import make_report
from maskweave.evaluate.run import evaluate, write_rows
from maskweave.files import read_json, write_json
from maskweave.generate.bundle import load
from maskweave.modality.catalogs import load_catalog
from maskweave.report.clips import ClipRow, ClipTable, packed, unpacked
from maskweave.training import gathering
from maskweave.training.distributed import connect
from maskweave.training.gathering import Gathered, gather
from maskweave.training.processes import run_together
from maskweave.transfer.data import Parts, open_examples
from maskweave.transfer.probe import probe
from maskweave.transfer.recipe import TransferData
from maskweave.values.playable import Playable


def evaluated(run: Path) -> None:
    """The body of each process: all that is computed of a run. Chunks are small, so that each process has several."""
    evaluation.CHUNK = 1
    bundle = load(run)
    sums, mine = evaluation._sums, list[str]()

    def noting(*given: Any) -> Any:
        mine.extend(map(str, given[5]))
        return sums(*given)

    evaluation._sums = noting
    try:
        rows = evaluate(bundle, run, samples=3)
    finally:
        evaluation._sums = sums
    write_json(run / f"jobs-{ranks.rank()}.json", mine)
    assert bool(rows) == (ranks.rank() == 0)
    make_report(run)
    numbers = probe(bundle.encoder(["rgb"]), counted("object_count"), 0, True, batch_size=4)
    labels = probe(bundle.encoder(["rgb"]), counted("object_count"), 0, batch_size=16)
    if ranks.rank() == 0:
        write_rows(numbers + labels, run / "probe.json")


def counted(label: str) -> Parts:
    data = TransferData(source="scenes", samples=21, validation=9, seed=0)
    return open_examples(data, load_catalog("scenes"), ["rgb"], "metadata", label)


@pytest.fixture(scope="module")
def folders(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shared")
    found = {name: Path(shutil.copytree(tiny_run, root / name)) for name in ("one", "two")}
    evaluated(found["one"])
    run_together(2, evaluated, found["two"])
    return found


@pytest.mark.parametrize("file", ["evaluation.json", "probe.json"])
def test_scores_are_those_of_one_process_bit_for_bit(folders: dict[str, Path], file: str) -> None:
    one, two = (json.loads((folders[name] / file).read_text(encoding="utf-8")) for name in ("one", "two"))
    assert one == two and len(one) > 1


def test_each_process_scores_its_share(folders: dict[str, Path]) -> None:
    """Which changes no score, only the time."""
    whole, *shares = (read_json(folders[name] / f"jobs-{r}.json") for name, r in (("one", 0), ("two", 0), ("two", 1)))
    assert sorted(shares[0] + shares[1]) == sorted(whole) and abs(len(shares[0]) - len(shares[1])) <= 1 < len(whole)


def test_sheets_are_those_of_one_process(folders: dict[str, Path]) -> None:
    names = [sorted(p.name for p in (folders[name] / "sheets").iterdir()) for name in ("one", "two")]
    assert names[0] == names[1] and names[0]
    for name in names[0]:
        one, two = (np.asarray(Image.open(folders[who] / "sheets" / name)) for who in ("one", "two"))
        assert np.array_equal(one, two)
    pages = [(folders[name] / "report.html").read_text(encoding="utf-8").replace(name, "") for name in ("one", "two")]
    assert pages[0].count("<img") == pages[1].count("<img") > 0


def test_one_process_gathers_without_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "connect", lambda device: pytest.fail("joined a group"))
    tensors = {"a": torch.ones(2, requires_grad=True)}
    [found] = gather("cpu", {"x": 1}, tensors)
    assert found.facts == {"x": 1} and torch.equal(found.tensors["a"], torch.ones(2))


def exchanged(folder: Path) -> None:
    rank = ranks.rank()
    tensors = {"a": torch.full((rank + 1, 2), rank / 3), "none": torch.zeros(0, 3)}
    found = gather("cpu", {"rank": rank, "third": rank / 3}, tensors)
    given = {"weight": torch.full((2,), float(rank)), "flag": torch.tensor(rank == 0)}
    connect("cpu").broadcast(given.values())
    assert given["weight"].tolist() == [0, 0] and bool(given["flag"])
    if rank:
        assert found == []
        return
    assert [one.facts for one in found] == [{"rank": r, "third": r / 3} for r in range(2)]
    for r, one in enumerate(found):
        assert torch.equal(one.tensors["a"], torch.full((r + 1, 2), r / 3))
        assert one.tensors["none"].shape == (0, 3) and one.tensors["none"].dtype == torch.float32
    (folder / "done").touch()


def test_facts_and_tensors_reach_the_first_process(tmp_path: Path) -> None:
    run_together(2, exchanged, tmp_path)
    assert (tmp_path / "done").exists()
    alone = gather("cpu", [1], {"x": torch.ones(1)})
    assert alone == [Gathered([1], {"x": torch.ones(1)})]


def test_clips_survive_json() -> None:
    table = ClipTable("t", [ClipRow([("sound", Playable("audio/wav", b"\0\xff"))]), ClipRow([])])
    assert unpacked(json.loads(json.dumps(packed(table)))) == table and packed(None) is None
