"""Runs the model for generation: batches the passes, applies the precision, and reuses what has not changed.

Dimension letters: B samples, P passes, R rows (one pass over one sample each), L positions of a grid, n predicted positions, V vocabulary, D width.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskweave.deadline import check_time
from maskweave.errors import MaskweaveError, shown
from maskweave.generate.guidance import Pass
from maskweave.generate.recording import recorder
from maskweave.generate.token_state import TokenStates, pack_inputs, place_ids, row_lengths, samples_of
from maskweave.masking.batch import Slots, TokenSlice, pack
from maskweave.modality.catalogs import Catalog
from maskweave.models.fourm import FourM
from maskweave.models.kv_cache import KVCacheDecoder, read_step
from maskweave.nn.cpu import can_pack, pack_linear_layers

Precision = Literal["float32", "bf16"]
PADDING = 0.25
"""On a CPU, a row joins a batch if its padding is at most this share of the longest row, or `FEW` tokens."""
FEW = 16
STATIC = 64
"""When compiled or on a GPU, the number of slots per row is a multiple of this, so that there are few shapes to prepare kernels for."""
AHEAD = 8
"""Tokens of a sequence that a GPU generates without waiting for the host. Samples that end earlier generate some for nothing."""


def bulk_precision(device: torch.device) -> Precision:
    """The precision of evaluations and features of many samples: bf16 on a GPU, float32 on a CPU, where results are the same everywhere."""
    return "bf16" if device.type == "cuda" else "float32"


def check_usable(device: torch.device | str) -> None:
    """Raises:
    MaskweaveError: torch cannot use the device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise MaskweaveError(
            f"device {shown(str(device))}: torch cannot use it here ({reason}); give another, such as cpu"
        ) from None


