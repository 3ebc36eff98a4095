"""Runs twelve any-to-any requests with one model; saves a contact sheet for each, and one picture with all of them.

python examples/twelve_requests.py [BUNDLE [FOLDER]]. Defaults: the bundle that ships, and runs/examples/twelve; `make demo` trains another one, runs/demo.
"""

import sys
from pathlib import Path
from typing import Any

from PIL import Image

import maskweave
from maskweave.generate.result import sheet_of
from maskweave.synthetic.scenes import Scenes

bundle = maskweave.load(sys.argv[1] if len(sys.argv) > 1 else "scenes")
folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/examples/twelve")
scenes = list(Scenes(bundle.catalog, samples=2, seed=1))
HALF = [0.0, 0.0, 0.5, 1.0]

# Inputs, targets, and further options of the request.
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("rgb", "depth normal semseg edges", {}),
    ("rgb", "caption boxes instances palette metadata", {"chain": False}),
    ("caption", "boxes tok_rgb depth semseg", {}),
    ("boxes", "caption tok_rgb normal", {}),
    ("boxes caption", "tok_rgb depth", {"conditions": {"caption+boxes": 3.0}}),
    ("boxes palette", "tok_rgb edges", {}),
    ("depth", "normal semseg edges tok_rgb", {}),
    ("semseg", "depth normal tok_rgb", {}),
    ("normal edges", "depth semseg boxes", {}),
    ("instances metadata", "boxes tok_rgb depth", {}),
    ("rgb boxes", "tok_rgb", {"edit": {"tok_rgb": HALF}}),
    ("caption boxes depth", "tok_rgb normal", {"recolor": True}),
]


def renamed(scene: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Returns the scene with one of its objects renamed."""
    boxes = [{**item, "class": new if item["class"] == old else item["class"]} for item in scene["boxes"]]
    return {**scene, "caption": scene["caption"].replace(old, new), "boxes": boxes}


folder.mkdir(parents=True, exist_ok=True)
sheets = []
for number, (inputs, targets, options) in enumerate(REQUESTS, 1):
    what = f"{' + '.join(inputs.split())} → {', '.join(targets.split())}"
    given = scenes
    if options.pop("recolor", False):
        names = [scene["boxes"][0]["class"] for scene in scenes]
        given = [renamed(scene, name, f"red {name.split()[1]}") for scene, name in zip(scenes, names, strict=True)]
        what += "; one object's color edited"
    what += "; the left half regenerated" if "edit" in options else ""
    what += "; guidance weight 3" if "conditions" in options else ""
    samples = [{name: scene[name] for name in inputs.split()} for scene in given]
    results = bundle.generate_batch(samples, targets.split(), **options)
    sheets.append(sheet_of(results, f"{number}. {what}", tile=112))
    sheets[-1].save(folder / f"{number:02}.png")

# Two columns; each sheet goes to the shorter one.
width = max(sheet.width for sheet in sheets)
page = Image.new("RGB", (2 * width, sum(sheet.height for sheet in sheets)), "white")
ends = [0, 0]
for sheet in sheets:
    column = ends.index(min(ends))
    page.paste(sheet, (column * width, ends[column]))
    ends[column] += sheet.height
page.crop((0, 0, 2 * width, max(ends))).save(folder / "all.png", optimize=True)
print(f"{len(sheets)} sheets in {folder}; all of them in {folder / 'all.png'}")
