"""What the doctor finds, on machines that are made up, and what it advises."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import types
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from maskweave import doctor
from maskweave.cli.main import main
from maskweave.doctor import Diagnosis, describe

Usage = namedtuple("Usage", "total used free")


def found(check: Callable[[], Iterator[Diagnosis]]) -> dict[str, Diagnosis]:
    return {one.subject: one for one in check()}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Installed packages and their versions, to be changed; what maskweave needs is fixed."""
    installed = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "fsspec": "2026.9.0"}
    needs = {
        "maskweave": [
            "torch>=2.11",
            "numpy>=2.0",
            'fsspec[http]>=2025; extra == "http"',
            'ruff; extra == "dev"',
            'faiss-cpu>=1.10; extra == "retrieval"',
        ],
        "fsspec": ["aiohttp!=4.0; extra == 'http'", "s3fs; extra == 's3'"],
    }

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs.get(name))
    monkeypatch.setattr(doctor, "_extra_names", lambda: ["http", "retrieval"])
    return installed


def test_packages(packages: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(doctor.versions)["numpy"] == Diagnosis("numpy", "2.4.6")
    packages["numpy"] = "1.26.4"
    del packages["torch"]
    assert found(doctor.versions)["numpy"] == Diagnosis(
        "numpy", "1.26.4, but >=2.0 is needed", "pip install --upgrade 'numpy>=2.0'"
    )
    assert found(doctor.versions)["torch"] == Diagnosis("torch", "missing", "pip install 'torch>=2.11'")
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: None)
    assert "not installed" in found(doctor.versions)["packages"].fact


def test_extras(packages: dict[str, str]) -> None:
    assert found(doctor.extras) == {
        "[http]": Diagnosis(
            "[http]", "fsspec 2026.9.0, aiohttp missing", "for this extra: pip install 'maskweave[http]'"
        ),
        "[retrieval]": Diagnosis(
            "[retrieval]", "faiss-cpu missing", "for this extra: pip install 'maskweave[retrieval]'"
        ),
    }
    packages["aiohttp"] = "3.14"
    assert found(doctor.extras)["[http]"].advice == ""


def test_a_torchvision_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')", encoding="utf-8"
    )
    (one,) = doctor.torchvision()
    assert "torchvision::nms does not exist" in one.fact and "remove it" in one.advice


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert found(doctor.gpus)["gpu"] == Diagnosis("gpu", "none; commands use the CPU")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert found(doctor.gpus)["gpu"].advice == "install a build of torch for CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert found(doctor.gpus)["gpu"].advice == "check the driver with nvidia-smi"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (10**9 * (number + 1), 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "H100")
    assert [one.fact for one in doctor.gpus()] == ["H100, 1 of 80 GB free", "H100, 2 of 80 GB free"]


def test_caches_and_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "cache"))
    assert found(doctor.caches)["data cache"].fact.startswith(f"{tmp_path / 'cache'}: 0.0 of at most 100 GB")
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path / "file" / "cache"))
    assert found(doctor.caches)["data cache"].advice == "set MASKWEAVE_CACHE to a folder that can be written"
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 * 10**6, 0, 64 * 10**6))
    assert found(doctor.disks)["disk"].advice == "free some space"
    assert (
        found(doctor.disks)["shared memory"].fact == "0.1 GB"
        and "--shm-size" in found(doctor.disks)["shared memory"].advice
    )


