"""Best of several results: the one from which the given inputs are likeliest, by the model itself.

Of pictures from a caption, it is the picture to which the model would most likely give that caption. DALL·E chose its pictures by the judgment of another
model (https://arxiv.org/abs/2102.12092, section 2.6); here, no second model is needed, but the path from the targets back to the inputs must be trained.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from maskweave import limits
from maskweave.config import whole_number
from maskweave.errors import MaskweaveError, shown
from maskweave.generate.request import Sample, twin
from maskweave.generate.result import Generated
from maskweave.generate.scoring import Score
from maskweave.generate.untrained import OnUntrained, tell, untrained
from maskweave.masking.paths import TrainedPaths
from maskweave.modality.catalogs import Catalog

ScoreBatch = Callable[[Sequence[Sample], Sequence[Sample]], list[dict[str, Score]]]


def judges_of(
    catalog: Catalog, inputs: Sequence[str], targets: Sequence[str], by: Sequence[str], samples: int
) -> list[str]:
    """Returns the inputs whose likelihood decides: those that the model can predict and that show something else than the targets.

    Args:
        by: some of the inputs; none: all that can decide.

    Raises:
        MaskweaveError: none can decide, one of `by` cannot, or a wrong number of samples.
    """
    limits.check_most("samples", whole_number("samples", samples, 1), limits.ENSEMBLE)
    possible = catalog.judges(inputs, targets)
    if wrong := [name for name in by if name not in possible]:
        raise MaskweaveError(
            f"by: {shown(wrong[0])} cannot choose among results; expected inputs that the model can predict and that are no targets: {', '.join(possible) or 'none'}"
        )
    if not possible:
        raise MaskweaveError(
            f"none of the inputs {', '.join(inputs) or '(none)'} can choose among results, because the model cannot predict them, or they are targets; add such an input, or generate single samples"
        )
    return list(by) or possible


def seen_targets(catalog: Catalog, targets: Sequence[str]) -> dict[str, str]:
    """Returns the modality as which each target is an input when its result is judged: that of its source, if the catalog has it, as in evaluations."""
    return {name: catalog[name].reads if catalog[name].reads in catalog else name for name in targets}


def check_judging(
    paths: TrainedPaths | None,
    catalog: Catalog,
    targets: Sequence[str],
    judges: Sequence[str],
    on_untrained: OnUntrained,
    told: set[str],
) -> None:
    """Warns if the training never or hardly saw the path from the targets to an input that decides, or refuses it.

    Raises:
        MaskweaveError: a path is untrained, and `on_untrained` is `refuse`.
    """
    seen = [*seen_targets(catalog, targets).values()]
    found = [sentence for name in judges for sentence in untrained(paths, seen, [twin(catalog, name)], chain=False)]
    tell(found, on_untrained, told)


def best_result(
    members: Sequence[Generated],
    inputs: Sample,
    targets: Sequence[str],
    judges: Sequence[str],
    score_batch: ScoreBatch,
    batch_size: int,
) -> Generated:
    """Returns the result whose targets make the inputs `judges` likeliest, with these `likelihoods`; the first one if none can be judged, or there are no judges."""
    judged, given = [], []
    for member in members if judges else ():
        if (values := _as_given(member, targets)) is not None:
            judged.append(member)
            given.append(values)
    truth = {name: inputs[name] for name in judges}
    for start in range(0, len(judged), batch_size):
        part = slice(start, start + batch_size)
        scores = score_batch(given[part], [truth] * len(given[part]))
        for member, of_one in zip(judged[part], scores, strict=True):
            member.likelihoods = {name: score.total for name, score in of_one.items()}
    totals = [sum(member.likelihoods.values()) for member in judged]
    return judged[int(np.argmax(totals))] if judged else members[0]


def _as_given(member: Generated, targets: Sequence[str]) -> Mapping[str, Any] | None:
    """The targets of a result as inputs; None if one of them has no valid part, such as a list of boxes without a box."""
    possible, found = member.as_inputs(), {}
    for name, seen in seen_targets(member.catalog, targets).items():
        ids = twin(member.catalog, name)
        if name in member.values and name in possible:
            found[seen] = possible[name]
        elif ids in member.tokens and ids in possible:
            found[ids] = possible[ids]
        else:
            return None
    return found
