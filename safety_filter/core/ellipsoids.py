"""Obstacles as compiled code sees them, and the plane that separates a point from an ellipsoid."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from safety_filter.core.robot import Array, Structs
from safety_filter.core.wire import (
    COVARIANCE_SLACK,
    OBSTACLE_DTYPE,
    PIECE_STEP,
    SMALLEST_VARIANCE,
    Role,
    Tracks,
)

ELLIPSOID_DTYPE = np.dtype([
    ('key', 'i8'),       # of the track: the id on the wire
    ('id', 'i8'),        # of the object; its pieces have the same
    ('role', 'i8'),
    ('person', 'i8'),    # speed and separation are monitored
    ('centre', 'f8', 3), ('velocity', 'f8', 3),
    ('axes', 'f8', 3), ('rotation', 'f8', (3, 3)),  # columns are the axes' directions
    ('p_cov', 'f8', (3, 3)), ('v_cov', 'f8', (3, 3)),
    ('reach', 'f8'),     # largest semi-axis
    ('speed', 'f8'),
    ('p_sigma', 'f8'),   # at least the standard deviation along any direction
    ('v_sigma', 'f8')], align=True)

_LAST_ROLE = int(max(Role))
SMALLEST_AXIS = 1e-4
"""Degenerate ellipsoids are thickened to this, m."""


def usable(tracks: Tracks) -> bool:
    """Return whether `wire.track_fault` would find no fault, but quickly."""
    if tracks.dtype != OBSTACLE_DTYPE or tracks.ndim != 1:
        return False
    if len(tracks) == 0:
        return True
    data = np.ascontiguousarray(tracks)
    return bool(_usable(data.view('<f4').reshape(len(data), -1),
                        data.view('<u4').reshape(len(data), -1)))


@nb.njit(cache=True, error_model='numpy')
def _usable(words: NDArray[np.float32], integers: NDArray[np.uint32]) -> bool:
    for i in range(len(words)):
        w = words[i]
        for k in range(28):
            if not np.isfinite(w[k]):
                return False
        least = min(w[6], w[7], w[8], w[13], w[16], w[18], w[19], w[22], w[24], w[25])
        norm = w[9] * w[9] + w[10] * w[10] + w[11] * w[11] + w[12] * w[12]
        if least < 0.0 or norm < 0.25 or integers[i, 30] > _LAST_ROLE:
            return False
        if not (_semidefinite(w[13:19]) and _semidefinite(w[19:25])):
            return False
    return True


@nb.njit(cache=True, error_model='numpy')
def _semidefinite(w: NDArray[np.float32]) -> bool:
    """Return whether xx xy xz yy yz zz, its diagonal raised by what `track_fault` allows, has a
    Cholesky factor."""
    xx, xy, xz = np.float64(w[0]), np.float64(w[1]), np.float64(w[2])
    yy, yz, zz = np.float64(w[3]), np.float64(w[4]), np.float64(w[5])
    slack = COVARIANCE_SLACK * (xx + yy + zz) + SMALLEST_VARIANCE
    xx += slack
    yy += slack - xy * xy / xx
    yz -= xy * xz / xx
    return bool(yy > 0.0 and zz + slack - xz * xz / xx - yz * yz / yy > 0.0)


def load_tracks(tracks: Tracks, out: Structs) -> None:
    """Fill the first len(tracks) elements of `out` (ELLIPSOID_DTYPE) with usable tracks."""
    count = len(tracks)
    if count:
        data = np.ascontiguousarray(tracks)
        _load(data.view('<f4').reshape(count, -1), data.view('<u4').reshape(count, -1), out)


@nb.njit(cache=True, error_model='numpy')
def _load(words: NDArray[np.float32], integers: NDArray[np.uint32], out: Structs) -> None:
    for i in range(len(words)):
        w, e = words[i], out[i]
        e.key, e.id = integers[i, 28], integers[i, 28] % PIECE_STEP
        e.role, e.person = integers[i, 30], 0
        for k in range(3):
            e.centre[k], e.velocity[k] = w[k], w[3 + k]
            e.axes[k] = max(w[6 + k], SMALLEST_AXIS)
        x, y, z, s = np.float64(w[9]), np.float64(w[10]), np.float64(w[11]), np.float64(w[12])
        norm = np.sqrt(x * x + y * y + z * z + s * s)
        x, y, z, s = x / norm, y / norm, z / norm, s / norm
        r = e.rotation
        r[0, 0], r[1, 1] = 1 - 2 * (y * y + z * z), 1 - 2 * (x * x + z * z)
        r[2, 2] = 1 - 2 * (x * x + y * y)
        r[0, 1], r[1, 0] = 2 * (x * y - z * s), 2 * (x * y + z * s)
        r[0, 2], r[2, 0] = 2 * (x * z + y * s), 2 * (x * z - y * s)
        r[1, 2], r[2, 1] = 2 * (y * z - x * s), 2 * (y * z + x * s)
        k = 13
        for a in range(3):
            for b in range(a, 3):
                e.p_cov[a, b] = e.p_cov[b, a] = w[k]
                e.v_cov[a, b] = e.v_cov[b, a] = w[k + 6]
                k += 1
        e.p_sigma, e.v_sigma = np.sqrt(_bound(e.p_cov)), np.sqrt(_bound(e.v_cov))
        e.reach = max(e.axes[0], e.axes[1], e.axes[2])
        e.speed = np.sqrt(e.velocity[0] ** 2 + e.velocity[1] ** 2 + e.velocity[2] ** 2)


@nb.njit(cache=True, error_model='numpy')
def _bound(m: Array) -> float:
    """Return the largest absolute row sum: at least n'Mn for any unit n."""
    worst = 0.0
    for a in range(3):
        worst = max(worst, abs(m[a, 0]) + abs(m[a, 1]) + abs(m[a, 2]))
    return worst


