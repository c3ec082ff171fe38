"""The velocity box: limits always hold, and braking is always inside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_filter.core.limits import brake, velocity_box
from safety_filter.core.robot import Array

LOWER, UPPER = np.array([-1.0, -2.0]), np.array([1.0, 0.5])
VELOCITY, ACCELERATION = np.array([2.0, 1.0]), np.array([5.0, 8.0])


def box(q: Array, last: Array, period: float) -> tuple[Array, Array]:
    low, high = np.zeros(2), np.zeros(2)
    velocity_box(q, last, LOWER, UPPER, VELOCITY, ACCELERATION, period, low, high)
    return low, high


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), period=st.sampled_from([0.001, 0.004, 0.01]),
       greed=st.sampled_from(['high', 'low', 'bang', 'random', 'brake']))
def test_limits_hold_for_ever_whatever_is_picked_from_the_box(seed: int, period: float,
                                                             greed: str) -> None:
    rng = np.random.default_rng(seed)
    q, last = rng.uniform(LOWER, UPPER), np.zeros(2)
    pick = rng.random(2)
    for k in range(400):
        low, high = box(q, last, period)
        assert np.all(low <= high + 1e-12)
        stop = np.zeros(2)
        brake(last, ACCELERATION, period, low, high, stop)
        assert np.all(stop >= low) and np.all(stop <= high)
        if (greed == 'bang' and k % 37 == 0) or greed == 'random':
            pick = rng.random(2) if greed == 'random' else np.round(rng.random(2))
        share = {'high': np.ones(2), 'low': np.zeros(2)}.get(greed, pick)
        x = stop if greed == 'brake' and k > 50 else low + share * (high - low)
        assert np.all(np.abs(x) <= VELOCITY + 1e-12)
        assert np.all(np.abs(x - last) <= ACCELERATION * period + 1e-12)
        q, last = q + x * period, x
        assert np.all(q >= LOWER - 1e-9) and np.all(q <= UPPER + 1e-9)


def test_braking_keeps_the_direction_and_takes_the_slowest_joint_to_its_limit() -> None:
    last, out = np.array([1.0, 0.8]), np.zeros(2)
    low, high = last - ACCELERATION * 0.01, last + ACCELERATION * 0.01
    brake(last, ACCELERATION, 0.01, low, high, out)
    assert np.allclose(out / last, out[0] / last[0])
    assert np.isclose(last[0] - out[0], ACCELERATION[0] * 0.01)


def test_braking_ends_in_exact_zeros() -> None:
    last, out = np.array([1.0, -0.7]), np.zeros(2)
    for _ in range(60):
        brake(last, ACCELERATION, 0.004, last - 1.0, last + 1.0, out)
        last = out.copy()
    assert np.all(last == 0.0)


@pytest.mark.parametrize('q', [(1.1, 0.0), (0.0, -2.2)])
def test_beyond_a_position_limit_only_the_way_back_is_open(q: tuple[float, float]) -> None:
    low, high = box(np.array(q), np.zeros(2), 0.01)
    outward = 1 if q[0] > 1 else 0
    assert (high[0] == 0.0 and low[0] < 0.0) if outward else (low[1] == 0.0 and high[1] > 0.0)


def test_acceleration_limit_is_kept_even_when_moving_out_of_a_limit() -> None:
    low, high = box(np.array([1.1, 0.0]), np.array([1.5, 0.0]), 0.01)
    assert np.isclose(low[0], 1.45) and np.isclose(high[0], 1.45)
