"""Settings of a training run, for any objective."""

import math
from dataclasses import dataclass
from typing import Literal

from maskweave import limits
from maskweave.config import check_types
from maskweave.errors import MaskweaveError
from maskweave.training.early_stopping import EarlyStopping


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training loop.

    Raises:
        MaskweaveError: a value is out of range; the message gives the key and the expected range.
    """

    steps: int = 1000
    """Number of weight updates."""
    batch_size: int = 64
    """Samples per batch. One update uses batch_size × accumulate × processes samples; a run can resume with another split of the same number."""
    learning_rate: float = 1e-3
    """Peak learning rate. It is not scaled with the batch size."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises from zero."""
    final_learning_rate: float = 0.01
    """Learning rate of the last step, as a share of the peak."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up; `constant` ignores final_learning_rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the matrices of blocks, with the same learning rate and weight decay, and AdamW for all other parameters. Its steps take longer; it needs 4 bytes less of memory per number of a matrix. Not with fsdp and hybrid, which divide matrices."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the running means of the gradient and its square."""
    weight_decay: float = 0.05
    """Weight decay of matrices only, not of biases, norms, embeddings, learned positions and tokens, and vectors."""
    clip: float = 1.0
    """Largest gradient norm over all parameters; longer gradients are clipped. 0: no clipping."""
    skip_nonfinite: int = 0
    """Steps in a row that may be skipped because the loss or the gradient is not finite; more stop the training. 0: the first one does."""
    lazy_embeddings: bool = False
    """Update only the rows of large embedding tables that a batch uses, like torch.optim.SparseAdam. This saves much memory traffic with large vocabularies. Only for one process."""
    accumulate: int = 1
    """Batches of one update. Its loss is that of all their samples together, however they are split."""
    precision: Literal["float32", "bf16", "auto"] = "float32"
    """bf16: matrix products in bfloat16, weights and optimizer in float32. `auto`: bf16 on a GPU or a CPU with bfloat16 instructions, otherwise float32, because other CPUs are many times slower in bf16."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights, for example 0.999. If on, the average is validated and saved as the model. 0: off."""
    log_every: int = 20
    """Steps between logged metrics."""
    validate_every: int = 0
    """Steps between validations; 0: only at the end."""
    early_stopping: EarlyStopping | None = None
    """Stop when the validation loss does not fall any more, `{patience: 5}`, and keep the weights of the best validation. Needs validate_every. None: train all steps and keep the last weights."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0: only at the end."""
    keep: int = 2
    """Number of newest checkpoints to keep."""
    processes: int | Literal["auto"] = 1
    """Processes on this machine that train together, each with one thread or one GPU. `auto`: processes and threads are measured at the start; an update then uses batch_size × accumulate samples, whatever is chosen. Sums are rounded differently with each choice, so a new run repeats another bit for bit only with the same layout.json in its folder, or with fixed processes and threads. Keep it at 1 or `auto` under torchrun, which starts the processes itself."""
    parallel: Literal["auto", "none", "ddp", "fsdp", "hybrid"] = "auto"
    """How several processes hold the model: `ddp`: each has all of it; `fsdp`: parameters, gradients and optimizer state are divided among them; `hybrid`: divided among the processes of a machine. `auto`: the first of ddp, hybrid (on several machines) and fsdp that fits the GPUs' memory by estimate; `none`: refuse several processes. One process has all of it in any case."""
    reshard_after_forward: bool = True
    """With fsdp and hybrid, free the gathered weights of a block after its forward pass and gather them again for the backward pass. false: keep them, which sends less and takes more memory."""
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = "none"
    """What blocks compute again in the backward pass instead of keeping it in memory: `selective`: all but matrix products and attention; `full`: everything. Losses stay the same. `auto`: the least that fits the GPU's memory by estimate."""
    async_checkpoints: bool = False
    """Write checkpoints while training goes on. Needs main memory for a copy of weights, averages and optimizer state."""
    workers: int = 0
    """Processes that prepare batches; 0: the training process prepares them."""
    threads: int = 0
    """torch threads while the model trains; 0: unchanged."""
    compile: bool = False
    """Compile the blocks with torch.compile, and on a GPU the losses. The first steps are slow. On CPU it needs a C++ compiler."""
    static_shapes: bool | None = None
    """Pad all batches of a 4M model to its budgets and to batch_size, so that compiled blocks never compile again and a GPU's memory is reused. None: with `compile`, or on a GPU. Batches of other models stay as they are."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto`: CUDA if available. `mps`, the GPU of a Mac, was never tested."""
    seed: int = 0
    """Seed of dropout and other randomness in the objective; each process adds its rank."""

    @property
    def samples_per_step(self) -> int:
        """Samples per update on this machine; under torchrun, per process."""
        return self.batch_size * self.accumulate * self.fixed_processes

    @property
    def fixed_processes(self) -> int:
        """`processes`, or 1 if it is `auto`, because then it does not change the samples of an update."""
        return self.processes if isinstance(self.processes, int) else 1

    def __post_init__(self) -> None:
        check_types(self)
        for key in ("steps", "batch_size", "accumulate", "log_every", "keep"):
            self._expect(key, getattr(self, key) >= 1, "1 or more")
        self._expect("processes", self.fixed_processes >= 1, "1 or more, or auto")
        for key in ("validate_every", "checkpoint_every", "workers", "threads", "seed", "skip_nonfinite"):
            self._expect(key, getattr(self, key) >= 0, "0 or more")
        for key, most in (
            ("steps", limits.STEPS),
            ("batch_size", limits.BATCH_SIZE),
            ("accumulate", limits.ACCUMULATE),
            ("workers", limits.PROCESSES),
            ("threads", limits.PROCESSES),
        ):
            limits.check_most(key, getattr(self, key), most)
        limits.check_most("processes", self.fixed_processes, limits.PROCESSES)
        limits.check_most("seed", self.seed, limits.SEED, fixed=True)
        for key in ("weight_decay", "clip"):
            self._expect(key, 0 <= getattr(self, key) < math.inf, "a number of 0 or more")
        for key in ("warmup", "final_learning_rate"):
            self._expect(key, 0 <= getattr(self, key) <= 1, "a share from 0 to 1")
        if self.lazy_embeddings and self.fixed_processes > 1:
            raise MaskweaveError(
                f"lazy_embeddings works only with one process, but processes is {self.processes}; set lazy_embeddings to false or processes to 1"
            )
        if self.parallel == "none" and self.fixed_processes > 1:
            raise MaskweaveError(
                f"parallel is none, but processes is {self.processes}; set parallel to auto, or processes to 1"
            )
        if self.optimizer == "muon" and self.parallel in ("fsdp", "hybrid"):
            raise MaskweaveError(
                f"optimizer muon needs whole matrices, but parallel is {self.parallel}, which divides them among processes; set optimizer to adamw, or parallel to ddp or auto"
            )
        self._expect("learning_rate", 0 < self.learning_rate < math.inf, "a number above 0")
        self._expect("ema", 0 <= self.ema < 1, "0 (off), or a decay below 1")
        if self.early_stopping is not None and not self.validate_every:
            raise MaskweaveError(
                "early_stopping needs validations during training, but validate_every is 0; set it to the steps between validations"
            )
        self._expect("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1")

    def _expect(self, key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise MaskweaveError(f"{key} is {getattr(self, key)}; expected {expected}")


def is_due(every: int, step: int, steps: int) -> bool:
    """Whether something is due after `step` of `steps`: after every `every` steps and after the last one. 0: only after the last one."""
    return step == steps or (every > 0 and step % every == 0)
