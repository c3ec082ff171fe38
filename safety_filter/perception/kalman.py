"""Constant-velocity Kalman filters in 3-D, one a track, with jumps in velocity for surprises.

State (6,): position, velocity in `base`. Process noise is white acceleration (Bar-Shalom, Li,
Kirubarajan, Estimation with Applications to Tracking and Navigation, 6.2.2, discretised
continuous model).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

F64 = NDArray[np.float64]
_I3 = np.eye(3)
_I6 = np.eye(6)


def transition(dt: float) -> F64:
    """State transition (6, 6) over `dt` s."""
    f = np.eye(6)
    f[:3, 3:] = dt * _I3
    return f


def process_noise(dt: float, accel: float) -> F64:
    """Covariance (6, 6) that an acceleration of sigma `accel` m/s^2, held over dt, adds."""
    q = np.zeros((6, 6))
    q[:3, :3] = dt**4 / 4 * _I3
    q[:3, 3:] = q[3:, :3] = dt**3 / 2 * _I3
    q[3:, 3:] = dt**2 * _I3
    return q * accel**2


def jump_noise(dt: float, speed: float, along: F64) -> F64:
    """Covariance (6, 6) after dt of a jump in velocity of sigma `speed` m/s along a unit vector.

    The jump counts as made right after the last sighting, so that one surprise is not answered
    with more speed than it shows.
    """
    shape = np.outer(along, along) * speed**2
    q = np.zeros((6, 6))
    q[:3, :3] = dt**2 * shape
    q[:3, 3:] = q[3:, :3] = dt * shape
    q[3:, 3:] = shape
    return q


@njit(cache=True)  # type: ignore[untyped-decorator]
def _quadratic(s: F64, e: F64) -> float:
    """e' S^-1 e of a symmetric positive definite S (3, 3), by Cholesky's square roots."""
    l00 = np.sqrt(s[0, 0])
    l10, l20 = s[1, 0] / l00, s[2, 0] / l00
    l11 = np.sqrt(s[1, 1] - l10 * l10)
    l21 = (s[2, 1] - l20 * l10) / l11
    l22 = np.sqrt(s[2, 2] - l20 * l20 - l21 * l21)
    y0 = e[0] / l00
    y1 = (e[1] - l10 * y0) / l11
    y2 = (e[2] - l20 * y0 - l21 * y1) / l22
    return y0 * y0 + y1 * y1 + y2 * y2


@dataclass
class State:
    """Mean x (6,) and covariance p (6, 6)."""

    x: F64
    p: F64

    @classmethod
    def at(cls, position: F64, covariance: F64, speed: float) -> State:
        """A thing first seen at `position` (3,), at rest give or take `speed` m/s."""
        p = np.zeros((6, 6))
        p[:3, :3] = covariance
        p[3:, 3:] = speed**2 * _I3
        return cls(np.concatenate([position, np.zeros(3)]), p)

    def predicted(self, dt: float, accel: float) -> State:
        """The state `dt` s later."""
        f = transition(dt)
        return State(f @ self.x, f @ self.p @ f.T + process_noise(dt, accel))

    def slowed(self, factor: float) -> State:
        """The state with its velocity, and what is uncertain of it, times `factor`."""
        scale = np.repeat([1.0, factor], 3)
        return State(scale * self.x, scale[:, None] * self.p * scale)

    def confined(self, position: float, speed: float) -> State:
        """The state with sigmas of at most `position` m and `speed` m/s along any direction."""
        most = [np.sqrt(np.linalg.eigvalsh(self.p[i:i + 3, i:i + 3])[-1]) for i in (0, 3)]
        scale = np.repeat([min(1.0, position / max(most[0], 1e-12)),
                           min(1.0, speed / max(most[1], 1e-12))], 3)
        return State(self.x, scale[:, None] * self.p * scale)

    def distance(self, z: F64, r: F64) -> float:
        """Squared Mahalanobis distance of a position z (3,) with covariance r (3, 3)."""
        e = z - self.x[:3]
        return float(_quadratic(self.p[:3, :3] + r, e))

    def updated(self, z: F64, r: F64) -> State:
        """The state after seeing position z (3,) with covariance r (3, 3); Joseph form."""
        s = self.p[:3, :3] + r
        gain = np.linalg.solve(s, self.p[:3, :]).T
        x = self.x + gain @ (z - self.x[:3])
        a = _I6.copy()
        a[:, :3] -= gain
        p = a @ self.p @ a.T + gain @ r @ gain.T
        return State(x, (p + p.T) / 2)
