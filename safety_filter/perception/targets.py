"""From attention to the target: which track the policy is about to approach, if that is clear.

Score of a track: attention mass under its mask over a window, divided by its visible area over
that window (a density; 1 is uniform attention). The best track is the target if it leads the
second by a gap for a while, exceeds uniform attention by a floor, does not contradict the words
of the instruction (`Candidate.named`), and no plausible candidate is hidden: a hidden candidate
cannot be pointed at, and the confidence does not show it. A target once selected stays until its
lead is gone (hysteresis). Everything else is no target: stale, unreadable or absent attention, no
lead, a hidden candidate, attention to one class where the words name another. It fails closed:
without a target every track is an obstacle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.params import PerceptionParams

F32 = NDArray[np.float32]
GRID = 64  # masks are kept at this resolution, px
STAMP_TOLERANCE = 0.06  # s between a map's stamp and its picture's


@dataclass(frozen=True)
class AttentionMap:
    """Attention of the selected heads: map (g, g) over the whole picture, >= 0; stamp s of it."""

    stamp: float
    map: F32
    profile_id: str = ""

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


@dataclass(frozen=True)
class Selection:
    """Outcome: the target's track id or None and why; `share` id -> its part of the score."""

    target: int | None
    reason: str
    share: Mapping[int, float]


@dataclass(frozen=True)
class Candidate:
    """A track that could be the target; `hidden`: too little of it shows to be pointed at;
    `named`: the instruction may mean it."""

    id: int
    hidden: bool
    named: bool = True


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


class TargetSelector:
    """Keeps the window of scores and the current target; time is an argument."""

    def __init__(self, params: PerceptionParams) -> None:
        self.params = params
        self.target: int | None = None
        self._pictures: deque[tuple[float, NDArray[np.int32]]] = deque(maxlen=64)
        self._scores: deque[tuple[float, dict[int, tuple[float, float]]]] = deque(maxlen=256)
        self._last_map = float("-inf")
        self._leader: tuple[int, float] | None = None  # who leads, since when
        self._doubt: float | None = None  # since when the target has not led

    def reset(self) -> None:
        """Forget target and attention, as on a new instruction; pictures stay."""
        self.target, self._leader, self._doubt = None, None, None
        self._scores.clear()
        self._last_map = float("-inf")

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
        if attention.stamp <= self._last_map:
            return "attention: not newer than the last map"
        if not self._pictures:
            return "attention: no picture yet"
        stamp, owner = min(self._pictures, key=lambda p: abs(p[0] - attention.stamp))
        if abs(stamp - attention.stamp) > STAMP_TOLERANCE:
            return f"attention: no picture within {STAMP_TOLERANCE} s of its stamp"
        ids = [int(i) for i in np.unique(owner) if i > 0]
        self._scores.append((attention.stamp, density(attention.map, owner, ids)))
        self._last_map = attention.stamp
        return None

    def window(self, now: float, ids: Sequence[int]) -> dict[int, float]:
        """Density of each track over the window that ends at `now`, s."""
        mass: dict[int, float] = dict.fromkeys(ids, 0.0)
        area: dict[int, float] = dict.fromkeys(ids, 0.0)
        for stamp, scores in self._scores:
            if now - stamp <= self.params.attention_window:
                for i, (m, a) in scores.items():
                    if i in mass:
                        mass[i] += m
                        area[i] += a
        return {i: mass[i] / area[i] for i in ids if area[i] > 0}

    def select(self, now: float, candidates: Sequence[Candidate]) -> Selection:
        """Decide at time `now` among the candidates; see the module's text for the rule."""
        p = self.params
        ids = [c.id for c in candidates]
        scores = self.window(now, ids)
        total = sum(scores.values())
        share = {i: s / total for i, s in scores.items()} if total > 0 else {}
        if now - self._last_map > p.attention_age:
            return self._none("attention is stale", share)
        if not scores or total <= 0:
            return self._none("no candidate was attended to", share)
        order = sorted(scores, key=lambda i: -scores[i])
        best = order[0]
        second = scores[order[1]] if len(order) > 1 else 0.0
        lead = scores[best] / max(second, 1e-9)
        named = {c.id for c in candidates if c.named}
        clear = (best in named and lead >= p.target_gap and scores[best] >= p.target_floor)
        if self.target is not None and self.target in named:
            rival = max((s for i, s in scores.items() if i != self.target), default=0.0)
            own = scores.get(self.target, 0.0)
            stays = own >= p.hold_factor * max(p.target_gap * rival, p.target_floor)
            if stays:
                self._doubt, self._leader = None, None
                return Selection(self.target, "", share)
            self._doubt = now if self._doubt is None else self._doubt
        elif self.target is not None:
            self.target = None
        hidden = [c.id for c in candidates if c.hidden and c.named and c.id != best]
        if clear and not hidden:
            if self._leader is None or self._leader[0] != best:
                self._leader = (best, now)
            if now - self._leader[1] >= p.switch_time:
                self.target, self._leader, self._doubt = best, None, None
                return Selection(best, "", share)
        else:
            self._leader = None
        if self.target is not None and self._doubt is not None and \
                now - self._doubt < p.lost_time and scores.get(self.target, 0.0) >= 0.5 * second:
            return Selection(self.target, "", share)
        if best not in named:
            return self._none(f"candidate {best} is not what the instruction names", share)
        if hidden:
            return self._none(f"candidate {hidden[0]} is hidden", share)
        return self._none("no candidate leads clearly", share)

    def _none(self, reason: str, share: Mapping[int, float]) -> Selection:
        """No target; who leads at the moment keeps its time."""
        self.target, self._doubt = None, None
        if reason == "attention is stale":
            self._leader = None
        return Selection(None, reason, share)
