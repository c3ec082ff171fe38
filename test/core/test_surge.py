"""What an obstacle may have gained since it was seen: two bounds on its acceleration, in turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_filter.core.filter_params import TABLE, gains
from safety_filter.core.robot import Record
from safety_filter.core.surge import gained, push, resting, way

SPEED = 0.03


def declared(rest: float, most: float) -> Record:
    return gains(TABLE.validate({'resting_acceleration': rest, 'obstacle_acceleration': most,
                                 'resting_speed': SPEED}))[0]


@settings(max_examples=60, deadline=None)
@given(t=st.floats(1e-3, 2.0), share=st.floats(0.0, 1.0), slow=st.floats(0.0, 1.0))
def test_push_is_the_integral_of_the_bound_times_the_distance(t: float, share: float,
                                                              slow: float) -> None:
    s = (np.arange(20000) + 0.5) * t / 20000
    bound = np.where(s < slow * t, 0.3, 1.0)
    wanted = float(np.sum(bound * np.abs(s - share * t))) * t / 20000
    assert push(share * t, t, slow * t, 0.3, 1.0) == pytest.approx(wanted, abs=1e-4 * t * t)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2 ** 32 - 1), speed=st.floats(0.0, 0.06),
       rest=st.sampled_from((0.0, 0.1, 0.3, 1.0)), t=st.floats(0.01, 0.4))
def test_no_motion_inside_the_bounds_gains_more_and_one_gains_as_much(
        seed: int, speed: float, rest: float, t: float) -> None:
    """Each of 30 motions turns where it likes; the last one goes straight on all the time."""
    rng, p, h = np.random.default_rng(seed), declared(rest, 1.0), t / 4000
    start = np.tile([speed, 0.0, 0.0], (30, 1))
    x, v = np.zeros((30, 3)), start.copy()
    for k in range(4000):
        if k % 500 == 0:
            to = rng.normal(size=(30, 3)) + [1.0, 0.0, 0.0]
            to[-1] = 1.0, 0.0, 0.0
            to /= np.linalg.norm(to, axis=1)[:, None]
        a = np.where(np.linalg.norm(v, axis=1) <= SPEED, rest, 1.0)[:, None] * to
        x, v = x + v * h + a * h * h / 2, v + a * h
    faster, farther = np.linalg.norm(v - start, axis=1), np.linalg.norm(x - t * start, axis=1)
    slow = resting(speed, t, p)
    assert faster.max() <= gained(t, slow, p) + 1e-9
    assert farther.max() <= way(t, slow, p) + 1e-9
    assert faster[-1] == pytest.approx(gained(t, slow, p), abs=2 * h)
    assert farther[-1] == pytest.approx(way(t, slow, p), abs=2 * h * t)


def test_what_can_not_accelerate_at_rest_rests_for_good() -> None:
    p = declared(0.0, 1.0)
    assert resting(SPEED, 5.0, p) == 5.0 and way(5.0, 5.0, p) == gained(5.0, 5.0, p) == 0.0
    assert resting(SPEED + 1e-9, 5.0, p) == 0.0
