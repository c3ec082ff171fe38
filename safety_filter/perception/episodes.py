"""Episodes for the evaluation of perception: the arm at work among two movers, with the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.robot_mask import RobotMask
from safety_filter.sim.bodies import panda_urdf
from safety_filter.sim.catalogue import UNKNOWN
from safety_filter.sim.expert import Expert
from safety_filter.sim.render import Frame
from safety_filter.sim.scene import Scene, generate
from safety_filter.sim.world import DT, World

F64 = NDArray[np.float64]
ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = {"panda_finger_joint1": 0.5, "panda_finger_joint2": 0.5}
TOOL_FRAME = "panda_grasptarget"
FIRST_SEED = 4_500_000  # scenes from 4_000_000 and 5_000_000 on were used for tuning
POLICY_STEPS = 12  # physics steps an action of the expert lasts


@dataclass(frozen=True)
class Truth:
    """One thing as it is: centre and velocity (3,) in `base`; `pixels` of it visible."""

    name: str
    shape: str
    known: bool
    moving: bool  # driven along a path
    destination: bool
    position: F64
    velocity: F64
    half: F64
    pixels: int


@dataclass(frozen=True)
class Step:
    """One picture of an episode with the state of the robot and the truth."""

    frame: Frame
    q: F64
    opening: float
    held: str | None
    truth: list[Truth]


def panda_mask(tolerance: float = 0.015, grow_px: int = 2) -> RobotMask:
    """The simulated Panda's geometry."""
    return RobotMask(panda_urdf(), ARM_JOINTS, FINGER_JOINTS, TOOL_FRAME, tolerance, grow_px)


def scenes(count: int, first_seed: int = FIRST_SEED) -> list[Scene]:
    """The first `count` demo scenes from `first_seed` on that have two movers.

    Where no unknown shape stands in the scene, its second mover becomes one.
    """
    out: list[Scene] = []
    seed = first_seed
    while len(out) < count:
        scene = generate(seed, "demo")
        seed += 1
        movers = [i for i, s in enumerate(scene.specs) if s.path is not None]
        if len(movers) != 2:
            continue
        if all(s.shape.known for s in scene.specs):
            shape = list(UNKNOWN.values())[seed % len(UNKNOWN)]
            spec = scene.specs[movers[1]]
            assert spec.path is not None
            lift = shape.half_extents[2] - spec.shape.half_extents[2]
            path = dataclasses.replace(
                spec.path, start=_raised(spec.path.start, lift), end=_raised(spec.path.end, lift))
            specs = list(scene.specs)
            specs[movers[1]] = dataclasses.replace(
                spec, name=f"unknown {shape.name}", shape=shape, path=path,
                rgb=shape.colour or spec.rgb, position=path.start)
            scene = dataclasses.replace(scene, specs=tuple(specs))
        out.append(scene)
    return out


def _raised(p: tuple[float, float, float], lift: float) -> tuple[float, float, float]:
    return p[0], p[1], p[2] + lift


def episode(scene: Scene, seconds: float = 12.0, rate: float = 15.0) -> Iterator[Step]:
    """Yield the pictures of one episode in which the expert does the scene's task.

    The expert ignores obstacles: where it touches one the episode ends, because what it knocks
    over is no longer the scene that was asked for.
    """
    with World(scene) as world:
        expert = Expert(world)
        every = round(1.0 / rate / DT)
        for i in range(round(seconds / DT)):
            if world.judge.collisions:
                return
            if i % every == 0:
                yield _step(world)
            if i % POLICY_STEPS == 0:
                twist, opening = expert.act()
                world.set_twist(twist)
                world.set_gripper(opening)
            world.step()


def _step(world: World) -> Step:
    frame = world.render("scene")
    q, _, opening = world.joint_state()
    shapes = {s.name: s for s in world.scene.specs}
    truth = []
    for state in world.truth():
        spec = shapes[state.name]
        truth.append(Truth(
            state.name, state.shape, spec.shape.known, spec.path is not None,
            spec.role == "destination", state.position, state.velocity,
            np.asarray(state.half_extents), int((frame.seg == state.body).sum())))
    held = next((n for n, b in world.bodies.items() if b == world.held), None)
    return Step(frame, q, opening, held, truth)
