"""The arm, the obstacles and the command of one adversarial run, and their true distances.

Everything here stays inside what is declared to the filter unless `Case.beyond` says otherwise:
obstacles accelerate, are seen late and with errors, and the arm's bodies are where nobody sees
them, each up to its bound and in the direction that hurts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numba as nb
import numpy as np
import pinocchio as pin

from safety_filter.core.kinematics import Kinematics, joint_frames, place, point_jacobian
from safety_filter.core.robot import Array, RobotModel, Structs
from safety_filter.core.wire import Tracks, empty_tracks

TRUTH_STEP = 0.0005
"""The truth is looked at this often, s."""
COMMANDS = ('steepest', 'bang_bang', 'joint_position', 'twist')
HOME = (0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.8)
CHASE, FLEE, WANDER, HOLD, VANISH, LUNGE = range(6)
"""What obstacles do: LUNGE waits for half a second, then charges for as long; VANISH appears again
elsewhere at its next turn."""
LUNGE_PERIOD = 1.0
RESTING_SPEED = 0.03
"""What is no faster rests, m/s."""
LEAD = np.radians(20.0)
"""How far a standing error may be ahead, rad."""
LEAD_SPEED = 0.05
"""Speed of the arm past an obstacle from which on its lead is full, m/s."""
NO_RESERVE = {'comfort_margin': 0.0, 'comfort_share': 1.0, 'sighting_interval': 0.0}
"""The rows as they must hold, and no more."""


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
    resting: float = 1.0
    """What rests accelerates by at most this share of it; runs beyond the bounds know but one."""
    top_speed: float = 0.25
    position_sigma: float = 0.004
    velocity_sigma: float = 0.02
    tracking_error: float = 0.003
    """The arm's bodies are nearer to the obstacle than the joint state says, by up to this."""
    modes: tuple[int, ...] = (CHASE, FLEE, WANDER, HOLD, VANISH, LUNGE)
    """What obstacles do in turn."""
    steady: bool = False
    """Errors of sightings stand: things seem farther from the arm, and slower towards it, by the
    two sigma declared."""
    turning: float = 0.02
    """An error of position that stands follows the arm no faster than twice this, m/s. The rows
    know no rate of an error but that of the velocity, so it is declared there."""
    lead: float = 0.0
    """Such an error is ahead of the arm's motion past the obstacle by up to this, rad: as the arm
    arrives it is there already, and from then on it only gets less."""
    beyond: float = 1.0
    """Obstacles accelerate, are noisy and are late by this factor of what is declared."""
    without: tuple[str, ...] = ()
    """What is taken out of the filter, see `teeth.PARTS`."""
    params: dict[str, Any] = field(default_factory=dict)


