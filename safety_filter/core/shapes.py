"""Obstacles by shape: spheres, boxes, cylinders, capsules, planes -> a few tight ellipsoids each.

One ellipsoid round a box stands out by up to 0.73 of its half extent, so a box is covered by the
union of several: cut into slices, each slice held by one ellipsoid or by two along its diagonals.
Every function returns a `Cover` whose union contains the shape; `tracks` makes it rows of the wire
format. At most `most` pieces are used, and no more than it takes to stand out by `tolerance`.

Pieces and how far their union stands out, mm beside / on top, for `most` = 1, 2, 4 and 6, standing
on something (`resting`) at the default tolerance; 5 x 5 x 20 cm in the air: 23 / 47 to 9 / 18 mm

| shape              | most=1  | most=2  | most=4        | most=6        |
| ------------------ | ------- | ------- | ------------- | ------------- |
| box 5 x 5 x 20 cm  | 23 / 47 | 15 / 30 | 4: 9.5 / 19   | 6: 6.9 / 14   |
| box 8 x 8 x 16 cm  | 29 / 59 | 21 / 42 | 4: 12 / 25    | 6: 9.6 / 19   |
| cube 5 cm          | 15 / 30 | 10 / 20 | 4: 6.3 / 13   | 4: 6.3 / 13   |
| can, 7 cm high     | 8.7 / 17 | 4.1 / 8 | 2: 4.1 / 8   | 2: 4.1 / 8    |

Slices. An ellipsoid with semi-axis s along the cut and cross-section S times too large covers the
cross-section over |z| <= rho s, rho = sqrt(1 - 1/S^2). A slice that starts at z and may reach up
to H + o ends at z' with H + o - z' = k (H + o - z), k = (1 - rho) / (1 + rho); so n slices cover
[0, H] where k^n (H + o) = o, and likewise from the middle outwards where both ends count.

Cross-section. For the square |x|, |y| <= 1 one ellipse through the corners is (fx, fy) with
1/fx^2 + 1/fy^2 = 1; two are u'Mu <= 1, M = [[a, +-b], [+-b, c]], a, c <= 1, a + c - 2|b| = 1: each
holds the quarters on its diagonal (convexity: it holds their corners), at best 0.155 too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike

from safety_filter.core.robot import Array
from safety_filter.core.wire import PIECE_STEP, Role, Tracks, empty_tracks

TOP_WEIGHT = 0.5
"""Standing out on top counts by this against standing out beside: arms come by more than over."""
ROUNDING = 1.0 + 2e-6
"""Semi-axes are enlarged by this, for the wire's float32."""
PLANE_RADIUS = 500.0
"""A plane is the face of a ball of this radius, m."""
_EYE = np.eye(3)


class ShapeError(ValueError):
    """A shape that cannot be covered: which field, what was expected, what came."""


class Cover(NamedTuple):
    """Ellipsoids whose union holds a shape, in the shape's frame, m.

    centres (k, 3), axes (k, 3) semi-axes, rotations (k, 3, 3) with columns along them; `beside`
    and `top`: how far the union stands out from the shape's sides and from its top face, m.
    """

    centres: Array
    axes: Array
    rotations: Array
    beside: float
    top: float

    def moved(self, offset: ArrayLike, rotation: Array = _EYE) -> Cover:
        """Return the cover of the shape turned by `rotation` (3, 3) and then moved."""
        return self._replace(centres=self.centres @ rotation.T + np.asarray(offset, float),
                             rotations=rotation @ self.rotations)


def combined(covers: Sequence[Cover]) -> Cover:
    """Return the cover of a compound, each part `moved` to its place."""
    return Cover(np.concatenate([c.centres for c in covers]),
                 np.concatenate([c.axes for c in covers]),
                 np.concatenate([c.rotations for c in covers]),
                 max(c.beside for c in covers), max(c.top for c in covers))


def sphere(radius: float) -> Cover:
    """Return the sphere itself."""
    return ellipsoid((radius, radius, radius))


def ellipsoid(axes: ArrayLike) -> Cover:
    """Return the ellipsoid of semi-axes (3,) itself."""
    size = _lengths('axes', axes, 3)
    return Cover(np.zeros((1, 3)), size[None], _EYE[None], 0.0, 0.0)


