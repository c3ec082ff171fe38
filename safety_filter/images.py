"""Pictures, intrinsics and poses out of messages, whoever decoded them: rclpy or `rosbags`.

The live nodes and replays read the same bytes the same way. No ROS, no OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOUR_ENCODINGS = ("rgb8", "bgr8")
DEPTH_ENCODINGS = ("32FC1", "16UC1")
BYTES_PER_PIXEL = {"rgb8": 3, "bgr8": 3, "32FC1": 4, "16UC1": 2, "mono8": 1}


class MessageError(ValueError):
    """A message that cannot be used: the field, what was expected, what came."""


def _pixels(msg: Any, encodings: Sequence[str]) -> NDArray[np.uint8]:
    """Rows of bytes without padding, shape (height, width * bytes per pixel).

    Raises:
        MessageError: encoding, size, step or data length is not what it has to be.
    """
    if msg.encoding not in encodings:
        wanted = " or ".join(encodings)
        raise MessageError(f"image encoding: expected {wanted}, got {msg.encoding!r}")
    if msg.height == 0 or msg.width == 0:
        raise MessageError(f"image size: expected at least 1x1, got {msg.width}x{msg.height}")
    if msg.is_bigendian and msg.encoding in DEPTH_ENCODINGS:
        raise MessageError("image is_bigendian: expected 0, got 1")
    row = msg.width * BYTES_PER_PIXEL[msg.encoding]
    if msg.step < row:
        raise MessageError(f"image step: expected at least {row} bytes, got {msg.step}")
    if len(msg.data) != msg.step * msg.height:
        expected = msg.step * msg.height
        raise MessageError(f"image data: expected {expected} bytes, got {len(msg.data)}")
    return np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)[:, :row]


def rgb(msg: Any) -> NDArray[np.uint8]:
    """Colour image as (H, W, 3) uint8 in RGB order, a copy.

    Raises:
        MessageError: not rgb8 or bgr8, or sizes that do not fit.
    """
    pixels = _pixels(msg, COLOUR_ENCODINGS).reshape(msg.height, msg.width, 3)
    return np.array(pixels if msg.encoding == "rgb8" else pixels[:, :, ::-1], order="C")


def depth(msg: Any) -> NDArray[np.float32]:
    """Depth image as (H, W) float32 in metres, 0 where nothing was measured.

    Raises:
        MessageError: not 32FC1 (m) or 16UC1 (mm), or sizes that do not fit.
    """
    pixels = np.ascontiguousarray(_pixels(msg, DEPTH_ENCODINGS))
    if msg.encoding == "16UC1":
        return pixels.view("<u2").astype(np.float32) * np.float32(1e-3)
    metres = pixels.view("<f4").copy()
    metres[~np.isfinite(metres) | (metres < 0.0)] = 0.0
    return metres


def registered(rgb: NDArray[np.uint8], metres: NDArray[np.float32]) -> None:
    """See that a depth image can belong to a colour image, pixel by pixel.

    Raises:
        MessageError: they differ in size.
    """
    if metres.shape != rgb.shape[:2]:
        wanted, came = (f"{a.shape[1]}x{a.shape[0]}" for a in (rgb, metres))
        raise MessageError(
            f"depth size: expected {wanted} as the colour image, got {came}; take the depth that"
            " is registered (aligned) to colour"
        )


def measured(metres: NDArray[np.float32], near: float, far: float, share: float) -> None:
    """See that a depth image shows anything: from one that does not, nothing can be concluded.

    near, far: m, what counts as measured. share: of all pixels that must be.

    Raises:
        MessageError: too few are.
    """
    found = float(np.mean((metres >= near) & (metres <= far)))
    if found < share:
        raise MessageError(
            f"depth data: expected at least {share:.0%} of pixels between {near:g} and {far:g} m,"
            f" got {found:.1%}; see that the lens is free and the emitter on"
        )


def float_map(msg: Any) -> NDArray[np.float32]:
    """32FC1 image as it is, (H, W) float32.

    Raises:
        MessageError: another encoding, sizes that do not fit, or values that are not finite.
    """
    values = np.ascontiguousarray(_pixels(msg, ("32FC1",))).view("<f4").copy()
    if not np.isfinite(values).all():
        raise MessageError("image data: expected finite values, got NaN or infinity")
    return values


def camera_matrix(msg: Any) -> NDArray[np.float64]:
    """Intrinsic matrix (3, 3) in pixels, whatever the lens does beside it.

    Raises:
        MessageError: uncalibrated or not finite.
    """
    k = np.asarray(msg.k, float).reshape(3, 3)
    if not np.isfinite(k).all() or k[0, 0] <= 0.0 or k[1, 1] <= 0.0:
        raise MessageError(f"camera_info k: expected fx, fy > 0, got {k[0, 0]}, {k[1, 1]}")
    return k


def intrinsics(msg: Any) -> NDArray[np.float64]:
    """Intrinsic matrix (3, 3) in pixels of a rectified camera.

    Raises:
        MessageError: uncalibrated, not finite, or a lens distortion that is not zero.
    """
    k = camera_matrix(msg)
    if any(abs(v) > 1e-9 for v in msg.d):
        raise MessageError("camera_info d: expected a rectified camera (zeros), got distortion")
    return k


def pose_matrix(msg: Any) -> NDArray[np.float64]:
    """Homogeneous transform (4, 4) of a PoseStamped.

    Raises:
        MessageError: not finite, or an orientation that is not a unit quaternion.
    """
    p, q = msg.pose.position, msg.pose.orientation
    return rigid((p.x, p.y, p.z, q.x, q.y, q.z, q.w))


def rigid(values: Sequence[float]) -> NDArray[np.float64]:
    """Homogeneous transform (4, 4) of x, y, z (m) and a quaternion x, y, z, w.

    Raises:
        MessageError: not finite, or not a unit quaternion.
    """
    x, y, z, w = values[3:]
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not all(map(math.isfinite, values)) or abs(norm - 1.0) > 1e-3:
        got = tuple(values)
        raise MessageError(f"camera pose: expected finite with a unit quaternion, got {got}")
    transform = np.eye(4)
    transform[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    transform[:3, 3] = values[:3]
    return transform
