"""The demo's own node: asks the simulator for scenes, resets the others, watches all states."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST

LEVELS = {
    DiagnosticStatus.OK: "OK",
    DiagnosticStatus.WARN: "WARN",
    DiagnosticStatus.ERROR: "ERROR",
    DiagnosticStatus.STALE: "STALE",
}


class DemoError(RuntimeError):
    """The demo cannot go on; the message says which node and why."""


class DemoClient(Node):
    """Talks to the graph. `spin_until` is the only place where time passes."""

    def __init__(self, nodes: tuple[str, ...], on_wait: Callable[[], None] = lambda: None) -> None:
        """nodes: those whose state is watched; on_wait: called while waiting, may raise."""
        super().__init__("demo")
        self.states: dict[str, DiagnosticStatus] = {}
        self.truth: dict[str, Any] = {}
        self.filter_counts: Counter[str] = Counter()
        self.frame: tuple[Image, CameraInfo | None, PoseStamped | None] | None = None
        self._info: CameraInfo | None = None
        self._pose: PoseStamped | None = None
        self._on_wait = on_wait
        self._ids = itertools.count(1)
        self._answers: dict[str, dict[str, Any]] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._command = self.create_publisher(String, "sim_node/command", 10)
        self._triggers: dict[str, Client[Any, Any]] = {}
        for name in nodes:
            self.create_subscription(
                DiagnosticStatus, f"{name}/state", lambda m, n=name: self._on_state(n, m), LATCHED
            )
        self.create_subscription(String, "sim_node/truth", self._on_truth, COMMAND)
        self.create_subscription(String, "sim_node/episode", self._on_episode, LATCHED)
        self.create_subscription(
            CameraInfo, "sim_node/scene/camera_info", self._on_info, NEWEST
        )
        self.create_subscription(
            PoseStamped, "sim_node/scene/camera_pose", self._on_pose, NEWEST
        )
        self.create_subscription(Image, "perception_node/overlay", self._on_overlay, NEWEST)

    # -- what comes in ------------------------------------------------------------------------

    def _on_state(self, name: str, msg: DiagnosticStatus) -> None:
        self.states[name] = msg
        if name == "filter_node":
            # "STOPPED perception: ..." counts as "STOPPED perception"
            self.filter_counts[msg.message.split(":")[0]] += 1

    def _on_truth(self, msg: String) -> None:
        self.truth = json.loads(msg.data)

    def _on_episode(self, msg: String) -> None:
        answer = json.loads(msg.data)
        self._answers[answer["id"]] = answer

    def _on_info(self, msg: CameraInfo) -> None:
        self._info = msg

    def _on_pose(self, msg: PoseStamped) -> None:
        self._pose = msg

    def _on_overlay(self, msg: Image) -> None:
        self.frame = (msg, self._info, self._pose)

    # -- what goes out ------------------------------------------------------------------------

    def spin_until(
        self, done: Callable[[], bool], timeout: float, what: Callable[[], str]
    ) -> None:
        """Serve callbacks until `done`.

        Raises:
            DemoError: `timeout` s passed; `what` says what was waited for.
        """
        deadline = time.monotonic() + timeout
        while not done():
            self._on_wait()
            if time.monotonic() > deadline:
                raise DemoError(f"waited {timeout:.0f} s for {what()}")
            self._executor.spin_once(timeout_sec=0.05)

    def spin_for(self, duration: float) -> None:
        """Serve callbacks for `duration` s."""
        until = time.monotonic() + duration
        self.spin_until(lambda: time.monotonic() > until, duration + 1.0, lambda: "time to pass")

    def request(self, op: str, timeout: float = 30.0, **content: Any) -> dict[str, Any]:
        """Ask the simulator for something and return its answer.

        Raises:
            DemoError: it refuses, or does not answer.
        """
        name = str(next(self._ids))
        text = String(data=json.dumps({"id": name, "op": op, **content}))
        self._command.publish(text)
        self.spin_until(
            lambda: name in self._answers, timeout, lambda: f"sim_node to answer {op!r}"
        )
        answer = self._answers.pop(name)
        if answer["state"] == "error":
            raise DemoError(f"sim_node refused {op!r}: {answer['error']}")
        return answer

    def call(self, service: str, timeout: float = 30.0) -> tuple[bool, str]:
        """Call a Trigger service; returns (success, message).

        Raises:
            DemoError: it is not there, or does not answer.
        """
        client = self._triggers.get(service)
        if client is None:
            client = self._triggers[service] = self.create_client(Trigger, service)
        self.spin_until(client.service_is_ready, timeout, lambda: f"service {service}")
        future = client.call_async(Trigger.Request())
        self.spin_until(future.done, timeout, lambda: f"an answer from service {service}")
        answer = future.result()
        return bool(answer.success), str(answer.message)

    def wait_for_simulator(self, timeout: float) -> None:
        """Wait until the simulator hears requests (its subscription is matched)."""
        self.spin_until(
            lambda: self._command.get_subscription_count() > 0,
            timeout,
            lambda: "sim_node's command subscription",
        )

    def state_text(self, name: str) -> str:
        """A node's state for a person: "WARN: starting"."""
        state = self.states.get(name)
        return "no state yet" if state is None else f"{LEVELS[state.level]}: {state.message}"

    def values(self, name: str) -> Mapping[str, str]:
        """The values in a node's latest state."""
        state = self.states.get(name)
        return {} if state is None else conversion.values(state)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.destroy_node()
        rclpy.try_shutdown()
