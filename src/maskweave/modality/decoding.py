"""Default settings for generating a modality."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from maskweave import limits
from maskweave.config import build, check_types, plain
from maskweave.errors import MaskweaveError, shown
from maskweave.files import read_yaml

LEAST = 1e-6
"""Lowest temperature above 0: logits divided by less overflow. 0 takes the likeliest token."""

MOST_POWER = 50
"""Largest POWER of an `onex` schedule; larger ones overflow."""

Scheme = Literal["maskgit", "roar", "halton", "entropy", "margin", "moment", "autoregressive"]
CHOOSING = ("maskgit", "entropy", "margin", "moment")
"""Schemes that choose positions by what the model predicts there, to which `choice_temperature` adds noise."""


@dataclass(frozen=True)
class Ramp:
    """A number as a function of the step: {from: 0, to: 3, shape: linear, interval: [0.2, 0.8]}.

    The progress of step n of N (from 0) is n / (N - 1); that of a single step is 1.
    """

    aliases: ClassVar[dict[str, str]] = {"from": "start", "to": "end"}

    start: float
    end: float | None = None
    """None: the same as `from`, a constant that may be limited to an interval."""
    shape: Literal["linear", "cosine"] = "linear"
    """From `from` to `to` evenly, or along half a period of a cosine: slowly at both ends."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Progress at which the ramp starts and ends. Outside it, guidance is off (https://arxiv.org/abs/2404.07724), and a temperature keeps the nearest value."""

    def __post_init__(self) -> None:
        check_types(self)
        first, last = self.interval
        if not 0 <= first < last <= 1:
            raise MaskweaveError(f"interval is {shown(self.interval)}; expected two increasing numbers from 0 to 1")

    @property
    def ends(self) -> tuple[float, float]:
        return self.start, self.start if self.end is None else self.end

    def is_on(self, step: int, steps: int) -> bool:
        """Whether step `step` (from 0) of `steps` lies in the interval."""
        return self.interval[0] <= progress(step, steps) <= self.interval[1]

    def at(self, step: int, steps: int) -> float:
        """Returns the number at step `step` (from 0) of `steps`."""
        first, last = self.interval
        share = min(max((progress(step, steps) - first) / (last - first), 0.0), 1.0)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        start, end = self.ends
        return start + (end - start) * share


def progress(step: int, steps: int) -> float:
    return step / (steps - 1) if steps > 1 else 1.0


def at_step(number: float | Ramp, step: int, steps: int) -> float:
    """Returns a number that may be a function of the step, at step `step` (from 0) of `steps`."""
    return number.at(step, steps) if isinstance(number, Ramp) else number


@dataclass(frozen=True)
class Remasking:
    """Generated tokens that are masked again, so that later steps can correct them: ReMDM (https://arxiv.org/abs/2503.00307, sections 4.1 and 4.2).

    The paper masks each known token with a probability; here, each step masks a number of tokens, which is its expectation. Given tokens are never masked.
    """

    scheme: Literal["cap", "conf", "loop"]
    """`cap`: any generated tokens. `conf`: by chance too, but in proportion to exp(-p), where p was a token's probability when it was sampled. In the paper, these
    weights, which add up to 1, multiply the probability, so that at most one token is masked per step; here, they only choose which. `loop`: generate up to
    `known`, then mask and predict at that level, then finish."""
    share: float
    """η: the part of the known generated tokens that each step masks again; at most as many as are unknown after it."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Progress within which tokens are masked again: from 1 - t_on to 1 - t_off in the paper's time. For `loop`, the steps of the loop."""
    known: float = 0.9
    """α_on: the part of the tokens that are known during a `loop`."""

    def __post_init__(self) -> None:
        check_types(self)
        first, last = self.interval
        for key, holds, expected in (
            ("share", 0 < self.share <= 1, "a number above 0, up to 1"),
            ("interval", 0 <= first < last <= 1, "two increasing numbers from 0 to 1"),
            ("interval", self.scheme != "loop" or 0 < first < last < 1, "numbers between 0 and 1 for a loop"),
            ("known", 0 < self.known < 1, "a number between 0 and 1"),
        ):
            if not holds:
                raise MaskweaveError(f"remask.{key} is {shown(getattr(self, key))}; expected {expected}")


