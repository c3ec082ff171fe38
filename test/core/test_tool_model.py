"""A tool on its own: pose in, twist out, and the state says that only its bodies are covered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pinocchio as pin
import pytest
from core.rig import HOME, track

from safety_filter.bench.adversary import distance_by_bisection
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample, tool_pose
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.report import TOOL_ONLY, Decision
from safety_filter.core.robot import Array, RobotError, RobotModel, read_config
from safety_filter.core.wire import Role, Tracks, empty_tracks

LIMITS = np.array([0.25] * 3 + [0.75] * 3)
STEP = np.array([3.2] * 3 + [8.0] * 3) / 250


class Flight:
    """A tool that follows the filter exactly."""

    def __init__(self, **params: Any) -> None:
        self.robot = RobotModel.shipped('panda_hand')
        values = {'base_frames': ['base'], 'planes': [0, 0, 1, -5], **params}
        self.safety = SafetyFilter(self.robot, TABLE.validate(values))
        self.position, self.turn, self.now = np.array([0.5, 0.0, 0.5]), np.diag([1.0, -1, -1]), 1.0
        self.twist = np.zeros(6)

    def step(self, command: Array, tracks: Tracks | None = None, frame: str = 'base',
             kind: str = 'twist', pose: JointSample | None = None) -> Decision:
        now = self.now
        quaternion = pin.Quaternion(self.turn).coeffs()
        decision = self.safety.step(
            now, now, pose or tool_pose(now, now, self.position, quaternion, self.twist),
            Command(now, now, kind, command, frame),
            ObstacleSample(now, now, 'base', empty_tracks() if tracks is None else tracks))
        self.twist = decision.twist
        self.position = self.position + self.twist[:3] / 250
        self.turn = pin.exp3(self.twist[3:] / 250) @ self.turn
        self.now += 1 / 250
        return decision

    def distance(self, tracks: Tracks) -> float:
        """Return the true least distance of the bodies to spherical tracks."""
        points = self.robot.spheres['offset'] @ self.turn.T + self.position
        centres = np.stack([tracks[n] for n in 'xyz'], 1).astype(float)
        return float(min(
            distance_by_bisection(p - c, np.full(3, float(r)), np.eye(3)) - s
            for p, s in zip(points, self.robot.spheres['radius'], strict=True)
            for c, r in zip(centres, tracks['sx'], strict=True)))


def test_its_bodies_are_those_of_the_whole_robot(panda: RobotModel) -> None:
    tool, arm = RobotModel.shipped('panda_hand'), Kinematics(panda)
    rotation, position, _ = arm.tool(HOME)
    placed = tool.spheres['offset'] @ rotation.T + position
    assert np.allclose(placed, arm.spheres(HOME, panda.max_opening)[-len(placed):], atol=1e-4)
    assert np.allclose(tool.spheres['radius'], panda.spheres['radius'][-len(placed):], atol=1e-4)
    # the sphere before the first of these is on the arm
    assert panda.spheres['kind'][-len(placed) - 1] != tool.spheres['kind'][0]


def test_a_safe_twist_passes_unchanged_and_the_state_says_what_is_covered() -> None:
    flight = Flight()
    twist = np.array([0.1, -0.05, 0.02, 0.2, 0.1, -0.3])
    for _ in range(60):
        decision = flight.step(twist)
    assert decision.state == 'PASS' and decision.covers == TOOL_ONLY == 'tool bodies only'
    assert np.allclose(decision.twist, twist, atol=1e-9)


def test_a_twist_in_the_tool_frame_turns_with_it() -> None:
    flight = Flight()
    for _ in range(60):
        decision = flight.step(np.array([0.1, 0.05, 0, 0, 0, 0.2]), frame='panda_grasptarget')
    expected = np.concatenate([flight.turn @ (0.1, 0.05, 0.0), flight.turn @ (0, 0, 0.2)])
    assert np.allclose(decision.twist, expected, atol=1e-3)


@pytest.mark.parametrize('seed', range(6))
def test_it_never_touches_whatever_is_asked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flight = Flight(resting_acceleration=0.0)
    tracks = np.concatenate([track(flight.position + d, r, id=i) for i, (d, r) in enumerate(
        zip(rng.normal(size=(6, 3)) * 0.05 + np.sign(rng.normal(size=(6, 3))) * 0.22,
            rng.uniform(0.02, 0.08, 6), strict=True))])
    last, filtered, least = np.zeros(6), 0, flight.distance(tracks)
    assert least > 0.02
    for k in range(600):
        if k % 30 == 0:
            command = np.concatenate([rng.normal(size=3) * 0.5, rng.normal(size=3) * 2])
        goal = tracks[k // 100]
        command[:3] = 0.3 * np.sign(np.array([goal['x'], goal['y'], goal['z']]) - flight.position)
        decision = flight.step(command, tracks)
        filtered += decision.state == 'FILTERED'
        assert decision.state in ('PASS', 'FILTERED')
        assert np.all(np.abs(decision.qd) <= LIMITS + 1e-9)
        assert np.all(np.abs(decision.qd - last) <= STEP + 1e-9)
        last, least = decision.qd, min(least, flight.distance(tracks))
    assert filtered > 100 and 0.0 < least < 0.05


def test_a_late_pose_is_predicted_by_its_twist_or_the_last_command() -> None:
    wall = track((0.8, 0.0, 0.5), 0.1)
    for measured in (np.array([0.2, 0, 0, 0, 0, 0]), None):
        flight = Flight()
        for _ in range(100):
            flight.step(np.array([0.2, 0.0, 0, 0, 0, 0]))
        now, late = flight.now, flight.now - 0.05
        pose = tool_pose(late, late, flight.position - (0.01, 0, 0), (1, 0, 0, 0), measured)
        decision = flight.safety.step(now, now, pose, Command(
            now, now, 'twist', np.array([0.2, 0, 0, 0, 0, 0.0]), 'base'),
            ObstacleSample(now, now, 'base', wall))
        assert np.allclose(flight.safety._buffers.tool_position, flight.position, atol=1e-4)
        assert decision.state == 'PASS'


@pytest.mark.parametrize('pose, words', [
    (JointSample(1.0, 1.0, np.zeros(7), np.zeros(6)), 'unit quaternion'),
    (JointSample(1.0, 1.0, np.zeros(3), np.zeros(6)), 'expected 7 values'),
    (JointSample(1.0, 1.0, np.full(7, np.nan), np.zeros(6)), 'not finite')])
def test_a_bad_pose_stops_by_name(pose: JointSample, words: str) -> None:
    decision = Flight().step(np.zeros(6), pose=pose)
    assert decision.reason == 'joint_state' and 'tool_pose' in decision.detail
    assert words in decision.detail and decision.covers == TOOL_ONLY


def test_joint_commands_are_refused() -> None:
    decision = Flight().step(np.zeros(6), kind='joint_velocity')
    assert decision.reason == 'command' and 'expected twist' in decision.detail


def test_what_is_held_moves_with_it() -> None:
    flight = Flight()
    held = track(flight.position - (0, 0, 0.05), 0.04, role=int(Role.HELD))
    below = track(flight.position - (0, 0, 0.25), 0.05, id=7)
    for _ in range(400):
        held['z'] = flight.position[2] - 0.05
        decision = flight.step(np.array([0, 0, -0.2, 0, 0, 0.0]), np.concatenate([held, below]))
    assert decision.state == 'FILTERED' and decision.nearest is not None
    assert decision.nearest.body == 'held'
    assert flight.position[2] - 0.05 - 0.04 > float(below['z'][0]) + 0.05


def test_warm_up_and_a_wrong_file() -> None:
    robot = RobotModel.shipped('panda_hand')
    assert SafetyFilter(robot).warm_up() > 0.0
    spec = read_config('panda_hand')
    for change, words in (({'tool_only': {}}, 'linear_velocity'), ({'bodies': {}}, 'bodies'),
                          ({'tool_only': None}, 'linear_velocity')):
        with pytest.raises(RobotError, match=words):
            RobotModel.load(None, {**spec, **change})
    with pytest.raises(RobotError, match='missing tool_link'):
        RobotModel.load(None, {k: v for k, v in spec.items() if k != 'tool_link'})
