"""Pictures, intrinsics and poses out of messages that `rosbags` decoded. No ROS, no OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.bags.messages import UnreadableError

COLOUR = ("rgb8", "bgr8")
DEPTH = ("32FC1", "16UC1")
_BYTES = {"rgb8": 3, "bgr8": 3, "32FC1": 4, "16UC1": 2}


def _rows(message: Any, encodings: tuple[str, ...]) -> NDArray[np.uint8]:
    """Bytes (height, width * bytes per pixel) without padding.

    Raises:
        UnreadableError: another encoding, or sizes that do not fit.
    """
    if message.encoding not in encodings:
        wanted = " or ".join(encodings)
        raise UnreadableError(f"image encoding: expected {wanted}, got {message.encoding!r}")
    width, step = message.width * _BYTES[message.encoding], message.step
    fits = step >= width > 0 and len(message.data) == step * message.height > 0
    if not fits or (message.is_bigendian and message.encoding in DEPTH):
        raise UnreadableError(
            f"image: expected {message.height} rows of at least {width} bytes, little-endian,"
            f" got {len(message.data)} bytes in steps of {step}"
        )
    return np.asarray(message.data).reshape(message.height, step)[:, :width]


def rgb(message: Any) -> NDArray[np.uint8]:
    """(H, W, 3) in RGB order. Raises UnreadableError."""
    pixels = _rows(message, COLOUR).reshape(message.height, message.width, 3)
    return np.array(pixels if message.encoding == "rgb8" else pixels[:, :, ::-1], order="C")


def depth(message: Any) -> NDArray[np.float32]:
    """(H, W) in m, 0 where nothing was measured. Raises UnreadableError."""
    pixels = np.ascontiguousarray(_rows(message, DEPTH))
    if message.encoding == "16UC1":
        return pixels.view("<u2").astype(np.float32) * np.float32(1e-3)
    metres = pixels.view("<f4").copy()
    metres[~np.isfinite(metres) | (metres < 0.0)] = 0.0
    return metres


def float_map(message: Any) -> NDArray[np.float32]:
    """(H, W) as it is. Raises UnreadableError, also for values that are not finite."""
    values = np.ascontiguousarray(_rows(message, ("32FC1",))).view("<f4").copy()
    if not np.isfinite(values).all():
        raise UnreadableError("image data: expected finite values, got NaN or infinity")
    return values


def intrinsics(message: Any) -> NDArray[np.float64]:
    """(3, 3) in pixels. Raises UnreadableError for an uncalibrated camera."""
    k = np.asarray(message.k, float).reshape(3, 3)
    if not np.isfinite(k).all() or k[0, 0] <= 0.0 or k[1, 1] <= 0.0:
        raise UnreadableError(f"camera_info k: expected fx, fy > 0, got {k[0, 0]}, {k[1, 1]}")
    return k


def pose_matrix(message: Any) -> NDArray[np.float64]:
    """Transform (4, 4) of a PoseStamped. Raises UnreadableError for what is no rotation."""
    p, o = message.pose.position, message.pose.orientation
    x, y, z, w = o.x, o.y, o.z, o.w
    if not abs(x * x + y * y + z * z + w * w - 1.0) < 2e-3:
        raise UnreadableError(f"pose: expected a unit quaternion, got {(x, y, z, w)}")
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, 3] = p.x, p.y, p.z
    return out
