"""What this machine and this installation offer, and what to do about what is missing or slow."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement

import maskweave
from maskweave.data.cache import FOLDER_SETTING, SIZE_SETTING, Cache
from maskweave.errors import MaskweaveError
from maskweave.nn import cpu
from maskweave.training.hardware import peak_flops

LEAST_DISK_GB, LEAST_SHARED_GB = 5.0, 0.5
PRODUCT = (1024, 1024, 1024)
"""Shape of the matrix product that is measured."""
SHARED_MEMORY = Path("/dev/shm")


class Diagnosis(NamedTuple):
    """One fact, and what to do about it; empty if nothing."""

    subject: str
    fact: str
    advice: str = ""


def examine() -> Iterator[Diagnosis]:
    """Yields the diagnoses of all checks, in order. Nothing is written but one temporary file in the cache."""
    for check in CHECKS:
        yield from check()


def versions() -> Iterator[Diagnosis]:
    """Python, this package, and the packages that it needs."""
    yield Diagnosis("maskweave", f"{maskweave.__version__} in {Path(maskweave.__file__).parent}")
    yield Diagnosis("python", f"{platform.python_version()} on {platform.platform()}")
    needed = _requirements()
    if not needed:
        fact = "unknown, because maskweave runs from files that are not installed"
        yield Diagnosis("packages", fact, "pip install -e . in the checkout")
    yield from (_package(requirement) for requirement in needed if requirement.marker is None)


def extras() -> Iterator[Diagnosis]:
    """The optional packages, by extra."""
    groups: dict[str, list[Requirement]] = {}
    for requirement in _requirements():
        if requirement.marker is not None:
            for extra in _extra_names():
                if requirement.marker.evaluate({"extra": extra}):
                    groups.setdefault(extra, []).append(requirement)
    for extra, requirements in groups.items():
        found = [_package(one) for requirement in requirements for one in (requirement, *_own_extras(requirement))]
        missing = [one.subject for one in found if one.advice]
        fact = ", ".join(f"{one.subject} {one.fact}" for one in found)
        yield Diagnosis(f"[{extra}]", fact, f"for this extra: pip install 'maskweave[{extra}]'" if missing else "")


def _extra_names() -> list[str]:
    names = importlib.metadata.metadata("maskweave").get_all("Provides-Extra") or []
    return [name for name in names if name not in ("dev", "all")]


def _requirements() -> list[Requirement]:
    """Returns what the installed package needs; a checkout that is not installed does not say."""
    try:
        return [Requirement(line) for line in importlib.metadata.requires("maskweave") or []]
    except importlib.metadata.PackageNotFoundError:
        return []


def _own_extras(requirement: Requirement) -> list[Requirement]:
    """Returns what the extras of another package need, such as those of `fsspec[http]`."""
    try:
        lines = importlib.metadata.requires(requirement.name) or [] if requirement.extras else []
    except importlib.metadata.PackageNotFoundError:
        return []
    marked = [
        one for one in map(Requirement, lines) if one.marker is not None and not one.marker.evaluate({"extra": ""})
    ]
    return [one for one in marked if any(one.marker and one.marker.evaluate({"extra": e}) for e in requirement.extras)]


def _package(requirement: Requirement) -> Diagnosis:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(requirement.name, "missing", f"pip install '{requirement}'")
    if requirement.specifier.contains(version, prereleases=True):
        return Diagnosis(requirement.name, version)
    return Diagnosis(
        requirement.name, f"{version}, but {requirement.specifier} is needed", f"pip install --upgrade '{requirement}'"
    )


def torchvision() -> Iterator[Diagnosis]:
    """torchvision is not used here, but a build that does not fit torch breaks diffusers, transformers and torchmetrics."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # whatever its build raises
        yield Diagnosis(
            "torchvision",
            f"cannot be imported ({' '.join(str(error).split())[:120]})",
            "it breaks diffusers, transformers and torchmetrics: remove it, or install the build for this torch",
        )


