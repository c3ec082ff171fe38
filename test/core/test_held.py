"""What the gripper holds: kept off the rest, put where it was seen, and only what is near it."""

from __future__ import annotations

import numpy as np
import pytest
from core.rig import HOME, make, tool, track

from safety_filter.core.held import slab_spheres
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import PIECE_STEP, Role, empty_tracks


def test_what_is_held_is_kept_off_obstacles_and_not_off_supports(panda: RobotModel) -> None:
    lowest = {}
    for role in (Role.OBSTACLE, Role.SUPPORT):
        bench = make(panda)
        start = tool(bench)
        below = track(start + (0.0, 0.0, -0.2), 0.03, id=1, role=int(role))
        for _ in range(400):
            held = track(tool(bench) + (0, 0, -0.03), 0.03, id=2, role=int(Role.HELD))
            held['sz'] = 0.05
            bench.step(np.array([0, 0, -0.1, 0, 0, 0.0]), np.concatenate([below, held]), 'twist')
        lowest[role] = tool(bench)[2] - (start[2] - 0.2)
    assert lowest[Role.OBSTACLE] > 0.03 + 0.08
    assert lowest[Role.SUPPORT] < lowest[Role.OBSTACLE] - 0.03


def test_what_is_held_is_not_pushed_into_the_side_of_a_support(panda: RobotModel) -> None:
    bench = make(panda)
    start = tool(bench)
    at = start + (0.15, 0.0, -0.03)
    beside = track(at, 0.03, id=1, role=int(Role.SUPPORT))
    gaps = []
    for _ in range(600):
        offset = tool(bench) + (0, 0, -0.03) - at
        held = track(at + offset, 0.03, id=2, role=int(Role.HELD))
        bench.step(np.array([0.1, 0, 0, 0, 0, 0.0]), np.concatenate([beside, held]), 'twist')
        gap = float(np.linalg.norm(offset))
        if offset[2] < 0.45 * gap:  # not from above
            gaps.append(gap - 0.06)
    # Covers of both stand out, so that support_margin lets them overlap by a centimetre
    assert -0.015 < min(gaps) < 0.01


def test_what_is_far_from_the_tool_is_not_taken_for_held(panda: RobotModel) -> None:
    bench = make(panda)
    beside = track(tool(bench) + (0.0, 0.3, 0.0), 0.05, id=4, role=int(Role.HELD))
    decision = bench.step(np.zeros(6), beside, 'twist')
    assert (decision.state, decision.reason) == ('STOPPED', 'perception')
    assert 'track 4 of role HELD is 0.25 m from the tool, limit 0.15 m' in decision.detail
    near = track(tool(bench) + (0.0, 0.02, 0.0), 0.05, id=4, role=int(Role.HELD))
    beside['id'] += PIECE_STEP  # another piece of the same long thing
    decision = bench.step(np.zeros(6), np.concatenate([near, beside]), 'twist')
    assert decision.reason != 'perception'


@pytest.mark.parametrize('long', ['sx', 'sy', 'sz'])
def test_what_is_long_is_held_only_where_it_is_near(panda: RobotModel, long: str) -> None:
    """Its middle is farther from the tool than its end; what counts is the way to its surface."""
    bench = make(panda)
    post = track(tool(bench), 0.01, id=4, role=int(Role.HELD))
    post[long] = 0.3
    axis = np.eye(3)['xyz'.index(long[1])]
    for i, name in enumerate('xyz'):
        post[name] += 0.25 * axis[i]
    assert bench.step(np.zeros(6), post, 'twist').reason != 'perception'
    across = np.roll(axis, 1)
    for i, name in enumerate('xyz'):
        post[name] = (tool(bench) + 0.4 * across)[i]
    decision = bench.step(np.zeros(6), post, 'twist')
    assert 'is 0.39 m from the tool' in decision.detail


