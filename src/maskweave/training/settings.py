"""What can be set about a training, whatever is trained."""

import math
from dataclasses import dataclass
from typing import Literal

from maskweave import limits
from maskweave.errors import MaskweaveError


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the one training loop.

    Raises:
        MaskweaveError: a number that cannot be, naming the key and what was expected.
    """

    steps: int = 1000
    """Updates of the weights."""
    batch_size: int = 64
    """Samples of one batch; an update sees batch_size × accumulate × processes."""
    learning_rate: float = 1e-3
    """Highest rate, as it is used: it is not scaled by the batch size."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises from zero."""
    final_learning_rate: float = 0.01
    """Rate of the last step, as a share of the highest."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the rate goes on after the warm-up; `constant` leaves final_learning_rate unused."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the running gradient and of its square."""
    weight_decay: float = 0.05
    """Of matrices only: biases, norms, embeddings, learned positions and tokens, and vectors are left alone."""
    clip: float = 1.0
    """Longest gradient, as one vector of all parameters; 0 leaves it as it is."""
    lazy_embeddings: bool = False
    """Update only the rows of large embedding tables that a batch reads, as torch.optim.SparseAdam does: far less memory traffic where vocabularies are large. One process only."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one update."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: matrix products in bfloat16, weights and optimizer in float32."""
    ema: float = 0.0
    """Decay of the weights' exponential moving average, 0.999 for instance. If on, it is what is validated and kept. 0: off."""
    log_every: int = 20
    """Steps between lines of metrics."""
    validate_every: int = 0
    """Steps between validations; 0: only at the end."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0: only at the end."""
    keep: int = 2
    """Newest checkpoints that are kept."""
    processes: int = 1
    """Processes on this machine that train together, one thread each (or one GPU each). Under torchrun, which starts them itself, leave it at 1."""
    workers: int = 0
    """Processes that prepare batches; 0: the training process does it."""
    threads: int = 0
    """Threads of torch in the training process; 0 leaves them as they are."""
    compile: bool = False
    """Compile the blocks with torch.compile, which takes a while at first; on CPU it needs a C++ compiler."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is any."""
    seed: int = 0
    """Of dropout and whatever else is random in the objective; each process adds its rank."""

    @property
    def samples_per_step(self) -> int:
        """On this machine; under torchrun each of its processes sees as many."""
        return self.batch_size * self.accumulate * self.processes

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "accumulate", "log_every", "keep", "processes"):
            self._expect(key, getattr(self, key) >= 1, "1 or more")
        for key in ("validate_every", "checkpoint_every", "workers", "threads", "seed"):
            self._expect(key, getattr(self, key) >= 0, "0 or more")
        for key, most in (
            ("batch_size", limits.BATCH_SIZE),
            ("accumulate", limits.ACCUMULATE),
            ("processes", limits.PROCESSES),
            ("workers", limits.PROCESSES),
            ("threads", limits.PROCESSES),
        ):
            limits.check_most(key, getattr(self, key), most)
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)
        for key in ("weight_decay", "clip"):
            self._expect(key, 0 <= getattr(self, key) < math.inf, "a number of 0 or more")
        for key in ("warmup", "final_learning_rate"):
            self._expect(key, 0 <= getattr(self, key) <= 1, "a share from 0 to 1")
        if self.lazy_embeddings and self.processes > 1:
            raise MaskweaveError(
                f"lazy_embeddings is for one process, and processes is {self.processes}; set lazy_embeddings to false, or processes to 1"
            )
        self._expect("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        self._expect("ema", 0 <= self.ema < 1, "0 (off), or a decay below 1")
        self._expect("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1")

    def _expect(self, key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise MaskweaveError(f"{key} is {getattr(self, key)}; expected {expected}")


def is_due(every: int, step: int, steps: int) -> bool:
    """Whether something done every so many steps is due after `step` of `steps`; 0 is only at the end, where it always is."""
    return step == steps or (every > 0 and step % every == 0)
