"""The sections of `benchmarks/gpu.py` but those of training speed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from generation import CAPTION, NO_WORDS, catalog, ours
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_parts.bench import Bench, NotHere, batches, objective
from gpu_parts.training import stepper, train, update
from maskweave.generate.engine import Engine
from maskweave.generate.sampling import gumbel
from maskweave.generate.schedule import make_schedule
from maskweave.modality.decoding import Decoding
from maskweave.modality.entry import Modality
from maskweave.modality.tokenizer import Quantizer, TokenizerSpec
from maskweave.models.fourm import FourM, FourMConfig
from maskweave.nn import linear_cross_entropy
from maskweave.tokenizers.grid import GridTokenizer
from maskweave.training.distributed import DistContext
from maskweave.training.metrics import read_metrics
from maskweave.training.settings import TrainSettings
from maskweave.values.image import Image

CPU = torch.device("cpu")


# Equality with the CPU.


def equality(bench: Bench) -> None:
    size, entries = "nano" if bench.quick else "Ti", catalog()
    drawn = batches(entries, 4, 32 if bench.quick else 128, 3)
    plain = batches(entries, 4, 32 if bench.quick else 128, 1, static=False)[0]
    reference = objective(entries, CPU, size)
    weights = reference.state_dict()

    def there(precision: str = "float32", batch: Any = drawn[0], large: int = linear_cross_entropy.LARGE) -> Any:
        """Loss and gradient on the device, of the same weights."""
        one = objective(entries, bench.device, size)
        one.load_state_dict(weights)
        before, linear_cross_entropy.LARGE = linear_cross_entropy.LARGE, large
        try:
            with torch.autocast(bench.device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss, _ = one(batch.to(bench.device))
            loss.backward()
        finally:
            linear_cross_entropy.LARGE = before
        return loss.item(), gradient(one)

    def gradient(one: Any) -> Tensor:
        return torch.cat([p.grad.flatten().float().cpu() for p in one.parameters() if p.grad is not None])

    loss, _ = reference(drawn[0])
    loss.backward()
    expected, right = loss.item(), gradient(reference)

    def compare(name: str, bounds: tuple[float, float], **how: Any) -> None:
        found, grad = there(**how)
        bench.check(f"{name}, loss", abs(found - expected) / expected, bounds[0])
        bench.check(f"{name}, gradient", float((grad - right).norm() / right.norm()), bounds[1])

    bench.case("float32", partial(compare, "float32", (1e-4, 1e-3)))
    bench.case("without padding", partial(compare, "float32, without padding", (1e-4, 1e-3), batch=plain))
    bench.case("fused losses", partial(compare, "float32, losses by chunks", (1e-4, 1e-3), large=0))
    bench.case("bf16", partial(compare, "bf16", (2e-2, 1e-1), precision="bf16"))
    for name in ("adamw", "muon"):
        bench.case(f"steps, {name}", partial(steps_alike, bench, size, drawn, weights, name))
    bench.case("waits", partial(without_waiting, bench, size, drawn))
    tokens_alike(bench, size)


def steps_alike(bench: Bench, size: str, drawn: list[Any], weights: Any, optimizer: Any) -> None:
    """Three updates in float32; the change of the weights is compared with that on the CPU."""
    settings = TrainSettings(optimizer=optimizer, learning_rate=1e-3, warmup=0.0)
    changes = []
    for device in (CPU, bench.device):
        one = objective(catalog(), device, size)
        one.load_state_dict(weights)
        step = stepper(one, settings, DistContext(0, 1, device), drawn)
        for batch in drawn:
            step(update(one, batch, device))
        step.check()
        changes.append(torch.cat([(p.cpu() - weights[n]).flatten() for n, p in one.named_parameters()]))
    # AdamW's first steps divide gradients by their own size, also where they are rounding errors.
    bench.check(f"three steps of {optimizer}", float((changes[1] - changes[0]).norm() / changes[0].norm()), 0.1)


def without_waiting(bench: Bench, size: str, drawn: list[Any]) -> dict[str, Any]:
    """A training step in which any wait for the GPU is an error."""
    if bench.device.type != "cuda":
        raise NotHere("only on a GPU")
    one = objective(catalog(), bench.device, size)
    step = stepper(one, TrainSettings(precision="bf16"), DistContext(0, 1, bench.device), drawn)
    updates = [update(one, batch, bench.device) for batch in drawn]
    step(updates[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(updates[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"ok": True}


def tokens_alike(bench: Bench, size: str) -> None:
    """Greedy tokens in float32. Where two are about equally likely, rounding decides, and what follows differs."""
    entries, samples = catalog(), 2 if bench.quick else 8
    engines = [Engine(generator(d, size), entries) for d in (CPU, bench.device)]
    for name, target, how in schedules(temperature=0.0, quick=bench.quick):
        schedule = make_schedule(entries, ["rgb"], [target], decoding={target: how})

        def differing(name: str = name, schedule: Any = schedule) -> None:
            one, other = (ours(engine, schedule, samples) for engine in engines)
            bench.check(f"tokens of {name}, share that differs", float((one != other).mean()), 0.1)

        bench.case(name, differing)


# Generation.


def generator(device: torch.device, size: str) -> FourM:
    torch.manual_seed(0)
    model = FourM(catalog(), FourMConfig(size=size)).eval()
    with torch.no_grad():
        model.heads["text"].weight[:NO_WORDS] = 0  # captions never end
    return model.to(device)


def schedules(temperature: float, quick: bool) -> list[tuple[str, str, Decoding]]:
    roar = Decoding("roar", steps=4 if quick else 25, temperature=temperature)
    return [
        # Special tokens have logits of 0, so that the likeliest hundred have none, and captions never end.
        (f"caption of {CAPTION} tokens", "caption", Decoding(temperature=temperature, top_k=100 if temperature else 0)),
        (f"ROAR, {roar.steps} steps", "depth", roar),
        ("MaskGIT, 8 steps", "depth", Decoding("maskgit", steps=2 if quick else 8, temperature=temperature)),
    ]


def generation(bench: Bench) -> None:
    entries, size = catalog(), "nano" if bench.quick else "B"
    model = generator(bench.device, size)
    engine, on_gpu = Engine(model, entries, "bf16"), bench.device.type == "cuda"

    def speed(engine: Engine, target: str, how: Decoding, samples: int) -> dict[str, Any]:
        schedule = make_schedule(entries, ["rgb"], [target], decoding={target: how})
        taken = bench.seconds(lambda: ours(engine, schedule, samples), most=1.0, fewest=1)
        return {"ms": taken * 1e3, "per_second": samples / taken, "peak_gib": bench.peak_gib()}

    engines = {"": engine} | ({", compiled": Engine(model, entries, "bf16", compiled=True)} if on_gpu else {})
    for samples in (1, 2) if bench.quick else (64, 1, 8):
        for how_run, one in engines.items():
            for name, target, how in schedules(1.0, bench.quick):
                bench.case(f"{name}, {samples}{how_run}", partial(speed, one, target, how, samples), 3.0)


# Resuming.


class Deadly:
    """Batches, of which one kills the process when it is first drawn."""

    def __init__(self, drawn: list[Any], killer: Path):
        self.drawn, self.killer = drawn, killer

    def __getitem__(self, i: int) -> Any:
        if i == 5 and not self.killer.exists():
            self.killer.touch()
            os.kill(os.getpid(), 9)
        return self.drawn[i % len(self.drawn)]


def fit_there(folder: Path, device: str, dies: bool) -> None:
    """Body of a process of `resume`."""
    from maskweave.training.loop import fit

    torch.manual_seed(0)
    if device == "cpu":
        torch.set_num_threads(1)
    entries = catalog()
    settings: Any = {"device": device, "precision": "bf16", "steps": 8, "checkpoint_every": 2, "log_every": 1}
    killer = folder / "killed"
    if not dies:
        folder.mkdir(parents=True, exist_ok=True)
        killer.touch()
    one = objective(entries, torch.device(device), "nano")
    fit(one, Deadly(batches(entries, 4, 32, 8), killer), TrainSettings(**settings), folder / "run")


def resume(bench: Bench) -> None:
    def run(folder: Path, dies: bool) -> int:
        folder.mkdir(exist_ok=True)
        script = f"from pathlib import Path; from gpu_parts.sections import fit_there; fit_there(Path({str(folder)!r}), {bench.device.type!r}, {dies})"
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        return subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}).returncode

    def losses(folder: Path) -> list[float]:
        return [line["loss"] for line in read_metrics(folder / "run") if line["split"] == "train"]

    def work() -> None:
        with tempfile.TemporaryDirectory() as place:
            whole, killed = Path(place) / "whole", Path(place) / "killed"
            codes = [run(whole, False), run(killed, True), run(killed, True)]
            if codes != [0, -9, 0]:
                raise RuntimeError(f"exit codes {codes}, expected 0, -9 and 0")
            one, other = losses(whole), losses(killed)
            worst = max(abs(a - b) / a for a, b in zip(one, other, strict=True))
            # Sums of gradients on a GPU come in any order.
            bench.check("losses after a kill and resuming", worst, 0.0 if bench.device.type == "cpu" else 1e-3)

    bench.case("resume", work)


# Tokenizing, noise, attention.


def tokenizing(bench: Bench) -> None:
    width, depth, count = (64, 1, 4) if bench.quick else (768, 12, 512)
    quantizer = Quantizer("vq", codes=16384, dim=32)
    spec = TokenizerSpec(width=width, heads=width // 64, depth=depth, decoder_depth=1, quantizer=quantizer)
    picture = Image((224, 224), 3)
    tokenizer = GridTokenizer(Modality("picture", 1, "grid", picture, grid=(14, 14), tokenizer=spec)).eval()
    tokenizer.to(bench.device)
    values = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)

    def speed(halved: bool, whole: bool) -> dict[str, Any]:
        x = picture.to_network(picture.check_batch(list(values[: tokenizer.batch]), "picture")).to(bench.device)

        def work() -> object:
            with torch.autocast(bench.device.type, torch.bfloat16, enabled=halved), torch.inference_mode():
                return tokenizer.encode(values) if whole else tokenizer.encode_tensor(x)

        return {"pictures_per_second": (count if whole else len(x)) / bench.seconds(work, fewest=1)}

    for halved in (False, True):
        precision = "bf16" if halved else "float32"
        bench.case(f"{precision}, network", partial(speed, halved, False))
        bench.case(f"{precision}, with preparation on the host", partial(speed, halved, True))


def noise(bench: Bench) -> None:
    samples, vocabulary = (2, 512) if bench.quick else (64, 8192)
    counts = np.full(samples, 196)

    def speed(device: torch.device) -> dict[str, Any]:
        generators = [np.random.default_rng(i) for i in range(samples)]
        return {"ms": 1e3 * bench.seconds(lambda: gumbel(counts, vocabulary, generators, device), 2.0, 1)}

    bench.case("on the device", partial(speed, bench.device))
    if bench.device.type == "cuda":
        bench.case("on the host", partial(speed, CPU))


def attention(bench: Bench) -> None:
    """Forward and backward passes of size B: attention to inputs, of which a sixth is padding, and of 256 targets to those of their modality."""
    B, H, M, d = (2, 2, 32, 16) if bench.quick else (128, 12, 256, 64)
    rng = torch.Generator().manual_seed(0)
    segment = torch.randint(0, 12, (B, M), generator=rng).sort(dim=1).values.to(bench.device)
    same = (segment[:, :, None] == segment[:, None])[:, None]
    length = torch.randint(M * 2 // 3, M + 1, (B,), generator=rng).to(bench.device)
    there = torch.arange(M, device=bench.device) < length[:, None]

    def speed(function: Callable[..., Tensor], backward: bool = True) -> dict[str, Any]:
        q, k, v = (
            torch.randn(B, H, M, d, dtype=torch.bfloat16, device=bench.device, requires_grad=backward) for _ in range(3)
        )

        def work() -> None:
            found = function(q, k, v)
            if backward:
                found.backward(found.detach())

        return {"us": 1e6 * bench.seconds(work, 0.5), "backward": backward}

    bench.case("no mask", partial(speed, F.scaled_dot_product_attention))
    for name, mask in (("padding", there[:, None, None]), ("modalities", same)):
        bench.case(f"dense mask, {name}", partial(speed, partial(F.scaled_dot_product_attention, attn_mask=mask)))
        bench.case(f"dense mask, {name}, efficient kernel", partial(speed, partial(efficient, mask)))
    bench.case("padding as a channel of the keys", partial(speed, partial(by_channel, there)))
    bench.case("packed, varlen_attn", lambda: speed(packed(there, length)))
    on_gpu = bench.device.type == "cuda"
    for name, keep in (
        ("padding", lambda b, h, i, j: there[b, j]),
        ("modalities", lambda b, h, i, j: segment[b, i] == segment[b, j]),
    ):
        bench.case(f"FlexAttention, {name}", lambda keep=keep: speed(flex(bench, keep, B, M), backward=on_gpu), 12.0)


def efficient(mask: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def by_channel(there: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A further channel is 1 in the queries and large and negative in the keys of padding, so that kernels without masks can be used."""
    B, H, M, d = q.shape
    masked = (there.to(q.dtype) - 1)[:, None, :, None].expand(B, H, M, 1) * 1e4
    q = torch.cat([q, q.new_ones(B, H, M, 1), q.new_zeros(B, H, M, 7)], dim=-1)
    k = torch.cat([k, masked, k.new_zeros(B, H, M, 7)], dim=-1)
    return F.scaled_dot_product_attention(q, k, F.pad(v, (0, 8)), scale=d**-0.5)[..., :d]


def flex(bench: Bench, keep: Callable[..., Tensor], B: int, M: int) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    block_mask = create_block_mask(keep, B, None, M, M, device=str(bench.device))
    function = flex_attention if bench.device.type == "cpu" else torch.compile(flex_attention, dynamic=False)
    return partial(function, block_mask=block_mask)


def packed(there: Tensor, length: Tensor) -> Callable[..., Tensor]:
    """Attention of the tokens without padding; the packing itself is not part of it, as a model would pack its tokens once."""
    if there.device.type != "cuda":
        raise NotHere("only on a GPU")
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        raise NotHere("not in this version of torch") from None
    starts = F.pad(length.cumsum(0), (1, 0)).int()
    longest, total = int(length.max()), int(length.sum())

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = [t.transpose(1, 2).flatten(0, 1)[:total] for t in (q, k, v)]
        return varlen_attn(*rows, starts, starts, longest, longest)

    return function


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "equality": equality, "generation": generation, "resume": resume, "tokenizing": tokenizing, "noise": noise, "attention": attention,
    **{f"train-{size}": train for size in ("Ti", "B", "L", "XL")},
}  # fmt: skip
