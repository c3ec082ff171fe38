"""Every topic and service of every node: the table behind docs/topics.md and the SROS2 policy.

A test compares it with what the nodes really open. Names are as the nodes know them, before
remapping.
"""

from __future__ import annotations

from typing import NamedTuple

PUB, SUB, SERVICE, CLIENT = "publishes", "reads", "service", "calls"
NEWEST, COMMAND, LATCHED, QUEUE = "newest", "command", "latched", "queue"
QOS = {
    NEWEST: "best effort, depth 1",
    COMMAND: "reliable, depth 1",
    LATCHED: "reliable, transient local, depth 1",
    QUEUE: "reliable, depth 10 or more",
}


class Port(NamedTuple):
    """One topic or service; `when` is the parameter setting it exists with, '' for always."""

    name: str
    direction: str
    type: str
    text: str
    qos: str = ""
    when: str = ""


_IMAGE, _INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
_POSE, _JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
_CLOUD, _TWIST = "sensor_msgs/msg/PointCloud2", "geometry_msgs/msg/TwistStamped"
_ARRAY, _PLAN = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"
_STRING, _TRIGGER = "std_msgs/msg/String", "std_srvs/srv/Trigger"
_CAMERA = {"image": _IMAGE, "camera_info": _INFO, "camera_pose": _POSE}
_FLOAT, _BEAT = "std_msgs/msg/Float64", "std_msgs/msg/UInt64"
_STATUS = "diagnostic_msgs/msg/DiagnosticStatus"
_TF = "tf2_msgs/msg/TFMessage"

_STATE = Port("~/state", PUB, _STATUS, "state in words, level and figures", LATCHED)
_JOINT_STATES = Port("joint_states", SUB, _JOINTS, "the arm, fingers included", NEWEST)
_DESCRIPTION = Port("robot_description", SUB, _STRING, "URDF", LATCHED, "description: true")


def _outputs(role: str, text: str, when: str) -> list[Port]:
    types = {"joint_velocity": _ARRAY, "joint_position": _ARRAY, "trajectory": _PLAN,
             "twist": _TWIST}  # fmt: skip
    return [
        Port(f"~/{kind}_{role}", PUB, message, text, COMMAND, f"{when}output: {kind}")
        for kind, message in types.items()
    ]


