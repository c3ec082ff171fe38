"""Where a thing out of sight can be."""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.perception.hidden import SAMPLES, Hideout, behind
from safety_filter.perception.kalman import State

ACCEL, SPEED = 0.4, 0.3
HALF = np.array([0.03, 0.03, 0.03])


def sight(velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> State:
    return State(np.array([0.5, 0.0, 0.1, *velocity]),
                 np.diag([0.003**2] * 3 + [0.02**2] * 2 + [0.005**2]))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_no_motion_changes_faster_than_declared(rng):
    for unseen in (0.1, 0.5, 2.0):
        rest = State(np.array([0.5, 0.0, 0.1, 0, 0, 0]), 1e-12 * np.eye(6))
        samples = Hideout.since(rest, unseen, ACCEL, SPEED, rng)
        way = np.linalg.norm(samples.position - rest.x[:3], axis=1)
        speed = np.linalg.norm(samples.velocity, axis=1)
        assert way.max() <= ACCEL * unseen**2 / 2 + 1e-4
        assert speed.max() <= min(SPEED, ACCEL * unseen) + 1e-4
        assert np.abs(samples.velocity[:, 2]).max() < 1e-4
        # and they reach far: this is a bound, not a habit
        assert way.max() > 0.25 * min(ACCEL * unseen**2 / 2, SPEED * unseen)


def test_what_was_faster_than_the_limit_goes_on(rng):
    samples = Hideout.since(sight((0.5, 0.0, 0.0)), 1.0, ACCEL, SPEED, rng)
    assert np.linalg.norm(samples.velocity, axis=1).max() > 0.45
    assert samples.position[:, 0].max() > 0.9


def test_what_was_seen_empty_is_ruled_out_and_the_rest_followed(rng):
    """A curtain moves along x and uncovers what is behind it; a thing at rest set out with it."""
    samples = Hideout.since(sight(), 0.6, ACCEL, SPEED, rng)
    t, dt = 0.6, 0.05
    while t < 2.5:
        t += dt
        truth = 0.5 + (ACCEL * t**2 / 2 if t < 0.5 else 0.05 + 0.2 * (t - 0.5))
        edge = truth - 0.03
        samples.advance(dt, ACCEL, rng)
        assert samples.keep(samples.position[:, 0] > edge, rng)
    assert len(samples.position) == SAMPLES
    state = samples.state
    sigma = float(np.sqrt(state.p[0, 0]))
    assert abs(state.x[0] - truth) < max(2.5 * sigma, 0.02)
    assert 0.1 < state.x[3] < 0.4


def test_two_sigmas_of_the_bound_hold_all_samples_and_of_the_state_do_not(rng):
    samples = Hideout.since(sight(), 0.6, ACCEL, SPEED, rng)
    assert samples.keep(samples.position[:, 0] > 0.51, rng)
    off = samples.position - samples.state.x[:3]
    for state, holds in ((samples.bound, True), (samples.state, False)):
        far = np.einsum("ni,ij,nj->n", off, np.linalg.inv(state.p[:3, :3]), off)
        assert (far.max() < 4.0 + 1e-6) == holds


def test_where_nothing_is_hidden_it_is_nowhere(rng):
    samples = Hideout.since(sight(), 0.3, ACCEL, SPEED, rng)
    assert not samples.keep(np.zeros(len(samples.position), bool), rng)


def test_behind_is_what_something_nearer_covers(cell, shapes):
    cell.put("carton", shapes["carton"], (0.60, 0.0, 0.08), 0.0, 6)
    depth, _ = cell.picture()
    places = np.array([[0.52, 0.0, 0.03],    # behind the carton, seen from the camera
                       [0.45, 0.25, 0.05],   # in full view
                       [0.75, 0.0, 0.05],    # before it
                       [0.45, 3.0, 0.05]])   # outside the picture
    assert behind(places, HALF, depth, cell.k, cell.pose).tolist() == [True, False, False, True]
