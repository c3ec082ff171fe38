"""The barrier rows: derivatives, margins term by term, and pruning that loses nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core.rig import HOME, track
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_filter.core.ellipsoids import ELLIPSOID_DTYPE, load_tracks
from safety_filter.core.filter_params import TABLE, gains
from safety_filter.core.kernel import Buffers
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.nominal import NO_COMMAND
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.rows import (
    COUNT,
    OBSTACLE_ROW,
    PLANE_ROW,
    SELF_ROW,
    SEPARATION_ROW,
    WORKSPACE_ROW,
    class_k,
    class_k_inverse,
)
from safety_filter.core.wire import Role, Tracks, empty_tracks

QUIET: dict[str, Any] = {
    'sigma_position': 0.0, 'sigma_velocity': 0.0, 'obstacle_acceleration': 0.0,
    'resting_acceleration': 0.0, 'tracking_error': 0.0, 'sampled_data': 0.0,
    'obstacle_margin': 0.0, 'comfort_margin': 0.0, 'comfort_share': 1.0}


def buffers(robot: RobotModel, tracks: Tracks, q: Array = HOME, tau: float = 0.0,
            wide: bool = True, exempt: int = -1, last: Array | None = None,
            persons: Any = False, due: float = 0.0, **values: Any) -> Buffers:
    """Return the buffers after `assemble`; `wide` makes the box so large that no row is pruned."""
    p = TABLE.validate({'velocity_scale': 1.0, 'acceleration_scale': 1.0, **values})
    limits = np.stack([robot.limits.lower, robot.limits.upper, robot.limits.velocity,
                       robot.limits.acceleration])
    if wide:
        limits = np.stack([np.full(robot.n, -1e6), np.full(robot.n, 1e6), np.full(robot.n, 1e3),
                           np.full(robot.n, 1e6)])
    ellipsoids = np.zeros(max(len(tracks), 1), ELLIPSOID_DTYPE)
    load_tracks(tracks, ellipsoids)
    ellipsoids['person'][:len(tracks)] = persons
    b = Buffers(robot, limits, gains(p), np.array(p.planes).reshape(-1, 4), np.array(p.workspace),
                ellipsoids)
    b.q[:] = q
    if last is not None:
        b.last[:] = last
    b.assemble(len(tracks), robot.max_opening, tau, exempt, NO_COMMAND, False, due)
    return b


def rows_of(b: Buffers, kind: int) -> np.ndarray:
    return np.flatnonzero(b.info['kind'][:b.counts[COUNT]] == kind)


def test_class_k_is_below_both_bounds_smooth_and_never_asks_for_more_deceleration() -> None:
    h = np.linspace(0.0, 2.0, 4001)
    alpha = np.array([class_k(x, 6.0, 1.5) for x in h])
    assert np.all(alpha <= 6.0 * h + 1e-12) and np.all(alpha <= np.sqrt(2 * 1.5 * h) + 1e-12)
    slope = np.gradient(alpha, h)
    assert np.all(np.diff(slope[1:-1]) < 1e-6)
    assert np.all(slope * alpha <= 1.5 * 1.01)
    assert np.allclose([class_k(class_k_inverse(v, 6.0, 1.5), 6.0, 1.5) for v in h], h)
    assert class_k(-0.1, 6.0, 1.5) == pytest.approx(-0.6)


@pytest.mark.parametrize('kind', [OBSTACLE_ROW, PLANE_ROW, WORKSPACE_ROW, SELF_ROW,
                                  SEPARATION_ROW])
def test_every_row_is_the_derivative_of_its_h(panda: RobotModel, kind: int) -> None:
    tracks = np.concatenate([track((0.5, 0.1, 0.4), 0.05, id=1), track((0.3, -0.3, 0.6), id=2)])
    tracks['sx'] = 0.12
    b = buffers(panda, tracks, persons=True, **QUIET)
    kinematics, step = Kinematics(panda), 1e-6
    index = rows_of(b, kind)
    assert len(index)
    for k in index:
        row = b.info[k]

        def h_at(q: Array, row: Any = row) -> float:
            if row['kind'] == WORKSPACE_ROW:
                return float(row['normal'] @ kinematics.tool(q)[1])
            points = kinematics.spheres(q)
            if row['kind'] == SELF_ROW:
                return float(np.linalg.norm(points[row['sphere']] - points[row['other']]))
            return float(row['normal'] @ points[row['sphere']])

        slope = [(h_at(HOME + step * e) - h_at(HOME - step * e)) / (2 * step) for e in np.eye(7)]
        assert np.allclose(b.a[k], slope, atol=1e-7)


def the_row(b: Buffers, sphere: int) -> tuple[float, Any]:
    index = [k for k in rows_of(b, OBSTACLE_ROW) if b.info['sphere'][k] == sphere]
    assert len(index) == 1
    return float(b.b[index[0]]), b.info[index[0]]


def test_every_term_of_the_row_is_the_formulas(panda: RobotModel) -> None:
    sphere, tau, period = 20, 0.05, 0.004
    point = Kinematics(panda).spheres(HOME)[sphere]
    v = np.array([0.1, -0.2, 0.05])
    tracks = track(point + (0.2, 0.1, 0.0), 0.04, v=v, pxx=9e-6, pyy=9e-6, pzz=9e-6,
                   wxx=4e-4, wyy=4e-4, wzz=4e-4)
    values = {**QUIET, 'sigma_position': 3.0, 'sigma_velocity': 2.0, 'obstacle_acceleration': 0.8,
              'tracking_error': 0.002, 'obstacle_margin': 0.01}
    bound, row = the_row(buffers(panda, tracks, tau=tau, **values), sphere)
    centre = np.array([float(tracks[c][0]) for c in 'xyz']) + v * tau
    n = (point - centre) / np.linalg.norm(point - centre)
    k_sv = 2.0 * 0.02
    margin = 0.01 + 3.0 * 0.003 + k_sv * tau + 0.8 * tau ** 2 / 2 + 0.002
    h = np.linalg.norm(point - centre) - panda.spheres['radius'][sphere] - 0.04 - margin
    drift = n @ v + k_sv + 0.8 * (tau + period)
    assert np.allclose(row['normal'], n, atol=1e-6)
    assert row['h'] == pytest.approx(h, abs=1e-6)
    assert row['drift'] == pytest.approx(drift, abs=1e-6)
    assert bound == pytest.approx(drift - class_k(h, 10.0, 1.5), abs=1e-5)


@pytest.mark.parametrize('kind', [OBSTACLE_ROW, PLANE_ROW, WORKSPACE_ROW, SELF_ROW])
def test_the_sampled_data_term_covers_the_bend_of_the_path_and_is_needed(panda: RobotModel,
                                                                        kind: int) -> None:
    """While any q' of the box is held for a period, h falls by no more than the row says with the
    term, and now and then by more than it says without."""
    kinematics, period = Kinematics(panda), 0.01
    values = {**QUIET, 'rate': 100.0, 'workspace': [-0.1, -0.1, 0.0, 0.1, 0.1, 0.1],
              'planes': [0.0, 0.0, 1.0, 0.5], 'self_margin': 0.1}
    tracks = np.concatenate([track((0.4, 0.1, 0.5), 0.2, id=1), track((0.2, -0.2, 0.4), 0.1)])
    needed, compared = 0, 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        q = HOME + rng.uniform(-0.5, 0.5, 7)
        last = rng.uniform(-1, 1, 7) * panda.limits.velocity
        plain = buffers(panda, tracks, q, 0.0, False, -1, last, **values)
        covered = buffers(panda, tracks, q, 0.0, False, -1, last,
                          **{**values, 'sampled_data': 1.0})
        names = ('kind', 'sphere', 'other')
        before = {tuple(int(plain.info[n][k]) for n in names): plain.b[k]
                  for k in rows_of(plain, kind)}
        corner = rng.random(7) < 0.5
        x = np.where(corner, plain.low, plain.high)
        ends = [(kinematics.spheres(p), kinematics.tool(p)[1]) for p in (q, q + period * x)]
        for k in rows_of(covered, kind):
            row = covered.info[k]
            key = tuple(int(row[n]) for n in names)
            if key not in before:
                continue
            if kind == WORKSPACE_ROW:
                ahead, behind = (float(row['normal'] @ tool) for _, tool in ends)
            elif kind == SELF_ROW:
                ahead, behind = (float(np.linalg.norm(p[row['sphere']] - p[row['other']]))
                                 for p, _ in ends)
            else:
                ahead, behind = (float(row['normal'] @ p[row['sphere']]) for p, _ in ends)
            short = covered.a[k] @ x - (behind - ahead) / period
            assert short <= (covered.b[k] - before[key]) * 1.01 + 1e-4
            needed += short > 1e-3
            compared += 1
    assert compared > 12 and needed > 0


def test_resting_obstacles_are_static_scene_and_have_their_own_bound(panda: RobotModel) -> None:
    slow, fast = track((0.5, 0, 0.5), v=(0.01, 0, 0)), track((0.5, 0, 0.5), v=(0.1, 0, 0))
    values = {**QUIET, 'obstacle_acceleration': 1.0, 'resting_acceleration': 0.25}
    for tracks, level, speed, bound in ((slow, 2, 0.01, 0.25), (fast, 1, 0.1, 1.0)):
        b = buffers(panda, tracks, tau=0.05, **values)
        rows = b.info[rows_of(b, OBSTACLE_ROW)]
        assert set(rows['level']) == {level}
        surge = rows['drift'] - rows['normal'] @ (speed, 0.0, 0.0)
        assert np.allclose(surge, bound * (0.05 + 0.004))


@pytest.mark.parametrize('rest', [0.0, 0.25, 1.0])
@pytest.mark.parametrize('seen, sigma', [(0.0, 0.0), (0.02, 0.0), (0.02, 0.004), (0.0, 0.02)])
@pytest.mark.parametrize('tau', [0.05, 0.25])
def test_what_rested_when_it_was_seen_may_have_set_out_since(
        panda: RobotModel, tau: float, seen: float, sigma: float, rest: float) -> None:
    """As fast as its own bound lets it, and 2 sigma faster than seen, from then on at that of what
    moves; here it does, in small steps, and the row holds what that takes and no more."""
    sphere, period, h = 20, 0.004, 1e-5
    values = {**QUIET, 'obstacle_acceleration': 1.0, 'resting_acceleration': rest,
              'sigma_velocity': 2.0}
    point, v = Kinematics(panda).spheres(HOME)[sphere], np.array([0.6, 0.0, 0.8]) * seen
    tracks = track(point + (0.25, 0.1, 0.0), 0.04, v=v, wxx=sigma ** 2, wyy=sigma ** 2,
                   wzz=sigma ** 2)
    _, row = the_row(buffers(panda, tracks, tau=tau, **values), sphere)
    speed = most = seen + 2.0 * sigma
    way = 0.0
    for k in range(round((tau + period) / h)):
        if k < round(tau / h):
            way += (speed - most) * h
        speed += h * (rest if speed <= 0.03 else 1.0)
    centre = np.array([float(tracks[c][0]) for c in 'xyz']) + v * tau
    gap = np.linalg.norm(point - centre) - panda.spheres['radius'][sphere] - 0.04
    assert row['h'] == pytest.approx(gap - 2.0 * sigma * tau - way, abs=5e-6)
    assert row['drift'] == pytest.approx(row['normal'] @ v + 2.0 * sigma + speed - most, abs=5e-5)


def test_comfort_asks_for_more_and_says_how_much_of_it_is_reserve(panda: RobotModel) -> None:
    tracks = track((0.55, 0.0, 0.5))
    plain = buffers(panda, tracks, **QUIET)
    gentle = buffers(panda, tracks, **{**QUIET, 'comfort_margin': 0.02, 'comfort_share': 0.5})
    count = plain.counts[COUNT]
    assert gentle.counts[COUNT] == count
    assert np.all(gentle.b[:count] >= plain.b[:count])
    assert np.allclose(gentle.b[:count] - gentle.info['reserve'][:count], plain.b[:count])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_pruning_loses_nothing(panda: RobotModel, seed: int) -> None:
    """Every row of the unpruned set that some q' in the box violates is in the pruned set."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    tracks = empty_tracks(count)
    for name in ('x', 'y', 'z'):
        tracks[name] = rng.uniform(-0.8, 0.8, count)
    for name in ('sx', 'sy', 'sz'):
        tracks[name] = rng.uniform(0.005, 0.2, count)
    for name in ('vx', 'vy', 'vz'):
        tracks[name] = rng.normal(0, 0.3, count)
    for name in ('pxx', 'pyy', 'pzz', 'wxx', 'wyy', 'wzz'):
        tracks[name] = rng.uniform(0, 1e-3, count)
    tracks['role'] = rng.integers(0, 4, count)
    tracks['id'] = np.arange(count)
    q = rng.uniform(panda.limits.lower, panda.limits.upper)
    last = rng.uniform(-1, 1, 7) * panda.limits.velocity
    values: dict[str, Any] = {'sampled_data': 0.0, 'target_hand_margin': float(rng.uniform(0, .1)),
                              'smoothing': 0.0}  # rows are left out before they are smoothed
    exempt = int(rng.integers(-1, count))
    persons = rng.random(count) < 0.3
    every = buffers(panda, tracks, q, 0.05, True, exempt, last, persons, **values)
    kept = buffers(panda, tracks, q, 0.05, False, exempt, last, persons, **values)
    names = ('kind', 'sphere', 'other')
    have = {tuple(int(kept.info[n][k]) for n in names) for k in range(kept.counts[COUNT])}
    for k in range(every.counts[COUNT]):
        a = every.a[k]
        least = np.sum(np.where(a > 0, a * kept.low, a * kept.high))
        key = tuple(int(every.info[n][k]) for n in names)
        assert (key in have) == bool(least < every.b[k] - 1e-12) or abs(least - every.b[k]) < 1e-9


