"""M3AE against MAE, contrastive and supervised training, for equal samples. python benchmarks/studies/m3ae_baselines.py

Trains the same encoder by four objectives on the one training loop, with as many samples each: M3AE, MAE (pictures only), contrastive (as CLIP, with the other
captions of a batch as negatives) and supervised (the first label of each data set, for all training pictures that have it), on scenes and on emoji. Measures,
on held-out pictures, a linear probe of the features, the same probe with noise, low contrast or darkness, which it was not trained for, and how well pictures
of shuffled patches are told from others by the Mahalanobis distance of their features (AUROC). "untrained" has random weights.
The learning rate is that of the M3AE recipes for all of them. Contrastive and supervised training see all patches, so their steps take longer.
Cost: 77 minutes of CPU time for scenes on a busy machine without bf16 units. Result for scenes: docs/results.md; emoji: not measured yet.
"""

from functools import partial

from m3ae_trials import SHIFTS, SHUFFLED, Metrics, Setting, make_data, run_trial
from study import Panel, Study, draw, parser, spread

LABELS = {"scenes": ("count", "first object"), "emoji": ("shown", "skin tone")}
"""The first one is that of the supervised training."""
BATCH_SIZE = 16
SUPERVISED = "supervised"
SETTINGS = {
    "untrained": Setting(trained=False),
    "MAE": Setting(names=("rgb",)),
    "M3AE": Setting(),
    "contrastive": Setting(contrastive=True),
}


def settings_of(kind: str) -> dict[str, Setting]:
    return {**SETTINGS, SUPERVISED: Setting(names=("rgb",), supervised=LABELS[kind][0])}


def columns(kind: str) -> dict[str, str]:
    """Column headings of the table by metric."""
    found = {}
    for label in LABELS[kind]:
        found |= {f"linear {label}": f"{label}, linear probe", f"shifted {label}": "shifted"}
        found |= {f"{name} {label}": name for name in SHIFTS}
    return found | {f"{SHUFFLED} {LABELS[kind][0]}": "shuffled patches, AUROC", "seconds": "CPU seconds|.0f"}


def add_means(study: Study) -> None:
    """Adds the mean over `SHIFTS` to the metrics of each trial."""
    metrics: Metrics
    for metrics in study.trials.values():
        for label in [name.removeprefix("linear ") for name in metrics if name.startswith("linear ")]:
            metrics[f"shifted {label}"] = sum(metrics[f"{name} {label}"] for name in SHIFTS) / len(SHIFTS)


if __name__ == "__main__":
    made = parser("m3ae_baselines", __doc__, steps=1100)
    made.add_argument("--data", choices=list(LABELS), nargs="+", default=list(LABELS), help="data sets")
    options = made.parse_args()
    panels = []
    for kind in options.data:
        data = options.out / kind / "data"
        make_data(data, kind)
        study = Study(options.out / kind, steps=options.steps, batch_size=BATCH_SIZE)
        trial = partial(run_trial, data, kind, options.steps, BATCH_SIZE, shifts=True)
        settings = settings_of(kind)
        study.run(trial, settings, options.seeds, options.jobs)
        add_means(study)
        print(study.table(settings, columns(kind), kind))
        for label in LABELS[kind]:
            print(f"most frequent {label}: {spread(study.values('MAE', f'most frequent {label}')[:1])}")
            lines = {
                title: {name: study.values(name, f"{metric} {label}") for name in settings}
                for metric, title in (("linear", "held-out"), ("shifted", "shifted"))
            }
            panels.append(Panel(f"{kind}: {label}", "", "linear probe", lines))
        outliers = {name: study.values(name, f"{SHUFFLED} {LABELS[kind][0]}") for name in settings}
        panels.append(Panel(f"{kind}: shuffled patches", "", "AUROC", {"AUROC": outliers}))
    draw(options.out / "m3ae_baselines.png", panels, width=4.0)
