"""What the rows ask of a motion, and that the steps end in an explanation or in a proof."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_filter.core.membership import (
    BETWEEN,
    EXPLAINED,
    LEVEL,
    PROVED,
    RADIUS,
    ROWS,
    SCALE,
    SEEN,
    SHARES,
    STAMP,
    STATE,
    Window,
    _slope,
    improve,
    measure,
    window,
)
from safety_filter.core.robot import Array
from safety_filter.core.surge import push

FINE = 60
"""Constant accelerations that a motion is made of between two sightings."""


def bounded(times: Array, rest: float, most: float, slow: float, rng: np.random.Generator,
            radius: tuple[float, float], size: float = 1.0) -> tuple[Window, Array]:
    """Return sightings without errors of a motion with an acceleration of `size` times its bound,
    in directions that now stay and now jump, and its true p, v (n, 6)."""
    n = len(times)
    w, truth = window(n), np.zeros((n, 6))
    truth[0] = rng.normal(size=6)
    way = rng.normal(size=3)
    for i in range(n):
        if i:
            t = times[i] - times[i - 1]
            p, v, h = truth[i - 1, :3].copy(), truth[i - 1, 3:].copy(), t / FINE
            for k in range(FINE):
                if rng.random() < 3 / FINE:
                    way = rng.normal(size=3)
                bound = rest if (k + 1) * h <= slow else most if k * h >= slow else rest
                a = size * bound * way / np.linalg.norm(way)
                p, v = p + v * h + a * h * h / 2, v + a * h
            truth[i] = np.concatenate([p, v])
            for m, share in enumerate(SHARES):
                w.nodes[i, SCALE + m] = 1.0 / push(share * t, t, min(slow, t), rest, most)
        w.nodes[i, STAMP] = times[i]
        w.nodes[i, SEEN:RADIUS] = truth[i]
        w.nodes[i, RADIUS:RADIUS + 2] = radius
        w.nodes[i, STATE:] = truth[i]
    return w, truth


def settle(w: Window, n: int, steps: int = 300) -> int:
    level = LEVEL
    for _ in range(steps):
        verdict, level = improve(w, n, level)
        if verdict:
            return int(verdict)
    return 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2 ** 32 - 1))
def test_every_motion_inside_the_bounds_meets_the_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice((0.004, 0.033, 0.3), 8))
    w, _ = bounded(times, 0.3, 1.0, float(rng.choice((0.0, 0.02, 1.0))), rng, (1e-3, 1e-2))
    _, worst = measure(w, len(times), LEVEL)
    assert worst <= 1.0 + 1e-7, 'but for the rounding of doubles over 4 ms'
    assert np.max(w.lengths[:, :2]) == 0.0


def test_the_rows_ask_for_little_more_than_a_motion() -> None:
    """What is pushed 2 % beyond the bound all the time between two exact sightings breaks them."""
    rng = np.random.default_rng(0)
    for size, verdict in ((0.98, EXPLAINED), (1.02, PROVED)):
        w, _ = bounded(np.array([0.0, 0.033]), 1.0, 1.0, 0.0, rng, (1e-6, 1e-6), 1.0)
        a = size * np.array([0.6, 0.0, 0.8])
        p, v = w.nodes[0, SEEN:SEEN + 3], w.nodes[0, SEEN + 3:RADIUS]
        w.nodes[1, SEEN:SEEN + 3] = p + 0.033 * v + 0.033 ** 2 / 2 * a
        w.nodes[1, SEEN + 3:RADIUS] = v + 0.033 * a
        w.nodes[:, STATE:] = w.nodes[:, SEEN:RADIUS]
        assert settle(w, 2) == verdict


def test_the_gradient_is_that_of_what_is_lessened() -> None:
    rng = np.random.default_rng(1)
    w, _ = bounded(np.arange(6) * 0.05, 0.3, 1.0, 0.02, rng, (0.01, 0.02))
    w.nodes[:, STATE:] += rng.normal(size=(6, 6)) * 0.02
    measure(w, 6, LEVEL)
    _slope(w, 6, LEVEL)
    gradient = w.gradient.copy()
    for i in range(6):
        for k in range(6):
            ends = []
            for small in (1e-6, -1e-6):
                w.nodes[i, STATE + k] += small
                ends.append(measure(w, 6, LEVEL)[0])
                w.nodes[i, STATE + k] -= small
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient[i, k], rel=1e-4, abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2 ** 32 - 1))
def test_errors_within_the_radii_are_explained_from_anywhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.004, 0.1, 20))
    w, _ = bounded(times, 0.3, 1.0, 0.0, rng, (0.008, 0.04), 0.97)
    error = rng.normal(size=(20, 2, 3))
    error *= 0.97 / np.linalg.norm(error, axis=2, keepdims=True)
    w.nodes[:, SEEN:SEEN + 3] += 0.008 * error[:, 0]
    w.nodes[:, SEEN + 3:RADIUS] += 0.04 * error[:, 1]
    w.nodes[:, STATE:] = w.nodes[:, SEEN:RADIUS] + rng.normal(size=(20, 6)) * 0.1
    assert settle(w, 20) == EXPLAINED
    assert measure(w, 20, LEVEL)[1] <= 1.0
    assert w.lengths.shape == (20, ROWS) and ROWS == 2 + BETWEEN


def test_a_proof_names_the_acceleration_and_its_bound() -> None:
    times = np.arange(20) / 30
    w, _ = bounded(times, 1.0, 1.0, 0.0, np.random.default_rng(2), (1e-4, 1e-4), 0.0)
    for i, t in enumerate(times):
        w.nodes[i, SEEN:SEEN + 3] += np.array([0.0, 1.2 * t * t / 2, 0.0])
        w.nodes[i, SEEN + 4] += 1.2 * t
    w.nodes[:, STATE:] = w.nodes[:, SEEN:RADIUS]
    assert settle(w, 20) == PROVED
    assert w.implied[1] == pytest.approx(1.0)
    assert 1.15 <= w.implied[0] <= 1.2
