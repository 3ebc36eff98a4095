"""Contrastive learning: tell which of several samples each modality belongs to. CLIP (https://arxiv.org/abs/2103.00020), section 2.3.

The loss of contrastive predictive coding (https://arxiv.org/abs/1807.03748) in both directions: for each picture of a group of samples, the cross-entropy of choosing its own text among those
of the group, and for each text that of choosing its picture. With more than two modalities, every two of them are compared.

The groups are of fixed size and consecutive in the order of the samples. A batch has whole groups, so the loss of an update, and its gradient, do not depend
on how its samples are split over batches and processes, which negatives from the whole batch would.

A sample that is in a group more than once, as at the end of an epoch, is no wrong choice for itself.

Dimension letters: G groups, g places of a group, n choices (of samples that have both of two modalities), D width.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskweave.errors import MaskweaveError
from maskweave.masking.m3ae import MaskedBatch, MaskedGroup
from maskweave.models.contrastive import Contrastive, OneModality

NO_PAIRS = "no two samples of a group have the same two modalities, so nothing can be compared: raise model.group_size, or use data with more pairs"


class Pairs(NamedTuple):
    """The samples of a batch that have two modalities, by group, and what each is compared with. Places of samples without one of the two are filled up."""

    names: tuple[str, str]
    rows: tuple[Tensor, Tensor]
    """(G, g) each: the index of each sample among those that have the modality."""
    compared: Tensor
    """(G, g, g) bool: the samples among which each one is chosen, with itself."""
    choices: Tensor
    """(n,) flat places G·g of the samples that have something to be compared with."""

    def __len__(self) -> int:
        return len(self.choices)


class ContrastiveObjective(nn.Module):
    """Cross-entropy of choosing the modality of the same sample.

    Args:
        group_size: number of consecutive samples that are compared with each other.
    """

    def __init__(self, model: Contrastive, group_size: int):
        super().__init__()
        self.model, self.group_size = model, group_size

    def count(self, batch: MaskedBatch) -> dict[str, int]:
        """Returns for each modality its tokens `inputs/NAME` and how often it is chosen among others, `targets/NAME`."""
        counts = {f"{what}/{name}": 0 for what in ("inputs", "targets") for name in self.model.ids}
        for name, tokens in ((name, tokens) for group in _with_pairs(batch) for name, tokens in group.parts.items()):
            counts[f"inputs/{name}"] += tokens.kept.numel() if tokens.visible is None else int(tokens.visible.sum())
        return counts | self._targets(list(self._pairs(batch)))

    def _targets(self, pairs: list[Pairs]) -> dict[str, int]:
        return {f"targets/{n}": sum(len(some) for some in pairs if n in some.names) for n in self.model.ids}

    def forward(
        self, batch: MaskedBatch, totals: Mapping[str, float] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss, the mean over modalities of `loss/NAME`; these losses, where NAME is what is chosen; the `temperature`; and in evaluation
        mode the share of right choices `accuracy/NAME`.

        Args:
            totals: sums of `count` over all batches of an update. The loss is then this batch's share of the update's loss.

        Raises:
            MaskweaveError: there is nothing to compare, and `totals` is not given.
        """
        pairs = list(self._pairs(batch))
        if not pairs:
            if totals is None:
                raise MaskweaveError(NO_PAIRS)
            return torch.zeros((), device=self.model.class_token.device), {}
        groups = [OneModality(n, {n: tokens}) for group in _with_pairs(batch) for n, tokens in group.parts.items()]
        parts: dict[str, list[Tensor]] = {}
        for one, vectors_bD in zip(groups, self.model.vectors(groups), strict=True):
            parts.setdefault(one.name, []).append(vectors_bD)
        vectors = {name: torch.cat(some) for name, some in parts.items()}
        device = self.model.class_token.device.type
        device = "cpu" if device == "meta" else device  # which costs are counted on, and which has no autocast
        found: dict[str, list[Tensor]] = {}
        hits: dict[str, list[Tensor]] = {}
        for some in pairs:
            a_GgD, b_GgD = (
                vectors[n][rows.to(vectors[n].device)] for n, rows in zip(some.names, some.rows, strict=True)
            )
            compared_Ggg, choices_n = some.compared.to(a_GgD.device), some.choices.to(a_GgD.device)
            with torch.autocast(device, enabled=False):  # 16 bits are too coarse for scaled similarities
                logits_Ggg = self.model.scale * (a_GgD @ b_GgD.mT)
            logits_Ggg = logits_Ggg.masked_fill(~compared_Ggg, -torch.inf)
            own_n = choices_n % self.group_size
            for name, by_sample_Ggg in zip(some.names, (logits_Ggg.mT, logits_Ggg), strict=True):
                logits_ng = by_sample_Ggg.flatten(0, 1)[choices_n]
                found.setdefault(name, []).append(F.cross_entropy(logits_ng, own_n, reduction="sum"))
                if not self.training:
                    hits.setdefault(name, []).append((logits_ng.argmax(dim=1) == own_n).float().sum())
        counts = self._targets(pairs)
        sums = {name: torch.stack(losses).sum() for name, losses in found.items()}
        metrics = {f"loss/{name}": total.detach() / counts[f"targets/{name}"] for name, total in sums.items()}
        metrics |= {
            f"accuracy/{name}": torch.stack(right).sum() / counts[f"targets/{name}"] for name, right in hits.items()
        }
        metrics["temperature"] = 1 / self.model.scale.detach()[0]
        targets = {name: n for name in self.model.ids if (n := (totals or counts)[f"targets/{name}"])}
        return torch.stack([total / (len(targets) * targets[name]) for name, total in sums.items()]).sum(), metrics

    def unused_parameters(self, totals: Mapping[str, float]) -> list[nn.Parameter]:
        """Returns the parameters of modalities with which an update compares nothing."""
        unused = [name for name in self.model.ids if not totals[f"targets/{name}"]]
        modules = [owner[name] for owner in (self.model.token_embedding, self.model.projections) for name in unused]
        return [p for module in modules for p in module.parameters()]

    def _pairs(self, batch: MaskedBatch) -> Iterator[Pairs]:
        """Yields what is compared for every two modalities. Computed on the host to avoid device syncs."""
        samples: dict[str, list[Tensor]] = {}
        numbers: dict[str, list[Tensor]] = {}
        for group in _with_pairs(batch):
            for name in group.parts:
                samples.setdefault(name, []).append(group.samples)
                numbers.setdefault(name, []).append(group.samples if group.numbers is None else group.numbers)
        of = {name: torch.cat(samples[name]) for name in self.model.ids if name in samples}
        for a, b in combinations(of, 2):
            rows_a, rows_b = (of[a][:, None] == of[b]).nonzero(as_tuple=True)
            groups, group = torch.unique(of[a][rows_a] // self.group_size, return_inverse=True)
            place = group * self.group_size + of[a][rows_a] % self.group_size
            shape = (len(groups), self.group_size)
            filled = [
                torch.full(shape, fill).flatten().scatter(0, place, found).view(shape)
                for found, fill in ((rows_a, 0), (rows_b, 0), (torch.cat(numbers[a])[rows_a], -1))
            ]
            number = filled[2]
            there = number >= 0
            same_place = torch.eye(self.group_size, dtype=torch.bool)
            compared = (number[:, :, None] != number[:, None, :]) | same_place
            compared &= there[:, :, None] & there[:, None, :]
            choices = (compared.sum(dim=2) > 1).flatten().nonzero()[:, 0]
            if len(choices):
                yield Pairs((a, b), (filled[0], filled[1]), compared, choices)


def _with_pairs(batch: MaskedBatch) -> list[MaskedGroup]:
    """The samples with more than one modality; the others are not encoded."""
    return [group for group in batch.groups if len(group.parts) > 1]
