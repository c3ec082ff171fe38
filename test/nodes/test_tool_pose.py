"""filter_node without a model of the arm, as arm.launch.py starts it: pose in, twist out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from ros_rig import PATIENT, START_SECONDS, Rig, running
from std_msgs.msg import Float64MultiArray

from safety_filter import graph
from safety_filter.arms import wiring
from safety_filter.core.wire import empty_tracks
from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, NEWEST

pytestmark = pytest.mark.ros
NODE = "filter_node"
BASE = "panda_link0"
GIVEN = {  # as docs/quickstart.md
    "robot": "panda", "robot_file": "panda_hand", "monitor": "false", "vla": "false",
    "perception": "false", "output": "twist", "output_topic": "/servo/twist",
    "tool_pose": "/arm/tool_pose",
}  # fmt: skip


def _specs(**given: str) -> list[graph.NodeSpec]:
    cell = {"planes": [0.0, 0.0, 1.0, -5.0], "base_frames": ["base"]}
    return [
        spec.with_parameters(**PATIENT[spec.name], **(cell if spec.name == NODE else {}))
        for spec in wiring.build({**GIVEN, **given})
    ]


class Tool:
    """The tool's pose at 100 Hz, which follows the filter's twist, beside a rig."""

    def __init__(self, rig: Rig) -> None:
        self.position, self.frame = np.array([0.5, 0.0, 0.5]), BASE
        self.twist, self.velocities = np.zeros(6), 0
        self._rig = rig
        self._out = rig.node.create_publisher(PoseStamped, GIVEN["tool_pose"], NEWEST)
        rig.node.create_subscription(
            TwistStamped, GIVEN["output_topic"], self._on_twist, COMMAND
        )
        rig.node.create_subscription(
            Float64MultiArray, f"{NODE}/joint_velocity_out", self._on_velocity, COMMAND
        )
        rig.node.create_timer(0.01, self._publish)

    def _on_twist(self, msg: TwistStamped) -> None:
        self.twist = conversion.twist_vector(msg)

    def _on_velocity(self, _: Float64MultiArray) -> None:
        self.velocities += 1

    def _publish(self) -> None:
        self.position = self.position + 0.01 * self.twist[:3]
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = np.diag([1.0, -1.0, -1.0]), self.position
        self._out.publish(conversion.pose(matrix, self._rig.now(), self.frame))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Tool]]:
    with running(tmp_path_factory.mktemp("log"), *_specs()):
        rig = Rig()
        tool = Tool(rig)
        rig.wait_state(NODE, "PASS", START_SECONDS)
        yield rig, tool
        rig.close()


def test_a_twist_passes_and_the_state_says_what_is_covered(bench: tuple[Rig, Tool]) -> None:
    rig, tool = bench
    rig.twist = np.array([0.02, 0.0, 0.0, 0.0, 0.0, 0.05])
    rig.wait(lambda: np.allclose(tool.twist, rig.twist, atol=1e-6), 10.0, "twist out")
    values = conversion.values(rig.states[NODE])
    assert values["covers"] == values["twist_covers"] == "tool bodies only"
    assert tool.velocities == 0, "there are no joints to command"
    rig.twist = np.zeros(6)


def test_it_stops_in_front_of_an_obstacle(bench: tuple[Rig, Tool]) -> None:
    rig, tool = bench
    tracks = empty_tracks(1)
    tracks["x"], tracks["z"] = tool.position[0] + 0.3, tool.position[2]
    tracks["sx"], tracks["sy"], tracks["sz"] = 0.05, 0.6, 0.6  # nothing to slide round
    rig.tracks, rig.twist = tracks, np.array([0.15, 0.0, 0.0, 0.0, 0.0, 0.0])
    rig.wait_state(NODE, "FILTERED", 15.0)
    rig.wait(lambda: abs(tool.twist[0]) < 0.005, 15.0, "standstill")
    assert float(tracks["x"][0]) - 0.05 - tool.position[0] > 0.01
    rig.tracks, rig.twist = empty_tracks(), np.zeros(6)
    rig.wait_state(NODE, "PASS", 10.0)


def test_a_pose_in_another_frame_is_rejected_by_name(bench: tuple[Rig, Tool]) -> None:
    rig, tool = bench
    tool.frame = "camera"
    rig.wait_state(NODE, "STOPPED joint_state", 10.0)
    assert f"expected {BASE!r}, got 'camera'" in conversion.values(rig.states[NODE])["rejected"]
    tool.frame = BASE
    rig.wait_state(NODE, "PASS", 10.0)


def test_what_has_no_use_for_a_tool_alone_says_how_to_start(tmp_path: Path) -> None:
    """By default a monitor would stand behind the filter, which needs the arm's joints."""
    with running(tmp_path, *_specs(monitor="true")):
        rig = Rig()
        try:
            for name in (NODE, "monitor_node"):
                rig.wait_state(name, "not configured: ", START_SECONDS)
                assert "monitor:=false" in rig.message(name), name
        finally:
            rig.close()


def test_positions_of_joints_that_nobody_knows_are_not_commanded(tmp_path: Path) -> None:
    with running(tmp_path, *_specs(output="joint_position")):
        rig = Rig()
        try:
            told = "not configured: output: joint_position needs a model of the arm: twist"
            rig.wait_state(NODE, told, START_SECONDS)
        finally:
            rig.close()
