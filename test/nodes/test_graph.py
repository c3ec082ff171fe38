"""One description: launch files and the runner's commands are drawn from it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from safety_filter import graph, launch_arguments, parameter_files, playback
from safety_filter.arms import profile, wiring
from safety_filter.core.filter_params import FilterParams
from safety_filter.nodes.commands import node_tables

ROOT = Path(__file__).resolve().parents[2]


class _Recorded(SimpleNamespace):
    """Stands for a class of `launch`: keeps what it was made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(args=args, **kwargs)

    def add_action(self, action: Any) -> None:
        self.args[0].append(action)

    def perform(self, context: SimpleNamespace) -> str:
        """As a LaunchConfiguration, which `context` holds the values of."""
        return str(context.launch_configurations[self.args[0]])


@pytest.fixture
def launching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """nodes/launching.py over recorders; the wheels have no `launch`."""
    names = {
        "launch": ["LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"],
        "launch.actions": [
            "DeclareLaunchArgument", "ExecuteProcess", "LogInfo", "OpaqueFunction",
            "SetEnvironmentVariable", "TimerAction",
        ],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
    }  # fmt: skip
    for module_name, classes in names.items():
        module = ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (_Recorded,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.delitem(sys.modules, "safety_filter.nodes.launching", raising=False)
    return importlib.import_module("safety_filter.nodes.launching")


def _launched(group: str, **given: str) -> tuple[list[Any], dict[str, Any]]:
    """Entities of a launch file, and its nodes by name with the arguments `given`."""
    path = ROOT / "launch" / f"{group}.launch.py"
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    entities = namespace["generate_launch_description"]().args[0]
    declared = [e for e in entities if type(e).__name__ == "DeclareLaunchArgument"]
    assert all(e.description for e in declared)
    assert not set(given) - {e.args[0] for e in declared}
    context = SimpleNamespace(launch_configurations=dict(given))
    started = []
    for entity in entities:  # in order, as `launch` visits them
        if type(entity).__name__ == "DeclareLaunchArgument":
            context.launch_configurations.setdefault(entity.args[0], entity.default_value)
        elif type(entity).__name__ == "OpaqueFunction":
            started += entity.function(context)
    return entities, {getattr(e, "name", "player"): e for e in started}


def _set(node: Any) -> dict[str, Any]:
    """What the launch file itself tells a node, resolved with the user's file."""
    content = yaml.safe_load(Path(node.parameters[-1]).read_text())
    return dict(content[parameter_files.LAST]["ros__parameters"])


@pytest.mark.parametrize("group", graph.GROUPS)
def test_launch_file_starts_what_the_graph_says(launching: Any, group: str) -> None:
    entities, nodes = _launched(group)
    assert tuple(nodes) == graph.GROUPS[group]
    for name, node in nodes.items():
        spec = graph.NODES[name]
        assert node.executable == name
        assert tuple(node.remappings) == spec.remappings
        assert node.respawn == spec.respawn
        assert (node.on_exit is None) == spec.respawn  # what is not respawned is told
        assert node.prefix == (f"nice -n {spec.nice}" if spec.nice else "")
        assert _set(node).items() >= {**spec.defaults, **spec.parameters}.items()
    variables = {
        e.args[0]: e.args[1] for e in entities if type(e).__name__ == "SetEnvironmentVariable"
    }
    assert variables == graph.environment_variables()


def test_launch_arguments_set_parameters_topics_namespace_and_files(
    launching: Any, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.touch()
    _, nodes = _launched(
        "filter", command="trajectory", trajectory="/plan", joint_states="/js",
        namespace="cell", params_file=str(mine), use_sim_time="true", secure="true",
    )  # fmt: skip
    node = nodes["filter_node"]
    assert dict(node.remappings)["~/trajectory_in"] == "/plan"
    assert dict(node.remappings)["joint_states"] == "/js"
    assert _set(node)["command"] == "trajectory" and node.namespace == "cell"
    assert node.parameters[-2] == str(mine)
    assert node.ros_arguments == ["--enclave", "/safety_filter/filter_node"]
    assert _set(nodes["monitor_node"])["use_sim_time"] is True


@pytest.mark.parametrize("group", [*graph.GROUPS, "arm", "replay"])
def test_show_args_tells_what_applies(group: str) -> None:
    """An argument's default is the topic that the graph wires; an empty one is explained."""
    others: dict[str, Any] = {"arm": wiring, "replay": playback}
    own = others.get(group)
    declared = own.arguments() if own else launch_arguments.arguments(group)
    of_the_arm = ("joint_states", *wiring._CAMERA_TOPICS) if group == "arm" else ()
    for argument in declared:
        if argument.default == "":
            assert "empty:" in argument.text or "must be given" in argument.text, argument
        for node in argument.nodes if argument.remap else ():
            wired = dict(graph.NODES[node].remappings)
            topic = wired.get(argument.remap, argument.remap.replace("~", node))
            assert argument.name in of_the_arm or argument.default == topic, (argument, node)


# -- real arms --------------------------------------------------------------------------------


@pytest.mark.parametrize("robot", ["panda", "iiwa"])
def test_arm_launch_wires_filter_and_monitor_to_the_controller(
    launching: Any, robot: str
) -> None:
    _, nodes = _launched("arm", robot=robot, vla="false")
    assert set(nodes) == {"perception_node", "filter_node", "monitor_node"}
    arm = profile.load(robot)
    kind, topic = next(iter(arm.outputs.items()))
    for name, role in (("filter_node", "fallback"), ("monitor_node", "out")):
        assert dict(nodes[name].remappings)[f"~/{kind}_{role}"] == topic
        assert _set(nodes[name])["output"] == kind
    for node in nodes.values():
        assert dict(node.remappings)["joint_states"] == arm.joint_states
        assert _set(node)["frame"] == arm.frame
        assert _set(node)["robot"] == arm.robot
    for name in ("filter_node", "monitor_node"):
        assert _set(nodes[name])["base_frames"] == [arm.frame]
    assert _set(nodes["monitor_node"])["stop_acceleration"] == arm.stop_acceleration
    assert arm.stop_acceleration == {"panda": 7.5, "iiwa": 0.0}[robot]
    # What moves out of sight may do no less than what the filter allows for
    hidden = _set(nodes["perception_node"])["hidden_acceleration"]
    assert hidden == FilterParams().obstacle_acceleration
    # The simulated cell's bounds are not those of a real one
    for name in ("filter", "perception"):
        assert not any(f"{name}.yaml" in str(p) for p in nodes[f"{name}_node"].parameters)


def test_arm_launch_takes_another_controller_and_a_robot_file_of_the_users(launching: Any) -> None:
    _, nodes = _launched("arm", robot="ur5e", robot_file="/r.yaml", output="twist",
                         output_topic="/servo", command="joint_velocity", joint_command="/mine",
                         image="/cam")  # fmt: skip
    told = _set(nodes["filter_node"])
    assert told["robot"] == "/r.yaml" and told["description"]
    assert dict(nodes["filter_node"].remappings)["~/joint_command_in"] == "/mine"
    assert dict(nodes["monitor_node"].remappings)["~/twist_out"] == "/servo"
    assert dict(nodes["vla_node"].remappings)["image"] == "/cam"
    declared = {
        name: {row.name for table in tables for row in table.rows}
        for name, tables in node_tables().items()
    }
    for name, node in nodes.items():
        assert set(_set(node)) <= declared[name] | {"use_sim_time"}, name


def test_a_parameter_file_of_the_users_wins_over_the_arms(
    launching: Any, tmp_path: Path
) -> None:
    cell = tmp_path / "cell.yaml"
    cell.write_text("/**/filter_node: {ros__parameters: {tracking_error: 0.03}}\n")
    given = {"robot": "ur5e", "robot_file": "/r.yaml", "params_file": str(cell)}
    _, nodes = _launched("arm", **given)
    told = _set(nodes["filter_node"])
    assert (told["tracking_error"], told["alpha0"], told["robot"]) == (0.03, 5.0, "/r.yaml")
    assert nodes["filter_node"].parameters[0] == str(cell)


def test_a_parameter_file_wins_over_defaults_of_arguments_and_what_is_typed_over_both(
    launching: Any, tmp_path: Path
) -> None:
    cell = tmp_path / "cell.yaml"
    cell.write_text("/**/perception_node: {ros__parameters: {extrinsics: parameter}}\n")
    for typed in ({}, {"extrinsics": "topic"}):
        _, nodes = _launched("arm", params_file=str(cell), **typed)
        assert _set(nodes["perception_node"])["extrinsics"] == typed.get("extrinsics", "parameter")


SECTIONS = {  # section, namespace -> whether a node reads it
    ("/**/filter_node", "cell"): True,
    ("/**", "cell"): True,
    ("filter_node", ""): True,
    ("/cell/filter_node", "/cell"): True,
    ("/*/filter_node", "cell"): True,
    ("ur_controller", "cell"): True,  # somebody else's
    ("filter_node", "cell"): False,
    ("/cell/filter_node", ""): False,
    ("filter_nod", ""): False,
}


@pytest.mark.parametrize(("section", "namespace"), SECTIONS)
def test_sections_of_a_parameter_file_that_would_be_ignored_are_refused(
    tmp_path: Path, section: str, namespace: str
) -> None:
    cell = tmp_path / "cell.yaml"
    cell.write_text(f"{section}: {{ros__parameters: {{tracking_error: 0.03}}}}\n")
    values = {"namespace": namespace, "params_file": str(cell)}
    if SECTIONS[section, namespace]:
        launch_arguments.build("filter", values)
    else:
        with pytest.raises(ValueError, match=r"write /\*\*/filter_node"):
            launch_arguments.build("filter", values)


def test_an_argument_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ValueError, match="secure: expected true or false, got 'yes'"):
        launch_arguments.build("filter", {"secure": "yes"})
    with pytest.raises(ValueError, match="vla: expected true or false, got '1'"):
        playback.build({"bag": "monday", "vla": "1"})


@pytest.mark.parametrize("content", [None, "filter_node: [", "a: !!python/name:os.system"])
def test_a_parameter_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: str | None
) -> None:
    """`launch` itself warns of a missing one and starts the nodes without its bounds."""
    cell = tmp_path / "cell.yaml"
    if content is not None:
        cell.write_text(content)
    with pytest.raises(ValueError, match=r"params_file .*cell\.yaml: "):
        launch_arguments.build("filter", {"params_file": str(cell)})


