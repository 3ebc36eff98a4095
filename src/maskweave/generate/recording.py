"""CUDA graphs: what the host starts on a GPU once is repeated as a whole.

A decoding step starts some hundred small kernels, which takes the host several times longer than the GPU needs to run them.
"""

import threading
from collections.abc import Callable
from functools import cache, partial

import torch

FEWEST = 32
"""Steps from which on a sequence's second step is recorded: recording takes about as long as two steps."""
_ONE_AT_A_TIME = threading.Lock()

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a function that has run once; records what it does, without doing it; returns a function that does it again with what its tensors then contain."""


def recorder(device: torch.device, steps: int) -> Record | None:
    """Returns what records the steps of a sequence; None: nothing is recorded, as on other devices than GPUs."""
    return partial(_recorded, device) if device.type == "cuda" and steps >= FEWEST else None


def _recorded(device: torch.device, function: Callable[[], None]) -> Callable[[], None]:
    """Other threads may start kernels meanwhile, but not wait for the GPU."""
    graph = torch.cuda.CUDAGraph()
    with (
        _ONE_AT_A_TIME,
        torch.cuda.device(device),
        torch.cuda.graph(graph, stream=_stream(device), capture_error_mode="thread_local"),
    ):
        function()
    return graph.replay


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which a device's graphs are recorded; each stream has memory of its own for matrix products."""
    return torch.cuda.Stream(device)
