"""Requests whose paths a model's training never or hardly saw: from these inputs, and the targets before, to a target."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

from maskweave.errors import MaskweaveError
from maskweave.generate.schedule import Schedule
from maskweave.masking.paths import TrainedPaths

OnUntrained = Literal["warn", "refuse", "ignore"]
ADVICE = "the result is a guess; change the inputs, predict each target from the inputs only (chain=False), or train with a mixture that has them"


def untrained(
    paths: TrainedPaths | None, inputs: Sequence[str], targets: Sequence[str], chain: bool, think: Sequence[str] = ()
) -> list[str]:
    """Returns a sentence for each target that was never or hardly trained from these inputs.

    Args:
        paths: of the model's training; None if unknown, which gives no sentences.
        targets: in the order of generation.
        chain: earlier targets join the inputs of later ones.
        think: those that join them even without `chain`.
    """
    found = []
    for number, target in enumerate(targets if paths is not None else ()):
        given = list(dict.fromkeys([*inputs, *(name for name in targets[:number] if chain or name in think)]))
        found.append(paths.problem(given, target))  # type: ignore[union-attr]
    return [sentence for sentence in found if sentence]


def check_trained(
    paths: TrainedPaths | None,
    given: Iterable[Sequence[str]],
    schedule: Schedule,
    on_untrained: OnUntrained,
    told: set[str],
) -> None:
    """Warns of the untrained paths of a request, or refuses it.

    Args:
        given: the inputs of each sample.
        told: sentences that were told before; those that are told now are added.

    Raises:
        MaskweaveError: a path is untrained, and `on_untrained` is `refuse`.
    """
    sets = dict.fromkeys(tuple(dict.fromkeys(names)) for names in given)
    targets, chain, think = schedule.targets, schedule.chain, schedule.think
    problems = list(dict.fromkeys(s for names in sets for s in untrained(paths, names, targets, chain, think)))
    tell(problems, on_untrained, told)


def tell(problems: Sequence[str], on_untrained: OnUntrained, told: set[str]) -> None:
    """Warns of untrained paths that were not told before, or refuses them; as `check_trained`."""
    if problems and on_untrained == "refuse":
        raise MaskweaveError(f"{'; '.join(problems)}: {ADVICE}; or set on_untrained to 'warn'")
    for sentence in problems if on_untrained == "warn" else ():
        if sentence not in told:
            told.add(sentence)
            warnings.warn(f"{sentence}: {ADVICE}", stacklevel=5)
