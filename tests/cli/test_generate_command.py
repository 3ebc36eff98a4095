"""`maskweave generate` beyond one plain request: folders, samples, guidance, schedules, edits, and Ctrl-C."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

import maskweave
from maskweave.cli.main import main
from maskweave.errors import MaskweaveError
from maskweave.files import read_yaml, write_yaml
from maskweave.generate import folders
from maskweave.generate.bundle import Bundle
from maskweave.generate.ensemble import member_seeds
from maskweave.generate.folders import generate_files
from maskweave.generate.schedule import Condition, load_schedule
from maskweave.interruption import Interrupted
from maskweave.modality.decoding import Decoding
from maskweave.synthetic.scenes import Scenes


@pytest.fixture(scope="module")
def bundle(tiny_run: Path) -> Bundle:
    return maskweave.load(tiny_run)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for n, name in enumerate(("one", "two", "three")):
        picture = np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def generate(*words: object) -> int:
    return main(["generate", *map(str, words)])


def test_a_folder_of_inputs_gives_a_folder_of_results_and_goes_on(tiny_run, photos, tmp_path, capsys) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    words = [tiny_run, "--input", f"rgb={photos}", "--target", "depth,caption", "--out", tmp_path / "out", "--batch", 2]
    assert generate(*words) == 0
    said = capsys.readouterr()
    assert "3 results written to" in said.out and "1 inputs skipped" in said.out and "invalid" in said.err
    results = {path.name for path in (tmp_path / "out").iterdir()}
    assert results == {"one", "two", "three", "request.yaml"}
    assert {p.name for p in (tmp_path / "out" / "one").iterdir()} >= {"depth.npy", "sheet.png", "schedule.yaml"}
    assert (
        generate(
            tiny_run, "--input", f"rgb={photos / 'two.png'}", "--target", "depth,caption", "--out", tmp_path / "two"
        )
        == 0
    )
    assert (tmp_path / "two" / "depth.npy").read_bytes() == (tmp_path / "out" / "two" / "depth.npy").read_bytes()
    shutil.rmtree(tmp_path / "out" / "two")
    before = (tmp_path / "out" / "one" / "depth.npy").stat().st_mtime_ns
    (photos / "broken.png").unlink()
    assert generate(*words) == 0
    assert "1 results written" in capsys.readouterr().out
    assert (tmp_path / "out" / "one" / "depth.npy").stat().st_mtime_ns == before
    assert generate(*words, "--seed", 3) == 1
    assert "holds results made with other settings" in capsys.readouterr().err


def test_samples_and_guidance(tiny_run, photos, tmp_path) -> None:
    words = [
        "--input",
        f"rgb={photos / 'one.png'}",
        "--input",
        "caption=a red cube",
        "--target",
        "tok_rgb",
        "--target",
        "depth",
    ]
    words += [
        "--condition",
        "rgb+caption=2",
        "--condition",
        "caption=-0.5",
        "--decoding",
        "depth.steps=2",
        "--guide-with-finished",
    ]
    assert generate(tiny_run, *words, "--samples", 2, "--out", tmp_path / "out") == 0
    schedules = [load_schedule(tmp_path / "out" / str(n) / "schedule.yaml") for n in range(2)]
    assert schedules[0] == schedules[1] and schedules[0].targets == ["tok_rgb", "depth"]
    assert schedules[0].of("depth")[0].guidance == (
        Condition(("rgb", "caption", "tok_rgb"), 2.0),
        Condition(("caption", "tok_rgb"), -0.5),
    )
    assert len(schedules[0].of("depth")) == 2
    a, b = ((tmp_path / "out" / str(n) / "tok_rgb.png").read_bytes() for n in range(2))
    assert a != b
    again = ["--input", f"rgb={photos / 'one.png'}", "--input", "caption=a red cube"]
    again += ["--schedule", tmp_path / "out" / "1" / "schedule.yaml", "--seed", 1]
    assert generate(tiny_run, *again, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again" / "tok_rgb.png").read_bytes() == b


def test_untrained_requests_are_refused_before_any_work(tiny_run, tmp_path, capsys) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    content = read_yaml(run / "recipe.yaml")
    content["model"]["masking"]["mixtures"] = [{"inputs": {"rgb": 1}, "targets": {"depth": 1, "caption": 1}}]
    write_yaml(run / "recipe.yaml", content)
    words = [run, "--input", "caption=a red cube", "--target", "depth", "--out", tmp_path / "out", "--on-untrained"]
    assert generate(*words, "refuse") == 1
    assert "depth from caption was never trained" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert generate(*words, "ignore") == 0
    assert (tmp_path / "out" / "depth.npy").is_file() and "never trained" not in capsys.readouterr().err


def test_edits(tiny_run, photos, tmp_path, capsys) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = [tiny_run, "--input", f"rgb={photos}", "--target", "rgb"]
    Image.fromarray(mask).convert("RGBA").save(tmp_path / "color.png")
    for n, region in enumerate((tmp_path / "mask.png", "0,0,1,0.5", tmp_path / "color.png", "rgb=0.25")):
        assert generate(*words, "--edit", region, "--out", tmp_path / str(n)) == 0
    made = [(tmp_path / str(n) / "one" / "rgb.png").read_bytes() for n in range(4)]
    assert made[0] == made[1] == made[2] != made[3]
    assert (
        generate(tiny_run, "--input", "caption=a cube", "--target", "rgb", "--edit", "0.5", "--out", tmp_path / "o")
        == 1
    )
    assert "targets that are also inputs: none" in capsys.readouterr().err


def test_one_object_is_made_anew_by_its_mask(bundle) -> None:
    scene = Scenes(bundle.catalog, samples=2, seed=1)[1]
    picture = bundle.tokenizers["tok_rgb"].encode([scene["rgb"]])[0].flatten()
    masks = [one["mask"] for one in scene["instances"]]
    assert len(masks) == 2
    for mask in masks:
        touched = mask.reshape(8, 8, 8, 8).any(axis=(1, 3)).flatten()  # patches with a pixel of the object
        assert 0 < touched.sum() < 40
        made = [bundle.generate(scene, ["rgb"], edit={"rgb": mask}, seed=n).tokens["tok_rgb"] for n in (0, 1)]
        for tokens in made:
            assert (tokens[~touched] == picture[~touched]).all()
        assert (made[0][touched] != made[1][touched]).any()


def test_edited_pictures_are_tokenized_once(bundle, photos, tmp_path, monkeypatch) -> None:
    encode = Mock(side_effect=bundle.tokenizers["tok_rgb"].encode)
    monkeypatch.setattr(bundle.tokenizers["tok_rgb"], "encode", encode)
    given: dict[str, Any] = {"edit": {"rgb": [0.0, 0.0, 0.5, 0.5]}, "batch_size": 2}
    assert generate_files(bundle, {"rgb": str(photos)}, ["rgb"], tmp_path / "out", **given).startswith("3 results")
    assert sorted(len(call.args[0]) for call in encode.call_args_list) == [1, 2], "two batches, no picture twice"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--condition", "rgb=much"], "expected NAME=WEIGHT with a number as weight"),
        (["--condition", "rgb=nan"], "expected NAME=WEIGHT with a number as weight"),
        (["--condition", "rgb={from: 1, too: 2}"], "--condition: unknown key 'rgb.too'; did you mean 'rgb.to'?"),
        (["--condition", "rgb=1", "--condition", "rgb=2"], "each name once"),
        (["--condition", "boxes=2"], "condition 'boxes': 'boxes' is neither an input nor a target"),
        (["--condition", "depth=2"], "condition 'depth' has no effect"),
        (["--target", "normal,,caption"], "--target 'depth,normal,,caption': expected names separated by commas"),
        (["--target", "deepth"], "unknown modality 'deepth'; did you mean 'depth'?"),
        (["--input", "rbg=photo.png"], "unknown modality 'rbg'; did you mean 'rgb'?"),
        (["--input", "depth="], "input 'depth': '': no such file; expected a file or a folder after the ="),
        (["--input", "depth=gone.npy"], "input 'depth': gone.npy: no such file"),
        (["--decoding", "depth=3"], "expected TARGET.KEY=VALUE"),
        (["--decoding", "depth.step=3"], "unknown key 'depth.step'; did you mean 'depth.steps'?"),
        (["--decoding", "depth.steps=0"], "steps is 0; expected 1 or more"),
        (["--decoding", "depth.steps=4", "--decoding", "depth.preset=halton"], "give it before the others of depth"),
        (["--decoding", "depth.steps={"], "found the value '{'"),
        (
            ["--decoding", "caption.steps=3", "--target", "caption"],
            "caption is a sequence and is generated token by token",
        ),
        (["--samples", "0"], "must be 1 or more, found 0"),
        (["--ensemble", "0"], "must be 1 or more, found 0"),
        (["--ensemble", "2", "--target", "caption"], "'caption': values of type 'text' cannot be merged"),
        (["--seed", "-1"], "seed must be 0 or more, found -1"),
        (["--device", "cube"], "device 'cube': torch cannot use it here"),
        (["--schedule", "nothing.yaml"], "nothing.yaml: no such file"),
        (
            ["--schedule", "s.yaml", "--guide-with-finished"],
            "a schedule fixes all steps; remove --schedule, or remove --guide-with-finished",
        ),
        (["--edit", "nothing.png"], "targets that are also inputs: none"),
    ],
)
def test_words_that_are_not_understood(tiny_run, photos, tmp_path, capsys, words, message) -> None:
    given = ["--input", f"rgb={photos / 'one.png'}", "--target", "depth", "--out", tmp_path / "o"]
    assert generate(tiny_run, *given, *words) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1, "one message, and before the progress bar"
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--edit", "nothing.png"], "edit of 'tok_rgb': nothing.png: no such file"),
        (["--edit", "0,0,1"], "--edit '0,0,1': expected a mask file, a box xmin,ymin,xmax,ymax or a share"),
        (["--edit", "0,0,2,1"], "edit of 'tok_rgb': found the box [0.0, 0.0, 2.0, 1.0]"),
        (["--edit", "1.5"], "edit of 'tok_rgb': found 1.5; expected a share from 0 to 1"),
        (["--edit", "0.5", "--edit", "0.7"], "rgb already has a region"),
        (["--edit", "rbg=0.5"], "unknown modality 'rbg'; did you mean 'rgb'?"),
        (["--edit", "depth=0.5"], "edit of 'depth': it is not a target"),
        (["--out", "IN"], "is a folder of inputs; choose another one"),
        (["--out", "IN/one.png/out"], "one.png is a file; expected a folder for the results"),
    ],
)
def test_edits_that_are_not_understood(tiny_run, photos, tmp_path, capsys, words, message) -> None:
    given = [
        "--input",
        f"rgb={photos if 'IN' in words else photos / 'one.png'}",
        "--target",
        "rgb",
        "--out",
        tmp_path / "o",
    ]
    assert generate(tiny_run, *given, *(word.replace("IN", str(photos)) for word in words)) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target: depth", "target: rgb", "step 1 ('rgb'): is input only"),
        ("target: depth", "target: deepth", "unknown modality 'deepth'; did you mean 'depth'?"),
        ("scheme: roar", "scheme: autoregressive", "scheme 'autoregressive' does not fit a grid"),
        ("tokens: ", "tokens: 9", "step 1 ('depth'): tokens is 9"),
        ("temperature: ", "temperature: -", "temperature is -"),
        (
            "guidance: []",
            "guidance: [{modalities: [boxes], weight: 2}]",
            "is guided by 'boxes', which is neither an input",
        ),
        (
            "guidance: []",
            "guidance: [{modalities: boxes, weight: 2}]",
            "'steps.0.guidance.0.modalities' expects a list",
        ),
        ("top_k: 0", "top_k: 0\n  top_q: 0", "unknown key 'steps.0.top_q'; did you mean 'steps.0.top_p'?"),
        ("steps:", "steps: []\nrest:", "unknown key 'rest'"),
        ("chain", "chains", "unknown key 'chains'; did you mean 'chain'?"),
        ("scheme", "{", "not valid YAML"),
    ],
)
def test_schedules_that_are_broken(tiny_run, bundle, photos, tmp_path, capsys, old, new, message) -> None:
    path = tmp_path / "steps.yaml"
    bundle.schedule(["rgb"], ["depth"]).save(path)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    given = ["--input", f"rgb={photos / 'one.png'}", "--schedule", path, "--out", tmp_path / "o"]
    assert generate(tiny_run, *given) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_without_inputs(tiny_run, tmp_path, capsys) -> None:
    assert generate(tiny_run, "--target", "depth", "--out", tmp_path / "o") == 1
    assert "no inputs: this model was always trained with inputs" in capsys.readouterr().err
    unknown = shutil.copytree(
        tiny_run, tmp_path / "bundle", ignore=shutil.ignore_patterns("recipe.yaml", "checkpoints")
    )
    assert generate(unknown, "--target", "depth", "--out", tmp_path / "o") == 0
    assert np.load(tmp_path / "o" / "depth.npy").shape == (64, 64)


def test_an_ensemble_is_one_result(tiny_run, bundle, photos, tmp_path) -> None:
    words = ["--input", f"rgb={photos / 'one.png'}", "--target", "depth,semseg"]
    assert generate(tiny_run, *words, "--ensemble", 3, "--batch", 2, "--seed", 4, "--out", tmp_path / "out") == 0
    merged = bundle.ensemble({"rgb": photos / "one.png"}, ["depth", "semseg"], samples=3, seed=4)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "depth.npy"), merged["depth"])
    with Image.open(tmp_path / "out" / "semseg.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), merged["semseg"])
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"depth.picture.png", "sheet.png", "schedule.yaml"}


def test_ensembles_of_folders_and_samples_go_on(bundle, photos, tmp_path) -> None:
    words = (bundle, {"rgb": str(photos)}, ["depth"], tmp_path / "out")
    assert generate_files(*words, samples=2, ensemble=3, seed=4, batch_size=4).startswith("6 results")
    found = np.load(tmp_path / "out" / "two" / "1" / "depth.npy")
    merged = bundle.ensemble({"rgb": photos / "two.png"}, ["depth"], samples=3, seed=5)
    np.testing.assert_array_equal(found, merged["depth"])
    assert "nothing is left to do" in generate_files(*words, samples=2, ensemble=3, seed=4, batch_size=4)
    shutil.rmtree(tmp_path / "out" / "two" / "1")
    assert generate_files(*words, samples=2, ensemble=3, seed=4).startswith("1 results")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "two" / "1" / "depth.npy"), found)
    with pytest.raises(MaskweaveError, match="holds results made with other settings"):
        generate_files(*words, samples=2, seed=4)


def test_names_that_cannot_be_used_are_left_out(bundle, photos, tmp_path, capsys) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("one", "two", "three", "four"):  # of four there is no picture
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(masks / f"{name}.png")
    (masks / "two.png").write_bytes(b"no mask")
    (photos / "three.png").write_bytes(b"no picture")
    words = (bundle, {"rgb": str(photos)}, ["rgb"], tmp_path / "out")
    assert generate_files(*words, edit={"rgb": str(masks)}).startswith("1 results written")
    said = capsys.readouterr().err
    assert "two: skipped: edit of 'tok_rgb'" in said and "three: skipped: input 'rgb'" in said and "four" not in said
    assert generate_files(*words, edit={"rgb": str(masks)}).startswith("0 results written"), (
        "the others are still broken"
    )
    (photos / "one.jpg").write_bytes(b"")
    with pytest.raises(MaskweaveError, match=r"two files for one name: one.jpg and one.png; keep one"):
        generate_files(*words)


class StopAfter:
    """A signal to stop that comes after so many steps."""

    def __init__(self, steps: int):
        self.left = steps

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left < 0

    def __enter__(self) -> "StopAfter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("steps", "whole"), [(1, False), (6, True)])
def test_a_single_ensemble_that_is_stopped_keeps_what_there_is(
    steps, whole, bundle, photos, tmp_path, monkeypatch
) -> None:
    """Members that are whole, if there are any; otherwise what is known of the others."""
    monkeypatch.setattr(folders, "StopSignal", lambda: StopAfter(steps))
    photo = {"rgb": str(photos / "one.png")}
    four: dict[str, Any] = {"decoding": {"depth": Decoding("roar", steps=4, temperature=0.1)}}
    with pytest.raises(Interrupted, match="generated in part"):
        generate_files(bundle, photo, ["depth"], tmp_path / "out", ensemble=4, batch_size=2, **four)
    seeds = member_seeds(0, 4)[:2]
    whole_ones = bundle.generate_batch([photo] * 2, ["depth"], seeds=seeds, **four)
    average = np.mean([one["depth"] for one in whole_ones], axis=0)
    found = np.load(tmp_path / "out" / "depth.npy")
    assert np.allclose(found, average, atol=1e-5) == whole


def test_ctrl_c_keeps_what_is_done(tiny_run, photos, tmp_path, start: Callable[..., Any]) -> None:
    words = [
        "generate",
        tiny_run,
        "--input",
        f"rgb={photos}",
        "--target",
        "caption,depth",
        "--samples",
        40,
        "--batch",
        40,
    ]
    first = tmp_path / "out" / "one" / "0" / "schedule.yaml"
    command = start(*words, "--out", tmp_path / "out", at=(first, ""), send=signal.SIGINT)
    _, said = command.end()
    assert command.code == 130 and "Traceback" not in said and "run the same command again to resume" in said
    assert not (tmp_path / "out" / "two" / "39" / "schedule.yaml").exists()
