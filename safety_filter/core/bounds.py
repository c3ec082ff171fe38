"""Watches the declared bounds: what the claim rests on must be seen to break, not assumed to hold.

Obstacles. A new sighting at p2, v2 and an older one at p1, v1 of the same track, t apart, both
within k standard deviations and with an acceleration of at most a between, meet

    |v2 - v1| <= a t + k_v (s_v1 + s_v2)
    |p2 - p1 - v1 t| <= a t^2 / 2 + k_p (s_p1 + s_p2) + k_v s_v1 t

A pair that does not is proof: the obstacle accelerated more than declared, or its error is larger
than k sigma, or its id changed hands. A break that hides within the declared noise proves nothing
and is not seen. Latency needs no such watch: it is measured, and its limit is `obstacles_age`.

Arm. How far it moved is compared with how far it was told to, over about `MEMORY`; the difference,
as the motion of its bodies, must stay within `tracking_error`.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import JointSample
from safety_filter.core.kernel import Buffers
from safety_filter.core.robot import Array, Ints, Structs
from safety_filter.core.wire import Role

KEPT = 8
"""Older sightings that a new one is compared with."""
MEMORY = 0.3
"""Time constant of the comparison of told and done, s."""
HOLD = 1.0
"""A break is told for so many seconds."""
_ROUNDING = 1e-4
_HELD = int(Role.HELD)


@nb.njit(cache=True, error_model='numpy')
def _implied(new: Structs, count: int, old: Structs, old_count: int, t: float,
             gain: Structs) -> tuple[float, int, float]:
    """Return the largest excess over the bound, its track, and the acceleration it implies."""
    p = gain[0]
    worst, track, found = 0.0, -1, 0.0
    for i in range(count):
        b = new[i]
        j = i if i < old_count and old[i].id == b.id else 0
        if j == 0:
            while j < old_count and old[j].id != b.id:
                j += 1
        if j >= old_count or b.role == _HELD or old[j].role == _HELD:
            continue
        a = old[j]
        most = p.resting_acceleration if a.speed <= p.resting_speed else p.obstacle_acceleration
        turned, strayed = 0.0, 0.0
        for k in range(3):
            turned += (b.velocity[k] - a.velocity[k]) ** 2
            strayed += (b.centre[k] - a.centre[k] - a.velocity[k] * t) ** 2
        turned = np.sqrt(turned) - p.sigma_velocity * (a.v_sigma + b.v_sigma) - _ROUNDING
        strayed = (np.sqrt(strayed) - p.sigma_position * (a.p_sigma + b.p_sigma)
                   - p.sigma_velocity * a.v_sigma * t - _ROUNDING)
        implied = max(turned / t, 2.0 * strayed / (t * t))
        if implied - most > worst:
            worst, track, found = implied - most, b.id, implied
    return worst, track, found


@nb.njit(cache=True, error_model='numpy')
def _strayed(told: Array, q: Array, before: Array, keep: float, jacobian: Array, count: int,
             error: Array) -> tuple[float, int]:
    """Update the joint error; return how far it moves the body it moves most, and its sphere."""
    for i in range(len(error)):
        error[i] = keep * (error[i] + q[i] - before[i] - told[i])
        told[i] = 0.0
    most, where = 0.0, 0
    for s in range(count):
        square = 0.0
        for r in range(3):
            total = 0.0
            for i in range(len(error)):
                total += jacobian[s, i, r] * error[i]
            square += total * total
        if square > most:
            most, where = square, s
    return np.sqrt(most), where


class Bounds:
    """What was found broken lately, in words; see the module's text."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        empty = np.zeros_like(buffers.obstacles)
        self._kept = [empty.copy() for _ in range(KEPT)]
        self._counts: Ints = np.zeros(KEPT, np.int64)
        self._stamps = np.full(KEPT, -np.inf)
        self._next = 0
        self._error = np.zeros_like(buffers.q)
        self._told = np.zeros_like(buffers.q)
        self._sample: JointSample | None = None
        self._ticked: float | None = None
        self._broken: dict[str, tuple[float, str]] = {}

    def forget(self) -> None:
        """Forget what was seen, as after a clock jump."""
        self._counts[:] = 0
        self._stamps[:] = -np.inf
        self._sample, self._ticked = None, None
        self._error[:] = 0.0

    def broken(self, now: float) -> tuple[str, ...]:
        """Return what was broken within `HOLD`, in words."""
        if not self._broken:
            return ()
        self._broken = {k: v for k, v in self._broken.items() if 0.0 <= now - v[0] <= HOLD}
        return tuple(text for _, text in self._broken.values())

    def sighted(self, now: float, stamp: float, count: int) -> None:
        """Compare the tracks just loaded into the buffers with older ones."""
        new = self._buffers.obstacles
        worst, track, implied = 0.0, -1, 0.0
        for kept, old_count, old in zip(self._kept, self._counts, self._stamps, strict=True):
            t = stamp - old
            if old_count and 1e-3 < t < 2.0:
                found = _implied(new, count, kept, int(old_count), t, self._buffers.gain)
                if found[0] > worst:
                    worst, track, implied = found
        if track >= 0:
            self._broken['obstacle'] = now, (
                f'track {track} moved as if it accelerated at {implied:.2f} m/s^2, bound '
                f'{implied - worst:.2f} (or its error exceeds the sigmas covered)')
        self._kept[self._next][:count] = new[:count]
        self._counts[self._next], self._stamps[self._next] = count, stamp
        self._next = (self._next + 1) % KEPT

    def moved(self, now: float, sample: JointSample, p: FilterParams) -> None:
        """Compare what the arm did with what it was told, once a step before its answer."""
        b = self._buffers
        if self._ticked is not None:
            self._told += b.last * (now - self._ticked)
        self._ticked = now
        before = self._sample
        if sample is before or len(sample.q) != len(self._error):
            return
        self._sample = sample
        if before is None:
            self._told[:] = 0.0
            return
        keep = math.exp(-abs(sample.stamp - before.stamp) / MEMORY)
        strayed, sphere = _strayed(self._told, sample.q, before.q, keep, b.jacobian,
                                   b.sphere_count, self._error)
        if strayed > p.tracking_error + _ROUNDING:
            group, bodies = int(b.spheres['group'][sphere]), b.robot.bodies
            body = bodies[group] if group < len(bodies) else 'held'
            self._broken['arm'] = now, (
                f'{body} is {1e3 * strayed:.1f} mm from where it was told to be, '
                f'tracking_error {1e3 * p.tracking_error:g} mm')
