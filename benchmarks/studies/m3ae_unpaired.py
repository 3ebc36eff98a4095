"""What are pairs worth to a masked autoencoder? python benchmarks/studies/m3ae_unpaired.py

M3AE on scenes: all pairs, half or all of them taken apart (of such a sample each time either the picture or the caption is shown), and half of the pairs
alone; beside MAE and an encoder that was never trained, at equal steps. The trials that the study of the text's mask ratio has too are
shared with it.
Cost: 13 minutes of processor time, and 6 for the trials that are shared. Result, measured with 3 seeds: the linear probe tells the number of objects
in 0.706 with pairs, 0.694 with half of them, 0.661 with half taken apart, 0.598 with all apart, 0.605 of MAE. All of it: docs/results.md.
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
    "half taken apart": "half\napart",
    "all taken apart": "all\napart",
}
OWN = {
    "half of the pairs": Setting(part="half"),
    "half taken apart": Setting(unpaired=0.5),
    "all taken apart": Setting(unpaired=1.0),
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
    words = {short: study.values(name, "words right") for name, short in NAMES.items()}
    alone = {short: study.values(name, "words right, no picture") for name, short in NAMES.items()}
    panels.append(
        Panel("restored words", "", "share right", {"with a quarter of the picture": words, "without": alone})
    )
    draw(options.out / "unpaired.png", panels, width=4.2)
