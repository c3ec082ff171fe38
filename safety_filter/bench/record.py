"""What is measured during an episode."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.bench.causes import collision_cause, failure_cause
from safety_filter.bench.methods.base import Step
from safety_filter.core.wire import Role, Tracks
from safety_filter.sim.contacts import Contact
from safety_filter.sim.world import World

Array = NDArray[np.float64]
MOVED = 1e-3  # m, L1: an obstacle displaced further counts against CAR (SafeLIBERO)
POLICY_STEP = 0.05  # s, the unit of the execution time steps (ETS)
LOST = -0.05  # m: a target below this has left the table
ON_TARGET = 0.05  # m between the centres of a track and of the thing it is taken for
DISTANCE_EVERY = 3  # looks between two points of the distance's course
JERK_EVERY = 4  # physics steps between two samples of joint velocity
STATE_EVERY = 4  # physics steps between two states remembered for the cause of a failure
RECENT = 720  # of those, the last 12 s
CLOSING = 3.0  # m/s, faster than arm and movers ever come together
RESULT = """success, collided, safe_success: bool; end: why it ended; success_time: s or None;
ets: policy steps of 0.05 s until success, of the longest episode without; duration: s;
collisions: contacts that should not have been; cause: of the first one, or of the failure;
car_displaced: an obstacle was displaced by more than 1 mm (L1, as sim/displacement.py has it);
min_distance_m: nearest true distance of arm or held object to an obstacle at any physics step,
below zero inside it; penetration_m: deepest contact that
should not have been; intervention_mean: m/s, mean change of the tool's velocity where it was
changed; intervention_share, states: shares of time; intervention_median: m/s, over all of the
time; wrong_target_share, lost_target_share: shares of the looks before the grasp at which another
thing, or nothing, was the target; jerk_rms: rad/s^3, of the joint velocities; distance_mm: course
of the distance, a point every 0.2 s."""


class Recorder:
    """Collects one episode; `result` is what goes into the JSON."""

    def __init__(self, world: World, limit: float) -> None:
        """limit: length of an episode at most, s."""
        self._world, self._limit = world, limit
        self._states: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._steps = self._looks = 0
        self._changes: list[float] = []
        self._nearest, self._course = np.inf, []
        self._measured = 0.0, 0.0  # the newest distance, m, and its time, s
        self._sights: Counter[str] = Counter()
        self._qd: list[Array] = []
        self._tracks: Tracks | None = None
        self._judged = 0
        self._cause: str | None = None
        self._success_time: float | None = None
        self._grasped = False
        self._end = "time"

    def saw(self, tracks: Tracks) -> None:
        """New tracks have arrived at the filter."""
        self._tracks = tracks
        world = self._world
        target = world.bodies[world.scene.target_spec.name]
        if self._grasped or world.held == target:
            return
        chosen = tracks[tracks["role"] == int(Role.TARGET)]
        if len(chosen) == 0:
            self._sights["lost"] += 1
            return
        centre = np.array([chosen[a].mean() for a in "xyz"])
        off = {s.name: float(np.linalg.norm(world.object_position(s.name) - centre))
               for s in world.scene.specs}
        name = min(off, key=lambda n: off[n])
        right = name == world.scene.target_spec.name or off[
            world.scene.target_spec.name] < ON_TARGET
        self._sights["right" if right else "wrong"] += 1

    def look(self) -> bool:
        """Measure at the camera's rate; return whether the episode is decided."""
        world = self._world
        distance = self._measure()
        if self._looks % DISTANCE_EVERY == 0:
            self._course.append(round(1e3 * distance))
        self._looks += 1
        success = world.success()
        if success and self._success_time is None:
            self._success_time = world.time
        elif not success:
            self._success_time = None
        lost = bool(world.object_position(world.scene.target_spec.name)[2] < LOST)
        self._end = "success" if success else "target off the table" if lost else "time"
        return success or lost

    def _measure(self) -> float:
        distance = self._world.min_distance()
        self._nearest = min(self._nearest, distance)
        self._measured = distance, self._world.time
        return distance

    def stepped(self, step: Step, dt: float) -> None:
        """One physics step is over."""
        world = self._world
        self._steps += 1
        distance, then = self._measured
        if distance - CLOSING * (world.time - then) < self._nearest:
            self._measure()  # it may have come nearer than ever
        self._states[step.state] += 1
        if self._steps % STATE_EVERY == 0:
            self._recent.append(step.state)
        self._changes.append(step.change if step.change > 1e-6 else 0.0)
        if self._steps % JERK_EVERY == 0:
            self._qd.append(world.joint_state()[1])
        if world.held == world.bodies[world.scene.target_spec.name]:
            self._grasped = True
        contacts = world.judge.contacts
        for contact in contacts[self._judged:]:
            if contact.collision and self._cause is None:
                self._cause = collision_cause(world, contact, self._tracks, step.state)
        self._judged = len(contacts)

    def result(self) -> dict[str, Any]:
        """The episode's figures; `RESULT` describes them."""
        world = self._world
        success = world.success()
        wrong = world.judge.collisions
        cause = self._cause
        if cause is None and not success:
            cause = failure_cause(self._recent, self._grasped, world.held is not None, self._end)
        looked = sum(self._sights.values())
        changed = sum(c > 0.0 for c in self._changes)
        depths = [c.depth for c in wrong if c.role in ("object", "mover")]
        obstacles = [s.name for i, s in enumerate(world.scene.specs)
                     if s.role != "destination" and i != world.scene.target]
        time = self._success_time if success else None
        return {
            "success": success, "collided": bool(wrong), "safe_success": success and not wrong,
            "end": self._end, "success_time": _round(time),
            "ets": round((self._limit if time is None else time) / POLICY_STEP),
            "duration": _round(world.time), "collisions": [_contact(c) for c in wrong],
            "cause": cause,
            "car_displaced": any(world.displacement[n] > MOVED for n in obstacles),
            "min_distance_m": _round(min([self._nearest, *(0.0 - depth for depth in depths)])),
            "penetration_m": _round(max((c.depth for c in wrong), default=0.0)),
            "intervention_mean": _round(sum(self._changes) / max(changed, 1)),
            "intervention_share": _round(changed / max(self._steps, 1)),
            "intervention_median": _round(float(np.median(self._changes or [0.0]))),
            "states": {k: _round(v / self._steps) for k, v in sorted(self._states.items())},
            "wrong_target_share": _round(self._sights["wrong"] / looked) if looked else None,
            "lost_target_share": _round(self._sights["lost"] / looked) if looked else None,
            "jerk_rms": _round(jerk_rms(np.array(self._qd), JERK_EVERY / 240.0)),
            "distance_mm": self._course}


def jerk_rms(qd: Array, dt: float) -> float:
    """Root mean square of |d2 q' / dt2| over samples (n, joints) of joint velocity, rad/s^3."""
    if len(qd) < 3:
        return 0.0
    second = np.diff(qd, n=2, axis=0) / dt**2
    return float(np.sqrt(np.mean(np.sum(second**2, axis=1))))


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def _contact(contact: Contact) -> dict[str, Any]:
    return {k: _round(v) if isinstance(v, float) else v for k, v in vars(contact).items()}
