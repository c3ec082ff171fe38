"""The doctor over a live graph: filter and monitor as processes, the rest played by the rig."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Duration
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros_rig import ARM_JOINTS, PATIENT, Rig, SimulatedTime, passing, running
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safety_filter import graph
from safety_filter.arms import wiring
from safety_filter.cli import main
from safety_filter.nodes import conversion
from safety_filter.nodes.doctor_node import Doctor
from safety_filter.nodes.qos import COMMAND

pytestmark = pytest.mark.ros
TOOL = "panda_grasptarget"
COMMANDS = "/forward_velocity_controller/commands"


def _codes(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    code = main(["doctor", "--seconds", "4", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)["findings"]
    said: dict[str, str] = {}
    for f in found:
        said[f["code"]] = "; ".join(filter(None, [said.get(f["code"]), f["says"]]))
    return code, said


def test_live_graph_in_order_and_with_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [
        graph.NODES[name].with_parameters(**PATIENT[name])
        for name in ("filter_node", "monitor_node")
    ]
    controller = Context()  # a participant of its own: one cannot read a topic as two types
    with running(tmp_path, *specs) as processes:
        rig = Rig("arm/joint_velocity")
        try:
            rig.wait_passing()
            _, found = _codes(capsys)
            assert "middleware" in found and "perception_node" in found["extrinsics.unchecked"]
            # What a busy machine may add is not about the wiring
            of_wiring = ("node.", "topic.", "qos.", "frame.", "clock.", "arm.", "monitor.")
            assert not [c for c in found if c.startswith(of_wiring)], found

            # A second commander, another controller, a silent policy, a foreign frame
            rclpy.init(context=controller, signal_handler_options=SignalHandlerOptions.NO)
            other = Node("other_controller", context=controller)
            other.create_subscription(JointTrajectory, "arm/joint_velocity", print, COMMAND)
            rig.node.create_publisher(Float64MultiArray, "arm/joint_velocity", COMMAND)
            rig.alter_cloud = lambda m: setattr(m.header, "frame_id", "camera")
            rig.twist = None
            rig.wait_state("filter_node", "STOPPED perception")
            rig.wait_state("monitor_node", "ZERO obstacles: frame_id")
            # Discovery may take its time: a node that it does not know at first is heard, too
            at_first = Doctor._discover
            monkeypatch.setattr(
                Doctor, "_discover", lambda self: at_first(self) - Counter({"monitor_node": 1})
            )
            code, found = _codes(capsys)
            assert code == 1
            assert "rig" in found.get("arm.publishers", ""), found
            assert "other_controller reads trajectory_msgs" in found["arm.type"]
            assert "'camera'" in found["frame.unknown"]
            assert "/vla_node/twist" in found["topic.silent"]
            for words in ("filter_node says: STOPPED perception: obstacles: frame_id",
                          "monitor_node says: ZERO obstacles: frame_id"):
                assert words in found["state.stopped"], found

            processes.stop(["monitor_node"])
            rig.wait_state("filter_node", "STOPPED monitor")
            code, found = _codes(capsys)
            assert code == 1 and found["node.missing"].startswith("monitor_node is not there")
        finally:
            rclpy.try_shutdown(context=controller)
            rig.close()


def test_a_twist_in_the_frame_of_the_tool_is_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**PATIENT["filter_node"], "monitored": False}
    with passing(tmp_path, graph.NODES["filter_node"].with_parameters(**settings)) as rig:
        rig.alter_twist = lambda m: setattr(m.header, "frame_id", TOOL)
        code, found = _codes(capsys)
        assert rig.message("filter_node") == "PASS"
        assert code == 0 and "frame.unknown" not in found, found
        # Obstacles are not taken in it
        rig.alter_cloud = lambda m: setattr(m.header, "frame_id", TOOL)
        rig.wait_state("filter_node", "STOPPED perception")
        code, found = _codes(capsys)
        assert code == 1 and found["frame.unknown"].startswith(
            f"/perception_node/obstacles (obstacles) is in frame '{TOOL}'"
        ), found


def test_one_trajectory_a_chunk_is_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a second apart and of a picture of then, at a limit of 0.2 s for a command."""
    settings = {**PATIENT["filter_node"], "monitored": False, "command": "trajectory"}
    settings["command_age"] = 0.2
    with running(tmp_path, graph.NODES["filter_node"].with_parameters(**settings)):
        rig = Rig()
        plan = rig.node.create_publisher(JointTrajectory, "filter_node/trajectory_in", COMMAND)

        def send() -> None:
            msg = JointTrajectory(joint_names=ARM_JOINTS)
            msg.header.stamp = conversion.stamp(rig.now() - 0.3)
            still = array("d", [0.0] * 7)
            msg.points = [
                JointTrajectoryPoint(velocities=still, time_from_start=Duration(sec=s))
                for s in (0, 2)
            ]
            plan.publish(msg)

        rig.node.create_timer(0.5, send)
        try:
            rig.wait_passing("filter_node")
            code, found = _codes(capsys)
            assert rig.message("filter_node") == "PASS"
            assert code == 0 and not {"rate.low", "age.old"} & set(found), found
        finally:
            rig.close()


def test_without_a_monitor_the_filter_commands_the_arm_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"robot": "panda", "monitor": "false", "vla": "false", "perception": "false",
             "joint_states": "sim_node/joint_states"}  # fmt: skip
    (spec,) = wiring.build(given)
    with running(tmp_path, spec.with_parameters(base_frames=["base"], **PATIENT[spec.name])):
        rig = Rig(COMMANDS)
        try:
            rig.wait_passing("filter_node")
            rig.twist = np.array([0.0, 0.05, 0.0, 0.0, 0.0, 0.0])
            rig.wait_moving()
            rig.twist = np.zeros(6)
            rig.wait_still()
            rig.node.create_publisher(Float64MultiArray, COMMANDS, COMMAND)
            _, found = _codes(capsys)
            assert "monitor.missing" in found
            assert "rig" in found["arm.publishers"] and COMMANDS in found["arm.publishers"]
        finally:
            rig.close()


def test_ages_are_on_the_clock_of_the_filter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**PATIENT["filter_node"], "use_sim_time": True, "monitored": False}
    settings["future_tolerance"] = 0.1
    with running(tmp_path, graph.NODES["filter_node"].with_parameters(**settings)):
        rig = Rig()
        clock = SimulatedTime(rig)
        try:
            rig.wait_passing("filter_node")
            _, found = _codes(capsys)
            assert not [c for c in found if c.startswith(("clock.", "age."))], found
        finally:
            clock.close()
        try:
            code, found = _codes(capsys)
            assert code == 1 and "nothing comes on /clock" in found["clock.silent"]
        finally:
            rig.close()


def test_without_a_filter_the_code_is_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "101")
    code, found = _codes(capsys, "--seconds", "0.5")
    assert code == 2 and found["node.missing"] == "filter_node is not there"
    assert main(["doctor", "--seconds", "0"]) == 2
    assert main(["doctor", "--page"]) == 0
