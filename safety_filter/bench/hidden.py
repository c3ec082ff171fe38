"""Can a broken bound be seen at all? Looks for a motion inside the bounds that looks the same.

Sightings of a track at p_i, v_i are explained if some motion with an acceleration of at most a
passes all of them within k standard deviations. Who has only the sightings cannot tell that motion
from the true one, so nobody can notice what broke the bound; where there is none, it was provable.

Accelerations are taken as constant over half the time between two sightings. What is left is a
point in the intersection of balls in the image of a linear map, which alternating projections
find (ADMM, Boyd et al. 2011, section 5.1). Where there is none, what they add up in tends to a
plane that separates the two (Banjac et al. 2019); found, it ends the search. This shares nothing
with the filter's own test but what is declared: the filter asks for a little less than a motion
inside the bounds (membership.py), here motions are built that are inside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safety_filter.core.inputs import ObstacleSample
from safety_filter.core.robot import Array
from safety_filter.core.sightings import ROUNDING, SINGLE
from safety_filter.core.wire import Tracks

PIECES = 4
"""Accelerations between two sightings."""
ITERATIONS = 6000
"""Where there is an explanation, some tens of projections find it, but for those on the edge."""
LOOKED = 20
"""Projections between two looks for a proof that there is none."""
INSIDE = 0.9995
"""Share of each bound that the projections aim at, so that they end inside."""


def explained(samples: Sequence[ObstacleSample], acceleration: float, sigmas: float,
              wider: float = 1.0) -> bool:
    """Return whether every track has a motion inside the bounds, or those times `wider`, that
    explains its sightings."""
    ids = {int(i) for sample in samples for i in sample.tracks['id']}
    return all(_track_explained(samples, i, acceleration, sigmas, wider) for i in ids)


def _track_explained(samples: Sequence[ObstacleSample], track: int, acceleration: float,
                     sigmas: float, wider: float) -> bool:
    seen = [(sample.stamp, sample.tracks[sample.tracks['id'] == track][0]) for sample in samples
            if track in sample.tracks['id']]
    if len(seen) < 2:
        return True
    times = np.array([stamp for stamp, _ in seen])
    tracks = np.array([row for _, row in seen])
    position, velocity = _columns(tracks, 'x y z'), _columns(tracks, 'vx vy vz')
    near = np.maximum(sigmas * np.sqrt(tracks['pxx'].astype(float)), ROUNDING) + SINGLE
    slow = np.maximum(sigmas * np.sqrt(tracks['wxx'].astype(float)), ROUNDING) + SINGLE
    to_position, to_velocity = motion(times)
    pieces = to_position.shape[1] - 2
    pushes = np.eye(pieces, pieces + 2, 2)
    size = wider * np.concatenate([near, slow, np.full(pieces, acceleration)])[:, None]
    maps = np.vstack([to_position, to_velocity, pushes]) / size
    wanted = np.vstack([position - position[0], velocity, np.zeros((pieces, 3))]) / size
    return _meet(maps, wanted)


def _columns(tracks: Tracks, names: str) -> Array:
    return np.column_stack([tracks[name].astype(float) for name in names.split()])


def motion(times: Array) -> tuple[Array, Array]:
    """Return the maps (n, 2 + k) from first position, velocity and k accelerations, one after the
    other, to the positions and the velocities at `times` (n,)."""
    ends = np.interp(np.arange((len(times) - 1) * PIECES + 1) / PIECES, np.arange(len(times)),
                     times)
    begun, lasted = ends[:-1], np.diff(ends)
    since = np.clip(times[:, None] - begun, 0.0, lasted)
    after = np.clip(times[:, None] - begun - lasted, 0.0, None)
    ones, elapsed = np.ones((len(times), 1)), (times - times[0])[:, None]
    return (np.hstack([ones, elapsed, since * since / 2 + since * after]),
            np.hstack([0 * ones, ones, since]))


def _meet(maps: Array, wanted: Array) -> bool:
    """Return whether some z (m, 3) with |maps z - wanted| <= 1 in every row was found."""
    inverse = np.linalg.pinv(maps)
    aim, price = np.zeros_like(wanted), np.zeros_like(wanted)
    for k in range(ITERATIONS):
        off = maps @ (inverse @ (wanted + aim - price)) - wanted
        if np.all(np.sum(off * off, axis=1) <= 1.0):
            return True
        asked = off + price
        length = np.linalg.norm(asked, axis=1, keepdims=True)
        aim = asked * np.minimum(1.0, INSIDE / np.maximum(length, 1e-12))
        price = asked - aim
        if k % LOOKED == LOOKED - 1 and _separates(price - maps @ (inverse @ price), wanted):
            return False
    return False


def _separates(price: Array, wanted: Array) -> bool:
    """Return whether `price` (m, 3), orthogonal to all maps z, proves that there is no z: then
    price.(maps z - wanted) is -price.wanted, and rows of at most 1 make it at most sum |price|."""
    most = float(np.linalg.norm(price, axis=1).sum())
    return -float(np.sum(price * wanted)) > most * (1.0 + 1e-9)
