"""The separating plane: g(n) is never above the true distance, and equals it where it should."""

from __future__ import annotations

import coal
import numpy as np
import pytest
from core.rig import track
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safety_filter.bench.adversary import distance_by_bisection
from safety_filter.core.ellipsoids import (
    ELLIPSOID_DTYPE,
    SMALLEST_AXIS,
    load_tracks,
    separating_normal,
    spread,
    usable,
)
from safety_filter.core.robot import Array
from safety_filter.core.wire import OBSTACLE_DTYPE, empty_tracks, track_fault


def rotation(seed: int) -> Array:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.ascontiguousarray(q * np.linalg.det(q))


def coal_distance(d: Array, axes: Array, r: Array, radius: float) -> float:
    request, result = coal.DistanceRequest(), coal.DistanceResult()
    request.gjk_tolerance = request.epa_tolerance = 1e-8
    value: float = coal.distance(
        coal.Sphere(radius), coal.Transform3s(np.eye(3), d), coal.Ellipsoid(*axes),
        coal.Transform3s(r, np.zeros(3)), request, result)
    return value


@pytest.mark.parametrize('seed', range(200))
def test_g_is_never_above_the_distance_of_another_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes, r = rng.uniform(0.01, 0.3, 3), rotation(seed)
    d = rng.normal(size=3)
    d *= (axes.max() + rng.uniform(0.01, 1.0)) / np.linalg.norm(d)
    radius = rng.uniform(0.01, 0.1)
    *_, g = separating_normal(*d, axes, r)
    truth = coal_distance(d, axes, r, radius)
    if truth > 1e-4:
        assert g - radius <= truth + 2e-5
        assert g - radius >= truth - 1e-4


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 3.0))
@example(seed=1051, scale=2.0)  # flat: nine Newton steps
def test_g_is_the_distance_outside_and_below_it_inside(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    axes, r = rng.uniform(1e-3, 0.3, 3), rotation(seed)
    d = r @ (axes * scale * (lambda u: u / np.linalg.norm(u))(rng.normal(size=3)))
    nx, ny, nz, g = separating_normal(*d, axes, r)
    assert abs(np.linalg.norm([nx, ny, nz]) - 1.0) < 1e-9
    truth = distance_by_bisection(d, axes, r)
    assert g <= truth + 1e-7
    if scale > 1.02:
        assert g >= truth - 1e-6


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_frozen_normal_stays_below_the_distance_elsewhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes, r = rng.uniform(0.01, 0.3, 3), rotation(seed)
    d, moved = rng.normal(size=(2, 3)) * 0.5
    n = np.array(separating_normal(*d, axes, r)[:3])
    support = np.linalg.norm(axes * (r.T @ n))
    assert n @ moved - support <= distance_by_bisection(moved, axes, r) + 1e-9


@pytest.mark.parametrize('d', [(0, 0, 0), (1e-12, 0, 0), (0, 0, 1e-9), (0.1, 0, 0), (0, 0, 0.05)])
@pytest.mark.parametrize('axes', [(0.1, 0.1, 0.1), (0.3, 0.2, 0.05), (1e-4, 1e-4, 1e-4)])
def test_degenerate_positions_give_a_unit_normal(d: tuple[float, ...],
                                                 axes: tuple[float, ...]) -> None:
    nx, ny, nz, g = separating_normal(*map(float, d), np.array(axes), np.eye(3))
    assert np.isfinite([nx, ny, nz, g]).all()
    assert abs(nx * nx + ny * ny + nz * nz - 1) < 1e-9
    assert g <= distance_by_bisection(np.array(d, float), np.array(axes), np.eye(3)) + 1e-6


def test_tracks_are_loaded_with_their_bounds() -> None:
    tracks = track((1, 2, 3), v=(0.3, 0.0, 0.4), id=7, role=3)
    tracks['sx'], tracks['sy'], tracks['sz'] = 0.2, 0.0, 0.1
    tracks['qx'], tracks['qy'], tracks['qz'], tracks['qw'] = 0, 0, 2.0, 2.0  # not normalised
    tracks['pxx'], tracks['pxy'], tracks['pyy'] = 0.04, 0.01, 0.01
    out = np.zeros(2, ELLIPSOID_DTYPE)
    load_tracks(tracks, out)
    e = out[0]
    assert e['id'] == 7 and e['role'] == 3
    assert np.allclose(e['axes'], [0.2, SMALLEST_AXIS, 0.1]) and np.isclose(e['reach'], 0.2)
    assert np.allclose(e['rotation'], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-7)
    assert np.isclose(e['speed'], 0.5)
    for n in np.random.default_rng(0).normal(size=(100, 3)):
        n /= np.linalg.norm(n)
        assert spread(e['p_cov'], *n) <= e['p_sigma'] + 1e-12
    assert np.isclose(spread(e['p_cov'], 1.0, 0.0, 0.0), 0.2)
    load_tracks(empty_tracks(), out)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(OBSTACLE_DTYPE.names), value=st.one_of(
    st.floats(width=32), st.floats(-1, 1, width=32)), role=st.integers(0, 6))
def test_the_quick_check_agrees_with_the_one_that_explains(name: str, value: float,
                                                          role: int) -> None:
    tracks = empty_tracks(3)
    if tracks[name].dtype == '<f4':
        tracks[name][1] = value
    tracks['role'][2] = role
    assert usable(tracks) == (track_fault(tracks) is None)


def _with_covariance(m: np.ndarray, names: str) -> np.ndarray:
    tracks = empty_tracks(2)
    for name, (a, b) in zip(names.split(), ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)),
                            strict=True):
        tracks[name][1] = m[a, b]
    return tracks


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(1, 3), size=st.floats(1e-4, 1e3),
       least=st.sampled_from([0.0, -1e-5, -1e-2, -0.3]),
       names=st.sampled_from(['pxx pxy pxz pyy pyz pzz', 'wxx wxy wxz wyy wyz wzz']))
def test_only_covariances_are_usable_as_covariances(seed: int, rank: int, size: float,
                                                    least: float, names: str) -> None:
    r, rng = rotation(seed), np.random.default_rng(seed)
    values = np.where(np.arange(3) < rank, rng.uniform(0.1, 1.0, 3), 0.0)
    values[2] += least
    m = size ** 2 * (r * values) @ r.T
    tracks = _with_covariance(m, names)
    beyond = values.min() < -2e-3 * values.sum() and size ** 2 * values.min() < -2e-9
    within = values.min() > -5e-4 * values.sum() and m.diagonal().min() >= 0.0
    assert usable(tracks) == (track_fault(tracks) is None)
    assert not (beyond and usable(tracks)) and not (within and not usable(tracks))


def test_what_would_take_margin_away_is_told() -> None:
    tracks = _with_covariance(np.array([[1, -3, 0], [-3, 1, 0], [0, 0, 1]]) * 1e-4,
                              'pxx pxy pxz pyy pyz pzz')
    fault = track_fault(tracks)
    assert fault is not None and 'position covariance has the eigenvalue -0.0002' in fault


def test_other_arrays_are_not_usable() -> None:
    assert not usable(np.zeros(3)) and usable(empty_tracks())
