"""One update of the weights: forward and backward passes, clipping, AdamW, and the moving average."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maskweave.data.order import Batches
from maskweave.errors import MaskweaveError
from maskweave.training.checkpoints import State
from maskweave.training.one_copy import to_device
from maskweave.training.optimizer import clip_gradients, gradient_parts, learning_rate, trained
from maskweave.training.parallel import accumulating, is_sharded, whole, wrap
from maskweave.training.spare import Spare
from maskweave.training.updates import SAMPLES, Update, has_targets, metric_weights


class NonFinite(MaskweaveError):
    """The loss or gradient is not finite. The message gives the step and the batch's modalities."""


class Stepper:
    """Updates the weights. Steps that cannot be taken are skipped and counted in `state.skipped`.

    Whether losses and gradients are finite is stored until `check` is called, because each look would wait for the GPU.
    """

    def __init__(self, state: State, batches: Batches):
        self.state, self.wrapped = state, wrap(state.objective, state.ranks)
        self._batches, self._spare = batches, Spare(state.objective)
        self.parameters = list(trained(state.objective).values())
        self._counts = hasattr(state.objective, "count")
        self._unused = getattr(state.objective, "unused_parameters", None)
        self._candidate: tuple[int, Any] | None = None
        """The last batch with targets, and its step."""
        self._unchecked: list[tuple[int, list[str], Tensor, Tensor]] = []
        self.may_wait = state.ranks.device.type == "cpu"
        """Whether each step looks at its results. For those of a GPU it would have to wait."""
        self.messages: list[str] = []
        """Sentences for the user that were not shown yet."""

    def __call__(self, update: Update) -> None:
        state, ranks = self.state, self.state.ranks
        state.skipped.note_targets(update.has_targets)
        if not update.has_targets:
            return
        measured: list[tuple[Mapping[str, Tensor], dict[str, float]]] = []
        total = torch.zeros((), device=ranks.device)
        for number, (batch, counts) in enumerate(zip(update.batches, update.counts, strict=True), 1):
            is_last = number == len(update.batches)
            if not has_targets(counts) and is_sharded(self.wrapped):
                with accumulating(self.wrapped, is_last):
                    self._keep_up()
                continue
            if not has_targets(counts) and not (is_last and ranks.world > 1):  # other processes wait for the last one
                continue
            self._candidate = (state.step + 1, batch)
            with accumulating(self.wrapped, is_last):
                with precision(state):
                    loss, metrics = self.wrapped(
                        to_device(batch, ranks.device), *([update.totals] if self._counts else [])
                    )
                # Processes average their gradients, but an update's is the sum over them.
                scale = ranks.world * (1.0 if self._counts else counts[SAMPLES] / update.totals[SAMPLES])
                # A loss that is not finite makes the gradient so on all processes, which then all skip the step.
                loss.backward(loss.detach() * 0 + scale)
            total = total + loss.detach() * scale
            measured.append((metrics, metric_weights(metrics, counts)))
        self._settle_unused(update.totals)
        gradients = gradient_parts(self.parameters)
        norm = whole(nn.utils.get_total_norm(gradients, foreach=True))
        finite = norm.isfinite()
        self._unchecked.append((state.step + 1, update.names, total.isfinite(), finite))
        # The mean over processes of `total` is the update's loss.
        for metrics, weights in [({"loss": total, "gradient_norm": norm}, {}), *measured]:
            if metrics:
                state.meter.add(metrics, weights, keep=finite)
        self._step(gradients, norm)

    def _keep_up(self) -> None:
        """Computes nothing, but gathers parameters as often as the other processes, which compute a batch with targets."""
        per_step = self.state.settings.accumulate * self.state.ranks.world
        these = range(self.state.step * per_step, (self.state.step + 1) * per_step)
        with precision(self.state):
            loss = self._spare.loss(self.wrapped, self._batches, these, self.state.ranks.device)
        loss.backward(torch.zeros_like(loss))

    def _settle_unused(self, totals: Mapping[str, float]) -> None:
        """Parameters of modalities that the whole update lacks have no gradient, and all others have one, however the update was split."""
        if self._unused is None:
            return
        for p in (unused := self._unused(totals)):
            p.grad = None
        ids = {id(p) for p in unused}
        for p in self.parameters:
            if p.grad is None and id(p) not in ids and not self.state.settings.lazy_embeddings:
                p.grad = torch.zeros_like(p)

    def _step(self, gradients: list[Tensor], norm: Tensor) -> None:
        """Steps, unless the gradient is not finite. On a GPU, the optimizer decides this without waiting."""
        state, settings = self.state, self.state.settings
        if self.may_wait:
            self.check()
        else:
            state.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        if not self.may_wait or bool(norm.isfinite()):
            if settings.clip:
                clip_gradients(gradients, norm, settings.clip, self.may_wait)
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(state.step, settings) * group["rate_factor"]
            state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update(state.step + 1)

    def check(self) -> None:
        """Counts the steps since the last call that were skipped because a loss or gradient was not finite, and adds a sentence to `messages`.

        Raises:
            NonFinite: more than `skip_nonfinite` in a row were.
        """
        if not self._unchecked:
            return
        flags = torch.stack([torch.stack([loss, gradient]) for *_, loss, gradient in self._unchecked]).tolist()
        steps, self._unchecked = [(step, names) for step, names, *_ in self._unchecked], []
        for (step, names), (loss_is_finite, finite) in zip(steps, flags, strict=True):
            self.state.skipped.note_finite(finite)
            if finite:
                if self._candidate is not None and self._candidate[0] == step:
                    self._spare.note(self._candidate[1])
                continue
            what = "gradient" if loss_is_finite else "loss"
            text = f"step {step}: the {what} is not finite, on a batch of {', '.join(names)}"
            if self.state.skipped.nonfinite_in_a_row > self.state.settings.skip_nonfinite:
                raise NonFinite(f"{text}; {self._stopped()}")
            if self.state.skipped.nonfinite_in_a_row == 1:
                self.messages.append(f"{text}; the step was skipped")

    def _stopped(self) -> str:
        path, most = self.state.path, self.state.settings.skip_nonfinite
        kept = f"the last good checkpoint is {path}" if path else "no checkpoint was written yet"
        row = f"these were {most + 1} in a row, and skip_nonfinite is {most}; " if most else ""
        return f"{row}training stopped, and {kept}. Check the data of these modalities, lower learning_rate, or set a smaller clip"


def precision(state: State) -> torch.autocast:
    """Context of the forward pass."""
    return torch.autocast(state.ranks.device.type, torch.bfloat16, enabled=state.settings.precision == "bf16")
