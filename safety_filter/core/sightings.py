"""The sightings of each track, the motion that explains them, and the search for one.

A new sighting is first tried with two ways to go on: to what was seen itself, and at a constant
acceleration towards it. Where neither is inside the bounds, the track is open, and `search` goes
on with one Newton step of membership.py after another, so much a step of the filter, until the
sightings kept are explained or proved to have no explanation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np

from safety_filter.core.membership import (
    BETWEEN,
    EXPLAINED,
    LEVEL,
    OPEN,
    PROVED,
    RADIUS,
    SCALE,
    SEEN,
    SHARES,
    STAMP,
    STATE,
    WIDTH,
    Window,
    improve,
    window,
)
from safety_filter.core.robot import Array, Ints, Record, Structs
from safety_filter.core.surge import push, resting
from safety_filter.core.wire import Role

KEPT = 32
"""Sightings kept of a track."""
SPACING = 0.025
"""Sightings of a track that come faster give way to newer ones until they are so far apart, s."""
LONGEST = 2.0
"""Sightings further apart than this have nothing to do with each other, s."""
SHORTEST = 1e-3
"""A sighting that comes sooner after another, or at the same stamp, is passed over, s."""
ROUNDING = 1e-4
"""Errors of sightings are taken for at least so large, m and m/s."""
SLIGHT = 1e-3
"""Bounds on an acceleration are taken for at least so large, m/s^2."""
SINGLE = 1e-6
"""What float32 makes of positions within 8 m, m; more than what it makes of velocities."""
TRIES = 200
"""Newton steps, at most, until a track is given up until its next sighting."""
PACE = 6.0
"""Bandwidth with which a motion follows what is seen, rad/s."""
_WITHIN = 0.99
"""Share of the bound it uses."""
_HELD = int(Role.HELD)
_FIRST, _COUNT, _STATE, _TRIED = range(4)
_IDLE, _QUEUED, _PARKED = range(3)
"""Explained; open; open, but not looked at until its next sighting."""
_USED, _TURN, _WAITING = range(3)
_EVENLY = (SHARES ** 2 + (1.0 - SHARES) ** 2) / 2.0
"""What `push` gives for 1 s at 1 m/s^2."""


class Kept(NamedTuple):
    """Of s tracks; all arrays are allocated once."""

    keys: Ints         # (s,) -1 for none
    last: Array        # (s,) stamp of the newest sighting, s
    states: Ints       # (s, 4) first node, how many, whether open, Newton steps so far
    levels: Array      # (s,) see `improve`
    nodes: Array       # (s, KEPT, WIDTH) a ring of nodes, with the integrals themselves
    guesses: Ints      # (s,) where the k-th track of the last message is kept
    counts: Ints       # (3,) places in use, whose turn it is, tracks that wait
    window: Window


def room(tracks: int) -> Kept:
    """Return room for so many tracks."""
    return Kept(
        np.full(tracks, -1), np.zeros(tracks), np.zeros((tracks, 4), np.int64), np.zeros(tracks),
        np.zeros((tracks, KEPT, WIDTH)), np.zeros(tracks, np.int64), np.zeros(3, np.int64),
        window(KEPT))


def forget(kept: Kept) -> None:
    """Forget all tracks."""
    kept.keys[:] = -1
    kept.states[:] = 0
    kept.counts[:] = 0


@nb.njit(cache=True, error_model='numpy')
def _find(w: Kept, key: int, stamp: float, hint: int) -> int:
    """Return where a track is kept: where it was, or in a free place, or in the stalest."""
    if hint < w.counts[_USED] and w.keys[hint] == key:
        return hint
    stalest = 0
    for s in range(w.counts[_USED]):
        if w.keys[s] == key:
            return s
        if w.last[s] < w.last[stalest]:
            stalest = s
    s = stalest
    if w.counts[_USED] < len(w.keys) and not (w.counts[_USED] > 0
                                              and stamp - w.last[stalest] > LONGEST):
        s = w.counts[_USED]
        w.counts[_USED] += 1
    _drop(w, s)
    w.keys[s] = key
    return s


@nb.njit(cache=True, error_model='numpy')
def _drop(w: Kept, s: int) -> None:
    """Forget the track kept at `s`; the place is the first to be used again."""
    _set(w, s, _IDLE)
    w.keys[s], w.last[s], w.states[s, _COUNT] = -1, -np.inf, 0


@nb.njit(cache=True, error_model='numpy')
def _set(w: Kept, s: int, state: int) -> None:
    w.counts[_WAITING] += (state == _QUEUED) - (w.states[s, _STATE] == _QUEUED)
    w.states[s, _STATE] = state


@nb.njit(cache=True, error_model='numpy')
def sighted(handle: Any, obstacles: Structs, count: int, stamp: float, gain: Structs) -> int:
    """Add the first `count` of `obstacles` (ELLIPSOID_DTYPE), seen at `stamp`; return how many
    tracks are open."""
    w, p = handle.arrays, gain[0]
    for i in range(count):
        e = obstacles[i]
        s = _find(w, e.key, stamp, w.guesses[i])
        w.guesses[i] = s
        if e.role == _HELD:  # it moves as the arm does
            _drop(w, s)
            continue
        t = stamp - w.last[s]
        if w.states[s, _COUNT] == 0 or not 0.0 <= t <= LONGEST:
            _set(w, s, _IDLE)
            w.states[s, _FIRST], w.states[s, _COUNT] = 0, 0
        elif t < SHORTEST:
            continue
        _append(w, s, e, stamp, p)
    return int(w.counts[_WAITING])


@nb.njit(cache=True, error_model='numpy')
def _crowded(w: Kept, s: int, n: int) -> bool:
    """Return whether the last of `n` sightings is too close to the one before it to be kept."""
    if n < 2:
        return False
    newest, old = (w.states[s, _FIRST] + n - 1) % KEPT, (w.states[s, _FIRST] + n - 2) % KEPT
    return bool(w.nodes[s, newest, STAMP] - w.nodes[s, old, STAMP] < SPACING)


@nb.njit(cache=True, error_model='numpy')
def _append(w: Kept, s: int, e: Record, stamp: float, p: Record) -> None:
    """Add a sighting to a track; it is open then unless an easy way to go on explains it."""
    n, x, waits = w.states[s, _COUNT], w.nodes, w.states[s, _STATE] != _IDLE
    if _crowded(w, s, n) and (not waits or _crowded(w, s, n - 1)):
        n -= 1
    if n == KEPT:
        w.states[s, _FIRST], n = (w.states[s, _FIRST] + 1) % KEPT, n - 1
    w.states[s, _COUNT], w.last[s] = n + 1, stamp
    to = (w.states[s, _FIRST] + n) % KEPT
    x[s, to, STAMP] = stamp
    for k in range(3):
        x[s, to, SEEN + k] = x[s, to, STATE + k] = e.centre[k]
        x[s, to, SEEN + 3 + k] = x[s, to, STATE + 3 + k] = e.velocity[k]
    x[s, to, RADIUS] = max(p.sigma_position * e.p_sigma, ROUNDING) + SINGLE
    x[s, to, RADIUS + 1] = max(p.sigma_velocity * e.v_sigma, ROUNDING) + SINGLE
    if n == 0:
        return
    old = (w.states[s, _FIRST] + n - 1) % KEPT
    _bound(x, s, to, old, p)
    if not (_reached(x, s, to, old) or _followed(x, s, to, old)) or waits:
        _set(w, s, _QUEUED)
        w.states[s, _TRIED], w.levels[s] = 0, LEVEL


@nb.njit(cache=True, error_model='numpy')
def _bound(x: Array, s: int, to: int, old: int, p: Record) -> None:
    """Fill in the integrals that bound what happens between two sightings of a track.

    It may have been faster at the first of them than it was seen to be, by the radius of that.
    """
    t = x[s, to, STAMP] - x[s, old, STAMP]
    speed = np.sqrt(x[s, old, SEEN + 3] ** 2 + x[s, old, SEEN + 4] ** 2
                    + x[s, old, SEEN + 5] ** 2)
    slow = resting(speed + x[s, old, RADIUS + 1], t, p)
    rest, most = max(p.resting_acceleration, SLIGHT), max(p.obstacle_acceleration, SLIGHT)
    for m in range(BETWEEN):
        if slow == 0.0 or slow == t:
            x[s, to, SCALE + m] = (rest if slow == t else most) * t * t * _EVENLY[m]
        else:
            x[s, to, SCALE + m] = push(SHARES[m] * t, t, slow, rest, most)


@nb.njit(cache=True, error_model='numpy')
def _reached(x: Array, s: int, to: int, old: int) -> bool:
    """Return whether a motion from one node to another is inside the bounds, as the rows say: they
    are a + c b, with a and b as below."""
    t = x[s, to, STAMP] - x[s, old, STAMP]
    aa, ab, bb = 0.0, 0.0, 0.0
    for k in range(STATE, STATE + 3):
        a = x[s, old, k] - x[s, to, k] + t * x[s, to, k + 3]
        b = x[s, old, k + 3] - x[s, to, k + 3]
        aa += a * a
        ab += a * b
        bb += b * b
    for m in range(BETWEEN):
        c = SHARES[m] * t
        if not aa + c * (2.0 * ab + c * bb) <= x[s, to, SCALE + m] ** 2:
            return False
    return True


@nb.njit(cache=True, error_model='numpy')
def _followed(x: Array, s: int, to: int, old: int) -> bool:
    """Go on from `old` at a constant acceleration inside the bounds, towards what was seen; return
    whether that comes near enough."""
    now, was, t = x[s, to], x[s, old], x[s, to, STAMP] - x[s, old, STAMP]
    size, most = 0.0, np.inf
    for k in range(3):
        ahead = was[STATE + k] + was[STATE + 3 + k] * t
        now[STATE + k] = (PACE * PACE * (now[SEEN + k] - ahead)
                          + 2.0 * PACE * (now[SEEN + 3 + k] - was[STATE + 3 + k]))
        size += now[STATE + k] ** 2
    for m in range(BETWEEN):
        most = min(most, _WITHIN * now[SCALE + m] / (t * t * abs(0.5 - SHARES[m]) + 1e-30))
    share = min(1.0, most / max(np.sqrt(size), 1e-30))
    off, slip = 0.0, 0.0
    for k in range(3):
        a = share * now[STATE + k]
        now[STATE + k] = was[STATE + k] + (was[STATE + 3 + k] + a * t / 2.0) * t
        now[STATE + 3 + k] = was[STATE + 3 + k] + a * t
        off += (now[STATE + k] - now[SEEN + k]) ** 2
        slip += (now[STATE + 3 + k] - now[SEEN + 3 + k]) ** 2
    return bool(off <= now[RADIUS] ** 2 and slip <= now[RADIUS + 1] ** 2)


@nb.njit(cache=True, error_model='numpy')
def search(handle: Any, work: int) -> tuple[int, int, float, float]:
    """Do Newton steps on open tracks in turn: one, or as many as go through `work` nodes.

    Returns how many tracks are still open; and of one for whose sightings there is proof that no
    motion inside the bounds explains them (-1: none) the key, the acceleration that they imply at
    least, and its bound, m/s^2. It starts anew from its newest sighting.
    """
    w = handle.arrays
    track, implied, bound = -1, 0.0, 0.0
    s, most = w.counts[_TURN], work
    while w.counts[_WAITING] > 0:
        s = (s + 1) % w.counts[_USED]
        place, ring = w.states[s], w.nodes[s]
        if place[_STATE] != _QUEUED:
            continue
        n, nodes, verdict, level = place[_COUNT], w.window.nodes, OPEN, w.levels[s]
        if n > work and work < most:
            break
        w.counts[_TURN] = s
        for i in range(n):
            nodes[i] = ring[(place[_FIRST] + i) % KEPT]
            for m in range(SCALE, SCALE + BETWEEN):
                nodes[i, m] = 1.0 / nodes[i, m]
        while verdict == OPEN and place[_TRIED] < TRIES:
            verdict, level = improve(w.window, n, level)
            place[_TRIED] += 1
            work -= n
            if work < n:
                break
        if verdict == PROVED:
            track, implied, bound = w.keys[s], w.window.implied[0], w.window.implied[1]
            ring[0] = nodes[n - 1]
            ring[0, STATE:] = ring[0, SEEN:RADIUS]
            place[_FIRST], place[_COUNT] = 0, 1
            _set(w, s, _IDLE)
            break
        for i in range(n):
            ring[(place[_FIRST] + i) % KEPT, STATE:] = nodes[i, STATE:]
        w.levels[s] = level
        if verdict == EXPLAINED:
            _set(w, s, _IDLE)
        elif place[_TRIED] >= TRIES:
            _set(w, s, _PARKED)
    return int(w.counts[_WAITING]), int(track), float(implied), float(bound)