def box(half: ArrayLike, most: int = 4, tolerance: float = 0.008, resting: bool = False) -> Cover:
    """Return the cover of a box of half extents `half` (3,), m.

    Raises:
        ShapeError: `half` is not three positive numbers, or `most` is below 1.
    """
    size = _lengths('half', half, 3)
    axis, pair, n, rho, fx, fy = _best_box(size, _count(most), tolerance, resting)
    free = resting and axis == 2
    low, semi, over = _slices(size[axis], rho, n, free)
    others = [i for i in range(3) if i != axis]
    swell = 1.0 / np.sqrt(1.0 - rho * rho)
    shapes, centres = [], []
    for z, s in zip(low, semi, strict=True):
        for sign in (1.0, -1.0)[:2 if pair else 1]:
            q = np.zeros((3, 3))
            q[axis, axis] = s * s
            cross = _cross_shape(fx, fy, sign if pair else 0.0) * swell ** 2
            q[np.ix_(others, others)] = cross * np.outer(size[others], size[others])
            centre = np.zeros(3)
            centre[axis] = z
            shapes.append(q)
            centres.append(centre)
    standing = np.zeros(3)
    standing[axis] = over
    standing[others] = (np.array([fx, fy]) * swell - 1.0) * size[others]
    return _cover(centres, shapes, max(standing[:2]), standing[2])


def cylinder(radius: float, half_height: float, most: int = 4, tolerance: float = 0.008,
             resting: bool = False) -> Cover:
    """Return the cover of an upright cylinder (axis z), m.

    Raises:
        ShapeError: a length is not positive, or `most` is below 1.
    """
    radius, half_height = _lengths('radius, half_height', (radius, half_height), 2)
    n, rho = _best_cylinder(radius, half_height, _count(most), tolerance, resting)
    low, semi, over = _slices(half_height, rho, n, resting)
    wide = radius / np.sqrt(1.0 - rho * rho)
    return _cover([np.array([0.0, 0.0, z]) for z in low],
                  [np.diag([wide * wide, wide * wide, s * s]) for s in semi], wide - radius, over)


def capsule(radius: float, half_length: float, most: int = 4, tolerance: float = 0.008) -> Cover:
    """Return the cover of a capsule: spheres of `radius` swept along |z| <= half_length, m.

    A ball at each end, touching the cap from inside its tip, and ellipsoids between that end
    within the caps.

    Raises:
        ShapeError: a length is not positive, or `most` is below 2.
    """
    radius, half = _lengths('radius, half_length', (radius, half_length), 2)
    if _count(most) < 2:
        raise ShapeError(f'most: a capsule takes at least 2 pieces, got {most}')
    for n in range(most - 1):
        wide = _capsule_width(radius, half, n)
        if wide - radius <= tolerance:
            break
    end = half - (wide - radius)
    gap = end - np.sqrt(wide * wide - radius * radius)
    centres, shapes = [], []
    for sign in (-1.0, 1.0):
        centres.append(np.array([0.0, 0.0, sign * max(end, 0.0)]))
        shapes.append(np.diag([wide * wide] * 3))
    if n and gap > 0.0:
        rho = np.sqrt(1.0 - (radius / wide) ** 2)
        for z, s in zip(*_slices(gap, rho, n, False)[:2], strict=True):
            centres.append(np.array([0.0, 0.0, z]))
            shapes.append(np.diag([wide * wide, wide * wide, s * s]))
    return _cover(centres, shapes, wide - radius, 0.0)


def plane(normal: ArrayLike, offset: float, reach: float = 1.5) -> Cover:
    """Return a ball that holds the half-space n.p <= offset within `reach` of the frame's origin.

    It stands out by at most reach^2 / (2 PLANE_RADIUS), 2.3 mm at 1.5 m. Planes that never move
    are better given as the filter's parameter `planes`.

    Raises:
        ShapeError: the normal is not of length 1, or `offset` or `reach` is out of range.
    """
    n = np.asarray(normal, float)
    if n.shape != (3,) or not abs(float(np.linalg.norm(n)) - 1.0) < 1e-3:
        raise ShapeError(f'normal: expected three numbers of length 1, got {normal!r}')
    if not (abs(offset) < 100.0 and 0.0 < reach < 10.0):
        raise ShapeError(f'offset, reach: expected below 100 m and 10 m, got {offset}, {reach}')
    high = PLANE_RADIUS - np.sqrt(PLANE_RADIUS ** 2 - reach ** 2) + 1e-4
    return Cover((n * (offset + high - PLANE_RADIUS))[None], np.full((1, 3), PLANE_RADIUS),
                 _EYE[None], float(high), float(high))