def cases(count: int, seed: int = 0, **changes: Any) -> Iterator[Case]:
    """Yield `count` cases that span commands, rates, latencies, errors and numbers of obstacles;
    every other four of them without the comfort reserve."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        drawn: dict[str, Any] = {
            'rate': float(rng.choice((100, 250, 250, 500, 1000))),
            'camera_rate': float(rng.choice((30, 30, 60, 250))),
            'obstacles': int(rng.integers(1, 6)), 'latency': float(rng.uniform(0.0, 0.06)),
            'jitter': float(rng.uniform(0.0, 0.02)), 'dropout': float(rng.choice((0.0, 0.1, 0.3))),
            'steady': bool(rng.random() < 0.5), 'lead': float(rng.choice((0.0, LEAD))),
            'turning': float(0.001 * 20.0 ** rng.random()),
            'params': NO_RESERVE if k // 4 % 2 else {}}
        yield Case(seed * 100_003 + k, command=COMMANDS[k % len(COMMANDS)], **{**drawn, **changes})


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
                   rotations: Array, shown: Array, pair: Array) -> float:
    """Return the least true distance, m, of spheres from `first` on; `pair` gets (sphere,
    obstacle) of it. The pair that it held before is looked at first: it rules most others out."""
    least = np.inf
    s, o = int(pair[0]), int(pair[1])
    if s >= first and shown[o]:
        least = (distance_by_bisection(points[s] - centres[o], axes[o], rotations[o])
                 - spheres[s].radius)
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
                pair[0], pair[1] = s, o
    return least


@nb.njit(cache=True, error_model='numpy')
def _sphere_points(joints: Structs, spheres: Structs, q: Array, opening: float, rotation: Array,
                   position: Array, axis: Array, points: Array) -> None:
    joint_frames(joints, q, opening, rotation, position, axis)
    for s in range(len(spheres)):
        place(rotation, position, spheres[s].joint, spheres[s].offset, points[s])


@nb.njit(cache=True, error_model='numpy')
def _allowed(wanted: Array, velocity: Array, resting: float, dt: float) -> Array:
    """Return the accelerations (o, 3) for `dt` s, at most `resting` m/s^2 for what rests before
    it or would rest after it."""
    out = wanted.copy()
    for o in range(len(out)):
        size, ahead = np.sqrt(np.sum(out[o] ** 2)), velocity[o] + out[o] * dt
        square = min(np.sum(velocity[o] ** 2), np.sum(ahead * ahead))
        if size > resting and square <= RESTING_SPEED ** 2:
            out[o] *= resting / size
    return out


@nb.njit(cache=True, error_model='numpy')
def _advance(joints: Structs, spheres: Structs, first: int, opening: float, q: Array, qd: Array,
             error: Array, centres: Array, velocity: Array, wanted: Array, resting: float,
             axes: Array, rotations: Array, shown: Array, steps: int, dt: float, rotation: Array,
             position: Array, axis: Array, points: Array, pair: Array) -> float:
    """Move arm and obstacles on by `steps` of `dt`; return the least true distance seen."""
    least = np.inf
    for _ in range(steps):
        q += qd * dt
        acceleration = _allowed(wanted, velocity, resting, dt)
        centres += velocity * dt + acceleration * (dt * dt / 2)
        velocity += acceleration * dt
        _sphere_points(joints, spheres, q + error, opening, rotation, position, axis, points)
        least = min(least, least_distance(points, spheres, first, centres, axes, rotations, shown,
                                          pair))
    return least


@nb.njit(cache=True, error_model='numpy')
def _error_towards(joints: Structs, spheres: Structs, sphere: int, towards: Array, most: float,
                   q: Array, opening: float, rotation: Array, position: Array, axis: Array,
                   points: Array, jacobian: Array, error: Array) -> None:
    """Fill `error` (n,), rad: what brings one sphere on while none moves more than `most` m."""
    _sphere_points(joints, spheres, q, opening, rotation, position, axis, points)
    point_jacobian(joints, position, axis, spheres[sphere].joint, points[sphere], jacobian)
    error[:] = jacobian @ towards
    farthest, small = 0.0, 1e-4
    before = points.copy()
    _sphere_points(joints, spheres, q + small * error, opening, rotation, position, axis, points)
    for s in range(len(spheres)):
        moved = np.sqrt(np.sum((points[s] - before[s]) ** 2)) / small
        farthest = max(farthest, moved)
    error *= 0.98 * most / max(farthest, 1e-9)  # 2 % for what is not linear


class World:
    """The true arm and obstacles of one run; `q` is what the joint state says."""

    def __init__(self, robot: RobotModel, case: Case) -> None:
        self.robot, self.case = robot, case
        self.rng = np.random.default_rng(case.seed)
        rng, n = self.rng, case.obstacles
        self.q = np.clip(np.array(HOME[:robot.n]) + rng.uniform(-0.3, 0.3, robot.n),
                         robot.limits.lower + 0.1, robot.limits.upper - 0.1)
        self.dq, self.error = np.zeros(robot.n), np.zeros(robot.n)
        self.kinematics = Kinematics(robot)
        count = len(robot.joints)
        self._scratch = (np.zeros((count, 3, 3)), np.zeros((count, 3)), np.zeros((count, 3)))
        self._jacobian = np.zeros((robot.n, 3))
        self.points = np.zeros((len(robot.spheres), 3))
        self.first = int(np.argmax(robot.spheres['joint'] >= 0))  # the base cannot move
        self.pair = np.zeros(2)
        self.axes = rng.uniform(0.02, 0.08, (n, 3))
        self.rotations = np.stack([np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(n)])
        self.rotations *= np.linalg.det(self.rotations)[:, None, None]
        self._quaternions = [pin.Quaternion(r).coeffs() for r in self.rotations]
        self.velocity = np.zeros((n, 3))
        self.shown = np.ones(n, np.bool_)
        self.ids = np.arange(n)
        self._standing: dict[int, tuple[float, Array]] = {}
        self.mode = rng.choice(case.modes, n)
        self.change_at = rng.uniform(0.3, 1.5, n)
        self.centres = np.zeros((n, 3))
        self._update_points()
        for o in range(n):
            self._place_away(o, 0.3)
        self.time = 0.0

    def _update_points(self) -> None:
        _sphere_points(self.robot.joints, self.robot.spheres, self.q, self.robot.max_opening,
                       *self._scratch, self.points)

    def _place_away(self, o: int, clearance: float) -> None:
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

    def _towards_arm(self, o: int) -> Array:
        """Return the direction (3,) from an obstacle to the nearest centre of a moving body."""
        gaps = self.points[self.first:] - self.centres[o]
        squares = (gaps * gaps).sum(1)
        near = int(np.argmin(squares))
        out: Array = gaps[near] / max(float(squares[near]) ** 0.5, 1e-9)
        return out

    def _steer(self) -> Array:
        """Return the obstacles' accelerations (o, 3), within the bound on what moves."""
        case, rng = self.case, self.rng
        wanted = np.zeros_like(self.velocity)
        for o in range(case.obstacles):
            if self.time >= self.change_at[o]:
                self.mode[o] = rng.choice(case.modes)
                self.change_at[o] = self.time + rng.uniform(0.2, 1.2)
                if self.mode[o] == VANISH:
                    self.shown[o] = not self.shown[o]
                    self.velocity[o] = 0.0
                    if self.shown[o]:
                        self._place_away(o, 0.35)
                        self.ids[o] += case.obstacles  # another one, not a leap
            mode = self.mode[o]
            charging = self.time % LUNGE_PERIOD > LUNGE_PERIOD / 2
            if mode == CHASE or (mode == LUNGE and charging):
                wanted[o] = case.top_speed * self._towards_arm(o)
            elif mode == FLEE:
                wanted[o] = -case.top_speed * self._towards_arm(o)
            elif mode == WANDER:
                wanted[o] = case.top_speed * rng.normal(size=3)
        change = (wanted - self.velocity) / 0.02
        size = np.sqrt((change * change).sum(1, keepdims=True))
        most = case.acceleration * case.beyond
        return np.asarray(change * np.minimum(1.0, most / np.maximum(size, 1e-9)))

    def advance(self, qd: Array, duration: float) -> float:
        """Move on by `duration` at joint velocity `qd`; return the least true distance seen."""
        steps = max(1, round(duration / TRUTH_STEP))
        robot, acceleration = self.robot, self._steer()
        self._misplace()
        self.q = self.q.copy()
        bound = self.case.resting * self.case.acceleration
        resting = bound * self.case.beyond if self.case.resting < 1.0 else np.inf
        least = _advance(
            robot.joints, robot.spheres, self.first, robot.max_opening, self.q, qd, self.error,
            self.centres, self.velocity, acceleration, resting, self.axes, self.rotations,
            self.shown, steps, duration / steps, *self._scratch, self.points, self.pair)
        self.dq = qd
        self.time += duration
        return float(least)

    def _misplace(self) -> None:
        """Put the bodies off from where the joint state says, towards the nearest obstacle."""
        if self.case.tracking_error > 0.0:
            s, o = int(self.pair[0]), int(self.pair[1])
            _error_towards(
                self.robot.joints, self.robot.spheres, s, self.centres[o] - self.points[s],
                self.case.tracking_error, self.q, self.robot.max_opening, *self._scratch,
                self.points, self._jacobian, self.error)

    def tracks(self) -> Tracks:
        """Return what perception would say now, with errors cut off at two sigma."""
        case = self.case
        index = np.flatnonzero(self.shown)
        out = empty_tracks(len(index))
        noise = np.clip(self.rng.normal(size=(2, len(index), 3)), -2 / 3 ** 0.5, 2 / 3 ** 0.5)
        noise[0] *= case.position_sigma * case.beyond
        noise[1] *= case.velocity_sigma * case.beyond
        declared = case.velocity_sigma
        if case.steady:
            for k, o in enumerate(index):
                noise[0, k] = self._standing_error(o)
                noise[1, k] = -2.0 * case.velocity_sigma * case.beyond * self._towards_arm(o)
            declared += case.turning if case.position_sigma > 0.0 else 0.0
        p, v = self.centres[index] + noise[0], self.velocity[index] + noise[1]
        for i, name in enumerate('xyz'):
            out[name], out['v' + name], out['s' + name] = p[:, i], v[:, i], self.axes[index, i]
        for k, o in enumerate(index):
            out['qx'][k], out['qy'][k], out['qz'][k], out['qw'][k] = self._quaternions[o]
        for name in ('pxx', 'pyy', 'pzz'):
            out[name] = case.position_sigma ** 2
        for name in ('wxx', 'wyy', 'wzz'):
            out[name] = declared ** 2
        out['id'] = self.ids[index]
        return out

    def _standing_error(self, o: int) -> Array:
        """Return the error (3,), m, of a sighting of obstacle `o`: as it was, moved towards where
        it hides the arm's nearness most, as fast as it may."""
        case, name = self.case, int(self.ids[o])
        size = 2.0 * case.position_sigma * case.beyond
        wanted = -size * (self._led(o) if case.lead else self._towards_arm(o))
        if name in self._standing:
            time, error = self._standing[name]
            change = wanted - error
            most = 2.0 * case.turning * case.beyond * (self.time - time)
            wanted = error + change * min(1.0, most / max(float(np.linalg.norm(change)), 1e-12))
        self._standing[name] = self.time, wanted
        return wanted

    def _led(self, o: int) -> Array:
        """Return the way (3,) out of the surface of obstacle `o` to the body nearest to it, turned
        by the lead into the direction in which that body passes."""
        robot, one = self.robot, slice(o, o + 1)
        pair = np.array([float(self.first), 0.0])
        least_distance(self.points, robot.spheres, self.first, self.centres[one], self.axes[one],
                       self.rotations[one], self.shown[one], pair)
        s = int(pair[0])
        way = np.array([
            distance_by_bisection(self.points[s] + step - self.centres[o], self.axes[o],
                                  self.rotations[o])
            - distance_by_bisection(self.points[s] - step - self.centres[o], self.axes[o],
                                    self.rotations[o]) for step in np.eye(3) * 1e-6])
        way /= max(float(np.linalg.norm(way)), 1e-12)
        point_jacobian(robot.joints, self._scratch[1], self._scratch[2],
                       int(robot.spheres['joint'][s]), self.points[s], self._jacobian)
        passing = self._jacobian.T @ self.dq - self.velocity[o]
        passing -= way * (way @ passing)
        speed = float(np.linalg.norm(passing))
        lead = self.case.lead * min(1.0, speed / LEAD_SPEED)
        out: Array = way * np.cos(lead) + passing * np.sin(lead) / max(speed, 1e-12)
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
        if kind == 'twist':
            _, tool, _ = self.kinematics.tool(self.q)
            way = self.centres[o] - tool
            way /= max(float(np.linalg.norm(way)), 1e-9)
            return 'twist', np.concatenate([0.5 * way, self.rng.normal(size=3) * 0.3])
        point_jacobian(robot.joints, self._scratch[1], self._scratch[2],
                       int(robot.spheres['joint'][s]), self.points[s], self._jacobian)
        push = np.sign(self._jacobian @ (self.centres[o] - self.points[s]))
        if kind == 'joint_position':
            return 'joint_position', self.q + 0.5 * push
        return 'joint_velocity', push * most
