"""Scalars: one number for the whole sample, such as a redshift, a mass or a temperature. It is one token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from maskweave.errors import MaskweaveError, shown
from maskweave.values.array import check_range, of_tensor
from maskweave.values.base import Size, TextLabels, ValueType, refuse
from maskweave.values.bins import fit_bins
from maskweave.values.distribution import INTERVAL, NumberDistribution, point
from maskweave.values.items import MAX_BINS, is_number
from maskweave.values.metrics import Metric, explained_variance, mean, root_mean
from maskweave.values.remarks import remark
from maskweave.values.rules import Rules
from maskweave.values.scales import Scale, check_scale, from_scale, to_scale
from maskweave.values.single import SINGLE_ENDINGS, parse_number, read_single, says_nothing

SLACK = 1e-6
"""Numbers outside the range by at most this share of it are rounding errors and are clipped."""
EMBEDDING_WIDTH = 32


@dataclass(frozen=True)
class Scalar(ValueType):
    """One number for the whole sample. It is one token: bins hold equal shares of the training values, and are stored with the tokenizer."""

    type: ClassVar[str] = "scalar"
    python: ClassVar[str] = "float, in `unit`"
    kinds: ClassVar[tuple[str, ...]] = ("grid",)
    may_be_empty = True
    tokenized_by = "rules"
    mergeable = True
    head = "numbers"
    stored_facts = ("type", "key")
    default_metrics = ("mae", "rmse", "r2", "nll", "coverage")

    bins: int = 64
    """Most bins, which is the size of the vocabulary. There are fewer if a bin would hold less than ten training values. If the training values
    repeat and no more of them differ, as for counts, each number has its own bin."""
    scale: Scale = "linear"
    """`linear`; `log`, for numbers above 0 that span powers of ten; or `asinh`, for such numbers of both signs. Predictions are means on this scale."""
    softening: float = 1.0
    """Scale `asinh`: numbers below it are on a nearly linear scale, in `unit`."""
    smoothing: float = 1.0
    """In training, targets are spread over neighboring bins with this standard deviation in bins, so that near misses cost less; 0: not."""
    range: tuple[float, float] | None = None
    """Lowest and highest valid number."""
    outside: Literal["refuse", "clip", "missing"] = "refuse"
    """What happens to numbers in files that are outside of the range: they are refused, clipped to it, or their samples lack the scalar."""
    unit: str = ""
    """Unit of the number, for figures and messages."""
    key: str = ""
    """Name of the number in files that hold several: JSON objects, tables with one row, archives of arrays. Empty: the file holds only this number.
    Files whose number is empty, null or NaN, or that lack the key, say that it is missing."""

    def check_settings(self, kind: str) -> None:
        if not 2 <= self.bins <= MAX_BINS:
            raise MaskweaveError(f"value.bins must be 2 to {MAX_BINS:,}, found {self.bins}")
        if not 0 <= self.smoothing <= self.bins:
            raise MaskweaveError(f"value.smoothing must be 0 to value.bins {self.bins}, found {self.smoothing}")
        if self.range is not None:
            check_range(*self.range, "value.range")
        elif self.outside != "refuse":
            raise MaskweaveError(f"value.outside is {self.outside!r}, but there is no value.range; set one")
        check_scale(self.scale, self.softening, self.range[0] if self.range else None, "value.")

    def describe(self) -> str:
        return f"{self.type}, {self.bins} bins" + f", {self.scale}" * (self.scale != "linear")

    def describe_range(self) -> str:
        return f"{self.range[0]:g} to {self.range[1]:g}" if self.range else "any"

    def check(self, value: Any, where: str) -> float:
        if not is_number(value):
            raise refuse(where, shown(value), "a finite number")
        low, high = self.range or (-math.inf, math.inf)
        if self._is_outside(value):
            if self.outside != "clip":
                raise refuse(
                    where,
                    f"{value:.6g}",
                    f"{low:g} to {high:g} {self.unit}".rstrip(),
                    "check the unit, widen the entry's value.range, or set its value.outside to clip or missing",
                )
            remark(f"numbers outside of {low:g} to {high:g}, clipped")
        if self.scale == "log" and value <= 0:
            raise refuse(where, f"{value:.6g}", "a number above 0", "the entry's value.scale is log; use asinh")
        return float(min(max(value, low), high))

    def _is_outside(self, number: float) -> bool:
        if self.range is None:
            return False
        slack = SLACK * (self.range[1] - self.range[0])
        return not self.range[0] - slack <= number <= self.range[1] + slack

    def from_python(self, value: Any, where: str) -> Any:
        """Arrays and tensors of one number, and text, become numbers."""
        value = of_tensor(value, where)
        if isinstance(value, np.ndarray):
            if math.prod(value.shape) != 1:
                raise refuse(where, shown(value), "one number")
            return value.item()
        if isinstance(value, str):
            return parse_number(value, where)
        return value

    def typed(self, text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None

    @property
    def endings(self) -> tuple[str, ...]:
        return SINGLE_ENDINGS

    def parse(self, content: bytes, ending: str, where: str) -> Any:
        found = read_single(content, ending, self.key, where)
        if isinstance(found, str):
            found = None if says_nothing(found) else parse_number(found, where)
        if found is None or (isinstance(found, float) and math.isnan(found)):
            return None
        if self.outside == "missing" and is_number(found) and self._is_outside(found):
            low, high = self.range or (-math.inf, math.inf)
            remark(f"numbers outside of {low:g} to {high:g}, missing")
            return None
        return found

    def write(self, value: Any) -> tuple[bytes, str]:
        return super().write({self.key: value} if self.key else value)

    # Tokens

    @property
    def rule_tokens(self) -> tuple[int, int]:
        return 1, self.bins

    def fit_rules(self, values: Sequence[float]) -> dict[str, Any]:
        edges, centers = fit_bins(np.asarray(values, np.float64), self.bins, self.scale, self.softening)
        return {"bin_edges": edges.tolist(), "bin_centers": centers.tolist()}

    def rules(self, facts: Mapping[str, Any]) -> "ScalarRules":
        try:
            edges, centers = (np.asarray(facts[name], np.float64) for name in ("bin_edges", "bin_centers"))
        except (KeyError, TypeError, ValueError) as error:
            raise MaskweaveError(f"expected lists of numbers 'bin_edges' and 'bin_centers' ({error})") from error
        K = len(centers)
        if not 1 <= K <= self.bins or edges.shape != (K + 1,) or not (np.diff(edges) > 0).all():
            raise MaskweaveError(f"expected 1 to {self.bins} centers between ascending edges, found {shown(facts)}")
        return ScalarRules(self, edges, centers)

    @property
    def target_smoothing(self) -> np.ndarray | None:
        if not self.smoothing:
            return None
        distance = np.arange(min(math.ceil(3 * self.smoothing), self.bins - 1) + 1)
        return np.exp(-0.5 * (distance / self.smoothing) ** 2).astype(np.float32)

    # Regression

    @property
    def number_scale(self) -> tuple[str, Scale, float]:
        return self.unit, self.scale, self.softening

    def to_network(self, values: Sequence[float]) -> Tensor:
        """Returns float64 (B, 1), the numbers on the scale: float32 would round times and identifiers."""
        return torch.from_numpy(np.atleast_1d(to_scale(values, self.scale, self.softening)).reshape(-1, 1))

    def from_network(self, output: Tensor) -> np.ndarray:
        """Returns (B,) numbers in the unit."""
        return from_scale(output.detach().cpu().double().numpy()[:, 0], self.scale, self.softening)

    # Scores and ensembles

    def metrics(self, parse: TextLabels | None = None) -> dict[str, Metric]:
        """`mae` and `rmse` in the unit; `r2`, the explained share of the variance, and `scaled_mae` on the scale (`log`: in powers of ten); `nll`,
        the mean of -log of the predicted density at the truth, in nats, and `coverage`, the share of truths in the central 90% interval, for
        predictions with a distribution."""
        scaled = lambda x: to_scale(x, self.scale, self.softening)  # noqa: E731
        typical = lambda values: float(np.median(values))  # noqa: E731
        return {
            "mae": Metric("MAE", "lower", lambda p, t: np.array([abs(point(p) - t), 1.0]), mean, typical),
            "rmse": Metric(
                "RMSE",
                "lower",
                lambda p, t: np.array([(point(p) - t) ** 2, 1.0]),
                root_mean,
                lambda values: float(np.mean(values)),
            ),
            "r2": Metric(
                "R²",
                "higher",
                partial(_variance_sums, scaled),
                explained_variance,
                lambda values: self.merge(values, 0),
            ),
            "scaled_mae": Metric(
                "MAE on the scale",
                "lower",
                lambda p, t: np.array([abs(scaled(point(p)) - scaled(t)), 1.0]),
                mean,
                typical,
            ),
            "nll": Metric("NLL", "lower", _negative_log_density, mean, self.histogram),
            "coverage": Metric(f"coverage of {INTERVAL:.0%}", f"{INTERVAL:g}", _is_covered, mean, self.histogram),
        }

    def histogram(self, values: Sequence[float]) -> NumberDistribution:
        """Returns the distribution of training values in about √S bins, the best constant answer."""
        bins = min(self.bins, max(1, math.isqrt(len(values))))
        edges, centers = fit_bins(np.asarray(values, np.float64), bins, self.scale, self.softening)
        counts = np.bincount(np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(centers) - 1))
        return NumberDistribution(edges, centers, counts / len(values), self.unit, self.scale, self.softening)

    def merge(self, values: Sequence[float], overlap: float) -> float:
        """The mean on the scale."""
        on_scale = np.mean(to_scale(values, self.scale, self.softening))
        return float(from_scale(on_scale, self.scale, self.softening))

    # Figures

    @property
    def curve(self) -> bool:
        return True

    def draw(
        self, value: Any, size: Size, over: Any = None, span: tuple[float, float] | None = None, reference: Any = None
    ) -> np.ndarray:
        """Draws the number; of a distribution, also its density, with the 90% interval and the reference as a line."""
        from maskweave.values.drawing_predictions import density_figure
        from maskweave.values.lettering import text_panel

        if isinstance(value, NumberDistribution):
            return density_figure(value, size, span, reference, logarithmic=self.scale == "log")
        return text_panel(f"{value:.4g} {self.unit}".rstrip(), size)

    def span(self, values: Sequence[Any]) -> tuple[float, float] | None:
        ends = [v.interval(0.98) if isinstance(v, NumberDistribution) else (v, v) for v in values]
        low, high = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0)
        return (low, high) if high > low else None


class ScalarRules(Rules):
    """Bins of a scalar.

    Args:
        edges: (K + 1,) ascending, in the unit.
        centers: (K,) value of each bin.
    """

    answers_by_distribution = True

    def __init__(self, value: Scalar, edges: np.ndarray, centers: np.ndarray):
        self.value, self.edges, self.centers = value, edges, centers

    def encode(self, values: Sequence[Any]) -> np.ndarray:
        bins = np.searchsorted(self.edges, np.asarray(values, np.float64), "right") - 1
        return np.clip(bins, 0, len(self.centers) - 1)[:, None]

    def decode(self, ids_BL: np.ndarray) -> list[float]:
        return self.centers[np.minimum(ids_BL[:, 0], len(self.centers) - 1)].tolist()

    def distribution(self, probabilities_LV: np.ndarray) -> NumberDistribution:
        p = np.asarray(probabilities_LV[0, : len(self.centers)], np.float64)  # ids without a bin are never a target
        p = p / p.sum() if p.sum() > 0 else np.full(len(p), 1 / len(p))
        v = self.value
        return NumberDistribution(self.edges, self.centers, p, v.unit, v.scale, v.softening)

    def embeddings(self) -> np.ndarray:
        """Vectors on a curve, in the order of the bins."""
        position = np.arange(self.value.bins)[:, None] / 10.0 ** (4 * np.arange(EMBEDDING_WIDTH // 2) / EMBEDDING_WIDTH)
        return np.concatenate([np.sin(position), np.cos(position)], axis=1).astype(np.float32)


def _variance_sums(scaled: Any, prediction: Any, truth: float) -> np.ndarray:
    p, t = float(scaled(point(prediction))), float(scaled(truth))
    return np.array([(p - t) ** 2, t, t**2, 1.0])


def _negative_log_density(prediction: Any, truth: float) -> np.ndarray:
    if not isinstance(prediction, NumberDistribution):
        return np.zeros(2)
    return np.array([-prediction.log_density(truth), 1.0])


def _is_covered(prediction: Any, truth: float) -> np.ndarray:
    if not isinstance(prediction, NumberDistribution):
        return np.zeros(2)
    low, high = prediction.interval(INTERVAL)
    return np.array([low <= truth <= high, 1.0])
