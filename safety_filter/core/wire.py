"""The wire format of obstacles, layout v1: one PointCloud2 point is one track.

All fields are little-endian and packed in this order (float32 unless said)::

    x y z                    centre, m
    vx vy vz                 velocity, m/s
    sx sy sz                 semi-axes of the ellipsoid, m
    qx qy qz qw              its orientation
    pxx pxy pxz pyy pyz pzz  position covariance, m^2
    wxx wxy wxz wyy wyz wzz  velocity covariance, m^2/s^2
    age                      s since last seen
    score p_target           detection score and probability of being the target, 0..1
    id class_id role         uint32; role as in `Role`

Covariances are positive semidefinite, rounding of `COVARIANCE_SLACK` of their trace aside. The
error of a position may change no faster than the error of its velocity: the second covariance
must cover both. The filter takes the position seen next to be this one, moved on by the velocity.

Tracks whose ids differ by a multiple of `PIECE_STEP` are pieces of one object.

Positions and velocities are in the cloud's `header.frame_id`, the stamp is that of the image.
An empty cloud means "looked, saw nothing". Any other layout is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Tracks = NDArray[np.void]
"""A structured array of OBSTACLE_DTYPE, one element a track."""

UINT32 = 6
FLOAT32 = 7
"""PointField datatype codes."""

UNKNOWN_CLASS = 0xFFFF
"""class_id of what no detection explains."""

COVARIANCE_SLACK = 1e-3
"""An eigenvalue of a covariance below minus so much of its trace is no rounding any more."""
SMALLEST_VARIANCE = 1e-9
"""Added to each variance in that comparison, m^2 and m^2/s^2."""

PIECE_STEP = 1 << 24
"""Piece k of the object with id i < PIECE_STEP has the id i + k PIECE_STEP."""


class Role(IntEnum):
    """What the filter does about a track."""

    OBSTACLE = 0
    TARGET = 1
    HELD = 2
    SUPPORT = 3


class WireError(ValueError):
    """A message that is not layout v1, with what was expected and what came."""


_FLOATS = ('x y z vx vy vz sx sy sz qx qy qz qw pxx pxy pxz pyy pyz pzz '
           'wxx wxy wxz wyy wyz wzz age score p_target').split()
_UINTS = ('id', 'class_id', 'role')

OBSTACLE_DTYPE = np.dtype([(name, '<f4') for name in _FLOATS] + [(name, '<u4') for name in _UINTS])

FIELDS: list[tuple[str, int, int, int]] = [
    (name, 4 * i, FLOAT32 if name in _FLOATS else UINT32, 1)
    for i, name in enumerate([*_FLOATS, *_UINTS])]
"""(name, offset, PointField datatype, count) of each field."""

POINT_STEP: int = OBSTACLE_DTYPE.itemsize
_FIELDS_TUPLE = tuple(FIELDS)


def empty_tracks(n: int = 0) -> Tracks:
    """Return `n` tracks of zeros with identity orientation."""
    tracks = np.zeros(n, OBSTACLE_DTYPE)
    tracks['qw'] = 1.0
    return tracks


def encode(tracks: Tracks) -> bytes:
    """Return the point data of `tracks`.

    Raises:
        WireError: the array is not one-dimensional OBSTACLE_DTYPE.
    """
    if tracks.dtype != OBSTACLE_DTYPE or tracks.ndim != 1:
        raise WireError(f'tracks: expected a 1-D array of OBSTACLE_DTYPE, '
                        f'got {tracks.ndim}-D of {tracks.dtype}')
    return tracks.tobytes()


def decode(fields: Iterable[Sequence[object]], point_step: int, width: int, height: int,
           is_bigendian: bool, data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> Tracks:
    """Return the tracks of a cloud; `fields` are (name, offset, datatype, count).

    Raises:
        WireError: anything but layout v1, or data of the wrong length.
    """
    got = tuple((str(f[0]), f[1], f[2], f[3]) for f in fields)
    if got != _FIELDS_TUPLE:
        raise WireError(_layout_difference(got))
    if point_step != POINT_STEP:
        raise WireError(f'point_step: expected {POINT_STEP}, got {point_step}')
    if height != 1:
        raise WireError(f'height: expected 1, got {height}')
    if is_bigendian:
        raise WireError('is_bigendian: expected false, got true')
    size = data.nbytes if isinstance(data, (memoryview, np.ndarray)) else len(data)
    if size != width * POINT_STEP:
        raise WireError(f'data: expected {width} points of {POINT_STEP} bytes = '
                        f'{width * POINT_STEP}, got {size} bytes')
    return np.frombuffer(data, OBSTACLE_DTYPE, width).copy() if width else empty_tracks()


def _layout_difference(got: tuple[tuple[str, object, object, object], ...]) -> str:
    """Return the first difference from layout v1 in words."""
    if len(got) != len(FIELDS):
        names = {f[0] for f in got}
        missing = [f[0] for f in FIELDS if f[0] not in names]
        extra = sorted(names - {f[0] for f in FIELDS})
        return (f'fields: expected the {len(FIELDS)} of obstacle layout v1, got {len(got)}'
                f' (missing: {", ".join(missing) or "none"};'
                f' unknown: {", ".join(extra) or "none"})')
    want, came = next((w, g) for w, g in zip(FIELDS, got, strict=True) if w != g)
    return (f'fields: expected {want[0]} (offset {want[1]}, datatype {want[2]}, count {want[3]}), '
            f'got {came[0]} (offset {came[1]}, datatype {came[2]}, count {came[3]})')


def track_fault(tracks: Tracks) -> str | None:
    """Return what makes `tracks` unusable in words, or None.

    Checked: everything finite, semi-axes >= 0, orientation not zero, covariances positive
    semidefinite, role known.
    """
    if tracks.dtype != OBSTACLE_DTYPE or tracks.ndim != 1:
        return f'expected a 1-D array of OBSTACLE_DTYPE, got {tracks.ndim}-D of {tracks.dtype}'
    if tracks.size == 0:
        return None
    words = np.ascontiguousarray(tracks).view('<f4').reshape(tracks.size, -1)
    floats = words[:, :len(_FLOATS)]
    finite = np.isfinite(floats)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        return f'track {tracks["id"][row]}: {_FLOATS[column]} is not finite'
    for columns in ([6, 7, 8], [13, 16, 18], [19, 22, 24], [25]):
        low = floats[:, columns]
        if low.min() < 0.0:
            row = int(np.argmin(low.min(axis=1)))
            return f'track {tracks["id"][row]}: negative semi-axis, variance or age'
    for first, name in ((13, 'position'), (19, 'velocity')):
        k = first + np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
        m = floats[:, k].astype(float)
        least = np.linalg.eigvalsh(m)[:, 0]
        under = -COVARIANCE_SLACK * np.trace(m, axis1=1, axis2=2) - SMALLEST_VARIANCE
        if (least <= under).any():
            row = int(np.argmax(least <= under))
            return (f'track {tracks["id"][row]}: {name} covariance has the eigenvalue '
                    f'{least[row]:.3g}, expected none below zero')
    norm = np.sum(floats[:, 9:13].astype(float) ** 2, axis=1)
    if norm.min() < 0.25:
        return f'track {tracks["id"][int(np.argmin(norm))]}: orientation is not a unit quaternion'
    if tracks['role'].max() > max(Role):
        return f'role: expected 0 to {int(max(Role))}, got {tracks["role"].max()}'
    return None
