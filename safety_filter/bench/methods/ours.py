"""The safety filter with joint velocity output, once per physics step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safety_filter.bench.cell import declared
from safety_filter.bench.methods.base import Array, Method, Step
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import Tracks
from safety_filter.sim.world import DT, World


class Filter:
    """`SafetyFilter` with the cell's parameters, some of them changed."""

    def __init__(self, changes: Mapping[str, Any] | None = None,
                 robot: RobotModel | None = None) -> None:
        self._robot = robot or RobotModel.shipped("panda")
        of_cell = declared("filter", FilterParams)
        self.params = FilterParams(**{**of_cell, "rate": 1.0 / DT, **(changes or {})})

    def reset(self, world: World) -> None:
        """See `Guard`."""
        self._filter = SafetyFilter(self._robot, self.params)
        self._obstacles: ObstacleSample | None = None
        self._command: Command | None = None

    def tracks(self, tracks: Tracks) -> Tracks:
        """What the filter is told of the tracks; ablations take something away."""
        return tracks

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> Step:
        """See `Guard`."""
        now = world.time
        q, dq, opening = world.joint_state()
        if tracks is not None and (self._obstacles is None or stamp > self._obstacles.stamp):
            self._obstacles = ObstacleSample(stamp, now, "base", self.tracks(tracks))
        if twist is not None:
            self._command = Command(now, now, "twist", twist, "base")
        joints = JointSample(now, now, q, dq, opening)
        decision = self._filter.step(now, now, joints, self._command, self._obstacles)
        change = 0.0
        if decision.state != "PASS" and self._command is not None:
            change = float(np.linalg.norm(decision.twist[:3] - self._command.value[:3]))
        state = decision.state
        if state == "STOPPED":
            state = f"STOPPED {decision.reason}"
        return Step(decision.qd, change, state)


METHOD = Method("ours", "attention, real perception, all bodies", Filter, "perception")
LIVE_ORACLE = Method(
    "ours-live-oracle", "our filter with the true state", Filter, "truth")
