"""Depth intervals of triangle meshes seen by a pinhole camera, compiled with numba."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@njit(cache=True, fastmath=False)  # type: ignore[untyped-decorator]
def raster_interval(triangles: F64, fx: float, fy: float, cx: float, cy: float,
                    near: F32, far: F32) -> None:
    """Write the nearest and farthest depth, m, of `triangles` (n, 3, 3) into two images.

    Triangles are in the optical frame. `near` (H, W) must hold inf and `far` zeros where nothing
    is drawn. A triangle with a corner behind 1 cm is skipped. Depth is interpolated through
    1 / z, which is linear in the image.
    """
    height, width = near.shape
    for t in range(triangles.shape[0]):
        z0, z1, z2 = triangles[t, 0, 2], triangles[t, 1, 2], triangles[t, 2, 2]
        if min(z0, z1, z2) < 0.01:
            continue
        u0, v0 = fx * triangles[t, 0, 0] / z0 + cx, fy * triangles[t, 0, 1] / z0 + cy
        u1, v1 = fx * triangles[t, 1, 0] / z1 + cx, fy * triangles[t, 1, 1] / z1 + cy
        u2, v2 = fx * triangles[t, 2, 0] / z2 + cx, fy * triangles[t, 2, 1] / z2 + cy
        i0, i1, i2 = 1.0 / z0, 1.0 / z1, 1.0 / z2
        area = (u1 - u0) * (v2 - v0) - (u2 - u0) * (v1 - v0)
        if abs(area) < 1e-9:
            continue
        lo_u = max(0, int(np.ceil(min(u0, u1, u2))))
        hi_u = min(width - 1, int(np.floor(max(u0, u1, u2))))
        lo_v = max(0, int(np.ceil(min(v0, v1, v2))))
        hi_v = min(height - 1, int(np.floor(max(v0, v1, v2))))
        e1, e2, f1, f2 = (v2 - v0) / area, (u2 - u0) / area, (u1 - u0) / area, (v1 - v0) / area
        for v in range(lo_v, hi_v + 1):
            for u in range(lo_u, hi_u + 1):
                b1 = (u - u0) * e1 - (v - v0) * e2
                b2 = (v - v0) * f1 - (u - u0) * f2
                b0 = 1.0 - b1 - b2
                if b0 < -1e-9 or b1 < -1e-9 or b2 < -1e-9:
                    continue
                z = 1.0 / (b0 * i0 + b1 * i1 + b2 * i2)
                if z < near[v, u]:
                    near[v, u] = z
                if z > far[v, u]:
                    far[v, u] = z
