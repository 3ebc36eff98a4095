"""Compilation: faster training with the same results."""

from torch import nn


def compile_blocks(objective: nn.Module) -> None:
    """Compiles the blocks of `objective`, the members of its outermost module lists, with torch.compile, each at its first call.

    The code around the blocks uses lists whose lengths differ between batches, so compiling it would cause constant recompilation.
    """
    for child in objective.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                block.compile()
        else:
            compile_blocks(child)