@pytest.mark.parametrize('role, sphere_kind, present', [
    (Role.OBSTACLE, 2, True), (Role.TARGET, 2, False), (Role.TARGET, 0, True),
    (Role.TARGET, 1, True), (Role.HELD, 0, False), (Role.HELD, 2, False), (Role.SUPPORT, 2, True)])
def test_which_bodies_have_rows_against_which_role(panda: RobotModel, role: Role,
                                                   sphere_kind: int, present: bool) -> None:
    b = buffers(panda, track((0.5, 0.0, 0.3), id=4, role=int(role)), exempt=4, **QUIET)
    spheres = b.info['sphere'][rows_of(b, OBSTACLE_ROW)]
    assert (sphere_kind in set(b.spheres['kind'][spheres])) == present


def test_a_target_that_is_not_the_exempt_one_is_an_obstacle(panda: RobotModel) -> None:
    b = buffers(panda, track((0.5, 0.0, 0.3), id=4, role=1), exempt=5, **QUIET)
    assert 2 in set(b.spheres['kind'][b.info['sphere'][rows_of(b, OBSTACLE_ROW)]])


def test_a_support_lets_fingers_come_from_above_only(panda: RobotModel) -> None:
    finger = int(np.argmax(panda.spheres['kind'] == 2))
    point = Kinematics(panda).spheres(HOME)[finger]
    values = {**QUIET, 'support_margin': -0.01, 'obstacle_margin': 0.03}
    below = track(point + (0, 0, -0.1), role=3)
    beside = track(point + (0.1, 0, 0), role=3)
    gap = 0.1 - 0.03 - panda.spheres['radius'][finger]
    assert the_row(buffers(panda, below, **values), finger)[1]['h'] == pytest.approx(gap + 0.01)
    assert the_row(buffers(panda, beside, **values), finger)[1]['h'] == pytest.approx(gap - 0.03)


