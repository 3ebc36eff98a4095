"""What the page shows, as HTML: every value has its card, texts are escaped, and the pages of a data set and of a run have their parts."""

import base64
import io
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import small_bundle
from PIL import Image

from maskweave.data import stats
from maskweave.errors import MaskweaveError
from maskweave.modality.entry import Modality
from maskweave.studio.bounds import Bounds
from maskweave.studio.data_page import sample_html, stats_html
from maskweave.studio.events import told
from maskweave.studio.request import StudioRequest
from maskweave.studio.run_page import run_html
from maskweave.studio.running import Likelihood, run
from maskweave.studio.showing import card, likelihood_html, progress_html, spread_card, status_html, values_html
from maskweave.values.binary import Binary
from maskweave.values.classes import Classes
from maskweave.values.map import Map

SCENE = small_bundle.scenes(1)[0]
EVIL = "<script>alert(1)</script>"


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_samples_and_their_uncertainty_are_side_by_side(bundle) -> None:
    request = StudioRequest({"caption": "a red cube"}, ("depth",), samples=3, ensemble=True)
    states = list(run(bundle, request, Bounds()))
    page = progress_html(bundle.catalog, states[-1], ["depth"])
    for words in ("Merged from 3 samples", "Sample 1", "Sample 3", "depth: uncertainty", "standard deviation m"):
        assert words in page
    assert len(pictures(page)) >= 5
    expected = np.std([one["depth"] for one in states[-1].results], axis=0)
    assert np.allclose(states[-1].merged.spread["depth"], expected, atol=1e-5)
    assert "Request 4: finished in 1.5 s" in status_html(states[-1], 1.5, 4)


def test_texts_of_values_are_escaped(bundle) -> None:
    page = values_html(bundle.catalog, {"caption": EVIL, "rgb": SCENE["rgb"]}, EVIL)
    assert EVIL not in page and page.count("&lt;script&gt;") == 2
    assert EVIL not in card(EVIL, "", EVIL)
    assert EVIL not in told(MaskweaveError(EVIL))
    found = bundle.score({}, {"caption": "a"})["caption"]
    assert EVIL not in likelihood_html(EVIL, Likelihood(found, (EVIL,) * len(found.tokens)))


def test_internal_errors_stay_in_the_terminal(capsys) -> None:
    try:
        raise ZeroDivisionError("secret detail of /root/x.py")
    except ZeroDivisionError as error:
        page = told(error)
    assert "internal error" in page and "secret" not in page
    assert "secret detail" in capsys.readouterr().err


def test_spread_by_kind_of_value() -> None:
    classes = Classes(size=(1, 2), classes=("a", "b", "c"))
    votes = [np.array([[0, 1]], np.uint8), np.array([[0, 2]], np.uint8), np.array([[0, 1]], np.uint8)]
    edges = [np.array([[True, n > 0]]) for n in range(4)]
    for value, values, words in (
        (Map(size=(1, 2), range=(0, 9), unit="m"), [np.full((1, 2), x, np.float32) for x in (1, 3)], "mean 1 (standard deviation m)"),
        (classes, votes, "mean 0.167 (share of other classes)"),
        (Binary(size=(1, 2)), edges, "mean 0.125 (share that disagrees)"),
        (Map(size=(1, 2), range=(0, 9), unit="m", missing="nan"), [np.full((1, 2), np.nan, np.float32)] * 2, "unknown everywhere (standard deviation m)"),
    ):  # fmt: skip
        found = value.spread(values)
        assert found is not None and words in spread_card(Modality("seen", 1, "grid", value), found)


def test_samples_of_a_data_set(offered) -> None:
    source, catalog = offered.source("scenes"), offered.catalog()
    page = sample_html(source, 3, catalog)
    assert "Sample 3 of 1000" in page and "depth: map, 64 × 64" in page and len(pictures(page)) >= 2
    assert "global: missing" in page
    with pytest.raises(MaskweaveError, match="samples 0 to 999"):
        sample_html(source, 1000, catalog)
    stats = stats_html("scenes", catalog, {"samples": 6, "seed": 1}, Bounds())
    assert "caption" in stats and "scenes: 6 samples" in stats and pictures(stats) and "stopped" not in stats


def test_statistics_say_how_many_samples_they_could_read(scenes_catalog, monkeypatch) -> None:
    ticks = itertools.count(step=10)
    monkeypatch.setattr(stats, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    page = stats_html("scenes", scenes_catalog, {"samples": 600, "seed": 1}, Bounds(seconds=20))
    assert "<p>stopped after 20 s, the time of a request (--seconds): 3 of 500 samples were read</p>" in page
    assert "scenes: 600 samples, 3 of them read" in page and pictures(page)


def test_a_run_is_shown_while_it_trains_and_after(tiny_run, tmp_path) -> None:
    page = run_html(tiny_run)
    for words in (
        "Finished after 40 steps",
        "curve: loss",
        "Tokenizers and codebooks",
        "tok_rgb",
        "Evaluation",
        "Sheets",
    ):
        assert words in page, words
    assert "not in training yet" in run_html(tmp_path)
    (tmp_path / "metrics.jsonl").write_text((tiny_run / "metrics.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    begun = run_html(tmp_path)
    assert "in training, at step 40" in begun and "curve: loss" in begun and "Sheets" not in begun
