"""How much faster and farther an obstacle may be by now than what was seen of it says.

Declared are two bounds on its acceleration: `resting_acceleration` while it is no faster than
`resting_speed`, `obstacle_acceleration` from then on. At v, the speed seen and the error covered,
it is that fast no sooner than `slow` = (resting_speed - v) / resting_acceleration later. So s
after the sighting it accelerates at no more than

    A(s) = resting_acceleration up to s = slow, obstacle_acceleration after it

whichever way it turns, and within t it gains, in any direction, a speed of at most V(t), the
integral of A(s), and a way of at most W(t), that of A(s) (t - s), both over 0..t. The rows allow
for these; the watch on the bounds holds sightings against the same A.
"""

from __future__ import annotations

import numba as nb

from safety_filter.core.robot import Record


@nb.njit(cache=True, error_model='numpy')
def resting(speed: float, t: float, p: Record) -> float:
    """Return `slow`, s, or `t` if that is less; `speed` is the greatest that it may have, m/s."""
    gap = p.resting_speed - speed
    if gap < 0.0:
        return 0.0
    return float(t if p.resting_acceleration * t <= gap else gap / p.resting_acceleration)


@nb.njit(cache=True, error_model='numpy')
def push(c: float, t: float, slow: float, rest: float, most: float) -> float:
    """Return the integral of A(s) |s - c| over 0..t, A being `rest` up to `slow`, then `most`."""
    whole = (c * c + (t - c) * (t - c)) / 2.0
    if slow <= c:
        part = c * slow - slow * slow / 2.0
    else:
        part = (c * c + (slow - c) * (slow - c)) / 2.0
    return most * whole - (most - rest) * part


@nb.njit(cache=True, error_model='numpy')
def gained(t: float, slow: float, p: Record) -> float:
    """Return V(t), m/s."""
    early = min(t, slow)
    return float(p.resting_acceleration * early + p.obstacle_acceleration * (t - early))


@nb.njit(cache=True, error_model='numpy')
def way(t: float, slow: float, p: Record) -> float:
    """Return W(t), m."""
    return float(push(t, t, min(t, slow), p.resting_acceleration, p.obstacle_acceleration))
