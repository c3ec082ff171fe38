"""Messages to arrays and back. No cv_bridge; message data is bytes, never a numpy array.

Pictures, intrinsics and poses are read by `safety_filter.images`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField

from safety_filter.core import wire
from safety_filter.images import BYTES_PER_PIXEL, MessageError

Array = NDArray[np.float64]
_POINT_FIELDS = [
    PointField(name=name, offset=offset, datatype=datatype, count=count)
    for name, offset, datatype, count in wire.FIELDS
]


def seconds(stamp: Time) -> float:
    """Seconds of a stamp (float64 keeps about 0.2 us at today's epoch)."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def stamp(time: float) -> Time:
    """Stamp of `time` in seconds."""
    whole = math.floor(time)
    nanosec = round((time - whole) * 1e9)
    return Time(sec=int(whole), nanosec=nanosec) if nanosec < 10**9 else Time(sec=int(whole) + 1)


def image(pixels: NDArray[Any], encoding: str, time: float, frame_id: str) -> Image:
    """Image message of `pixels`: (H, W, 3) uint8 for rgb8, (H, W) float32 for 32FC1."""
    pixels = np.ascontiguousarray(pixels)
    msg = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    msg.header.stamp = stamp(time)
    msg.header.frame_id = frame_id
    msg.step = pixels.shape[1] * BYTES_PER_PIXEL[encoding]
    msg.data = array("B", pixels.tobytes())
    return msg


def camera_info(
    matrix: NDArray[Any], width: int, height: int, time: float, frame_id: str
) -> CameraInfo:
    """CameraInfo of an undistorted pinhole camera with intrinsics `matrix` (3, 3) in pixels."""
    k = [float(v) for v in np.asarray(matrix, float).ravel()]
    msg = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5, k=k)
    msg.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    msg.p = [*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]
    msg.header.stamp = stamp(time)
    msg.header.frame_id = frame_id
    return msg


def cloud(tracks: wire.Tracks, time: float, frame_id: str) -> PointCloud2:
    """Obstacle cloud (layout v1) of `tracks`, positions and velocities in `frame_id`."""
    msg = PointCloud2(height=1, width=len(tracks), fields=_POINT_FIELDS, is_bigendian=False)
    msg.header.stamp = stamp(time)
    msg.header.frame_id = frame_id
    msg.point_step = wire.POINT_STEP
    msg.row_step = wire.POINT_STEP * len(tracks)
    msg.data = array("B", wire.encode(tracks))
    msg.is_dense = True
    return msg


def tracks(msg: PointCloud2) -> wire.Tracks:
    """Tracks of an obstacle cloud.

    Raises:
        MessageError: anything but layout v1.
    """
    fields = [(f.name, f.offset, f.datatype, f.count) for f in msg.fields]
    try:
        return wire.decode(
            fields, msg.point_step, msg.width, msg.height, msg.is_bigendian, memoryview(msg.data)
        )
    except wire.WireError as error:
        raise MessageError(f"obstacles {error}") from error


class JointReader:
    """Reads the joints `names` out of joint states; remembers where they stand in the message."""

    def __init__(self, names: Sequence[str]) -> None:
        self._wanted = tuple(names)
        self._names: list[str] = []
        self._order: list[int] = []

    def read(self, msg: JointState) -> tuple[Array, Array]:
        """Positions and velocities (n,) in the order of the names.

        A message without velocities gives none, shape (0,).

        Raises:
            MessageError: a joint is missing, or arrays whose lengths differ from the names'.
        """
        if msg.name != self._names:
            self._learn(list(msg.name))
        size = len(self._names)
        for field, values in (("position", msg.position), ("velocity", msg.velocity)):
            if len(values) != size and (values or field == "position"):
                raise MessageError(
                    f"joint_states {field}: expected {size} values, got {len(values)}"
                )
        position = np.array(msg.position)[self._order]
        if not msg.velocity:
            return position, np.zeros(0)
        return position, np.array(msg.velocity)[self._order]

    def _learn(self, names: list[str]) -> None:
        index = {name: i for i, name in enumerate(names)}
        missing = [name for name in self._wanted if name not in index]
        if missing:
            raise MessageError(f"joint_states name: expected {missing[0]}, got {names}")
        self._order = [index[name] for name in self._wanted]
        self._names = names


def twist_vector(msg: TwistStamped) -> Array:
    """[vx vy vz wx wy wz] of a twist message."""
    v, w = msg.twist.linear, msg.twist.angular
    return np.array([v.x, v.y, v.z, w.x, w.y, w.z])


def fill_twist(msg: TwistStamped, vector: Sequence[float], time: float) -> TwistStamped:
    """Write `vector` (6) and the stamp into `msg`, which is returned."""
    v, w = msg.twist.linear, msg.twist.angular
    v.x, v.y, v.z, w.x, w.y, w.z = (float(x) for x in vector)
    msg.header.stamp = stamp(time)
    return msg


def pose(transform: NDArray[Any], time: float, frame_id: str) -> PoseStamped:
    """PoseStamped of a homogeneous transform (4, 4)."""
    m = np.asarray(transform, float)
    msg = PoseStamped()
    msg.header.stamp = stamp(time)
    msg.header.frame_id = frame_id
    p = msg.pose.position
    p.x, p.y, p.z = (float(v) for v in m[:3, 3])
    # The eigenvector of the largest eigenvalue (Bar-Itzhack 2000), without branches on the trace
    r = m[:3, :3]
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    vector = np.linalg.eigh(k, UPLO="L")[1][:, -1]
    o = msg.pose.orientation
    o.x, o.y, o.z, o.w = (float(v) for v in (vector if vector[3] >= 0 else -vector))
    return msg


def status(
    level: bytes, name: str, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """DiagnosticStatus; floats are written with 6 significant digits."""
    pairs = [
        KeyValue(key=key, value=f"{value:.6g}" if isinstance(value, float) else str(value))
        for key, value in values.items()
    ]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id="safety_filter", values=pairs
    )


def values(msg: DiagnosticStatus) -> dict[str, str]:
    """Key -> value of a status."""
    return {pair.key: pair.value for pair in msg.values}
