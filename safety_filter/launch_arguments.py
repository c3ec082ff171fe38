"""The arguments of the launch files, and what they make of the graph.

What is typed wins over the user's parameter file, that over the defaults of arguments.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from safety_filter.graph import GROUPS, NODES, NodeSpec, in_force


@dataclass(frozen=True)
class Argument:
    """A launch argument: sets `parameter` of `nodes`, or remaps the name `remap` on them.

    An empty value leaves what the graph says, and then `text` says what that is.
    """

    name: str
    default: str
    text: str
    nodes: tuple[str, ...] = ()
    parameter: str = ""
    remap: str = ""


_ALL = tuple(NODES)
_CAMERA = ("vla_node", "perception_node")
_FILTER, _MONITOR = ("filter_node",), ("monitor_node",)
_MODEL = ("vla_node", "perception_node", "filter_node", "monitor_node")
# Parameter -> the nodes that must have it alike: they model one robot, and talk to one controller
_ALIKE = {"robot": _MODEL, "urdf": _MODEL, "description": _MODEL, "output": (*_FILTER, *_MONITOR)}
COMMON = (
    Argument("namespace", "", "namespace of all nodes; empty: none"),
    Argument("use_sim_time", "false", "follow /clock", _ALL, "use_sim_time"),
    Argument("secure", "false", "true: each node in its SROS2 enclave, see docs/security.md"),
    Argument("params_file", "", "parameter file (YAML) over the shipped ones, for all nodes;"
             " empty: none"),
)
MONITOR = Argument(
    "monitor", "true", "start monitor_node between filter and arm; false: the filter's output goes"
    " there itself, which is all there is for a tool without a model of the arm", _FILTER,
    "monitored",
)  # fmt: skip
SIMULATOR = (
    Argument("seed", "0", "seed of the scene", ("sim_node",), "seed"),
    Argument("suite", "dynamic-4", "suite of scenes: free, dynamic-4, ...", ("sim_node",),
             "suite"),
    Argument("gui", "false", "show PyBullet's window", ("sim_node",), "gui"),
    Argument(
        "autostart", "true", "time runs at once, without a start request", ("sim_node",),
        "autostart",
    ),
)  # fmt: skip


def check_typed(typed: Collection[str], declared: Sequence[Argument]) -> None:
    """`launch` takes no notice of arguments that nobody declares: misspelt ones are told here.

    Others may belong to a launch file that includes ours.

    Raises:
        ValueError: one of `typed` almost is an argument of `declared` that was not typed.
    """
    names = {a.name for a in declared}
    for name in sorted(set(typed) - names):
        near = difflib.get_close_matches(name, names - set(typed), 1, 0.85)
        if near:
            raise ValueError(
                f"launch argument {name!r}: nobody declares it; did you mean {near[0]}? Where it"
                f" belongs to a launch file that includes this one, give {near[0]} too"
            )


def _topic(spec: NodeSpec, name: str) -> str:
    """Where a node's own name for a topic leads."""
    return dict(spec.remappings).get(name, name.replace("~", spec.name))


def _wired(argument: Argument) -> Argument:
    """With the topic that the graph wires for its default: `--show-args` then tells it."""
    if not argument.remap:
        return argument
    return replace(argument, default=_topic(NODES[argument.nodes[0]], argument.remap))