class Engine:
    """A model ready to run.

    Args:
        model: its parameters are shared. With `bf16`, its linear layers are also kept in bfloat16; they are packed on CPUs if `can_pack`.
        precision: of linear layers and attention.
        compiled: compile the blocks, for a GPU: the first requests are slow, later ones fast.
    """

    def __init__(self, model: FourM, catalog: Catalog, precision: Precision = "float32", compiled: bool = False):
        self.catalog, self.precision, self.compiled = catalog, precision, compiled
        self.device = next(model.parameters()).device
        halved = precision == "bf16"
        dtype = torch.bfloat16 if halved else torch.float32
        packs = self.device.type == "cpu" and not compiled and can_pack(model, dtype)
        self.model = _shadow(model) if compiled or halved or packs else model
        if packs:
            pack_linear_layers(self.model, dtype)
        self._autocasts = halved and not packs
        if self._autocasts:
            for layer in self.model.modules():
                if isinstance(layer, nn.Linear):
                    layer.weight = nn.Parameter(layer.weight.detach().bfloat16(), requires_grad=False)
        self.read_step = None
        if compiled:
            for block in (*self.model.encoder, *self.model.decoder):
                block.compile(dynamic=False)
            self.read_step = torch.compile(read_step, dynamic=False)
        on_gpu = self.device.type == "cuda"
        self._multiple = STATIC if compiled or on_gpu else 1
        self.keeps_ids = on_gpu
        """Whether the ids of a grid stay on the device until it is finished, so that no step waits for them."""
        self.ahead = AHEAD if on_gpu else 1
        """Tokens of a sequence that are generated before the host looks at them."""
        self._last: dict[int, tuple[Slots, dict[str, Tensor], Slots, Tensor]] = {}
        """By batch of a step: the inputs as packed on the host and as encoded, and the encoder's output."""

    @torch.inference_mode()
    def ask(self, fields: TokenStates, passes: Sequence[Pass], target: str, asked_BL: np.ndarray) -> Tensor:
        """Returns the guided logits (n, V) of the asked positions of a grid, ordered by sample: the weighted sum over the passes."""
        asked_RL = np.tile(asked_BL, (len(passes), 1))
        sees, counts_R = [p.sees for p in passes], asked_RL.sum(axis=1)
        ends_B = counts_R[: len(asked_BL)].cumsum()  # every pass predicts the same positions
        answer: Tensor | None = None
        for number, row in enumerate(self._batches(fields, sees, counts_R > 0)):
            inputs, encoded = self.encode(fields, sees, row, number)
            r, position = np.nonzero(asked_RL[row])
            part = TokenSlice(r, np.zeros(len(r), np.int64), position)
            width = -(-int(counts_R[row].max()) // self._multiple) * self._multiple
            slots, _ = pack({target: part}, {target: self.catalog[target].id}, len(row), width)
            slots = slots.to(self.device)
            with self._precisely():
                y = self.model.decode(slots, encoded, inputs)
                ((_, _, logits),) = self.model.logits(y, slots.index).values()
            p, b = np.divmod(row, len(asked_BL))
            if len(passes) == 1 and len(row) == (counts_R > 0).sum():
                return logits.float()
            if answer is None:
                answer = torch.zeros(int(ends_B[-1]), logits.shape[1], device=self.device)
            # Offset from a row's first position in this batch to its first position in the answer.
            counts = counts_R[row]
            shift = ends_B[b] - counts - (counts.cumsum() - counts)
            index = torch.from_numpy(np.arange(len(r)) + np.repeat(shift, counts)).to(self.device, non_blocking=True)
            weight = torch.tensor([q.weight for q in passes])[torch.from_numpy(np.repeat(p, counts))]
            answer.index_add_(0, index, logits.float() * weight[:, None].to(self.device, non_blocking=True))
        assert answer is not None
        return answer

    @torch.inference_mode()
    def encode(
        self, fields: TokenStates, sees: Sequence[frozenset[str]], row: np.ndarray, number: int = 0
    ) -> tuple[Slots, Tensor]:
        """Returns the packed inputs of some rows and the encoder's output for them.

        Args:
            number: index of the batch within the step; its last output is reused if its input is unchanged.
        """
        check_time()
        packed, rows = pack_inputs(self.catalog, fields, sees, row, self._multiple)
        last = self._last.get(number)
        if last is not None and _same(packed, rows, last[0], last[1]):
            return last[2], last[3]
        inputs = place_ids(packed.to(self.device), fields, sees, row)
        with self._precisely():
            on_device = {name: r.to(self.device, non_blocking=True) for name, r in rows.items()}
            encoded = self.model.encode(inputs, on_device)
        self._last[number] = packed, rows, inputs, encoded
        return inputs, encoded

    @torch.inference_mode()
    def reader(self, fields: TokenStates, sees: Sequence[frozenset[str]], target: str, longest: int) -> KVCacheDecoder:
        """Returns a decoder of the sequence `target` for every row, ordered by pass."""
        inputs, encoded = self.encode(fields, sees, np.arange(len(sees) * samples_of(fields)))
        with self._precisely():
            return KVCacheDecoder(
                self.model, encoded, inputs, target, self.catalog[target].id, longest, self.read_step,
                recorder(self.device, longest),
            )  # fmt: skip

    @torch.inference_mode()
    def read(self, reader: KVCacheDecoder, ids_B: Tensor, passes: Sequence[Pass]) -> Tensor:
        """Reads one more token of every sample and returns the guided logits (B, V): the weighted sum over the passes."""
        check_time()
        with self._precisely():
            logits_RV = reader.read(ids_B.repeat(len(passes)).to(self.device, non_blocking=True)).float()
        if len(passes) == 1:
            return logits_RV
        return sum(  # type: ignore[return-value]
            p.weight * part for p, part in zip(passes, logits_RV.chunk(len(passes)), strict=True)
        )

    def for_one_run(self) -> "Engine":
        """Returns an engine of the same model that keeps its own encoder outputs. Those of another run may differ although the ids on the host are the same."""
        engine = copy.copy(self)
        engine._last = {}
        return engine

    def _precisely(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocasts, cache_enabled=False)

    def _batches(self, fields: TokenStates, sees: Sequence[frozenset[str]], asking_R: np.ndarray) -> list[np.ndarray]:
        """Groups rows into batches.

        On a GPU, all rows form one batch. On a CPU, only rows of similar length share a batch, so that a short pass without the inputs is cheap.
        """
        rows = np.flatnonzero(asking_R)
        if self.device.type != "cpu" or self.compiled:
            return [rows]
        lengths = row_lengths(fields, sees)
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        groups: list[list[int]] = []
        for row in rows.tolist():
            longest = lengths[groups[-1][0]] if groups else 0
            if groups and longest - lengths[row] <= max(FEW, PADDING * longest):
                groups[-1].append(row)
            else:
                groups.append([row])
        return [np.sort(group) for group in groups]


def _shadow(model: FourM) -> FourM:
    """Returns a copy of the modules that shares the model's tensors."""
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared).eval()


def _same(a: Slots, a_rows: dict[str, Tensor], b: Slots, b_rows: dict[str, Tensor]) -> bool:
    pairs = [(a.ids, b.ids), (a.modality, b.modality), (a.position, b.position)]
    if a_rows.keys() != b_rows.keys():
        return False
    return all(torch.equal(x, y) for x, y in (*pairs, *((a_rows[name], b_rows[name]) for name in a_rows)))
