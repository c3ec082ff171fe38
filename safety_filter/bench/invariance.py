"""Searches for a collision that the filter does not notice: adversarial commands and obstacles.

One run is a few seconds of an arm that follows the filter's output exactly, obstacles that move
inside the declared bounds (acceleration, latency, noise), and a command that tries to collide.
The truth is checked every 0.5 ms by a distance of its own (bisection, not the filter's Newton).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numba as nb
import numpy as np

from safety_filter.bench.hidden import explained
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.kinematics import Kinematics, joint_frames, place, point_jacobian
from safety_filter.core.robot import Array, RobotModel, Structs
from safety_filter.core.wire import Tracks, empty_tracks

TRUTH_STEP = 0.0005
COMMANDS = ('steepest', 'bang_bang', 'joint_position', 'twist')
HOME = (0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.8)


@dataclass(frozen=True)
class Case:
    """One run, a pure function of its fields; times in s, lengths in m."""

    seed: int
    duration: float = 3.0
    rate: float = 250.0
    obstacles: int = 3
    command: str = 'steepest'
    latency: float = 0.03
    jitter: float = 0.015
    dropout: float = 0.1
    camera_rate: float = 30.0
    acceleration: float = 1.0
    top_speed: float = 0.25
    position_sigma: float = 0.004
    velocity_sigma: float = 0.02
    modes: tuple[int, ...] = (0, 1, 2, 3, 4)
    """What obstacles do in turn: chase, flee, wander, hold, vanish or appear."""
    steady: bool = False
    """Errors of sightings do not change from one to the next: things seem farther than they are,
    by the two sigma declared."""
    beyond: float = 1.0
    """Obstacles accelerate, are noisy and are late by this factor of what is declared."""
    blind: tuple[str, ...] = ()
    """Taken out of the filter: 'velocity', 'latency', 'margins'."""
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What happened: least true distance before and after the first slack or other stop."""

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

    @property
    def failed(self) -> bool:
        """Return whether something was touched while the filter vouched that nothing would be."""
        return self.least_while_vouched < 0.0

    @property
    def noticed(self) -> bool:
        """Return whether the state said that something was wrong: a broken bound, or a stop."""
        return self.told_at is not None or self.stopped_at is not None


@nb.njit(cache=True, error_model='numpy')
def distance_by_bisection(d: Array, axes: Array, rotation: Array) -> float:
    """Return the signed distance from a point at `d` from the centre to an ellipsoid."""
    y = np.abs(rotation.T @ d)
    e = axes * axes
    low = -np.min(e) + 1e-12
    high = np.sqrt(np.sum(e * y * y)) + 1.0
    for _ in range(60):
        t = (low + high) / 2.0
        if np.sum(e * y * y / (e + t) ** 2) > 1.0:
            low = t
        else:
            high = t
    closest = e * y / (e + high)
    gap = np.sqrt(np.sum((y - closest) ** 2))
    return gap if np.sum((y / axes) ** 2) > 1.0 else -gap


@nb.njit(cache=True, error_model='numpy')
def least_distance(points: Array, spheres: Structs, first: int, centres: Array, axes: Array,
                   rotations: Array, shown: Array, out: Array) -> float:
    """Return the least true distance, m; `out` gets (sphere, obstacle) of it."""
    least = np.inf
    for s in range(first, len(points)):
        for o in range(len(centres)):
            if not shown[o]:
                continue
            d = points[s] - centres[o]
            bound = np.sqrt(np.sum(d * d)) - np.max(axes[o]) - spheres[s].radius
            if bound >= least:
                continue
            value = distance_by_bisection(d, axes[o], rotations[o]) - spheres[s].radius
            if value < least:
                least = value
                out[0], out[1] = s, o
    return least


@nb.njit(cache=True, error_model='numpy')
def _sphere_points(joints: Structs, spheres: Structs, q: Array, opening: float, rotation: Array,
                   position: Array, axis: Array, points: Array) -> None:
    joint_frames(joints, q, opening, rotation, position, axis)
    for s in range(len(spheres)):
        place(rotation, position, spheres[s].joint, spheres[s].offset, points[s])


@nb.njit(cache=True, error_model='numpy')
def _advance(joints: Structs, spheres: Structs, first: int, opening: float, q: Array, qd: Array,
             centres: Array, velocity: Array, acceleration: Array, axes: Array, rotations: Array,
             shown: Array, steps: int, dt: float, rotation: Array, position: Array, axis: Array,
             points: Array, pair: Array) -> float:
    """Move arm and obstacles on by `steps` of `dt`; return the least true distance seen."""
    least = np.inf
    for _ in range(steps):
        q += qd * dt
        centres += velocity * dt + acceleration * (dt * dt / 2)
        velocity += acceleration * dt
        _sphere_points(joints, spheres, q, opening, rotation, position, axis, points)
        least = min(least, least_distance(points, spheres, first, centres, axes, rotations, shown,
                                          pair))
    return least


