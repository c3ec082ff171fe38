"""Scenes: what stands where, what moves, how it looks. A pure function of suite and seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.catalogue import (
    COLOURS,
    DESTINATIONS,
    GRASPABLE,
    HELD_OUT_COMBINATIONS,
    OBSTACLES,
    PARAPHRASE_TEMPLATES,
    TRAIN_TEMPLATES,
    UNKNOWN,
    Shape,
    instruction_text,
)
from safety_filter.sim.paths import Path

WORKSPACE_LOW = (0.36, -0.27)
WORKSPACE_HIGH = (0.66, 0.27)
HOME_TOOL = (0.44, 0.0, 0.27)
HAND_RADIUS = 0.13  # m, of the open hand seen from above, with room to spare
BENCH_SUITES = ("alone-0", "static-1", "static-2", "dynamic-3", "dynamic-4", "clutter-5",
                "alone-5")
SUITES = ("free", "demo", *BENCH_SUITES)


@dataclass(frozen=True)
class ObjectSpec:
    """One thing in the scene. `position` is the centre of its bounding box in `base`, m."""

    name: str  # what the instruction calls it, such as "red cube" or "bin"
    shape: Shape
    rgb: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float
    role: str  # "object", "destination" or "mover"
    path: Path | None = None


@dataclass(frozen=True)
class Appearance:
    """How the scene looks: drawn at random, without effect on physics."""

    table_rgb: tuple[float, float, float]
    texture: int  # index of the table texture
    light: tuple[float, float, float]  # direction towards the light, base frame
    ambient: float
    camera_offset: tuple[float, float, float]  # of the scene camera, m
    look_offset: tuple[float, float, float]  # of the point it looks at, m


@dataclass(frozen=True)
class Scene:
    """Everything the world needs; equal seeds give equal scenes."""

    suite: str
    seed: int
    specs: tuple[ObjectSpec, ...]
    target: int  # index into specs
    destination: int  # index into specs
    instruction: str
    appearance: Appearance
    home_q_noise: tuple[float, ...] = field(default=(0.0,) * 7)

    @property
    def target_spec(self) -> ObjectSpec:
        return self.specs[self.target]

    @property
    def destination_spec(self) -> ObjectSpec:
        return self.specs[self.destination]

    @property
    def obstacles(self) -> tuple[int, ...]:
        """Indices into specs of what the suite puts in the way: movers and what stands there.

        What can be grasped only distracts, but in clutter-5 it is in the way like all the rest.
        """
        return tuple(i for i, s in enumerate(self.specs)
                     if i != self.target and s.role != "destination"
                     and (self.suite == "clutter-5" or not s.shape.graspable))

    def retask(self, target: int, destination: int, template: str = TRAIN_TEMPLATES[0]) -> Scene:
        """The same scene with another task."""
        text = instruction_text(
            template, self.specs[target].name, self.specs[destination].name
        )
        return Scene(self.suite, self.seed, self.specs, target, destination, text,
                     self.appearance, self.home_q_noise)


def generate(
    seed: int, suite: str = "free", *, task: int | None = None, held_out: bool = False,
    paraphrase: bool = False
) -> Scene:
    """The scene of this suite and seed.

    suite: "free" has still objects only; "demo" adds one or two movers that cross the way from
    the arm to the target or from the target to the destination; the benchmark's suites are in
    suites.py, and `task` is one of its TASKS, by default the seed's. With `held_out` the target
    is a colour-shape combination that training never saw; with `paraphrase` the instruction is
    worded as training never worded it.

    Raises: ValueError for an unknown suite or task.
    """
    if suite not in SUITES:
        raise ValueError(f"suite: expected one of {SUITES}, got {suite!r}")
    if suite in BENCH_SUITES:
        return _benchmark(seed, suite, task, held_out, paraphrase)
    if task is not None:
        raise ValueError(f"task: suite {suite!r} has none; expected None, got {task}")
    rng = np.random.default_rng([seed, zlib.crc32(suite.encode())])
    for _ in range(200):
        specs = _place(rng, suite, held_out)
        if specs is not None:
            break
    else:
        raise RuntimeError(f"no layout found for suite {suite!r} seed {seed}")
    graspable = [i for i, s in enumerate(specs) if s.role == "object" and s.shape.graspable]
    destinations = [i for i, s in enumerate(specs) if s.role == "destination"]
    target = graspable[0]
    destination = destinations[int(rng.integers(len(destinations)))]
    if suite == "demo":
        specs += _movers(rng, specs, target, destination)
    return _finish(rng, suite, seed, specs, target, destination, paraphrase)


def _benchmark(seed: int, suite: str, task: int | None, held_out: bool,
               paraphrase: bool) -> Scene:
    from safety_filter.sim.suites import TASKS, layout, plans  # it builds on this module

    task = seed % len(TASKS) if task is None else task
    if not 0 <= task < len(TASKS):
        listed = ", ".join(f"{i} ({a} to {b})" for i, (a, b) in enumerate(TASKS))
        raise ValueError(f"task: expected one of {listed}, got {task}")
    drawn = "clutter-5" if suite == "alone-5" else suite
    key = [seed, zlib.crc32(drawn.encode()), task]
    rng = np.random.default_rng(key)
    for content in islice(plans(np.random.default_rng([*key, 1]), drawn), 20):
        for _ in range(400):
            specs = layout(rng, drawn, task, held_out, content)
            if specs is not None:
                specs = specs[:2] if suite == "alone-5" else specs
                return _finish(rng, suite, seed, specs, 0, 1, paraphrase)
    raise RuntimeError(f"no layout found for suite {suite!r} task {task} seed {seed}")


def _finish(rng: np.random.Generator, suite: str, seed: int, specs: list[ObjectSpec], target: int,
            destination: int, paraphrase: bool) -> Scene:
    """The scene with its looks and its instruction."""
    templates = PARAPHRASE_TEMPLATES if paraphrase else TRAIN_TEMPLATES
    scene = Scene(suite, seed, tuple(specs), target, destination, "", draw_appearance(rng),
                  tuple(rng.uniform(-0.08, 0.08, 7)))
    return scene.retask(target, destination, templates[int(rng.integers(len(templates)))])


def draw_spec(rng: np.random.Generator, shape: Shape, role: str,
              held_out: bool | None) -> ObjectSpec:
    """A thing in a colour and at an angle; `held_out` None: any colour."""
    if shape.colour is not None:
        name, rgb = shape.name, shape.colour
    else:
        colours = [
            c for c in COLOURS
            if held_out is None or (((c, shape.name) in HELD_OUT_COMBINATIONS) == held_out)
        ]
        colour = colours[int(rng.integers(len(colours)))]
        name, rgb = f"{colour} {shape.name}", COLOURS[colour]
    rgb = tuple(float(np.clip(v + rng.uniform(-0.04, 0.04), 0, 1)) for v in rgb)
    yaw = float(rng.uniform(-0.3, 0.3)) if shape.graspable else float(rng.uniform(-3.1, 3.1))
    if role == "destination":
        yaw = float(rng.uniform(-0.2, 0.2))
    return ObjectSpec(name, shape, rgb, (0.0, 0.0, shape.half_extents[2]), yaw, role)


def choose(rng: np.random.Generator, shapes: dict[str, Shape]) -> Shape:
    """One of the shapes."""
    return list(shapes.values())[int(rng.integers(len(shapes)))]


def _place(rng: np.random.Generator, suite: str, held_out: bool) -> list[ObjectSpec] | None:
    """Specs at positions with room for the fingers between them, or None if they do not fit."""
    n_objects = int(rng.integers(2, 5)) if suite == "free" else int(rng.integers(2, 4))
    n_destinations = int(rng.integers(1, 4)) if suite == "free" else int(rng.integers(1, 3))
    n_destinations = min(n_destinations, 6 - n_objects)
    kinds = rng.permutation(list(DESTINATIONS))[:n_destinations]
    wanted = [draw_spec(rng, DESTINATIONS[k], "destination", None) for k in kinds]
    names: set[str] = set()
    while len(names) < n_objects:
        first = not names
        shape = choose(rng, GRASPABLE)
        if not first and rng.random() < 0.25:
            shape = choose(rng, {**OBSTACLES, **UNKNOWN} if suite == "demo" else OBSTACLES)
        spec = draw_spec(rng, shape, "object", held_out if first else False)
        if spec.name not in names:
            names.add(spec.name)
            wanted.append(spec)
    placed: list[ObjectSpec] = []
    for spec in wanted:
        for _ in range(60):
            x, y = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
            if all(np.hypot(x - o.position[0], y - o.position[1])
                   > spec.shape.radius + o.shape.radius + _gap(spec, o) for o in placed):
                break
        else:
            return None
        position = (float(x), float(y), spec.position[2])
        placed.append(ObjectSpec(spec.name, spec.shape, spec.rgb, position, spec.yaw, spec.role))
    return placed


def _gap(a: ObjectSpec, b: ObjectSpec) -> float:
    return 0.015 if "destination" in (a.role, b.role) else 0.055


def _movers(rng: np.random.Generator, specs: list[ObjectSpec], target: int,
            destination: int) -> list[ObjectSpec]:
    """One or two driven obstacles whose paths cross the task's way and clear all that stands."""
    movers: list[ObjectSpec] = []
    taken = {s.name for s in specs}
    for _ in range(int(rng.integers(1, 3))):
        for _ in range(300):
            mover = _mover(rng, specs[target].position, specs[destination].position)
            if mover.name not in taken and clear(mover, specs + movers) \
                    and _leaves_room(mover, specs[target], specs[destination]):
                movers.append(mover)
                taken.add(mover.name)
                break
    return movers


