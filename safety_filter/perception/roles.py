"""What is held, and which role each track plays."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.wire import Role
from safety_filter.perception.coast import LANDED
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.track import Track

F64 = NDArray[np.float64]
EMPTY = 0.004  # m of opening below which nothing is between the fingers
SLACK = 0.012  # m by which the opening may exceed the width of what it holds
REACH = 0.005  # m beyond a thing at which the fingertips may hold it
NARROW = 0.4  # share of that width which the opening is at least: 0.57 of a can held by its edge
CLOSED = 0.005  # m that fingers close round a thing before they are closed on it
MOVED = 0.03  # m of the tool's motion with which a thing has moved if it was carried
APART = 0.01  # m against the tool within that
NEW = 0.5  # s for which a track is a new one
STILL = 0.02  # m/s of closing below which the fingers have come to rest
CLEAR = 0.10  # m from the tool at which an object let go of is an obstacle again
GRACE = 3.0  # s after which it is in any case
SETTLE = 1.0  # s within which an object let go of comes to lie
FALL = 0.03  # m of fall after which it may lie otherwise than it was held
FALLEN = 1.0  # m/s, the same downwards: how long it has been falling is not known


@dataclass(frozen=True)
class Grip:
    """The gripper at one picture: stamp s, opening m, pose (4, 4) of the tool."""

    stamp: float
    opening: float
    t_base_tool: F64


@dataclass
class _Inside:
    """What speaks for holding a thing that is between the fingers.

    widest: m, largest opening round it; since then the thing, at `local` (3,) in the tool frame,
    has moved as the tool does, from `tool` (3,) in base.
    """

    widest: float
    tool: F64
    local: F64


class HoldDetector:
    """Decides which track is in the hand: one between the fingers that they have closed on, or
    that has moved with the tool, until they open or it is seen to stay behind.

    What has slipped out of them is taken again only for what speaks for it from then on.
    """

    def __init__(self, params: PerceptionParams, supports: frozenset[int]) -> None:
        self.params = params
        self.supports = supports
        self.held: int | None = None
        self.released: tuple[int, float] | None = None  # id, when
        self._grips: deque[Grip] = deque(maxlen=30)
        self._anchor = np.zeros(3)  # where in the tool frame it was taken
        self._start = np.zeros(3)  # where the tool was in base
        self._carried = False  # it has moved with the tool since
        self._inside: dict[int, _Inside] = {}
        # m, largest opening since the last slip; nobody knows how wide they were at the start
        self._widest = np.inf
        self._height = 0.0  # m, at which it was let go of

    def update(self, grip: Grip, tracks: Sequence[Track]) -> int | None:
        """Return the id of the held track, or None; `tracks` are at the time of `grip`."""
        p = self.params
        self._grips.append(grip)
        self._widest = max(self._widest, grip.opening)
        by_id = {t.id: t for t in tracks}
        if self.held is not None:
            track = by_id.get(self.held)
            opened = track is None or self._opened(grip, track)
            if opened or track is None or self._lost(grip, track):
                self._release(grip, track, opened)
        inside = [t for t in tracks if self._between_fingers(grip, t, SLACK)]
        self._inside = {t.id: self._seen_inside(grip, t) for t in inside}
        if self.held is None and EMPTY < grip.opening < p.held_opening and self._at_rest(grip):
            gripped = [t for t in inside if self._gripped(grip, t)]
            if gripped:
                nearest = min(gripped, key=lambda t: float(np.linalg.norm(in_tool(grip, t))))
                self.held, self._anchor = nearest.id, in_tool(grip, nearest)
                self._start = grip.t_base_tool[:3, 3].copy()
                nearest.attached, nearest.falling = True, None
                self.released, self._carried = None, False
        if self.released is not None:
            track = by_id.get(self.released[0])
            if track is not None and grip.stamp - self.released[1] <= SETTLE \
                    and self._height - float(track.position[2]) > FALL:
                # What was known of its shape is not what will be seen of it.
                track.clean, track.template = False, None
            if track is None or grip.stamp - self.released[1] > GRACE or \
                    float(np.linalg.norm(in_tool(grip, track))) > CLEAR + float(track.half.max()):
                self.released = None
        return self.held

    def _opened(self, grip: Grip, track: Track) -> bool:
        """Whether the fingers have let go of what they held."""
        return grip.opening >= self.params.held_opening or \
            grip.opening > self._width(grip, track) + 2 * SLACK

    def _lost(self, grip: Grip, track: Track) -> bool:
        """Whether the fingers are empty, or what they held is seen to move against them.

        How it shows changes as it is carried, slowly; what was not carried yet stands there.
        """
        if grip.opening <= EMPTY:
            return True
        if track.blob < 0:
            return False
        slip = in_tool(grip, track) - self._anchor
        slipped = float(np.linalg.norm(slip))
        way = float(np.linalg.norm(grip.t_base_tool[:3, 3] - self._start))
        self._carried |= way > MOVED and slipped < 0.5 * way
        if slipped > self.params.held_slip + 0.01 * (track.visible < 0.5):
            return True
        if self._carried:
            self._anchor = self._anchor + 0.1 * slip
        return False

    def _release(self, grip: Grip, track: Track | None, opened: bool) -> None:
        if track is not None:
            track.attached = False
            # It no longer moves as the tool does; how it moves is to be seen.
            state = State.at(track.position, track.state.p[:3, :3], LANDED)
            if opened or self._carried:
                # If it falls, then away from the arm, which need not shy from that.
                state.p[5, 5] = FALLEN**2
                track.falling = grip.stamp
                self.released = (track.id, grip.stamp)
                self._height = float(state.x[2])
            track.motion, track.sight = Motion.carried(state), state
        if not opened:
            self._inside, self._widest = {}, grip.opening
        self.held = None

    def _at_rest(self, grip: Grip) -> bool:
        """Whether the fingers have stopped: no faster than STILL over the last 0.1 s or more."""
        before = [g for g in self._grips if grip.stamp - g.stamp >= 0.06]
        if not before:
            return False
        last = before[-1]
        return abs(grip.opening - last.opening) <= STILL * (grip.stamp - last.stamp)

    def _width(self, grip: Grip, track: Track) -> float:
        """Extent of the track across the fingers (y of the tool frame), m."""
        return float(2 * _half_in_tool(grip, track)[1])

    def _between_fingers(self, grip: Grip, track: Track, slack: float) -> bool:
        """Whether a thing is where the fingers close, and they reach it to within `slack` m."""
        if track.class_id in self.supports or not track.confirmed:
            return False
        reach = np.minimum(_half_in_tool(grip, track) + slack, self.params.held_distance)
        reach[1] = 0.5 * self.params.held_opening
        return bool(np.all(np.abs(in_tool(grip, track)) <= reach))

    def _seen_inside(self, grip: Grip, track: Track) -> _Inside:
        """What speaks for holding a thing that is between the fingers now."""
        local, tool = in_tool(grip, track), grip.t_base_tool[:3, 3].copy()
        found = self._inside.get(track.id)
        if found is None:
            # What fingers closed on unseen, or before the start, begins its track between them.
            new = grip.stamp - track.first_seen <= NEW
            return _Inside(self._widest if new else grip.opening, tool, local)
        found.widest = max(found.widest, grip.opening)
        if track.blob >= 0 and float(np.linalg.norm(local - found.local)) > APART:
            found.tool, found.local = tool, local
        return found

    def _moved(self, grip: Grip, track: Track) -> bool:
        """Whether a thing between the fingers is seen to have moved with the tool."""
        way = grip.t_base_tool[:3, 3] - self._inside[track.id].tool
        return track.blob >= 0 and float(np.linalg.norm(way)) > MOVED

    def _gripped(self, grip: Grip, track: Track) -> bool:
        """Whether the fingers hold a thing that is between them.

        Its width is known to a centimetre or two: fingers may hold it across its corners, or by
        its edge. What decides is that they closed on it, or that it moves with them.
        """
        width = self._width(grip, track)
        if not self._between_fingers(grip, track, REACH):
            return False
        if grip.opening > width + SLACK or (track.clean and grip.opening < NARROW * width):
            return False
        closed = self._inside[track.id].widest - grip.opening >= CLOSED
        return closed or self._moved(grip, track)


def _half_in_tool(grip: Grip, track: Track) -> F64:
    """Half extents (3,) of a track's box along the axes of the tool frame, m."""
    c, s = np.cos(track.yaw), np.sin(track.yaw)
    axes = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(np.abs(grip.t_base_tool[:3, :3].T @ axes) @ track.box)


def in_tool(grip: Grip, track: Track) -> F64:
    """Position (3,) of a track in the tool frame, m."""
    t = grip.t_base_tool
    return np.asarray(t[:3, :3].T @ (track.position - t[:3, 3]))


def role_of(track: Track, supports: frozenset[int], target: int | None, held: int | None,
            released: int | None) -> Role:
    """The role of a track; anything not said to be something else is an obstacle.

    A support never becomes a target: that the policy heads for it shows in p_target. What the hand
    has just let go of stays a target, because the fingers are still round it. A target whose shape
    holds something else as well is none.
    """
    if track.id == held:
        return Role.HELD
    if track.class_id in supports:
        return Role.SUPPORT
    if track.id in (target, released) and track.joined is None:
        return Role.TARGET
    return Role.OBSTACLE