class World:
    """The true arm and obstacles of one run."""

    def __init__(self, robot: RobotModel, case: Case) -> None:
        self.robot, self.case = robot, case
        self.rng = np.random.default_rng(case.seed)
        rng, n = self.rng, case.obstacles
        self.q = np.clip(np.array(HOME[:robot.n]) + rng.uniform(-0.3, 0.3, robot.n),
                         robot.limits.lower + 0.1, robot.limits.upper - 0.1)
        self.dq = np.zeros(robot.n)
        self.kinematics = Kinematics(robot)
        count = len(robot.joints)
        self._scratch = (np.zeros((count, 3, 3)), np.zeros((count, 3)), np.zeros((count, 3)))
        self.points = np.zeros((len(robot.spheres), 3))
        self.first = int(np.argmax(robot.spheres['joint'] >= 0))  # the base cannot move
        self.pair = np.zeros(2)
        self.axes = rng.uniform(0.02, 0.08, (n, 3))
        self.rotations = np.stack([np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(n)])
        self.rotations *= np.linalg.det(self.rotations)[:, None, None]
        self.velocity = np.zeros((n, 3))
        self.shown = np.ones(n, np.bool_)
        self.ids = np.arange(n)
        self.mode = rng.choice(case.modes, n)
        self.change_at = rng.uniform(0.3, 1.5, n)
        self.centres = np.zeros((n, 3))
        self.update_points()
        for o in range(n):
            self.place_away(o, 0.3)
        self.away = self.centres - self.points[-1]
        self.away /= np.linalg.norm(self.away, axis=1, keepdims=True)
        self.time = 0.0

    def update_points(self) -> None:
        """Recompute the sphere centres from q."""
        _sphere_points(self.robot.joints, self.robot.spheres, self.q, self.robot.max_opening,
                       *self._scratch, self.points)

    def place_away(self, o: int, clearance: float) -> None:
        """Put obstacle `o` somewhere at least `clearance` from the arm and clear of the base."""
        for _ in range(200):
            self.centres[o] = self.rng.uniform((0.1, -0.7, 0.1), (0.9, 0.7, 1.0))
            gap = np.linalg.norm(self.points - self.centres[o], axis=1)
            if (gap - self.robot.spheres['radius']).min() - self.axes[o].max() >= clearance:
                return
        self.shown[o] = False

    def distance(self) -> float:
        """Return the least true distance between moving bodies and shown obstacles."""
        return float(least_distance(self.points, self.robot.spheres, self.first, self.centres,
                                    self.axes, self.rotations, self.shown, self.pair))

    def steer(self) -> Array:
        """Return the obstacles' accelerations: chase, flee, wander or hold, within the bound."""
        case, rng = self.case, self.rng
        most = case.acceleration * case.beyond
        wanted = np.zeros_like(self.velocity)
        for o in range(case.obstacles):
            if self.time >= self.change_at[o]:
                self.mode[o] = rng.choice(case.modes)
                self.change_at[o] = self.time + rng.uniform(0.2, 1.2)
                if self.mode[o] == 4:  # vanish, or appear elsewhere
                    self.shown[o] = not self.shown[o]
                    self.velocity[o] = 0.0
                    if self.shown[o]:
                        self.place_away(o, 0.35)
                        self.ids[o] += case.obstacles  # another one, not a leap
            gaps = self.points[self.first:] - self.centres[o]
            near = gaps[np.argmin(np.linalg.norm(gaps, axis=1))]
            towards = near / max(float(np.linalg.norm(near)), 1e-9)
            goal = (towards, -towards, rng.normal(size=3), np.zeros(3), np.zeros(3))[self.mode[o]]
            wanted[o] = goal * case.top_speed
        change = (wanted - self.velocity) / 0.02
        size = np.linalg.norm(change, axis=1, keepdims=True)
        return change * np.minimum(1.0, most / np.maximum(size, 1e-9))

    def advance(self, qd: Array, duration: float) -> float:
        """Move on by `duration` at joint velocity `qd`; return the least true distance seen."""
        steps = max(1, round(duration / TRUTH_STEP))
        dt = duration / steps
        acceleration = self.steer()
        self.q = self.q.copy()
        least = _advance(
            self.robot.joints, self.robot.spheres, self.first, self.robot.max_opening, self.q, qd,
            self.centres, self.velocity, acceleration, self.axes, self.rotations, self.shown,
            steps, dt, *self._scratch, self.points, self.pair)
        self.dq = qd
        self.time += duration
        return float(least)

    def tracks(self) -> Tracks:
        """Return what perception would say now, with noise cut off at two sigma."""
        case = self.case
        index = np.flatnonzero(self.shown)
        out = empty_tracks(len(index))
        noise = np.clip(self.rng.normal(size=(2, len(index), 3)), -2 / 3 ** 0.5, 2 / 3 ** 0.5)
        if case.steady:
            noise[:] = 2.0 * self.away[index], 0.0 * self.away[index]
        p = self.centres[index] + noise[0] * case.position_sigma * case.beyond
        v = self.velocity[index] + noise[1] * case.velocity_sigma * case.beyond
        for i, name in enumerate('xyz'):
            out[name], out['v' + name], out['s' + name] = p[:, i], v[:, i], self.axes[index, i]
        for k, o in enumerate(index):
            q = _quaternion(self.rotations[o])
            out['qx'][k], out['qy'][k], out['qz'][k], out['qw'][k] = q
        for name in ('pxx', 'pyy', 'pzz'):
            out[name] = case.position_sigma ** 2
        for name in ('wxx', 'wyy', 'wzz'):
            out[name] = case.velocity_sigma ** 2
        out['id'] = self.ids[index]
        return out

    def command(self) -> tuple[str, Array]:
        """Return an adversarial command: kind and value."""
        robot, kind = self.robot, self.case.command
        most = robot.limits.velocity
        if kind == 'bang_bang':
            if not hasattr(self, '_bang') or self.rng.random() < 0.02:
                self._bang = self.rng.choice((-1.0, 1.0), robot.n)
            return 'joint_velocity', self._bang * most
        s, o = int(self.pair[0]), int(self.pair[1])
        jacobian = np.zeros((robot.n, 3))
        point_jacobian(robot.joints, self._scratch[1], self._scratch[2],
                       int(robot.spheres['joint'][s]), self.points[s], jacobian)
        towards = self.centres[o] - self.points[s]
        towards /= max(float(np.linalg.norm(towards)), 1e-9)
        push = np.sign(jacobian @ towards)
        if kind == 'joint_position':
            return 'joint_position', self.q + 0.5 * push
        if kind == 'twist':
            _, tool, _ = self.kinematics.tool(self.q)
            way = self.centres[o] - tool
            way /= max(float(np.linalg.norm(way)), 1e-9)
            return 'twist', np.concatenate([0.5 * way, self.rng.normal(size=3) * 0.3])
        return 'joint_velocity', push * most


