"""Things that rest and things that move: two models of motion for each track, and which is likely.

An interacting multiple model estimator (Blom, Bar-Shalom 1988, "The interacting multiple model
algorithm for systems with Markovian switching coefficients") with the two models of a target that
moves and stops (Kirubarajan, Bar-Shalom 2003, "Tracking evasive move-stop-move targets with a GMTI
radar using a VS-IMM estimator"): one that stays where it is, and one of constant velocity. Which
of them explains the sightings decides how far each counts, so what sets out is noticed also where
little of it shows, and what rests does not wander. While nothing shows, a thing may set out or
stop at the rates given: the covariance says so, in place of a belief that it goes on as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.kalman import State

F64 = NDArray[np.float64]
_LEAST = 1e-3  # neither model is ever less likely
_REST_DRIFT = 0.002  # m/sqrt(s), random walk of what rests
_REST_SPEED = 0.02  # m/s, sigma of the velocity of what rests, or set out just now


@dataclass(frozen=True)
class Motion:
    """State of a thing under the model `rest` and under `move`, and how likely it is `moving`."""

    rest: State
    move: State
    moving: float

    @classmethod
    def of(cls, state: State, moving: float) -> Motion:
        """A thing in a state (6,) that, as likely as `moving` says, is in motion."""
        return cls(_at_rest(state), state, float(np.clip(moving, _LEAST, 1.0 - _LEAST)))

    @classmethod
    def carried(cls, state: State) -> Motion:
        """A thing in a state (6,) that moves as what carries it."""
        return cls(state, state, 1.0 - _LEAST)

    @cached_property
    def state(self) -> State:
        """Mean and covariance of both together."""
        return _mixed((self.rest, self.move), (1.0 - self.moving, self.moving))

    def predicted(self, dt: float, accel: float, start_rate: float, stop_rate: float) -> Motion:
        """The same `dt` s later; it sets out and stops so often, 1/s, if it rests or moves."""
        starts, stops = 1.0 - np.exp(-dt * start_rate), 1.0 - np.exp(-dt * stop_rate)
        rests, moves = 1.0 - self.moving, self.moving
        still = rests * (1.0 - starts), moves * stops
        going = rests * starts, moves * (1.0 - stops)
        both = (self.rest, self.move)
        rest, move = _at_rest(_mixed(both, still)), _mixed(both, going)
        p = rest.p.copy()
        p[:3, :3] += _REST_DRIFT**2 * dt * np.eye(3)
        return Motion(State(rest.x, p), move.predicted(dt, accel),
                      float(np.clip(sum(going), _LEAST, 1.0 - _LEAST)))

    def updated(self, z: F64, r: F64) -> Motion:
        """The same after seeing position z (3,) with covariance r (3, 3)."""
        fits = np.array([_log_likelihood(s, z, r) for s in (self.rest, self.move)])
        weighed = self.weighed(np.exp(fits - fits.max()))
        return Motion(self.rest.updated(z, r), self.move.updated(z, r), weighed.moving)

    def weighed(self, likely: F64) -> Motion:
        """The same after something that is so `likely` (2,) if it rests, and if it moves."""
        rests, moves = (1.0 - self.moving) * likely[0], self.moving * likely[1]
        moving = float(np.clip(moves / (rests + moves), _LEAST, 1.0 - _LEAST))
        return Motion(self.rest, self.move, moving)

    def at_height(self, z: float) -> Motion:
        """The same on the level `z`, m, and not leaving it."""
        levelled = []
        for state in (self.rest, self.move):
            x = state.x.copy()
            x[2], x[5] = z, 0.0
            levelled.append(State(x, state.p))
        return Motion(levelled[0], levelled[1], self.moving)


def _at_rest(state: State) -> State:
    """A state with its velocity taken to be none."""
    x, p = state.x.copy(), state.p.copy()
    x[3:] = 0.0
    p[3:, :] = p[:, 3:] = 0.0
    p[3:, 3:] = _REST_SPEED**2 * np.eye(3)
    return State(x, p)


def _mixed(states: tuple[State, State], weights: tuple[float, float]) -> State:
    """Mean and covariance of two states that count as the weights say."""
    a = weights[1] / (weights[0] + weights[1])
    apart = states[1].x - states[0].x
    return State(states[0].x + a * apart,
                 (1.0 - a) * states[0].p + a * states[1].p
                 + a * (1.0 - a) * np.outer(apart, apart))


def _log_likelihood(state: State, z: F64, r: F64) -> float:
    """Of a position z (3,) with covariance r (3, 3), up to a constant."""
    return -0.5 * (state.distance(z, r)
                   + float(np.linalg.slogdet(state.p[:3, :3] + r)[1]))