TYPED = {  # launch arguments -> what is meant, '' where all is well
    "param_file": "params_file",
    "robotfile": "robot_file",
    "robot_ip": "",  # of a launch file that includes ours
    "param_file params_file": "",
}


@pytest.mark.parametrize("words", TYPED)
def test_misspelt_launch_arguments_are_refused(launching: Any, words: str) -> None:
    note = launching.arm().args[0][0].function
    context = SimpleNamespace(launch_configurations=dict.fromkeys(words.split(), "x"))
    if TYPED[words]:
        with pytest.raises(ValueError, match=f"did you mean {TYPED[words]}"):
            note(context)
    else:
        assert note(context) == []


@pytest.mark.parametrize("output", ["joint_velocity", "trajectory"])
@pytest.mark.parametrize("by_file", [False, True])
def test_without_a_monitor_the_filter_is_wired_to_the_arm(
    launching: Any, tmp_path: Path, output: str, by_file: bool
) -> None:
    cell = tmp_path / "cell.yaml"
    cell.write_text("/**/filter_node: {ros__parameters: {monitored: false}}\n")
    given = {"params_file": str(cell)} if by_file else {"monitor": "false"}
    _, nodes = _launched("arm", robot="panda", output=output, **given)
    assert set(nodes) == {"vla_node", "perception_node", "filter_node"}
    topic = profile.load("panda").outputs[output]
    assert dict(nodes["filter_node"].remappings)[f"~/{output}_out"] == topic
    assert _set(nodes["filter_node"])["monitored"] is False
    _, nodes = _launched("filter", **given)
    assert set(nodes) == {"filter_node"}
    assert dict(nodes["filter_node"].remappings)["~/joint_velocity_out"] == "arm/joint_velocity"
    _, nodes = _launched("demo", params_file=str(cell), monitor="true")  # typed
    assert "monitor_node" in nodes and _set(nodes["filter_node"])["monitored"] is True