@pytest.mark.parametrize(
    ("free", "total", "few", "little"),
    [
        (5 * 10**9, 5 * 10**8, False, False),
        (5 * 10**9 - 1, 5 * 10**8, True, False),
        (5 * 10**9, 5 * 10**8 - 1, False, True),
    ],
)
def test_how_much_space_is_enough(
    free: int, total: int, few: bool, little: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 GB for runs, and 0.5 GB of shared memory."""
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total, 0, free))
    advice = found(doctor.disks)
    assert (bool(advice["disk"].advice), bool(advice["shared memory"].advice)) == (few, little)


def test_what_to_do_comes_last() -> None:
    text = describe(
        [Diagnosis("a", "1"), Diagnosis("long", "2", "do it"), Diagnosis("[x]", "3", "for this extra: get it")]
    )
    assert text.splitlines() == [
        "a     1", "long  2", "[x]   3", "", "To do:", "- long: do it", "", "Optional:", "- [x] for this extra: get it",
    ]  # fmt: skip
    assert describe([Diagnosis("a", "1")]) == "a  1\n\nNothing is wrong."


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    subjects = {line.split("  ")[0] for line in lines if line}
    assert {"maskweave", "python", "cpu", "kernels", "speed", "data cache", "hub cache", "disk"} <= subjects


def test_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(doctor.cpu, "KERNELS", doctor.cpu.CpuKernels())
    monkeypatch.setattr(doctor.cpu, "has_bf16_instructions", lambda processor: True)
    monkeypatch.setattr(doctor.cpu, "this_processor", lambda: types.SimpleNamespace(vendor=""))
    monkeypatch.setattr(doctor, "peak_flops", lambda device, name, shape: {"float32": 2e11, "bf16": 5e11}[name])
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4000, "SC_PHYS_PAGES": 16 * 10**6}.__getitem__)
    monkeypatch.delenv(doctor.cpu.SWITCH, raising=False)
    assert [*doctor.processors()] == [
        Diagnosis("cpu", "x86_64, 3 of 8 cores, 2 threads"),
        Diagnosis("kernels", "unknown vendor: plain torch"),
        Diagnosis("speed", "200 GFLOP/s in float32, 500 in bf16; precision: auto trains in bf16"),
        Diagnosis("memory", "64 GB"),
    ]
    monkeypatch.setattr(platform, "processor", lambda: "EPYC")
    monkeypatch.setenv(doctor.cpu.SWITCH, "plain")
    monkeypatch.setattr(doctor.cpu, "this_processor", lambda: types.SimpleNamespace(vendor="AMD"))
    monkeypatch.setattr(doctor.cpu, "has_bf16_instructions", lambda processor: False)
    names = [field.name for field in dataclasses.fields(doctor.cpu.CpuKernels)]
    monkeypatch.setattr(doctor.cpu, "KERNELS", doctor.cpu.CpuKernels(**{names[0]: True}))
    monkeypatch.setattr(os, "sysconf", {}.__getitem__)
    monkeypatch.setattr(doctor, "_memory", lambda: None)
    first, kernels, speed = doctor.processors()
    assert first.fact.startswith("EPYC, 3") and speed.fact.endswith("precision: auto trains in float32")
    assert kernels.fact == f"AMD: {names[0]} ({doctor.cpu.SWITCH}=plain)"


def test_memory_and_cores_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    assert doctor._memory() is None
    monkeypatch.setattr(os, "cpu_count", lambda: 99)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5} if process == 0 else {1})
    assert doctor._usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert doctor._usable_cores() == 99


def test_the_gpu_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [one.subject for one in doctor.gpus()] == ["mps"]


def test_the_caches_of_the_machine_and_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("MASKWEAVE_CACHE", str(tmp_path))
    monkeypatch.setenv("MASKWEAVE_CACHE_GB", "2.5")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/hub")
    found(doctor.caches)
    for name, size in (("a", 12 * 10**8), ("b", 10**8)):
        with open(tmp_path / "files" / name, "wb") as file:
            file.truncate(size)
    for offline, words in ((False, ""), (True, "; HF_HUB_OFFLINE is set: nothing is downloaded")):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert [*doctor.caches()] == [
            Diagnosis("data cache", f"{tmp_path}: 1.3 of at most 2.5 GB (MASKWEAVE_CACHE, MASKWEAVE_CACHE_GB)"),
            Diagnosis("hub cache", f"/hub (HF_HOME){words}"),
        ]


def test_extras_for_users_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = types.SimpleNamespace(get_all=lambda key: ["geo", "dev", "all", "av"])
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    assert doctor._extra_names() == ["geo", "av"]
    metadata.get_all = lambda key: None
    assert doctor._extra_names() == []


def test_a_torchvision_that_fits_or_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [*doctor.torchvision()] == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: object())
    assert [*doctor.torchvision()] == []
    monkeypatch.setattr(importlib, "import_module", lambda name: (_ for _ in ()).throw(OSError("no\n" + "x" * 200)))
    (one,) = doctor.torchvision()
    assert one.fact == f"cannot be imported (no {'x' * 117})"
