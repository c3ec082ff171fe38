"""Triangles of simple solids, for scenes that are drawn in tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safety_filter.perception.meshes import F64


def box(half: Sequence[float] | F64) -> F64:
    """Return the 12 triangles of a box with half extents `half`, m."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return np.asarray(corners[np.asarray(faces)], float)


def open_box(half: float, height: float, thick: float = 0.004) -> F64:
    """Return the triangles of a floor with four walls, standing on z = 0, as bins and trays are,
    m."""
    parts = [box((half, half, 0.003)) + [0, 0, 0.003]]
    for axis in (0, 1):
        size = [half, half, height / 2]
        size[axis] = thick
        for side in (-1, 1):
            at = np.zeros(3)
            at[axis], at[2] = side * (half - thick), height / 2
            parts.append(box(size) + at)
    return np.concatenate(parts)


def cylinder(radius: float, length: float, sides: int = 16) -> F64:
    """Return the triangles of a cylinder along z, centred at the origin, m."""
    phi = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([radius * np.cos(phi), radius * np.sin(phi)], 1)
    low = np.column_stack([ring, np.full(sides + 1, -length / 2)])
    high = low + [0, 0, length]
    a, b, c, d = low[:-1], low[1:], high[1:], high[:-1]
    bottom, top = np.zeros_like(a) - [0, 0, length / 2], np.zeros_like(a) + [0, 0, length / 2]
    triangles = [np.stack(t, 1) for t in ((a, b, c), (a, c, d), (bottom, b, a), (top, d, c))]
    return np.concatenate(triangles)
