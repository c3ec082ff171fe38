"""Scenes of the benchmark: pure functions of suite, task and seed.

alone-0    target and destination only: what the filter must not change
static-1   a tall obstacle stands beside the target, on the side the arm comes from or leaves to
static-2   a tall obstacle stands across the way, farther off
dynamic-3  an obstacle moves on a straight line for 1.5 s, then stands across the way
dynamic-4  one to three movers of 0.1-0.3 m/s: they cross, reverse, stop and go, pass behind the
           arm, come while the object is placed; an unknown class is always among the obstacles,
           and in one scene of four the target itself is moved before the grasp
clutter-5  6-10 objects with narrow gaps
alone-5    target and destination of the same seed's clutter-5, where they stand there

static-1 to dynamic-3 follow the levels of SafeLIBERO (arXiv 2512.11891) and the dynamic variant of
KNOWS (arXiv 2606.09749). No mover accelerates more than config/filter.yaml declares.

A layout that does not fit is drawn again. What dynamic-4 holds is drawn before that, so that its
hard scenes stay frequent; only ways that fit in none of 400 layouts are drawn anew (`plans`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.catalogue import DESTINATIONS, GRASPABLE, OBSTACLES, UNKNOWN, Shape
from safety_filter.sim.paths import ACCELERATION, Path
from safety_filter.sim.scene import (
    HOME_TOOL,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    ObjectSpec,
    choose,
    clear,
    draw_spec,
)

Rng = np.random.Generator
WAYS = ("cross", "reverse", "stop", "behind", "place")
Xy = NDArray[np.float64]
Point = tuple[float, float, float]
TASKS: tuple[tuple[str, str], ...] = (
    ("cube", "plate"), ("can", "bin"), ("block", "tray"), ("ball", "bin"),
    ("brick", "zone"), ("can", "plate"), ("block", "zone"), ("cube", "tray"))
"""Target's shape and destination; colours, wording and layout come from the seed."""
# Half sizes (x, y) of what comes down over a goal: hand and open fingers, m. The hand's lower side
# is so high above the goal's centre, the wrist's, a disc behind the hand, as high as that.
_HAND, _FINGERS, _HAND_HEIGHT = (0.045, 0.115), (0.022, 0.070), 0.035
_WRIST_BACK, _WRIST_RADIUS, _WRIST_HEIGHT = 0.09, 0.075, 0.12
_TALL = [OBSTACLES["bottle"], OBSTACLES["carton"], UNKNOWN["cross"]]
_STANDING = {"cross": UNKNOWN["cross"]}  # the teddy does not stand by itself
# The first mover meets the arm; the others come about then, for they keep clear of the first
_SLACK = ((-0.5, 0.3), (-1.5, 2.0))
_TRIES = 60  # to place one thing before the layout is drawn again
_CLUTTER_LOW, _CLUTTER_HIGH = (0.34, -0.33), (0.70, 0.33)


@dataclass(frozen=True)
class Mover:
    """What moves in a scene of dynamic-4, how and how fast, before it is known where."""

    shape: Shape
    way: str  # one of WAYS
    kind: str  # of the path
    speed: float  # m/s
    lift: float  # of its lower side above the table, m
    swings: int | None
    slack: tuple[float, float]  # s, how much before and after the arm it may be there


@dataclass(frozen=True)
class Plan:
    """What a scene holds whatever its layout; empty for suites other than dynamic-4."""

    movers: tuple[Mover, ...] = ()
    unknown_moves: bool = False
    target_moves: bool = False


