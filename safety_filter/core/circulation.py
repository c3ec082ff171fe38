"""A way round an obstacle that blocks the command: a declared option, off by default.

A barrier removes the part of a command that leads into an obstacle. Into a wall or a pocket, that
is all of it, and the arm waits for ever: an equilibrium that every filter of this kind has.
Circulation (Goncalves et al., "Control Barrier Functions With Circulation Inequalities", IEEE TCST
2024) asks for motion along the level set of the distance there. Here the tangent joins the nominal
twist, and no row changes: what is safe stays what it was, and without room nothing moves.

It begins when a twist command has been blocked by an obstacle for `circulation_wait`, not near the
target, where the way belongs to the task, and ends when the command gets on again. Of up, left and
right, the way past the nearest end of the obstacle is tried first, and the next where no headway
is made.
"""

from __future__ import annotations

import numpy as np

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.kernel import Buffers
from safety_filter.core.robot import Array
from safety_filter.core.rows import COUNT, OBSTACLE_ROW
from safety_filter.core.target import NO_ID
from safety_filter.core.wire import Role

BLOCKED = 0.3
"""Less of the command's speed than this along it counts as blocked."""
SLOWEST = 0.01
"""Commands below this (m/s) want no way round."""
CLEAR_AFTER = 0.3
"""The command counts as getting on after so many seconds without being blocked."""
NEAR_TARGET = 0.15
"""No circulation within so many metres of the target."""
HEADWAY, PATIENCE = 0.01, 1.5
"""A way that brings less than so many metres in so many seconds is given up for the next."""
NAMES = ('up', 'left', 'right')


class Circulation:
    """The way round that is being taken, from one step to the next."""

    def __init__(self) -> None:
        self._blocked_since: float | None = None
        self._clear_since: float | None = None
        self._ways: list[tuple[str, Array]] = []
        self._track, self._at, self._headway_at = NO_ID, np.zeros(3), 0.0

    @property
    def way(self) -> str:
        """Return what is being done in words, '' for nothing."""
        return f'round track {self._track}: {self._ways[0][0]}' if self._ways else ''

    def reset(self) -> None:
        """Forget the way, as when the command changed its kind or the filter stopped."""
        self._blocked_since = self._clear_since = None
        self._ways = []

    def bias(self, now: float, linear: Array, b: Buffers, count: int, target: Array | None,
             p: FilterParams) -> Array:
        """Return what joins the command `linear` (3,), m/s in the base frame, in this step.

        `b` still holds the step before: its answer and the rows that were tight, and `count`
        obstacles. `target` (3,) is where the target is, None without one.
        """
        speed = float(np.linalg.norm(linear))
        tool = b.tool_position
        at_target = target is not None and float(np.linalg.norm(target - tool)) < NEAR_TARGET
        if speed < SLOWEST or at_target:
            self.reset()
            return np.zeros(3)
        blocked = float(b.twist[:3] @ linear) < BLOCKED * speed * speed
        track = self._blocker(b) if blocked else NO_ID
        if track == NO_ID:
            self._free(now)
        else:
            self._clear_since = None
            if self._blocked_since is None:
                self._blocked_since = now
            if not self._ways and now - self._blocked_since >= p.circulation_wait:
                self._begin(now, track, linear / speed, b, count)
        if not self._ways:
            return np.zeros(3)
        self._try_next(now, tool)
        return self._ways[0][1] * min(p.circulation_speed, speed)

    def _free(self, now: float) -> None:
        if self._clear_since is None:
            self._clear_since = now
        if now - self._clear_since >= CLEAR_AFTER or not self._ways:
            self.reset()

    @staticmethod
    def _blocker(b: Buffers) -> int:
        """Return the id of the nearest obstacle (by role) with a tight row, NO_ID without one."""
        count = b.counts[COUNT]
        rows = b.info[:count][b.tight[:count]]
        rows = rows[rows['kind'] == OBSTACLE_ROW]
        rows = rows[b.obstacles['role'][rows['other']] == int(Role.OBSTACLE)]
        return int(rows['track'][np.argmin(rows['h'])]) if len(rows) else NO_ID

    def _begin(self, now: float, track: int, ahead: Array, b: Buffers,
               count: int) -> None:
        """List the ways round a track, the shortest first."""
        pieces = b.obstacles[:count][b.obstacles['id'][:count] == track]
        if not len(pieces):  # a message without it has come since the rows were made
            return
        up = np.array([0.0, 0.0, 1.0]) - ahead[2] * ahead
        if np.linalg.norm(up) < 0.3:  # straight down or up: the sides are those of the base frame
            up = np.array([1.0, 0.0, 0.0]) - ahead[0] * ahead
        up /= np.linalg.norm(up)
        left = np.cross(up, ahead)
        ways = []
        for name, way in zip(NAMES, (up, left, -left), strict=True):
            reach = (pieces['centre'] - b.tool_position) @ way
            reach = reach + np.sqrt(np.sum((pieces['axes'] * (way @ pieces['rotation'])) ** 2, 1))
            ways.append((float(reach.max()), name, way))
        ways.sort(key=lambda w: w[0])
        self._ways = [(name, way) for _, name, way in ways]
        self._track, self._at, self._headway_at = track, b.tool_position.copy(), now

    def _try_next(self, now: float, tool: Array) -> None:
        """Give up a way on which the tool gets nowhere."""
        if float(np.linalg.norm(tool - self._at)) > HEADWAY:
            self._at, self._headway_at = tool.copy(), now
        elif now - self._headway_at > PATIENCE:
            self._ways.append(self._ways.pop(0))
            self._at, self._headway_at = tool.copy(), now
