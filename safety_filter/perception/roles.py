"""What is held, and which role each track plays."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.wire import Role
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.track import Track

F64 = NDArray[np.float64]
EMPTY = 0.004  # m of opening below which nothing is between the fingers
SLACK = 0.012  # m by which the opening may exceed the width of what it holds
STILL = 0.02  # m/s of closing below which the fingers have come to rest
CLEAR = 0.10  # m from the tool at which an object let go of is an obstacle again
GRACE = 3.0  # s after which it is in any case
SETTLE = 1.0  # s within which an object let go of comes to lie
FALL = 0.03  # m of fall after which it may lie otherwise than it was held
LET_GO = 0.1  # m/s, sigma of the velocity of an object let go of, if it moves then
FALLEN = 1.0  # m/s, the same downwards: how long it has been falling is not known


@dataclass(frozen=True)
class Grip:
    """The gripper at one picture: stamp s, opening m, pose (4, 4) of the tool."""

    stamp: float
    opening: float
    t_base_tool: F64


class HoldDetector:
    """Decides which track is in the hand: fingers closed around it, and it moves with the tool."""

    def __init__(self, params: PerceptionParams, supports: frozenset[int]) -> None:
        self.params = params
        self.supports = supports
        self.held: int | None = None
        self.released: tuple[int, float] | None = None  # id, when
        self._grips: deque[Grip] = deque(maxlen=30)
        self._anchor: F64 | None = None  # where in the tool frame it was taken
        self._height = 0.0  # m, at which it was let go of

    def update(self, grip: Grip, tracks: Sequence[Track]) -> int | None:
        """Return the id of the held track, or None; `tracks` are at the time of `grip`."""
        p = self.params
        self._grips.append(grip)
        by_id = {t.id: t for t in tracks}
        if self.held is not None:
            track = by_id.get(self.held)
            if track is None or not self._still_held(grip, track):
                self._release(grip, track)
        if self.held is None and EMPTY < grip.opening < p.held_opening and self._at_rest(grip):
            inside = [t for t in tracks if self._between_fingers(grip, t)]
            if inside:
                nearest = min(inside, key=lambda t: float(np.linalg.norm(in_tool(grip, t))))
                self.held, self._anchor = nearest.id, in_tool(grip, nearest)
                nearest.attached, nearest.falling = True, None
                self.released = None
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

    def _still_held(self, grip: Grip, track: Track) -> bool:
        """Not opened, not empty, and not slipped against the tool where it is seen."""
        if not EMPTY < grip.opening < self.params.held_opening:
            return False
        if grip.opening > self._width(grip, track) + 2 * SLACK:
            return False
        if track.blob < 0 or self._anchor is None:
            return True
        slip = in_tool(grip, track) - self._anchor
        if float(np.linalg.norm(slip)) > self.params.held_slip + 0.01 * (track.visible < 0.5):
            return False
        self._anchor = self._anchor + 0.1 * slip
        return True

    def _release(self, grip: Grip, track: Track | None) -> None:
        if track is not None:
            track.attached = False
            # It no longer moves as the tool does; how it moves is to be seen. If it falls, then
            # away from the arm, which need not shy from that.
            state = State.at(track.position, track.state.p[:3, :3], LET_GO)
            state.p[5, 5] = FALLEN**2
            track.motion, track.sight, track.falling = Motion.carried(state), state, grip.stamp
            self.released = (track.id, grip.stamp)
            self._height = float(state.x[2])
        self.held, self._anchor = None, None

    def _at_rest(self, grip: Grip) -> bool:
        """Whether the fingers have stopped: no faster than STILL over the last 0.1 s or more."""
        before = [g for g in self._grips if grip.stamp - g.stamp >= 0.06]
        if not before:
            return False
        last = before[-1]
        return abs(grip.opening - last.opening) <= STILL * (grip.stamp - last.stamp)

    def _width(self, grip: Grip, track: Track) -> float:
        """Extent of the track across the fingers (y of the tool frame), m."""
        closing = grip.t_base_tool[:3, 1]
        c, s = np.cos(track.yaw), np.sin(track.yaw)
        axes = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        return float(2 * np.abs(axes.T @ closing) @ track.box)

    def _between_fingers(self, grip: Grip, track: Track) -> bool:
        if track.class_id in self.supports or not track.confirmed:
            return False
        local = np.abs(in_tool(grip, track))
        reach = self.params.held_distance
        if local[1] > 0.5 * self.params.held_opening or local[0] > reach or local[2] > reach:
            return False
        return grip.opening <= self._width(grip, track) + SLACK


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
