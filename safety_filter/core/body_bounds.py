"""Bounds on how the robot's bodies can move in one step, for every joint velocity in the box."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from safety_filter.core.robot import Array, Structs


class Bodies(NamedTuple):
    """The robot's spheres at one instant, and bounds that hold for every q' in the box."""

    spheres: Structs
    points: Array        # (s, 3) centres
    jacobian: Array      # (s, n, 3)
    velocity: Array      # (s, 3) at the middle of the box
    acceleration: Array  # (s, 3) the same, at constant q'
    speed: Array         # (s,) greatest speed in the box, m/s
    spread: Array        # (s,) most that the acceleration differs from the middle's, m/s^2
    curve: Array         # (s,) greatest acceleration, m/s^2
    groups: Structs      # GROUP_DTYPE


GROUP_DTYPE = np.dtype([
    ('start', 'i8'), ('stop', 'i8'), ('fixed', 'i8'),
    ('radius', 'f8'), ('sigma', 'f8'), ('speed', 'f8'), ('curve', 'f8'), ('centre', 'f8', 3)],
    align=True)
"""The spheres of one link, with a ball about them all."""


@nb.njit(cache=True, error_model='numpy')
def body_bounds(bodies: Bodies, low: Array, high: Array) -> None:
    """Fill velocity, greatest speed and acceleration of every sphere for q' in the box.

    At constant q' a point accelerates by sum_i q'_i sum_{j<=i} (2 - d_ij) q'_j z_j x J_i. With q'
    = m + d, |d| <= w, that differs from its value at m by at most
    sum_i |J_i| sum_{j<=i} (2 - d_ij) (|m_i| w_j + w_i |m_j| + w_i w_j).
    """
    for s in range(len(bodies.points)):
        vx, vy, vz, wide = 0.0, 0.0, 0.0, 0.0
        for i in range(bodies.spheres[s].columns):
            column = bodies.jacobian[s, i]
            middle, half = (low[i] + high[i]) / 2.0, (high[i] - low[i]) / 2.0
            vx, vy, vz = vx + column[0] * middle, vy + column[1] * middle, vz + column[2] * middle
            wide += half * np.sqrt(column[0] ** 2 + column[1] ** 2 + column[2] ** 2)
        bodies.velocity[s, 0], bodies.velocity[s, 1], bodies.velocity[s, 2] = vx, vy, vz
        bodies.speed[s] = np.sqrt(vx * vx + vy * vy + vz * vz) + wide
        bodies.spread[s] = joint_spread(bodies, s, 0, low, high)
        a = bodies.acceleration[s]
        bodies.curve[s] = np.sqrt(a[0] ** 2 + a[1] ** 2 + a[2] ** 2) + bodies.spread[s]
    for g in range(len(bodies.groups)):
        _group_bounds(bodies, g)


@nb.njit(cache=True, error_model='numpy')
def joint_spread(bodies: Bodies, s: int, first: int, low: Array, high: Array) -> float:
    """Return the sum in `body_bounds` over the joints from `first` on."""
    total, middles, halves = 0.0, 0.0, 0.0
    for i in range(first, bodies.spheres[s].columns):
        column = bodies.jacobian[s, i]
        length = np.sqrt(column[0] ** 2 + column[1] ** 2 + column[2] ** 2)
        middle, half = abs(low[i] + high[i]) / 2.0, (high[i] - low[i]) / 2.0
        total += length * (half * (2.0 * middle + half)
                           + 2.0 * (middle * halves + half * middles + half * halves))
        middles, halves = middles + middle, halves + half
    return float(total)


@nb.njit(cache=True, error_model='numpy')
def _group_bounds(bodies: Bodies, index: int) -> None:
    group = bodies.groups[index]
    count = group.stop - group.start
    for k in range(3):
        group.centre[k] = 0.0
        for s in range(group.start, group.stop):
            group.centre[k] += bodies.points[s, k] / count
    group.radius = group.sigma = group.speed = group.curve = 0.0
    for s in range(group.start, group.stop):
        x = bodies.points[s, 0] - group.centre[0]
        y = bodies.points[s, 1] - group.centre[1]
        z = bodies.points[s, 2] - group.centre[2]
        out = np.sqrt(x * x + y * y + z * z) + bodies.spheres[s].radius
        group.radius = max(group.radius, out)
        group.sigma = max(group.sigma, bodies.spheres[s].sigma)
        group.speed = max(group.speed, bodies.speed[s])
        group.curve = max(group.curve, bodies.curve[s])
