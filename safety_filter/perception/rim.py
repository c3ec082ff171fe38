"""What of a plate, tray or bin shows beside its own mask, and what rests in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.blobs import Blob
from safety_filter.perception.track import Track

F64 = NDArray[np.float64]
_RIM = 0.012  # m that the pixels of a support may lie outside its box
_MIDDLE = 0.3  # share of a blob clear of walls and floor with which it is something in between


def in_box(blob: Blob, support: Track) -> bool:
    """Whether a blob lies in the box of a support, up to its walls' height."""
    level, height = _offsets(blob, support)
    inside = (level < support.box[:2] + _RIM).all(axis=1) & (height < support.box[2] + _RIM)
    return bool(inside.mean() > 0.95)


def between_walls(blob: Blob, support: Track, wall: float) -> bool:
    """Whether a blob stands clear of the floor and of the walls, `wall` m thick, of a support."""
    level, height = _offsets(blob, support)
    clear = (level < support.box[:2] - wall - _RIM).all(axis=1) & (height > _RIM - support.box[2])
    return bool(clear.mean() > _MIDDLE)


def _offsets(blob: Blob, support: Track) -> tuple[F64, F64]:
    """Distances (n, 2) of points from the middle planes of a support, heights (n,) over its
    centre."""
    c, s = np.cos(support.yaw), np.sin(support.yaw)
    offset = blob.points - support.position
    return np.abs(offset[:, :2] @ np.array([[c, -s], [s, c]])), offset[:, 2]
