"""How fast a long thing turns about the vertical, from the directions it is seen to lie in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LONG = 1.5  # sides of a footprint whose directions can be told apart differ by this
_STREAK = 4  # sightings in a row turned the same way from which on it turns
_NOISE = 0.3  # rad/s, slower is noise
_SMOOTH = 0.3


@dataclass
class Turn:
    """`spin` in rad/s, zero until it is beyond noise."""

    spin: float = 0.0
    _last: tuple[float, float] | None = None  # time and direction
    _rate: float = 0.0
    _streak: int = 0

    def follow(self, sides: tuple[float, float], yaw: float, stamp: float) -> None:
        """Learn from a free view at `stamp`, s, of a footprint of half extents `sides`, m, whose
        first lies along `yaw`, rad."""
        if max(sides) < _LONG * min(sides):
            self.lose()
            return
        lies = yaw if sides[0] > sides[1] else yaw + np.pi / 2
        if self._last is not None and stamp > self._last[0]:
            turned = (lies - self._last[1] + np.pi / 2) % np.pi - np.pi / 2
            rate = float(turned / (stamp - self._last[0]))
            on = rate * self._rate > 0 and abs(rate) > _NOISE
            self._streak = self._streak + 1 if on else 0
            self._rate = self._rate + _SMOOTH * (rate - self._rate) if on else rate
            self.spin = self._rate if self._streak >= _STREAK else 0.0
        self._last = stamp, lies

    def lose(self) -> None:
        """It is not seen well enough to tell."""
        self.spin, self._last, self._rate, self._streak = 0.0, None, 0.0, 0
