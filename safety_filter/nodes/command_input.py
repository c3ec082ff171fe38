"""What the filter may be given as a command: messages to `core` commands, chosen by parameter.

| `command` | message | topic |
|---|---|---|
| `twist` | TwistStamped of the tool | `~/twist_in` |
| `joint_velocity`, `joint_position` | Float64MultiArray | `~/joint_command_in` |
| `trajectory` | JointTrajectory with positions, velocities or both | `~/trajectory_in` |

A Float64MultiArray has no stamp: its age is that of its receipt. A trajectory is played out: its
age counts from its last point, so that a sender that died is noticed when its trajectory ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from safety_filter.arms.trajectory import Point, Trajectory, TrajectoryError
from safety_filter.core.inputs import Command
from safety_filter.core.params import param
from safety_filter.nodes import conversion
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import NEWEST

COMMANDS = ("twist", "joint_velocity", "joint_position", "trajectory")


@dataclass(frozen=True)
class CommandParams:
    """Parameters of the command input."""

    command: str = param(
        "twist", "-", None, None, "which input is filtered", choices=COMMANDS
    )
    trajectory_longest: float = param(
        2.0, "s", 0.05, 60.0, "longest trajectory accepted: so long a dead sender goes unnoticed"
    )


class CommandInput:
    """The command topic of filter_node; `read` gives the command of this moment."""

    def __init__(self, node: Node, params: CommandParams, frame: str, tolerance: float) -> None:
        """frame: frame_id that joint commands get, which have none of their own; tolerance: s that
        a trajectory may begin in the future."""
        self._tolerance = tolerance
        self._kind, self._longest, self._frame = params.command, params.trajectory_longest, frame
        self._names: tuple[str, ...] = ()
        self._command: Command | None = None
        self._trajectory: tuple[float, float, Trajectory] | None = None
        self.fault = ""
        self._polled: Polled[Any]
        self._take: Callable[[Any, float, float], None]
        if self._kind == "twist":
            self._polled = Polled(node, TwistStamped, "~/twist_in", NEWEST)
            self._take = self._on_twist
        elif self._kind == "trajectory":
            self._polled = Polled(node, JointTrajectory, "~/trajectory_in", NEWEST)
            self._take = self._on_trajectory
        else:
            self._polled = Polled(node, Float64MultiArray, "~/joint_command_in", NEWEST)
            self._take = self._on_joints

    def configure(self, joint_names: Sequence[str]) -> None:
        """Name the arm's joints, for messages that name theirs."""
        self._names = tuple(joint_names)

    def update(self, now_ros: float) -> int:
        """Take what came since the last call; returns how many messages."""
        count = 0
        for msg in self._polled.drain():
            self._take(msg, now_ros, time.monotonic())
            count += 1
        return count

    def read(self, now_ros: float, position_gain: float) -> Command | None:
        """The newest command; of a trajectory, its set point at `now_ros`.

        position_gain: of the filter, 1/s. It pulls to position commands with a velocity of
        gain * error, so a target moved ahead by velocity / gain adds the velocity.
        """
        if self._trajectory is None:
            return self._command
        received_ros, received_mono, trajectory = self._trajectory
        stamp = min(now_ros, trajectory.end)
        played = max(0.0, stamp - received_ros)
        positions, velocities = trajectory.at(now_ros)
        if positions is None:
            kind, value = "joint_velocity", velocities
        else:
            kind, value = "joint_position", positions + velocities / position_gain
        return Command(stamp, received_mono + played, kind, value, self._frame)

    def standstill(self, now_ros: float) -> Command:
        """What is filtered while nobody passes the output on: come to rest."""
        zeros = np.zeros(len(self._names))
        return Command(now_ros, time.monotonic(), "joint_velocity", zeros, self._frame)

    def _on_twist(self, msg: TwistStamped, _: float, now: float) -> None:
        stamp, value = conversion.seconds(msg.header.stamp), conversion.twist_vector(msg)
        self._command = Command(stamp, now, "twist", value, msg.header.frame_id)

    def _on_joints(self, msg: Float64MultiArray, now_ros: float, now: float) -> None:
        value = np.array(msg.data, float)
        self._command = Command(now_ros, now, self._kind, value, self._frame)

    def _on_trajectory(self, msg: JointTrajectory, now_ros: float, now: float) -> None:
        stamp = conversion.seconds(msg.header.stamp)
        start = stamp if stamp > 0.0 else now_ros  # zero means: from now on
        points = [
            Point(
                p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec, p.positions, p.velocities
            )
            for p in msg.points
        ]
        try:
            read = Trajectory.of(msg.joint_names, points, self._names, start, self._longest)
        except TrajectoryError as error:
            # Of no size: the decision table has a row for it
            self.fault, self._trajectory = str(error), None
            self._command = Command(now_ros, now, "joint_velocity", np.zeros(0), self._frame)
            return
        if start > now_ros + self._tolerance:
            # One that begins later counts as not received, like any stamp from the future
            self.fault = f"trajectory stamp: expected the past, got {start - now_ros:.3f} s ahead"
            return
        self.fault = ""
        self._trajectory = (now_ros, now, read)
