"""sim_node as a process: scenes by request, command inputs, sensors at their rates."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from ros_rig import EVENT_SECONDS, START_SECONDS, Rig, running
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String

from safety_filter import graph, images
from safety_filter.demo.client import DemoClient, DemoError
from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, NEWEST

pytestmark = pytest.mark.ros


class Cell(DemoClient):
    """The demo's client with the arm's side added."""

    def __init__(self) -> None:
        super().__init__(("sim_node",))
        self.joints: list[tuple[float, np.ndarray]] = []
        self.images = 0
        self.create_subscription(JointState, "sim_node/joint_states", self._on_joints, NEWEST)
        self.create_subscription(Image, "sim_node/scene/depth", self._on_depth, NEWEST)
        self.velocity = self.create_publisher(Float64MultiArray, "arm/joint_velocity", COMMAND)
        self.twist = self.create_publisher(TwistStamped, "vla_node/twist", COMMAND)

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Serve callbacks until `done`."""
        self.spin_until(done, EVENT_SECONDS, lambda: what)

    def turned(self) -> float:
        """Largest change of a joint since `joints` was cleared, rad."""
        if not self.joints:
            return 0.0
        return float(np.abs(self.joints[-1][1] - self.joints[0][1]).max())

    def _on_joints(self, msg: JointState) -> None:
        self.joints.append((time.monotonic(), np.array(msg.position[:7])))

    def _on_depth(self, msg: Image) -> None:
        metres = images.depth(msg)
        assert metres.shape == (256, 256) and metres.max() > 0.3
        self.images += 1


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    with running(tmp_path_factory.mktemp("log"), graph.NODES["sim_node"]):
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        client = Cell()
        client.wait_for_simulator(START_SECONDS)
        yield client
        client.close()


def test_load_describes_the_scene_and_time_waits_for_the_start(cell: Cell) -> None:
    answer = cell.request("load", seed=3, suite="demo")
    assert answer["state"] == "ready" and answer["seed"] == 3
    assert answer["target"] in [o["name"] for o in answer["objects"]]
    cell.truth = {}
    cell.wait(lambda: bool(cell.truth), "truth")
    assert cell.truth["time"] == 0.0
    assert cell.request("start")["state"] == "running"
    cell.wait(lambda: cell.truth["seed"] == 3 and cell.truth["time"] > 0.2, "time to pass")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"op": "load"}, "seed: expected a number"),
        ({"op": "load", "seed": 1, "suite": "none"}, "suite: expected one of"),
        ({"op": "load", "seed": 1, "input": "feet"}, "input: expected one of"),
        ({"op": "load", "seed": 1, "target": "moon", "destination": "plate"}, "target: expected"),
        ({"op": "dance"}, "op: expected load, start or pause"),
    ],
)
def test_a_bad_request_is_answered_with_what_was_expected(
    cell: Cell, request_: dict, words: str
) -> None:
    with pytest.raises(DemoError, match=words):
        cell.request(**request_)


def test_text_that_is_not_json_is_answered(cell: Cell) -> None:
    cell._answers.pop("", None)
    cell._command.publish(String(data="not json"))
    cell.wait(lambda: "" in cell._answers, "an answer")
    assert "command" in cell._answers[""]["error"]


def test_rates_of_physics_joint_states_and_camera(cell: Cell) -> None:
    cell.request("load", seed=3)
    cell.request("start")

    def at_its_rates() -> bool:
        """During the next second; camera and joint states in proportion to physics."""
        cell.joints.clear()
        cell.images = 0
        start = time.monotonic()
        cell.spin_for(1.0)
        elapsed = time.monotonic() - start
        physics = float(cell.values("sim_node")["rate_physics_hz"])
        told = "slower than real time" in cell.state_text("sim_node")
        return (
            cell.images / elapsed > 0.7 * physics / 16
            and len(cell.joints) / elapsed > 0.4 * physics
            and (physics > 200.0 or told)
        )

    # A busy machine slows the simulator, which then says so; the demo reports what it measured
    cell.wait(at_its_rates, "camera, joint states and physics at their rates")


