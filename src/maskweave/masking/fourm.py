"""Mask sampling: choosing which tokens of a batch are inputs and which are targets. 4M (https://arxiv.org/abs/2312.06647), section 2.2 and appendix.

A mixture of Dirichlet pairs splits each sample's token budgets over the modalities (`masking.budgets`). In a grid, a random subset of the tokens is input and
another, disjoint subset is target. In a sequence, spans are dropped: a sentinel replaces each span in the input, and the target lists each
sentinel followed by its span (https://arxiv.org/abs/1910.10683). All of it is vectorized over the batch in NumPy. What a sample draws depends on its
own random numbers only (`masking.random`), so batches may be split over processes in any way.

Dimension letters: B samples, M modalities, L tokens of a modality, R rounds, b samples of the batch that have tokens of a modality.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch

from maskweave import limits
from maskweave.data.columns import Column
from maskweave.data.mixing import MixedTokens
from maskweave.data.order import Order
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError, shown
from maskweave.masking.batch import TokenBatch, TokenSlice, pack
from maskweave.masking.budgets import dirichlet_budgets, fill, first_budgets, target_numbers
from maskweave.masking.random import SampleRandom
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary

Keep = Literal["uniform", "all", "all_or_nothing"]
STEP = 0.9
"""Factor by which the keep probability of a sequence is lowered until what is kept fits."""
REST = "default"
"""Key in a mixture's concentrations for all modalities that are not listed."""
SHARED_STREAMS = 8
"""Streams of random numbers before those of the modalities, which are numbered by their ids."""


@dataclass(frozen=True)
class Mixture:
    """One pair of Dirichlet distributions over modalities."""

    inputs: dict[str, float]
    """Concentration per modality; `default` is for all others (0 if absent). 0: never; small: few modalities at a time."""
    targets: dict[str, float]
    """The same for targets; input-only modalities are never targets."""
    weight: float = 1.0
    """How often this pair is chosen, relative to the others."""
    keep: Keep = "uniform"
    """Share of a sequence's tokens kept as input: uniform in (0, 1), all of them, or all or none with equal probability."""


@dataclass(frozen=True)
class MaskingConfig:
    """Budgets and mixtures."""

    input_tokens: int = 128
    """Maximum number of input tokens of a sample, over all modalities."""
    target_tokens: int = 128
    """Maximum number of target tokens of a sample, over all modalities."""
    mixtures: list[Mixture] = field(default_factory=lambda: [Mixture({REST: 0.5}, {REST: 0.5})])
    """Distributions of inputs and targets over modalities; one pair is chosen per sample."""
    unconditional: float = 0.0
    """Share of samples without any input (except the sentinel that starts a target sequence), for unconditional generation."""
    allocation: Literal["dirichlet", "uniform"] = "dirichlet"
    """How budgets are split over modalities. `dirichlet`: by the distributions of the mixtures, as in 4M. `uniform`, as in AION-1: one modality has any number of input tokens, and tokens of all others fill the budget; any other tokens are targets. Of the concentrations, it only matters then which are 0."""
    target_beta: tuple[float, float] = (0.1, 1.0)
    """With `uniform`, the share of target_tokens that a sample has is drawn from this Beta distribution."""


