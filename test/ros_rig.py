"""Real nodes in real processes, and the other side of their topics, for tests."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from safety_filter import graph
from safety_filter.core.wire import Role, empty_tracks
from safety_filter.demo.processes import ProcessGroup, ros_environment
from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST

HOME = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])
ARM_JOINTS = [f"panda_joint{i}" for i in range(1, 8)]
FINGER_JOINTS = ["panda_finger_joint1", "panda_finger_joint2"]
START_SECONDS = 90.0  # numba may have to compile on a busy machine
FEED_PERIOD = 0.005  # s between two joint states
EVENT_SECONDS = 20.0  # for what comes at once, unless the machine is busy
# Limits for tests whose subject is not time, so that a busy machine does not decide them
PATIENT: dict[str, dict[str, Any]] = {
    "filter_node": {
        "rate": 100.0, "deadline": 0.01, "monitor_silence": 0.4, "monitor_gone": 3.0,
        "joint_state_age": 0.6, "obstacles_age": 1.5, "command_age": 0.6,
    },
    "monitor_node": {
        "rate": 100.0, "silence": 0.4, "latch_after": 3.0, "late_limit": 100, "joint_age": 0.8,
        "obstacles_age": 1.8,
    },
    "vla_node": {"image_age": 2.0, "joint_age": 1.0},
}  # fmt: skip


def obstacle(position: tuple[float, float, float], radius: float = 0.04) -> np.ndarray:
    """One track, a ball of `radius` m at `position` in base, id 7."""
    tracks = empty_tracks(1)
    tracks["x"], tracks["y"], tracks["z"] = position
    tracks["sx"] = tracks["sy"] = tracks["sz"] = radius
    tracks["id"], tracks["role"] = 7, Role.OBSTACLE
    return tracks


class Rig:
    """A node that plays the arm, the policy and perception; everything can be bent by a test.

    The arm holds its last velocity for ever, as arm controllers do. `twist`, `tracks` and the
    `alter_*` hooks are read afresh for every message; None in place of a value publishes nothing.
    """

    def __init__(self, command_topic: str = "filter_node/joint_velocity_out") -> None:
        self.context = Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("rig", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._end = threading.Event()
        self.q = HOME.copy()
        self.qd = np.zeros(7)
        self.opening = 0.08
        self.joints_on = True
        self.twist: np.ndarray | None = np.zeros(6)
        self.tracks: np.ndarray | None = empty_tracks()
        self.alter_joints: Callable[[JointState], None] = lambda msg: None
        self.alter_twist: Callable[[TwistStamped], None] = lambda msg: None
        self.alter_cloud: Callable[[PointCloud2], None] = lambda msg: None
        self.commands: deque[tuple[float, np.ndarray]] = deque(maxlen=20000)
        self._beats: deque[float] = deque(maxlen=20000)  # when the feeding thread had its turn
        self.states: dict[str, DiagnosticStatus] = {}
        self._joint_pub = self.node.create_publisher(JointState, "sim_node/joint_states", NEWEST)
        self._twist_pub = self.node.create_publisher(TwistStamped, "vla_node/twist", COMMAND)
        self._cloud_pub = self.node.create_publisher(
            PointCloud2, "perception_node/obstacles", COMMAND
        )
        self.node.create_subscription(Float64MultiArray, command_topic, self._on_command, COMMAND)
        for name in ("filter_node", "monitor_node", "vla_node", "perception_node", "sim_node"):
            self.node.create_subscription(
                DiagnosticStatus, f"{name}/state", lambda m, n=name: self._on_state(n, m), LATCHED
            )
        self._threads = [
            threading.Thread(target=self._spin, daemon=True),
            threading.Thread(target=self._feed, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _spin(self) -> None:
        while not self._end.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _on_command(self, msg: Float64MultiArray) -> None:
        self.qd = np.array(msg.data)
        self.commands.append((time.monotonic(), self.qd))

    def _on_state(self, name: str, msg: DiagnosticStatus) -> None:
        self.states[name] = msg

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription of this node in the executor's thread: one destroyed while that
        thread builds its wait set ends the thread."""
        done = self._executor.create_task(self.node.destroy_subscription, subscription)
        self.wait(done.done, EVENT_SECONDS, "a subscription's end")

    def go_home(self) -> None:
        """Put the arm back where it started, so that no test depends on what moved it before."""
        self.wait_still()
        self.q = HOME.copy()

    def restore(self, name: str) -> None:
        """Every input at its best, the arm at home, and filter `name` letting commands through."""
        self.joints_on, self.twist, self.tracks = True, np.zeros(6), empty_tracks()
        self.alter_joints = self.alter_twist = self.alter_cloud = lambda msg: None
        self.wait_state(name, "PASS")
        self.go_home()
        self.wait_state(name, "PASS")

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    def _feed(self) -> None:
        """Joint states at 200 Hz, obstacles at 33 Hz, commands at 50 Hz."""
        last = time.monotonic()
        tick = 0
        while not self._end.is_set():
            now = time.monotonic()
            self._beats.append(now)
            if self.qd.any():  # or it would undo go_home() in another thread
                self.q = self.q + (now - last) * self.qd
            last = now
            if self.joints_on:
                self._publish_joints()
            tracks, command = self.tracks, self.twist  # a test may take them away meanwhile
            if tick % 6 == 0 and tracks is not None:
                msg = conversion.cloud(tracks, self.now(), "base")
                self.alter_cloud(msg)
                self._cloud_pub.publish(msg)
            if tick % 4 == 0 and command is not None:
                twist = conversion.fill_twist(TwistStamped(), command, self.now())
                twist.header.frame_id = "base"
                self.alter_twist(twist)
                self._twist_pub.publish(twist)
            tick += 1
            time.sleep(max(0.0, FEED_PERIOD - (time.monotonic() - now)))

    def _publish_joints(self) -> None:
        msg = JointState(name=[*ARM_JOINTS, *FINGER_JOINTS])
        msg.header.stamp = conversion.stamp(self.now())
        half = self.opening / 2
        msg.position = array("d", [*self.q, half, half])
        msg.velocity = array("d", [*self.qd, 0.0, 0.0])
        self.alter_joints(msg)
        self._joint_pub.publish(msg)

    # -- what tests ask -----------------------------------------------------------------------

    def message(self, name: str) -> str:
        """A node's state message, '' before the first."""
        state = self.states.get(name)
        return "" if state is None else state.message

    def values(self, name: str) -> dict[str, str]:
        return conversion.values(self.states[name])

    def wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Wait for a condition, failing with everybody's state."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout} s for {what}; {self._told()}"
            time.sleep(0.005)

    def _told(self) -> str:
        """Everybody's state, and where the arm is."""
        states = {n: (s.message, conversion.values(s)) for n, s in self.states.items()}
        return f"states: {states}, q: {self.q}, qd: {self.qd}"

    def wait_moving(self) -> None:
        """Wait until the arm is sent a velocity."""
        self.wait(lambda: bool(self.qd.any()), EVENT_SECONDS, "motion")

    def wait_still(self) -> None:
        """Wait until the arm's last velocity is zero; it would hold any other for ever."""
        self.wait(lambda: not self.qd.any(), EVENT_SECONDS, "standstill")

    def wait_state(self, name: str, start: str, timeout: float = EVENT_SECONDS) -> None:
        """Wait until a node's state message begins with `start`."""
        self.wait(lambda: self.message(name).startswith(start), timeout, f"{name} {start!r}")

    def wait_passing(
        self, *names: str, timeout: float = START_SECONDS
    ) -> None:
        """Wait until filter and monitor, or the `names` of these, let commands through; releases
        what a busy machine latched."""
        good = {"filter_node": "PASS", "monitor_node": "PASSING"}
        good = {n: good[n] for n in names or good}
        deadline = time.monotonic() + timeout
        while [n for n, message in good.items() if self.message(n) != message]:
            assert time.monotonic() < deadline, f"waited {timeout} s for {good}; {self._told()}"
            for name in good:
                if self.message(name).startswith("STOPPED"):
                    self.call(f"{name}/reset")
            time.sleep(0.2)

    def commands_since(self, start: float) -> list[tuple[float, np.ndarray]]:
        """(time, velocities) received after monotonic time `start`."""
        return [c for c in list(self.commands) if c[0] > start]

    def hiccup(self, start: float, end: float) -> float:
        """The longest time, s, beyond its period that a thread waited for its turn between two
        monotonic times: what the machine itself adds just then to anything measured."""
        beats = [t for t in list(self._beats) if start <= t <= end]
        gaps = np.diff([start, *beats, end])
        return max(0.0, float(gaps.max()) - FEED_PERIOD)

    def lateness(self) -> float:
        """How late, s, half of the turns of a thread of this machine came in the last seconds."""
        now = time.monotonic()
        beats = [t for t in list(self._beats) if t > now - 5.0]
        return max(0.0, float(np.median(np.diff(beats))) - FEED_PERIOD)

    def watch(self, duration: float) -> list[tuple[float, np.ndarray]]:
        """Commands received during the next `duration` s."""
        start = time.monotonic()
        time.sleep(duration)
        return self.commands_since(start)

    def call(self, service: str, timeout: float = EVENT_SECONDS) -> tuple[bool, str]:
        """Call a Trigger service."""
        client = self.node.create_client(Trigger, service)
        self.wait(client.service_is_ready, timeout, service)
        future = client.call_async(Trigger.Request())
        self.wait(future.done, timeout, f"an answer of {service}")
        answer: Any = future.result()
        return bool(answer.success), str(answer.message)

    def change(self, node: str, transition: int) -> bool:
        """Ask a node for a lifecycle transition; whether it was done."""
        client = self.node.create_client(ChangeState, f"{node}/change_state")
        self.wait(client.service_is_ready, START_SECONDS, f"{node}/change_state")
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        self.wait(future.done, START_SECONDS, "a transition")
        answer: Any = future.result()
        return bool(answer.success)

    def set_parameter(self, node: str, name: str, value: float) -> tuple[bool, str]:
        """Set a number of a node; (whether it took it, the reason)."""
        client = self.node.create_client(SetParameters, f"{node}/set_parameters")
        self.wait(client.service_is_ready, EVENT_SECONDS, "set_parameters")
        content = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        request = SetParameters.Request(parameters=[Parameter(name=name, value=content)])
        future = client.call_async(request)
        self.wait(future.done, EVENT_SECONDS, "set_parameters")
        answer: Any = future.result()
        return answer.results[0].successful, answer.results[0].reason

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


