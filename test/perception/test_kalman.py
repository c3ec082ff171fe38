from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from safety_filter.perception.kalman import State, process_noise, transition

R = np.eye(3) * 0.002**2


def test_noise_over_two_steps_composes():
    # Piecewise-constant acceleration: position variance grows at least as over one long step.
    one = transition(0.05) @ process_noise(0.05, 1.0) @ transition(0.05).T + process_noise(
        0.05, 1.0)
    assert np.linalg.eigvalsh(one).min() > -1e-12
    assert one[3, 3] == 2 * 0.05**2


def test_covariance_stays_symmetric_and_positive():
    rng = np.random.default_rng(0)
    state = State.at(np.zeros(3), R, 0.3)
    for _ in range(500):
        state = state.predicted(0.06, 0.4)
        if rng.random() < 0.5:
            state = state.updated(rng.normal(0, 0.01, 3), R)
    np.testing.assert_allclose(state.p, state.p.T, atol=1e-15)
    assert np.linalg.eigvalsh(state.p).min() > 0


def test_estimate_is_consistent_with_its_covariance():
    """Normalised estimation error squared over Monte Carlo runs lies in its chi^2 interval."""
    rng = np.random.default_rng(1)
    runs, steps, dt, accel = 60, 40, 1 / 15, 0.5
    nees = []
    for _ in range(runs):
        truth = np.concatenate([np.zeros(3), rng.normal(0, 0.3, 3)])
        state = State.at(rng.normal(0, 0.002, 3), R, 0.3)
        for _ in range(steps):
            a = rng.normal(0, accel, 3)
            truth = transition(dt) @ truth + np.concatenate([dt**2 / 2 * a, dt * a])
            state = state.predicted(dt, accel).updated(
                truth[:3] + rng.normal(0, 0.002, 3), R)
        e = state.x - truth
        nees.append(e @ np.linalg.solve(state.p, e))
    low, high = chi2.ppf((0.001, 0.999), 6 * runs) / runs
    assert low < np.mean(nees) < high


def test_coasting_covariance_grows():
    state = State.at(np.zeros(3), R, 0.3)
    sizes = []
    for _ in range(10):
        state = state.predicted(0.1, 0.4)
        sizes.append(np.trace(state.p[:3, :3]))
    assert np.all(np.diff(sizes) > 0)
