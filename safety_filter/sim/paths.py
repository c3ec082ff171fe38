"""Paths of driven obstacles: position and velocity as exact functions of time."""

from __future__ import annotations

from dataclasses import dataclass
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"path kind: expected one of {KINDS}, got {self.kind!r}")
        for name in ("speed", "acceleration"):
            if not getattr(self, name) > 0:
                raise ValueError(f"path {name}: expected > 0, got {getattr(self, name)}")
        if self._swings and self.length > 0:
            peak = 2 * self.speed**2 / self.length
            if peak > self.acceleration * (1 + 1e-9):
                raise ValueError(
                    f"path {self.kind}: at {self.speed} m/s over {self.length:.3f} m it "
                    f"accelerates by {peak:.3f} m/s^2, expected at most {self.acceleration}")

    @property
    def _swings(self) -> bool:
        return self.kind in ("arc", "reversing")

    @property
    def length(self) -> float:
        """Distance from start to end, m."""
        return float(np.linalg.norm(np.subtract(self.end, self.start)))

    @property
    def stops_at(self) -> float:
        """Time of the scene from which on it rests at the end, s; infinite for swings."""
        if self._swings:
            return inf
        if self.kind == "straight":
            return self.delay + self._leg_time(self.length)
        return self.delay + 2 * self._leg_time(self.length / 2) + self.rest

    def state(self, t: float) -> tuple[Array, Array]:
        """Position (3,) m and velocity (3,) m/s at time t of the scene, s."""
        a, b = np.asarray(self.start, float), np.asarray(self.end, float)
        chord = b - a
        length = self.length
        t = t - self.delay
        if t <= 0 or length == 0:
            return a, np.zeros(3)
        if not self._swings:
            travelled, speed = self._travelled(length, t)
            return a + travelled / length * chord, speed / length * chord
        if self.kind == "reversing":
            omega = 2 * self.speed / length
            s, rate = (1 - np.cos(omega * t)) / 2, omega * np.sin(omega * t) / 2
            return a + s * chord, rate * chord
        radius = length / 2
        centre, x = (a + b) / 2, -chord / length
        y = np.array([-x[1], x[0], 0.0])
        # The angle swings 0..pi so that the peak tangential speed is `speed`.
        omega = 2 * self.speed / (np.pi * radius)
        angle = np.pi / 2 * (1 - np.cos(omega * t))
        rate = np.pi / 2 * omega * np.sin(omega * t)
        position = centre + radius * (np.cos(angle) * x + np.sin(angle) * y)
        return position, radius * rate * (-np.sin(angle) * x + np.cos(angle) * y)

    def _travelled(self, length: float, t: float) -> tuple[float, float]:
        """Way in m and speed in m/s, t seconds after the start of a path of this length."""
        if self.kind == "straight":
            return self._leg(length, t)
        half, time = length / 2, self._leg_time(length / 2)
        if t <= time + self.rest:
            return self._leg(half, t)
        way, speed = self._leg(half, t - time - self.rest)
        return half + way, speed

    def _ramp(self, length: float) -> float:
        """Seconds of speeding up on a leg from rest to rest; slowing down takes the same."""
        return min(self.speed / self.acceleration, sqrt(length / self.acceleration))

    def _leg_time(self, length: float) -> float:
        if length == 0:
            return 0.0
        ramp = self._ramp(length)
        return ramp + length / (self.acceleration * ramp)

    def _leg(self, length: float, t: float) -> tuple[float, float]:
        """Way and speed t seconds into a leg from rest to rest: trapezoid, or triangle."""
        ramp, time = self._ramp(length), self._leg_time(length)
        if t >= time:
            return length, 0.0
        peak = self.acceleration * ramp
        if t < ramp:
            return self.acceleration * t * t / 2, self.acceleration * t
        if t <= time - ramp:
            return peak * (t - ramp / 2), peak
        left = time - t
        return length - self.acceleration * left * left / 2, self.acceleration * left

    def samples(self, duration: float, dt: float = 0.05) -> Array:
        """Positions (n, 3) along the path over `duration` seconds, for clearance checks."""
        return np.array([self.state(t)[0] for t in np.arange(0.0, duration, dt)])