@nb.njit(cache=True, error_model='numpy')
def spread(m: Array, nx: float, ny: float, nz: float) -> float:
    """Return sqrt(n' M n), 0 where M is not positive along n."""
    value = (m[0, 0] * nx * nx + m[1, 1] * ny * ny + m[2, 2] * nz * nz
             + 2.0 * (m[0, 1] * nx * ny + m[0, 2] * nx * nz + m[1, 2] * ny * nz))
    return float(np.sqrt(max(value, 0.0)))


@nb.njit(cache=True, error_model='numpy')
def separating_normal(dx: float, dy: float, dz: float, axes: Array,
                      rotation: Array) -> tuple[float, float, float, float]:
    """Return a unit normal n and g(n) = n.d - sqrt(n'Qn) for a point at d from the centre.

    g(n) is at most the distance to the ellipsoid for any n (its support function), and equals it
    at the normal of the closest point. That is found by Newton steps on
    F(t) = sum (s_i y_i / (s_i^2 + t))^2 - 1, convex and falling, from a lower bound of its root
    (Eberly, "Distance from a point to an ellipsoid"), so the steps are monotone.
    """
    y0 = rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0] * dz
    y1 = rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1] * dz
    y2 = rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2] * dz
    s0, s1, s2 = axes[0], axes[1], axes[2]
    e0, e1, e2 = s0 * s0, s1 * s1, s2 * s2
    w0, w1, w2 = e0 * y0 * y0, e1 * y1 * y1, e2 * y2 * y2
    if e0 <= e1 and e0 <= e2:
        shortest, along = e0, w0
    elif e1 <= e2:
        shortest, along = e1, w1
    else:
        shortest, along = e2, w2
    t = max(np.sqrt(along) - shortest, np.sqrt(w0 + w1 + w2) - max(e0, e1, e2))
    t = max(t, -shortest * (1.0 - 1e-6))
    for _ in range(16):
        r0, r1, r2 = 1.0 / (e0 + t), 1.0 / (e1 + t), 1.0 / (e2 + t)
        p0, p1, p2 = w0 * r0 * r0, w1 * r1 * r1, w2 * r2 * r2
        value = p0 + p1 + p2 - 1.0
        if value < 1e-9:
            break
        t += value / (2.0 * (p0 * r0 + p1 * r1 + p2 * r2))
    n0, n1, n2 = y0 / (e0 + t), y1 / (e1 + t), y2 / (e2 + t)
    norm = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
    if norm * shortest < 1e-9:  # at the centre: out along the shortest axis
        n0 = 1.0 if shortest == e0 else 0.0
        n1 = 1.0 if shortest == e1 and n0 == 0.0 else 0.0
        n2 = 1.0 - n0 - n1
        norm = 1.0
    n0, n1, n2 = n0 / norm, n1 / norm, n2 / norm
    g = n0 * y0 + n1 * y1 + n2 * y2 - np.sqrt(n0 * n0 * e0 + n1 * n1 * e1 + n2 * n2 * e2)
    return (rotation[0, 0] * n0 + rotation[0, 1] * n1 + rotation[0, 2] * n2,
            rotation[1, 0] * n0 + rotation[1, 1] * n1 + rotation[1, 2] * n2,
            rotation[2, 0] * n0 + rotation[2, 1] * n1 + rotation[2, 2] * n2, g)