def tracks(cover: Cover, object_id: int, position: ArrayLike = (0.0, 0.0, 0.0),
           rotation: Array = _EYE, velocity: ArrayLike = (0.0, 0.0, 0.0),
           spin: ArrayLike = (0.0, 0.0, 0.0), role: Role = Role.OBSTACLE,
           position_covariance: Array | None = None, velocity_covariance: Array | None = None,
           class_id: int = 0, score: float = 1.0, p_target: float = 0.0,
           age: float = 0.0) -> Tracks:
    """Return the pieces of a cover as rows of the wire format, in the frame of `position`.

    `spin` (3,) is the angular velocity about the shape's origin, rad/s; covariances (3, 3) in m^2
    and m^2/s^2 are those of the whole object. Piece k has the id object_id + k PIECE_STEP, so that
    the filter knows what belongs together and the first keeps the object's own id.

    Raises:
        ShapeError: the id has no room for pieces.
    """
    count = len(cover.centres)
    if not (0 <= object_id < PIECE_STEP and count <= 256):
        raise ShapeError(f'object_id: expected 0 to {PIECE_STEP - 1} and at most 256 pieces, '
                         f'got {object_id} and {count}')
    out = empty_tracks(count)
    placed = cover.moved(position, rotation)
    arms = placed.centres - np.asarray(position, float)
    moving = np.asarray(velocity, float) + np.cross(np.asarray(spin, float), arms)
    for i, name in enumerate('xyz'):
        out[name], out['v' + name] = placed.centres[:, i], moving[:, i]
        out['s' + name] = placed.axes[:, i]
    for k, turned in enumerate(placed.rotations):
        out['qx'][k], out['qy'][k], out['qz'][k], out['qw'][k] = pin.Quaternion(turned).coeffs()
    for prefix, matrix in (('p', position_covariance), ('w', velocity_covariance)):
        if matrix is not None:
            for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
                out[f'{prefix}{"xyz"[a]}{"xyz"[b]}'] = matrix[a, b]
    out['id'] = object_id + PIECE_STEP * np.arange(count)
    out['role'], out['class_id'], out['age'] = int(role), class_id, age
    out['score'], out['p_target'] = score, p_target
    return out


def _lengths(name: str, values: ArrayLike, count: int) -> Array:
    size = np.asarray(values, float)
    if size.shape != (count,) or not np.isfinite(size).all() or size.min() <= 0.0:
        raise ShapeError(f'{name}: expected {count} lengths > 0 in m, got {values!r}')
    return size


def _count(most: int) -> int:
    if most < 1:
        raise ShapeError(f'most: expected at least 1 piece, got {most}')
    return most


def _cover(centres: Sequence[Array], shapes: Sequence[Array], beside: float, top: float) -> Cover:
    """Return the cover of ellipsoids with shape matrices (3, 3)."""
    values, vectors = np.linalg.eigh(np.array(shapes))
    vectors[np.linalg.det(vectors) < 0.0, :, 0] *= -1.0
    return Cover(np.array(centres), np.sqrt(values) * ROUNDING, vectors, float(beside), float(top))


def _cross_shape(fx: float, fy: float, sign: float) -> Array:
    """Return the shape matrix (2, 2) of supports fx and fy; sign 0: axis-aligned, else diagonal.

    For a pair M = [[a, m], [m, 1]] with m = -a / 2 has the inverse Q with Qyy = 1 / (1 - a / 4),
    Qxx = Qyy / a and Qxy = Qyy / 2; likewise with x and y swapped.
    """
    coupling = sign * min(fx, fy) ** 2 / 2.0
    return np.array([[fx * fx, coupling], [coupling, fy * fy]])


