"""Mask sampling: which tokens of a batch become inputs, and which become targets. 4M (https://arxiv.org/abs/2312.06647), section 2.2 and appendix.

A mixture of Dirichlet pairs gives every sample its own share of the token budgets per modality. Of a grid, a random subset is input and
another, disjoint one is target. Of a sequence, spans are dropped: each leaves a sentinel in the input, and the target lists every
sentinel with its span (https://arxiv.org/abs/1910.10683). Everything is vectorized over the batch, in NumPy, from one generator.

Dimension letters: B samples, M modalities, L tokens of a modality, R rounds, b the rows of a batch that a modality takes part in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from maskweave import limits
from maskweave.data.columns import Column
from maskweave.data.mixing import MixedTokens
from maskweave.data.order import Order
from maskweave.data.token_store import TokenData
from maskweave.errors import MaskweaveError, shown
from maskweave.masking.batch import TokenBatch, TokenSlice, pack
from maskweave.modality.catalogs import Catalog
from maskweave.modality.entry import Modality
from maskweave.modality.vocabulary import Vocabulary

Keep = Literal["uniform", "all", "all_or_nothing"]
STEP = 0.9
"""Factor by which the keep probability of a sequence is lowered until what is kept fits."""
REST = "default"
"""In a mixture's concentrations: every modality that is not named."""


@dataclass(frozen=True)
class Mixture:
    """One pair of Dirichlet distributions over modalities."""

    inputs: dict[str, float]
    """Concentration per modality, `default` for all others (0 where absent). 0: never; small: few modalities at a time."""
    targets: dict[str, float]
    """The same of what is predicted; input-only modalities never are."""
    weight: float = 1.0
    """How often this pair is chosen, relative to the others."""
    keep: Keep = "uniform"
    """Share of a sequence's tokens kept as input: uniform in (0, 1), all of them, or all or none with even odds."""


@dataclass(frozen=True)
class MaskingConfig:
    """Budgets and mixtures."""

    input_tokens: int = 128
    """Most input tokens of a sample, over all modalities."""
    target_tokens: int = 128
    """Most target tokens of a sample, over all modalities."""
    mixtures: list[Mixture] = field(default_factory=lambda: [Mixture({REST: 0.5}, {REST: 0.5})])
    """Pairs of which every sample draws one: what goes in, and what is predicted."""
    unconditional: float = 0.0
    """Share of samples drawn with no input at all (but the sentinel that asks for a sequence), for generation from nothing."""