@dataclass(frozen=True)
class Decoding:
    """How a modality is generated, unless a request overrides it."""

    scheme: Scheme = "roar"
    """Which tokens of a grid each step predicts; see `maskweave.generate.decode`. Sequences: `autoregressive`."""
    steps: int = 8
    """Passes over a grid; sequences take one per token."""
    token_schedule: Literal["auto", "cosine", "arccos", "linear"] = "auto"
    """How many tokens of a grid each step fixes: few at first, or the same number. `auto`: linear for ROAR, cosine for all others."""
    temperature: float | Ramp = 1.0
    temperature_schedule: str = "constant"
    """`constant`; `linear`, which falls evenly towards 0; or `onex:MIN:POWER`, temperature / step ** POWER (steps count from 1), at least MIN."""
    choice_temperature: float | Ramp = 0.0
    """Gumbel noise on the scores by which MaskGIT, `entropy`, `margin` and `moment` choose positions, times this; 0: the best ones."""
    guidance: float | Ramp = 1.0
    """Weight of the inputs, in u + guidance * (c - u): c with the inputs, u without. 1: no guidance, at half the cost."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    detokenize: Literal["sampled", "mean"] = "sampled"
    """How a grid's tokens become a value: `sampled` decodes the sampled tokens; `mean` decodes, at each token, the mean of the codebook vectors
    weighted by their probabilities. The mean has a lower error where the inputs leave the value open, as for numbers, but blurs pictures."""

    remask: Remasking | None = None
    """Generated tokens of a grid that are masked again; None: tokens stay."""

    @classmethod
    def expand(cls, content: Mapping[str, Any], where: str, key: str) -> dict[str, Any]:
        """Replaces `preset: NAME` by the settings of that name in `decoding_presets.yaml`; other keys replace those of the preset."""
        if "preset" not in content:
            return dict(content)
        rest = {name: item for name, item in content.items() if name != "preset"}
        try:
            return {**presets()[content["preset"]], **rest}
        except (KeyError, TypeError):
            named = f"{key}.preset" if key else "preset"
            raise MaskweaveError(
                f"{where}: {named} is {shown(content['preset'])}; expected one of {', '.join(presets())}"
            ) from None

    @classmethod
    def preset(cls, name: str, **settings: Any) -> "Decoding":
        """Returns a published setting, with some of its settings replaced.

        Raises:
            MaskweaveError: no such preset or setting; the message lists those that there are.
        """
        return build(cls, {"preset": name, **{key: plain(value) for key, value in settings.items()}}, "Decoding.preset")

    def changed(self, settings: Mapping[str, Any], where: str, key: str = "") -> "Decoding":
        """Returns it with some settings replaced; a preset replaces all.

        Raises:
            MaskweaveError: no such setting, or an invalid one.
        """
        kept = {} if "preset" in settings else plain(self)
        return build(Decoding, {**kept, **settings}, where, key)

    def __post_init__(self) -> None:
        check_types(self)
        for key, holds, expected in (
            ("steps", self.steps >= 1, "1 or more"),
            ("temperature", all(0 <= t < math.inf for t in _ends(self.temperature)), "a number of 0 or more"),
            (
                "temperature_schedule",
                self.onex is not None,
                f"constant, linear or onex:MIN:POWER, two numbers of 0 or more, POWER at most {MOST_POWER}",
            ),
            (
                "temperature_schedule",
                self.temperature_schedule == "constant" or not isinstance(self.temperature, Ramp),
                "constant, because temperature is a function of the step already",
            ),
            (
                "choice_temperature",
                all(0 <= t < math.inf for t in _ends(self.choice_temperature)),
                "a number of 0 or more",
            ),
            (
                "choice_temperature",
                self.choice_temperature == 0 or self.scheme in CHOOSING,
                f"0 for scheme {self.scheme!r}; only {', '.join(CHOOSING)} choose positions by what is predicted there",
            ),
            ("guidance", all(map(math.isfinite, _ends(self.guidance))), "a finite number"),
            (
                "guidance",
                all(abs(weight) <= limits.GUIDANCE for weight in _ends(self.guidance)),
                f"-{limits.GUIDANCE} to {limits.GUIDANCE}",
            ),
            ("temperature", all(t == 0 or t >= LEAST for t in _ends(self.temperature)), f"0, or {LEAST} or more"),
            ("top_p", 0 < self.top_p <= 1, "a share above 0, up to 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
        ):
            if not holds:
                raise MaskweaveError(f"{key} is {shown(getattr(self, key))}; expected {expected}")
        limits.check_most("steps", self.steps, limits.TOKENS)

    @property
    def onex(self) -> tuple[float, ...] | None:
        """MIN and POWER of an `onex` temperature schedule; empty for the other schedules; None if the schedule is invalid."""
        name, *numbers = self.temperature_schedule.split(":")
        if name in ("constant", "linear") and not numbers:
            return ()
        try:
            least, power = map(float, numbers)
        except ValueError:
            return None
        return (least, power) if name == "onex" and 0 <= least < math.inf and 0 <= power <= MOST_POWER else None


@functools.cache
def presets() -> dict[str, dict[str, Any]]:
    """Returns the published settings by name."""
    found: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("decoding_presets.yaml"))
    return found


def _ends(number: float | Ramp) -> tuple[float, ...]:
    """The numbers between which a function of the step stays."""
    return number.ends if isinstance(number, Ramp) else (number,)


DEFAULT = Decoding()
"""Stands in entries that have no `decoding`, until the check of the entry replaces it by the value type's defaults."""
