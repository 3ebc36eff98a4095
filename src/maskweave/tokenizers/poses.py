"""People with their poses as text-like tokens, as 4M-21 writes them (https://arxiv.org/abs/2406.09406).

Per person `human`, four `v0=` of the box, then each part that is known: its name and its numbers. Parts stand in the entry's order, or in
a random one where an rng is given. `none` says that there is nobody. People stand in the order given.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from maskweave.modality.entry import Modality
from maskweave.tokenizers.groups import Grouped
from maskweave.tokenizers.structured import Bins
from maskweave.tokenizers.text import TextTokenizer

PERSON, NOBODY = "human", "none"


class Poses(Grouped):
    """List of people {"box": [xmin, ymin, xmax, ymax], PART: list of numbers}; boxes 0 to 1, parts may be left out."""

    item = "person"

    def __init__(self, modality: Modality, text: TextTokenizer):
        super().__init__(modality, text, [PERSON, NOBODY, *modality.value.parts])
        self.require("v0", self.spec.bins, "value.bins")
        self.bins = Bins(0, 1, self.spec.bins)
        widths = [len(self.words[name]) + part.count for name, part in self.parts.items()]
        self.most = self.capacity(len(self.words[PERSON]) + 4 + sum(widths))

    def units(self, value: Any, rng: np.random.Generator | None) -> Iterator[list[int]]:
        people = self.items_of(value)
        if not people:
            yield self.words[NOBODY]
        for n, person in enumerate(people):
            ids = [*self.words[PERSON], *self.special(("v0", self.bins.encode(x)) for x in self.box(person, n))]
            known = [name for name in self.parts if name in person]
            for name in known if rng is None else rng.permutation(known):
                ids += [*self.words[name], *self.write_part(person, name, n)]
            if n < self.most:
                yield ids

    def read(self, ids: list[int], problems: list[str]) -> list[dict[str, Any]]:
        people: list[dict[str, Any]] = []
        person: dict[str, Any] | None = None
        groups = self.groups(ids, problems)
        if not groups:
            problems.append(f"neither {PERSON!r} nor {NOBODY!r}")
        for word, numbers in groups:
            if word == NOBODY:
                if len(groups) > 1 or numbers:
                    problems.append(f"{NOBODY!r} beside people or numbers")
            elif word == PERSON:
                bins = [n for prefix, n in numbers if prefix == "v0" and n < self.bins.count]
                person = None
                if len(bins) != 4 or len(numbers) != 4 or bins[0] > bins[2] or bins[1] > bins[3]:
                    problems.append(f"a person without a sound box, found {_show(numbers)}; left out")
                else:
                    person = {"box": [self.bins.centers[b] for b in bins]}
                    people.append(person)
            elif person is None:
                problems.append(f"{word!r} of no person")
            elif word in person:
                problems.append(f"person {len(people) - 1} has {word!r} twice; the first counts")
            elif (read := self.parts[word].read(numbers)) is None:
                problems.append(
                    f"{word!r} of person {len(people) - 1}: {_show(numbers)} where {self.parts[word].count} numbers belong"
                )
            else:
                person[word] = read
        return people


def _show(numbers: list[tuple[str, int]]) -> str:
    return " ".join(f"{prefix}={n}" for prefix, n in numbers[:6]) + " …" * (len(numbers) > 6) or "nothing"
