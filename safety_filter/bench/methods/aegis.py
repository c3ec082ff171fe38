"""AEGIS (arXiv 2512.11891): one obstacle named at the start, one end-effector ellipsoid.

Barrier, with hand i at p_i, obstacle j at p_j, half-shapes S = R diag(axes) R' and a virtual
direction z (published: equation of h_ij):

    h = (-|S_j S_i^-1 z| + (p_j - p_i)' S_i^-1 z - 1) / |S_i^-1 z|

which is h(n) of ellipsoid.py with -n = S_i^-1 z / |S_i^-1 z|. Every 0.05 s, the variant of its
Table 1 with translation only:

    min |v - v_nom|^2 + |u - alpha mu|^2 over v (3,) in m/s, u (3,)
    s.t. dh/dp_i v + mu P u + alpha h >= 0,    P = I - z z',  mu = dh/dz,  alpha = 10

then z <- normalise(z + 0.05 P u). No slack. The obstacle and its shape are those of the start,
from the true state here: an oracle in place of the vision-language model and of the depth fit.
"""

from __future__ import annotations

import numpy as np

from safety_filter.bench.methods.base import Array, Method
from safety_filter.bench.methods.ellipsoid import (
    PERIOD,
    Ellipsoid,
    HandFilter,
    barrier,
    hand,
    named,
    normal_gradient,
)
from safety_filter.core.wire import Tracks
from safety_filter.sim.world import World

ALPHA = 10.0  # 1/s, published


def published_barrier(z: Array, hand: Ellipsoid, obstacle: Ellipsoid) -> float:
    """h_ij as published, for a direction z (3,) from the hand to the obstacle."""
    a = np.linalg.solve(hand.half, z / np.linalg.norm(z))
    top = -np.linalg.norm(obstacle.half @ a) + (obstacle.centre - hand.centre) @ a - 1.0
    return float(top / np.linalg.norm(a))


def normal_of(z: Array, hand: Ellipsoid) -> Array:
    """The unit vector n (3,) of ellipsoid.py for a virtual direction z."""
    a = np.linalg.solve(hand.half, z)
    return np.asarray(-a / np.linalg.norm(a))


def direction_gradient(z: Array, hand: Ellipsoid, obstacle: Ellipsoid) -> Array:
    """mu = dh/dz (3,), by the chain rule through n(z)."""
    n = normal_of(z, hand)
    inverse = np.linalg.inv(hand.half)
    slope = -(np.eye(3) - np.outer(n, n)) @ inverse / np.linalg.norm(inverse @ z)
    return np.asarray(slope.T @ normal_gradient(n, hand, obstacle))


def solve(v_nom: Array, z: Array, hand: Ellipsoid, obstacle: Ellipsoid,
          alpha: float = ALPHA) -> tuple[Array, Array]:
    """The velocity (3,) and the change of z (3,) per second: the QP's exact solution.

    One inequality and a weight of one: the projection of the nominal point on a half space.
    """
    n = normal_of(z, hand)
    mu = direction_gradient(z, hand, obstacle)
    project = np.eye(3) - np.outer(z, z)
    row = np.concatenate([n, project @ mu])
    point = np.concatenate([v_nom, alpha * mu])
    missing = -(row @ point + alpha * barrier(n, hand, obstacle))
    if missing > 0.0:
        point = point + row * missing / (row @ row)
    return point[:3], project @ point[3:]


class Aegis(HandFilter):
    """The filter with its one obstacle and its virtual direction."""

    def reset(self, world: World) -> None:
        """See `Guard`."""
        super().reset(world)
        self._obstacle: Ellipsoid | None = None
        self._named = False
        self._z = np.zeros(3)

    def filtered(self, world: World, twist: Array, tracks: Tracks) -> Array:
        """See `HandFilter`."""
        moving = hand(world)
        if not self._named:
            self._named = True
            found = named(world, tracks)
            if found is not None:
                self._obstacle = found[1]
                self._z = self._obstacle.centre - moving.centre
                self._z /= np.linalg.norm(self._z)
        if self._obstacle is None:
            return twist
        velocity, turn = solve(twist[:3], self._z, moving, self._obstacle)
        self._z = self._z + PERIOD * turn
        self._z /= np.linalg.norm(self._z)
        return np.concatenate([velocity, twist[3:]])


METHOD = Method("aegis", "AEGIS as published, its obstacle from the true state at the start",
                Aegis, "start", pieces=False)
