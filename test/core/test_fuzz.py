"""Whatever comes in, a clear state comes out, limits hold, and the next good tick works."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core.rig import HOME, Bench, track
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import OBSTACLE_DTYPE, empty_tracks

NUMBER = st.one_of(st.floats(width=32, allow_nan=True, allow_infinity=True),
                   st.floats(-2, 2, width=32), st.just(0.0), st.just(1e30), st.just(-1e-30))
TIME = st.one_of(st.floats(99.5, 100.5), st.just(float('nan')), st.just(float('inf')),
                 st.floats(-1e9, 1e9))


@pytest.fixture(scope='module')
def safety(panda: RobotModel) -> SafetyFilter:
    return SafetyFilter(panda, TABLE.validate({'base_frames': ['base']}))


def good(now: float) -> tuple[JointSample, Command, ObstacleSample]:
    return (JointSample(now, now, HOME, np.zeros(7)),
            Command(now, now, 'joint_velocity', np.full(7, 0.01), ''),
            ObstacleSample(now, now, 'base', track((2, 2, 2))))


def well_formed(safety: SafetyFilter, decision: Any, last: np.ndarray) -> None:
    limits = safety.robot.limits
    assert decision.state in ('PASS', 'FILTERED', 'STOPPED') and decision.reason
    assert decision.qd.shape == (7,) and np.isfinite(decision.qd).all()
    assert np.isfinite(decision.twist).all()
    assert np.all(np.abs(decision.qd) <= limits.velocity + 1e-9)
    assert np.all(np.abs(decision.qd - last) <= limits.acceleration / 250 + 1e-9)
    if decision.state == 'STOPPED' and decision.reason not in ('level1_slack', 'level2_slack'):
        assert np.all(np.abs(decision.qd) <= np.abs(last) + 1e-12), 'only ever slower'


@settings(max_examples=150, deadline=None)
@given(q=st.lists(NUMBER, max_size=9), value=st.lists(NUMBER, max_size=9),
       kind=st.sampled_from(['twist', 'joint_velocity', 'joint_position', '']),
       frame=st.sampled_from(['base', '', 'camera', 'panda_grasptarget']),
       times=st.lists(TIME, min_size=6, max_size=6), count=st.integers(0, 260),
       fields=st.dictionaries(st.sampled_from(OBSTACLE_DTYPE.names[:28]), NUMBER, max_size=4),
       role=st.integers(0, 5), opening=st.one_of(st.none(), NUMBER), data=st.data())
def test_any_input_gives_a_clear_state_and_the_next_good_tick_recovers(
        safety: SafetyFilter, q: list[float], value: list[float], kind: str, frame: str,
        times: list[float], count: int, fields: dict[str, float], role: int,
        opening: float | None, data: Any) -> None:
    now = 100.0
    safety._intake.forget()
    for _ in range(60):
        last = safety._buffers.last.copy()
        safety.step(now, now, None, None, None)
    tracks = empty_tracks(count)
    tracks['id'] = np.arange(count)
    for name, number in fields.items():
        with np.errstate(over='ignore'):
            tracks[name] = number
    tracks['role'] = role
    last = safety._buffers.last.copy()
    decision = safety.step(
        now + data.draw(st.sampled_from([0.004, 0.0, 3.0, -3.0])), now + 0.004,
        JointSample(times[0], times[1], np.array(q), np.array(q), opening),
        Command(times[2], times[3], kind, np.array(value), frame),
        ObstacleSample(times[4], times[5], frame, tracks))
    well_formed(safety, decision, last)
    for k in range(80):
        later = now + 1.0 + 0.004 * k
        last = safety._buffers.last.copy()
        decision = safety.step(later, later, *good(later))
        well_formed(safety, decision, last)
    assert decision.state == 'PASS'


@pytest.mark.parametrize('count', [0, 1, 200])
def test_many_coincident_obstacles(panda: RobotModel, count: int) -> None:
    bench = Bench(SafetyFilter(panda, TABLE.validate({'base_frames': ['base']})))
    tracks = empty_tracks(count)
    tracks['x'], tracks['z'] = 0.6, 0.5
    for _ in range(30):
        last = bench.dq
        decision = bench.step(np.full(7, 0.1), tracks)
        well_formed(bench.safety, decision, last)


def test_an_obstacle_exactly_at_a_bodys_centre(panda: RobotModel) -> None:
    bench = Bench(SafetyFilter(panda, TABLE.validate({'base_frames': ['base']})))
    for point in bench.safety._kinematics.spheres(HOME)[-3:]:
        decision = bench.step(np.zeros(7), track(point, 0.0))
        well_formed(bench.safety, decision, np.zeros(7))
        assert decision.min_distance < 0
        bench.q, bench.dq = HOME.copy(), np.zeros(7)
        bench.safety._buffers.last[:] = 0


@pytest.mark.parametrize('axes', [(0, 0, 0), (0.5, 0, 0), (0.5, 0.5, 0), (1e-20, 1, 1e-3)])
def test_degenerate_ellipsoids(panda: RobotModel, axes: tuple[float, ...]) -> None:
    bench = Bench(SafetyFilter(panda, TABLE.validate({'base_frames': ['base']})))
    flat = track((0.6, 0.0, 0.2))
    flat['sx'], flat['sy'], flat['sz'] = axes
    for _ in range(20):
        last = bench.safety._buffers.last.copy()
        well_formed(bench.safety, bench.step(np.full(7, 0.1), flat), last)
