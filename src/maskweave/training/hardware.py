"""What makes a training faster on the machine it runs on, and changes nothing else."""

from torch import nn


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
