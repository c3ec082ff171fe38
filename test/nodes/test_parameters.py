"""What is given to a node and is no parameter of it is refused; rcl would take no notice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from safety_filter import graph, launch_arguments
from safety_filter.core.filter_params import TABLE
from safety_filter.core.params import ParamTable
from safety_filter.demo.processes import ros_environment
from safety_filter.nodes.arm_output import OutputParams
from safety_filter.nodes.parameters import ParameterSet, unknown

pytestmark = pytest.mark.ros


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context)
    node = Node("filter_node", context=context)
    node.declare_parameter("tracking_error", 0.01)
    node.declare_parameter("rows.gain", 1.0)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


FILES = {  # content -> the parameter that is told
    "filter_node: {ros__parameters: {tracking_error: 0.03, use_sim_time: true}}": "",
    "/**/filter_node: {ros__parameters: {tracking_eror: 0.03}}": "tracking_eror",
    "/cell/filter_node: {ros__parameters: {rows: {gain: 1, gains: 2}}}": "rows.gains",
    "cell: {filter_node: {ros__parameters: {tracking_eror: 0.03}}}": "tracking_eror",
    "/**: {ros__parameters: {silence: 0.03}}": "",  # may be for another node
    "/**/monitor_node: {ros__parameters: {silence: 0.03}}": "",
    # `launch_ros` writes this for what launch files give
    "/**: {ros__parameters: {base_frames: !!python/tuple [base]}}": "",
    "filter_node: {ros__parameters: {tracking_eror: !!python/name:os.system }}": "tracking_eror",
    "": "",
}


@pytest.mark.parametrize("content", FILES)
def test_a_section_of_the_node_names_parameters_that_it_has(
    node: Node, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text(content)
    told = unknown(node, ["--ros-args", "--params-file", str(file), "-r", "a:=b"])
    wanted = FILES[content]
    assert len(told) == bool(wanted) and all(t.startswith(wanted) for t in told), told


@pytest.mark.parametrize(
    "refused", [("output", "twist"), ("alpha0", -1.0), ("comfort_margin", 0.1)]
)
def test_what_one_table_refuses_no_other_applies(refused: tuple[str, object]) -> None:
    context = Context()
    rclpy.init(context=context)
    node = Node("cell", context=context)
    try:
        fixed = ParameterSet(node, ParamTable.of(OutputParams))
        told: list[object] = []
        fault = lambda p: "no" if p.comfort_margin > 0.05 else None  # noqa: E731
        tuned = ParameterSet(node, TABLE, "", lambda _, changes: told.append(changes), fault)
        before = fixed.value, tuned.value
        changes = [("obstacle_acceleration", 0.4), refused]
        answer = node.set_parameters_atomically([Parameter(n, value=v) for n, v in changes])
        assert not answer.successful and answer.reason
        assert (fixed.value, tuned.value) == before and not told
        assert node.set_parameters_atomically([Parameter("alpha0", value=5.0)]).successful
        assert tuned.value.alpha0 == 5.0 and told == [{"alpha0": 5.0}]
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_parameters_on_the_command_line_are_the_nodes(node: Node) -> None:
    words = ["-p", "tracking_error:=1", "-p", "monitor_node:silence:=1", "-p", "rate:=100"]
    assert unknown(node, words) == ["rate: unknown"]
    words = ["-p", "filter_node:tracking_errors:=1"]
    assert unknown(node, words) == ["tracking_errors: unknown; did you mean tracking_error?"]


def test_a_node_with_a_misspelt_parameter_does_not_start() -> None:
    command = graph.command(graph.NODES["filter_node"].with_parameters(tracking_eror=0.03))
    done = subprocess.run(
        command, env=ros_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "tracking_eror: unknown; did you mean tracking_error?" in done.stderr


def test_the_graph_gives_no_node_a_parameter_that_it_does_not_have() -> None:
    from safety_filter.arms import profile, wiring
    from safety_filter.nodes.base import TABLE
    from safety_filter.nodes.commands import node_tables

    every = {row.name for row in TABLE.rows} | {"use_sim_time"}
    tables = node_tables()
    names = {n: every | {r.name for t in tables[n] for r in t.rows} for n in tables}
    arms = [wiring.build({"robot": name, "robot_file": "/r.yaml"}) for name in profile.names()]
    for spec in [s for specs in (launch_arguments.build("demo", {}), *arms) for s in specs]:
        assert set(spec.parameters) | set(spec.defaults) <= names[spec.name], spec