ARM_FAULTS = {
    "monitor: expected true or false, got 'maybe'": {"monitor": "maybe"},
    "fit-robot ur5e.urdf": {"robot": "ur5e"},
    "output: expected joint_velocity on": {"robot": "panda", "output": "twist"},
    "vla: expected true or false": {"vla": "maybe"},
    "expected one of fr3": {"robot": "r2d2"},
}


@pytest.mark.parametrize("words", ARM_FAULTS)
def test_arm_launch_says_what_is_missing(launching: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _launched("arm", **ARM_FAULTS[words])


# -- replay -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A second of inputs and outputs of the filter, written by test/bags/make_bags.py."""
    spec = importlib.util.spec_from_file_location("bags", ROOT / "test/bags/make_bags.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    path = tmp_path_factory.mktemp("bag") / "drive"
    make.drive(path, 1.0)
    return str(path)


def _played(nodes: dict[str, Any]) -> list[str]:
    (player,) = nodes["player"].actions
    assert player.cmd[3:5] == ["play", player.cmd[4]]
    return list(player.cmd[player.cmd.index("--topics") + 1 :])


def test_replay_plays_the_inputs_and_never_what_the_nodes_publish(
    launching: Any, bag: str
) -> None:
    _, nodes = _launched("replay", bag=bag)
    assert _played(nodes) == [
        "/perception_node/obstacles", "/sim_node/joint_states", "/vla_node/twist",
    ]  # fmt: skip
    told = _set(nodes["filter_node"])
    assert told["monitored"] is False and told["use_sim_time"] is True
    assert not [t for t in dict(nodes["filter_node"].remappings).values() if "arm/" in t]


def test_replay_with_perception_plays_images_in_place_of_obstacles() -> None:
    topics = playback.topics({"bag": "b", "perception": "true", "namespace": "cell"})
    assert "/cell/sim_node/scene/image" in topics and "/cell/vla_node/attention" in topics
    assert "/cell/perception_node/obstacles" not in topics
    topics = playback.topics({"bag": "b", "vla": "true", "gripper": "/hand"})
    assert "/sim_node/wrist/image" in topics and "/hand" not in topics  # vla_node's output


def test_replay_says_what_is_wrong_with_the_bag(launching: Any, bag: str) -> None:
    with pytest.raises(ValueError, match="bag:=FOLDER"):
        _launched("replay")
    with pytest.raises(ValueError, match=r"got .*/filter_node/joint_velocity_out"):
        _launched("replay", bag=bag, namespace="elsewhere")
    with pytest.raises(ValueError, match=r"bag: expected /joint_states, got .*/sim_node/joint_s"):
        _launched("replay", bag=bag, joint_states="/joint_states")
    with pytest.raises(ValueError, match="bag: "):
        _launched("replay", bag="/nowhere")
