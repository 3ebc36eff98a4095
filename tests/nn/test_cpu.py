"""Which kernels are chosen, and that every choice computes the same within rounding, gradients too."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rounding import assert_sums
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.models.lora import add_lora
from maskweave.nn import cpu
from maskweave.nn.cpu import (
    _ONEDNN,
    AMD,
    AMD_WITHOUT_AVX512,
    CHOICES,
    INTEL,
    PLAIN,
    Linear,
    PackedLinear,
    Processor,
    attend,
    can_pack,
    choose_kernels,
    has_bf16_instructions,
    pack_linear_layers,
    read_processor,
    row_multiple,
    this_processor,
    to_cache,
)
from maskweave.nn.layers import Biases, Block

needs_onednn = pytest.mark.skipif(not _ONEDNN, reason="this build of torch is without oneDNN")
BF16 = _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()

AVX2 = "fpu sse2 avx avx2 fma"
AVX512 = f"{AVX2} avx512f avx512dq avx512bw avx512vl"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16 sve\nCPU implementer\t: 0x41\n"


def cpuinfo(vendor: str, flags: str) -> str:
    one = f"vendor_id\t: {vendor}\ncpu family\t: 6\nmodel name\t: CPU: fast\nflags\t\t: {flags}\nbugs\t\t: none\n"
    return f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}\n"


@pytest.fixture(params=CHOICES)
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(cpu, "KERNELS", CHOICES[request.param])
    yield request.param


# The choice.


@pytest.mark.parametrize(
    "flags, expected",
    [("", False), (AVX2, False), (AVX512, False), (f"{AVX512} avx512_bf16", True), (f"{AVX512} amx_bf16", True)],
)
def test_bf16_instructions_are_read_from_the_flags(flags: str, expected: bool) -> None:
    assert has_bf16_instructions(Processor("GenuineIntel", frozenset(flags.split()))) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (cpuinfo("AuthenticAMD", f"{AVX512} avx512_bf16"), AMD),
        (cpuinfo("AuthenticAMD", AVX2), AMD_WITHOUT_AVX512),
        (cpuinfo("GenuineIntel", f"{AVX512} avx512_bf16 amx_bf16 amx_tile amx_int8"), INTEL),
        (cpuinfo("GenuineIntel", f"{AVX512} avx512_bf16"), PLAIN),
        (cpuinfo("GenuineIntel", AVX2), PLAIN),
        (cpuinfo("HygonGenuine", f"{AVX512} avx512_bf16 amx_bf16"), PLAIN),
        (ARM, PLAIN),
        ("", PLAIN),
    ],
    ids=["amd", "amd avx2", "intel amx", "intel avx512", "intel avx2", "another vendor", "arm", "no file"],
)
def test_the_choice_follows_from_vendor_and_instruction_sets(text: str, expected: cpu.CpuKernels) -> None:
    processor = read_processor(text)
    assert choose_kernels(processor) == expected
    assert [choose_kernels(processor, name) for name in CHOICES] == [AMD, INTEL, PLAIN], "the switch overrides it"


def test_cpuinfo_is_read() -> None:
    found = read_processor(cpuinfo("GenuineIntel", "avx2 amx_bf16"))
    assert found == Processor("GenuineIntel", frozenset({"avx2", "amx_bf16"}))
    assert read_processor(ARM) == Processor()
    if Path("/proc/cpuinfo").exists():
        assert this_processor() == read_processor(Path("/proc/cpuinfo").read_text(encoding="utf-8"))


def test_no_cpuinfo_is_an_unknown_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert this_processor() == Processor()


def test_float32_on_intel_is_torchs_own() -> None:
    """oneDNN is slower there, in training and in prediction."""
    assert not (INTEL.onednn_float32 or INTEL.packed_float32 or INTEL.padded_float32)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(
        MaskweaveError, match="MASKWEAVE_CPU_KERNELS is 'AMD', expected auto, amd, intel, plain; correct or unset it"
    ):
        choose_kernels(Processor(), "AMD")


@pytest.mark.parametrize("asked", ["intel", "plain", "amd", "auto", ""])
def test_the_switch_is_read_at_the_start(asked: str) -> None:
    program = (
        "from maskweave.nn import cpu; print([name for name, choice in cpu.CHOICES.items() if choice == cpu.KERNELS])"
    )
    environment = {**os.environ, "MASKWEAVE_CPU_KERNELS": asked}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    expected = choose_kernels(this_processor(), asked or "auto")
    assert found.stdout.strip() == str([name for name, choice in CHOICES.items() if choice == expected])


def test_the_command_tells_of_an_unknown_choice_in_one_line() -> None:
    environment = {**os.environ, "MASKWEAVE_CPU_KERNELS": "fastest"}
    words = [sys.executable, "-m", "maskweave", "recipe", "check", "recipes/demo.yaml"]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert found.returncode == 1 and found.stderr.count("\n") == 1
    assert "MASKWEAVE_CPU_KERNELS is 'fastest'" in found.stderr


# Linear layers.


@pytest.mark.parametrize("bias", [True, False])
def test_linear_predicts_what_torch_does(choice: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(48, 30, bias=bias), torch.randn(4, 5, 48)
    weight, shift = layer.weight.detach().double(), layer.bias.detach().double() if bias else torch.zeros(30).double()
    with torch.no_grad():
        for part in (x, x[:0], x[0], x[0, 0], x.transpose(0, 1)):
            exact, sizes = part.double() @ weight.T + shift, part.double().abs() @ weight.T.abs() + shift.abs()
            assert_sums(layer(part), exact, sizes, 49)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.double()(x.double()).dtype == torch.float64
    layer.float()(x).sum().backward()
    assert_sums(
        layer.weight.grad, x.double().sum((0, 1)).expand(30, -1), x.double().abs().sum((0, 1)).expand(30, -1), 20
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("of_x", [True, False])
@pytest.mark.parametrize("shape", [(6,), (0, 6), (4, 6), (2, 3, 6), (2, 0, 3, 6)])
def test_linear_layers_and_their_gradients_are_exact_within_rounding(
    choice: str, shape, of_x: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer, up = Linear(6, 5, bias=bias), torch.randn(*shape[:-1], 5)
    exact = nn.Linear(6, 5, bias=bias, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    positive = nn.Linear(6, 5, bias=bias, dtype=torch.float64)  # of absolute values, for the sizes of the sums
    positive.load_state_dict({name: t.abs() for name, t in layer.state_dict().items()})
    terms = max(7, up[..., 0].numel())
    for x in (torch.randn(shape), torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])):
        for upstream in (up, up[..., :1].expand(up.shape), torch.ones(()).expand(up.shape)):
            found = []
            for one, given, gradient in (
                (layer, x, upstream),
                (exact, x.double(), upstream.double()),
                (positive, x.double().abs(), upstream.double().abs()),
            ):
                given = given.clone().requires_grad_(of_x)
                one.zero_grad()
                y = one(given)
                y.backward(gradient)
                assert one.weight.grad.is_contiguous()
                found.append([y.detach(), *([given.grad] if of_x else []), *(p.grad for p in one.parameters())])
            for ours, expected, sizes in zip(*found, strict=True):
                assert_sums(ours, expected, sizes, terms)
    layer.weight.requires_grad_(False)
    x = torch.randn(shape).requires_grad_()
    layer(x).sum().backward()
    assert x.grad.shape == x.shape and layer.weight.grad is not None, "a frozen layer still passes gradients on"


@needs_onednn
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_alike_alone_and_among_others(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's promise of the layers that AMD uses; torch's own make none."""
    monkeypatch.setattr(cpu, "KERNELS", AMD)
    torch.manual_seed(0)
    layer, x = Linear(384, 500), torch.randn(20, 384)
    layer = PackedLinear(layer, torch.float32) if packed else layer
    with torch.no_grad():
        together = layer(x)
        assert all(torch.equal(layer(x[:n]), together[:n]) for n in (2, 3, 8, 17))


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_are_the_layers_they_replace(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if dtype == torch.bfloat16 and not BF16:
        pytest.skip("this processor has no bf16 products in oneDNN")
    monkeypatch.setattr(cpu, "KERNELS", AMD)
    torch.manual_seed(0)
    block, x = Block(16, 2, biases=Biases(qkv=False)), torch.randn(3, 5, 16)
    packed = copy.deepcopy(block)
    assert can_pack(packed, dtype)
    pack_linear_layers(packed, dtype)
    assert not any(isinstance(layer, nn.Linear) for layer in packed.modules())
    with torch.inference_mode():
        assert packed(x).shape == x.shape
        for name in ("attention.q", "attention.out", "mlp.fc1", "mlp.fc2"):
            ours, theirs = packed.get_submodule(name), block.get_submodule(name)
            given = torch.randn(3, 5, theirs.in_features)
            rounded, weight = given.to(dtype).double(), theirs.weight.to(dtype).double()
            bias = torch.zeros(()).double() if theirs.bias is None else theirs.bias.to(dtype).double()
            found = ours(given)
            assert found.dtype == dtype
            sizes = rounded.abs() @ weight.T.abs() + bias.abs()
            assert_sums(found, rounded @ weight.T + bias, sizes, theirs.in_features + 1)
        assert packed.mlp.fc1(x[:0]).shape == (0, 5, 64)


@needs_onednn
def test_which_models_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block(16, 2)
    for kernels, expected in ((AMD, [True, BF16]), (INTEL, [False, BF16]), (PLAIN, [False, False])):
        monkeypatch.setattr(cpu, "KERNELS", kernels)
        assert [can_pack(block, dtype) for dtype in (torch.float32, torch.bfloat16)] == expected
    monkeypatch.setattr(cpu, "KERNELS", AMD)
    monkeypatch.setattr(cpu, "PACKED_MOST", 1000)
    assert [can_pack(block, dtype) for dtype in (torch.float32, torch.bfloat16)] == [False, BF16], (
        "a large one not twice"
    )
    monkeypatch.undo()
    monkeypatch.setattr(cpu, "KERNELS", AMD)
    add_lora(block, 2, 1.0)
    assert not can_pack(block, torch.float32), "its layers do more"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_onednn_nothing_is_packed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "KERNELS", AMD)
    monkeypatch.setattr(cpu, "_ONEDNN", False)
    assert not can_pack(Block(16, 2), dtype)
    layer, x = Linear(8, 8), torch.randn(2, 8)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


