"""Joint velocities as what an arm's controller takes: positions, or short trajectories.

A controller that takes positions holds the last one, and one that takes trajectories comes to the
end of the last one: both stand still without us. One that takes velocities holds them for ever.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class JointPositions:
    """Positions to command, integrated from velocities, near the measured ones.

    A position controller lags behind; the target may lead what is measured by `lead` rad, which
    is also how far the arm may move on after velocities of zero.
    """

    def __init__(self, lead: float) -> None:
        self._lead = lead
        self.target: Array | None = None

    def follow(self, qd: Array, measured: Array | None, period: float) -> Array | None:
        """The next target (n,), rad; None as long as no joint state came.

        qd: (n,) rad/s for the next `period` s; measured: (n,) rad, None where it is not known
        any more: then the target stays where it is.
        """
        if measured is None:
            return self.target
        if self.target is None or len(self.target) != len(measured):
            self.target = measured.copy()
        ahead = self.target + qd * period - measured
        self.target = measured + np.clip(ahead, -self._lead, self._lead)
        return self.target


class Waypoint(NamedTuple):
    """One point of a trajectory: s from its start, rad, rad/s."""

    time: float
    positions: Array
    velocities: Array


def short_trajectory(target: Array, qd: Array, hold: float, stop: float) -> list[Waypoint]:
    """The velocity `qd` held for `hold` s and then brought to rest within `stop` s.

    It ends at rest because controllers refuse anything else (joint_trajectory_controller since
    Jazzy: allow_nonzero_velocity_at_trajectory_end is false), and so that the arm stops by itself
    when nothing follows. From `target` (n,) rad; at constant deceleration it covers qd stop / 2.
    """
    if not qd.any():
        return [Waypoint(hold, target, qd)]
    held = target + qd * hold
    rest = held + qd * stop / 2
    return [Waypoint(hold, held, qd), Waypoint(hold + stop, rest, np.zeros_like(qd))]
