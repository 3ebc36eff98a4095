"""Which modalities should pre-training have? python benchmarks/studies/modality_ablation.py

The ablation of 4M (https://arxiv.org/abs/2312.06647), section 5, on scenes: pre-trains the demo's model to predict, from half of a picture's patches, one
modality, or a few, or all; and with all modalities as inputs, too. The steps are equal. Then fine-tunes the encoder on complete pictures of 500 labeled scenes,
with equal steps, for the number of objects, the class of each pixel, depth, and boxes in space; and probes it before. "from scratch" is not pre-trained.
Cost: 45 to 60 minutes of one thread for each seed, by the load, and 2 minutes for tokenizers and tokens. Needs the extra [eval]. Result: docs/results.md, two seeds.
"""

from functools import partial

from pretraining import base_parser, prepare_base
from study import Panel, Study, draw
from transfers import TASKS, Setting, transfer_setting

from maskweave.masking.fourm import Mixture
from maskweave.modality.catalogs import load_catalog

ALL = tuple(load_catalog("scenes"))
FROM_PICTURES = Mixture({"rgb": 1}, {"default": 0.5})
FROM_ALL = {"default": 0.5}
SCRATCH = "from scratch"
SETTINGS = {
    SCRATCH: Setting(("rgb", "tok_rgb"), FROM_PICTURES, trained=False),
    "rgb → rgb": Setting(("rgb", "tok_rgb"), FROM_PICTURES),
    "rgb → depth": Setting(("rgb", "depth"), FROM_PICTURES),
    "rgb → semseg": Setting(("rgb", "semseg"), FROM_PICTURES),
    "rgb → caption, boxes": Setting(("rgb", "caption", "boxes"), FROM_PICTURES),
    "rgb → all": Setting(ALL, FROM_PICTURES),
    "all → rgb": Setting(ALL, Mixture(FROM_ALL, {"tok_rgb": 1})),
    "all → all": Setting(ALL, Mixture(FROM_ALL, {"default": 0.5})),
}
SHOWN = {
    "count, accuracy": "count, accuracy ↑",
    "semseg, mIoU": "classes, mIoU ↑",
    "depth, AbsRel": "depth, AbsRel ↓",
    "boxes3d, AP3D": "boxes in space, AP3D ↑",
    "count, linear-probe accuracy": "count, linear probe ↑",
    "first object, linear-probe accuracy": "first object, linear probe ↑",
    "seconds": "CPU seconds|.0f",
}
SHORT = {"rgb → caption, boxes": "rgb → text,\nboxes", SCRATCH: "from\nscratch"}


if __name__ == "__main__":
    options = base_parser("modality_ablation", __doc__, steps=1000).parse_args()
    prepare_base(options)
    study = Study(options.out, steps=options.steps)
    settings = {name: (str(number), setting) for number, (name, setting) in enumerate(SETTINGS.items())}
    trial = partial(transfer_setting, options.out, options.base, options.steps, TASKS, options.quick)
    study.run(trial, settings, options.seeds, options.jobs)
    print(study.table(SETTINGS, SHOWN, "pre-training"))
    panels = []
    for metric, title in list(SHOWN.items())[:-1]:
        line = {SHORT.get(name, name.replace(" → ", "\n→ ")): study.values(name, metric) for name in SETTINGS}
        panels.append(Panel(title, "", metric.partition(", ")[2], {"": line}))
    draw(options.out / "modality_ablation.png", panels, width=4.6, rows=2)
