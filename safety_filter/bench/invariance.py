"""Searches for a collision that the filter does not notice: adversarial commands and obstacles.

One run is a few seconds of an arm that follows the filter's output, obstacles that move inside
the declared bounds (acceleration, latency, noise), and a command that tries to collide. The truth
is checked every 0.5 ms by a distance of its own (bisection, not the filter's Newton).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safety_filter.bench.adversary import RESTING_SPEED, Case, World
from safety_filter.bench.hidden import explained
from safety_filter.bench.teeth import parameters_without, sample_without
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.rows import COUNT, OBSTACLE_ROW

EDGE = 0.005
"""Share of the bounds up to which two ways of computing an explanation may differ."""
ANSWER = 0.2
"""Runs beyond the bounds go on for so long without images, s, for what the last ones prove."""


@dataclass(frozen=True)
class Outcome:
    """What happened: the least true distance, over all and while the filter vouched for it."""

    case: Case
    least_while_vouched: float
    least: float
    stopped_at: float | None
    reason: str
    filtered_share: float
    limit_excess: float
    told_at: float | None
    """When the state first said that a declared bound was broken."""
    hidden: bool = False
    """Beyond the bounds: all that was seen has an explanation inside them (see hidden.py)."""
    edge: bool = False
    """Not quite: it has one inside bounds that are wider by `EDGE`."""

    @property
    def failed(self) -> bool:
        """Return whether something was touched while the filter vouched that nothing would be."""
        return self.least_while_vouched < 0.0

    @property
    def noticed(self) -> bool:
        """Return whether the state said that something was wrong: a broken bound, or a stop."""
        return self.told_at is not None or self.stopped_at is not None


def make_filter(robot: RobotModel, case: Case) -> SafetyFilter:
    """Return the filter of a case, with what the case takes out taken out."""
    values: dict[str, Any] = {
        'rate': case.rate, 'deadline': min(0.001, 1 / case.rate), 'base_frames': ['base'],
        'resting_acceleration': case.resting * case.acceleration,
        'resting_speed': RESTING_SPEED, 'obstacle_acceleration': case.acceleration,
        'tracking_error': case.tracking_error, 'obstacle_margin': 0.0, 'command_age': 0.5,
        **case.params, **parameters_without(case)}
    return SafetyFilter(robot, TABLE.validate(values))


def run(robot: RobotModel, case: Case) -> Outcome:
    """Return the outcome of one case."""
    world, safety = World(robot, case), make_filter(robot, case)
    period = 1.0 / case.rate
    limits = safety.robot.limits
    pipeline: list[tuple[float, ObstacleSample]] = []
    delivered: list[ObstacleSample] = []
    seen = ObstacleSample(0.0, 0.0, 'base', world.tracks())
    next_image = 0.0
    command: Command | None = None
    last = np.zeros(robot.n)
    near = least = vouched = world.distance()
    vouching = True
    stopped_at: float | None = None
    told_at: float | None = None
    reason, filtered, excess, ticks = '', 0, 0.0, 0
    beyond = case.beyond > 1.0
    while world.time < case.duration + ANSWER * beyond - 1e-9:
        now = world.time
        over = now >= case.duration - 1e-9
        if now >= next_image - 1e-9 and not over:
            next_image += 1.0 / case.camera_rate
            if world.rng.random() >= case.dropout:
                late = (case.latency + world.rng.uniform(0, case.jitter)) * case.beyond
                pipeline.append((now + late, ObstacleSample(now, now + late, 'base',
                                                            world.tracks())))
        for arrival in [a for a in pipeline if a[0] <= now]:
            pipeline.remove(arrival)
            if arrival[1].stamp > seen.stamp:
                seen = arrival[1]
        if not delivered or delivered[-1] is not seen:
            delivered.append(seen)
        if ticks % max(1, round(case.rate / 50)) == 0:
            kind, value = world.command()
            command = Command(now, now, kind, value, 'base')
        decision = safety.step(now, now, JointSample(now, now, world.q, world.dq), command,
                               sample_without(seen, case, now))
        qd = decision.qd
        excess = max(excess, _excess(qd, last, world.q, limits, period))
        last = qd
        if over or decision.state == 'STOPPED':
            vouching = False
            if stopped_at is None and not over:
                stopped_at, reason = now, decision.reason
        elif not vouching:  # again, once it is out of whatever made it stop
            vouching = near >= 0.0 and _nothing_inside(safety)
        if told_at is None and decision.broken_bounds:
            told_at = now
        filtered += decision.state == 'FILTERED'
        ticks += 1
        near = world.advance(qd, period)
        if not over:
            least = min(least, near)
        if vouching:
            vouched = min(vouched, near)
    bounds = case.acceleration, safety.params.sigma_position
    hidden = beyond and explained(delivered, *bounds)
    edge = beyond and not hidden and explained(delivered, *bounds, 1.0 + EDGE)
    return Outcome(case, vouched, least, stopped_at, reason, filtered / ticks, excess,
                   told_at, hidden, edge)


def _nothing_inside(safety: SafetyFilter) -> bool:
    """Return whether no obstacle is inside its margin, as the filter sees it."""
    rows = safety._buffers.info[:safety._buffers.counts[COUNT]]
    return not bool((rows['h'][rows['kind'] == OBSTACLE_ROW] < 0.0).any())


def _excess(qd: Array, last: Array, q: Array, limits: Any, period: float) -> float:
    """Return by how much a command exceeds a velocity, acceleration or position limit."""
    after = q + qd * period
    return float(max(np.max(np.abs(qd) - limits.velocity),
                     np.max(np.abs(qd - last) - limits.acceleration * period),
                     np.max(limits.lower - after), np.max(after - limits.upper)))
