"""Training data: states of noisy expert rollouts, labelled afterwards for every task.

A shard is a folder of .npy arrays, one row a picture. Only states are stored; the labels are the
expert's chunks, computed when a batch is drawn, so every picture carries several instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.catalogue import (
    COLOURS,
    GRASPABLE,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    TRAIN_TEMPLATES,
    instruction_text,
)
from safety_filter.sim.expert import DT, TOOL_DOWN, Expert, TaskState, action
from safety_filter.sim.scene import generate
from safety_filter.sim.world import DT as PHYSICS_DT
from safety_filter.sim.world import MAX_OPENING, World

Array = NDArray[np.float64]
Act = Callable[[World], tuple[Array, float]]

MAX_OBJECTS = 12
SHAPE_NAMES = tuple(SHAPES)
COLOUR_NAMES = (*COLOURS, "")
SUBSTEPS = round(DT / PHYSICS_DT)
EPISODE_STEPS = 150
LAYOUTS = ("demo", "free", "clutter-5")
"""Scenes to learn from, in turn: movers, none, and so many things that the gaps are narrow."""
ABSENT_SHARE = 0.2  # of the tasks, which name something that is not there
TERSE_SHARE, WORD_DROPOUT = 0.5, 0.3  # instructions that lose words, and how many of their words
NAMES = frozenset({*COLOURS, *SHAPES})

# One row per picture. objects: x, y, z, shape, colour, role (0 object, 1 destination, 2 mover).
RECORD = np.dtype([
    ("seed", "i4"), ("step", "i4"), ("proprio", "f4", 13), ("held", "i1"), ("count", "i1"),
    ("target", "i1"), ("destination", "i1"), ("objects", "f4", (MAX_OBJECTS, 6)),
])
_ROLES = {"object": 0, "destination": 1, "mover": 2}


def proprioception(world: World) -> NDArray[np.float32]:
    """Tool position, rotation (row by row) and opening, (13,)."""
    tool, rotation = world.tool_pose()
    return np.concatenate([tool, rotation.ravel(), [world.joint_state()[2]]]).astype(np.float32)


def record(world: World, step: int) -> NDArray[np.void]:
    """The present state of a world as one RECORD.

    Raises:
        IndexError: more than MAX_OBJECTS things.
    """
    row = np.zeros((), RECORD)
    scene = world.scene
    row["seed"], row["step"] = scene.seed, step
    row["proprio"] = proprioception(world)
    row["held"], row["count"] = -1, len(scene.specs)
    row["target"], row["destination"] = scene.target, scene.destination
    for i, spec in enumerate(scene.specs):
        colour = spec.name.split()[0] if " " in spec.name else ""
        row["objects"][i] = (*world.object_position(spec.name),
                             SHAPE_NAMES.index(spec.shape.name), COLOUR_NAMES.index(colour),
                             _ROLES[spec.role])
        if world.held == world.bodies[spec.name]:
            row["held"] = i
    return row


def task_state(row: NDArray[np.void], target: int, destination: int) -> TaskState:
    """What the expert would look at in a recorded state for a task."""
    p = row["proprio"].astype(float)
    objects = row["objects"]
    return TaskState(
        p[:3], p[3:12].reshape(3, 3), p[12], objects[target, :3].astype(float),
        SHAPES[SHAPE_NAMES[int(objects[target, 3])]].half_extents, int(row["held"]) == target,
        objects[destination, :3].astype(float), SHAPES[SHAPE_NAMES[int(objects[destination, 3])]])


def object_name(row: NDArray[np.void], index: int) -> str:
    """The words for an object of a record."""
    colour = COLOUR_NAMES[int(row["objects"][index, 4])]
    return f"{colour} {SHAPE_NAMES[int(row['objects'][index, 3])]}".strip()


@dataclass
class Task:
    """One instruction for a picture; `present` is False if what it names is not there."""

    instruction: str
    target: int
    destination: int
    present: bool


def graspable_objects(row: NDArray[np.void]) -> list[int]:
    """Indices of the objects of a recorded state that a task may name."""
    objects = row["objects"][:int(row["count"])]
    return [i for i, o in enumerate(objects)
            if o[5] == 0 and SHAPES[SHAPE_NAMES[int(o[3])]].graspable]


def alike(row: NDArray[np.void], index: int) -> bool:
    """Whether something else that is no destination has the colour of object `index`, so that
    only the word for its shape tells them apart."""
    objects = row["objects"][:int(row["count"])]
    same = (objects[:, 4] == objects[index, 4]) & (objects[:, 5] != 1)
    return int(same.sum()) > 1


def _absent(row: NDArray[np.void], index: int) -> list[str]:
    """Names that share the colour or the shape of object `index` and fit nothing that is there."""
    there = {object_name(row, i) for i in range(int(row["count"]))}
    colour = COLOUR_NAMES[int(row["objects"][index, 4])]
    shape = SHAPE_NAMES[int(row["objects"][index, 3])]
    near = [(c, shape) for c in COLOURS] + [(colour, s) for s in GRASPABLE if colour]
    return [f"{c} {s}" for c, s in near
            if f"{c} {s}" not in there and (c, s) not in HELD_OUT_COMBINATIONS]


def _terse(text: str, rng: np.random.Generator) -> str:
    """An instruction that has lost some of the words that name nothing, so that the policy does
    not lean on one phrasing."""
    return " ".join(w for w in text.split() if w in NAMES or rng.random() > WORD_DROPOUT)


def draw_task(row: NDArray[np.void], rng: np.random.Generator, alike_weight: float) -> Task:
    """A random task for a recorded state; a share of them name an object that is not there.

    Objects that another one resembles are drawn `alike_weight` times as often: they are rare,
    and they decide whether the policy reads the word for the shape."""
    count = int(row["count"])
    roles = row["objects"][:count, 5]
    graspable = graspable_objects(row)
    destinations = [i for i in range(count) if roles[i] == 1]
    held = int(row["held"])
    weights = np.array([alike_weight if alike(row, i) else 1.0 for i in graspable])
    target = int(rng.choice(graspable, p=weights / weights.sum()))
    if held in graspable and rng.random() < 0.85:
        target = held
    destination = int(rng.choice(destinations))
    name, present = object_name(row, target), True
    if rng.random() < ABSENT_SHARE:
        name, present = str(rng.choice(_absent(row, target))), False
    template = TRAIN_TEMPLATES[int(rng.integers(len(TRAIN_TEMPLATES)))]
    text = instruction_text(template, name, object_name(row, destination))
    if rng.random() < TERSE_SHARE:
        text = _terse(text, rng)
    return Task(text, target, destination, present)


def rollout(world: World, rng: np.random.Generator, act: Act, noise: float = 1.0,
            shove_rate: float = 0.0) -> Iterator[int]:
    """Drive a loaded world with `act` under correlated noise; yields the step, before it acts.

    With probability `shove_rate` a step begins a shove: a constant velocity on top for up to
    0.75 s, as a safety filter adds one where it makes way for something that moves."""
    wander, shove, shoved_until = np.zeros(6), np.zeros(6), 0
    scale = noise * rng.choice([0.0, 1.0, 2.0]) * np.array([0.05] * 3 + [0.25] * 3)
    for step in range(EPISODE_STEPS):
        yield step
        twist, opening = act(world)
        wander = 0.85 * wander + 0.5 * rng.normal(size=6) * scale
        if noise and rng.random() < 0.004:
            opening = MAX_OPENING - opening  # a slip: the expert must recover
        if rng.random() < shove_rate and step >= shoved_until:
            direction = rng.normal(size=3) * [1.0, 1.0, 0.6]
            shove[:3] = direction / np.linalg.norm(direction) * rng.uniform(0.15, 0.4)
            shoved_until = step + int(rng.integers(5, 16))
        world.set_twist(twist + wander + (shove if step < shoved_until else 0.0))
        world.set_gripper(opening)
        for _ in range(SUBSTEPS):
            world.step()
        if world.judge.collisions and world.judge.collisions[-1].role == "mover":
            return
        if world.success() and world.tool_pose()[0][2] > 0.18:
            return


def scatter_start(world: World, rng: np.random.Generator) -> None:
    """Start somewhere else than at home: anywhere above the table, or just above an object."""
    spec = world.scene.specs[int(rng.integers(len(world.scene.specs)))]
    if rng.random() < 0.5:
        position = np.array([rng.uniform(0.34, 0.66), rng.uniform(-0.28, 0.28),
                             rng.uniform(0.08, 0.36)])
    else:
        position = world.object_position(spec.name) + rng.uniform(-0.05, 0.05, 3)
        position[2] = max(position[2], 0.02) + spec.shape.half_extents[2] + 0.05
    q = world.inverse_kinematics(position, TOOL_DOWN)
    before = world.joint_state()[0]
    world.teleport(q, MAX_OPENING)
    world.step()
    if world.contacts:  # it starts inside something: stay at home instead
        world.reset(world.scene)
        world.teleport(before, MAX_OPENING)


def keep_probability(row: NDArray[np.void]) -> float:
    """How likely a state is kept: goals and objects in hand are rare and need more weight."""
    state = task_state(row, int(row["target"]), int(row["destination"]))
    if state.held:
        near = np.linalg.norm((state.drop_point() - state.tool)[:2]) < 0.05
        return 0.6 if near else 0.35
    return 0.6 if np.linalg.norm(state.target - state.tool) < 0.08 else 0.25


def expert_act(world: World) -> tuple[Array, float]:
    """The expert's action in a world."""
    return action(Expert(world).state())