class MaskSampler:
    """Draws token batches.

    Raises:
        MaskweaveError: a mixture names an unknown modality or one that cannot be a target, a number is negative, or nothing can be drawn.
    """

    def __init__(self, catalog: Catalog, masking: MaskingConfig):
        self.catalog = catalog
        self.masking = masking
        if REST in catalog:
            raise MaskweaveError(
                f"model.masking: {REST!r} stands for all modalities that are not named; rename the entry"
            )
        self.names = list(catalog)
        self.ids = {m.name: m.id for m in catalog.values()}
        if masking.input_tokens < 1 or masking.target_tokens < 1:
            raise MaskweaveError(
                f"model.masking: input_tokens and target_tokens must be 1 or more, found {masking.input_tokens} and {masking.target_tokens}"
            )
        for key in ("input_tokens", "target_tokens"):
            limits.check_most(f"model.masking: {key}", getattr(masking, key), limits.DRAWN_TOKENS)
        if not 0 <= masking.unconditional <= 1:
            raise MaskweaveError(f"model.masking: unconditional must be from 0 to 1, found {masking.unconditional}")
        weights = np.array([mixture.weight for mixture in masking.mixtures], float)
        if not len(weights) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
            raise MaskweaveError(
                f"model.masking: needs at least one mixture of positive weight, and none below 0; found {weights.tolist()}"
            )
        self.weights = weights
        self.alpha = {
            side: np.stack([self._concentrations(i, side) for i in range(len(weights))])
            for side in ("inputs", "targets")
        }
        self.keep = np.array([mixture.keep for mixture in masking.mixtures])
        self.is_sequence = np.array([m.kind == "sequence" for m in catalog.values()])

    def _concentrations(self, mixture: int, side: str) -> np.ndarray:
        """(M,) of one mixture."""
        given = getattr(self.masking.mixtures[mixture], side)
        where = f"model.masking: mixture {mixture}, {side}"
        for name, value in given.items():
            if name != REST and name not in self.catalog:
                raise MaskweaveError(
                    f"{where}: unknown modality {shown(name)}; known: {', '.join(self.names)} and {REST!r} for the others"
                )
            if not 0 <= value < np.inf:
                raise MaskweaveError(
                    f"{where}: concentration of {shown(name)} must be a number of 0 or more, found {value}"
                )
            if side == "targets" and value > 0 and name != REST and not self.catalog[name].is_target:
                raise MaskweaveError(
                    f"{where}: {shown(name)} is of kind {self.catalog[name].kind}, which is input only; remove it"
                )
        alpha = np.array([given.get(name, given.get(REST, 0.0)) for name in self.names], float)
        if side == "targets":
            alpha *= [self.catalog[name].is_target for name in self.names]
        if not alpha.any():
            raise MaskweaveError(f"{where}: every concentration is 0, so nothing would be drawn")
        return alpha

    def __call__(self, columns: Mapping[str, Column], rng: np.random.Generator) -> TokenBatch:
        """Draw inputs and targets of a batch.

        Args:
            columns: per modality of the catalog; those left out are missing. A sample takes part only in mixtures of which it has at least
                one input and one target; one that fits none is left out of the batch's tokens.
        """
        B = len(next(iter(columns.values())).present)
        capacity_BM = np.stack([self._capacity(name, columns.get(name), B) for name in self.names], axis=1)
        mixture_B, fits_B = self._choose(capacity_BM > 0, rng)
        inputs_BM = budgets(self.alpha["inputs"][mixture_B], capacity_BM, self.masking.input_tokens, rng)
        if self.masking.unconditional:
            inputs_BM[rng.random(B) < self.masking.unconditional] = 0
        # Of a sequence one more: after its last token comes the closing sentinel.
        most_BM = capacity_BM + ((capacity_BM > 0) & self.is_sequence)
        targets_BM = budgets(self.alpha["targets"][mixture_B], most_BM, self.masking.target_tokens, rng)
        inputs_BM[~fits_B], targets_BM[~fits_B] = 0, 0
        self._reserve_sentinels(inputs_BM, targets_BM)

        inputs: dict[str, TokenSlice] = {}
        targets: dict[str, TokenSlice] = {}
        rows: dict[str, torch.Tensor] = {}
        for m, name in enumerate(self.names):
            taken = np.flatnonzero(inputs_BM[:, m] + targets_BM[:, m])
            if not len(taken):
                continue
            column, modality = columns[name], self.catalog[name]
            budget = inputs_BM[taken, m], targets_BM[taken, m]
            if modality.kind == "sequence":
                vocabulary = self.catalog.vocabularies[modality.vocabulary]
                inputs[name], targets[name] = sample_spans(
                    modality, vocabulary, column, taken, budget, self.keep[mixture_B[taken]], rng
                )
            else:
                inputs[name], targets[name] = sample_subsets(column, taken, capacity_BM[taken, m], budget, rng)
            if column.rows is not None and len(inputs[name].ids):
                drawn = column.rows[inputs[name].sample, inputs[name].position]
                rows[name] = torch.from_numpy(modality.value.normalize_rows(drawn))
        slots, _ = pack(inputs, self.ids, B)
        target_slots, labels = pack(targets, self.ids, B)
        return TokenBatch(slots, rows, target_slots, labels)

    def _choose(self, there_BM: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A mixture for each sample, by weight among those that it has an input and a target for, and whether there is one."""
        possible = [((self.alpha[side] > 0)[None] & there_BM[:, None]).any(axis=2) for side in ("inputs", "targets")]
        cumulative_BX = np.cumsum(self.weights * possible[0] * possible[1], axis=1)  # X mixtures
        drawn_B = rng.random(len(there_BM)) * cumulative_BX[:, -1]
        chosen_B = (cumulative_BX <= drawn_B[:, None]).sum(axis=1).clip(max=len(self.weights) - 1)
        return chosen_B, cumulative_BX[:, -1] > 0

    def _capacity(self, name: str, column: Column | None, B: int) -> np.ndarray:
        """(B,) most tokens of a modality that can be drawn."""
        if column is None:
            return np.zeros(B, np.int64)
        most = column.length if column.length is not None else self.catalog[name].tokens
        return np.where(column.present, most, 0).astype(np.int64)

    def _reserve_sentinels(self, inputs_BM: np.ndarray, targets_BM: np.ndarray) -> None:
        """A sequence that is wholly target still shows one sentinel in the input, as it does in generation: make room for it."""
        for m in np.flatnonzero(self.is_sequence):
            rows = np.flatnonzero((targets_BM[:, m] > 0) & (inputs_BM[:, m] == 0))
            full = inputs_BM[rows].sum(axis=1) >= self.masking.input_tokens
            stuck = full & (inputs_BM[rows].max(axis=1) <= 1)  # nobody can give a token up: leave this target out
            targets_BM[rows[stuck], m] = 0
            giving = rows[full & ~stuck]
            inputs_BM[giving, inputs_BM[giving].argmax(axis=1)] -= 1
            inputs_BM[rows[~stuck], m] = 1


def log_gamma(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logarithms of gamma variates, -inf where `alpha` is 0. Normalized, their exponentials are a Dirichlet draw.

    Drawn as G(α) = G(α + 1) · U^(1/α), so that small concentrations do not underflow.
    """
    with np.errstate(divide="ignore"):
        return np.log(rng.standard_gamma(alpha + 1.0)) - rng.standard_exponential(alpha.shape) / alpha


def budgets(alpha_BM: np.ndarray, capacity_BM: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """(B, M) tokens per modality: Dirichlet proportions of `total`, rounded down, the rest handed out one by one, clipped to the capacity."""
    B, M = alpha_BM.shape
    alpha_BM = np.where(capacity_BM > 0, alpha_BM, 0.0)
    possible_B = np.asarray(alpha_BM.any(axis=1))
    draw_BM = np.where(possible_B[:, None], log_gamma(alpha_BM, rng), 0.0)
    share_BM = np.exp(draw_BM - draw_BM.max(axis=1, keepdims=True))
    budget_BM = np.floor(share_BM / share_BM.sum(axis=1, keepdims=True) * total).astype(np.int64) * possible_B[:, None]
    rest_B = np.where(possible_B, total - budget_BM.sum(axis=1), 0)
    R = int(rest_B.max(initial=0))
    if R:
        b = np.repeat(np.arange(B), rest_B)  # one fresh draw for each token that is left
        winner = log_gamma(alpha_BM[b], rng).argmax(axis=1)
        budget_BM += np.bincount(b * M + winner, minlength=B * M).reshape(B, M)
    return np.minimum(budget_BM, capacity_BM)


def sample_subsets(
    column: Column,
    taken: np.ndarray,
    capacity: np.ndarray,
    budget: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> tuple[TokenSlice, TokenSlice]:
    """Disjoint random subsets of a lattice (or of a bag of vectors) as input and target; targets are limited to what is left over."""
    L = column.ids.shape[1] if column.ids is not None else column.rows.shape[1]  # type: ignore[union-attr]
    keys = rng.random((len(taken), L), dtype=np.float32)
    keys[np.arange(L) >= capacity[:, None]] = 2.0  # vectors that are not there come last
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
    rng: np.random.Generator,
) -> tuple[TokenSlice, TokenSlice]:
    """Drop spans of a sequence: the input with one sentinel a span, and the target's sentinels and spans.

    The keep probability is lowered by a factor of `STEP` until the input fits its budget. A target over budget starts at a random sentinel.
    """
    assert column.ids is not None and column.length is not None
    length_b = column.length[taken]
    L = int(length_b.max())
    ids_bL = column.ids[taken, :L].astype(np.int64)
    valid_bL = np.arange(L) < length_b[:, None]
    draws = rng.random((len(taken), -(-L // modality.chunk)))
    draw_bL = np.repeat(draws, modality.chunk, axis=1)[:, :L]  # a chunk is kept or dropped as one
    draw_bL[~valid_bL] = 2.0  # never kept
    p_b = np.where(keep == "all", 1.0, rng.random(len(taken)))
    p_b = np.where(keep == "all_or_nothing", np.round(p_b), p_b)

    n_in, n_out = budget
    kept_bL = np.empty((len(taken), L), bool)
    start_bL = np.empty((len(taken), L), bool)
    p_b[n_in <= 1] = 0.0  # room for the sentinel alone
    least_b, p_b = _at_most(draw_bL, n_in, p_b)
    todo = np.arange(len(taken))
    while len(todo):
        kept = draw_bL[todo] < p_b[todo, None]
        dropped = valid_bL[todo] & ~kept
        start = dropped.copy()
        start[:, 1:] &= kept[:, :-1]
        few = _count(kept | start) <= n_in[todo]
        if vocabulary.sentinels < L // 2 + 3:  # else there are sentinels for any spans
            few &= _count(start) + 2 <= vocabulary.sentinels
        fits = few | (p_b[todo] == 0)
        kept_bL[todo[fits]], start_bL[todo[fits]] = kept[fits], start[fits]
        todo = todo[~fits]
        p_b[todo] *= STEP
        p_b[todo[p_b[todo] <= least_b[todo]]] = 0.0  # nothing would be kept any more

    sentinel_bL = vocabulary.first_sentinel + start_bL.cumsum(axis=1)  # spans count from 1
    shown = kept_bL | (start_bL & (n_in > 0)[:, None])
    row, _ = np.nonzero(shown)
    position = (shown.cumsum(axis=1) - 1)[shown]
    source = TokenSlice(taken[row], np.where(kept_bL, ids_bL, sentinel_bL)[shown], position)
    return source, _span_targets(ids_bL, valid_bL & ~kept_bL, start_bL, sentinel_bL, taken, n_out, rng)


def _at_most(draw_bL: np.ndarray, most_b: np.ndarray, p_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest draw of each row, and p_b lowered step by step, all steps at once, until no more than `most_b` draws are below it."""
    ordered = np.sort(draw_bL, axis=1)
    L = ordered.shape[1]
    limit_b = np.where(most_b < L, ordered[np.arange(len(p_b)), np.minimum(most_b, L - 1)], np.inf)
    lowered_b = np.where(p_b > limit_b, limit_b, 1.0) / np.where(p_b > limit_b, p_b, 1.0)
    with np.errstate(divide="ignore"):
        return ordered[:, 0], p_b * STEP ** np.ceil(np.log(lowered_b) / np.log(STEP))


def _count(flags_bL: np.ndarray) -> np.ndarray:
    """(b,) set flags of each row; several times as fast as a sum of bools."""
    return np.bitwise_count(np.packbits(flags_bL, axis=1)).sum(axis=1, dtype=np.int64)


def _span_targets(
    ids_bL: np.ndarray,
    dropped_bL: np.ndarray,
    start_bL: np.ndarray,
    sentinel_bL: np.ndarray,
    taken: np.ndarray,
    n_out: np.ndarray,
    rng: np.random.Generator,
) -> TokenSlice:
    """Sentinel, span, sentinel, span, ..., closing sentinel: each token but the last is read, and its successor is predicted."""
    b, L = ids_bL.shape
    stream = np.empty((b, 2 * L + 1), np.int64)  # before each token a place for its sentinel, and one at the end
    stream[:, 0:-1:2], stream[:, 1::2] = sentinel_bL, ids_bL
    there = np.zeros((b, 2 * L + 1), bool)
    there[:, 0:-1:2], there[:, 1::2] = start_bL, dropped_bL
    spans = start_bL.sum(axis=1)
    stream[:, -1] = sentinel_bL[:, -1] + 1
    there[:, -1] = spans > 0

    rank = there.cumsum(axis=1) - 1
    over = there.sum(axis=1) > n_out + 1
    if over.any():
        chosen = (rng.random(b) * spans).astype(np.int64) + 1  # the span to start at, from 1
        begins = there.copy()
        begins[:, 1::2] = False
        first = ((begins.cumsum(axis=1) == chosen[:, None]) & begins).argmax(axis=1)
        rank -= np.where(over, rank[np.arange(b), first], 0)[:, None]
    there &= (rank >= 0) & (rank <= n_out[:, None]) & (n_out > 0)[:, None]
    row, _ = np.nonzero(there)
    flat, place = stream[there], rank[there]
    read = np.zeros(len(row), bool)
    read[:-1] = row[1:] == row[:-1]  # all but each row's last
    predicted = np.flatnonzero(read) + 1
    return TokenSlice(taken[row[read]], flat[read], place[read], flat[predicted])


class TokenBatches:
    """`batches[i]`: the i-th drawn batch, a pure function of seed and i.

    Args:
        shuffle: otherwise samples come in order and every pass draws the same tokens, for validation.
    """

    def __init__(
        self,
        data: TokenData | MixedTokens,
        drawer: MaskSampler,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
    ):
        self.data, self.drawer, self.seed = data, drawer, seed
        self.order = Order(data.counts, batch_size, seed, shuffle, data.weights)

    def __len__(self) -> int:
        """Batches of one pass over the data."""
        return len(self.order)

    def __getitem__(self, i: int) -> TokenBatch:
        return self.drawer(self.data.columns(self.order[i]), np.random.default_rng([self.seed, 1, i]))
