"""Rest and motion as two models: which is believed, and whether the covariance is honest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from safety_filter.perception.kalman import State, transition
from safety_filter.perception.motion import Motion

DT = 1 / 15
SIGMA = 0.002
R = SIGMA**2 * np.eye(3)
ACCEL, STARTS, STOPS = 0.4, 1.0, 0.5


def first(moving: float = 0.5) -> Motion:
    return Motion.of(State.at(np.zeros(3), R, 0.3), moving)


def on(motion: Motion) -> Motion:
    return motion.predicted(DT, ACCEL, STARTS, STOPS)


def resting(pictures: int = 30, seed: int = 0) -> Motion:
    rng, motion = np.random.default_rng(seed), first()
    for _ in range(pictures):
        motion = on(motion).updated(rng.normal(0.0, SIGMA, 3), R)
    return motion


def test_the_state_has_the_mean_and_covariance_of_both():
    rng = np.random.default_rng(0)
    parts = [State(rng.normal(size=6), np.diag(rng.uniform(0.5, 2.0, 6))) for _ in range(2)]
    motion = Motion(parts[0], parts[1], 0.3)
    draws = np.concatenate([rng.multivariate_normal(part.x, part.p, n)
                            for part, n in zip(parts, (280_000, 120_000), strict=True)])
    np.testing.assert_allclose(motion.state.x, draws.mean(0), atol=0.02)
    np.testing.assert_allclose(motion.state.p, np.cov(draws.T), atol=0.03)


def test_what_rests_is_taken_to_rest_in_spite_of_noise():
    wandering = [float(np.linalg.norm(resting(60, seed).state.x[3:])) for seed in range(10)]
    assert max(wandering) < 0.01
    assert np.mean([resting(60, seed).moving for seed in range(10)]) < 0.1


@pytest.mark.parametrize("speed", [0.1, 0.3])
def test_what_sets_out_is_noticed_within_four_pictures(speed):
    rng, motion, x, v = np.random.default_rng(0), resting(), 0.0, 0.0
    for _ in range(round(speed / ACCEL / DT) + 4):  # it takes so long to reach its speed
        x, v = x + v * DT, min(v + ACCEL * DT, speed)
        motion = on(motion).updated(np.array([x, 0.0, 0.0]) + rng.normal(0, SIGMA, 3), R)
    assert motion.moving > 0.9
    assert motion.state.x[3] == pytest.approx(v, abs=0.05)


def test_where_nothing_shows_it_may_set_out_or_stop_as_often_as_declared():
    rested, moved = resting(), Motion.of(resting().move, 0.999)
    for _ in range(300):
        rested, moved = on(rested), on(moved)
    starts, stops = 1 - np.exp(-DT * STARTS), 1 - np.exp(-DT * STOPS)
    for motion in (rested, moved):
        assert motion.moving == pytest.approx(starts / (starts + stops), abs=0.01)


def test_what_is_hidden_at_rest_becomes_less_certain_and_not_more():
    motion, sigmas = resting(), []
    for _ in range(10):
        motion = on(motion)
        sigmas.append(np.sqrt(np.diag(motion.state.p))[[0, 3]])
    assert np.all(np.diff(np.array(sigmas), axis=0) > 0.0)
    assert sigmas[-1][1] > 0.03  # m/s, after two thirds of a second


def test_errors_are_those_that_the_covariance_says_seen_and_hidden():
    """Things that set out and stop at the rates declared (Monte Carlo): the mean normalised error
    squared, of 6 dimensions, is about 6 where they show. Hidden, one Gaussian stands for two
    cases, so the mean is held against it more loosely."""
    rng = np.random.default_rng(3)
    seen, hidden = [], []
    for _ in range(150):
        truth, motion, moves = np.zeros(6), first(), False
        for k in range(55):
            if rng.random() < (STOPS if moves else STARTS) * DT:
                moves = not moves
                truth[3:] = rng.normal(0.0, 0.1, 3) if moves else 0.0
            a = rng.normal(0.0, ACCEL, 3) if moves else np.zeros(3)
            truth = transition(DT) @ truth + np.concatenate([DT**2 / 2 * a, DT * a])
            motion = on(motion)
            if k < 45:
                motion = motion.updated(truth[:3] + rng.normal(0, SIGMA, 3), R)
            e = truth - motion.state.x
            if k in (20, 44):
                seen.append(e @ np.linalg.solve(motion.state.p, e))
        hidden.append(e[:3] @ np.linalg.solve(motion.state.p[:3, :3], e[:3]))
    assert np.median(seen) < chi2.ppf(0.6, 6)
    assert np.mean(np.array(seen) > chi2.ppf(0.999, 6)) < 0.08
    assert np.mean(hidden) < 2 * 3


def test_that_nothing_shows_speaks_against_a_place_in_view():
    motion = Motion(State(np.zeros(6), np.eye(6)), State(np.ones(6), np.eye(6)), 0.5)
    gone = motion.weighed(np.array([0.3, 1.0]))
    assert gone.moving == pytest.approx(1 / 1.3)
    for _ in range(20):
        gone = gone.weighed(np.array([0.3, 1.0]))
    assert gone.moving < 1.0  # never so sure that sightings could not change it


def test_on_a_level_it_neither_sinks_nor_moves_down():
    motion = Motion.of(State(np.array([0.5, 0.0, -0.01, 0.1, 0.0, -0.2]), np.eye(6)), 0.5)
    level = motion.at_height(0.02)
    np.testing.assert_allclose(level.state.x, [0.5, 0.0, 0.02, 0.05, 0.0, 0.0])
