from __future__ import annotations

import numpy as np
import pytest

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception import blobs as bl
from safety_filter.perception.parts import merge_parts


def piece(at, class_id: int, score: float, n: int = 100) -> bl.Blob:
    rng = np.random.default_rng(n)
    points = (rng.uniform(-0.02, 0.02, (n, 3)) + at).astype(np.float32)
    index = np.arange(n)
    return bl.Blob(index, index, points, class_id, score, np.zeros(n, bool))


HAND = np.array([0.5, 0.0, 0.5], np.float32)


@pytest.mark.parametrize(("score", "z", "hand", "merged"), [
    (0.6, 0.02, HAND, True),  # unsure, on the table
    (0.9, 0.02, HAND, False),  # sure, beside an unknown thing
    (0.9, 0.20, HAND, True),  # sure, but it would hang in the air
    (0.9, 0.20, np.array([0.5, 0.0, 0.21], np.float32), False),  # it hangs in the hand
])
def test_parts_of_unknown_things_join_them(score, z, hand, merged):
    known = piece([0.5, 0.0, z], 3, score)
    cluster = piece([0.5, 0.05, z], UNKNOWN_CLASS, 0.5, 150)
    out = merge_parts([known, cluster], 0.75, 0.025, hand)
    assert len(out) == (1 if merged else 2)
    assert sum(len(b.rows) for b in out) == 250
    if merged:
        assert out[0].class_id == UNKNOWN_CLASS


def test_parts_that_do_not_touch_stay_apart():
    blobs = [piece([0.5, 0.0, 0.02], 3, 0.6), piece([0.5, 0.10, 0.02], UNKNOWN_CLASS, 0.5)]
    assert len(merge_parts(blobs, 0.75, 0.025, HAND)) == 2


@pytest.mark.parametrize(("other", "score", "z", "merged"), [
    (5, 0.6, 0.20, True),  # two unsure ones in the air
    (3, 0.6, 0.20, True),  # of one class
    (5, 0.9, 0.20, False),  # one of them is sure
    (5, 0.6, 0.02, False),  # side by side on the table
])
def test_unsure_detections_that_touch_in_the_air_are_one_thing(other, score, z, merged):
    out = merge_parts([piece([0.5, 0.0, z], 3, 0.6), piece([0.5, 0.05, z], other, score, 150)],
                      0.75, 0.025, HAND)
    assert len(out) == (1 if merged else 2)
    assert sum(len(b.rows) for b in out) == 250  # no point counts twice
    if merged:
        assert out[0].class_id == (3 if other == 3 else UNKNOWN_CLASS)