@pytest.mark.parametrize('sigma', [0.0, 0.01])
def test_what_is_held_may_be_elsewhere_by_its_covariance(panda: RobotModel, sigma: float) -> None:
    """Seen 2 sigma farther from an obstacle than it is, it does not touch that."""
    bench = make(panda, comfort_margin=0.0, comfort_share=1.0, obstacle_margin=0.0,
                 tracking_error=0.0)
    rest = track(tool(bench) + (0.0, 0.25, -0.06), 0.03, id=1)
    gaps = []
    for _ in range(1000):
        held = track(tool(bench) + (0.0, 0.0, -0.06), 0.03, id=2, role=int(Role.HELD))
        for name in ('pxx', 'pyy', 'pzz'):
            held[name] = sigma ** 2
        bench.step(np.array([0, 0.1, 0, 0, 0, 0.0]), np.concatenate([rest, held]), 'twist')
        seen = np.array([held[n][0] - rest[n][0] for n in 'xyz'])
        gaps.append(float(np.linalg.norm(seen)) - 0.06 - 2 * sigma)
    assert -1e-4 < min(gaps) < 0.02


@pytest.mark.parametrize('rate', [250, 50, 20])
def test_what_is_held_is_put_where_the_tool_was_when_it_was_seen(panda: RobotModel,
                                                               rate: int) -> None:
    bench, n = make(panda), len(panda.spheres)
    kinematics = bench.safety._kinematics
    spin = np.array([1.0, 0, 0, 0, 0, 0, 0])
    turn, at, _ = kinematics.tool(HOME)
    grip = turn.T @ np.array([0.0, 0.0, -0.05])
    sample, worst = None, 0.0
    for k in range(300):
        now, q = bench.now, bench.q
        if k % (250 // rate) == 0:
            sample = JointSample(now, now, q.copy(), spin)
        turn, at, _ = kinematics.tool(q)
        held = track(at + turn @ grip, 0.03, role=int(Role.HELD))
        bench.safety.step(now, now, sample, Command(now, now, 'joint_velocity', spin),
                          ObstacleSample(now, now, 'base', held))
        middle = bench.safety._buffers.points[n + 1]
        worst = max(worst, float(np.linalg.norm(middle - at - turn @ grip)))
        bench.q, bench.now = q + 0.004 * spin, now + 0.004
    assert worst < 1e-3


def test_what_is_held_needs_a_joint_state_of_its_time(panda: RobotModel) -> None:
    bench = make(panda)
    held, now = track(tool(bench), 0.03, role=int(Role.HELD)), bench.now
    seen = ObstacleSample(now - 0.25, now, 'base', held)  # before the first joint state
    decision = bench.safety.step(now, now, JointSample(now, now, bench.q, bench.dq),
                                 Command(now, now, 'twist', np.zeros(6), 'base'), seen)
    assert decision.reason == 'perception'
    assert 'no joint state within 0.1 s of that' in decision.detail


def test_what_was_held_is_let_go(panda: RobotModel) -> None:
    bench = make(panda)
    held = track(tool(bench), 0.03, role=int(Role.HELD))
    bench.step(np.zeros(6), held, 'twist')
    assert bench.safety._buffers.sphere_count == len(panda.spheres) + 3
    bench.step(np.zeros(6), empty_tracks(), 'twist')
    assert bench.safety._buffers.sphere_count == len(panda.spheres)


@pytest.mark.parametrize('a, b', [(0.1, 0.1), (0.1, 0.02), (0.05, 0.049), (0.2, 0.01)])
def test_three_spheres_hold_the_spheroid(a: float, b: float) -> None:
    shift, radius = slab_spheres(a, b)
    angle = np.linspace(0, np.pi, 500)
    surface = np.stack([a * np.cos(angle), b * np.sin(angle)], 1)
    centres = np.array([[-shift, 0], [0, 0], [shift, 0]])
    gap = np.linalg.norm(surface[:, None] - centres, axis=2).min(1)
    assert gap.max() <= radius and radius <= a * 1.01