def _mover(rng: np.random.Generator, target: tuple[float, float, float],
           destination: tuple[float, float, float]) -> ObjectSpec:
    shape = choose(rng, OBSTACLES if rng.random() < 0.8 else UNKNOWN)
    base = draw_spec(rng, shape, "mover", False)
    leg = (HOME_TOOL, target) if rng.random() < 0.3 else (target, destination)
    along = rng.uniform(0.25, 1.0)
    cross = np.asarray(leg[0]) * (1 - along) + np.asarray(leg[1]) * along
    # Half of the movers slide on the table, half are carried through the air.
    lift = 0.0 if rng.random() < 0.5 else float(rng.uniform(0.06, 0.16))
    height = shape.half_extents[2] + lift
    angle = rng.uniform(0, np.pi)
    reach = rng.uniform(0.16, 0.30)
    step = reach * np.array([np.cos(angle), np.sin(angle)])
    kind = ("straight", "arc", "stop_and_go", "reversing")[int(rng.integers(4))]
    start = (float(cross[0] - step[0]), float(cross[1] - step[1]), height)
    end = (float(cross[0] + step[0]), float(cross[1] + step[1]), height)
    path = Path(kind, start, end, float(rng.uniform(0.10, 0.25)), float(rng.uniform(0.0, 2.0)),
                float(rng.uniform(0.5, 1.5)))
    return ObjectSpec(base.name, shape, base.rgb, start, base.yaw, "mover", path)


