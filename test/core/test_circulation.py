"""A command into a dead end: it waits for ever without circulation, and gets round with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from core.rig import HOME, Bench, track

from safety_filter.core import shapes
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.report import Decision
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.wire import Role, Tracks

LOW = np.array([0.0, 0.25, 0.0, -2.1, 0.0, 2.35, 0.8])


class Trip:
    """A policy that points straight at a goal, and what came of it."""

    def __init__(self, robot: RobotModel, q: Array = HOME, **params: Any) -> None:
        self.bench = Bench(SafetyFilter(robot, TABLE.validate({
            'base_frames': ['base'], 'resting_acceleration': 0.0, **params})), q)
        self.decisions: list[Decision] = []

    @property
    def tool(self) -> Array:
        return self.bench.safety._kinematics.tool(self.bench.q)[1]

    def go(self, goal: Array, tracks: Tracks, seconds: float) -> float:
        """Return how far from the goal the tool ends, m."""
        turn = self.bench.safety._kinematics.tool(self.bench.q)[0]
        for _ in range(round(seconds * 250)):
            gap = goal - self.tool
            now = self.bench.safety._kinematics.tool(self.bench.q)[0]
            swing = 0.5 * sum(np.cross(now[:, i], turn[:, i]) for i in range(3))
            command = np.concatenate([gap * min(2.0, 0.12 / max(np.linalg.norm(gap), 1e-9)),
                                      2.0 * swing])
            self.decisions.append(self.bench.step(command, tracks, 'twist'))
            if np.linalg.norm(gap) < 0.015:
                break
        return float(np.linalg.norm(goal - self.tool))


def ball(trip: Trip) -> tuple[Array, Tracks]:
    """Return a goal and a ball exactly in the way."""
    start, way = trip.tool, np.array([0.0, 0.36, 0.0])
    return start + way, track(start + way / 2, 0.05, id=4)


def wall(trip: Trip) -> tuple[Array, Tracks]:
    """Return a goal behind a wall too high to go over."""
    at = np.array([trip.tool[0], trip.tool[1] + 0.2, 0.4])
    pieces = shapes.tracks(shapes.box((0.15, 0.02, 0.4), most=8, resting=True), 4, at)
    return trip.tool + (0.0, 0.4, 0.0), pieces


def pocket(trip: Trip) -> tuple[Array, Tracks]:
    """Return a goal behind four balls that leave a hole the hand does not fit through, tilted or
    not."""
    middle = trip.tool + (0.0, 0.2, 0.0)
    offsets = ((-0.098, 0.0), (0.098, 0.0), (0.0, 0.128), (0.0, -0.1))
    balls = [track(middle + (x, 0.0, z), 0.078, id=4 + i) for i, (x, z) in enumerate(offsets)]
    return trip.tool + (0.0, 0.4, 0.0), np.concatenate(balls)


@pytest.mark.parametrize('scene', [wall, pocket])
def test_the_arm_gets_round_what_stops_it_for_ever_and_touches_nothing(
        panda: RobotModel, scene: Callable[[Trip], tuple[Array, Tracks]]) -> None:
    waiting = Trip(panda, LOW)
    assert waiting.go(*scene(waiting), 10.0) > 0.3, 'without it: in front, for ever'
    trip = Trip(panda, LOW, circulation=True)
    assert trip.go(*scene(trip), 25.0) < 0.02
    assert {d.state for d in trip.decisions} <= {'PASS', 'FILTERED'}
    assert min(d.min_distance for d in trip.decisions) > 0.01
    assert any(d.detail.startswith('round track ') for d in trip.decisions)
    assert trip.decisions[-1].detail == '', 'and then the command is followed as it is'


def test_a_command_that_it_changes_does_not_pass(panda: RobotModel) -> None:
    trip = Trip(panda, LOW, circulation=True)
    goal, thing = wall(trip)
    trip.go(goal, thing, 6.0)
    assert trip.decisions[-1].detail.startswith('round track ')
    push = np.array([0.0, 0.1, 0.0, 0.0, 0.0, 0.0])
    freed = [trip.bench.step(push, track((3.0, 3.0, 1.0)), 'twist') for _ in range(250)]
    off = [float(np.abs(d.twist - push).max()) for d in freed]
    assert max(off[20:]) > 0.01, 'it still leads round what is gone, for a moment'
    assert not any(d.state == 'PASS' and o > 1e-9 for d, o in zip(freed, off, strict=True))
    assert freed[-1].state == 'PASS'


def test_a_ball_is_slid_round_without_it_too(panda: RobotModel) -> None:
    trip = Trip(panda)
    assert trip.go(*ball(trip), 10.0) < 0.02


def test_the_next_way_is_tried_where_one_leads_nowhere(panda: RobotModel) -> None:
    trip = Trip(panda, HOME, circulation=True)
    trip.go(trip.tool + (0.0, 0.4, 0.0), track((0.25, 0.2, 0.55), 0.07, id=4), 12.0)
    assert len({d.detail for d in trip.decisions if d.detail}) >= 2
    assert min(d.min_distance for d in trip.decisions) > 0.01


def test_limits_hold_and_a_free_command_is_bit_equal(panda: RobotModel) -> None:
    trip, plain = Trip(panda, circulation=True), Trip(panda)
    away = trip.tool + (0.0, -0.3, 0.1)
    _, thing = ball(trip)
    for one in (trip, plain):
        one.go(away, thing, 2.0)
    assert all(np.array_equal(a.qd, b.qd)
               for a, b in zip(trip.decisions, plain.decisions, strict=True))
    last = np.zeros(7)
    other = Trip(panda, circulation=True)
    other.go(*wall(other), 6.0)
    for d in other.decisions:
        assert np.all(np.abs(d.qd - last) <= panda.limits.acceleration / 250 + 1e-9)
        last = d.qd


@pytest.mark.parametrize('role', [Role.TARGET, Role.SUPPORT])
def test_it_never_leads_round_a_target_a_support_or_the_table(panda: RobotModel,
                                                              role: Role) -> None:
    trip = Trip(panda, LOW, circulation=True)
    thing = track((*trip.tool[:2], 0.02), 0.03, id=4, role=int(role))
    trip.go(np.array([*trip.tool[:2], -0.1]), thing, 4.0)
    assert not any(d.detail.startswith('round') for d in trip.decisions)
    assert trip.decisions[-1].state == 'FILTERED'


def test_a_neighbour_near_the_target_is_waited_for(panda: RobotModel) -> None:
    trip = Trip(panda, LOW, circulation=True)
    goal, thing = pocket(trip)
    aim = track(trip.tool + (0.0, 0.03, -0.1), 0.02, id=9, role=int(Role.TARGET))
    trip.go(goal, np.concatenate([thing, aim]), 4.0)
    assert not any(d.detail.startswith('round') for d in trip.decisions)


def test_joint_commands_are_left_alone(panda: RobotModel) -> None:
    trip = Trip(panda, circulation=True)
    _, thing = ball(trip)
    push = np.array([0.4, 0, 0, 0, 0, 0, 0.0])
    decisions = [trip.bench.step(push, thing, 'joint_velocity') for _ in range(600)]
    assert not any(d.detail.startswith('round') for d in decisions)


def test_what_blocked_and_is_no_longer_told_of_is_not_gone_round(panda: RobotModel) -> None:
    trip = Trip(panda, circulation=True)
    _, tracks = ball(trip)
    trip.bench.step(np.zeros(6), tracks, 'twist')
    circulation, buffers = trip.bench.safety._circulation, trip.bench.safety._buffers
    circulation._begin(0.0, 5, np.array([1.0, 0.0, 0.0]), buffers, 1)
    assert not circulation.way
    circulation._begin(0.0, 4, np.array([1.0, 0.0, 0.0]), buffers, 1)
    assert circulation.way
