"""Where a thing that no picture shows can be: behind what hides it.

While its expected place is hidden, a track coasts. When that place is seen empty the thing has
not vanished: it has moved, out of sight. Of all motions that it may have made since it was last
seen, `Hideout` keeps those that end where nothing can be seen, as a set of samples (a particle
filter whose only measurements are negative ones; Koch, "On negative information in tracking",
Fusion 2004).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.camera import depths_at
from safety_filter.perception.kalman import State

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Hides = Callable[[F64, F64], NDArray[np.bool_]]
"""Positions (n, 3) of the centre of a thing, and its half extents (3,) along the view axes ->
which of these places (n,) lie behind something nearer."""

SAMPLES = 200
_BLUR = (0.004, 0.02)  # m, m/s that samples are moved apart when they are drawn again
_ACROSS = (np.linspace(-0.8, 0.8, 5), np.linspace(-0.4, 0.8, 5))  # of a silhouette, upper part
_RIM = 0.015  # m that what hides must be nearer than the thing


class Hideout:
    """Samples of where a thing that is out of sight is, and how it moves: positions and
    velocities (n, 3), m and m/s in `base`."""

    def __init__(self, position: F64, velocity: F64) -> None:
        self.position, self.velocity = position, velocity

    @classmethod
    def since(cls, sight: State, unseen: float, accel: float, speed: float,
              rng: np.random.Generator) -> Hideout:
        """Motions since a thing was last seen in the state `sight`, `unseen` s ago.

        Each goes on as before, changes its velocity on the level by at most `accel` m/s^2 from
        some time on for some time, and keeps what it then has; none becomes faster than `speed`
        m/s by that.
        """
        n = 5 * SAMPLES  # most of them will be ruled out at once
        start = rng.multivariate_normal(sight.x, sight.p, n, method="cholesky")
        position, velocity = start[:, :3], start[:, 3:]
        begin = rng.uniform(0.0, unseen, (n, 1))
        lasts = rng.uniform(0.0, 1.0, (n, 1)) * (unseen - begin)
        angle, size = rng.uniform(-np.pi, np.pi, n), accel * np.sqrt(rng.uniform(0.0, 1.0, n))
        push = np.stack([size * np.cos(angle), size * np.sin(angle), np.zeros(n)], axis=1)
        change = push * lasts
        after = velocity + change
        fast = np.linalg.norm(after, axis=1, keepdims=True)
        limit = np.maximum(speed, np.linalg.norm(velocity, axis=1, keepdims=True))
        change = after * np.minimum(1.0, limit / np.maximum(fast, 1e-9)) - velocity
        moved = velocity * unseen + change * (unseen - begin - lasts / 2)
        return cls(position + moved, velocity + change)

    def advance(self, dt: float, accel: float, rng: np.random.Generator) -> None:
        """Move on for `dt` s, with accelerations drawn anew."""
        push = accel * rng.normal(0.0, 1.0, self.velocity.shape) * [1.0, 1.0, 0.0]
        self.position = self.position + self.velocity * dt + push * dt**2 / 2
        self.velocity = self.velocity + push * dt

    def keep(self, possible: NDArray[np.bool_], rng: np.random.Generator) -> bool:
        """Keep SAMPLES of those that are still possible (n,), some more than once if they are
        few; False if there are none."""
        left = rng.permutation(np.flatnonzero(possible))[:SAMPLES]
        if len(left) == 0:
            return False
        more = SAMPLES - len(left)
        chosen = np.concatenate([left, rng.choice(left, more)])
        self.position, self.velocity = self.position[chosen], self.velocity[chosen]
        if more:
            self.position[-more:] += rng.normal(0.0, _BLUR[0], (more, 3))
            self.velocity[-more:] += rng.normal(0.0, _BLUR[1], (more, 3)) * [1, 1, 0]
        return True

    @property
    def state(self) -> State:
        """Mean and covariance of the samples."""
        x = np.concatenate([self.position, self.velocity], axis=1)
        return State(x.mean(0), np.cov(x.T) + 1e-8 * np.eye(6))

    @property
    def bound(self) -> State:
        """Mean of the samples, and a covariance of which two sigma hold all their positions."""
        state = self.state
        off = self.position - state.x[:3]
        far = np.einsum("ni,ij,nj->n", off, np.linalg.inv(state.p[:3, :3]), off).max()
        return State(state.x, state.p * max(1.0, float(far) / 4.0))


def behind(positions: F64, half: F64, depth: F32, k: F64, t_base_cam: F64,
           ) -> NDArray[np.bool_]:
    """Whether a thing at each of `positions` (n, 3) would lie behind something nearer, or outside
    the picture (n,).

    half: its half extents (3,) along the view axes, m. Sampled over the upper part of its
    silhouette; pixels without depth count as hidden. Where its own surface would show, or what is
    behind it, it is not there.
    """
    u, w = np.meshgrid(*_ACROSS)
    ray = positions - t_base_cam[:3, 3]
    ray[:, 2] = 0.0
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-9)
    side = np.stack([-ray[:, 1], ray[:, 0], np.zeros(len(ray))], axis=1)
    points = (positions[:, None] + half[0] * u.reshape(1, -1, 1) * side[:, None]
              + half[2] * w.reshape(1, -1, 1) * np.array([0.0, 0.0, 1.0]))
    seen, z = depths_at(points.reshape(-1, 3), depth, k, t_base_cam)
    nearer = (seen < z - half[1] - _RIM).reshape(len(positions), -1)
    return np.asarray(nearer.mean(axis=1) > 0.4)
