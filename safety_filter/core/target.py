"""Which track is exempt from the fingers' rows: one id, near the tool, and not for ever."""

from __future__ import annotations

import numpy as np

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.robot import Array
from safety_filter.core.wire import Role, Tracks

NO_ID = -1


class Target:
    """The target of the newest tracks and since when it has been exempt."""

    def __init__(self) -> None:
        self._id = NO_ID
        self._centre = self._velocity = (0.0, 0.0, 0.0)
        self._exempt_since: float | None = None
        self.clear = False

    def update(self, tracks: Tracks) -> None:
        """Take the target of new tracks; two that claim to be it are none."""
        index = np.flatnonzero(tracks['role'] == int(Role.TARGET))
        found = int(tracks['id'][index[0]]) if len(index) == 1 else NO_ID
        if found != self._id:
            self._exempt_since = None
        self._id = found
        self.clear = found != NO_ID
        if self.clear:
            track = tracks[index[0]]
            self._centre = float(track['x']), float(track['y']), float(track['z'])
            self._velocity = float(track['vx']), float(track['vy']), float(track['vz'])

    def exempt(self, now: float, tool: Array, tau: float, p: FilterParams) -> int:
        """Return the id that is exempt now, or NO_ID; `tool` is the tool frame's origin (3,)."""
        if self._id == NO_ID:
            return NO_ID
        square = sum((c + v * tau - t) ** 2 for c, v, t
                     in zip(self._centre, self._velocity, tool.tolist(), strict=True))
        if square > p.target_max_distance ** 2:
            self._exempt_since = None
            return NO_ID
        if self._exempt_since is None:
            self._exempt_since = now
        self.clear = now - self._exempt_since <= p.target_expiry
        return self._id if self.clear else NO_ID
