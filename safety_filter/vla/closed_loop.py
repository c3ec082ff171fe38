"""The policy in the simulated cell, in lockstep: one action a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.scene import Scene
from safety_filter.sim.world import DT as PHYSICS_DT
from safety_filter.sim.world import World
from safety_filter.vla.dataset import proprioception
from safety_filter.vla.policy import Policy

Array = NDArray[np.float64]


class PolicyDriver:
    """Drives a world with a policy that looks anew before each action."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @classmethod
    def load(cls, folder: Path) -> PolicyDriver:
        """With the weights in `folder`."""
        return cls(Policy.load(folder))

    def act(self, world: World) -> tuple[Array, float]:
        """Tool twist (6,) in base and gripper opening (m) for a world as it is now."""
        config = self.policy.model.config
        scene = world.render("scene", (config.scene_size, config.scene_size)).rgb
        wrist = world.render("wrist", (config.wrist_size, config.wrist_size)).rgb
        out = self.policy.act(scene, wrist, proprioception(world), world.scene.instruction,
                              world.time)
        return out.twists[0], float(out.openings[0])


@dataclass(frozen=True)
class Outcome:
    """What became of one episode; `first_lifted` names the first object that left the table."""

    seed: int
    instruction: str
    reached: bool
    success: bool
    first_lifted: str
    wrong_lifted: bool
    collided: bool
    steps: int


def run_episode(world: World, scene: Scene, driver: PolicyDriver, max_steps: int = 300) -> Outcome:
    """Run one scene until success, time-out or the target's loss off the table."""
    world.reset(scene)
    target = scene.target_spec
    dt = float(driver.policy.model.config.dt)
    start = {s.name: world.object_position(s.name) for s in scene.specs if s.role == "object"}
    reached, lifted, steps = False, "", 0
    while steps < max_steps:
        steps += 1
        twist, opening = driver.act(world)
        world.set_twist(twist)
        world.set_gripper(opening)
        for _ in range(round(dt / PHYSICS_DT)):
            world.step()
        tool = world.tool_pose()[0]
        reached |= bool(np.linalg.norm(tool - world.object_position(target.name)) < 0.04)
        for name, before in start.items():
            if not lifted and world.object_position(name)[2] > before[2] + 0.03:
                lifted = name
        if world.success() and tool[2] > 0.15:
            break
        if world.object_position(target.name)[2] < -0.05:
            break
    return Outcome(scene.seed, scene.instruction, reached, world.success(), lifted,
                   lifted not in ("", target.name), bool(world.judge.collisions), steps)
