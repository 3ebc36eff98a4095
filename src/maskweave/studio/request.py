"""A request of the studio: everything that a result depends on, as data, and its schedule, Python and command line."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from maskweave.config import build, plain, whole_number
from maskweave.errors import MaskweaveError, shown
from maskweave.files import parse_yaml
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import check_ensemble, member_seeds
from maskweave.generate.request import Options, twin
from maskweave.generate.schedule import Schedule
from maskweave.limits import SEED
from maskweave.modality.catalogs import Catalog
from maskweave.modality.decoding import CHOOSING, Decoding
from maskweave.studio.bounds import Bounds
from maskweave.values.files import write_png

LITERAL = 400
"""Longest text of a value that is written into the Python code; longer ones are files."""
SCHEDULE = "schedule.yaml"
MOST_SCHEDULE = 2**20
"""Longest schedule that a page may send, in characters."""


@dataclass(frozen=True)
class StudioRequest:
    """What a page asks of a bundle."""

    inputs: dict[str, Any] = field(default_factory=dict)
    """Checked values, at their own sizes."""
    targets: tuple[str, ...] = ()
    """In the order of generation."""
    decoding: dict[str, dict[str, object]] = field(default_factory=dict)
    """Settings by target that replace those of its entry."""
    conditions: dict[str, float] = field(default_factory=dict)
    """Guidance: weight by input."""
    guide_with_finished: bool = False
    chain: bool = True
    edit: dict[str, Any] = field(default_factory=dict)
    """Region to regenerate, by target that is also an input: a bool mask (height, width), a box, a share, or words of a text."""
    schedule: str = ""
    """YAML of a schedule that was edited by hand; it replaces decoding, conditions, `guide_with_finished` and `chain`."""
    seed: int = 0
    samples: int = 1
    """Results, or members of the ensemble."""
    ensemble: bool = False
    """Merge the samples into one result."""

    @property
    def seeds(self) -> list[int]:
        """One for each sample."""
        return member_seeds(self.seed, self.samples) if self.ensemble else [self.seed + n for n in range(self.samples)]

    def check(self, bundle: Bundle, bounds: Bounds) -> None:
        """Checks the numbers of a request; everything else is checked by `Bundle.request`.

        Raises:
            MaskweaveError: a number is out of bounds, or an ensemble cannot be merged.
        """
        whole_number("seed", self.seed, 0, SEED - bounds.samples)
        whole_number("samples", self.samples, 1, bounds.samples)
        if self.ensemble:
            if self.samples < 2:
                raise MaskweaveError(f"an ensemble of {self.samples} sample merges nothing; set samples to 2 or more")
            targets = self.targets or self.schedule_of(bundle).targets
            check_ensemble([bundle.catalog[twin(bundle.catalog, n)] for n in targets], bundle.tokenizers, self.samples)

    def options(self, catalog: Catalog) -> Options:
        """Returns the options of `Bundle.generate`.

        Raises:
            MaskweaveError: the schedule is no valid YAML, or a decoding setting is invalid.
        """
        options: Options = {}
        if self.schedule:
            options["schedule"] = read_schedule(self.schedule)
        else:
            if self.decoding:
                options["decoding"] = {
                    name: build(Decoding, {**plain(catalog[twin(catalog, name)].decoding), **changes}, "decoding", name)
                    for name, changes in self.settings(catalog).items()
                }
            if self.conditions:
                options["conditions"] = dict(self.conditions)
            if self.guide_with_finished:
                options["guide_with_finished"] = True
            if not self.chain:
                options["chain"] = False
        if self.edit:
            options["edit"] = dict(self.edit)
        return options

    def settings(self, catalog: Catalog) -> dict[str, dict[str, object]]:
        """Returns `decoding`, without the entry's noise on choices if the scheme that is set takes none."""
        found = {}
        for name, changes in self.decoding.items():
            noise = catalog[twin(catalog, name)].decoding.choice_temperature
            drops = noise != 0 and changes.get("scheme", CHOOSING[0]) not in CHOOSING
            found[name] = {**({"choice_temperature": 0.0} if drops else {}), **changes}
        return found

    def schedule_of(self, bundle: Bundle) -> Schedule:
        """Returns the steps of the request."""
        return bundle.schedule(list(self.inputs), list(self.targets) or None, **self.options(bundle.catalog))

    def has_files(self, catalog: Catalog) -> bool:
        """Whether the Python code and the command line name files."""
        typed = all(_is_typed(catalog, name, value) for name, value in self.inputs.items())
        return bool(self.schedule) or not typed or any(isinstance(region, np.ndarray) for region in self.edit.values())

    def files(self, catalog: Catalog) -> dict[str, bytes]:
        """Returns the files that the Python code and the command line name, by path."""
        found = {}
        for name, value in self.inputs.items():
            if not _is_typed(catalog, name, value):
                content, ending = catalog[name].value.to_file(value, f"input {name!r}")
                found[f"inputs/{name}.{ending}"] = content
        for name, region in self.edit.items():
            if isinstance(region, np.ndarray):
                found[f"edit/{name}.png"] = write_png(region.astype(np.uint8) * 255)
        if self.schedule:
            found[SCHEDULE] = self.schedule.encode()
        return found


