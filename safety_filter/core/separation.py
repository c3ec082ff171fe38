"""Speed and separation monitoring: the protective separation distance of ISO/TS 15066, 5.5.4.

    S_p = S_h + S_r + S_s + C + Z_d + Z_r

    S_h = v_h (T_r + T_s)     the person's motion until the robot stands, T_s = v_r / a
    S_r = v_r T_r             the robot's motion until it reacts
    S_s = v_r^2 / (2 a)       its stopping distance
    C                         intrusion distance (ISO 13855)
    Z_d = k_p s_p(n) + m0     uncertainty of the person's position
    Z_r                       uncertainty of the robot's: `tracking_error`

v_h is `ssm_human_speed` or the measured approach, whichever is more; v_r the robot's speed towards
the person; T_r the measured latency and `ssm_reaction`. S_p(v_r) <= distance is a bound on v_r,
which each body keeps as a row; without room for any v_r > 0 nothing approaches, and what moves
faster than the row allows is stopped. An aid with the standard's formula, no certified function.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from safety_filter.core.robot import Record

TERMS = ('distance', 'human_speed', 'robot_speed', 'human', 'robot', 'stopping', 'intrusion',
         'person_uncertainty', 'robot_uncertainty', 'required', 'margin')
SEPARATION_DTYPE = np.dtype([('body', 'i8'), ('track', 'i8')] + [(t, 'f8') for t in TERMS],
                            align=True)


class Separation(NamedTuple):
    """The pair with the least margin; lengths in m, speeds in m/s. See the module's formula.

    `human`, `robot`, `stopping`, `intrusion` and the two uncertainties sum up to `required`;
    `margin` is `distance` less that.
    """

    body: str
    track_id: int
    distance: float
    human_speed: float
    robot_speed: float
    human: float
    robot: float
    stopping: float
    intrusion: float
    person_uncertainty: float
    robot_uncertainty: float
    required: float
    margin: float


@nb.njit(cache=True, error_model='numpy')
def protective_distance(human: float, robot: float, tau: float, doubt: float, p: Record) -> float:
    """Return S_p, m; `doubt` is Z_d + Z_r and `tau` the measured latency."""
    reaction = tau + p.ssm_reaction
    stopping = robot / p.ssm_deceleration
    return float(human * (reaction + stopping) + robot * (reaction + stopping / 2.0)
                 + p.ssm_intrusion + doubt)


@nb.njit(cache=True, error_model='numpy')
def approach_limit(distance: float, human: float, tau: float, doubt: float, p: Record) -> float:
    """Return the greatest v_r >= 0 with S_p(v_r) <= distance, 0 where there is none, m/s."""
    reaction, a = tau + p.ssm_reaction, p.ssm_deceleration
    room = distance - human * reaction - p.ssm_intrusion - doubt
    if room <= 0.0:
        return 0.0
    linear = reaction + human / a
    return float(a * (np.sqrt(linear * linear + 2.0 * room / a) - linear))


@nb.njit(cache=True, error_model='numpy')
def note(best: Record, body: int, track: int, distance: float, human: float, robot: float,
         tau: float, seen: float, p: Record) -> None:
    """Keep the terms of a pair if its margin is the least so far."""
    required = protective_distance(human, robot, tau, seen + p.tracking_error, p)
    if distance - required >= best.margin:
        return
    reaction, stopping = tau + p.ssm_reaction, robot / p.ssm_deceleration
    best.body, best.track, best.distance = body, track, distance
    best.human_speed, best.robot_speed = human, robot
    best.human, best.robot = human * (reaction + stopping), robot * reaction
    best.stopping, best.intrusion = robot * stopping / 2.0, p.ssm_intrusion
    best.person_uncertainty, best.robot_uncertainty = seen, p.tracking_error
    best.required, best.margin = required, distance - required
