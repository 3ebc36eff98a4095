"""Schedules: counts and temperatures, guided conditions, YAML there and back, and the contradictions that are refused."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_catalog import tiny

from maskweave.config import build, plain
from maskweave.errors import MaskweaveError
from maskweave.generate import decode
from maskweave.generate.guidance import passes
from maskweave.generate.request import check_request, plan
from maskweave.generate.schedule import (
    Condition,
    Schedule,
    Step,
    check_schedule,
    counts_per_step,
    load_schedule,
    make_schedule,
    temperature_of,
    tokens_per_step,
)
from maskweave.modality.decoding import Decoding, Ramp, Remasking, presets

CATALOG = tiny()


@settings(max_examples=200, derandomize=True)
@given(
    st.integers(1, 900),
    st.integers(1, 1000),
    st.sampled_from(["maskgit", "roar"]),
    st.sampled_from(["auto", "cosine", "linear"]),
)
def test_every_token_has_its_step(total, steps, scheme, kind) -> None:
    counts = tokens_per_step(total, Decoding(scheme=scheme, steps=steps, token_schedule=kind))
    assert sum(counts) == total and min(counts) > 0 and len(counts) <= min(steps, total)
    if kind == "linear" or (kind, scheme) == ("auto", "roar"):
        assert max(counts) - min(counts) <= 2
        assert len(counts) == min(steps, total)
    elif len(counts) > 2:
        assert counts[0] <= counts[-1], "a cosine begins slowly"


def test_token_schedules() -> None:
    assert tokens_per_step(100, Decoding("maskgit", steps=4)) == [8, 22, 32, 38]
    assert tokens_per_step(100, Decoding("roar", steps=4, token_schedule="cosine")) == [8, 22, 32, 38]
    assert tokens_per_step(100, Decoding("roar", steps=3)) == [33, 34, 33]
    assert tokens_per_step(100, Decoding("maskgit", steps=3, token_schedule="linear")) == [33, 34, 33]
    assert tokens_per_step(7, Decoding("maskgit", steps=1)) == [7]
    assert tokens_per_step(100, Decoding("halton", steps=4)) == [8, 22, 32, 38], "all but ROAR start slowly"
    assert tokens_per_step(100, Decoding("entropy", steps=4, token_schedule="arccos")) == [17, 17, 20, 46]


def test_temperature_schedules() -> None:
    def of(kind: str) -> list[float]:
        return [temperature_of(Decoding(temperature=4, temperature_schedule=kind), n, 4) for n in range(4)]

    assert of("constant") == [4, 4, 4, 4]
    assert of("linear") == [4, 3, 2, 1]
    assert of("onex:0.5:1") == pytest.approx([4, 2, 4 / 3, 1])
    assert of("onex:2.5:0.5") == pytest.approx([4, 4 / 2**0.5, 2.5, 2.5])


@pytest.mark.parametrize("name", presets())
def test_presets(name) -> None:
    """Each can generate a grid; other keys replace its own."""
    made = make_schedule(CATALOG, ["photo"], ["codes"], decoding={"codes": Decoding.preset(name)})
    check_schedule(made, CATALOG, ["photo"])
    assert Decoding.preset(name, top_k=3, steps=30) == dataclasses.replace(Decoding.preset(name), top_k=3, steps=30)


def test_presets_are_the_published_settings() -> None:
    """`moment` (https://arxiv.org/abs/2510.04525) has none: we know the rule of its paper, but no settings for a model and data."""
    curve = {"scheme": "roar", "temperature_schedule": "onex:0.5:0.5", "top_p": 0.8}
    table = {
        "maskgit": Decoding("maskgit", 8, "cosine", 1.0, choice_temperature=Ramp(3.9375, 0.0)),
        "halton": Decoding("halton", 32, "arccos", Ramp(1.0, 1.2), guidance=3.0),
        "remdm-loop": Decoding("roar", 128, top_p=0.9, remask=Remasking("loop", 0.02, (0.45, 0.95), 0.9)),
        "4m-rgb": Decoding(**curve, steps=25, temperature=3.0, guidance=2.0),
        "4m-clip": Decoding(**curve, steps=50, temperature=5.0, guidance=3.0),
        "4m-maps": Decoding("roar", 1, temperature=0.01, top_p=0.8, guidance=2.0),
        "terramind-tim": Decoding("roar", 1, temperature=1.0, top_p=0.8),
    }
    assert {name: Decoding.preset(name) for name in presets()} == table


def test_presets_that_do_not_exist() -> None:
    halton = build(Decoding, {"preset": "halton", "temperature": 0.5}, "entry")
    assert (halton.scheme, halton.steps, halton.temperature) == ("halton", 32, 0.5)
    with pytest.raises(MaskweaveError, match="entry: decoding.preset is 'haltn'; expected one of maskgit, halton"):
        build(Decoding, {"preset": "haltn"}, "entry", "decoding")
    with pytest.raises(MaskweaveError, match="unknown key 'stepps'; did you mean 'steps'"):
        Decoding.preset("halton", stepps=2)


def test_remasking_counts() -> None:
    """Each step's masked tokens stay below what is known before and unknown after it; over all steps, they are η of the known ones."""
    conf = Decoding("roar", steps=8, remask=Remasking("conf", 0.5))
    assert counts_per_step(64, conf) == [(8, 0), (8, 4), (8, 8), (8, 12), (8, 16), (8, 16), (8, 8), (8, 0)]
    half = Decoding("roar", steps=8, remask=Remasking("cap", 0.05, (0.5, 1.0)))
    assert [again for _, again in counts_per_step(64, half)] == [0, 0, 0, 0, 1, 2, 3, 0]
    loop = Decoding("roar", steps=10, remask=Remasking("loop", 0.1, (0.4, 0.8), 0.75))
    assert counts_per_step(64, loop) == [*[(12, 0)] * 4, (0, 4), (0, 5), (0, 5), (0, 5), (8, 0), (8, 0)]
    for content, message in (
        ({"scheme": "conf", "share": 1e-6}, "masks none of 64 tokens in 8 steps; raise it"),
        (
            {"scheme": "loop", "share": 0.1, "interval": [0.4, 0.42]},
            "leaves no step or token for one of its three parts",
        ),
    ):
        with pytest.raises(MaskweaveError) as caught:
            counts_per_step(64, build(Decoding, {"remask": content}, "it"))
        assert message in str(caught.value)
    made = make_schedule(CATALOG, ["photo"], ["codes"], decoding={"codes": conf})
    check_schedule(made, CATALOG, ["photo"])
    assert made.steps[2].remask == 2 and made.steps[2].remask_by == "confidence" and "2 + 2 again" in str(made)


def test_numbers_as_functions_of_the_step() -> None:
    def at(ramp: Ramp, steps: int = 5) -> list[float]:
        return [ramp.at(n, steps) for n in range(steps)]

    assert at(Ramp(0.0, 4.0)) == [0, 1, 2, 3, 4]
    assert at(Ramp(4.0, 0.0, "cosine")) == pytest.approx([4, 2 + 2**0.5, 2, 2 - 2**0.5, 0])
    assert at(Ramp(0.0, 4.0, interval=(0.25, 0.75))) == [0, 0, 2, 4, 4]
    assert [Ramp(3.0, interval=(0.2, 0.8)).is_on(n, 5) for n in range(5)] == [False, True, True, True, False]
    assert Ramp(1.0, 3.0).at(0, 1) == 3, "a single step is the last"
    how = build(
        Decoding, {"temperature": {"from": 1, "to": 0.5}, "guidance": {"from": 3, "interval": [0.3, 0.9]}}, "it"
    )
    made = make_schedule(CATALOG, ["photo"], ["codes"], decoding={"codes": dataclasses.replace(how, steps=4)})
    assert [s.temperature for s in made.steps] == pytest.approx([1, 5 / 6, 4 / 6, 0.5])
    photo = (Condition(("photo",), 3.0),)
    assert [s.guidance for s in made.steps] == [(), photo, photo, ()], "off outside its interval"
    grown = make_schedule(CATALOG, ["photo"], ["codes"], conditions={"photo": Ramp(0.0, 7.0)})
    assert [s.guidance[0].weight for s in grown.steps] == pytest.approx(list(range(8)))
    assert build(Decoding, plain(how), "it") == how


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"guidance": {"from": 1, "interval": [0.8, 0.2]}}, "interval is (0.8, 0.2); expected two increasing numbers"),
        ({"guidance": {"from": 1e9}}, "guidance is Ramp"),
        ({"temperature": {"from": 1, "to": -1}}, "expected a number of 0 or more"),
        ({"temperature": {"from": 1, "to": 0}, "temperature_schedule": "linear"}, "is a function of the step already"),
        ({"scheme": "halton", "choice_temperature": 1}, "expected 0 for scheme 'halton'"),
        ({"scheme": "entropy", "choice_temperature": -1}, "choice_temperature is -1"),
        ({"remask": {"scheme": "conf", "share": 0}}, "remask.share is 0"),
        (
            {"remask": {"scheme": "loop", "share": 0.1}},
            "remask.interval is (0.0, 1.0); expected numbers between 0 and 1",
        ),
        ({"remask": {"scheme": "loop", "share": 0.1, "interval": [0.1, 0.9], "known": 1}}, "remask.known is 1"),
        ({"token_schedule": "arccosine"}, "expects one of auto, cosine, arccos, linear"),
    ],
)
def test_decodings_that_contradict_themselves(content, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        build(Decoding, content, "entry")
    assert message in str(caught.value)


def test_a_schedule_follows_the_entries_and_the_request() -> None:
    entry = dataclasses.replace(CATALOG["codes"], decoding=Decoding("maskgit", steps=2, guidance=3.0, top_k=5))
    catalog = type(CATALOG)(
        [entry if m.name == "codes" else m for m in CATALOG.values()], CATALOG.vocabularies.values()
    )
    made = make_schedule(
        catalog, ["photo"], ["codes", "caption"], decoding={"caption": Decoding(temperature=0.1, steps=9)}
    )
    photo = (Condition(("photo",), 3.0),)
    assert made.steps == (
        Step("codes", "maskgit", 5, 1.0, 1.0, 5, photo),
        Step("codes", "maskgit", 11, 1.0, 1.0, 5, photo),
        Step("caption", "autoregressive", 20, 0.1),
    )
    assert made.targets == ["codes", "caption"]
    assert make_schedule(catalog, ["codes"], ["codes"]).steps[0].guidance == (), "nothing is left to be guided by"


def conditions(**request) -> dict[str, tuple]:
    made = make_schedule(CATALOG, ["photo", "caption"], ["codes", "spectrum"], **request)
    return {step.target: tuple((c.modalities, c.weight) for c in step.guidance) for step in made.steps}


def test_conditions() -> None:
    assert conditions() == {"codes": (), "spectrum": ()}
    two = {"photo": 2.0, "caption": -1.0}
    both = ((("photo",), 2.0), (("caption",), -1.0))
    assert conditions(conditions=two) == {"codes": both, "spectrum": both}
    grown = ((("photo", "codes"), 2.0), (("caption", "codes"), -1.0))
    assert conditions(conditions=two, guide_with_finished=True) == {"codes": both, "spectrum": grown}
    assert conditions(conditions=two, guide_with_finished=True, chain=False) == {"codes": both, "spectrum": both}
    assert conditions(conditions={"photo+codes": 3.0}) == {
        "codes": ((("photo",), 3.0),),
        "spectrum": ((("photo", "codes"), 3.0),),
    }


def test_thoughts_come_first_and_join_the_inputs_of_all_targets() -> None:
    resolved, made = plan(CATALOG, ["photo"], ["spectrum", "facts"], {"think": ["codes"], "chain": False}, None)
    assert resolved == made.targets == ["codes", "spectrum", "facts"] and made.think == ("codes",)
    assert [name for name in made.targets if made.joins(name)] == ["codes"]
    assert str(made).endswith("chained: no\nthought of first: codes")
    guided = plan(
        CATALOG, ["photo"], ["facts"], {"think": ["codes"], "chain": False, "conditions": {"codes": 2.0}}, None
    )
    assert guided[1].steps[-1].guidance == (Condition(("codes",), 2.0),)
    for targets, options, message in (
        (None, {"think": ["codes"]}, "no targets: give at least one modality to generate after thinking"),
        (["codes"], {"think": ["codes"]}, "found one twice"),
        (["codes"], {"think": "facts"}, "think is 'facts'; expected a list of names"),
        (["codes"], {"think": ["sound"]}, "unknown modality 'sound'"),
        (["codes"], {"think": ["facts"], "schedule": made}, "so it cannot be combined with think"),
    ):
        with pytest.raises(MaskweaveError) as caught:
            plan(CATALOG, ["photo"], targets, options, None)
        assert message in str(caught.value)


def asked(*guidance: Condition, names=("photo", "caption", "codes")) -> dict[str, float]:
    found = passes(Step("codes", "roar", 16, guidance=guidance), names)
    assert sum(p.weight for p in found) == pytest.approx(1)
    return {"+".join(sorted(p.sees)): p.weight for p in found}


def test_passes() -> None:
    assert asked() == {"caption+codes+photo": 1}
    assert asked(Condition(("photo",), 2.0)) == {"caption+codes": -1, "caption+codes+photo": 2}
    assert asked(Condition(("photo", "caption"), 2.0)) == {"codes": -1, "caption+codes+photo": 2}
    assert asked(Condition(("photo",), 2.0), Condition(("caption",), -0.5)) == {
        "codes": -0.5,
        "codes+photo": 2,
        "caption+codes": -0.5,
    }
    assert asked(Condition(("photo", "caption"), 1.0)) == {"caption+codes+photo": 1}, "what weighs nothing is not run"
    assert asked(Condition(("photo",), 2.0), names=("caption", "codes")) == {"caption+codes": 1}, (
        "nobody has photographs"
    )


def test_yaml_there_and_back(tmp_path) -> None:
    made = make_schedule(
        CATALOG,
        ["photo"],
        ["codes", "caption"],
        decoding={"codes": Decoding(steps=3, temperature=3, temperature_schedule="onex:0.5:0.5", top_p=0.8)},
        conditions={"photo": 2.5},
        chain=False,
    )
    made.save(tmp_path / "schedule.yaml")
    assert load_schedule(tmp_path / "schedule.yaml") == made
    said = str(made).splitlines()
    assert len(said) == 1 + 4 + 1 and "photo × 2.5" in said[1] and said[-1] == "chained: no"
    (tmp_path / "wrong.yaml").write_text("steps: [{target: codes, scheme: roar, tokens: many}]", encoding="utf-8")
    with pytest.raises(MaskweaveError, match=r"wrong.yaml: 'steps.0.tokens' expects a whole number, found 'many'"):
        load_schedule(tmp_path / "wrong.yaml")


GRID, TEXT = Step("codes", "roar", 16), Step("caption", "autoregressive", 20)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "has no steps"),
        ([Step("sound", "roar", 4)], "unknown modality 'sound'"),
        ([Step("photo", "roar", 16)], "step 1 ('photo'): is input only, of kind patches"),
        (
            [Step("codes", "roar", 8), TEXT, Step("codes", "roar", 8)],
            "step 3 ('codes'): this target was finished by an earlier step",
        ),
        (
            [Step("codes", "autoregressive", 16)],
            "scheme 'autoregressive' does not fit a grid; expected 'maskgit' or 'roar' or 'halton'",
        ),
        ([Step("caption", "roar", 16)], "scheme 'roar' does not fit a sequence"),
        (
            [Step("codes", "roar", 8), Step("codes", "roar", 4, remask=5), Step("codes", "roar", 4)],
            "remask is 5; expected 0 to 4",
        ),
        ([Step("codes", "roar", 16, remask=1)], "remask is 1; expected 0 to 0"),
        ([dataclasses.replace(TEXT, remask=1)], "remask is 1; expected 0 to 0"),
        ([Step("codes", "roar", 0)], "tokens is 0; expected 1 to 16"),
        ([Step("caption", "autoregressive", 21)], "tokens is 21; expected 1 to 20"),
        ([Step("codes", "roar", 15)], "the steps of 'codes' predict 15 tokens; expected all 16"),
        ([TEXT, TEXT], "'caption' is a sequence, which takes one step, found 2"),
        ([Step("codes", "roar", 16, temperature=-1)], "step 1 ('codes'): temperature is -1"),
        ([Step("codes", "roar", 16, top_p=0)], "top_p is 0"),
        (
            [dataclasses.replace(GRID, guidance=(Condition(("feature",), 2.0),))],
            "is guided by 'feature', which is neither an input",
        ),
        (
            [dataclasses.replace(GRID, guidance=(Condition(("caption",), 2.0),)), TEXT],
            "is guided by 'caption', which is neither",
        ),
        ([dataclasses.replace(GRID, guidance=(Condition(("codes",), 2.0),))], "is guided by 'codes'"),
        ([dataclasses.replace(GRID, guidance=(Condition((), 2.0),))], "a condition needs modalities"),
        ([dataclasses.replace(GRID, guidance=(Condition(("photo",), float("nan")),))], "a weight from -10000 to 10000"),
    ],
)
def test_contradictions(steps, message) -> None:
    with pytest.raises(MaskweaveError) as caught:
        check_schedule(Schedule(tuple(steps)), CATALOG, ["photo"])
    assert message in str(caught.value)
    guided = dataclasses.replace(GRID, guidance=(Condition(("caption",), 2.0),))
    check_schedule(Schedule((TEXT, guided)), CATALOG, [])
    with pytest.raises(MaskweaveError, match="is guided by 'caption'"):
        check_schedule(Schedule((TEXT, guided), chain=False), CATALOG, [])


