"""Where the camera stands at image time: a parameter, a topic stamped like the images, or tf2."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import Image

from safety_filter import images
from safety_filter.nodes import conversion
from safety_filter.nodes.base import ConfigureError
from safety_filter.nodes.conversion import Array
from safety_filter.nodes.qos import NEWEST

KEPT = 8  # messages kept until their partners come


class ByStamp:
    """The last messages of a topic by stamp (ns), to find the partner of another's."""

    def __init__(self) -> None:
        self._items: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, msg: Any) -> None:
        with self._lock:
            self._items[Time.from_msg(msg.header.stamp).nanoseconds] = msg
            while len(self._items) > KEPT:
                self._items.popitem(last=False)

    def near(self, msg: Any, tolerance: float) -> Any | None:
        """The message nearest in time to `msg`, if within `tolerance` s."""
        wanted = Time.from_msg(msg.header.stamp).nanoseconds
        with self._lock:
            stamp = min(self._items, key=lambda s: abs(s - wanted), default=None)
            if stamp is None or abs(stamp - wanted) > tolerance * 1e9:
                return None
            return self._items[stamp]


class TopicExtrinsics:
    """PoseStamped on `camera_pose`, stamped like the images."""

    def __init__(self, node: Node, frame: str, tolerance: float) -> None:
        self._frame, self._tolerance = frame, tolerance
        self._poses = ByStamp()
        node.create_subscription(PoseStamped, "camera_pose", self._poses.add, NEWEST)

    def at(self, image: Image) -> Array:
        msg = self._poses.near(image, self._tolerance)
        if msg is None:
            raise conversion.MessageError("camera_pose: none at the time of the image")
        if msg.header.frame_id != self._frame:
            raise conversion.MessageError(
                f"camera_pose frame_id: expected {self._frame}, got {msg.header.frame_id!r}"
            )
        return images.pose_matrix(msg)


class TfExtrinsics:
    """tf2, where it is installed: looked up at the stamp of the image, never at the latest."""

    def __init__(self, node: Node, frame: str) -> None:
        try:
            import tf2_ros
        except ImportError as error:
            raise ConfigureError(
                "extrinsics: expected topic or parameter where tf2_ros is missing, got tf"
            ) from error
        self._tf2, self._frame = tf2_ros, frame
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def at(self, image: Image) -> Array:
        stamp = Time.from_msg(image.header.stamp)
        try:
            found = self._buffer.lookup_transform(self._frame, image.header.frame_id, stamp)
        except self._tf2.TransformException as error:
            raise conversion.MessageError(f"tf: {error}") from error
        t, r = found.transform.translation, found.transform.rotation
        return images.rigid((t.x, t.y, t.z, r.x, r.y, r.z, r.w))