# Attention.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradients_are_exact_within_rounding(choice: str, masked: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8, dtype=dtype) for _ in range(3))
    mask = torch.rand(2, 1, 7, 7) < 0.5
    mask[..., 0] = True

    def result(q: Tensor, k: Tensor, v: Tensor, attention) -> list[Tensor]:
        given = [t.clone().requires_grad_() for t in (q, k, v)]
        y = attention(*given, mask if masked else None)
        y.backward(torch.ones_like(y))
        return [y.detach(), *(t.grad for t in given)]

    def formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v

    found, exact = result(q, k, v, attend), result(q.double(), k.double(), v.double(), formula)
    for ours, expected in zip(found, exact, strict=True):
        assert ours.dtype == dtype
        # Scores of up to 8 are rounded before exp, which makes that relative; then sums of 7 products of which those of the gradients cancel.
        tolerance = 16 * torch.finfo(dtype).eps * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=tolerance)


def test_caches_are_float32_where_that_is_read_faster(choice: str) -> None:
    t = torch.randn(2, 3, 4).bfloat16().transpose(1, 2)
    cached = to_cache(t)
    assert cached.is_contiguous() and torch.equal(cached.bfloat16(), t)
    assert cached.dtype == (torch.float32 if choice == "amd" else torch.bfloat16)
    assert to_cache(torch.ones(1, dtype=torch.float32)).dtype == torch.float32


# Numbers of rows.


@pytest.mark.parametrize(("name", "expected"), [("amd", [32, 32, 32]), ("intel", [1, 32, 32]), ("plain", [1, 1, 1])])
def test_rows_are_padded_where_onednn_multiplies(
    name: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "KERNELS", CHOICES[name])
    x = torch.randn(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        cast = row_multiple(x, 32)
    assert [row_multiple(x, 32), row_multiple(x.bfloat16(), 32), cast] == expected
    assert row_multiple(x.to("meta"), 32) == 1, "other devices need no padding"


def test_freed_memory_is_kept_by_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def __init__(self, **functions: object):
            self.set: list[tuple[int, int]] = []
            vars(self).update(functions)

        def mallopt(self, number: int, value: int) -> None:
            self.set.append((number, value))

    monkeypatch.setattr(sys, "platform", "linux")
    for libc, expected in ((Libc(gnu_get_libc_version=None), [(-1, 2**31 - 1), (-3, 2**30)]), (Libc(), [])):
        monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _, libc=libc: libc)
        cpu.keep_freed_memory()
        assert libc.set == expected  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
