"""Parts that belong together: a detector sees known things in parts of unknown ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception.blobs import Blob

F32 = NDArray[np.float32]
_IN_AIR = 0.04  # m above its ground from which a thing hangs in the air
_IN_HAND = 0.12  # m from the hand within which it may hang there


def merge_parts(blobs: Sequence[Blob], sure_score: float, join: float,
                tool: F32) -> list[Blob]:
    """Return the blobs with parts of unknown things joined to the rest of them.

    An unsure detection, or one in the air away from the hand, is one thing with a cluster that it
    touches (less than `join`, m, away), of the class of the larger of both. Two unsure ones that
    touch in the air are one thing as well, of no known class if they differ. `tool`: position
    (3,) of the hand, which may hold things.
    """
    out = list(blobs)
    for part in blobs:
        if part.class_id == UNKNOWN_CLASS or part.support or not any(b is part for b in out):
            continue
        hangs, unsure = _hangs(part, tool), part.score < sure_score
        if not (unsure or hangs):
            continue
        for i, other in enumerate(out):
            alike = unsure and hangs and other is not part and not other.support and (
                other.score < sure_score and _hangs(other, tool))
            if not (other.class_id == UNKNOWN_CLASS or alike):
                continue
            if _touch(part.points, other.points, join):
                out[i] = _joined(part, other)
                out = [b for b in out if b is not part]
                break
    return out


def _hangs(blob: Blob, tool: F32) -> bool:
    """Whether a blob is in the air away from the hand."""
    return bool(blob.points[:, 2].min() > blob.ground + _IN_AIR
                and np.linalg.norm(blob.points.mean(axis=0) - tool) >= _IN_HAND)


def _joined(part: Blob, other: Blob) -> Blob:
    """The blob of both."""
    major = max(part, other, key=lambda b: len(b.rows))
    class_id, score = major.class_id, major.score
    if other.class_id not in (UNKNOWN_CLASS, part.class_id):
        class_id, score = UNKNOWN_CLASS, 0.5
    return Blob(np.concatenate([other.rows, part.rows]), np.concatenate([other.cols, part.cols]),
                np.concatenate([other.points, part.points]), class_id, score,
                np.concatenate([other.hidden, part.hidden]), other.ground)


def _touch(a: F32, b: F32, distance: float) -> bool:
    """Whether two clouds (n, 3) and (m, 3) come closer than `distance`, m."""
    gap = np.maximum(a.min(axis=0) - b.max(axis=0), b.min(axis=0) - a.max(axis=0))
    if float(gap.max()) > distance:
        return False
    nearest, _ = cKDTree(b).query(a[::2], distance_upper_bound=distance)
    return bool(np.isfinite(nearest).any())
