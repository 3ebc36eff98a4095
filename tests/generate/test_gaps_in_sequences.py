"""Sequences that are filled in around what is kept, one gap after another."""

import numpy as np
from small_model import CATALOG, FIRST, generate, make_model, tokens

from maskweave.generate.engine import Engine
from maskweave.generate.schedule import make_schedule
from maskweave.generate.sequences import Gaps
from maskweave.generate.token_state import TokenState
from maskweave.modality.decoding import Decoding
from maskweave.values.codec import EOS


def gaps(kept: str, ids: list[int] | None = None, most: int = 20) -> Gaps:
    ids = ids or list(range(200, 200 + len(kept)))
    return Gaps(np.array(ids, int), np.array([k == "x" for k in kept], bool), CATALOG.vocabularies["text"], most)


def test_gaps_are_written_one_after_another() -> None:
    sequence = gaps("x..xx.x")
    assert sequence.frame == [200, FIRST + 1, 203, 204, FIRST + 2, 206]
    for id in (300, 301, 302, FIRST + 2, 303):
        sequence.take(id)
        assert not sequence.ended
    assert sequence.assembled() == [200, 300, 301, 302, 203, 204, 303, 206]
    sequence.take(FIRST + 3)
    assert sequence.ended


def test_the_whole_is_one_gap() -> None:
    for end in (EOS, FIRST, FIRST + 1, FIRST + 2, FIRST + 5):
        sequence = gaps("")
        assert sequence.frame == [FIRST + 1]
        sequence.take(300)
        sequence.take(end)
        assert sequence.ended
        assert sequence.assembled() == ([300, EOS] if end == EOS else [300])
    assert gaps("xxx").ended, "nothing is to be written"


def test_a_sequence_is_never_too_long() -> None:
    sequence = gaps("xx.xx", most=6)
    for id in (300, 301):
        assert not sequence.ended
        sequence.take(id)
    assert sequence.ended and sequence.assembled() == [200, 201, 300, 301, 203, 204]


def test_texts_are_filled_in_around_what_is_kept() -> None:
    engine = Engine(make_model(), CATALOG)
    ids, mask = np.zeros((3, 20), int), np.zeros((3, 20), bool)
    ids[:, :8] = [210, 211, 212, 213, 214, 215, 216, EOS]
    mask[0, [0, 1, 2, 5, 6, 7]] = True  # a gap in the middle
    mask[1, [0, 1]] = True  # its end
    steps = make_schedule(
        CATALOG, ["photo", "feature"], ["caption"], decoding={"caption": Decoding(steps=4)}, chain=True
    )
    found = tokens(generate(engine, steps, [0, 1, 2], [0, 1, 2], {"caption": TokenState(mask.copy(), ids.copy())}))
    middle, end, anew = (sample["caption"] for sample in found)
    assert middle[:3] == [210, 211, 212] and (EOS in middle[3:-3] or middle[-3:] == [215, 216, EOS])
    assert end[:2] == [210, 211]
    assert anew == tokens(generate(engine, steps, [2], [2]))[0]["caption"], "of this one nothing is kept"
    for b, sample in enumerate((middle, end)):
        alone = generate(
            engine, steps, [b], [b], {"caption": TokenState(mask[b : b + 1].copy(), ids[b : b + 1].copy())}
        )
        assert tokens(alone)[0]["caption"] == sample
