"""How much do paired samples help M3AE? python benchmarks/studies/m3ae_unpaired.py

Trains M3AE on scenes with all samples paired, with half or all of them unpaired (each time, either the picture or the caption is used), and with only half
of the paired samples; MAE and an untrained encoder for comparison. All with equal steps. Trials that are also part of m3ae_text_mask_ratio.py
are shared with it.
Cost: 13 minutes of CPU time, and 6 for the shared trials. Result, measured with 3 seeds: the linear probe's accuracy for the number of objects is
0.706 with pairs, 0.694 with half of them, 0.661 with half unpaired, 0.598 with all unpaired, 0.605 for MAE. Details: docs/results.md.
"""

from m3ae_text_mask_ratio import LABELS, PROBES, SETTINGS, columns, open_study
from m3ae_trials import Setting
from study import Panel, draw, parser

PAIRED = "M3AE, 75% of the text"
NAMES = {
    "untrained": "untrained",
    "MAE": "MAE",
    PAIRED: "pairs",
    "half of the pairs": "half of\nthe pairs",
    "half unpaired": "half\nunpaired",
    "all unpaired": "all\nunpaired",
}
OWN = {
    "half of the pairs": Setting(part="half"),
    "half unpaired": Setting(unpaired=0.5),
    "all unpaired": Setting(unpaired=1.0),
}

if __name__ == "__main__":
    options = parser("m3ae", __doc__, steps=1100).parse_args()
    study, trial = open_study(options.out, "scenes", options.steps)
    settings = SETTINGS | OWN
    study.run(trial, {name: settings[name] for name in NAMES}, options.seeds, options.jobs)
    print(study.table(NAMES, columns("scenes"), "trained on"))
    panels = []
    for label in LABELS["scenes"]:
        lines = {
            title: {short: study.values(name, f"{probe} {label}") for name, short in NAMES.items()}
            for probe, title in PROBES.items()
        }
        panels.append(Panel(label, "", "accuracy", lines))
    words = {short: study.values(name, "word accuracy") for name, short in NAMES.items()}
    without_picture = {short: study.values(name, "word accuracy, no picture") for name, short in NAMES.items()}
    panels.append(
        Panel("predicted words", "", "accuracy", {"with a quarter of the picture": words, "without": without_picture})
    )
    draw(options.out / "unpaired.png", panels, width=4.2)
