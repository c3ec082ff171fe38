"""Spheres through points seen from one side."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _normal_equations(p: F64) -> tuple[F64, F64]:
    """Matrix (4, 4) and right side (4,) of the sphere |p|^2 = 2 c.p + d through points (n, 3)."""
    a, b = np.zeros((4, 4)), np.zeros(4)
    row = np.ones(4)
    for k in range(len(p)):
        square = 0.0
        for i in range(3):
            row[i] = 2 * p[k, i]
            square += p[k, i] ** 2
        for i in range(4):
            b[i] += row[i] * square
            for j in range(i + 1):
                a[i, j] += row[i] * row[j]
    for i in range(4):
        for j in range(i):
            a[j, i] = a[i, j]
    return a, b


@njit(cache=True)  # type: ignore[untyped-decorator]
def _off_sphere(points: F64, centre: F64, radius: float) -> F64:
    """How far points (n, 3) lie outside a sphere, m."""
    out = np.empty(len(points))
    for i in range(len(points)):
        square = 0.0
        for axis in range(3):
            square += (points[i, axis] - centre[axis]) ** 2
        out[i] = np.sqrt(square) - radius
    return out


def fit_sphere(points: F64) -> tuple[F64, float, float]:
    """Return centre (3,), radius and root-mean-square residual, m, of a least-squares sphere."""
    mean = points.mean(axis=0)
    p = points - mean
    try:
        solution = np.linalg.solve(*_normal_equations(p))
    except np.linalg.LinAlgError:
        return mean, float("inf"), float("inf")
    radius = float(np.sqrt(max(solution[3] + solution[:3] @ solution[:3], 0.0)))
    residual = _off_sphere(p, solution[:3], radius)
    return solution[:3] + mean, radius, float(np.sqrt(residual @ residual / len(p)))


def as_sphere(points: F64, extent: F64, across: bool, smallest: float, largest: float,
              ) -> tuple[F64, float] | None:
    """Centre (3,) and radius, between `smallest` and `largest`, m, if most of points (n, 3) lie on
    a sphere no larger than what is seen of them.

    extent (3,): of the points across the view, along it and up, m; across: whether the first of
    these is seen from side to side.
    """
    inlier = points
    for keep in (0.004, 0.002):
        if len(inlier) < 30:
            return None
        centre, radius, residual = fit_sphere(inlier)
        if not smallest < radius < largest:
            return None
        inlier = points[np.abs(_off_sphere(points, centre, radius)) < keep]
    if len(inlier) < max(30, 0.8 * len(points)):
        return None
    centre, radius, residual = fit_sphere(inlier)
    if residual > max(0.0008, 0.03 * radius) or 2 * radius > 2.0 * float(extent.max()):
        return None
    if across and abs(2 * radius - extent[0]) > 0.25 * radius:
        return None
    return centre, radius
