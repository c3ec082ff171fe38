"""Cover a robot's collision meshes with spheres: every vertex inside, little beyond.

A ball about an interior point at depth d with radius d + e stands out of the mesh by at most e.
For each link the smallest e is found for which few enough such balls hold the whole surface
(greedy set cover); each ball is then shrunk to what no other holds (Badoiu and Clarkson 2003).
Spheres go, one by one, to the link whose cover stands out furthest.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np

from safety_filter.core.mesh import Array, link_triangles, surface_samples
from safety_filter.core.robot import Ints

SPACING = 0.006
"""Distance of the surface samples that a cover must hold, m."""
SAMPLES = 2500
"""About as many of them guide the search; the answer is then enlarged to hold all."""
INFLATION = 1e-4
"""Added to every radius so that rounding in the YAML keeps every vertex inside, m."""


@dataclass(frozen=True)
class LinkCover:
    """Spheres (k, 4) of one link as x y z r in the link frame, and how far they stand out (m)."""

    link: str
    spheres: Array
    over: Array

    @property
    def excess(self) -> float:
        """Return the 90th percentile of the over-approximation, m."""
        return float(np.percentile(self.over, 90)) if len(self.over) else 0.0


@nb.njit(cache=True, error_model='numpy')
def enclosing_ball(points: Array) -> Array:
    """Return x y z r of a nearly minimal ball that holds all `points` (n, 3)."""
    centre = np.zeros(3)
    for i in range(len(points)):
        centre += points[i] / len(points)
    for step in range(1, 200):
        far, far2 = 0, -1.0
        for i in range(len(points)):
            d2 = np.sum((points[i] - centre) ** 2)
            if d2 > far2:
                far, far2 = i, d2
        centre += (points[far] - centre) / (step + 1)
    ball = np.empty(4)
    ball[:3] = centre
    worst = 0.0
    for i in range(len(points)):
        worst = max(worst, np.sum((points[i] - centre) ** 2))
    ball[3] = np.sqrt(worst)
    return ball


@nb.njit(cache=True, error_model='numpy')
def point_triangle_distance(p: Array, a: Array, b: Array, c: Array) -> float:
    """Return the distance from `p` to a triangle (Ericson 2005, section 5.1.5)."""
    ab, ac, ap = b - a, c - a, p - a
    d1, d2 = np.dot(ab, ap), np.dot(ac, ap)
    if d1 <= 0.0 and d2 <= 0.0:
        return float(np.sqrt(np.dot(ap, ap)))
    bp = p - b
    d3, d4 = np.dot(ab, bp), np.dot(ac, bp)
    if d3 >= 0.0 and d4 <= d3:
        return float(np.sqrt(np.dot(bp, bp)))
    vc = d1 * d4 - d3 * d2
    if vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        q = ap - d1 / (d1 - d3) * ab
        return float(np.sqrt(np.dot(q, q)))
    cp = p - c
    d5, d6 = np.dot(ab, cp), np.dot(ac, cp)
    if d6 >= 0.0 and d5 <= d6:
        return float(np.sqrt(np.dot(cp, cp)))
    vb = d5 * d2 - d1 * d6
    if vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        q = ap - d2 / (d2 - d6) * ac
        return float(np.sqrt(np.dot(q, q)))
    va = d3 * d6 - d5 * d4
    if va <= 0.0 and d4 - d3 >= 0.0 and d5 - d6 >= 0.0:
        q = bp - (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b)
        return float(np.sqrt(np.dot(q, q)))
    total = va + vb + vc
    if total <= 1e-30:
        return float(np.sqrt(min(np.dot(ap, ap), np.dot(bp, bp), np.dot(cp, cp))))
    q = ap - vb / total * ab - vc / total * ac
    return float(np.sqrt(np.dot(q, q)))


@nb.njit(cache=True, error_model='numpy')
def over_approximation(spheres: Array, triangles: Array, directions: Array) -> Array:
    """Return the distance to the mesh of each point of the cover's outer surface, m."""
    out = np.empty(len(spheres) * len(directions))
    count = 0
    for s in range(len(spheres)):
        for direction in directions:
            p = spheres[s, :3] + spheres[s, 3] * direction
            hidden = False
            for o in range(len(spheres)):
                inside = np.sum((p - spheres[o, :3]) ** 2) < (spheres[o, 3] - 1e-9) ** 2
                if o != s and inside:
                    hidden = True
                    break
            if hidden:
                continue
            best = np.inf
            for t in triangles:
                distance = point_triangle_distance(p, t[0], t[1], t[2])
                if distance < best:  # false for the NaN of a degenerate triangle
                    best = distance
            out[count] = best
            count += 1
    return out[:count]


