"""What the published end-effector filters share: one ellipsoid of the hand, and its barrier.

With n a unit vector from the obstacle to the hand, the gap along it between the ellipsoids
(c, Q) of hand R and obstacle O, Q = R diag(axes)^2 R', is

    h(n) = n'(c_R - c_O) - sqrt(n' Q_R n) - sqrt(n' Q_O n).

h(n) >= 0 for one n means that they are apart. The hand's ellipsoid is the one published with
AEGIS (arXiv 2512.11891) for the same gripper: semi-axes 0.06, 0.12, 0.11 m, 0.08 m behind the
fingertips.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from safety_filter.bench.methods.base import Array, Step
from safety_filter.core.wire import Role, Tracks
from safety_filter.sim.world import World

HAND_AXES = np.array([0.06, 0.12, 0.11])  # m, in the tool frame: y is along the fingers' opening
HAND_BEHIND = 0.08  # m behind the tool frame's origin, along its z
PERIOD = 0.05  # s, of the published control loop (20 Hz)


class Ellipsoid(NamedTuple):
    """Centre (3,) m and half-shape S (3, 3) = R diag(axes) R', so that Q = S S."""

    centre: Array
    half: Array

    @property
    def q(self) -> Array:
        """The shape matrix Q (3, 3), m^2."""
        return np.asarray(self.half @ self.half)


def ellipsoid(centre: Array, rotation: Array, axes: Array) -> Ellipsoid:
    """The ellipsoid with semi-axes `axes` along the columns of `rotation`."""
    return Ellipsoid(np.asarray(centre, float), rotation @ np.diag(axes) @ rotation.T)


def hand(world: World) -> Ellipsoid:
    """The ellipsoid of hand and fingers for the arm as it is."""
    position, rotation = world.tool_pose()
    return ellipsoid(position - HAND_BEHIND * rotation[:, 2], rotation, HAND_AXES)


def barrier(n: Array, hand: Ellipsoid, obstacle: Ellipsoid) -> float:
    """h(n) in m for a unit vector n (3,) that points from the obstacle to the hand."""
    return float(n @ (hand.centre - obstacle.centre)
                 - np.linalg.norm(hand.half @ n) - np.linalg.norm(obstacle.half @ n))


def normal_gradient(n: Array, hand: Ellipsoid, obstacle: Ellipsoid) -> Array:
    """Gradient (3,) of h with respect to n, KNOWS equation (11)."""
    return np.asarray(hand.centre - obstacle.centre
                      - hand.q @ n / np.linalg.norm(hand.half @ n)
                      - obstacle.q @ n / np.linalg.norm(obstacle.half @ n))


def obstacles_of(tracks: Tracks) -> dict[int, Ellipsoid]:
    """The ellipsoids of what these filters avoid, by id.

    The published rule counts everything but the target, also what is in the hand and what things
    are placed on. That freezes the arm as soon as something is carried, so both are left out: in
    favour of the baselines.
    """
    out = {}
    for t in tracks[tracks["role"] == int(Role.OBSTACLE)]:
        rotation = Rotation.from_quat([t["qx"], t["qy"], t["qz"], t["qw"]]).as_matrix()
        out[int(t["id"])] = ellipsoid(np.array([t["x"], t["y"], t["z"]], float), rotation,
                                      np.array([t["sx"], t["sy"], t["sz"]], float))
    return out


def in_the_way(obstacles: dict[int, Ellipsoid], start: Array,
               goals: list[NDArray[np.float64]]) -> int | None:
    """Id of the obstacle nearest to the way start - goals, seen from above; None without any."""
    best: tuple[float, int] | None = None
    points = [start, *goals]
    for key, e in sorted(obstacles.items()):
        distance = min(_to_segment(e.centre[:2], a[:2], b[:2])
                       for a, b in pairwise(points))
        if best is None or distance < best[0]:
            best = (distance, key)
    return None if best is None else best[1]


def named(world: World, tracks: Tracks) -> tuple[int, Ellipsoid] | None:
    """The scene's obstacle with its id; of several the one nearest to the way as it is now.

    Stands for the vision-language model that names one obstacle at the start of an episode.
    `tracks` are true ones, whose ids count the scene's specs from 1.
    """
    scene = world.scene
    meant = {1 + i for i in scene.obstacles}
    found = {k: e for k, e in obstacles_of(tracks).items() if k in meant}
    goals = [np.asarray(s.position) for s in (scene.target_spec, scene.destination_spec)]
    key = in_the_way(found, world.tool_pose()[0], goals)
    return None if key is None else (key, found[key])


def _to_segment(p: Array, a: Array, b: Array) -> float:
    along = b - a
    share = np.clip((p - a) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    return float(np.linalg.norm(a + share * along - p))


class HandFilter:
    """Runs a twist filter at the published rate; between its ticks the filtered twist is held."""

    def reset(self, world: World) -> None:
        """See `Guard`."""
        self._next = 0.0
        self._held, self._change = np.zeros(6), np.zeros(6)

    def filtered(self, world: World, twist: Array, tracks: Tracks) -> Array:
        """The twist (6,) to send in place of `twist`, base frame."""
        raise NotImplementedError

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> Step:
        """See `Guard`; the change is that of the last tick."""
        if twist is None:
            return Step(np.zeros(7), 0.0, "no command")
        if tracks is None:
            return Step(np.zeros(7), float(np.linalg.norm(twist[:3])), "STOPPED perception")
        if world.time >= self._next - 1e-9:
            self._next = world.time + PERIOD
            self._held = self.filtered(world, twist, tracks)
            self._change = self._held - twist
        change = float(np.linalg.norm(self._change[:3]))
        state = "FILTERED" if np.abs(self._change).max() > 1e-6 else "PASS"
        return Step(world.resolve(self._held), change, state)