def read_schedule(text: str) -> Schedule:
    """Returns the schedule in a text.

    Raises:
        MaskweaveError: it is too long, no YAML, or no schedule.
    """
    if len(text) > MOST_SCHEDULE:
        raise MaskweaveError(f"schedule: {len(text):,} characters; expected at most {MOST_SCHEDULE:,}")
    return build(Schedule, parse_yaml(text, "schedule"), "schedule")


def schedule_text(schedule: Schedule) -> str:
    """Returns a schedule as YAML, as `Schedule.save` writes it."""
    return yaml.safe_dump(plain(schedule), sort_keys=False, allow_unicode=True)


def _is_typed(catalog: Catalog, name: str, value: Any) -> bool:
    """Whether a value is written into a command as it is, instead of a file."""
    kind = catalog[name].value
    return isinstance(value, str) and len(value) <= LITERAL and (kind.is_text or kind.typed(value) == value)


def _file_of(files: Mapping[str, bytes], start: str) -> str:
    return next(path for path in files if path.rpartition(".")[0] == start)


def as_python(request: StudioRequest, catalog: Catalog, bundle: str) -> str:
    """Returns Python code that gives the request's results in `out`, a list if there are several. Its files are those of `StudioRequest.files`."""
    files = request.files(catalog)
    inputs = []
    for name, value in request.inputs.items():
        typed = _is_typed(catalog, name, value)
        inputs.append(f"{name!r}: {(value if typed else _file_of(files, f'inputs/{name}'))!r}")
    sample = "{" + ", ".join(inputs) + "}"
    imports, options = ["import maskweave"], []
    if request.schedule:
        imports.append("from maskweave.generate.schedule import load_schedule")
        options.append(f"schedule=load_schedule({SCHEDULE!r})")
    elif request.decoding:
        imports.insert(0, "from dataclasses import replace\n")
        parts = []
        for name, changes in request.settings(catalog).items():
            settings = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            parts.append(f"{name!r}: replace(bundle.catalog[{twin(catalog, name)!r}].decoding, {settings})")
        options.append("decoding={" + ", ".join(parts) + "}")
    if not request.schedule:
        options += [f"conditions={dict(request.conditions)!r}"] * bool(request.conditions)
        options += ["guide_with_finished=True"] * request.guide_with_finished
        options += ["chain=False"] * (not request.chain)
    if request.edit:
        parts = [
            f"{name!r}: {_file_of(files, f'edit/{name}')!r}"
            if isinstance(region, np.ndarray)
            else f"{name!r}: {region!r}"
            for name, region in request.edit.items()
        ]
        options.append("edit={" + ", ".join(parts) + "}")
    targets = repr(list(request.targets)) if request.targets else "None"
    if request.ensemble:
        call, first = "ensemble", [sample, targets, f"samples={request.samples}", f"seed={request.seed}"]
    elif request.samples > 1:
        call, first = "generate_batch", [f"[{sample}] * {request.samples}", targets, f"seeds={request.seeds!r}"]
    else:
        call, first = "generate", [sample, targets, f"seed={request.seed}"]
    arguments = "".join(f"    {part},\n" for part in [*first, *options])
    head = "\n".join(imports)
    return f"{head}\n\nbundle = maskweave.load({bundle!r})\nout = bundle.{call}(\n{arguments})\n"


def as_command(request: StudioRequest, catalog: Catalog, bundle: str, out: str = "out") -> str:
    """Returns the command line that writes the request's results. Its files are those of `StudioRequest.files`."""
    files = request.files(catalog)
    words = [["maskweave", "generate", bundle]]
    for name, value in request.inputs.items():
        typed = _is_typed(catalog, name, value)
        words.append(["--input", f"{name}={value if typed else _file_of(files, f'inputs/{name}')}"])
    if request.targets:
        words.append(["--target", ",".join(request.targets)])
    if request.schedule:
        words.append(["--schedule", SCHEDULE])
    else:
        for name, changes in request.settings(catalog).items():
            words += [["--decoding", f"{name}.{key}={json.dumps(value)}"] for key, value in changes.items()]
        words += [["--condition", f"{name}={weight!r}"] for name, weight in request.conditions.items()]
        words += [["--guide-with-finished"]] * request.guide_with_finished + [["--no-chain"]] * (not request.chain)
    for name, region in request.edit.items():
        text = _file_of(files, f"edit/{name}") if isinstance(region, np.ndarray) else region
        text = ",".join(map(str, text)) if isinstance(text, (list, tuple)) else text
        words.append(["--edit", f"{name}={text}"])
    if request.samples > 1:
        words.append(["--ensemble" if request.ensemble else "--samples", str(request.samples)])
    words += [["--seed", str(request.seed)], ["--out", out]]
    return " \\\n  ".join(shlex.join(part) for part in words)


def region_from(text: str, kind: str) -> Any:
    """Returns the region that a person has typed: a share or a box for a grid, words for a sequence; None if nothing is typed.

    Raises:
        MaskweaveError: a grid's region is neither one nor four numbers.
    """
    text = text.strip()
    if not text:
        return None
    if kind == "sequence":
        return text
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 4):
        raise MaskweaveError(
            f"region {shown(text)}: expected a share such as 0.3, or a box xmin,ymin,xmax,ymax from 0 to 1"
        )
    return numbers[0] if len(numbers) == 1 else numbers