# For nodes that are started without those that they are wired to
TOPICS = tuple(map(_wired, (
    Argument("image", "", "topic of the scene camera's colour image", _CAMERA, remap="image"),
    Argument("wrist_image", "", "topic of the wrist camera", ("vla_node",), remap="wrist_image"),
    Argument("instruction", "", "topic of the instruction", ("vla_node", "perception_node"),
             remap="instruction"),
    Argument("depth", "", "topic of the registered depth image", ("perception_node",),
             remap="depth"),
    Argument("camera_info", "", "topic of the camera's CameraInfo", ("perception_node",),
             remap="camera_info"),
    Argument("camera_pose", "", "topic of the camera's pose (extrinsics: topic)",
             ("perception_node",), remap="camera_pose"),
    Argument("attention", "", "topic of the policy's attention map", ("perception_node",),
             remap="attention"),
    Argument("wrist_attention", "", "topic of its map over the wrist camera's picture",
             ("perception_node",), remap="wrist_attention"),
    Argument("gripper", "", "topic of the opening that the policy asks for (Float64, m)",
             ("vla_node",), remap="~/gripper"),
    Argument("joint_states", "", "topic of the arm's joint states", _MODEL, remap="joint_states"),
    Argument("obstacles", "", "topic of the obstacles (PointCloud2, layout v1)",
             (*_FILTER, *_MONITOR), remap="~/obstacles"),
    Argument("command", "twist", "kind of command: twist, joint_velocity, joint_position or"
             " trajectory", _FILTER, "command"),
    Argument("twist", "", "topic of a twist command", _FILTER, remap="~/twist_in"),
    Argument("joint_command", "", "topic of a joint command (Float64MultiArray)", _FILTER,
             remap="~/joint_command_in"),
    Argument("trajectory", "", "topic of a trajectory command", _FILTER, remap="~/trajectory_in"),
    Argument("tool_pose", "", "topic of the tool's pose, where no model of the arm is known",
             _FILTER, remap="~/tool_pose"),
    Argument("robot", "panda", "shipped robot or path of a robot file", _MODEL, "robot"),
    Argument("urdf", "", "path of the URDF; empty: the one that the robot file names", _MODEL,
             "urdf"),
)))  # fmt: skip


def arguments(group: str) -> tuple[Argument, ...]:
    """The launch arguments of a group that say something to its nodes."""
    nodes = GROUPS[group]
    own = SIMULATOR if "sim_node" in nodes else TOPICS
    guard = (MONITOR,) if "monitor_node" in nodes else ()
    return (*(a for a in own if set(a.nodes) & set(nodes)), *guard, *COMMON)


def build(group: str, values: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes of a group with the launch arguments `values` (name -> text, as typed)."""
    specs = [NODES[name] for name in GROUPS[group]]
    return settled(configured(specs, arguments(group), values))


def truth(name: str, text: str) -> bool:
    """A launch argument that is true or false. Raises ValueError for anything else."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{name}: expected true or false, got {text!r}")
    return text.lower() == "true"


def configured(
    specs: Sequence[NodeSpec], declared: Sequence[Argument], values: Mapping[str, str]
) -> list[NodeSpec]:
    """`specs` with the launch arguments applied.

    What was typed (`values`) wins over the user's parameter file; defaults of arguments do not.

    Raises:
        ValueError: `secure` is neither true nor false.
    """
    result = []
    for spec in specs:
        for argument in declared:
            text = values.get(argument.name, argument.default)
            if spec.name not in argument.nodes or text == "":
                continue
            if argument.remap:
                if text != _topic(spec, argument.remap):
                    spec = spec.with_remappings({argument.remap: text})
            else:
                given = {argument.parameter: yaml.safe_load(text)}
                if argument.name in values:
                    spec = spec.with_parameters(**given)
                else:
                    spec = replace(spec, defaults={**given, **spec.defaults})
        file = values.get("params_file", "")
        spec = replace(
            spec,
            namespace=values.get("namespace", ""),
            secure=truth("secure", values.get("secure", "false")),
            files=(*spec.files, *([file] if file else [])),
        )
        result.append(spec)
    return result


def settled(specs: Sequence[NodeSpec]) -> list[NodeSpec]:
    """The nodes that start, of `specs` with their arguments applied.

    Where filter_node is told that no monitor stands behind it there is none, and its output goes
    where the monitor's would.

    Raises:
        ValueError: that is neither true nor false, or nodes that work with one robot and one
            controller are told of several.
    """
    result = {spec.name: spec for spec in specs}
    guarded = result.get("filter_node")
    if guarded is not None:
        told = in_force(guarded)
        arm = dict(guarded.remappings).get(f"~/{told['output']}_fallback")
        if not truth("monitor", str(told["monitored"])):
            result.pop("monitor_node", None)
            if arm is not None:
                result["filter_node"] = guarded.with_remappings({f"~/{told['output']}_out": arm})
    for name, nodes in _ALIKE.items():
        said = {n: in_force(spec)[name] for n, spec in result.items() if n in nodes}
        if any(value != next(iter(said.values())) for value in said.values()):
            told_each = ", ".join(f"{value!r} for {node}" for node, value in said.items())
            raise ValueError(f"{name}: expected the same for all nodes, got {told_each}; say it in"
                             " the section /** of the params_file")  # fmt: skip
    return list(result.values())
