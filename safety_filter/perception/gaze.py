"""What the attention over one camera's pictures says of each track.

Score of a track: attention mass under its mask over a window, divided by its visible area over
that window (a density; 1 is uniform attention).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.camera import project
from safety_filter.perception.track import Track

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
GRID = 64  # masks are kept at this resolution, px
STAMP_TOLERANCE = 0.06  # s between a map's stamp and its picture's
_NEAREST = 0.02  # m before a camera, nearer than which nothing is drawn
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


@dataclass(frozen=True)
class AttentionMap:
    """Attention of the selected heads: map (g, g) over the whole picture, >= 0; stamp s of it."""

    stamp: float
    map: F32

    def fault(self) -> str | None:
        """What makes the map unusable, or None."""
        m = self.map
        if m.ndim != 2 or min(m.shape) < 2:
            return f"attention: expected a (g, g) map with g >= 2, got shape {m.shape}"
        if not np.isfinite(m).all() or m.min() < 0:
            return "attention: expected finite values >= 0"
        if not m.sum() > 0:
            return "attention: the map is empty"
        return None


def density(attention: F32, owner: NDArray[np.int32], ids: Sequence[int],
            ) -> dict[int, tuple[float, float]]:
    """Return id -> (mass, area), both as fractions of the whole picture.

    attention (g, h) >= 0; owner (GRID, GRID) track ids.
    """
    scaled: F32 = np.asarray(cv2.resize(np.asarray(attention, np.float32), (GRID, GRID),
                                        interpolation=cv2.INTER_NEAREST), np.float32)
    scaled = scaled / max(float(scaled.sum()), 1e-12)
    out = {}
    for i in ids:
        mask = owner == i
        area = int(mask.sum())
        if area:
            out[i] = (float(scaled[mask].sum()), area / GRID**2)
    return out


def drawn(tracks: Iterable[Track], fov: float, t_base_cam: F64) -> NDArray[np.int32]:
    """Track of each pixel (GRID, GRID), 0 for none, of a square picture that was never looked at:
    the boxes of the tracks as a pinhole camera sees them, the nearest in front.

    fov: vertical and horizontal field of view, degrees. t_base_cam: (4, 4) pose of the optical
    frame.
    """
    focal, centre = GRID / 2 / np.tan(np.radians(fov) / 2), (GRID - 1) / 2
    k = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1.0]])
    eye = t_base_cam[:3, 3]
    owner = np.zeros((GRID, GRID), np.int32)
    for track in sorted(tracks, key=lambda t: -float(np.linalg.norm(t.position - eye))):
        c, s = np.cos(track.yaw), np.sin(track.yaw)
        turned = (_CORNERS * track.box) @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        uv, z = project(track.position + turned, k, t_base_cam)
        before = uv[z > _NEAREST]
        if len(before) < 3:
            continue
        corners = np.clip(np.rint(before), -8 * GRID, 8 * GRID).astype(np.int32)
        cv2.fillConvexPoly(owner, cv2.convexHull(corners), track.id)
    return owner


class Gaze:
    """The maps and pictures of one camera; time is an argument."""

    def __init__(self) -> None:
        self.last = float("-inf")  # stamp of the newest map used, s
        self._pictures: deque[tuple[float, NDArray[np.int32]]] = deque(maxlen=64)
        self._scores: deque[tuple[float, dict[int, tuple[float, float]]]] = deque(maxlen=256)

    def forget(self) -> None:
        """Forget what was attended to, as on a new instruction; pictures stay."""
        self._scores.clear()
        self.last = float("-inf")

    def picture(self, stamp: float, owner: NDArray[np.int32]) -> None:
        """Remember which track owns which pixel (H, W; 0 for none) in the picture at `stamp`."""
        small = cv2.resize(owner.astype(np.float32), (GRID, GRID),
                           interpolation=cv2.INTER_NEAREST)
        self._pictures.append((stamp, small.astype(np.int32)))

    def attend(self, attention: AttentionMap) -> str | None:
        """Add a map; returns why it was not used, or None.

        A map no newer than the last one and a map whose picture was not seen count as none.
        """
        fault = attention.fault()
        if fault is not None:
            return fault
        if attention.stamp <= self.last:
            return "attention: not newer than the last map"
        if not self._pictures:
            return "attention: no picture yet"
        stamp, owner = min(self._pictures, key=lambda p: abs(p[0] - attention.stamp))
        if abs(stamp - attention.stamp) > STAMP_TOLERANCE:
            return f"attention: no picture within {STAMP_TOLERANCE} s of its stamp"
        ids = [int(i) for i in np.unique(owner) if i > 0]
        self._scores.append((attention.stamp, density(attention.map, owner, ids)))
        self.last = attention.stamp
        return None

    def window(self, now: float, length: float, ids: Sequence[int]) -> dict[int, float]:
        """Density of each track that showed in the last `length` s before `now`, s."""
        mass: dict[int, float] = dict.fromkeys(ids, 0.0)
        area: dict[int, float] = dict.fromkeys(ids, 0.0)
        for stamp, scores in self._scores:
            if now - stamp <= length:
                for i, (m, a) in scores.items():
                    if i in mass:
                        mass[i] += m
                        area[i] += a
        return {i: mass[i] / area[i] for i in ids if area[i] > 0}