NODES: dict[str, tuple[Port, ...]] = {
    "sim_node": (
        *(
            Port(f"~/{camera}/{name}", PUB, message, f"{camera} camera", NEWEST)
            for camera in ("scene", "wrist")
            for name, message in _CAMERA.items()
        ),
        Port("~/scene/depth", PUB, _IMAGE, "registered depth, 32FC1 in m", NEWEST),
        Port("~/joint_states", PUB, _JOINTS, "the simulated arm", NEWEST),
        Port("~/truth", PUB, _STRING, "JSON: contacts, poses, success; for tests", COMMAND),
        Port("~/episode", PUB, _STRING, "JSON: answers to ~/command", LATCHED),
        Port("~/instruction", PUB, _STRING, "the scene's task in words", LATCHED),
        Port("~/command", SUB, _STRING, "JSON: load, start, pause", QUEUE),
        Port("~/twist_in", SUB, _TWIST, "moves the arm where `input` is twist", NEWEST),
        Port("~/joint_velocity_in", SUB, _ARRAY, "moves it otherwise; held for ever", NEWEST),
        Port("~/gripper_in", SUB, _FLOAT, "opening, m", NEWEST),
        _STATE,
    ),
    "vla_node": (
        Port("image", SUB, _IMAGE, "scene camera, rgb8 or bgr8, square", NEWEST),
        Port("wrist_image", SUB, _IMAGE, "wrist camera", NEWEST),
        _JOINT_STATES,
        Port("instruction", SUB, _STRING, "what to do; empty: stand still", LATCHED),
        _DESCRIPTION,
        Port("~/twist", PUB, _TWIST, "nominal twist of the tool", COMMAND),
        Port("~/gripper", PUB, _FLOAT, "opening, m", COMMAND),
        Port("~/attention", PUB, _IMAGE, "g x g, 32FC1, stamped with its image", NEWEST),
        Port("~/wrist_attention", PUB, _IMAGE, "the same of the wrist image, on the approach",
             NEWEST),
        _STATE,
        Port("~/reset", SERVICE, _TRIGGER, "forget the chunks"),
    ),
    "perception_node": (
        Port("image", SUB, _IMAGE, "colour, rgb8 or bgr8", NEWEST),
        Port("depth", SUB, _IMAGE, "registered depth: 32FC1 m or 16UC1 mm", NEWEST),
        Port("camera_info", SUB, _INFO, "of a rectified camera", NEWEST),
        Port("camera_pose", SUB, _POSE, "stamped like the images", NEWEST, "extrinsics: topic"),
        Port("/tf", SUB, _TF, "where the camera stands", QUEUE, "extrinsics: tf"),
        Port("/tf_static", SUB, _TF, "the same", LATCHED, "extrinsics: tf"),
        Port("attention", SUB, _IMAGE, "of the policy; without it there is no target", NEWEST),
        Port("wrist_attention", SUB, _IMAGE, "the same of the camera in the hand", NEWEST),
        Port("instruction", SUB, _STRING, "what to do; the target must fit its words, without them"
             " there is none (named_share 0: words do not matter)", LATCHED),
        _JOINT_STATES,
        _DESCRIPTION,
        Port("~/obstacles", PUB, _CLOUD, "tracks, layout v1", COMMAND),
        Port("~/overlay", PUB, _IMAGE, "masks, attention, tracks; drawn when watched", NEWEST),
        _STATE,
        Port("~/reset", SERVICE, _TRIGGER, "forget the tracks"),
    ),
    "filter_node": (
        Port("~/twist_in", SUB, _TWIST, "nominal twist of the tool", NEWEST, "command: twist"),
        Port("~/joint_command_in", SUB, _ARRAY, "nominal joint command", NEWEST,
             "command: joint_velocity or joint_position"),
        Port("~/trajectory_in", SUB, _PLAN, "nominal trajectory", NEWEST, "command: trajectory"),
        Port("~/obstacles", SUB, _CLOUD, "tracks, layout v1", NEWEST),
        _JOINT_STATES,
        Port("~/tool_pose", SUB, _POSE, "of the tool, in place of joint states", NEWEST,
             "robot: panda_hand"),
        Port("~/monitor_heartbeat", SUB, _BEAT, "the monitor lives", NEWEST),
        _DESCRIPTION,
        Port("~/joint_velocity_out", PUB, _ARRAY, "filtered joint velocities", COMMAND),
        Port("~/twist_out", PUB, _TWIST, "the same as a twist of the tool", COMMAND),
        *_outputs("fallback", "to the arm when the monitor is silent", "monitored: true, "),
        # Velocities and the twist are there in any case
        *_outputs("out", "to the arm where there is no monitor", "monitored: false, ")[1:3],
        _STATE,
        Port("/diagnostics", PUB, "diagnostic_msgs/msg/DiagnosticArray", "the state", QUEUE),
        Port("~/markers", PUB, "visualization_msgs/msg/MarkerArray", "for RViz", NEWEST),
        Port("~/ticks", PUB, _CLOUD, "every step, for recording", QUEUE),
        Port("~/tick_obstacles", PUB, _CLOUD, "the obstacles that those steps used", QUEUE),
        Port("~/config", PUB, _STRING, "JSON: robot, parameters, topics", LATCHED),
        Port("~/stop", SERVICE, _TRIGGER, "latch a software stop"),
        Port("~/monitor_stop", SERVICE, _TRIGGER, "the same for the monitor, so that the state"
             " names who asked"),
        Port("~/reset", SERVICE, _TRIGGER, "release it once inputs are fresh and the command is"
             " near zero"),
    ),
    "monitor_node": (
        Port("~/joint_velocity_in", SUB, _ARRAY, "the filter's output", NEWEST),
        Port("~/obstacles", SUB, _CLOUD, "tracks, layout v1", NEWEST),
        _JOINT_STATES,
        _DESCRIPTION,
        *_outputs("out", "to the arm", ""),
        Port("~/heartbeat", PUB, _BEAT, "sign of life", NEWEST),
        _STATE,
        Port("~/reset", SERVICE, _TRIGGER, "release a latched stop once inputs are there and the"
             " filter commands near zero"),
        Port("~/filter_stop", CLIENT, _TRIGGER, "asks the filter to stop too"),
    ),
}  # fmt: skip
STATES = (
    ("any", "starting, waiting for ..., unconfigured, not configured: ..., inactive, shut down,"
     " died",
     "the life of the node; inactive: zeros go out, nothing is commanded"),
    ("filter_node", "PASS", "the command as it came"),
    ("filter_node", "FILTERED", "changed by a row or a limit: active_rows, nearest_*"),
    ("filter_node", "STOPPED operator: ...", "latched stop and who asked for it, or a reset"
     " that waits, and for what"),
    ("filter_node", "STOPPED joint_state: ...", "absent, too old, unusable"),
    ("filter_node", "STOPPED perception: ...", "obstacles absent, too old, unreadable, of two"
     " nodes"),
    ("filter_node", "STOPPED command: ...", "absent, too old, not finite, unknown frame"),
    ("filter_node", "STOPPED bounds: ...", "an obstacle breaks a declared bound (bound_broken:"
     " brake)"),
    ("filter_node", "STOPPED monitor: ...", "the monitor is silent: zeros go to the arm directly"),
    ("filter_node", "STOPPED deadline, solver, verification, level1_slack or level2_slack: ...",
     "no answer that can be vouched for"),
    ("monitor_node", "PASSING", "the filter's commands go to the arm"),
    ("monitor_node", "ZERO ...", "zeros until the fault ends"),
    ("monitor_node", "STOPPED ...", "zeros until `~/reset`"),
    ("perception_node", "tracking", "obstacles are published"),
    ("perception_node", "no target: ...", "everything is an obstacle, and why"),
    ("vla_node", "commanding", "twists are published"),
    ("vla_node", "no instruction", "nothing to do: zero twists are published"),
    ("vla_node", "not commanding: ..., or a fault", "silent on `~/twist`, and why"),
)  # fmt: skip


def page() -> str:
    """docs/topics.md."""
    lines = [
        "# Topics, services, states",
        "",
        "Written by `safety-filter interfaces > docs/topics.md`; do not edit by hand. Names are",
        "those of the nodes, all remappable; [graph.py](../safety_filter/graph.py) wires them.",
        "Each node also has the lifecycle and parameter services of ROS 2.",
        "",
        *(f"- {name}: {text}" for name, text in QOS.items()),
        "",
    ]
    for node, ports in NODES.items():
        lines += [f"## {node}", "", "| name | | type | QoS | meaning |", "|---|---|---|---|---|"]
        for p in ports:
            text = f"{p.text} ({p.when})" if p.when else p.text
            lines.append(f"| `{p.name}` | {p.direction} | {p.type} | {p.qos} | {text} |")
        lines.append("")
    lines += ["## States on `~/state`", "", "| node | message | meaning |", "|---|---|---|"]
    lines += [f"| {node} | {message} | {text} |" for node, message, text in STATES]
    return "\n".join(lines) + "\n"
