"""Which order, temperature and guidance suit a model, at which number of steps? python benchmarks/studies/sampling.py BUNDLE --pictures

`--pictures`: pictures from captions. Boxes (`--via`) are generated first, then the picture; the model reads a caption from it, whose F1 against the true one is computed as in
`maskweave evaluate`. `--maps`: maps from pictures. Samples are new scenes, or those of another source (`--source FOLDER`, such as emoji); without boxes, `--via` takes none.
Every setting and seed is a trial, and the same command runs only what is missing. Writes results.json, table.md and figure.png into --out.
Cost: 0.02 to 0.1 seconds of one thread with bf16 units per scene and setting, by the number of steps. Result: docs/results.md, for the bundle that ships.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from study import Metrics, Panel, Study, draw

from maskweave import load
from maskweave.config import build, plain
from maskweave.data.opening import open_data
from maskweave.data.source import text_labels_of
from maskweave.modality.decoding import Decoding

SCHEMES: dict[str, dict[str, Any]] = {
    "roar": {"scheme": "roar"},
    "halton": {"scheme": "halton"},
    "maskgit": {"scheme": "maskgit"},
    "maskgit + noise": {"scheme": "maskgit", "choice_temperature": {"from": 4.5, "to": 0.0}},
    "moment": {"scheme": "moment", "choice_temperature": {"from": 4.5, "to": 0.0}},
    "entropy": {"scheme": "entropy"},
    "margin": {"scheme": "margin"},
    "roar, conf": {"scheme": "roar", "remask": {"scheme": "conf", "share": 0.1}},
    "roar, loop": {"scheme": "roar", "remask": {"scheme": "loop", "share": 0.1, "interval": [0.45, 0.95]}},
    "halton, conf": {"scheme": "halton", "remask": {"scheme": "conf", "share": 0.1}},
}
"""Orders and remasking; temperature, top-p and guidance are the entry's, or those of `--with`."""

LEAST_STEPS = 16
"""Fewest steps of the schemes that mask again; a loop needs some before, in and after it."""


class Request(NamedTuple):
    """What a trial generates and how it is scored."""

    inputs: tuple[str, ...]
    via: tuple[str, ...]
    target: str
    read: str
    """Modality that is read from the target and scored; empty: the target is."""


def trial(settings: Mapping[str, Any], seed: int, bundle: str, source: str, samples: int, request: Request) -> Metrics:
    """Generates with these settings of decoding and returns the scores by metric."""
    model = load(bundle)
    catalog = model.catalog
    made: dict[str, Any] = {"seed": 12345} if source == "scenes" else {}
    data = open_data(source, catalog, samples=samples, **made)
    needed = {catalog[name].reads for name in (*request.inputs, request.target, request.read) if name}
    found = [s for s in (data[i] for i in range(len(data))) if all(s.get(name) is not None for name in needed)]
    target = catalog[request.target]
    own = plain(target.decoding)
    shared = {key: own[key] for key in ("temperature", "temperature_schedule", "guidance", "top_p", "top_k")}
    seeds = [100_000 * seed + i for i in range(len(found))]
    results = model.generate_batch(
        [{name: s[catalog[name].reads] for name in request.inputs} for s in found],
        [request.target],
        seeds=seeds,
        think=list(request.via),
        decoding={request.target: build(Decoding, {**shared, **settings}, "settings")},
        guide_with_finished=True,  # where there is guidance, it is by the inputs and by what was generated first
    )
    predicted, scored = [result[request.target] for result in results], request.read or request.target
    if request.read:
        pictures = [{target.reads: value} for value in predicted]
        predicted = [result[scored] for result in model.generate_batch(pictures, [scored], seeds=seeds)]
    truth = [s[catalog[scored].reads] for s in found]
    metrics = catalog[scored].scores(text_labels_of(data))
    return {**{m.name: float(m.score(predicted, truth)) for m in metrics}, "samples": len(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--source", default="scenes", help="scenes, or the folder of a data set")
    parser.add_argument("--pictures", action="store_true", help="pictures from captions")
    parser.add_argument("--maps", nargs="*", default=[], help="maps that are predicted from pictures")
    parser.add_argument("--from", dest="inputs", nargs="+", default=["caption"], help="what pictures are made from")
    parser.add_argument("--via", nargs="*", default=["boxes"])
    parser.add_argument("--picture", default="tok_rgb")
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=list(SCHEMES))
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument(
        "--with", dest="changes", default="{}", help="settings of decoding for all: '{temperature: 0.5, guidance: 2}'"
    )
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/studies/sampling"))
    options = parser.parse_args()

    changes = yaml.safe_load(options.changes)
    picture = load(options.bundle).catalog[options.picture].reads
    requests = {name: Request((picture,), (), name, "") for name in options.maps}
    if options.pictures:
        requests["pictures"] = Request(tuple(options.inputs), tuple(options.via), options.picture, options.inputs[0])
    settings = {
        f"{scheme}, {steps}": {**SCHEMES[scheme], **changes, "steps": steps}
        for scheme in options.schemes
        for steps in options.steps
        if "remask" not in SCHEMES[scheme] or steps >= LEAST_STEPS
    }
    panels, tables = [], []
    for name, request in requests.items():
        study = Study(options.out / name, bundle=options.bundle, samples=options.samples, changes=changes)
        run = partial(trial, bundle=options.bundle, source=options.source, samples=options.samples, request=request)
        study.run(run, settings, options.seeds, options.jobs)
        metrics = [key for key in next(iter(study.trials.values())) if key not in ("seconds", "samples")]
        columns = {**{metric: metric for metric in metrics}, "seconds": "seconds|.0f"}
        tables.append(f"### {name}\n\n{study.table(settings, columns, 'scheme, steps')}\n")
        lines = {one: {s: study.values(f"{one}, {s}", metrics[0]) for s in options.steps} for one in options.schemes}
        panels.append(Panel(name, "steps", metrics[0], lines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(tables), encoding="utf-8")
    print("\n".join(tables))
    draw(options.out / "figure.png", panels, width=4.2, height=3.2)


if __name__ == "__main__":
    main()
