"""What of a plate, tray or bin shows beside its own mask, and what rests in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.blobs import Blob
from safety_filter.perception.track import Track

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_RIM = 0.012  # m that the pixels of a support may lie outside its box
_MIDDLE = 0.3  # share of a blob clear of walls and floor with which it is something in between


def in_box(blob: Blob, support: Track) -> bool:
    """Whether a blob lies in the box of a support, up to its walls' height."""
    level, height = _offsets(blob.points, support)
    inside = (level < support.box[:2] + _RIM).all(axis=1) & (height < support.box[2] + _RIM)
    return bool(inside.mean() > 0.95)


def between_walls(blob: Blob, support: Track, wall: float) -> bool:
    """Whether a blob stands clear of the floor and of the walls, `wall` m thick, of a support."""
    return bool(_clear(*_offsets(blob.points, support), support, wall).mean() > _MIDDLE)


def foreign(points: F32, support: Track, wall: float | None) -> Mask:
    """Which of points (n, 3) are none of a support, whatever its mask says.

    They are over it and higher than its top, or stand clear of its floor and of its walls, which
    are `wall` m thick; None: it has none.
    """
    level, height = _offsets(points, support)
    higher = (level < support.box[:2] + _RIM).all(axis=1) & (height > support.box[2] + _RIM)
    if wall is not None:
        higher |= _clear(level, height, support, wall)
    return np.asarray(higher)


def _clear(level: F64, height: F64, support: Track, wall: float) -> Mask:
    """Which points, by their `_offsets`, are clear of the floor and of the walls of a support."""
    within = (level < support.box[:2] - wall - _RIM).all(axis=1)
    return np.asarray(within & (height > _RIM - support.box[2]))


def _offsets(points: F32, support: Track) -> tuple[F64, F64]:
    """Distances (n, 2) of points (n, 3) from the middle planes of a support, heights (n,) over
    its centre."""
    c, s = np.cos(support.yaw), np.sin(support.yaw)
    offset = points - support.position
    return np.abs(offset[:, :2] @ np.array([[c, -s], [s, c]])), offset[:, 2]
