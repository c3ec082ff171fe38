"""Methods: what stands between the policy and the arm."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.filter import Command, JointSample, ObstacleSample, SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import Tracks
from safety_filter.sim.world import DT, World

Array = NDArray[np.float64]


class NoFilter:
    """The policy's twist goes to the arm as it is."""

    def reset(self, world: World) -> None:
        pass

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> None:
        world.set_twist(np.zeros(6) if twist is None else twist)


class Filter:
    """The safety filter with joint velocity output, once per physics step."""

    def __init__(self, **params: Any) -> None:
        self._robot = RobotModel.shipped("panda")
        self._params = FilterParams(**{"rate": 1.0 / DT, **params})
        self.notes: dict[str, Any] = {}

    def reset(self, world: World) -> None:
        self._filter = SafetyFilter(self._robot, self._params)
        self._obstacles: ObstacleSample | None = None
        self._command: Command | None = None
        self._states: Counter[str] = Counter()
        self._change = 0.0
        self.notes = {}

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> None:
        now = world.time
        q, dq, opening = world.joint_state()
        if tracks is not None and (self._obstacles is None or stamp > self._obstacles.stamp):
            self._obstacles = ObstacleSample(stamp, now, "base", tracks)
        if twist is not None:
            self._command = Command(now, now, "twist", twist, "base")
        joints = JointSample(now, now, q, dq, opening)
        decision = self._filter.step(now, now, joints, self._command, self._obstacles)
        world.set_joint_velocity(decision.qd)
        self._states[f"{decision.state} {decision.reason}".strip()] += 1
        self._change += float(np.linalg.norm(decision.qd - decision.nominal_qd)) * DT
        self.notes = {"states": dict(self._states), "intervention_rad": self._change,
                      "active": decision.active_rows[:3]}
