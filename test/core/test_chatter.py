"""Beside an obstacle the arm moves as smoothly as with perfect information, or nearly so.

A command leads into an obstacle; its sightings come at a camera's rate, late, and with noise.
What they would be with every step, at once and exact is the measure.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from core.rig import HOME, track

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.wire import Tracks

RATE, LATENCY, DURATION, SETTLED = 250.0, 0.06, 4.5, 2.0
SIGMA_P, SIGMA_V = 0.004, 0.02
SCENES = {'at rest': ((0.2, 0.0, 0.0), 0.0), 'receding': ((0.15, 0.0, 0.0), 0.04)}
"""Where the obstacle is from the tool at first (m), and how fast it goes on along x (m/s)."""


def seen(centre: Array, velocity: Array) -> Tracks:
    """Return the obstacle's track; its covariances are declared whether it is noisy or not."""
    p, v = SIGMA_P ** 2, SIGMA_V ** 2
    return track(centre, v=velocity, id=1, sx=0.05, sy=0.05, sz=0.08, qw=1.0, pxx=p, pyy=p, pzz=p,
                 wxx=v, wyy=v, wzz=v)


def accelerations(panda: RobotModel, scene: str, camera: float | None, noisy: bool,
                  seed: int = 0, **params: float) -> Array:
    """Return the joint accelerations (k, 7) sent from `SETTLED` on; no `camera`: perfect
    information."""
    interval = 1.0 / camera if camera else 0.0
    safety = SafetyFilter(panda, FilterParams(sighting_interval=interval, **params))
    rng, q, dq = np.random.default_rng(seed), HOME.copy(), np.zeros(7)
    offset, speed = SCENES[scene]
    start, velocity = Kinematics(panda).tool(q)[1] + offset, np.array([speed, 0.0, 0.0])
    on_their_way: deque[tuple[float, ObstacleSample]] = deque()
    newest: ObstacleSample | None = None
    images, sent = 0, []
    for k in range(int(DURATION * RATE)):
        now = k / RATE
        if camera is None:
            newest = ObstacleSample(now, now, 'base', seen(start + velocity * now, velocity))
        elif now >= images / camera - 1e-9:
            images += 1
            error = noisy * np.clip(rng.normal(size=(2, 3)), -2.0, 2.0)
            tracks = seen(start + velocity * now + SIGMA_P * error[0],
                          velocity + SIGMA_V * error[1])
            on_their_way.append((now + LATENCY, ObstacleSample(now, now + LATENCY, 'base',
                                                               tracks)))
        while on_their_way and on_their_way[0][0] <= now + 1e-9:
            newest = on_their_way.popleft()[1]
        decision = safety.step(now, now, JointSample(now, now, q, dq),
                               Command(now, now, 'twist', np.array([0.15, 0, 0, 0, 0, 0.0]),
                                       'base'), newest)
        q, dq = q + decision.qd / RATE, decision.qd
        sent.append(decision.qd)
        assert newest is None or decision.state != 'STOPPED', decision
    return np.asarray(np.diff(sent, axis=0) * RATE)[int(SETTLED * RATE):]


def rms(rows: Array) -> float:
    """Return the root of the mean square length of `rows` (..., n)."""
    return float(np.sqrt(np.mean(np.sum(rows ** 2, axis=-1))))


@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('camera', [10.0, 30.0])
def test_the_age_of_sightings_does_not_shake_the_arm(panda: RobotModel, scene: str,
                                                     camera: float) -> None:
    """Exact sightings that come now and then: as smooth as with perfect information, without any
    smoothing."""
    perfect = accelerations(panda, scene, None, False, smoothing=0.0)
    aged = accelerations(panda, scene, camera, False, smoothing=0.0)
    assert rms(aged) < 1.25 * rms(perfect)
    assert rms(np.diff(aged, axis=0)) < 3.0 * rms(np.diff(perfect, axis=0))


@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('camera', [10.0, 30.0])
def test_noise_of_sightings_at_most_doubles_the_acceleration(panda: RobotModel, scene: str,
                                                             camera: float) -> None:
    """On the mean of some draws: each is some 4 % off it."""
    perfect = accelerations(panda, scene, None, False)
    noisy, rough = (np.stack([accelerations(panda, scene, camera, True, seed, **params)
                              for seed in range(8)]) for params in ({}, {'smoothing': 0.0}))
    assert rms(noisy) < 2.0 * rms(perfect)
    assert rms(rough) > 3.0 * rms(perfect), 'the scene is one that shakes an arm'
    assert rms(np.diff(noisy, axis=1)) < rms(np.diff(rough, axis=1)) / 3.0
