"""Memory that is kept is not mapped anew; compiled blocks compute the same."""

import platform
import shutil
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from maskweave.nn.layers import Block
from maskweave.training.hardware import compile_blocks

FAULTS = """
import resource, torch
from maskweave.nn.cpu import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB, 16384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
keep_freed_memory()
for _ in range(30):  # until pieces of that size lie ready
    faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_used_again() -> None:
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.inner = nn.ModuleDict({"blocks": nn.ModuleList([Block(8, 2)])})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.inner["blocks"]:
            x = block(self.first(x))
        return x


@pytest.mark.slow  # 50 s of compiling
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_compute_the_same() -> None:
    torch.manual_seed(0)
    stack, x = Stack(), torch.randn(2, 3, 8)
    stack(x).square().sum().backward()
    expected = stack.first.weight.grad.clone()
    names = list(stack.state_dict())
    stack.zero_grad()
    calls: list[str] = []
    stack.inner["blocks"][0].attention.register_forward_hook(
        lambda *_: calls.append("compiled" if torch.compiler.is_compiling() else "plain")
    )
    compile_blocks(stack)
    stack(x).square().sum().backward()
    torch.testing.assert_close(stack.first.weight.grad, expected, rtol=1e-4, atol=1e-5)
    assert set(calls) == {"compiled"}
    assert list(stack.state_dict()) == names  # so that checkpoints fit either way
