"""How the monitor's zeros take over from a command, and a command from them, without a step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MET = 1e-9  # rad/s


class Ramp:
    """The velocities that go out: what is wanted, approached at an acceleration after a fault.

    A command that follows on the one before goes out as it is: the filter keeps to the limits of
    each joint. Zeros in its place, and the command after them, do not follow on anything.
    """

    def __init__(self, acceleration: float, frozen: float, joints: int) -> None:
        """acceleration: rad/s^2 of the joint that has the most to change, 0: at once; frozen: s
        without a step after which the arm has been stopped by others."""
        self._acceleration, self._frozen = acceleration, frozen
        self._sent = np.zeros(joints)
        self._last = -np.inf
        self._met = False

    @property
    def at_rest(self) -> bool:
        """Whether what went out last was zeros."""
        return not self._sent.any()

    def step(self, wanted: Array, now: float, faultless: bool) -> Array:
        """What goes out at monotonic time `now` (s) for the wanted velocities (n,), rad/s.

        faultless: these are the filter's, in full.
        """
        elapsed, self._last = now - self._last, now
        if elapsed > self._frozen:
            self._sent, self._met, elapsed = np.zeros_like(wanted), False, 0.0
        self._met = self._met and faultless
        if self._acceleration == 0.0 or self._met:
            self._sent = wanted
            return wanted
        change = wanted - self._sent
        most = float(np.abs(change).max())
        share = min(1.0, self._acceleration * elapsed / most) if most > MET else 1.0
        self._sent = wanted if share == 1.0 else self._sent + share * change
        self._met = faultless and share == 1.0
        return self._sent