def _quaternion(r: Array) -> Array:
    import pinocchio as pin
    out: Array = pin.Quaternion(r).coeffs()
    return out


def make_filter(robot: RobotModel, case: Case) -> SafetyFilter:
    """Return the filter of a case, with what the case takes out taken out."""
    values: dict[str, Any] = {
        'rate': case.rate, 'deadline': min(0.001, 1 / case.rate), 'base_frames': ['base'],
        'resting_acceleration': case.acceleration, 'obstacle_acceleration': case.acceleration,
        'obstacle_margin': 0.0, 'command_age': 0.5, **case.params}
    if 'margins' in case.blind:
        values.update(sigma_position=0.0, sigma_velocity=0.0, obstacle_acceleration=0.0,
                      resting_acceleration=0.0, tracking_error=0.0)
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
    least = vouched = world.distance()
    stopped_at: float | None = None
    told_at: float | None = None
    reason, filtered, excess, ticks = '', 0, 0.0, 0
    while world.time < case.duration - 1e-9:
        now = world.time
        if now >= next_image - 1e-9:
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
                               _blinded(seen, case, now))
        qd = decision.qd
        excess = max(excess, _excess(qd, last, world.q, limits, period))
        last = qd
        if stopped_at is None and decision.state == 'STOPPED':
            stopped_at, reason = now, decision.reason
        if told_at is None and decision.broken_bounds:
            told_at = now
        filtered += decision.state == 'FILTERED'
        ticks += 1
        near = world.advance(qd, period)
        least = min(least, near)
        if stopped_at is None:
            vouched = min(vouched, near)
    hidden = case.beyond > 1.0 and explained(delivered, case.acceleration,
                                             safety.params.sigma_position)
    return Outcome(case, vouched, least, stopped_at, reason, filtered / ticks, excess,
                   told_at, hidden)


def _blinded(sample: ObstacleSample, case: Case, now: float) -> ObstacleSample:
    if not case.blind:
        return sample
    tracks = sample.tracks
    if 'velocity' in case.blind:
        tracks = tracks.copy()
        for name in ('vx', 'vy', 'vz'):
            tracks[name] = 0.0
    if 'latency' in case.blind:
        return replace(sample, tracks=tracks, stamp=now, receipt=now)
    return replace(sample, tracks=tracks)


def _excess(qd: Array, last: Array, q: Array, limits: Any, period: float) -> float:
    """Return by how much a command exceeds a velocity, acceleration or position limit."""
    after = q + qd * period
    return float(max(np.max(np.abs(qd) - limits.velocity),
                     np.max(np.abs(qd - last) - limits.acceleration * period),
                     np.max(limits.lower - after), np.max(after - limits.upper)))


def cases(count: int, seed: int = 0, **changes: Any) -> Iterator[Case]:
    """Yield `count` cases that span commands, rates, latencies and numbers of obstacles."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        yield replace(Case(
            seed=seed * 100_003 + k, command=COMMANDS[k % len(COMMANDS)],
            rate=float(rng.choice((100, 250, 250, 500, 1000))), obstacles=int(rng.integers(1, 6)),
            latency=float(rng.uniform(0.0, 0.06)), jitter=float(rng.uniform(0.0, 0.02)),
            dropout=float(rng.choice((0.0, 0.1, 0.3)))), **changes)
