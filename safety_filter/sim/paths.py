"""Paths of driven obstacles: position and velocity as exact functions of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
KINDS = ("straight", "arc", "stop_and_go", "reversing")


@dataclass(frozen=True)
class Path:
    """Motion between two points of the base frame.

    kind: "straight" goes once from start to end and stays; "stop_and_go" does the same with a
    rest in the middle; "reversing" swings between them sinusoidally; "arc" swings along the
    half circle whose chord joins them. `speed` is the (peak) speed in m/s, `delay` the time
    before it starts in s, `rest` the length of the rest in s.
    """

    kind: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    speed: float
    delay: float = 0.0
    rest: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"path kind: expected one of {KINDS}, got {self.kind!r}")
        if not self.speed > 0:
            raise ValueError(f"path speed: expected > 0 m/s, got {self.speed}")

    def state(self, t: float) -> tuple[Array, Array]:
        """Position (3,) m and velocity (3,) m/s at time t of the scene, s."""
        a, b = np.asarray(self.start, float), np.asarray(self.end, float)
        chord = b - a
        length = float(np.linalg.norm(chord))
        t = t - self.delay
        if t <= 0 or length == 0:
            return a, np.zeros(3)
        if self.kind in ("straight", "stop_and_go"):
            return self._along(a, chord / length, length, t)
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

    def _along(self, a: Array, direction: Array, length: float, t: float) -> tuple[Array, Array]:
        if self.kind == "stop_and_go":
            half = length / 2 / self.speed
            if half < t <= half + self.rest:
                return a + length / 2 * direction, np.zeros(3)
            t = t if t <= half else t - self.rest
        s = self.speed * t
        if s >= length:
            return a + length * direction, np.zeros(3)
        return a + s * direction, self.speed * direction

    def samples(self, duration: float, dt: float = 0.05) -> Array:
        """Positions (n, 3) along the path over `duration` seconds, for clearance checks."""
        return np.array([self.state(t)[0] for t in np.arange(0.0, duration, dt)])
