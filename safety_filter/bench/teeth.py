"""For each term of the rows, runs in which nothing else protects: without it they must fail.

In a run drawn at random the terms cover for one another: what the speed of an obstacle needs, its
assumed acceleration, its noise and the comfort reserve often give. And where sightings come at
30 Hz, one that is wrong jumps, the rows cannot hold any more, and the filter stops in time. So the
runs of a term are made by one rule: whatever the other terms allow for is as small as it truly is
(exact sightings at the filter's own rate, obstacles that steer gently, no reserve), only what
the term allows for happens, and the command presses the arm's nearest body against the obstacle,
in each of the forms that do. The same runs with the whole filter must not fail.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from safety_filter.bench.adversary import CHASE, LUNGE, NO_RESERVE, Case, cases
from safety_filter.core.inputs import ObstacleSample

PRESSING = ('steepest', 'joint_position', 'twist')
"""The commands that seek the obstacle; bang-bang finds it by chance."""
EXACT: dict[str, Any] = {
    'rate': 250.0, 'camera_rate': 250.0, 'obstacles': 1, 'duration': 3.0, 'jitter': 0.0,
    'dropout': 0.0, 'latency': 0.0, 'position_sigma': 0.0, 'velocity_sigma': 0.0,
    'tracking_error': 0.0, 'acceleration': 0.2, 'top_speed': 0.15, 'modes': (CHASE,),
    'steady': True}
_NO_ACCELERATION = {'obstacle_acceleration': 0.0, 'resting_acceleration': 0.0}
PARTS: dict[str, dict[str, float]] = {
    'velocity': {}, 'latency': {},
    'margins': {'sigma_position': 0.0, 'sigma_velocity': 0.0, 'tracking_error': 0.0,
                **_NO_ACCELERATION},
    'position error': {'sigma_position': 0.0}, 'velocity error': {'sigma_velocity': 0.0},
    'acceleration': _NO_ACCELERATION, 'setting out': {'resting_speed': 0.5},
    'tracking error': {'tracking_error': 0.0}}
"""What can be taken out, and the parameters that do it; without velocity, what is seen has none,
without latency, what is seen is taken for what is, and without setting out, what rested when it
was seen is taken to rest still."""
TEETH: dict[str, dict[str, Any]] = {
    'velocity': {},
    'latency': {'latency': 0.06},
    'margins': {'latency': 0.03, 'position_sigma': 0.004, 'velocity_sigma': 0.02,
                'tracking_error': 0.003, 'acceleration': 1.0, 'modes': (LUNGE,)},
    'position error': {'position_sigma': 0.004},
    'velocity error': {'velocity_sigma': 0.02, 'latency': 0.06},
    'acceleration': {'acceleration': 1.0, 'latency': 0.06, 'modes': (LUNGE,)},
    'setting out': {'acceleration': 1.0, 'resting': 0.1, 'latency': 0.15, 'modes': (LUNGE,)},
    'tracking error': {'tracking_error': 0.003}}
"""For each part, how its runs differ from `EXACT`: by what the part allows for."""


def hard_cases(part: str, taken_out: bool, count: int, seed: int) -> list[Case]:
    """Return `count` runs in which a part matters, with it taken out of the filter or not."""
    drawn = cases(count, seed, params=NO_RESERVE, without=(part,) if taken_out else (),
                  **{**EXACT, **TEETH[part]})
    return [replace(case, command=PRESSING[k % len(PRESSING)]) for k, case in enumerate(drawn)]


def parameters_without(case: Case) -> dict[str, float]:
    """Return the parameters that take out what `case.without` names."""
    return {name: value for part in case.without for name, value in PARTS[part].items()}


def sample_without(sample: ObstacleSample, case: Case, now: float) -> ObstacleSample:
    """Return a sample as the filter gets it at `now` s without what `case.without` names."""
    if 'velocity' in case.without:
        tracks = sample.tracks.copy()
        tracks['vx'] = tracks['vy'] = tracks['vz'] = 0.0
        sample = replace(sample, tracks=tracks)
    if 'latency' in case.without:
        sample = replace(sample, stamp=now, receipt=now)
    return sample