@dataclass
class Draft:
    """A scene in the making; `goals` are where target and destination are for the hand (xyz)."""

    rng: Rng
    specs: list[ObjectSpec]
    goals: tuple[Point, Point]
    plan: Plan

    @property
    def legs(self) -> tuple[tuple[Point, Point], tuple[Point, Point]]:
        """The two ways of the tool: to the target, and on to the destination."""
        return (HOME_TOOL, self.goals[0]), self.goals

    def passes(self, leg: int, share: float) -> float:
        """About when an undisturbed arm is at this share of a leg, s: 0.26 m/s, 0.9 s to grasp."""
        lengths = [float(np.linalg.norm(np.subtract(b, a))) for a, b in self.legs]
        before = 0.25 if leg == 0 else 0.25 + lengths[0] / 0.26 + 0.9
        return before + share * lengths[leg] / 0.26

    def fits(self, spec: ObjectSpec, gap: float) -> bool:
        """Whether a spec stays `gap` away from all others and leaves room for the hand."""
        return self.reachable(spec) and clear(spec, self.specs, gap)

    def reachable(self, spec: ObjectSpec) -> bool:
        """Whether the hand gets to both goals beside a spec, once that is at rest."""
        where = spec.position if spec.path is None else spec.path.final
        return all(hand_gap(goal, where, spec.shape) > 0.025 for goal in self.goals)

    def add(self, spec: ObjectSpec | None) -> bool:
        """Put a spec in, unless it is None or its name is taken; return whether it is in."""
        if spec is None or spec.name in {s.name for s in self.specs}:
            return False
        self.specs.append(spec)
        return True


def plans(rng: Rng, suite: str) -> Iterator[Plan]:
    """What the scene holds in every layout; what comes next is for when that fits in none.

    How many things move, whether the unknown one does and whether the target does stay.
    """
    if suite != "dynamic-4":
        yield from repeat(Plan())
    count = int(rng.integers(1, 4))
    unknown_moves, target_moves = bool(rng.random() < 0.5), bool(rng.random() < 0.25)
    while True:
        shapes = [OBSTACLES[name] for name in rng.permutation(list(OBSTACLES))[:count]]
        if unknown_moves:
            shapes[0] = choose(rng, UNKNOWN)
        ways = rng.permutation(WAYS).tolist()  # two on the same way would be in each other's
        yield Plan(tuple(_planned(rng, shape, ways[i], _SLACK[min(i, 1)])
                         for i, shape in enumerate(shapes)), unknown_moves, target_moves)


def _planned(rng: Rng, shape: Shape, way: str, slack: tuple[float, float]) -> Mover:
    kind = {"reverse": ("reversing", "arc")[int(rng.integers(2))], "behind": "reversing",
            "stop": "stop_and_go"}.get(way, "straight")
    swings = int(rng.integers(2, 7)) if kind in ("reversing", "arc") else None
    # Behind the arm there is no room in the air
    on_table = rng.random() < 0.6 or way == "behind"
    lift = 0.0 if on_table else float(rng.uniform(0.06, 0.14))
    return Mover(shape, way, kind, float(rng.uniform(0.10, 0.30)), lift, swings, slack)


def layout(rng: Rng, suite: str, task: int, held_out: bool,
           content: Plan) -> list[ObjectSpec] | None:
    """Specs with the target first and its destination second; None if this try does not fit."""
    draft = _goals(rng, suite, task, held_out, content)
    if draft is None or not _FILL[suite](draft):
        return None
    return draft.specs


def hand_gap(goal: Point, where: Point, shape: Shape) -> float:
    """Room in m between an obstacle's footprint at `where` and the hand straight above `goal`."""
    bottom, top = where[2] - shape.half_extents[2], where[2] + shape.half_extents[2]
    if bottom > goal[2] + 0.30:
        return np.inf
    half = _HAND if top > goal[2] + _HAND_HEIGHT else _FINGERS
    off = np.abs(np.subtract(where[:2], goal[:2])) - half
    gap = float(np.hypot(*np.maximum(off, 0.0)))
    if top > goal[2] + _WRIST_HEIGHT:
        back = np.asarray(goal[:2]) * (1 - _WRIST_BACK / np.hypot(*goal[:2]))
        gap = min(gap, float(np.hypot(*np.subtract(where[:2], back))) - _WRIST_RADIUS)
    return gap - shape.radius


