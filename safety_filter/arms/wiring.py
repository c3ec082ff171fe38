"""The graph on a real arm: everything but the driver, wired to the driver's topics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safety_filter import graph
from safety_filter.arms import profile
from safety_filter.core.filter_params import FilterParams
from safety_filter.graph import COMMON, TOPICS, Argument, NodeSpec

_ARM = (
    Argument("robot", "panda", "arm: panda, fr3, ur5e, xarm7, iiwa, or path of an arm file"),
    Argument(
        "robot_file", "", "robot file (YAML) of safety-filter fit-robot, for an arm whose URDF"
        " is not shipped or that carries a tool of yours; empty: the shipped one",
    ),
    Argument("urdf", "", "path of the URDF; empty: the shipped one, or robot_description"),
    Argument("output", "", "what goes to the arm: joint_velocity, joint_position, trajectory or"
             " twist; empty: the first of the arm's file"),
    Argument("output_topic", "", "the controller's topic; empty: that of the arm's file"),
    Argument("vla", "true", "start vla_node; false: bring your own policy"),
    Argument("perception", "true", "start perception_node; false: bring your own obstacles"),
    Argument("extrinsics", "tf", "where the camera's pose comes from: parameter, topic or tf",
             ("perception_node",), "extrinsics"),
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
        a.name: graph.replace(a, default=_CAMERA_TOPICS.get(a.name, a.default))
        for a in TOPICS
        if a.name not in own
    }
    joints = topics["joint_states"]
    text = f"{joints.text}; empty: that of the arm's file"
    topics["joint_states"] = graph.replace(joints, default="", text=text)
    return (*_ARM, *topics.values(), *COMMON)


def build(values: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes for the launch arguments `values`.

    Raises:
        ValueError: an argument or the arm's file is wrong, or a robot file is needed.
    """
    given = {a.name: a.default for a in arguments()} | dict(values)
    arm = profile.load(given["robot"])
    if not given["robot_file"] and not arm.robot:
        raise ValueError(profile.not_shipped(arm.name) or f"{arm.name}: robot_file is needed")
    kind = given["output"] or next(iter(arm.outputs))
    topic = given["output_topic"] or arm.outputs.get(kind, "")
    if kind not in profile.KINDS or not topic:
        known = ", ".join(f"{k} on {t}" for k, t in arm.outputs.items())
        raise ValueError(
            f"output: expected {known}, or another of {', '.join(profile.KINDS)} with"
            f" output_topic; got {kind!r}"
        )
    shared: dict[str, Any] = {
        "robot": given["robot_file"] or arm.robot,
        "urdf": given["urdf"],
        "description": bool(given["robot_file"]) and not given["urdf"],
        "frame": arm.frame,
    }
    names = {"joint_states": arm.joint_states, "robot_description": arm.robot_description}
    special: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "vla_node": ({}, {}),
        "perception_node": ({}, {}),
        "filter_node": ({"output": kind}, {f"~/{kind}_fallback": topic}),
        "monitor_node": ({"output": kind}, {f"~/{kind}_out": topic}),
    }
    defaults = {
        "filter_node": dict(arm.filter),
        "monitor_node": {
            "stop_acceleration": arm.stop_acceleration,
            **{k: v for k, v in arm.filter.items() if k == "base_frames"},
        },
        # one bound, declared to both: perception looks as far as the filter allows for
        "perception_node": {"hidden_acceleration": FilterParams().obstacle_acceleration},
    }
    left_out = {f"{n}_node" for n in ("vla", "perception") if not graph.truth(n, given[n])}
    specs = []
    for name, (parameters, remappings) in special.items():
        if name in left_out:
            continue
        spec = graph.NODES[name].with_remappings({**names, **remappings})
        # These files declare the simulated cell, its bounds and its camera in the hand: not yours
        of_cell = name in ("filter_node", "perception_node")
        spec = graph.replace(
            spec.with_parameters(**shared, **parameters),
            config=None if of_cell else spec.config,
            # A file of the user's knows their arm better
            defaults=defaults.get(name, {}),
        )
        specs.append(spec)
    return graph.configured(specs, arguments(), values)
