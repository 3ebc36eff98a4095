"""The page, its form, and what its parts show, as in `golden/`: components with what they are, events with what they take and change, and HTML without
pictures.

If they change on purpose, `python tests/studio/test_golden_studio.py` writes them.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio")

import gradio
import torch

sys.path[:0] = [str(Path(__file__).parents[1])]  # where this file is run by itself
import small_bundle  # noqa: E402

from maskweave.generate.result import Generated  # noqa: E402
from maskweave.generate.schedule import Schedule  # noqa: E402
from maskweave.generate.scoring import Score  # noqa: E402
from maskweave.modality.catalogs import load_catalog  # noqa: E402
from maskweave.studio.bounds import Bounds  # noqa: E402
from maskweave.studio.data_page import sample_html  # noqa: E402
from maskweave.studio.desk import Desk  # noqa: E402
from maskweave.studio.form import draw_form  # noqa: E402
from maskweave.studio.offered import Offered  # noqa: E402
from maskweave.studio.page import Page, build_page  # noqa: E402
from maskweave.studio.run_page import run_html  # noqa: E402
from maskweave.studio.running import Likelihood, RequestState  # noqa: E402
from maskweave.studio.showing import error_html, likelihood_html, progress_html, spread_card, status_html, values_html  # noqa: E402

GOLDEN = Path(__file__).with_name("golden")
PROPS = (
    "label", "value", "choices", "placeholder", "scale", "min_width", "visible", "open", "multiselect", "minimum", "maximum", "precision", "lines",
    "max_lines", "interactive", "elem_id", "elem_classes", "variant", "size", "height", "file_types", "language", "show_label", "active", "mode", "background", "classes", "colors",
)  # fmt: skip
"""What is stored of a component; of the others, Gradio has defaults that change with its version."""


def words(value: Any) -> str:
    return re.sub(r"base64,[\w+/=]*", "base64,…", json.dumps(value, default=str, ensure_ascii=False))


def lines(blocks: Any, folder: str) -> Iterator[str]:
    """Components and events of Blocks, one a line."""
    names = {}
    for n, part in enumerate(blocks.config["components"]):
        props = {key: part["props"].get(key) for key in PROPS}
        names[part["id"]] = f"{n}"
        kept = {key: value for key, value in props.items() if value not in (None, "", [])}
        if part["type"] != "form":  # what Gradio itself puts around fields
            yield f"{n} {part['type']} {words(kept)}".replace(folder, "FOLDER")
    for event in blocks.fns.values():
        ends = [
            [names.get(getattr(part, "_id", None), "?") for part in parts] for parts in (event.inputs, event.outputs)
        ]
        targets = [(names.get(at, "?"), what) for at, what in event.targets]
        yield f"{event.name} at {targets}: {ends[0]} to {ends[1]}, {event.show_progress}, queue {event.queue}, {event.concurrency_id == 'model'}, cancels {len(event.cancels)}"


def offered(folder: Path) -> Offered:
    bundle = small_bundle.save(small_bundle.small_bundle(), folder / "small")
    (folder / "begun").mkdir()
    (folder / "begun" / "recipe.yaml").write_text("catalog: scenes\n", encoding="utf-8")
    (folder / "six").mkdir()
    for name in ("index.json", "centers.safetensors"):
        (folder / "six" / name).touch()
    return Offered([str(bundle), str(folder / "begun"), str(folder / "six")], ["scenes"])


def page() -> str:
    """The page with everything, and with a data set alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = build_page(offered(folder), Bounds(), folder)
        data = build_page(Offered([], ["scenes"], "scenes"), Bounds(), folder)
        return "\n".join([*lines(whole, name), "", *lines(data, name)])


def form() -> str:
    """The form of a desk with each kind of input; one of them is held, edited and shown by no widget."""
    scene = small_bundle.scenes(1)[0]
    with tempfile.TemporaryDirectory() as name:
        offers = offered(Path(name))
        bundle = next(iter(offers.bundles))
        texts = []
        for held, inputs, targets in (
            ({}, ["rgb", "depth", "caption", "global"], ["depth", "caption"]),
            ({"depth": scene["depth"], "caption": "a cube"}, ["depth", "caption"], ["depth", "global"]),
        ):
            state = Desk()
            state.choose(bundle, offers.bundle(bundle).catalog)
            state.inputs, state.targets = inputs, targets
            state.hold(held)
            with gradio.Blocks() as blocks:
                parts = draw_form(
                    Page(offers, Bounds(samples=5), Path(name)), state, gradio.State(state), gradio.State(0)
                )
            texts += [*lines(blocks, name), *(f"{place} {type(part).__name__}" for place, part in parts.fields), ""]
        return "\n".join(texts)


ROWS = [
    {"inputs": ["rgb", "a<b"], "target": "depth", "metric": "AbsRel", "value": 0.123456, "constant": 1, "tokenizer": None},
    {"inputs": None, "target": "x", "metric": "y", "value": "z", "constant": None, "tokenizer": 12345.678},
    {"inputs": [], "target": "x", "metric": "y", "value": 1, "part": True},
    3,
]  # fmt: skip


