"""Watches the declared bounds: what the claim rests on must be seen to break, not assumed to hold.

Obstacles. A new sighting at p2, v2 and an older one at p1, v1 of the same track, t apart, both
within k standard deviations and with an acceleration of at most a between, meet

    |v2 - v1| <= a t + k_v (s_v1 + s_v2)
    |p2 - p1 - v1 t| <= a t^2 / 2 + k_p (s_p1 + s_p2) + k_v s_v1 t
    |p2 - p1 - v2 t| <= a t^2 / 2 + k_p (s_p1 + s_p2) + k_v s_v2 t

A pair that does not is proof: the obstacle accelerated more than declared, or its error is larger
than k sigma, or its id changed hands. What some motion and errors within the bounds explain as
well is no proof and is not told: an acceleration of a + b for a time T hides for certain while
b T <= k_v (s_v1 + s_v2) - |the change of error|, so with 2 sigma of 0.02 m/s covered, 20 % above
1 m/s^2 needs up to 0.4 s to show; hence sightings of `WINDOW` are kept. What comes and goes
between two sightings does not show either. Latency needs no such watch: it is measured, and its
limit is `obstacles_age`.

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
from safety_filter.core.robot import Array, Ints, Record, Structs
from safety_filter.core.wire import Role

KEPT = 16
"""Older sightings that a new one is compared with, so many over `WINDOW`."""
WINDOW = 0.5
"""How far they reach back at least, s; those that come faster than 32 Hz are not all kept."""
LONGEST = 2.0
"""Sightings further apart than this are not compared, s."""
MEMORY = 0.3
"""Time constant of the comparison of told and done, s."""
HOLD = 1.0
"""A break is told for so many seconds."""
_ROUNDING = 1e-4
_HELD = int(Role.HELD)


SIGHTING_DTYPE = np.dtype([
    ('id', 'i8'), ('speed', 'f8'), ('p_sigma', 'f8'), ('v_sigma', 'f8'),
    ('centre', 'f8', 3), ('velocity', 'f8', 3)], align=True)
"""What is kept of an element of ELLIPSOID_DTYPE."""


@nb.njit(cache=True, error_model='numpy')
def _resting(speed: float, t: float, p: Record) -> float:
    """Return for how much of `t` s the bound of what rests holds; then it is fast enough to be
    moving."""
    gap = p.resting_speed - speed
    if gap < 0.0:
        return 0.0
    return t if p.resting_acceleration * t <= gap else gap / p.resting_acceleration


@nb.njit(cache=True, error_model='numpy')
def _implied(new: Structs, count: int, stamp: float, kept: Structs, counts: Ints, stamps: Array,
             gain: Structs) -> tuple[float, int, float]:
    """Return the largest excess over the bound, its track, and the acceleration it implies.

    `kept` (KEPT, tracks) are older sightings, `counts` tracks of each at `stamps`.
    """
    p = gain[0]
    worst, track, found = 0.0, -1, 0.0
    for slot in range(len(kept)):
        t = stamp - stamps[slot]
        if not 1e-3 < t < LONGEST:
            continue
        for i in range(count):
            b = new[i]
            j = i
            if i >= counts[slot] or kept[slot, i].id != b.id:
                j = 0
                while j < counts[slot] and kept[slot, j].id != b.id:
                    j += 1
            if j >= counts[slot] or b.role == _HELD:
                continue
            a = kept[slot, j]
            slow = _resting(a.speed, t, p)
            most = p.resting_acceleration * slow + p.obstacle_acceleration * (t - slow)
            turned, ahead, behind = 0.0, 0.0, 0.0
            for k in range(3):
                turned += (b.velocity[k] - a.velocity[k]) ** 2
                ahead += (b.centre[k] - a.centre[k] - a.velocity[k] * t) ** 2
                behind += (b.centre[k] - a.centre[k] - b.velocity[k] * t) ** 2
            turned = np.sqrt(turned) - p.sigma_velocity * (a.v_sigma + b.v_sigma) - _ROUNDING
            seen = p.sigma_position * (a.p_sigma + b.p_sigma) + _ROUNDING
            ahead = np.sqrt(ahead) - p.sigma_velocity * a.v_sigma * t - seen
            behind = np.sqrt(behind) - p.sigma_velocity * b.v_sigma * t - seen
            late = p.obstacle_acceleration - p.resting_acceleration
            for implied, bound in (
                    (turned / t, most / t),
                    (2.0 * ahead / t ** 2, p.resting_acceleration + late * (1.0 - slow / t) ** 2),
                    (2.0 * behind / t ** 2,
                     p.obstacle_acceleration - late * (slow / t) ** 2)):
                if implied - bound > worst:
                    worst, track, found = implied - bound, b.id, implied
    return worst, track, found


@nb.njit(cache=True, error_model='numpy')
def _keep(new: Structs, count: int, kept: Structs) -> int:
    """Copy the first `count` elements of `new` that are not held to `kept`; return how many."""
    n = 0
    for i in range(count):
        a, b = new[i], kept[n]
        if a.role == _HELD:
            continue
        b.id, b.speed, b.p_sigma, b.v_sigma = a.id, a.speed, a.p_sigma, a.v_sigma
        for k in range(3):
            b.centre[k], b.velocity[k] = a.centre[k], a.velocity[k]
        n += 1
    return n


@nb.njit(cache=True, error_model='numpy')
def _strayed(last: Array, elapsed: float, q: Array, between: float, told: Array, before: Array,
             error: Array, jacobian: Array, count: int) -> tuple[float, int]:
    """Add `last` for `elapsed` s to what was told; at a new joint state `q` (n,), `between` s
    after the one before (negative: none is new), update the joint error; return how far it moves
    the body it moves most (m), and its sphere."""
    for i in range(len(told)):
        told[i] += last[i] * elapsed
    if between < 0.0:
        return 0.0, 0
    keep = np.exp(-between / MEMORY)
    for i in range(len(told)):
        error[i] = keep * (error[i] + q[i] - before[i] - told[i])
        told[i], before[i] = 0.0, q[i]
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
        self._kept = np.zeros((KEPT, len(buffers.obstacles)), SIGHTING_DTYPE)
        self._counts: Ints = np.zeros(KEPT, np.int64)
        self._stamps = np.full(KEPT, -np.inf)
        self._newest = 0
        self._told, self._before, self._error = np.zeros((3, len(buffers.q)))
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
        new, gain = self._buffers.obstacles, self._buffers.gain
        worst, track, implied = _implied(new, count, stamp, self._kept, self._counts,
                                         self._stamps, gain)
        if track >= 0:
            self._broken['obstacle'] = now, (
                f'track {track} moved as if it accelerated at {implied:.2f} m/s^2, bound '
                f'{implied - worst:.2f} (or its error exceeds the sigmas covered)')
        if stamp - self._stamps[self._newest] >= WINDOW / KEPT:
            self._newest = slot = (self._newest + 1) % KEPT
            self._counts[slot] = _keep(new, count, self._kept[slot])
            self._stamps[slot] = stamp

    def moved(self, now: float, sample: JointSample, p: FilterParams) -> None:
        """Compare what the arm did with what it was told, once a step before its answer."""
        b, before = self._buffers, self._sample
        if len(sample.q) != len(self._error):
            return
        elapsed = now - self._ticked if self._ticked is not None else 0.0
        between = -1.0
        if before is None:
            between = math.inf  # nothing to compare with: forgets all
        elif sample is not before:
            between = abs(sample.stamp - before.stamp)
        self._ticked, self._sample = now, sample
        strayed, sphere = _strayed(b.last, elapsed, sample.q, between, self._told, self._before,
                                   self._error, b.jacobian, b.sphere_count)
        if strayed > p.tracking_error + _ROUNDING:
            group, bodies = int(b.spheres['group'][sphere]), b.robot.bodies
            body = bodies[group] if group < len(bodies) else 'held'
            self._broken['arm'] = now, (
                f'{body} is {1e3 * strayed:.1f} mm from where it was told to be, '
                f'tracking_error {1e3 * p.tracking_error:g} mm')
