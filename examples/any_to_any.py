"""Predicts some modalities of a scene from others.

python examples/any_to_any.py [BUNDLE [FOLDER]]. Defaults: the bundle that ships, and runs/examples; `make demo` trains another one, runs/demo.
"""

import sys
from pathlib import Path

import maskweave
from maskweave.synthetic.scenes import Scenes

bundle = maskweave.load(sys.argv[1] if len(sys.argv) > 1 else "scenes")
place = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/examples")
scene = Scenes(bundle.catalog, samples=1, seed=7)[0]

for inputs, targets in [
    (["rgb"], ["depth", "normal", "semseg", "caption", "boxes"]),
    (["caption"], ["tok_rgb", "depth"]),
    (["boxes", "palette"], ["tok_rgb"]),
]:
    result = bundle.generate({name: scene[name] for name in inputs}, targets, seed=0)
    folder = result.save(place / "+".join(inputs))
    print(f"{' + '.join(inputs)} → {', '.join(targets)}: {folder / 'sheet.png'}")
