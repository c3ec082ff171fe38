"""Helpers of the core's tests: a two-joint URDF, tracks, and one-line inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.report import Decision
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.wire import Tracks, empty_tracks

HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.8])

URDF = """
<robot name="two">
  <link name="base"><collision><geometry><box size="0.2 0.2 0.1"/></geometry></collision></link>
  <link name="upper"><collision><origin xyz="0 0 0.2"/>
    <geometry><cylinder radius="0.05" length="0.4"/></geometry></collision></link>
  <link name="tip"><collision><geometry><sphere radius="0.04"/></geometry></collision></link>
  <joint name="turn" type="revolute"><parent link="base"/><child link="upper"/>
    <axis xyz="0 0.6 0.8"/><limit lower="-2" upper="2" velocity="1.5" effort="1"/></joint>
  <joint name="slide" type="prismatic"><parent link="upper"/><child link="tip"/>
    <origin xyz="0 0 0.4"/><axis xyz="0 0 1"/>
    <limit lower="0" upper="0.3" velocity="0.5" effort="1"/></joint>
</robot>
"""


def track(p: Any, radius: float = 0.03, v: Any = (0.0, 0.0, 0.0), **fields: Any) -> Tracks:
    """Return one spherical track without uncertainty."""
    out = empty_tracks(1)
    for i, name in enumerate('xyz'):
        out[name], out['v' + name], out['s' + name] = p[i], v[i], radius
    for name, value in fields.items():
        out[name] = value
    return out


class Bench:
    """A filter with an arm that follows it exactly, at its own rate and without latency."""

    def __init__(self, safety: SafetyFilter, q: Array = HOME) -> None:
        self.safety, self.q, self.now = safety, q.copy(), 100.0
        self.dq = np.zeros(len(q))

    def step(self, command: Command | Array | None, tracks: Tracks | None = None,
             kind: str = 'joint_velocity') -> Decision:
        """Step once with fresh inputs (an array is a command of `kind`) and move the arm."""
        now = self.now
        if isinstance(command, np.ndarray):
            command = Command(now, now, kind, command, 'base')
        obstacles = ObstacleSample(now, now, 'base', empty_tracks() if tracks is None else tracks)
        joints = JointSample(now, now, self.q.copy(), self.dq.copy())
        decision = self.safety.step(now, now, joints, command, obstacles)
        self.q = self.q + decision.qd / self.safety.params.rate
        self.dq = decision.qd
        self.now += 1.0 / self.safety.params.rate
        return decision


def make(robot: RobotModel, q: Array = HOME, **values: Any) -> Bench:
    return Bench(SafetyFilter(robot, TABLE.validate({'base_frames': ['base'], **values})), q)


def tool(bench: Bench) -> Array:
    return bench.safety._kinematics.tool(bench.q)[1]


def run(bench: Bench, command: Array, tracks: Tracks, steps: int,
        kind: str = 'twist') -> list[Any]:
    return [bench.step(command, tracks, kind) for _ in range(steps)]