def processors() -> Iterator[Diagnosis]:
    """CPU, threads, speed, kernels, memory."""
    cores = _usable_cores()
    total = os.cpu_count()
    yield Diagnosis(
        "cpu",
        f"{platform.processor() or platform.machine()}, {cores} of {total} cores, {torch.get_num_threads()} threads",
    )
    processor = cpu.this_processor()
    chosen = [name for name, used in asdict(cpu.KERNELS).items() if used]
    setting = f" ({cpu.SWITCH}={os.environ[cpu.SWITCH]})" if os.environ.get(cpu.SWITCH) else ""
    yield Diagnosis("kernels", f"{processor.vendor or 'unknown vendor'}: {', '.join(chosen) or 'plain torch'}{setting}")
    rates = {name: peak_flops(torch.device("cpu"), name, PRODUCT) / 1e9 for name in ("float32", "bf16")}
    best = "bf16" if cpu.has_bf16_instructions(processor) else "float32"
    yield Diagnosis(
        "speed",
        f"{rates['float32']:.0f} GFLOP/s in float32, {rates['bf16']:.0f} in bf16; precision: auto trains in {best}",
    )
    if (total_bytes := _memory()) is not None:
        yield Diagnosis("memory", f"{total_bytes / 1e9:.0f} GB")


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> int | None:
    """Returns the bytes of main memory, or None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def gpus() -> Iterator[Diagnosis]:
    """GPUs that torch can use, and one that it cannot."""
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            yield Diagnosis(
                f"cuda:{number}", f"{torch.cuda.get_device_name(number)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
            )
    elif shutil.which("nvidia-smi"):
        how = "install a build of torch for CUDA" if torch.version.cuda is None else "check the driver with nvidia-smi"
        yield Diagnosis("gpu", f"there is an NVIDIA driver, but torch {torch.__version__} finds no CUDA device", how)
    elif torch.backends.mps.is_available():
        yield Diagnosis("mps", "Apple GPU; used with device: mps (--device mps). Not tested by the maintainers")
    else:
        yield Diagnosis("gpu", "none; commands use the CPU")


def caches() -> Iterator[Diagnosis]:
    """Caches of remote data and of the Hugging Face Hub."""
    from huggingface_hub import constants

    try:
        cache = Cache.of_machine()
        with tempfile.NamedTemporaryFile(dir=cache.folder):
            pass
    except (MaskweaveError, OSError) as error:
        yield Diagnosis("data cache", str(error), f"set {FOLDER_SETTING} to a folder that can be written")
    else:
        used = sum(path.stat().st_size for path in (cache.folder / "files").iterdir())
        yield Diagnosis(
            "data cache",
            f"{cache.folder}: {used / 1e9:.1f} of at most {cache.limit / 1e9:g} GB ({FOLDER_SETTING}, {SIZE_SETTING})",
        )
    offline = "; HF_HUB_OFFLINE is set: nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    yield Diagnosis("hub cache", f"{constants.HF_HUB_CACHE} (HF_HOME){offline}")


def disks() -> Iterator[Diagnosis]:
    """Free space where runs are written, and the shared memory that data workers use."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Diagnosis("disk", f"{free:.0f} GB free in {Path.cwd()}", "free some space" if free < LEAST_DISK_GB else "")
    if SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(SHARED_MEMORY).total / 1e9
        advice = "data.workers may fail; give the container more, such as docker run --shm-size 8g"
        yield Diagnosis("shared memory", f"{shared:.1f} GB", advice if shared < LEAST_SHARED_GB else "")


CHECKS: tuple[Callable[[], Iterator[Diagnosis]], ...] = (versions, extras, torchvision, processors, gpus, caches, disks)


def describe(diagnoses: list[Diagnosis]) -> str:
    """Returns the diagnoses as lines, followed by what to do, the extras last: they are optional."""
    width = max(len(one.subject) for one in diagnoses)
    lines = [f"{one.subject:<{width}}  {one.fact}" for one in diagnoses]
    todo = [f"- {one.subject}: {one.advice}" for one in diagnoses if one.advice and not one.subject.startswith("[")]
    optional = [f"- {one.subject} {one.advice}" for one in diagnoses if one.advice and one.subject.startswith("[")]
    parts = ["\n".join(lines), "\n".join(["To do:", *todo]) if todo else "Nothing is wrong."]
    return "\n\n".join([*parts, "\n".join(["Optional:", *optional])] if optional else parts)