class SimulatedTime:
    """`/clock`, which may be set while it runs; the stamps of a rig follow it."""

    def __init__(self, rig: Rig) -> None:
        self._publisher = rig.node.create_publisher(Clock, "/clock", 10)
        self._offset = 1000.0 - time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        rig.alter_joints = rig.alter_twist = rig.alter_cloud = self._stamp

    def now(self) -> float:
        return time.monotonic() + self._offset

    def leap(self, seconds: float) -> None:
        self._offset += seconds

    def close(self) -> None:
        self._end.set()
        self._thread.join(timeout=2.0)

    def _stamp(self, msg: JointState | TwistStamped | PointCloud2) -> None:
        msg.header.stamp = conversion.stamp(self.now())

    def _run(self) -> None:
        while not self._end.wait(0.004):
            self._publisher.publish(Clock(clock=conversion.stamp(self.now())))


@contextmanager
def passing(folder: Path, spec: graph.NodeSpec) -> Iterator[Rig]:
    """A filter as a process, and a rig that it lets commands of through."""
    with running(folder, spec):
        rig = Rig()
        try:
            rig.wait_state(spec.name, "PASS", START_SECONDS)
            yield rig
        finally:
            rig.close()


@contextmanager
def running(folder: Path, *specs: graph.NodeSpec) -> Iterator[ProcessGroup]:
    """Nodes as processes on a domain of their own; this process joins the domain too."""
    environment = ros_environment()
    os.environ.update(environment)
    with ProcessGroup(environment, folder) as processes:
        for spec in specs:
            processes.start(spec)
        yield processes


@contextmanager
def second_source(rig: Rig) -> Iterator[None]:
    """Another node that publishes obstacles where perception does."""
    node = Node("virtual_walls", context=rig.context)
    node.create_publisher(PointCloud2, "perception_node/obstacles", COMMAND)
    try:
        yield
    finally:
        node.destroy_node()
