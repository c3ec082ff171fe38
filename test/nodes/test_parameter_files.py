"""A parameter file of the user's: what it says holds, for all nodes alike, unless one types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.signals import SignalHandlerOptions
from ros_rig import EVENT_SECONDS, PATIENT, START_SECONDS, Rig, running
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from safety_filter import graph, launch_arguments, parameter_files
from safety_filter.arms import wiring
from safety_filter.core.robot import read_config, urdf_path
from safety_filter.nodes.qos import COMMAND, LATCHED

pytestmark = pytest.mark.ros
CONTROLLER = "/joint_trajectory_controller/joint_trajectory"


def _reaches(spec: graph.NodeSpec, name: str) -> Any:
    """The parameter as ROS itself hands it to a node that is started with the spec's command."""
    context = Context()
    words = graph.command(spec)[3:]
    rclpy.init(args=words, context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(
        spec.name, context=context, start_parameter_services=False, enable_rosout=False,
        allow_undeclared_parameters=True, automatically_declare_parameters_from_overrides=True,
    )  # fmt: skip
    try:
        return node.get_parameter(name).value
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


# In every place of a file, beside sections that come first in another order
FILES = [
    "/**: {ros__parameters: {command: V}}",
    "/**/filter_node: {ros__parameters: {command: V}}",
    "/cell/filter_node: {ros__parameters: {command: V}}",
    "cell: {filter_node: {ros__parameters: {command: V}}}",
    "/*/*: {ros__parameters: {command: V}}",
    "/cell/filter_node: {ros__parameters: {rate: 200.0}}\n/**: {ros__parameters: {command: V}}",
    "/**: {ros__parameters: {rate: 200.0}}\n/**/filter_node: {ros__parameters: {command: V}}",
    "/**/filter_node: {ros__parameters: {command: X}}\n/**: {ros__parameters: {command: V}}",
]


@pytest.mark.parametrize("content", FILES)
def test_a_file_wins_over_defaults_and_what_is_typed_over_the_file(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text(content.replace("V", "trajectory").replace("X", "joint_position"))
    given = {"namespace": "cell", "params_file": str(file)}
    for build in (lambda v: launch_arguments.build("filter", v), wiring.build):
        for typed in ({}, {"command": "joint_velocity"}):
            specs = {s.name: s for s in build({**given, **typed})}
            wanted = typed.get("command", "trajectory")
            assert _reaches(specs["filter_node"], "command") == wanted


@pytest.mark.parametrize(
    ("section", "fits"),
    [
        ("/ur/**: {ros__parameters: {output: twist}}", False),
        ("/*: {ros__parameters: {output: twist}}", False),
        ("/**/*: {ros__parameters: {output: twist}}", True),
        ("/cell/**: {ros__parameters: {output: twist}}", True),
    ],
)
def test_wildcards_are_read_as_ros_reads_them(tmp_path: Path, section: str, fits: bool) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text(section)
    read = parameter_files.of_node(file, "monitor_node", "cell")
    assert read == ({"output": "twist"} if fits else {})
    spec = graph.NodeSpec("monitor_node", namespace="cell", files=(str(file),))
    assert _reaches(spec, "output") == ("twist" if fits else None)


def test_nodes_that_would_model_different_robots_do_not_start(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    for said in ("robot: /me/tool.yaml", "urdf: /me/tool.urdf", "description: true",
                 "output: trajectory"):  # fmt: skip
        file.write_text(f"/**/filter_node: {{ros__parameters: {{{said}}}}}\n")
        name = said.split(":")[0]
        for build in (lambda v: launch_arguments.build("filter", v), wiring.build):
            with pytest.raises(ValueError, match=f"^{name}: expected the same for all nodes"):
                build({"params_file": str(file)})
    file.write_text("/**/filter_node: {ros__parameters: {robot: /me/tool.yaml}}\n")
    assert wiring.build({"params_file": str(file), "robot_file": "/mine.yaml"})  # typed: for all


def test_an_arm_that_is_not_shipped_may_have_its_robot_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text("/**: {ros__parameters: {robot: /me/ur5e.yaml}}\n")
    for urdf in ("", "/me/ur5e.urdf"):
        specs = wiring.build({"robot": "ur5e", "params_file": str(file), "urdf": urdf})
        for told in map(graph.in_force, specs):
            assert (told["robot"], told["urdf"]) == ("/me/ur5e.yaml", urdf)
            assert told["description"] == (not urdf)


def test_the_robot_and_the_output_of_a_file_are_those_of_the_running_nodes(
    tmp_path: Path,
) -> None:
    tool = {**read_config("panda"), "name": "panda_tool"}
    robot, file = tmp_path / "panda_tool.yaml", tmp_path / "cell.yaml"
    robot.write_text(yaml.safe_dump(tool))
    urdf = tmp_path / "panda_tool.urdf"
    urdf.write_text(urdf_path(tool).read_text())
    content: dict[str, Any] = {
        f"/**/{n}": {"ros__parameters": PATIENT[n]} for n in ("filter_node", "monitor_node")
    }
    shared = {"robot": str(robot), "urdf": str(urdf), "output": "trajectory",
              "base_frames": ["base"]}  # fmt: skip
    file.write_text(yaml.safe_dump({**content, "/**": {"ros__parameters": shared}}))
    specs = wiring.build(
        {"robot": "panda", "params_file": str(file), "vla": "false", "perception": "false",
         "joint_states": "sim_node/joint_states"}
    )  # fmt: skip
    with running(tmp_path / "log", *specs):
        rig = Rig()
        told: list[dict[str, Any]] = []
        plans: list[JointTrajectory] = []
        rig.node.create_subscription(
            String, "filter_node/config", lambda m: told.append(json.loads(m.data)), LATCHED
        )
        rig.node.create_subscription(JointTrajectory, CONTROLLER, plans.append, COMMAND)
        rig.alter_twist = lambda m: setattr(m.header, "frame_id", "panda_link0")
        try:
            rig.wait_state("monitor_node", "PASSING", START_SECONDS)
            rig.wait(lambda: bool(told and plans), EVENT_SECONDS, "config and a trajectory")
            assert told[-1]["robot"]["name"] == "panda_tool"
            node = told[-1]["node"]
            assert (node["robot"], node["urdf"]) == (str(robot), str(urdf))
            assert node["output"] == "trajectory" and node["frame"] == "panda_link0"
            senders = rig.node.get_publishers_info_by_topic(CONTROLLER)
            assert {p.node_name for p in senders} == {"filter_node", "monitor_node"}
        finally:
            rig.close()


def test_a_urdf_from_two_places_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text("/**: {ros__parameters: {description: true}}\n")
    specs = launch_arguments.build(
        "filter", {"params_file": str(file), "urdf": "/me/tool.urdf", "monitor": "false"}
    )
    with running(tmp_path / "log", *specs):
        rig = Rig()
        try:
            told = "not configured: urdf: /me/tool.urdf, but description"
            rig.wait_state("filter_node", told, START_SECONDS)
        finally:
            rig.close()
