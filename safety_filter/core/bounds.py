"""Watches the declared bounds: what the claim rests on must be seen to break, not assumed to hold.

Obstacles. What was seen of a track, each sighting within k standard deviations, has an
explanation if some motion with an acceleration of at most that declared passes all of it. Where
there is none, it is proved that the obstacle accelerated more than declared, or its error is
larger than k sigma, or its id changed hands; that is told. See membership.py for the proof and
sightings.py for what is kept. What some motion and errors within the bounds explain as well is no
proof and is not told: an acceleration of a + b for a time T hides for certain while
b T <= k_v (s_v1 + s_v2) - |the change of error|, so with 2 sigma of 0.02 m/s covered, 20 % above
1 m/s^2 needs up to 0.4 s to show. The search for explanations is spread over the steps, `WORK` of
it a second, so that a break is told some steps after the sighting that proves it. Latency needs no
such watch: it is measured, and its limit is `obstacles_age`.

Arm. How far it moved, as the filter takes it to be now, is compared with how far it was told to,
over about `MEMORY`; the difference, as the motion of its bodies, must stay within
`tracking_error`.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.handle import Handle
from safety_filter.core.inputs import JointSample
from safety_filter.core.kernel import Buffers
from safety_filter.core.robot import Array
from safety_filter.core.sightings import ROUNDING, forget, room, search, sighted
from safety_filter.core.wire import PIECE_STEP

WORK = 16000.0
"""Sightings gone through in a second, at most, in the search for explanations; at 250 Hz and with
as many kept as there is room for, two Newton steps for one track in each step of the filter."""
MEMORY = 0.3
"""Time constant of the comparison of told and done, s."""
HOLD = 1.0
"""A break is told for so many seconds."""


@nb.njit(cache=True, error_model='numpy')
def _strayed(last: Array, elapsed: float, q: Array, between: float, told: Array, before: Array,
             error: Array, jacobian: Array, count: int) -> tuple[float, int]:
    """Add `last` for `elapsed` s to what was told; where a new joint state says that the arm is at
    `q` (n,) now, `between` s after the one before (negative: none is new), update the joint error;
    return how far it moves the body it moves most (m), and its sphere."""
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
        self._kept = room(len(buffers.obstacles))
        self._handle = Handle(self._kept)
        self._open, self._fresh, self._looked = 0, True, False
        self._told, self._before, self._error = np.zeros((3, len(buffers.q)))
        self._sample: JointSample | None = None
        self._ticked: float | None = None
        self._broken: dict[str, tuple[float, str]] = {}

    def forget(self) -> None:
        """Forget what was seen, as after a clock jump."""
        forget(self._kept)
        self._sample, self._ticked = None, None
        self._error[:] = 0.0

    def broken(self, now: float) -> tuple[str, ...]:
        """Return what was broken within `HOLD`, in words."""
        if not self._broken:
            return ()
        self._broken = {k: v for k, v in self._broken.items() if 0.0 <= now - v[0] <= HOLD}
        return tuple(text for _, text in self._broken.values())

    def sighted(self, stamp: float, count: int) -> None:
        """Take the tracks just loaded into the buffers, seen at `stamp`."""
        b = self._buffers
        self._open = sighted(self._handle, b.obstacles, count, stamp, b.gain)

    def search(self, now: float, fresh: bool) -> None:
        """Look for what explains the sightings of open tracks, once a step.

        A step with new sightings (`fresh`) has enough to do, unless the one before had too. The
        first step looks in any case, so that what it calls is compiled from then on.
        """
        wait, self._fresh = fresh and not self._fresh, fresh
        if self._looked and (wait or not self._open):
            return
        self._looked = True
        self._open, track, implied, bound = search(
            self._handle, int(WORK * self._buffers.gain['period'][0]))
        if track >= 0:
            self._broken['obstacle'] = now, (
                f'track {track % PIECE_STEP} moved as if it accelerated at {implied:.2f} m/s^2, '
                f'bound {bound:.2f} (or its error exceeds the sigmas covered)')

    def moved(self, now: float, sample: JointSample, p: FilterParams) -> None:
        """Compare where the arm is now (`q` of the buffers, predicted from `sample`) with where it
        was told to be, once a step before its answer."""
        b, before = self._buffers, self._sample
        elapsed = now - self._ticked if self._ticked is not None else 0.0
        between = -1.0
        if before is None:
            between = math.inf  # nothing to compare with: forgets all
        elif sample is not before:
            between = abs(sample.stamp - before.stamp)
        self._ticked, self._sample = now, sample
        strayed, sphere = _strayed(b.last, elapsed, b.q, between, self._told, self._before,
                                   self._error, b.jacobian, b.sphere_count)
        if strayed > p.tracking_error + ROUNDING:
            group, bodies = int(b.spheres['group'][sphere]), b.robot.bodies
            body = bodies[group] if group < len(bodies) else 'held'
            self._broken['arm'] = now, (
                f'{body} is {1e3 * strayed:.1f} mm from where it was told to be, '
                f'tracking_error {1e3 * p.tracking_error:g} mm')