def _goals(rng: Rng, suite: str, task: int, held_out: bool, content: Plan) -> Draft | None:
    """Target and destination, far enough apart for something to come between them."""
    shape, place = TASKS[task]
    target = draw_spec(rng, GRASPABLE[shape], "object", held_out)
    destination = draw_spec(rng, DESTINATIONS[place], "destination", None)
    low, high = (_CLUTTER_LOW, _CLUTTER_HIGH) if suite == "clutter-5" \
        else (WORKSPACE_LOW, WORKSPACE_HIGH)
    target = _at(target, rng.uniform(low, high))
    destination = _at(destination, rng.uniform(low, high))
    if not 0.22 < np.hypot(*np.subtract(target.position, destination.position)[:2]) < 0.45:
        return None
    start = target
    if content.target_moves:
        angle, reach = rng.uniform(-np.pi, np.pi), rng.uniform(0.06, 0.12)
        begin = np.subtract(target.position[:2], reach * np.array([np.cos(angle), np.sin(angle)]))
        start = _at(target, begin)
        start = replace(start, path=Path("straight", start.position, target.position,
                                         float(rng.uniform(0.10, 0.15)),
                                         float(rng.uniform(0.1, 0.5))))
        if not (low[0] < begin[0] < high[0] and low[1] < begin[1] < high[1]) \
                or not clear(start, [destination], 0.02):
            return None
    return Draft(rng, [start, destination], (target.position, destination.position), content)


def _alone_0(draft: Draft) -> bool:
    return True


def _static_1(draft: Draft) -> bool:
    rng, (goal, destination) = draft.rng, draft.goals
    came = HOME_TOOL if rng.random() < 0.5 else destination
    bearing = np.arctan2(came[1] - goal[1], came[0] - goal[0]) + rng.uniform(-0.7, 0.7)
    gap = rng.uniform(0.026, 0.05)
    spec = draw_spec(rng, _TALL[int(rng.integers(len(_TALL)))], "object", False)
    for reach in np.arange(0.08, 0.185, 0.005):
        there = _at(spec, np.add(goal[:2], reach * np.array([np.cos(bearing), np.sin(bearing)])))
        if hand_gap(goal, there.position, there.shape) >= gap:
            return draft.fits(there, 0.012) and draft.add(there) and _distract(draft)
    return False


def _static_2(draft: Draft) -> bool:
    rng = draft.rng
    spec = draw_spec(rng, _TALL[int(rng.integers(len(_TALL)))], "object", False)
    there = _at(spec, _across(draft, 0.03))
    return draft.fits(there, 0.012) and draft.add(there) and _distract(draft)


def _dynamic_3(draft: Draft) -> bool:
    """The obstacle takes 1.5 s with its trapezoid: length = v (1.5 - v / a)."""
    rng = draft.rng
    speed = rng.uniform(0.15, 0.28)
    length = speed * (1.5 - speed / ACCELERATION)
    end = _across(draft, 0.03)
    angle = rng.uniform(-np.pi, np.pi)
    start = np.subtract(end, length * np.array([np.cos(angle), np.sin(angle)]))
    there = _at(draw_spec(rng, _TALL[int(rng.integers(len(_TALL)))], "mover", False), start)
    path = Path("straight", there.position, (*map(float, end), there.position[2]), float(speed),
                float(rng.uniform(0.0, 1.0)))
    there = replace(there, path=path)
    return draft.fits(there, 0.012) and draft.add(there) and _distract(draft)


def _dynamic_4(draft: Draft) -> bool:
    rng = draft.rng
    for planned in draft.plan.movers:
        for _ in range(_TRIES):
            mover = _mover(rng, draft, planned)
            if mover is not None and draft.fits(mover, 0.012) and draft.add(mover):
                break
        else:
            return False
    if not draft.plan.unknown_moves and not _stand(draft, choose(rng, _STANDING)):
        return False
    _distract(draft)  # as far as the movers leave room
    return True


