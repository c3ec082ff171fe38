"""A small arm controller in a process of its own, with the habits of the real ones.

    python fake_controller.py KIND TOPIC

- ``joint_velocity`` (forward_velocity_controller): holds the last command for ever; a message of
  the wrong size, or with a NaN in it, is dropped.
- ``joint_position`` (joint group position controller): the same for positions, which the arm
  follows with a lag and a speed limit.
- ``trajectory`` (joint_trajectory_controller since Jazzy): drops what is empty, does not end at
  rest, is already over, or lacks a joint; holds the last point.
- ``twist`` (MoveIt Servo): halts when the last twist is older than 0.1 s by its stamp; drops
  other frames.

Publishes joint states at 200 Hz on `sim_node/joint_states` and, on `dropped`, why it dropped
what.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from array import array
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros_rig import ARM_JOINTS, FINGER_JOINTS, HOME
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel
from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST

TIMEOUT = 0.1  # s, MoveIt Servo's incoming_command_timeout
LAG = 0.03  # s of a position controller
SPEED = 1.0  # rad/s


class FakeController(Node):
    """Integrates an arm of its own from the commands of one interface."""

    def __init__(self, kind: str, topic: str) -> None:
        super().__init__("fake_controller")
        self._q, self._dq = HOME.copy(), np.zeros(7)
        self._velocity, self._target = np.zeros(7), HOME.copy()
        self._points: list[tuple[float, np.ndarray]] = []
        self._twist: tuple[float, np.ndarray] | None = None
        self._kind = kind
        self._kinematics = Kinematics(RobotModel.shipped("panda"))
        self._states = self.create_publisher(JointState, "sim_node/joint_states", NEWEST)
        self._dropped = self.create_publisher(String, "dropped", LATCHED)
        types: dict[str, Any] = {"trajectory": JointTrajectory, "twist": TwistStamped}
        self.create_subscription(
            types.get(kind, Float64MultiArray), topic, getattr(self, f"_on_{kind}"), COMMAND
        )
        self._last = time.monotonic()
        self.create_timer(0.005, self._step)

    def _drop(self, why: str) -> None:
        self._dropped.publish(String(data=why))

    def _values(self, msg: Float64MultiArray) -> np.ndarray | None:
        values = np.array(msg.data)
        if values.shape != (7,) or not np.isfinite(values).all():
            self._drop(f"values {values.tolist()}")
            return None
        return values

    def _on_joint_velocity(self, msg: Float64MultiArray) -> None:
        values = self._values(msg)
        if values is not None:
            self._velocity = values

    def _on_joint_position(self, msg: Float64MultiArray) -> None:
        values = self._values(msg)
        if values is not None:
            self._target = values

    def _on_trajectory(self, msg: JointTrajectory) -> None:
        now, start = self._now(), conversion.seconds(msg.header.stamp)
        if not msg.points or sorted(msg.joint_names) != sorted(ARM_JOINTS):
            return self._drop("empty or other joints")
        if any(v != 0.0 for v in msg.points[-1].velocities):
            return self._drop("does not end at rest")
        order = [list(msg.joint_names).index(name) for name in ARM_JOINTS]
        points = []
        for p in msg.points:
            at = start + p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec
            points.append((at, np.array(p.positions)[order]))
        if points[-1][0] <= now:
            return self._drop("is over")
        self._points = [(now, self._q.copy()), *points]
        return None

    def _on_twist(self, msg: TwistStamped) -> None:
        if msg.header.frame_id != "base":
            return self._drop(f"frame {msg.header.frame_id}")
        self._twist = (conversion.seconds(msg.header.stamp), conversion.twist_vector(msg))
        return None

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _step(self) -> None:
        now = time.monotonic()
        dt, self._last = now - self._last, now
        before = self._q.copy()
        if self._kind == "joint_velocity":
            self._q = self._q + dt * self._velocity
        elif self._kind == "joint_position":
            pull = np.clip((self._target - self._q) / LAG, -SPEED, SPEED)
            self._q = self._q + dt * pull
        elif self._kind == "trajectory" and self._points:
            times = [t for t, _ in self._points]
            rows = np.array([q for _, q in self._points])
            self._q = np.array([np.interp(self._now(), times, column) for column in rows.T])
        elif self._kind == "twist" and self._twist is not None:
            stamp, twist = self._twist
            if self._now() - stamp < TIMEOUT:
                jacobian = self._kinematics.tool(self._q)[2]
                self._q = self._q + dt * np.linalg.pinv(jacobian) @ twist
        self._dq = (self._q - before) / max(dt, 1e-6)
        msg = JointState(name=[*ARM_JOINTS, *FINGER_JOINTS])
        msg.header.stamp = self.get_clock().now().to_msg()
        msg.position = array("d", [*self._q, 0.04, 0.04])
        msg.velocity = array("d", [*self._dq, 0.0, 0.0])
        self._states.publish(msg)


def main() -> None:
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = FakeController(*sys.argv[1:3])
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    while not end.is_set():
        rclpy.spin_once(node, timeout_sec=0.1)


if __name__ == "__main__":
    main()
