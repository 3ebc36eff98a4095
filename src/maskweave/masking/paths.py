"""Which paths, from some inputs to a target, a training's mixtures cover, and how often.

Dimension letters: B drawn samples, M modalities.
"""

from collections.abc import Sequence

import numpy as np

from maskweave.masking.fourm import MaskingConfig, MaskSampler
from maskweave.masking.random import SampleRandom
from maskweave.modality.catalogs import Catalog

DRAWN = 8192
"""Samples whose budgets are drawn."""
HARDLY = 0.001
"""Share of the training samples below which a path is hardly trained."""


class TrainedPaths:
    """How often a training sees some inputs together with a target, estimated from the budgets of drawn samples that have all modalities in full.

    Args:
        catalog: the modalities of the training.
    """

    def __init__(self, catalog: Catalog, masking: MaskingConfig):
        self.sampler = MaskSampler(catalog, masking)
        self.number = {name: m for m, name in enumerate(catalog)}
        capacity_BM = np.tile([m.tokens for m in catalog.values()], (DRAWN, 1))
        _, inputs_BM, targets_BM = self.sampler.budgets(capacity_BM, SampleRandom.at(0, np.arange(DRAWN)))
        self.inputs_BM, self.targets_BM = inputs_BM > 0, targets_BM > 0

    def is_possible(self, inputs: Sequence[str], target: str) -> bool:
        """Whether a mixture has all of the inputs, and the target."""
        given = [self.number[name] for name in inputs]
        masking, alpha = self.sampler.masking, self.sampler.alpha
        with_inputs = (alpha["inputs"][:, given] > 0).all(axis=1) if given else np.array(masking.unconditional > 0)
        has_target = alpha["targets"][:, self.number[target]] > 0
        return bool((with_inputs & has_target & (self.sampler.weights > 0)).any())

    def share(self, inputs: Sequence[str], target: str) -> float:
        """Returns the share of training samples that have tokens of all inputs, and target tokens of the target; without inputs, of samples that have none."""
        given = [self.number[name] for name in inputs]
        with_inputs_B = self.inputs_BM[:, given].all(axis=1) if given else ~self.inputs_BM.any(axis=1)
        return float((with_inputs_B & self.targets_BM[:, self.number[target]]).mean())

    def problem(self, inputs: Sequence[str], target: str) -> str:
        """Returns a sentence if the path was never or hardly trained; empty otherwise."""
        path = f"{target} from {' + '.join(inputs) or 'nothing'}"
        if not self.is_possible(inputs, target):
            return f"{path} was never trained: no mixture of model.masking has these inputs together with this target"
        share = self.share(inputs, target)
        if share >= HARDLY:
            return ""
        found = f"about 1 of {1 / share:,.0f}" if share else f"fewer than 1 of {DRAWN:,}"
        return f"{path} was hardly trained: {found} training samples have these inputs together with this target"
