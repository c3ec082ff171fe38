"""A motion inside the bounds is found where there is one, and none where there is not."""

from __future__ import annotations

import numpy as np
import pytest
from core.rig import track

from safety_filter.bench.hidden import explained, motion
from safety_filter.core.inputs import ObstacleSample

SIGMA = {**dict.fromkeys(('pxx', 'pyy', 'pzz'), 0.004 ** 2),
         **dict.fromkeys(('wxx', 'wyy', 'wzz'), 0.02 ** 2)}
BOUND = 1.0


def sightings(seed: int, push: float, error: float, steady: bool) -> list[ObstacleSample]:
    """Return 40 sightings of a ball pushed by `push` m/s^2, now here, now there or all one way,
    with errors of up to `error` standard deviations."""
    rng = np.random.default_rng(seed)
    p, v, out, way = np.array([0.5, 0.0, 0.5]), np.zeros(3), [], np.array([1.0, 0.0, 0.0])
    for k in range(40):
        noise = rng.normal(size=(2, 3))
        noise *= error * rng.uniform() / np.linalg.norm(noise, axis=1)[:, None]
        out.append(ObstacleSample(k / 30, k / 30, 'base', track(
            p + 0.004 * noise[0], v=v + 0.02 * noise[1], id=3, **SIGMA)))
        if not steady and k % 6 == 0:
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
        p, v = p + v / 30 + push * way / 1800, v + push * way / 30
    return out


@pytest.mark.parametrize('seed', range(8))
def test_what_is_inside_the_bounds_is_explained(seed: int) -> None:
    assert explained(sightings(seed, 0.98 * BOUND, 1.95, seed % 2 == 0), BOUND, 2.0)


def test_a_push_beyond_the_bound_is_explained_while_short_and_not_for_long() -> None:
    assert explained(sightings(0, 1.2 * BOUND, 1.0, steady=False), BOUND, 2.0)
    assert not explained(sightings(0, 1.2 * BOUND, 1.0, steady=True), BOUND, 2.0)


def test_errors_larger_than_the_sigmas_covered_are_not_explained() -> None:
    assert not explained(sightings(0, 0.0, 5.0, steady=True), BOUND, 2.0)


def test_the_maps_are_those_of_constant_acceleration_between_times() -> None:
    times = np.array([0.0, 0.1, 0.3])
    to_position, to_velocity = motion(times)
    z = np.array([1.0, 2.0, *np.full(to_position.shape[1] - 2, 3.0)])
    assert np.allclose(to_position @ z, 1.0 + 2.0 * times + 1.5 * times ** 2)
    assert np.allclose(to_velocity @ z, 2.0 + 3.0 * times)