def _leaves_room(mover: ObjectSpec, *goals: ObjectSpec) -> bool:
    """A mover that comes to rest does so where the hand can still reach target and destination."""
    assert mover.path is not None
    if mover.path.kind in ("arc", "reversing"):
        return True
    end = mover.path.end
    return all(np.hypot(end[0] - g.position[0], end[1] - g.position[1])
               > mover.shape.radius + HAND_RADIUS for g in goals)


def clear(spec: ObjectSpec, others: list[ObjectSpec], space: float = 0.012) -> bool:
    """Whether a thing, on all of its path, stays `space` (m) away from all others on theirs.

    What moves also keeps away from the robot's base and from where the tool starts.
    """
    samples = _track(spec)
    if spec.path is not None and spec.role == "mover":
        if np.any(np.hypot(samples[:, 0], samples[:, 1]) < 0.30):
            return False  # too close to the robot's base for the arm to evade
        if np.linalg.norm(samples - np.asarray(HOME_TOOL), axis=1).min() < 0.16:
            return False
        top = samples[0, 2] + spec.shape.half_extents[2]
        aside = np.hypot(*(samples[0, :2] - HOME_TOOL[:2]))
        if top > HOME_TOOL[2] - 0.03 and aside < spec.shape.radius + HAND_RADIUS:
            return False  # it would start in the hand
    bottom = spec.position[2] - spec.shape.half_extents[2]
    for other in others:
        track = _track(other)
        if other.path is None and bottom > other.position[2] + other.shape.half_extents[2] + 0.01:
            continue
        gap = spec.shape.radius + other.shape.radius + space
        n = min(len(samples), len(track)) if min(len(samples), len(track)) > 1 else None
        if np.hypot(samples[:n, 0] - track[:n, 0], samples[:n, 1] - track[:n, 1]).min() < gap:
            return False
    return True


def _track(spec: ObjectSpec) -> NDArray[np.float64]:
    return (spec.path.samples(25.0) if spec.path is not None
            else np.asarray(spec.position, float)[None])


def draw_appearance(rng: np.random.Generator) -> Appearance:
    shade = rng.uniform(0.45, 0.95)
    table = tuple(float(v) for v in np.clip(shade + rng.uniform(-0.10, 0.10, 3), 0, 1))
    light = (float(rng.uniform(-0.6, 0.9)), float(rng.uniform(-0.9, 0.9)), 1.2)
    return Appearance(
        table, int(rng.integers(8)), light, float(rng.uniform(0.45, 0.7)),
        tuple(float(v) for v in rng.uniform(-0.02, 0.02, 3)),
        tuple(float(v) for v in rng.uniform(-0.015, 0.015, 3)),
    )



