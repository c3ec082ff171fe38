"""Joint trajectories as a stream of set points, the way a joint trajectory controller reads them.

Before its first point a trajectory asks for what the first point says, after its last for what
the last one says; in between positions and velocities are interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class TrajectoryError(ValueError):
    """A trajectory that cannot be followed: the field, what was expected, what came."""


class Point(NamedTuple):
    """One point: seconds after the start, positions and velocities (either may be empty)."""

    time: float
    positions: Sequence[float]
    velocities: Sequence[float]


class SetPoint(NamedTuple):
    """What is asked for at one time: positions (n,) or None, velocities (n,)."""

    positions: Array | None
    velocities: Array


@dataclass(frozen=True)
class Trajectory:
    """Points of n joints in the order of the arm.

    times: (m,) s after `start`, strictly increasing; positions, velocities: (m, n) or None, at
    least one of them; start: s on the ROS clock.
    """

    start: float
    times: Array
    positions: Array | None
    velocities: Array | None

    @classmethod
    def of(
        cls, names: Sequence[str], points: Sequence[Point], wanted: Sequence[str], start: float,
        longest: float,
    ) -> Trajectory:  # fmt: skip
        """Read a trajectory message's content.

        Args:
            names: joints in the order of the points; further joints are ignored.
            wanted: the arm's joints in its order.
            start: time of the message's stamp, s on the ROS clock.
            longest: s after which the last point may come at most.

        Raises:
            TrajectoryError: no points, a joint missing, sizes or times that do not fit.
        """
        if not points:
            raise TrajectoryError("trajectory points: expected at least one, got none")
        missing = [name for name in wanted if name not in names]
        if missing:
            raise TrajectoryError(f"trajectory joint_names: expected {missing[0]}, got {names}")
        order = [list(names).index(name) for name in wanted]
        times = np.array([p.time for p in points])
        if times[0] < 0.0 or (np.diff(times) <= 0.0).any():
            raise TrajectoryError(
                f"trajectory time_from_start: expected increasing from 0, got {times.tolist()}"
            )
        if times[-1] > longest:
            raise TrajectoryError(
                f"trajectory time_from_start: expected at most {longest:g} s, got {times[-1]:g} s"
            )
        columns = {
            field: _columns(field, [getattr(p, field) for p in points], len(names), order)
            for field in ("positions", "velocities")
        }
        if columns["positions"] is None and columns["velocities"] is None:
            raise TrajectoryError("trajectory points: expected positions or velocities, got none")
        return cls(start, times, columns["positions"], columns["velocities"])

    @property
    def end(self) -> float:
        """Time of the last point on the ROS clock, s."""
        return self.start + float(self.times[-1])

    def at(self, now: float) -> SetPoint:
        """What is asked for at `now` on the ROS clock.

        Where only positions are given, the velocities are the slope; at rest outside the points.
        """
        time = now - self.start
        inside = self.times[0] <= time < self.times[-1]
        after = int(np.clip(np.searchsorted(self.times, time, "right"), 1, len(self.times) - 1))
        share = 0.0
        if len(self.times) > 1:
            span = self.times[after] - self.times[after - 1]
            share = float(np.clip((time - self.times[after - 1]) / span, 0.0, 1.0))

        def between(values: Array) -> Array:
            if len(values) == 1:
                return values[0].copy()
            return np.asarray((1.0 - share) * values[after - 1] + share * values[after])

        if self.positions is None:
            assert self.velocities is not None
            return SetPoint(None, between(self.velocities))
        positions = between(self.positions)
        if not inside:
            return SetPoint(positions, np.zeros(len(positions)))
        if self.velocities is not None:
            return SetPoint(positions, between(self.velocities))
        return SetPoint(positions, (self.positions[after] - self.positions[after - 1]) / span)


def _columns(
    field: str, rows: Sequence[Sequence[float]], size: int, order: Sequence[int]
) -> Array | None:
    """The rows in the arm's order (m, n), None where all are empty."""
    if not any(len(row) for row in rows):
        return None
    if any(len(row) != size for row in rows):
        sizes = sorted({len(row) for row in rows})
        raise TrajectoryError(f"trajectory {field}: expected {size} values a point, got {sizes}")
    return np.array([list(row) for row in rows], float)[:, list(order)]
