"""KNOWS (arXiv 2606.09749): attention's target, all else obstacles, one end-effector ellipsoid.

Every 0.05 s, with steps dc (m) and dt (rad) of the hand and a virtual normal n_j per obstacle
(published equations 6 to 12):

    min |dc - dc_nom|^2 + W |dt - dt_nom|^2
    s.t. n_j'dc + g_j'dt + dh_j/dn_j' dn_j >= -gamma h_j,  |dn_j|_inf <= eps,  for every j
    g_j = n_j x Q_R n_j / sqrt(n_j' Q_R n_j)

then n_j <- normalise(n_j + dn_j). The published solver is OSQP; this one finds the same optimum
exactly. Shapes are fitted once, centres follow the tracks, a track that is not seen stays where it
was last. Infeasible: no motion.

gamma and W are not published; readers of the paper name eps 0.05. These are the best of
`safety-filter bench-sweep knows --episodes 8`: of the 48 scenes of its finals, with the shipped
policy and perception, 41 are placed without contact and 7 collide; with eps 0.05 no set came into
the finals.
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
    normal_gradient,
    obstacles_of,
)
from safety_filter.core.qp import INFINITY, DaqpSolver, Problem
from safety_filter.core.wire import Tracks
from safety_filter.sim.world import World

GAMMA, EPS, TURN_WEIGHT = 1.0, 0.02, 1.0
_REGULAR = 1e-6  # weight of dn: without any the QP does not have one solution


def turn_gradient(n: Array, hand: Ellipsoid) -> Array:
    """Gradient (3,) of h for a turn of the hand about the axes of base, equation (10)."""
    return np.asarray(np.cross(n, hand.q @ n) / np.linalg.norm(hand.half @ n))


def problem(step: Array, normals: dict[int, Array], hand: Ellipsoid,
            obstacles: dict[int, Ellipsoid], gamma: float, eps: float, weight: float) -> Problem:
    """The QP (12) for a nominal step (6,), m and rad; x = (dc, dt, dn_1, dn_2, ...)."""
    size = 6 + 3 * len(obstacles)
    diagonal = np.full(size, 2 * _REGULAR)
    diagonal[:3], diagonal[3:6] = 2.0, 2.0 * weight
    gradient = np.zeros(size)
    gradient[:6] = -diagonal[:6] * step
    rows, low = np.zeros((len(obstacles), size)), np.zeros(len(obstacles))
    for j, (key, obstacle) in enumerate(obstacles.items()):
        n = normals[key]
        rows[j, :3], rows[j, 3:6] = n, turn_gradient(n, hand)
        rows[j, 6 + 3 * j:9 + 3 * j] = normal_gradient(n, hand, obstacle)
        low[j] = -gamma * barrier(n, hand, obstacle)
    box = np.concatenate([np.full(6, INFINITY), np.full(size - 6, eps)])
    return Problem(np.diag(diagonal), gradient, rows, np.concatenate([-box, low]),
                   np.concatenate([box, np.full(len(obstacles), INFINITY)]))


class Knows(HandFilter):
    """The filter with its virtual normals and its shapes of the first sight."""

    def __init__(self, gamma: float = GAMMA, eps: float = EPS,
                 weight: float = TURN_WEIGHT) -> None:
        self._gamma, self._eps, self._weight = gamma, eps, weight

    def reset(self, world: World) -> None:
        """See `Guard`."""
        super().reset(world)
        self._normals: dict[int, Array] = {}
        self._first: dict[int, Ellipsoid] = {}
        self._solver = DaqpSolver()

    def obstacles(self, world: World, tracks: Tracks) -> dict[int, Ellipsoid]:
        """Shapes of the first sight at the centres of now, by id."""
        out = {}
        unseen = {int(t["id"]) for t in tracks if t["age"] > 0.0}
        for key, seen in obstacles_of(tracks).items():
            first = self._first.setdefault(key, seen)
            if key not in unseen:
                self._first[key] = first = first._replace(centre=seen.centre)
            out[key] = first
        return out

    def filtered(self, world: World, twist: Array, tracks: Tracks) -> Array:
        """See `HandFilter`."""
        moving, found = hand(world), self.obstacles(world, tracks)
        if not found:
            return twist
        for key, obstacle in found.items():
            if key not in self._normals:
                n = moving.centre - obstacle.centre
                self._normals[key] = n / np.linalg.norm(n)
        qp = problem(PERIOD * twist, self._normals, moving, found, self._gamma, self._eps,
                     self._weight)
        solution = self._solver.solve(qp)
        if not solution.found:
            return np.zeros(6)
        for j, key in enumerate(found):
            n = self._normals[key] + solution.x[6 + 3 * j:9 + 3 * j]
            self._normals[key] = n / np.linalg.norm(n)
        return solution.x[:6] / PERIOD


METHOD = Method("knows", "KNOWS as published, on our perception and attention", Knows,
                "perception", pieces=False)