@nb.njit(cache=True, error_model='numpy')
def _winding(p: Array, triangles: Array) -> float:
    """Return the winding number of a closed mesh about `p`: 1 inside, 0 outside (Van Oosterom)."""
    total = 0.0
    for t in triangles:
        a, b, c = t[0] - p, t[1] - p, t[2] - p
        la, lb, lc = np.sqrt(np.dot(a, a)), np.sqrt(np.dot(b, b)), np.sqrt(np.dot(c, c))
        det = np.dot(a, np.cross(b, c))
        total += np.arctan2(det, la * lb * lc + np.dot(a, b) * lc + np.dot(b, c) * la
                            + np.dot(c, a) * lb)
    return abs(total) / (2 * np.pi)


@nb.njit(cache=True, error_model='numpy')
def _shrink(balls: Array, points: Array, rounds: int) -> None:
    """Replace each ball (k, 4) by the smallest that holds what no other ball holds."""
    for _ in range(rounds):
        for j in range(len(balls)):
            needed = np.ones(len(points), np.bool_)
            for i in range(len(points)):
                for o in range(len(balls)):
                    far2 = np.sum((points[i] - balls[o, :3]) ** 2)
                    if o != j and far2 <= balls[o, 3] ** 2:
                        needed[i] = False
                        break
            mine = points[needed]
            if len(mine):
                ball = enclosing_ball(mine)
                if ball[3] < balls[j, 3]:
                    balls[j] = ball
            else:
                balls[j, 3] = 0.0


def sphere_directions(count: int) -> Array:
    """Return `count` unit vectors spread evenly (Fibonacci lattice)."""
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * i / count), np.pi * (1 + 5 ** 0.5) * i
    return np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], 1)


def _candidates(triangles: Array, points: Array) -> tuple[Array, Array]:
    """Return interior points (m, 3) and their distances to the samples `points`, (m, n)."""
    low, high = points.min(0), points.max(0)
    step = max(float(np.prod(high - low) / 1500) ** (1 / 3), 0.002)
    axes = [np.arange(lo + step / 2, hi, step) for lo, hi in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)
    inside = grid[[_winding(p, triangles) > 0.5 for p in grid]]
    centres = np.concatenate([inside, enclosing_ball(points)[None, :3]])
    square = np.sum(centres ** 2, 1)[:, None] - 2 * centres @ points.T + np.sum(points ** 2, 1)
    return centres, np.sqrt(np.maximum(square, 0.0))


@nb.njit(cache=True, error_model='numpy')
def _greedy_cover(depth: Array, distance: Array, excess: float, limit: int) -> Ints:
    """Return candidates whose balls of radius depth + excess hold all samples; none if > limit."""
    count, samples = distance.shape
    missing = np.arange(samples)
    left = samples
    chosen = np.empty(limit, np.int64)
    for pick in range(limit):
        best, most = -1, 0
        for c in range(count):
            radius, gain = depth[c] + excess, 0
            for i in range(left):
                gain += distance[c, missing[i]] <= radius
            if gain > most:
                best, most = c, gain
        if best < 0:
            break
        chosen[pick] = best
        kept = 0
        for i in range(left):
            if distance[best, missing[i]] > depth[best] + excess:
                missing[kept] = missing[i]
                kept += 1
        left = kept
        if left == 0:
            return chosen[:pick + 1]
    return chosen[:0]


