"""The graph on a real arm: everything but the driver, wired to the driver's topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safety_filter import graph
from safety_filter.arms import profile
from safety_filter.core.filter_params import FilterParams
from safety_filter.graph import NodeSpec, in_force
from safety_filter.launch_arguments import (
    COMMON,
    MONITOR,
    TOPICS,
    Argument,
    configured,
    settled,
    truth,
)

_ALL = ("vla_node", "perception_node", "filter_node", "monitor_node")
_ARM = (
    Argument("robot", "panda", "arm: panda, fr3, ur5e, xarm7, iiwa, or path of an arm file"),
    Argument(
        "robot_file", "", "robot file (YAML) of safety-filter fit-robot, for an arm whose URDF"
        " is not shipped or that carries a tool of yours; empty: the shipped one", _ALL, "robot",
    ),
    Argument("urdf", "", "path of the URDF; empty: the shipped one, or robot_description", _ALL,
             "urdf"),
    Argument("output", "", "what goes to the arm: joint_velocity, joint_position, trajectory or"
             " twist; empty: the first of the arm's file", ("filter_node", "monitor_node"),
             "output"),
    Argument("output_topic", "", "the controller's topic; empty: that of the arm's file"),
    Argument("vla", "true", "start vla_node; false: bring your own policy"),
    Argument("perception", "true", "start perception_node; false: bring your own obstacles"),
    Argument("extrinsics", "tf", "where the camera's pose comes from: parameter, topic or tf",
             ("perception_node",), "extrinsics"),
    MONITOR,
)  # fmt: skip
# On a real arm the cameras stand where their driver says, and the user speaks on /instruction
_CAMERA_TOPICS = {
    "image": "camera/color/image_raw",
    "wrist_image": "wrist_camera/color/image_raw",
    "depth": "camera/aligned_depth_to_color/image_raw",
    "camera_info": "camera/color/camera_info",
    "camera_pose": "camera_pose",
    "instruction": "instruction",
}


def arguments() -> tuple[Argument, ...]:
    """The launch arguments of arm.launch.py."""
    own = {a.name for a in _ARM}
    topics = {
        a.name: replace(a, default=_CAMERA_TOPICS.get(a.name, a.default))
        for a in TOPICS
        if a.name not in own
    }
    joints = topics["joint_states"]
    text = f"{joints.text}; empty: that of the arm's file"
    topics["joint_states"] = replace(joints, default="", text=text)
    return (*_ARM, *topics.values(), *COMMON)


def build(values: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the launch arguments `values`.

    Raises:
        ValueError: an argument, the arm's or the parameter file is wrong, or a robot file is
            needed.
    """
    given = {a.name: a.default for a in arguments()} | dict(values)
    arm = profile.load(given["robot"])
    left_out = {f"{n}_node" for n in ("vla", "perception") if not truth(n, given[n])}
    specs = configured([_node(n, arm) for n in _ALL if n not in left_out], arguments(), values)
    return settled([_to_controller(spec, arm, given["output_topic"]) for spec in specs])


def _node(name: str, arm: profile.Arm) -> NodeSpec:
    """A node that knows the arm's file; the user's files and arguments know their arm better."""
    output = {"output": next(iter(arm.outputs))}
    defaults: dict[str, dict[str, Any]] = {
        # one bound, declared to both: perception looks as far as the filter allows for
        "perception_node": {"hidden_acceleration": FilterParams().obstacle_acceleration},
        "filter_node": {**output, **arm.filter},
        "monitor_node": {
            **output,
            "stop_acceleration": arm.stop_acceleration,
            **{k: v for k, v in arm.filter.items() if k == "base_frames"},
        },
    }
    shared = {"robot": arm.robot, "urdf": "", "frame": arm.frame}
    names = {"joint_states": arm.joint_states, "robot_description": arm.robot_description}
    spec = graph.NODES[name].with_remappings(names)
    return replace(
        spec,
        # These files declare the simulated cell, its bounds and its camera in the hand: not yours
        config=None if name in ("filter_node", "perception_node") else spec.config,
        defaults={**spec.defaults, **shared, **defaults.get(name, {})},
    )


def _to_controller(spec: NodeSpec, arm: profile.Arm, topic: str) -> NodeSpec:
    """With what follows from all that the node is told: the URDF's source, the arm's topic."""
    told = in_force(spec)
    if not told["robot"]:
        raise ValueError(profile.not_shipped(arm.name) or f"{arm.name}: robot_file is needed")
    described = told["robot"] != arm.robot and not told["urdf"]
    spec = replace(spec, defaults={"description": described, **spec.defaults})
    ends = {"filter_node": "fallback", "monitor_node": "out"}
    if spec.name not in ends:
        return spec
    kind = told["output"]
    topic = topic or arm.outputs.get(kind, "")
    if kind not in profile.KINDS or not topic:
        known = ", ".join(f"{k} on {t}" for k, t in arm.outputs.items())
        raise ValueError(
            f"output: expected {known}, or another of {', '.join(profile.KINDS)} with"
            f" output_topic; got {kind!r}"
        )
    return spec.with_remappings({f"~/{kind}_{ends[spec.name]}": topic})