def _slices(half: float, rho: float, n: int, free: bool) -> tuple[Array, Array, float]:
    """Return centres and semi-axes (n,) of the slices over [-half, half], and what stands out."""
    k = (1.0 - rho) / (1.0 + rho)
    over = _overhang(half, rho, n, free)
    if free:
        left = (2.0 * half + over) * k ** np.arange(n)
        semi = left / (1.0 + rho)
        return half + over - semi, semi, over
    if n % 2:
        left = (1.0 - rho) * (half + over) * k ** np.arange(n // 2)
    else:
        left = (half + over) * k ** np.arange(n // 2)
    semi = left / (1.0 + rho)
    centre = half + over - semi
    middle = np.array([half + over] if n % 2 else [])
    return (np.concatenate([-centre[::-1], np.zeros(n % 2), centre]),
            np.concatenate([semi[::-1], middle, semi]), over)


@nb.njit(cache=True, error_model='numpy')
def _overhang(half: float, rho: float, n: int, free: bool) -> float:
    """Return how far n slices over [-half, half] reach beyond its top, or beyond both ends."""
    k = (1.0 - rho) / (1.0 + rho)
    if free:
        q = k ** n
        return 2.0 * half * q / (1.0 - q)
    q = k ** (n // 2) * (1.0 - rho if n % 2 else 1.0)
    return half * q / (1.0 - q)


@nb.njit(cache=True, error_model='numpy')
def _fits(small: float, large: float, pair: bool) -> bool:
    """Return whether factors small <= large let an ellipse, or a pair, hold the unit square."""
    s, t = small * small, large * large
    if not pair:
        return bool(s > 1.0 and 1.0 / s + 1.0 / t <= 1.0)
    return bool(t >= 4.0 / 3.0 if s >= 4.0 / 3.0 else s > 1.0 and t >= s * s / (4.0 * (s - 1.0)))


@nb.njit(cache=True, error_model='numpy')
def _cross_factors(a: float, b: float, weight_a: float, weight_b: float, swell: float,
                   pair: bool) -> tuple[float, float, float]:
    """Return the factors of half extents a and b, and the least weighted overhang of both."""
    low, high = 0.0, 4.0 * max(a, b) * max(weight_a, weight_b) * swell
    for _ in range(30):
        cost = (low + high) / 2.0
        fa, fb = (1.0 + cost / weight_a / a) / swell, (1.0 + cost / weight_b / b) / swell
        if _fits(min(fa, fb), max(fa, fb), pair):
            high = cost
        else:
            low = cost
    fa, fb = (1.0 + high / weight_a / a) / swell, (1.0 + high / weight_b / b) / swell
    small, large = min(fa, fb) ** 2, max(fa, fb)
    if pair:
        small = min(small, 4.0 / 3.0)
        large = small / np.sqrt(4.0 * (small - 1.0))
    small = np.sqrt(small)
    return (small, large, high) if fa <= fb else (large, small, high)


@nb.njit(cache=True, error_model='numpy')
def _best_box(half: Array, most: int, tolerance: float,
              resting: bool) -> tuple[int, bool, int, float, float, float]:
    """Return cut axis, whether pairs, slices, rho and cross-section factors of the best cover."""
    weights = np.array([1.0, 1.0, TOP_WEIGHT])
    best, best_cost = (2, False, 1, 0.5, 2.0, 2.0), np.inf
    for pieces in range(1, most + 1):
        for axis in range(3):
            i, j = (1 if axis == 0 else 0), (1 if axis == 2 else 2)
            for pair in (False, True):
                n = pieces // (2 if pair else 1)
                if pair and (pieces % 2 or n == 0):
                    continue
                low, high = 1e-3, 0.999
                for _ in range(24):
                    rho = (low + high) / 2.0
                    over = weights[axis] * _overhang(half[axis], rho, n, resting and axis == 2)
                    fx, fy, cost = _cross_factors(half[i], half[j], weights[i], weights[j],
                                                  1.0 / np.sqrt(1.0 - rho * rho), pair)
                    if over > cost:
                        low = rho
                    else:
                        high = rho
                if cost < best_cost - 1e-6:
                    best, best_cost = (axis, pair, n, rho, fx, fy), cost
        if best_cost <= tolerance:
            break
    return best


@nb.njit(cache=True, error_model='numpy')
def _best_cylinder(radius: float, half: float, most: int, tolerance: float,
                   resting: bool) -> tuple[int, float]:
    """Return the number of slices and rho of the best cover of a cylinder."""
    for n in range(1, most + 1):
        low, high = 1e-3, 0.999
        for _ in range(30):
            rho = (low + high) / 2.0
            beside = radius / np.sqrt(1.0 - rho * rho) - radius
            if TOP_WEIGHT * _overhang(half, rho, n, resting) > beside:
                low = rho
            else:
                high = rho
        if beside <= tolerance:
            break
    return n, rho


@nb.njit(cache=True, error_model='numpy')
def _capsule_width(radius: float, half: float, n: int) -> float:
    """Return the least radius > `radius` of a capsule's ends with n ellipsoids between."""
    low, high = radius, radius + half + 1e-9
    for _ in range(40):
        wide = (low + high) / 2.0
        gap = half - (wide - radius) - np.sqrt(wide * wide - radius * radius)
        room = half + radius - gap
        rho = np.sqrt(1.0 - (radius / wide) ** 2)
        if gap <= 0.0 or (n > 0 and rho > 1e-6 and _overhang(gap, rho, n, False) <= room):
            high = wide
        else:
            low = wide
    return high
