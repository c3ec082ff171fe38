"""The velocity box of one step: velocity, acceleration and viability limits; it always holds
"brake".

Viability in discrete time: after one period at v, braking at a each period stops within
v^2 / (2 a) + v Ts / 2 + a Ts^2 / 8; requiring that to be at most the distance d to the limit gives
v <= sqrt(2 a d) - a Ts / 2, and v - a Ts meets the same bound one period later.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from safety_filter.core.robot import Array


@nb.njit(cache=True, error_model='numpy')
def velocity_box(q: Array, last: Array, lower: Array, upper: Array, velocity: Array,
                 acceleration: Array, period: float, low: Array, high: Array) -> None:
    """Fill the bounds `low`, `high` (n,) of the next joint velocity, rad/s.

    `last` is the previous command. The acceleration limit is never given up, not even to bring a
    joint back that is already beyond its position limit.
    """
    for i in range(len(q)):
        step = acceleration[i] * period
        slowest = max(-velocity[i], _viable(q[i] - lower[i], acceleration[i], period, -1.0))
        fastest = min(velocity[i], _viable(upper[i] - q[i], acceleration[i], period, 1.0))
        slowest, fastest = min(slowest, 0.0), max(fastest, 0.0)
        low[i] = min(max(last[i] - step, slowest), last[i] + step)
        high[i] = max(min(last[i] + step, fastest), last[i] - step)


@nb.njit(cache=True, error_model='numpy')
def _viable(distance: float, acceleration: float, period: float, sign: float) -> float:
    """Return the fastest velocity (signed) towards a limit `distance` ahead."""
    reach = np.sqrt(2.0 * acceleration * max(distance, 0.0)) - acceleration * period / 2.0
    return float(sign * min(max(reach, 0.0), max(distance, 0.0) / period))


@nb.njit(cache=True, error_model='numpy')
def brake(last: Array, acceleration: Array, period: float, low: Array, high: Array,
          out: Array) -> None:
    """Fill `out` with one period of braking along `last`, within the box `low`..`high`.

    All joints slow down in proportion, the slowest-braking one at its limit, so that the arm stays
    on its path; a joint near its limit brakes harder.
    """
    scale = 0.0
    for i in range(len(last)):
        scale = max(scale, abs(last[i]) / (acceleration[i] * period))
    keep = max(0.0, 1.0 - 1.0 / scale) if scale > 1.0 else 0.0
    for i in range(len(last)):
        out[i] = min(max(last[i] * keep, low[i]), high[i])
