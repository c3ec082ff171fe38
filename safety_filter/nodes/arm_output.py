"""What goes to the arm: the commanded joint velocities as the message that its controller takes.

| `output` | message | for |
|---|---|---|
| `joint_velocity` | Float64MultiArray, rad/s | `forward_velocity_controller`: holds it for ever |
| `joint_position` | Float64MultiArray, rad | joint group position controllers |
| `trajectory` | JointTrajectory that ends at rest | `joint_trajectory_controller` |
| `twist` | TwistStamped of the tool, base frame | Cartesian velocity controllers, MoveIt Servo |

Topics are `~/<output>_out`, and `~/<output>_fallback` of a filter that a monitor stands behind.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safety_filter.arms.output import JointPositions, Waypoint, short_trajectory
from safety_filter.core.params import param
from safety_filter.nodes import conversion
from safety_filter.nodes.conversion import Array
from safety_filter.nodes.qos import COMMAND

OUTPUTS = ("joint_velocity", "joint_position", "trajectory", "twist")


@dataclass(frozen=True)
class OutputParams:
    """Parameters of what goes to the arm; equal on filter_node and monitor_node."""

    output: str = param(
        "joint_velocity", "-", None, None, "what the arm's controller takes", choices=OUTPUTS
    )
    position_lead: float = param(
        0.03, "rad", 0.001, 0.5, "commanded positions lead the measured ones by at most this,"
        " which the arm may move on after a stop; tracking_error has to cover it",
    )  # fmt: skip
    trajectory_rate: float = param(50.0, "Hz", 5.0, 500.0, "rate of trajectories")
    trajectory_hold: float = param(
        0.1, "s", 0.01, 1.0, "a trajectory keeps its velocity for so long when no other follows"
    )
    trajectory_stop: float = param(
        0.2, "s", 0.02, 2.0, "and comes to rest within this: not less than the arm needs"
    )


class ArmOutput:
    """One publisher to the arm. Never NaN: what is not finite goes out as standing still."""

    def __init__(
        self, node: Node, params: OutputParams, role: str, period: float, frame: str
    ) -> None:
        """role: out or fallback, the end of the topic's name; period: s between two updates;
        frame: frame_id of twists."""
        self.kind = params.output
        self._params, self._period = params, period
        self._positions = JointPositions(params.position_lead)
        self._names: list[str] = []
        self._last = (-math.inf, False)  # time of the last trajectory, and if it moved
        self._array, self._twist = Float64MultiArray(), TwistStamped()
        self._twist.header.frame_id = frame
        message = {"trajectory": JointTrajectory, "twist": TwistStamped}
        self._publisher = node.create_publisher(
            message.get(self.kind, Float64MultiArray), f"~/{self.kind}_{role}", COMMAND
        )

    @property
    def needs_state(self) -> bool:
        """Whether joint positions have to be known before anything can be published."""
        return self.kind in ("joint_position", "trajectory")

    def configure(self, joint_names: Sequence[str]) -> None:
        """Name the joints, as trajectories do."""
        self._names = list(joint_names)

    def follow(self, qd: Array, measured: Array | None) -> None:
        """Go along with velocities that somebody else publishes, to take over without a jump."""
        if self.needs_state:
            self._positions.follow(qd, measured, self._period)

    def publish(self, qd: Array, twist: Array, measured: Array | None, now: float) -> None:
        """Send velocities of one period.

        qd: (n,) rad/s; twist: (6,) of the tool in the base frame; measured: joint positions (n,)
        or None where they are unknown: positions then stay, and before the first nothing can be
        sent; now: s on the ROS clock.
        """
        if not (np.isfinite(qd).all() and np.isfinite(twist).all()):
            qd, twist = np.zeros(len(self._names)), np.zeros(6)
        if self.kind == "joint_velocity":
            self._array.data = array("d", qd)
            self._publisher.publish(self._array)
        elif self.kind == "twist":
            self._publisher.publish(conversion.fill_twist(self._twist, twist, now))
        else:
            target = self._positions.follow(qd, measured, self._period)
            if target is None:
                return
            if self.kind == "joint_position":
                self._array.data = array("d", target)
                self._publisher.publish(self._array)
            else:
                self._send_trajectory(target, qd, now)

    def _send_trajectory(self, target: Array, qd: Array, now: float) -> None:
        """At its own rate, and at once when the arm has to stop."""
        p, moves = self._params, bool(qd.any())
        last, moved = self._last
        # A little early is on time: ticks come at a rate of their own
        if now - last < 0.9 / p.trajectory_rate and now >= last and not (moved and not moves):
            return
        self._last = (now, moves)
        msg = JointTrajectory(joint_names=self._names)
        msg.header.stamp = conversion.stamp(now)
        waypoints = short_trajectory(target, qd, p.trajectory_hold, p.trajectory_stop)
        msg.points = [_point(w) for w in waypoints]
        self._publisher.publish(msg)


def _point(waypoint: Waypoint) -> JointTrajectoryPoint:
    whole = int(waypoint.time)
    return JointTrajectoryPoint(
        positions=array("d", waypoint.positions),
        velocities=array("d", waypoint.velocities),
        time_from_start=Duration(sec=whole, nanosec=round((waypoint.time - whole) * 1e9)),
    )
