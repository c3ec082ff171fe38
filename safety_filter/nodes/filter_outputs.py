"""What filter_node sends: velocities and the twist always, and what the arm takes when it must."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from safety_filter.core.inputs import JointSample
from safety_filter.core.robot import RobotModel
from safety_filter.nodes import conversion
from safety_filter.nodes.arm_output import ArmOutput, OutputParams
from safety_filter.nodes.base import ConfigureError
from safety_filter.nodes.conversion import Array
from safety_filter.nodes.qos import COMMAND

ALWAYS = ("joint_velocity", "twist")  # published whatever the arm takes


class FilterOutputs:
    """The publishers of commands.

    With a monitor behind the filter the arm's own topic is only for when the monitor is silent:
    zeros then go there directly.
    """

    def __init__(
        self, node: Node, params: OutputParams, frame: str, monitored: bool, rate: float
    ) -> None:
        """frame: frame_id of twists; rate: calls of `publish` a second."""
        self._monitored = monitored
        self._arm: ArmOutput | None = None
        if monitored or params.output not in ALWAYS:
            role = "fallback" if monitored else "out"
            self._arm = ArmOutput(node, params, role, 1.0 / rate, frame)
        self._velocity, self._twist = Float64MultiArray(), TwistStamped()
        self._twist.header.frame_id = frame
        self._velocity_out = node.create_publisher(
            Float64MultiArray, "~/joint_velocity_out", COMMAND
        )
        self._twist_out = node.create_publisher(TwistStamped, "~/twist_out", COMMAND)

    def configure(self, robot: RobotModel) -> None:
        """Name the joints.

        Raises:
            ConfigureError: the arm takes joint positions, and there are no joints.
        """
        self._n, self._joints_known = robot.n, not robot.tool_only
        if robot.tool_only and self._arm is not None:
            raise ConfigureError(f"output: {self._arm.kind} needs a model of the arm: twist")
        if self._arm is not None:
            self._arm.configure(robot.joint_names)

    def publish(
        self, qd: Array, twist: Array, now: float, joints: JointSample | None, age: float,
        taking_over: bool,
    ) -> None:  # fmt: skip
        """All outputs; what is not finite goes out as zeros, whatever came before.

        qd: (n,) rad/s; twist: (6,) of the tool; now: s on the ROS clock; joints, age: the newest
        joint state and the age in s up to which it counts; taking_over: the monitor is silent.
        """
        if not (np.isfinite(qd).all() and np.isfinite(twist).all()):
            qd, twist = np.zeros(self._n), np.zeros(6)
        if self._joints_known:
            self._velocity.data = array("d", qd)
            self._velocity_out.publish(self._velocity)
        self._twist_out.publish(conversion.fill_twist(self._twist, twist, now))
        arm = self._arm
        if arm is None:
            return
        measured = self._measured(joints, now - age) if arm.needs_state else None
        if not self._monitored:
            arm.publish(qd, twist, measured, now)
        elif taking_over:
            arm.publish(np.zeros(self._n), np.zeros(6), measured, now)
        else:
            arm.follow(qd, measured)

    def zeros(self, now: float, joints: JointSample | None, age: float, taking_over: bool) -> None:
        """Stand still; arguments as in `publish`."""
        self.publish(np.zeros(self._n), np.zeros(6), now, joints, age, taking_over)

    def _measured(self, joints: JointSample | None, oldest: float) -> Array | None:
        """Joint positions, None where they are too old or unusable."""
        if joints is None or len(joints.q) != self._n or joints.stamp < oldest:
            return None
        return joints.q if np.isfinite(joints.q).all() else None
