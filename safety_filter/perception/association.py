"""Which blob of a picture is which track."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception.blobs import Blob
from safety_filter.perception.kalman import State
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.shape import Measurement
from safety_filter.perception.track import Track

F64 = NDArray[np.float64]
NEVER = 1e6
_SURE = 0.01  # m, sigma of a position that is as good as certain
_GATE_GROWTH = 0.15  # m by which what is uncertain of a position widens the gate at most


def mismatch(track: Track, blob: Blob, seen: Measurement, params: PerceptionParams,
             supports: frozenset[int]) -> float:
    """Squared distance of a sighting from a track, with penalties for class and size; NEVER
    outside the gates."""
    if (track.class_id in supports) != (blob.class_id in supports):
        return NEVER
    offset = seen.centre - track.position
    spread = float(np.sqrt(np.trace(track.state.p[:3, :3])))
    reach = params.gate_distance + min(2 * spread, _GATE_GROWTH)
    if float(offset @ offset) > reach**2:
        return NEVER
    # Sightings that miss a side may be off by as much as the extent they miss.
    slack = np.maximum(np.where(seen.sides, 0.0, track.half - seen.half), 0.0)
    sigma = np.hypot(np.maximum(seen.sigma, 0.005), slack)
    r = (seen.axes * sigma**2) @ seen.axes.T
    cost = track.state.distance(seen.centre, r)
    # Of two tracks that a sighting fits, the one that says where it is more closely has it.
    vague = max(0.0, float(np.linalg.slogdet((track.state.p[:3, :3] + r) / _SURE**2)[1]))
    # A turn within one step must not cost the track its id, nor a fall out of the hand.
    reach = 0.06 if track.attached else 0.02
    turn = State(track.state.x, track.state.p + np.eye(6) * reach**2)
    cost = min(cost, 4.0 + turn.distance(seen.centre, r))
    if cost > params.gate_chi2:
        return NEVER
    known = UNKNOWN_CLASS not in (track.class_id, blob.class_id)
    if track.class_id != blob.class_id:
        cost += 14.0 if known else 2.0
    ratio = np.log(np.maximum(seen.half, 0.005) / np.maximum(track.half, 0.005))
    full = seen.sides & track.clean
    return cost + vague + 4.0 * float(np.sum(ratio[full] ** 2)) + (0.0 if track.confirmed else 1.0)


def associate(tracks: Sequence[Track], blobs: Sequence[Blob], raw: Sequence[Measurement],
              params: PerceptionParams, supports: frozenset[int]) -> list[tuple[int, int]]:
    """Indices of tracks and of the blobs, with their sightings `raw`, that are theirs."""
    if not tracks or not blobs:
        return []
    cost = np.full((len(tracks), len(blobs)), NEVER)
    off = (np.array([m.centre for m in raw])
           - np.array([t.position for t in tracks])[:, None])
    # Most pairs are farther apart than any gate; the cost of the others decides.
    widest = params.gate_distance + _GATE_GROWTH + 1e-6
    for i, j in zip(*np.nonzero((off**2).sum(axis=2) < widest**2), strict=True):
        cost[i, j] = mismatch(tracks[i], blobs[j], raw[j], params, supports)
    rows, cols = linear_sum_assignment(cost)
    return [(int(r), int(c)) for r, c in zip(rows, cols, strict=True) if cost[r, c] < NEVER]
