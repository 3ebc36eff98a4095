"""Predicts some modalities of a scene from others, with the model that `make demo` trains: python examples/any_to_any.py"""

from pathlib import Path

import maskweave
from maskweave.synthetic.scenes import Scenes

bundle = maskweave.load("runs/demo")
scene = Scenes(bundle.catalog, samples=1, seed=7)[0]

for inputs, targets in [
    (["rgb"], ["depth", "normal", "semseg", "caption", "boxes"]),
    (["caption"], ["tok_rgb", "depth"]),
    (["boxes", "palette"], ["tok_rgb"]),
]:
    result = bundle.generate({name: scene[name] for name in inputs}, targets, seed=0)
    folder = result.save(Path("runs/examples") / "+".join(inputs))
    print(f"{' + '.join(inputs)} → {', '.join(targets)}: {folder / 'sheet.png'}")
