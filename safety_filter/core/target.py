"""Which track is exempt from the fingers' rows: one id, near the tool, and not for ever."""

from __future__ import annotations

import numpy as np

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.robot import Array
from safety_filter.core.wire import PIECE_STEP, Role, Tracks

NO_ID = -1
RENEWED = 2.0
"""What was not exempt for so long starts anew, s: a moment's doubt is no new approach."""


class Target:
    """The target of the newest tracks, and which one was exempt from when to when, s."""

    def __init__(self) -> None:
        self._id = self._last = NO_ID
        self._centre = self._velocity = np.zeros(3)
        self._since = self._until = 0.0
        self.clear = False

    def forget(self) -> None:
        """Drop the target, as before the first message."""
        self._id, self._last, self.clear = NO_ID, NO_ID, False

    def update(self, tracks: Tracks) -> None:
        """Take the target of new tracks, in one or more pieces; two that claim it are none."""
        pieces = tracks[tracks['role'] == int(Role.TARGET)]
        objects = {int(i) % PIECE_STEP for i in pieces['id']}
        self._id = objects.pop() if len(objects) == 1 else NO_ID
        self.clear = self._id != NO_ID
        if self.clear:
            middle = pieces.view('<f4').reshape(len(pieces), -1)[:, :6].mean(0, dtype=float)
            self._centre, self._velocity = middle[:3], middle[3:]

    @property
    def centre(self) -> Array | None:
        """Return where the target was seen (3,), m; None without one."""
        return self._centre if self._id != NO_ID else None

    def exempt(self, now: float, tool: Array, tau: float, p: FilterParams) -> int:
        """Return the id that is exempt now, or NO_ID; `tool` is the tool frame's origin (3,)."""
        if self._id == NO_ID:
            return NO_ID
        gap = self._centre + self._velocity * tau - tool
        if gap @ gap > p.target_max_distance ** 2:
            return NO_ID
        if self._id != self._last or now - self._until > RENEWED:
            self._last, self._since = self._id, now
        self._until = now
        self.clear = now - self._since <= p.target_expiry
        return self._id if self.clear else NO_ID
