"""Pinhole geometry: pixels, rays and points. Optical frame: x right, y down, z forward."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
BEHIND = 0.02  # m by which what a picture looks at past a point must be farther


@lru_cache(maxsize=4)
def _rays(fx: float, fy: float, cx: float, cy: float, height: int, width: int) -> F32:
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u, float)], axis=-1)
    return rays.astype(np.float32)


@lru_cache(maxsize=4)
def _turned(fx: float, fy: float, cx: float, cy: float, height: int, width: int,
            rotation: bytes) -> F32:
    """Rays (H, W, 3) in `base`; a fixed camera has the same in every picture."""
    rays = _rays(fx, fy, cx, cy, height, width)
    turn = np.frombuffer(rotation, np.float32).reshape(3, 3)
    return (rays.reshape(-1, 3) @ turn.T).reshape(rays.shape)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _along(rays: F32, depth: F32, origin: F32) -> F32:
    """Points (H, W, 3) at depths (H, W) along rays (H, W, 3) from `origin` (3,)."""
    points = np.empty_like(rays)
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            for i in range(3):
                points[v, u, i] = rays[v, u, i] * depth[v, u] + origin[i]
    return points


def back_project(depth: F32, k: F64, t_base_cam: F64) -> F32:
    """Return points (H, W, 3) in `base`, m, of a depth image (H, W) along the optical axis, m."""
    pose = t_base_cam.astype(np.float32)
    rays = _turned(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), *depth.shape,
                   pose[:3, :3].tobytes())
    return np.asarray(_along(rays, np.asarray(depth, np.float32), pose[:3, 3]))


def project(points: F64, k: F64, t_base_cam: F64) -> tuple[F64, F64]:
    """Return pixels (n, 2) as (u, v) and depths (n,) m of points (n, 3) in `base`."""
    p = (np.asarray(points, float) - t_base_cam[:3, 3]) @ t_base_cam[:3, :3]
    z = p[:, 2]
    safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
    uv = np.stack([k[0, 0] * p[:, 0] / safe + k[0, 2], k[1, 1] * p[:, 1] / safe + k[1, 2]], 1)
    return uv, z


def check_frame(rgb: NDArray[np.uint8], depth: F32, k: F64, t_base_cam: F64) -> None:
    """Reject what is not a registered RGB-D frame.

    Raises:
        ValueError: names the field, what was expected and what came.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f'rgb: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}')
    if depth.shape != rgb.shape[:2]:
        raise ValueError(f'depth: expected the size of rgb {rgb.shape[:2]}, got {depth.shape}')
    if depth.dtype.kind != 'f':
        raise ValueError(f'depth: expected floats in metres, got {depth.dtype}')
    if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        raise ValueError(f'K: expected a finite 3 x 3 matrix with positive focal lengths, got {k}')
    if t_base_cam.shape != (4, 4) or not np.isfinite(t_base_cam).all():
        raise ValueError(f'T_base_cam: expected a finite 4 x 4 transform, got {t_base_cam}')
    rotation = t_base_cam[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        raise ValueError('T_base_cam: expected a rotation in its upper left 3 x 3')


def depths_at(points: F64, depth: F32, k: F64, t_base_cam: F64) -> tuple[F64, F64]:
    """What a depth image shows where points (n, 3) in `base` would show, and how deep these are
    (n,), m; 0 where it has no depth and outside of it."""
    uv, z = project(points, k, t_base_cam)
    height, width = depth.shape
    pixel = np.rint(np.clip(uv, -1, max(height, width) + 1)).astype(int)
    inside = ((pixel[:, 0] >= 0) & (pixel[:, 0] < width) & (pixel[:, 1] >= 0)
              & (pixel[:, 1] < height) & (z > 0))
    seen = np.zeros(len(z))
    seen[inside] = depth[pixel[inside, 1], pixel[inside, 0]]
    return seen, z


def seen_past(points: F64, depth: F32, k: F64, t_base_cam: F64) -> float:
    """Share of points (n, 3) in `base` past which the picture looks: nothing is there. Pixels
    without depth say nothing."""
    seen, z = depths_at(points, depth, k, t_base_cam)
    return float((seen > z + BEHIND).mean())