def runs() -> str:
    """A run that is not begun, one that trains, and a finished one."""
    with tempfile.TemporaryDirectory() as name:
        run, texts = Path(name), [run_html(Path(name))]
        line = {"step": 1234, "split": "train", "loss": 2.0, "loss/rgb": 1.0}
        (run / "metrics.jsonl").write_text(
            json.dumps({**line, "step": 3}) + "\n" + json.dumps(line) + "\n", encoding="utf-8"
        )
        for folder, more in (("a", {"codebook_use": 0.876}), ("b", {}), ("c", None)):
            (run / "tokenizers" / folder).mkdir(parents=True)
            if more is not None:
                (run / "tokenizers" / folder / "metrics.jsonl").write_text(
                    json.dumps({**line, **more}) + "\n", encoding="utf-8"
                )
        (run / "tokenizers" / "file").touch()
        (run / "evaluation.json").write_text("{}", encoding="utf-8")
        texts.append(run_html(run))
        (run / "model").mkdir()
        (run / "model" / "config.json").touch()
        (run / "evaluation.json").write_text(json.dumps(ROWS), encoding="utf-8")
        (run / "sheets").mkdir()
        for n in range(22):
            (run / "sheets" / f"{n:02}.png").write_bytes(b"x")
        (run / "sheets" / "05.png").write_bytes(b"x" * (16 * 2**20 + 1))
        (run / "sheets" / "06.png").write_bytes(b"x" * (16 * 2**20))
        texts.append(run_html(run))
        (run / "metrics.jsonl").unlink()
        texts.append(run_html(run)[:60])
    return "\n\n".join(texts)


class Samples:
    """A data set of one sample with values that are missing and points that are unknown."""

    names = ("depth", "caption", "rgb")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> dict[str, Any]:
        depth = np.ones((64, 64), np.float32)
        depth[:4] = np.nan
        return {"depth": depth, "caption": "a <cube>", "unheard of": 3}

    def key(self, i: int) -> str:
        return f"<key {i}>"


def values() -> str:
    """Values, results, and the lines around them."""
    catalog = load_catalog("scenes")
    scene = small_bundle.scenes(1)[0]
    depth = scene["depth"]
    tokens = np.full(64, -1)
    some = tokens.copy()
    some[:5] = 3
    results = [
        Generated(
            catalog, {"caption": "a"}, {"depth": depth + n}, {"depth": some, "semseg": [some, tokens][n]}, problems={"depth": ["it is <odd>", "twice"]}
        )
        for n in range(2)
    ]  # fmt: skip
    plan = Schedule(())
    one = RequestState(results[:1], plan, 3, 8, "depth")
    merged = Generated(
        catalog, {"caption": "a"}, {"depth": depth}, spread={"depth": np.full((64, 64), 0.25, np.float32)}
    )
    both = RequestState(results, plan, 8, 8, "", merged)
    logs = torch.tensor([-0.5, -4.0, -9.0, 0.0] + [-1.0] * 509).numpy()
    found = Likelihood(Score(float(logs.sum()), logs), tuple(map(str, range(len(logs)))))
    spread = np.array([[0.0, np.nan], [2.0, 4.0]], np.float32)
    parts = [
        values_html(catalog, {"caption": "x" * 4001, "depth": depth}, "a <title>"), values_html(catalog, {"caption": "", "semseg": None}),
        sample_html(Samples(), 1, catalog.subset(["rgb", "depth", "caption"])),
        progress_html(catalog, one, ["depth", "semseg", "caption"]), progress_html(catalog, both, ["depth", "semseg"]),
        status_html(one, 1.26, 3), status_html(both, 1.26, 3), status_html(RequestState([], plan, 8, 8, "depth"), 0, 1), status_html(RequestState([], plan, 0, 0, "", stopped="why <so>"), 0, 1),
        likelihood_html("a<b", found), likelihood_html("none", Likelihood(Score(0.0, logs[:0]), ())), spread_card(catalog["depth"], spread),
        spread_card(catalog["depth"], np.full((2, 2), np.nan)), spread_card(catalog["semseg"], np.array([0.5, 1.0])), spread_card(catalog["edges"], spread * 0),
        error_html(ValueError("<x>")),
    ]  # fmt: skip
    shown = parts[9].count("mw-token")
    parts[9] = f"{parts[9][:500]} … {shown} of {len(logs)} tokens"
    return "\n\n".join(parts)


def without_pictures(text: str) -> str:
    text = re.sub(r"base64,[\w+/=]{5,}", "base64,…", text)
    return re.sub(r"><(?=figure|div|h3|p|ul|li|tr|table|span)", ">\n<", text).rstrip() + "\n"


PARTS: dict[str, Callable[[], str]] = {"page.txt": page, "form.txt": form, "runs.html": runs, "values.html": values}


@pytest.mark.parametrize("name", PARTS)
def test_what_the_page_shows_is_what_is_stored(name: str) -> None:
    text = without_pictures(PARTS[name]())
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), (
        f"{name} changed; on purpose: python tests/studio/test_golden_studio.py"
    )


if __name__ == "__main__":
    for name, make in PARTS.items():
        (GOLDEN / name).write_text(without_pictures(make()), encoding="utf-8")
