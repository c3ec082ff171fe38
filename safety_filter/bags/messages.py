"""Serialised ROS 2 messages to the filter's inputs, with `rosbags` and without ROS.

Only the message types that ship with ROS 2 Jazzy are known. The definitions inside a bag are
never compiled: a bag from a stranger is data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from safety_filter.bags import ticks
from safety_filter.core import wire
from safety_filter.core.inputs import JointSample, ObstacleSample
from safety_filter.images import MessageError
from safety_filter.robot_source import Gripper

JOINT_STATE = "sensor_msgs/msg/JointState"
CLOUD = "sensor_msgs/msg/PointCloud2"
TWIST = "geometry_msgs/msg/TwistStamped"
ARRAY = "std_msgs/msg/Float64MultiArray"
STRING = "std_msgs/msg/String"
IMAGE = "sensor_msgs/msg/Image"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE = "geometry_msgs/msg/PoseStamped"
TF = "tf2_msgs/msg/TFMessage"
STATUS = "diagnostic_msgs/msg/DiagnosticStatus"


@cache
def typestore() -> Any:
    """The message types of ROS 2 Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def known(name: str) -> bool:
    """Whether messages of a type can be read and written."""
    return name in typestore().fielddefs


def decode(data: bytes, name: str) -> Any:
    """The message in `data`.

    Raises:
        MessageError: not a whole message of that type.
    """
    try:
        return typestore().deserialize_cdr(data, name)
    except Exception as error:  # generated readers raise whatever comes of foreign bytes
        raise MessageError(f"{name}: {len(data)} bytes cannot be read: {error}") from error


def decoded(
    rows: Iterable[tuple[int, bytes]],
    kind: str,
    role: str,
    notes: list[str],
    read: Callable[[Any], Any] = lambda message: message,
) -> list[tuple[float, Any]]:
    """(time of receipt in s, what `read` makes of the message) of rows (time in ns, bytes).

    What cannot be read is left out; the first fault and the count go to `notes`.
    """
    found, bad = [], 0
    for time, data in rows:
        try:
            found.append((1e-9 * time, read(decode(data, kind))))
        except MessageError as error:
            bad += 1
            if bad == 1:
                notes.append(f"{role}: unreadable message left out: {error}")
    if bad > 1:
        notes.append(f"{role}: {bad} messages left out in all")
    return found


def encode(message: Any, name: str) -> bytes:
    """The bytes of a message made from `typestore().types`."""
    return bytes(typestore().serialize_cdr(message, name))


def seconds(stamp: Any) -> float:
    """A stamp in s, by the same arithmetic as the nodes."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def joint_sample(
    message: Any, receipt: float, arm: Sequence[str], gripper: Gripper
) -> JointSample:
    """The arm's joint state; of size 0 when unusable, for which the decision table has a row."""
    stamp = seconds(message.header.stamp)
    index = {name: i for i, name in enumerate(message.name)}
    size = len(message.name)
    velocity = message.velocity if len(message.velocity) else np.zeros(size)
    wanted = [*arm, *gripper.joints]
    if len(message.position) != size or len(velocity) != size or not index.keys() >= set(wanted):
        return JointSample(stamp, receipt, np.zeros(0), np.zeros(0))
    order = [index[name] for name in wanted]
    n = len(arm)
    q, dq = np.asarray(message.position, float)[order], np.asarray(velocity, float)[order]
    opening = gripper.opening(q[n:]) if gripper.joints else None
    return JointSample(stamp, receipt, q[:n], dq[:n], opening)


def obstacles(message: Any, receipt: float) -> ObstacleSample:
    """The obstacles of a cloud; another layout becomes the sample's fault, as in the node."""
    fault = None
    try:
        tracks = wire.decode(
            [(f.name, f.offset, f.datatype, f.count) for f in message.fields],
            message.point_step,
            message.width,
            message.height,
            message.is_bigendian,
            memoryview(message.data),
        )
    except wire.WireError as error:
        tracks, fault = wire.empty_tracks(), f"obstacles {error}"
    stamp = seconds(message.header.stamp)
    return ObstacleSample(stamp, receipt, message.header.frame_id, tracks, fault)


def twist(message: Any) -> np.ndarray:
    """[vx vy vz wx wy wz] of a TwistStamped."""
    v, w = message.twist.linear, message.twist.angular
    return np.array([v.x, v.y, v.z, w.x, w.y, w.z])


def tick_table(message: Any) -> ticks.Table:
    """The ticks in a cloud.

    Raises:
        MessageError: another layout.
    """
    columns = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    try:
        return ticks.decode(columns, message.point_step, message.width, message.data)
    except ticks.TickError as error:
        raise MessageError(str(error)) from error