def _mover(rng: Rng, draft: Draft, planned: Mover) -> ObjectSpec | None:
    """A place for what moves, in the way when the arm comes; None if that cannot be timed."""
    way, kind, speed = planned.way, planned.kind, planned.speed
    # What keeps swinging needs its room for longer
    half = float(rng.uniform(0.12, 0.26) if planned.swings is None else rng.uniform(0.09, 0.20))
    angle = rng.uniform(-np.pi, np.pi)
    leg = 0 if rng.random() < 0.3 else 1
    share = rng.uniform(0.3, 0.8)
    if way == "place":  # while the object is brought down
        leg, share = 1, 0.95
    centre = _beside(draft, leg, share, 0.04)
    if way == "place" and planned.lift == 0.0:  # by the destination, through which nothing slides
        bearing, reach = rng.uniform(-np.pi, np.pi), rng.uniform(0.12, 0.20)
        centre = draft.goals[1][:2] + reach * np.array([np.cos(bearing), np.sin(bearing)])
    if way == "behind":  # the far side of the arm, as the camera sees it
        centre = np.array([rng.uniform(0.34, 0.42), rng.uniform(-0.05, 0.05)])
        angle = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.2, 0.2)
    if planned.swings is not None:
        speed = min(speed, float(np.sqrt(ACCELERATION * half)))  # 2 v^2 / L with L = 2 half
    step = half * np.array([np.cos(angle), np.sin(angle)])
    if kind == "arc":  # its apex is where the others have their middle
        centre = centre - np.array([step[1], -step[0]])
    travel = {"straight": half / speed + speed / ACCELERATION / 2,
              "stop_and_go": half / speed + speed / ACCELERATION,
              "reversing": np.pi * half / (2 * speed),
              "arc": np.pi**2 * half / (4 * speed)}[kind]
    delay = draft.passes(leg, share) + rng.uniform(*planned.slack) - travel
    if delay < -0.3:
        return None
    base = draw_spec(rng, planned.shape, "mover", False)
    height = planned.shape.half_extents[2] + planned.lift
    start, end = ((*map(float, point), height) for point in (centre - step, centre + step))
    path = Path(kind, start, end, speed, max(0.0, float(delay)), float(rng.uniform(0.5, 1.5)),
                swings=planned.swings)
    return replace(base, position=start, path=path)


def _clutter_5(draft: Draft) -> bool:
    rng = draft.rng
    count = int(rng.integers(6, 11))
    pools = (GRASPABLE, OBSTACLES, _STANDING)
    for _ in range(count - 1):  # the target is one of them
        pool = pools[int(rng.choice(3, p=[0.55, 0.30, 0.15]))]
        if not _stand(draft, choose(rng, pool), _CLUTTER_LOW, _CLUTTER_HIGH):
            return False
    return True


def _distract(draft: Draft) -> bool:
    """One or two more things that can be grasped, and sometimes another destination."""
    rng = draft.rng
    for _ in range(int(rng.integers(1, 3))):
        if not _stand(draft, choose(rng, GRASPABLE)):
            return False
    if rng.random() < 0.4:
        others = [s for s in DESTINATIONS.values() if s.name != draft.specs[1].name]
        _stand(draft, others[int(rng.integers(len(others)))], role="destination")
    return True


def _stand(draft: Draft, shape: Shape, low: tuple[float, float] = WORKSPACE_LOW,
           high: tuple[float, float] = WORKSPACE_HIGH, role: str = "object") -> bool:
    """Put a thing at rest where it fits; False if no place was found."""
    held_out = None if role == "destination" else False
    for _ in range(_TRIES):
        spec = _at(draw_spec(draft.rng, shape, role, held_out), draft.rng.uniform(low, high))
        if draft.fits(spec, 0.03) and draft.add(spec):
            return True
    return False


def _across(draft: Draft, aside: float) -> Xy:
    """A point (2,) in the middle of one of the two ways, up to `aside` off it."""
    rng = draft.rng
    return _beside(draft, 0 if rng.random() < 0.3 else 1, rng.uniform(0.35, 0.65), aside)


def _beside(draft: Draft, leg: int, share: float, aside: float) -> Xy:
    a, b = (np.array(p[:2]) for p in draft.legs[leg])
    along = b - a
    normal = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9)
    return np.asarray(a + share * along + draft.rng.uniform(-aside, aside) * normal)


def _at(spec: ObjectSpec, xy: Xy) -> ObjectSpec:
    return replace(spec, position=(float(xy[0]), float(xy[1]), spec.shape.half_extents[2]))


_FILL = {"alone-0": _alone_0, "static-1": _static_1, "static-2": _static_2,
         "dynamic-3": _dynamic_3, "dynamic-4": _dynamic_4, "clutter-5": _clutter_5}
