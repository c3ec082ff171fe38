"""Paths of driven obstacles: position and velocity as exact functions of time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
KINDS = ("straight", "arc", "stop_and_go", "reversing")
ACCELERATION = 0.4  # m/s^2, what config/filter.yaml declares of the movers of the simulated cell


@dataclass(frozen=True)
class Path:
    """Motion between two points of the base frame that never accelerates faster than it says.

    kind: "straight" goes once from start to end and stays; "stop_and_go" does the same with a
    rest in the middle; both with a trapezoidal speed profile. "reversing" swings between the
    points sinusoidally, "arc" along the half circle whose chord joins them. `speed` is the peak
    speed in m/s (not reached on a leg shorter than speed^2 / acceleration), `delay` the time
    before it starts in s, `rest` the length of the rest in s, `acceleration` the bound in m/s^2.
    A swing goes `swings` times from one of its ends to the other and stays there, or for ever.

    With chord L and peak speed v, "reversing" accelerates by at most 2 v^2 / L, at its ends. On
    the arc of radius r = L / 2 the tangential part is at most 2 v^2 / (pi r), at the ends, the
    centripetal part v^2 / r, in the middle, and their sum at no other time more than that: again
    2 v^2 / L. A swing that would exceed `acceleration` is refused.
    """

    kind: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    speed: float
    delay: float = 0.0
    rest: float = 1.0
    acceleration: float = ACCELERATION
    swings: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"path kind: expected one of {KINDS}, got {self.kind!r}")
        for name in ("speed", "acceleration"):
            if not getattr(self, name) > 0:
                raise ValueError(f"path {name}: expected > 0, got {getattr(self, name)}")
        if self.swings is not None and (not self._swings or self.swings < 1):
            raise ValueError(f"path swings: expected None, or at least 1 on arc and reversing, "
                             f"got {self.swings} on {self.kind}")
        if self._swings and self.length > 0:
            peak = 2 * self.speed**2 / self.length
            if peak > self.acceleration * (1 + 1e-9):
                raise ValueError(
                    f"path {self.kind}: at {self.speed} m/s over {self.length:.3f} m it "
                    f"accelerates by {peak:.3f} m/s^2, expected at most {self.acceleration}")

    @property
    def _swings(self) -> bool:
        return self.kind in ("arc", "reversing")

    @cached_property
    def length(self) -> float:
        """Distance from start to end, m."""
        return float(np.linalg.norm(np.subtract(self.end, self.start)))

    @property
    def stops_at(self) -> float:
        """Time of the scene from which on it rests, s; infinite for what swings for ever."""
        if self._swings:
            return inf if self.swings is None else self.delay + self.swings * np.pi / self._omega
        if self.kind == "straight":
            return self.delay + self._leg_time(self.length)
        return self.delay + 2 * self._leg_time(self.length / 2) + self.rest

    @property
    def final(self) -> tuple[float, float, float]:
        """Where it is once it rests: the end, or the start after an even number of swings."""
        return self.start if self.swings is not None and self.swings % 2 == 0 else self.end

    @cached_property
    def _omega(self) -> float:
        """Angular frequency of a swing, 1/s: the peak rate of (1 - cos) / 2 is half of it."""
        way = self.length if self.kind == "reversing" else np.pi * self.length / 2
        return 2 * self.speed / way if way else inf

    def state(self, t: float) -> tuple[Array, Array]:
        """Position (3,) m and velocity (3,) m/s at time t of the scene, s."""
        position, velocity = self._motion(np.array([[t]]))
        return position[0], velocity[0]

    def samples(self, duration: float, dt: float = 0.05) -> Array:
        """Positions (n, 3) along the path over `duration` seconds, for clearance checks."""
        return self._motion(np.arange(0.0, duration, dt)[:, None])[0]

    def _motion(self, t: Array) -> tuple[Array, Array]:
        """Positions and velocities (n, 3) at times (n, 1)."""
        share, rate = self._progress(np.maximum(t - self.delay, 0.0))
        a, chord = self._ends
        if self.kind != "arc":
            return a + share * chord, rate * chord
        x, y = self._axes
        angle, turn = np.pi * share, np.pi * rate
        across, along = np.sin(angle), np.cos(angle)
        return a + (along - 1.0) * x + across * y, turn * (along * y - across * x)

    @cached_property
    def _ends(self) -> tuple[Array, Array]:
        start = np.asarray(self.start, float)
        return start, np.asarray(self.end, float) - start

    @cached_property
    def _axes(self) -> tuple[Array, Array]:
        """From the centre of the arc to its start, and across (3,), both of its radius."""
        x = -self._ends[1] / 2
        return x, np.array([-x[1], x[0], 0.0])

    def _progress(self, t: Array) -> tuple[Array, Array]:
        """Share of the way (of the half turn, for the arc) after t s, and its rate in 1/s."""
        length = self.length
        if length == 0:
            return 0.0 * t, 0.0 * t
        if self._swings:
            angle = self._omega * t
            if self.swings is not None:
                angle = np.minimum(angle, self.swings * np.pi)
            return (1 - np.cos(angle)) / 2, self._omega * np.sin(angle) / 2
        if self.kind == "straight":
            way, speed = self._leg(length, t)
            return way / length, speed / length
        way, speed = self._leg(length / 2, t)
        rested = self._leg_time(length / 2) + self.rest
        second, again = self._leg(length / 2, np.maximum(t - rested, 0.0))
        return (way + second) / length, (speed + again) / length

    def _ramp(self, length: float) -> float:
        """Seconds of speeding up on a leg from rest to rest; slowing down takes the same."""
        return min(self.speed / self.acceleration, sqrt(length / self.acceleration))

    def _leg_time(self, length: float) -> float:
        if length == 0:
            return 0.0
        ramp = self._ramp(length)
        return ramp + length / (self.acceleration * ramp)

    def _leg(self, length: float, t: Array) -> tuple[Array, Array]:
        """Way and speed t seconds into a leg from rest to rest: trapezoid, or triangle."""
        ramp, time = self._ramp(length), self._leg_time(length)
        up = np.minimum(t, ramp)
        cruise = np.clip(t - ramp, 0.0, time - 2 * ramp)
        down = np.clip(t - (time - ramp), 0.0, ramp)
        way = self.acceleration * (up**2 / 2 + ramp * (cruise + down) - down**2 / 2)
        return way, self.acceleration * (up - down)
