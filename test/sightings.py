"""A tracker fed with made-up sightings, shared by its tests."""

from __future__ import annotations

import numpy as np

from safety_filter.perception.blobs import Blob
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion
from safety_filter.perception.params import TABLE
from safety_filter.perception.shape import BOX, Known, Measurement
from safety_filter.perception.track import Track
from safety_filter.perception.tracker import Tracker

DT = 1 / 15
PLATE, BIN = 8, 9
HALF = np.array([0.02, 0.02, 0.02])


def put(track: Track, position: list[float], velocity: tuple[float, ...] = (0, 0, 0)) -> None:
    """Have a track believe that it is there, and moves so."""
    state = State(np.array([*position, *velocity], float), track.state.p)
    track.motion = Motion.of(state, 0.999 if any(velocity) else track.motion.moving)


class Scenario:
    """Feeds a tracker with made-up sightings: name -> (position, class id)."""

    def __init__(self, noise: float = 0.001, **changes: object) -> None:
        self.tracker = Tracker(TABLE.validate(changes), frozenset({PLATE, BIN}), frozenset({BIN}))
        self.rng = np.random.default_rng(0)
        self.noise, self.time, self.hidden, self.pixels = noise, 0.0, False, 300
        self.score = 0.9  # of the detector

    def step(self, *things: tuple[np.ndarray, int], half: np.ndarray = HALF,
             dt: float = DT, tool=None) -> None:
        self.time += dt
        blobs = []
        for position, class_id in things:
            at = np.asarray(position, float) + self.rng.normal(0, self.noise, 3)
            blobs.append(Blob(np.zeros(1, int), np.zeros(1, int), at[None], class_id,
                              self.score, np.zeros(1, bool)))

        def measure(blob: Blob, known: Known | None) -> Measurement:
            at = blob.points[0]
            return Measurement(at, np.eye(3), half.copy(), np.full(3, 0.002),
                               np.ones(3, bool), half.copy(), 0.0, BOX, 1.0, self.pixels,
                               at)

        self.tracker.predict(self.time, tool)
        self.tracker.update(blobs, measure, self.hides, dt)

    def hides(self, positions: np.ndarray, half: np.ndarray) -> np.ndarray:
        """What `hidden` says, of everywhere or of the places beyond x = `hidden`."""
        if isinstance(self.hidden, bool):
            return np.full(len(positions), self.hidden)
        return positions[:, 0] > self.hidden

    def only(self):
        (track,) = [t for t in self.tracker.tracks if t.confirmed]
        return track