class MaskSampler:
    """Sample token batches.

    Args:
        static: with a number of samples, all batches have as many, and as many slots as the budgets have tokens, so that their shapes are the same;
            samples and slots without tokens are padding. 0: batches are as small as possible.

    Raises:
        MaskweaveError: a mixture lists an unknown modality or a target that is input only, a number is negative, or no token can be sampled.
    """

    def __init__(self, catalog: Catalog, masking: MaskingConfig, static: int = 0):
        self.catalog, self.static = catalog, static
        self.masking = masking
        if REST in catalog:
            raise MaskweaveError(
                f"the catalog has a modality called {REST!r}, but in model.masking this name stands for all modalities that are not listed; rename the entry"
            )
        self.names = list(catalog)
        self.ids = {m.name: m.id for m in catalog.values()}
        if masking.input_tokens < 1 or masking.target_tokens < 1:
            raise MaskweaveError(
                f"model.masking: input_tokens and target_tokens must be 1 or more, found {masking.input_tokens} and {masking.target_tokens}"
            )
        for key in ("input_tokens", "target_tokens"):
            limits.check_most(f"model.masking: {key}", getattr(masking, key), limits.SAMPLED_TOKENS)
        if not 0 <= masking.unconditional <= 1:
            raise MaskweaveError(f"model.masking: unconditional must be from 0 to 1, found {masking.unconditional}")
        if not all(0 < number < np.inf for number in masking.target_beta):
            raise MaskweaveError(f"model.masking: target_beta must be two numbers above 0, found {masking.target_beta}")
        weights = np.array([mixture.weight for mixture in masking.mixtures], float)
        if not len(weights) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            raise MaskweaveError(
                f"model.masking: needs at least one mixture with a positive weight and none with a negative weight; found {weights.tolist()}"
            )
        self.weights = weights
        self.alpha = {
            side: np.stack([self._concentrations(i, side) for i in range(len(weights))])
            for side in ("inputs", "targets")
        }
        self.keep = np.array([mixture.keep for mixture in masking.mixtures])
        self.is_sequence = np.array([m.kind == "sequence" for m in catalog.values()])

    def _concentrations(self, mixture: int, side: str) -> np.ndarray:
        """(M,) concentrations of one mixture."""
        given = getattr(self.masking.mixtures[mixture], side)
        where = f"model.masking: mixture {mixture}, {side}"
        for name, value in given.items():
            if name != REST and name not in self.catalog:
                raise MaskweaveError(
                    f"{where}: unknown modality {shown(name)}; known: {', '.join(self.names)}, and {REST!r} for all others"
                )
            if not 0 <= value < np.inf:
                raise MaskweaveError(f"{where}: the concentration of {shown(name)} must be 0 or more, found {value}")
            if side == "targets" and value > 0 and name != REST and not self.catalog[name].is_target:
                raise MaskweaveError(
                    f"{where}: {shown(name)} is of kind {self.catalog[name].kind}, which is input only; remove it"
                )
        alpha = np.array([given.get(name, given.get(REST, 0.0)) for name in self.names], float)
        if side == "targets":
            alpha *= [self.catalog[name].is_target for name in self.names]
        if not alpha.any():
            raise MaskweaveError(
                f"{where}: every concentration is 0, so no token would be chosen; set at least one above 0"
            )
        return alpha

    def __call__(self, columns: Mapping[str, Column], rng: np.random.Generator | SampleRandom) -> TokenBatch:
        """Sample the inputs and targets of a batch.

        Args:
            columns: one per modality of the catalog; modalities without a column are missing. A mixture is only used for samples that have at
                least one of its inputs and one of its targets. A sample that fits no mixture gets no tokens.
            rng: the random numbers of the samples, or a generator for their keys.
        """
        B = len(next(iter(columns.values())).present)
        rng = SampleRandom.of(rng, B)
        capacity_BM = np.stack([self._capacity(name, columns.get(name), B) for name in self.names], axis=1)
        mixture_B, inputs_BM, targets_BM = self.budgets(capacity_BM, rng)
        self._reserve_sentinels(inputs_BM, targets_BM)

        inputs: dict[str, TokenSlice] = {}
        targets: dict[str, TokenSlice] = {}
        rows: dict[str, torch.Tensor] = {}
        for m, name in enumerate(self.names):
            taken = np.flatnonzero(inputs_BM[:, m] + targets_BM[:, m])
            if not len(taken):
                continue
            column, modality = columns[name], self.catalog[name]
            own = rng[taken].stream(SHARED_STREAMS + modality.id)
            budget = inputs_BM[taken, m], targets_BM[taken, m]
            if modality.kind == "sequence":
                vocabulary = self.catalog.vocabularies[modality.vocabulary]
                inputs[name], targets[name] = sample_spans(
                    modality, vocabulary, column, taken, budget, self.keep[mixture_B[taken]], own
                )
            else:
                inputs[name], targets[name] = sample_subsets(column, taken, capacity_BM[taken, m], budget, own)
            if column.rows is not None and len(inputs[name].ids):
                sampled = column.rows[inputs[name].sample, inputs[name].position]
                rows[name] = torch.from_numpy(modality.value.normalize_rows(sampled))
        budgets = (self.masking.input_tokens, self.masking.target_tokens) if self.static else (0, 0)
        slots, _ = pack(inputs, self.ids, max(B, self.static), budgets[0], self.static > 0)
        target_slots, labels = pack(targets, self.ids, max(B, self.static), budgets[1], self.static > 0)
        return TokenBatch(slots, rows, target_slots, labels)

    def budgets(self, capacity_BM: np.ndarray, rng: SampleRandom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the mixture (B,) of each sample, and how many input and target tokens (B, M) it has of each modality.

        Args:
            capacity_BM: number of tokens that a sample has of each modality.
        """
        mixture_B, fits_B = self._choose(capacity_BM > 0, rng.stream(0))
        inputs_BM = self._inputs(self.alpha["inputs"][mixture_B], capacity_BM, rng.stream(1))
        if self.masking.unconditional:
            inputs_BM[rng.stream(2).random(1)[:, 0] < self.masking.unconditional] = 0
        targets_BM = self._targets(self.alpha["targets"][mixture_B], capacity_BM, inputs_BM, rng.stream(3))
        inputs_BM[~fits_B], targets_BM[~fits_B] = 0, 0
        return mixture_B, inputs_BM, targets_BM

    def _inputs(self, alpha_BM: np.ndarray, capacity_BM: np.ndarray, rng: SampleRandom) -> np.ndarray:
        """(B, M) input tokens of each modality."""
        if self.masking.allocation == "dirichlet":
            return dirichlet_budgets(alpha_BM, capacity_BM, self.masking.input_tokens, rng)
        return first_budgets(np.where(alpha_BM > 0, capacity_BM, 0), self.masking.input_tokens, rng)

    def _targets(
        self, alpha_BM: np.ndarray, capacity_BM: np.ndarray, inputs_BM: np.ndarray, rng: SampleRandom
    ) -> np.ndarray:
        """(B, M) target tokens of each modality."""
        # Sequences have one more target: the closing sentinel after the last token.
        most_BM = capacity_BM + ((capacity_BM > 0) & self.is_sequence)
        if self.masking.allocation == "dirichlet":
            return dirichlet_budgets(alpha_BM, most_BM, self.masking.target_tokens, rng)
        free_BM = np.where(
            self.is_sequence, most_BM, capacity_BM - inputs_BM
        )  # what a sequence shows is chosen with its spans
        numbers_B = target_numbers(self.masking.target_beta, self.masking.target_tokens, rng.stream(0))
        return fill(np.where(alpha_BM > 0, free_BM, 0), numbers_B, rng.stream(1))

    def _choose(self, present_BM: np.ndarray, rng: SampleRandom) -> tuple[np.ndarray, np.ndarray]:
        """Choose a mixture for each sample, by weight among those for which it has an input and a target.

        Returns:
            (B,) mixtures, and (B,) bool, whether any mixture fits.
        """
        possible = [((self.alpha[side] > 0)[None] & present_BM[:, None]).any(axis=2) for side in ("inputs", "targets")]
        cumulative_BX = np.cumsum(self.weights * possible[0] * possible[1], axis=1)  # X mixtures
        threshold_B = rng.random(1)[:, 0] * cumulative_BX[:, -1]
        chosen_B = (cumulative_BX <= threshold_B[:, None]).sum(axis=1).clip(max=len(self.weights) - 1)
        return chosen_B, cumulative_BX[:, -1] > 0

    def _capacity(self, name: str, column: Column | None, B: int) -> np.ndarray:
        """(B,) number of tokens of a modality that can be sampled."""
        if column is None:
            return np.zeros(B, np.int64)
        if column.valid is not None:
            return column.tokens(self.catalog[name].tokens).sum(axis=1)
        most = column.length if column.length is not None else self.catalog[name].tokens
        return np.where(column.present, most, 0).astype(np.int64)

    def _reserve_sentinels(self, inputs_BM: np.ndarray, targets_BM: np.ndarray) -> None:
        """Reserve one input token for each sequence that is only a target: as in generation, its first sentinel is input."""
        for m in np.flatnonzero(self.is_sequence):
            rows = np.flatnonzero((targets_BM[:, m] > 0) & (inputs_BM[:, m] == 0))
            full = inputs_BM[rows].sum(axis=1) >= self.masking.input_tokens
            stuck = full & (inputs_BM[rows].max(axis=1) <= 1)  # no modality can give up a token: drop this target
            targets_BM[rows[stuck], m] = 0
            giving = rows[full & ~stuck]
            inputs_BM[giving, inputs_BM[giving].argmax(axis=1)] -= 1
            inputs_BM[rows[~stuck], m] = 1


def sample_subsets(
    column: Column,
    taken: np.ndarray,
    capacity: np.ndarray,
    budget: tuple[np.ndarray, np.ndarray],
    rng: SampleRandom,
) -> tuple[TokenSlice, TokenSlice]:
    """Sample disjoint random subsets of a grid (or of a set of vectors) as input and target. Targets are limited to the tokens that are not input."""
    L = column.ids.shape[1] if column.ids is not None else column.rows.shape[1]  # type: ignore[union-attr]
    keys = rng.random(L, dtype=np.float32)
    if column.valid is None:
        keys[np.arange(L) >= capacity[:, None]] = 2.0  # padding vectors come last
    else:
        keys[~column.valid[taken]] = 2.0
    order = keys.argsort(axis=1)
    n_in, n_out = budget[0], np.minimum(budget[1], capacity - budget[0])
    rank = np.arange(L)
    parts = []
    for chosen in (rank < n_in[:, None], (rank >= n_in[:, None]) & (rank < (n_in + n_out)[:, None])):
        row, _ = np.nonzero(chosen)
        sample, position = taken[row], order[chosen]
        ids = (
            column.ids[sample, position].astype(np.int64) if column.ids is not None else np.zeros(len(sample), np.int64)
        )
        parts.append(TokenSlice(sample, ids, position, ids))
    return parts[0]._replace(labels=None), parts[1]


def sample_spans(
    modality: Modality,
    vocabulary: Vocabulary,
    column: Column,
    taken: np.ndarray,
    budget: tuple[np.ndarray, np.ndarray],
    keep: np.ndarray,
    rng: SampleRandom,
) -> tuple[TokenSlice, TokenSlice]:
    """Drop spans of a sequence. Returns the input, with one sentinel per dropped span, and the target, with all sentinels and their spans.

    The keep probability is lowered by a factor of `STEP` until the input fits its budget. A target over its budget is cut to start at a
    random sentinel.
    """
    assert column.ids is not None and column.length is not None
    length_b = column.length[taken]
    L = int(length_b.max())
    ids_bL = column.ids[taken, :L].astype(np.int64)
    valid_bL = np.arange(L) < length_b[:, None]
    draws = rng.stream(0).random(-(-L // modality.chunk))
    draw_bL = np.repeat(draws, modality.chunk, axis=1)[:, :L]  # a chunk is kept or dropped as a unit
    draw_bL[~valid_bL] = 2.0  # never kept
    p_b = np.where(keep == "all", 1.0, rng.stream(1).random(1)[:, 0])
    p_b = np.where(keep == "all_or_nothing", np.round(p_b), p_b)

    n_in, n_out = budget
    kept_bL = np.empty((len(taken), L), bool)
    start_bL = np.empty((len(taken), L), bool)
    p_b[n_in <= 1] = 0.0  # only the sentinel fits
    least_b, p_b = _at_most(draw_bL, n_in, p_b)
    todo = np.arange(len(taken))
    while len(todo):
        kept = draw_bL[todo] < p_b[todo, None]
        dropped = valid_bL[todo] & ~kept
        start = dropped.copy()
        start[:, 1:] &= kept[:, :-1]
        few = _count(kept | start) <= n_in[todo]
        if vocabulary.sentinels < L // 2 + 3:  # otherwise the sentinels always suffice
            few &= _count(start) + 2 <= vocabulary.sentinels
        fits = few | (p_b[todo] == 0)
        kept_bL[todo[fits]], start_bL[todo[fits]] = kept[fits], start[fits]
        todo = todo[~fits]
        p_b[todo] *= STEP
        p_b[todo[p_b[todo] <= least_b[todo]]] = 0.0  # no token would be kept

    sentinel_bL = vocabulary.first_sentinel + start_bL.cumsum(axis=1)  # spans count from 1
    shown = kept_bL | (start_bL & (n_in > 0)[:, None])
    row, _ = np.nonzero(shown)
    position = (shown.cumsum(axis=1) - 1)[shown]
    source = TokenSlice(taken[row], np.where(kept_bL, ids_bL, sentinel_bL)[shown], position)
    return source, _span_targets(ids_bL, valid_bL & ~kept_bL, start_bL, sentinel_bL, taken, n_out, rng.stream(2))


def _at_most(draw_bL: np.ndarray, most_b: np.ndarray, p_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest draw of each row, and p_b lowered by as many factors of `STEP` as needed so that at most `most_b` draws are below it."""
    ordered = np.sort(draw_bL, axis=1)
    L = ordered.shape[1]
    limit_b = np.where(most_b < L, ordered[np.arange(len(p_b)), np.minimum(most_b, L - 1)], np.inf)
    lowered_b = np.where(p_b > limit_b, limit_b, 1.0) / np.where(p_b > limit_b, p_b, 1.0)
    with np.errstate(divide="ignore"):
        return ordered[:, 0], p_b * STEP ** np.ceil(np.log(lowered_b) / np.log(STEP))


def _count(flags_bL: np.ndarray) -> np.ndarray:
    """(b,) number of set flags per row; several times faster than a sum of bools."""
    return np.bitwise_count(np.packbits(flags_bL, axis=1)).sum(axis=1, dtype=np.int64)


def _span_targets(
    ids_bL: np.ndarray,
    dropped_bL: np.ndarray,
    start_bL: np.ndarray,
    sentinel_bL: np.ndarray,
    taken: np.ndarray,
    n_out: np.ndarray,
    rng: SampleRandom,
) -> TokenSlice:
    """Sentinel, span, sentinel, span, ..., closing sentinel. Each token except the last is decoder input; the token after it is its label."""
    b, L = ids_bL.shape
    stream = np.empty((b, 2 * L + 1), np.int64)  # a slot for a sentinel before each token, and one at the end
    stream[:, 0:-1:2], stream[:, 1::2] = sentinel_bL, ids_bL
    used = np.zeros((b, 2 * L + 1), bool)
    used[:, 0:-1:2], used[:, 1::2] = start_bL, dropped_bL
    spans = start_bL.sum(axis=1)
    stream[:, -1] = sentinel_bL[:, -1] + 1
    used[:, -1] = spans > 0

    rank = used.cumsum(axis=1) - 1
    over = used.sum(axis=1) > n_out + 1
    if over.any():
        chosen = (rng.random(1)[:, 0] * spans).astype(np.int64) + 1  # the first span to keep, counted from 1
        begins = used.copy()
        begins[:, 1::2] = False
        first = ((begins.cumsum(axis=1) == chosen[:, None]) & begins).argmax(axis=1)
        rank -= np.where(over, rank[np.arange(b), first], 0)[:, None]
    used &= (rank >= 0) & (rank <= n_out[:, None]) & (n_out > 0)[:, None]
    row, _ = np.nonzero(used)
    flat, position = stream[used], rank[used]
    read = np.zeros(len(row), bool)
    read[:-1] = row[1:] == row[:-1]  # all except the last of each row
    predicted = np.flatnonzero(read) + 1
    return TokenSlice(taken[row[read]], flat[read], position[read], flat[predicted])


class TokenBatches:
    """`batches[i]` is the i-th sampled batch, a pure function of seed and i. What a sample draws depends on its place i · batch_size + b alone,
    so batches of another size have the same tokens.

    Args:
        shuffle: if False, samples come in order and every pass samples the same tokens, for validation.
    """

    def __init__(
        self,
        data: TokenData | MixedTokens,
        sampler: MaskSampler,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
    ):
        self.data, self.sampler, self.seed = data, sampler, seed
        self.order = Order(data.counts, batch_size, seed, shuffle, data.weights, data.windows)

    def static(self) -> Self:
        """Returns the same batches, padded so that all have the same shapes; see `MaskSampler`."""
        batches = copy.copy(self)
        batches.sampler = MaskSampler(self.sampler.catalog, self.sampler.masking, self.order.batch_size)
        return batches

    def __len__(self) -> int:
        """Batches of one pass over the data."""
        return len(self.order)

    def __getitem__(self, i: int) -> TokenBatch:
        indices = self.order[i]
        rng = SampleRandom.at(self.seed, i * self.order.batch_size + np.arange(len(indices)))
        return self.sampler(self.data.columns(indices), rng)
