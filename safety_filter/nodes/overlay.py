"""What perception sees, drawn into the picture: masks by role, attention, tracks, velocities."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.core.wire import Role

# RGB by role
COLOURS: dict[Role, tuple[int, int, int]] = {
    Role.OBSTACLE: (235, 70, 50),
    Role.TARGET: (60, 210, 90),
    Role.HELD: (70, 150, 250),
    Role.SUPPORT: (190, 170, 60),
}
LEAD = 0.5  # s: an arrow ends where the track will be then
_WALL_BITS = 24  # ids of wall pieces carry the piece above these bits


def project(points: NDArray[Any], k: NDArray[Any], pose: NDArray[Any]) -> NDArray[np.float64]:
    """Pixels (n, 2) of points (n, 3) in base; NaN behind the camera."""
    p = (np.asarray(points, float) - pose[:3, 3]) @ pose[:3, :3]
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = p[:, :2] / p[:, 2:] * [k[0, 0], k[1, 1]] + k[:2, 2]
    uv[p[:, 2] <= 0.0] = np.nan
    return uv


def pixel(uv: NDArray[Any]) -> tuple[int, int] | None:
    """Whole pixel for drawing; None far outside of any picture."""
    if not np.isfinite(uv).all() or np.abs(uv).max() > 1e4:
        return None
    return round(float(uv[0])), round(float(uv[1]))


def draw(
    rgb: NDArray[np.uint8],
    owner: NDArray[np.int32],
    tracks: NDArray[Any],
    k: NDArray[Any],
    pose: NDArray[Any],
    attention: NDArray[np.float32] | None,
) -> NDArray[np.uint8]:
    """A copy of `rgb` (H, W, 3) with everything drawn in.

    owner: (H, W) track id of each pixel, 0 for none; tracks: OBSTACLE_DTYPE in base; k, pose:
    intrinsics and pose (4, 4) of the camera; attention: (g, g) map over the whole picture.
    """
    picture = rgb.astype(np.float32)
    role_of = {int(t["id"]) & ((1 << _WALL_BITS) - 1): Role(int(t["role"])) for t in tracks}
    for track_id, role in role_of.items():
        mask = owner == track_id
        picture[mask] = 0.55 * picture[mask] + 0.45 * np.array(COLOURS[role], np.float32)
    out = np.ascontiguousarray(picture.astype(np.uint8))
    if attention is not None and attention.max() > 0.0:
        _draw_attention(out, attention)
    if len(tracks):
        centres = np.stack([tracks[c] for c in "xyz"], axis=1).astype(float)
        velocity = np.stack([tracks[c] for c in ("vx", "vy", "vz")], axis=1).astype(float)
        starts, ends = project(centres, k, pose), project(centres + LEAD * velocity, k, pose)
        for track, start, end, v in zip(tracks, starts, ends, velocity, strict=True):
            colour = COLOURS[Role(int(track["role"]))]
            a, b = pixel(start), pixel(end)
            if a is None or int(track["role"]) == Role.SUPPORT:
                continue
            cv2.circle(out, a, 2, colour, -1, cv2.LINE_AA)
            if b is not None and float(np.linalg.norm(v)) > 0.03:
                cv2.arrowedLine(out, a, b, colour, 1, cv2.LINE_AA, tipLength=0.3)
    return out


def _draw_attention(out: NDArray[np.uint8], attention: NDArray[np.float32]) -> None:
    """A dot in each patch, its area the attention on that patch."""
    g, h = attention.shape
    height, width = out.shape[:2]
    share = np.sqrt(attention / attention.max())
    reach = 0.55 * min(height / g, width / h)
    for row, column in np.argwhere(share > 0.2):
        centre = (int((column + 0.5) * width / h), int((row + 0.5) * height / g))
        radius = max(1, round(float(reach * share[row, column])))
        cv2.circle(out, centre, radius, (255, 255, 255), 1, cv2.LINE_AA)