def collect(folder: Path, seeds: range, act: Act = expert_act, noise: float = 1.0,
            shove_rate: float = 0.0) -> int:
    """Roll out the seeds and write one shard; returns the number of pictures.

    An existing shard is left alone, so an interrupted collection goes on where it stopped.
    """
    shard = folder / f"shard_{seeds.start:07d}"
    if (shard / "rows.npy").exists():
        return len(np.load(shard / "rows.npy", mmap_mode="r"))
    rows, scenes, wrists = [], [], []
    world: World | None = None
    for seed in seeds:
        rng = np.random.default_rng([seed, 7])
        scene = generate(seed, LAYOUTS[seed % len(LAYOUTS)])
        graspable = [i for i, s in enumerate(scene.specs)
                     if s.role == "object" and s.shape.graspable]
        scene = scene.retask(int(rng.choice(graspable)), scene.destination)
        if world is None:
            world = World(scene)
        else:
            world.reset(scene)
        if noise and rng.random() < 0.4:
            scatter_start(world, rng)
        for step in rollout(world, rng, act, noise, shove_rate):
            row = record(world, step)
            if rng.random() < keep_probability(row):
                rows.append(row)
                scenes.append(world.render("scene", (128, 128)).rgb)
                wrists.append(world.render("wrist", (64, 64)).rgb)
    if world is not None:
        world.close()
    shard.mkdir(parents=True, exist_ok=True)
    np.save(shard / "scene.npy", np.array(scenes, np.uint8))
    np.save(shard / "wrist.npy", np.array(wrists, np.uint8))
    np.save(shard / "rows.npy", np.array(rows, RECORD))  # last: its presence marks a whole shard
    return len(rows)
