"""Autoregressive decoding of a complete sequence, or of the gaps in one. 4M (https://arxiv.org/abs/2312.06647), section 3.

The encoder reads the frame: the kept tokens, with one sentinel for every gap, as in training (https://arxiv.org/abs/1910.10683). The frame of
a complete sequence is a single sentinel. The decoder reads the first sentinel and writes the first gap, the second sentinel, the second
gap, and so on.

Dimension letters: B samples, L longest sequence, F tokens of a frame.
"""

from collections.abc import Iterator

import numpy as np
import torch

from maskweave.generate.engine import Engine
from maskweave.generate.guidance import passes
from maskweave.generate.sampling import Generators, gumbel, sample
from maskweave.generate.schedule import Step
from maskweave.generate.token_state import TokenState, TokenStates
from maskweave.modality.vocabulary import Vocabulary
from maskweave.values.codec import EOS


class Gaps:
    """The sequence of one sample and its gaps, which are being generated.

    Args:
        ids: (n,) of all tokens.
        kept: (n,) whether each token is kept. Each run of tokens that are not kept is one gap; an empty sequence is one gap.
        most: maximum length of the sequence.
    """

    def __init__(self, ids: np.ndarray, kept: np.ndarray, vocabulary: Vocabulary, most: int):
        self.first, self.sentinels, self.most = vocabulary.first_sentinel, vocabulary.sentinels, most
        self.frame: list[int] = []
        self.gaps: list[list[int]] = []
        self._shares: list[list[np.ndarray | None]] = []
        for id, is_kept in zip(ids.tolist(), kept.tolist(), strict=True):
            if is_kept:
                self.frame.append(id)
            elif not self.frame or not self.is_sentinel(self.frame[-1]):
                self._open()
        if not len(ids):
            self._open()
        self.kept = int(kept.sum())
        self.current = 0
        self.ended = not self.gaps

    def _open(self) -> None:
        self.gaps.append([])
        self._shares.append([])
        self.frame.append(self.first + len(self.gaps))  # spans count from 1

    def is_sentinel(self, id: int) -> bool:
        return self.first <= id < self.first + self.sentinels

    def take(self, id: int, shares_V: np.ndarray | None = None) -> None:
        """Takes the next generated token, with the probability of each id if they are kept. The sequence ends at [EOS], at a sentinel that does not open a later gap, or at its maximum length."""
        if self.is_sentinel(id):
            self.ended = not self.current + 1 < id - self.first <= len(self.gaps)
            self.current = id - self.first - 1
            return
        self.gaps[self.current].append(id)
        self._shares[self.current].append(shares_V)
        self.ended = id == EOS or self.kept + sum(map(len, self.gaps)) >= self.most

    def assembled(self) -> list[int]:
        """Returns the sequence as generated so far, up to the first [EOS]."""
        ids: list[int] = []
        for id in self.frame:
            ids += self.gaps[id - self.first - 1] if self.is_sentinel(id) else [id]
        return ids[: ids.index(EOS) + 1 if EOS in ids else self.most]

    def shares(self) -> list[np.ndarray | None]:
        """Returns the probabilities (V,) with which each token of `assembled` was generated; None for kept ones."""
        found: list[np.ndarray | None] = []
        for id in self.frame:
            found += self._shares[id - self.first - 1] if self.is_sentinel(id) else [None]
        return found[: len(self.assembled())]


def write_sequence(
    engine: Engine, step: Step, others: TokenStates, field: TokenState, generators: Generators
) -> Iterator[None]:
    """Generates the target of every sample; yields after each token.

    Args:
        others: what else is known.
        field: (B, L) the kept tokens; `ids` is 0 past the end of an edited sequence. Receives the generated sequences.
    """
    modality = engine.catalog[step.target]
    vocabulary = engine.catalog.vocabularies[modality.vocabulary]
    assert field.ids is not None
    gaps = []
    for ids, kept in zip(field.ids, field.mask, strict=True):
        length = int(np.flatnonzero(ids).max(initial=-1)) + 1 if kept.any() else 0
        gaps.append(Gaps(ids[:length], kept[:length], vocabulary, step.tokens))
    active = np.array([b for b, gap in enumerate(gaps) if not gap.ended])
    if not len(active):
        return
    fields = {**others, step.target: _frames(gaps)}
    asked = passes(step, fields)
    longest = step.tokens + max(len(gap.gaps) for gap in gaps)
    reader = engine.reader(fields, [p.sees for p in asked], step.target, longest)
    batch = np.arange(len(gaps))  # samples in the decoder's batch; those in `active` have not ended
    read_B = torch.full((len(batch),), vocabulary.first_sentinel + 1, device=engine.device)
    for start in range(0, longest, engine.ahead):
        if len(active) < len(batch) and not reader.is_static:  # remove samples that have ended
            kept = np.flatnonzero(np.isin(batch, active))
            reader.keep(torch.from_numpy((np.arange(len(asked))[:, None] * len(batch) + kept).flatten()))
            batch, read_B = batch[kept], read_B[torch.from_numpy(kept).to(engine.device)]
        rows = torch.from_numpy(np.searchsorted(batch, active)).to(engine.device)
        found, shares = [], []
        for _ in range(min(engine.ahead, longest - start)):
            logits_nV = engine.read(reader, read_B, asked)
            if len(active) < len(batch):
                logits_nV = logits_nV[rows]
            noise = None
            if step.temperature > 0:
                active_generators = [generators[b] for b in active]
                noise = gumbel(np.ones(len(active), int), logits_nV.shape[1], active_generators, logits_nV.device)
            found.append(sample(logits_nV, noise, step.temperature, step.top_k, step.top_p))
            if field.probabilities is not None:
                shares.append((logits_nV.float() / field.calibration).softmax(dim=-1).cpu().numpy())
            read_B = read_B.index_copy(0, rows, found[-1])
        for number, ids in enumerate(torch.stack(found).tolist()):
            for row, (b, id) in enumerate(zip(active, ids, strict=True)):
                if not gaps[b].ended:
                    gaps[b].take(id, shares[number][row] if shares else None)
                    written = gaps[b].assembled()
                    field.ids[b] = 0
                    field.ids[b, : len(written)], field.mask[b] = written, np.arange(field.mask.shape[1]) < len(written)
                    if field.probabilities is not None:
                        field.probabilities[b] = np.nan
                        for n, kept in enumerate(gaps[b].shares()):
                            if kept is not None:
                                field.probabilities[b, n] = kept
            yield
            if all(gaps[b].ended for b in active):
                return
        active = np.array([b for b in active if not gaps[b].ended], int)


def _frames(gaps: list[Gaps]) -> TokenState:
    """Returns the encoder's input (B, F): kept tokens and sentinels."""
    frame = TokenState.empty(len(gaps), max(len(gap.frame) for gap in gaps))
    assert frame.ids is not None
    for b, gap in enumerate(gaps):
        frame.ids[b, : len(gap.frame)], frame.mask[b, : len(gap.frame)] = gap.frame, True
    return frame
