"""What makes a training faster on the machine it runs on, and changes nothing else."""

import ctypes
import sys

from torch import nn

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, up to 1 GiB a piece, for its own next step.

    Otherwise glibc returns large pieces at once, and in every step the system maps and zeroes them anew: 4 to 7% of the time of a
    training step on CPU (`benchmarks/fourm.py`). Other C libraries are left as they are.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)


def compile_blocks(objective: nn.Module) -> None:
    """Compile the blocks of `objective`, the members of its outermost module lists, with torch.compile: at their first call, one by one.

    Around them stand lists whose lengths differ from batch to batch, for which all would have to be compiled again and again.
    """
    for child in objective.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.compile()
        else:
            compile_blocks(child)