def test_joint_velocities_are_held_for_ever(cell: Cell) -> None:
    cell.request("load", seed=3, input="joint_velocity")
    cell.request("start")
    command = Float64MultiArray(data=array("d", [0.2, 0, 0, 0, 0, 0, 0]))
    for _ in range(3):
        cell.velocity.publish(command)
        cell.spin_for(0.1)
    cell.joints.clear()  # nothing is sent from here on
    cell.wait(lambda: cell.turned() > 0.3, "the joint to go on")


def test_a_twist_times_out(cell: Cell) -> None:
    cell.request("load", seed=3, input="twist")
    cell.request("start")
    msg = conversion.fill_twist(TwistStamped(), [0.0, 0.1, 0.0, 0, 0, 0], 0.0)
    msg.header.frame_id = "base"
    cell.joints.clear()

    def moving() -> bool:
        cell.twist.publish(msg)
        cell.spin_for(0.1)
        return cell.turned() > 0.02

    cell.wait(moving, "motion")

    def at_rest() -> bool:
        cell.joints.clear()
        cell.truth = {}
        cell.wait(lambda: bool(cell.truth), "truth")
        start = cell.truth["time"]
        cell.wait(lambda: cell.truth["time"] > start + 0.3, "simulated time")
        return cell.turned() < 2e-3

    cell.wait(at_rest, "rest")


def _display(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A virtual X server and its display."""
    reading, writing = os.pipe()
    with open(folder / "xvfb.log", "wb") as log:
        command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1024x768x24"]
        server = subprocess.Popen(command, pass_fds=[writing], stderr=log)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return server, f":{pipe.readline().strip()}"


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb")
def test_the_window_opens_and_a_display_that_goes_away_ends_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, display = _display(tmp_path)
    try:
        monkeypatch.setenv("DISPLAY", display)
        spec = graph.NODES["sim_node"].with_parameters(gui=True)
        with running(tmp_path / "log", spec) as processes:
            rig = Rig()
            rig.wait(
                lambda: rig.message("sim_node") in ("ready", "slower than real time"),
                START_SECONDS,
                "the simulator",
            )
            server.terminate()
            rig.wait(lambda: "sim_node" in processes.dead(), EVENT_SECONDS, "the node's end")
            rig.close()
    finally:
        server.terminate()
        server.wait()


def test_a_window_without_a_display_is_a_state_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with running(tmp_path, graph.NODES["sim_node"].with_parameters(gui=True)) as processes:
        rig = Rig()
        rig.wait_state("sim_node", "not configured: gui: no display", START_SECONDS)
        assert not processes.dead()
        rig.close()


def _wait_told(cell: Cell, words: str, send: Callable[[], None]) -> None:
    """Send ten times a second until the simulator's state has the words."""

    def told() -> bool:
        send()
        cell.spin_for(0.1)
        return words in cell.state_text("sim_node")

    cell.wait(told, words)


@pytest.mark.parametrize("bad", ["frame", "nan"])
def test_commands_that_cannot_be_used_are_told_and_do_not_move_the_arm(
    cell: Cell, bad: str
) -> None:
    cell.request("load", seed=3, input="twist")
    cell.request("start")
    msg = conversion.fill_twist(TwistStamped(), [0.0, 0.1, 0.0, 0, 0, 0], 0.0)
    msg.header.frame_id = "camera" if bad == "frame" else "base"
    if bad == "nan":
        msg.twist.linear.x = float("nan")
    cell.spin_for(0.2)
    cell.joints.clear()
    _wait_told(cell, "input rejected: twist", lambda: cell.twist.publish(msg))
    assert cell.turned() < 5e-3


def test_wrong_number_of_joint_velocities_is_rejected(cell: Cell) -> None:
    cell.request("load", seed=3, input="joint_velocity")
    cell.request("start")
    one = Float64MultiArray(data=array("d", [0.2]))
    _wait_told(cell, "expected 7 finite values", lambda: cell.velocity.publish(one))