def test_requests() -> None:
    assert check_request(CATALOG, ["feature"], ["caption", "photo"]) == ["caption", "codes"]
    for inputs, targets, message in (
        (["sound"], ["caption"], "unknown modality 'sound'; known: photo, codes"),
        ([], ["sound"], "unknown modality 'sound'"),
        (
            [],
            ["feature"],
            "'feature' is of kind vectors, which is input only; the model can predict codes, spectrum, caption, facts",
        ),
        ([], [], "no targets: give at least one modality"),
        ([], ["caption", "caption"], "targets: found one twice in caption, caption"),
        ([], ["photo", "codes"], "targets: found one twice in photo, codes"),
    ):
        with pytest.raises(MaskweaveError) as caught:
            check_request(CATALOG, inputs, targets)
        assert message in str(caught.value)


def test_plans_that_contradict_themselves() -> None:
    given_schedule = Schedule((GRID,))
    assert plan(CATALOG, ["photo"], None, {"schedule": given_schedule}, None) == (["codes"], given_schedule)
    assert plan(CATALOG, [], ["codes"], {}, True)[0] == plan(CATALOG, [], ["codes"], {}, None)[0] == ["codes"]
    for inputs, targets, options, message in (
        ([], ["codes"], {}, "no inputs: this model was always trained with inputs"),
        (
            ["photo"],
            ["caption"],
            {"schedule": given_schedule},
            "the schedule generates codes, but the request asks for caption",
        ),
        (["photo"], ["codes"], {"schedule": given_schedule, "chain": False}, "so it cannot be combined with chain"),
        (["photo"], None, {}, "no targets"),
        (
            ["photo"],
            ["codes"],
            {"conditions": {"feature": 2.0}},
            "'feature' is neither an input nor a target; expected one of photo, codes",
        ),
        (["photo"], ["codes"], {"conditions": {"photo": float("inf")}}, "a weight from -10000 to 10000"),
        (
            ["photo"],
            ["codes"],
            {"decoding": {"caption": Decoding()}},
            "decoding of 'caption': not one of the targets",
        ),
    ):
        with pytest.raises(MaskweaveError) as caught:
            plan(CATALOG, inputs, targets, options, False)
        assert message in str(caught.value)


def test_shares_of_open_places_add_up() -> None:
    counts = tokens_per_step(196, Decoding("maskgit", steps=8))
    open_B = np.array([196, 100, 3, 1, 0])
    settled = [decode.rounded_share(open_B, sum(counts[:n]), 196) for n in range(9)]
    assert (settled[0] == 0).all() and (settled[-1] == open_B).all()
    assert all((b >= a).all() for a, b in itertools.pairwise(settled))
    assert [int(b[0] - a[0]) for a, b in itertools.pairwise(settled)] == counts