def _grow(balls: Array, points: Array) -> None:
    """Enlarge balls (k, 4) until they hold all `points`, each point by the ball nearest to it."""
    for point in points:
        gap = np.sqrt(np.sum((balls[:, :3] - point) ** 2, axis=1)) - balls[:, 3]
        nearest = int(np.argmin(gap))
        balls[nearest, 3] += max(float(gap[nearest]), 0.0)


def cover_link(link: str, triangles: Array, count: int) -> LinkCover:
    """Return a cover of a link with at most `count` spheres that stands out as little as can be.

    Bisects the excess e: an interior point at depth d carries a ball of radius d + e, which stands
    out by at most e; the fewest such balls are chosen greedily.
    """
    every = surface_samples(triangles, SPACING)
    points = every
    if len(points) > SAMPLES:
        vertices = np.unique(triangles.reshape(-1, 3), axis=0)
        points = np.concatenate([vertices, every[:: len(every) // SAMPLES + 1]])
    centres, distance = _candidates(triangles, points)
    depth = distance.min(1)
    low, high = 0.0, float(distance.max())
    chosen = np.zeros(1, np.int64)
    while high - low > 2e-4:
        middle = (low + high) / 2
        found = _greedy_cover(depth, distance, middle, count)
        if len(found) == 0:
            low = middle
        else:
            high, chosen = middle, found
    balls = np.column_stack([centres[chosen], depth[chosen] + high])
    _shrink(balls, points, 3)
    balls = balls[balls[:, 3] > 0]
    _grow(balls, every)
    balls[:, 3] += INFLATION
    return LinkCover(link, balls, over_approximation(balls, triangles, sphere_directions(60)))


def fit_links(urdf: str, mesh_dirs: Sequence[Path], total: int,
              fixed: Mapping[str, int] | None = None) -> list[LinkCover]:
    """Return covers of all links with collision geometry, `total` spheres together.

    `fixed` sets the number of spheres of chosen links; the rest are shared out by greatest excess.

    Raises:
        MeshError: a mesh is missing or unreadable.
        ValueError: the URDF has no collision geometry, or fewer spheres than links.
    """
    fixed = dict(fixed or {})
    meshes = {}
    for link in ET.fromstring(urdf).findall('link'):
        triangles = link_triangles(link, mesh_dirs)
        if len(triangles):
            meshes[link.get('name', '?')] = triangles
    unknown = sorted(set(fixed) - set(meshes))
    if unknown:
        raise ValueError(f'no collision geometry on link {", ".join(unknown)}; '
                         f'links with it: {", ".join(meshes) or "none"}')
    start = {name: fixed.get(name, 1) for name in meshes}
    if not meshes or sum(start.values()) > total:
        raise ValueError(f'{len(meshes)} links with collision geometry need at least '
                         f'{sum(start.values())} spheres, got {total}')
    covers = {name: cover_link(name, meshes[name], n) for name, n in start.items()}
    asked = dict(start)
    # A cover may need fewer than it may have: what is left over goes on to others
    while sum(len(c.spheres) for c in covers.values()) < total and sum(asked.values()) < 2 * total:
        free = [c for name, c in covers.items() if name not in fixed]
        if not free:
            break
        worst = max(free, key=lambda c: c.excess)
        grown = cover_link(worst.link, meshes[worst.link], asked[worst.link] + 1)
        asked[worst.link] += 1
        rest = sum(len(c.spheres) for c in covers.values()) - len(worst.spheres)
        if rest + len(grown.spheres) > total:
            break
        covers[worst.link] = grown
    return list(covers.values())