def test_nearest_pair_is_the_least_over_all_pairs(panda: RobotModel) -> None:
    rng = np.random.default_rng(2)
    tracks = np.concatenate([track(rng.uniform(-0.7, 0.7, 3), 0.03, id=i) for i in range(30)])
    points = Kinematics(panda).spheres(HOME)
    centres = np.stack([tracks[c] for c in 'xyz'], 1)
    gap = np.linalg.norm(points[:, None] - centres, axis=2) - panda.spheres['radius'][:, None]
    gap[panda.spheres['joint'] < 0] = np.inf
    for wide in (True, False):
        nearest = buffers(panda, tracks, wide=wide).nearest[0]
        assert nearest['distance'] == pytest.approx(gap.min() - 0.03, abs=1e-6)
        between = np.linalg.norm(nearest['on_robot'] - nearest['on_obstacle'])
        assert between == pytest.approx(abs(nearest['distance']), abs=1e-6)


def test_bodies_that_cannot_move_have_no_rows(panda: RobotModel) -> None:
    b = buffers(panda, track((0.0, 0.0, 0.05), 0.1), **QUIET)
    assert not (b.spheres['joint'][b.info['sphere'][rows_of(b, OBSTACLE_ROW)]] < 0).any()


def test_age_to_come_and_smoothing_change_what_the_reserve_asks_for_and_nothing_else(
        panda: RobotModel) -> None:
    """b less the reserve is the row proper."""
    fields = {'wxx': 4e-4, 'wyy': 4e-4, 'wzz': 4e-4, 'pxx': 1e-5, 'pyy': 1e-5, 'pzz': 1e-5}
    tracks = np.concatenate([track((0.45, 0.0, 0.45), 0.05, v=(0.1, 0, 0), id=1, **fields),
                             track((0.4, 0.2, 0.4), 0.05, id=2, **fields)])
    last = np.array([0.1, 0.3, 0.0, -0.2, 0.0, 0.1, 0.0])
    plain = buffers(panda, tracks, tau=0.06, last=last, smoothing=0.0, sampled_data=0.0)
    ahead = buffers(panda, tracks, tau=0.06, last=last, smoothing=0.0, due=0.16,
                    sampled_data=0.0)
    smooth = buffers(panda, tracks, tau=0.06, last=last, smoothing=0.05, due=0.16,
                     sampled_data=0.0)
    count = int(plain.counts[COUNT])
    assert ahead.counts[COUNT] == smooth.counts[COUNT] == count

    def proper(b: Buffers) -> Array:
        return np.asarray(b.b[:count] - b.info['reserve'][:count])

    assert np.allclose(proper(ahead), proper(plain), atol=1e-12)
    assert np.allclose(proper(smooth), proper(plain), atol=1e-12)
    asked = rows_of(plain, OBSTACLE_ROW)
    before = ahead.a[:count] @ last
    assert np.all(ahead.b[:count] >= plain.b[:count] - 1e-12)
    assert np.any(ahead.b[asked] > plain.b[asked] + 0.01)
    eased = smooth.b[:count] < ahead.b[:count] - 1e-12
    assert eased[asked].any() and set(np.flatnonzero(eased)) <= set(asked)
    missing = ahead.b[:count] - before
    assert np.all(missing[eased] > 0.0)
    free = eased & (smooth.info['reserve'][:count] > 1e-9)
    assert free.any()
    assert np.allclose(smooth.b[:count][free], (before + 0.004 / 0.05 * missing)[free])


@pytest.mark.parametrize('sigma, near', [(0.02, 0.046), (0.005, 0.035)])
def test_what_ageing_takes_is_what_the_reserve_holds_back(panda: RobotModel, sigma: float,
                                                          near: float) -> None:
    """Near contact the row asks for the same at every age between two sightings, also where what
    rested may have begun to move."""
    sphere, values = 30, {'smoothing': 0.0, 'sampled_data': 0.0}
    point = buffers(panda, empty_tracks()).points[sphere]
    away = 0.05 + float(panda.spheres['radius'][sphere]) + near
    tracks = track(point + (0.0, 0.0, away), 0.05,
                   **dict.fromkeys(('wxx', 'wyy', 'wzz'), sigma ** 2))

    def asked(tau: float, due: float) -> float:
        b = buffers(panda, tracks, tau=tau, due=due, **values)
        rows = rows_of(b, OBSTACLE_ROW)
        return float(b.b[rows[b.info['sphere'][rows] == sphere][0]])

    ahead = [asked(tau, 0.16) for tau in (0.06, 0.1, 0.16)]
    assert np.ptp(ahead) < 1e-6, ahead
    assert ahead[2] == asked(0.16, 0.0), 'in the end it is what it was'
    assert asked(0.16, 0.0) - asked(0.06, 0.0) > 0.03
