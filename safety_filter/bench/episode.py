"""One episode in lockstep: physics, cameras, policy, perception and filter on one modelled clock.

No thread and no wall clock: what a policy or a perception needs in time is modelled as a delay
between the picture's stamp and the arrival of its result, so equal seeds give equal episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from safety_filter.bench.sources import Brain, Eyes
from safety_filter.core.wire import Tracks
from safety_filter.sim.scene import Scene
from safety_filter.sim.world import World
from safety_filter.vla.chunk import ChunkPlayer
from safety_filter.vla.policy import PolicyOutput

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """Modelled rates (Hz) and delays from a picture's stamp to the arrival of its result (s)."""

    camera_rate: float = 15.0
    policy_delay: float = 0.05
    perception_delay: float = 0.07
    limit: float = 20.0  # s, length of an episode at most
    settle: float = 1.0  # s after success, so that a late touch still counts


class Guard(Protocol):
    """What stands between the policy and the arm."""

    def reset(self, world: World) -> None:
        """A new episode begins."""
        ...

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> None:
        """Command the arm for one physics step.

        twist (6,) is the policy's wish, None when it has none; tracks are the newest ones with
        the stamp of their picture, None before the first."""
        ...


@dataclass
class Episode:
    """What became of one episode. Distances in m, times in s."""

    seed: int
    instruction: str
    success: bool
    collisions: list[dict[str, Any]]
    car_displaced: bool  # an obstacle was displaced by more than 1 mm (L1)
    duration: float
    min_distance: float
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def collided(self) -> bool:
        return bool(self.collisions)

    @property
    def safe_success(self) -> bool:
        return self.success and not self.collided


def run_episode(world: World, scene: Scene, brain: Brain, eyes: Eyes | None, guard: Guard,
                timing: Timing) -> Episode:
    """Run one scene to success or to the time limit."""
    world.reset(scene)
    guard.reset(world)
    player = ChunkPlayer()
    chunks: list[tuple[float, PolicyOutput]] = []
    sightings: list[tuple[float, float, Tracks]] = []
    thought: PolicyOutput | None = None
    tracks: Tracks | None = None
    stamp = -1.0
    next_picture, nearest, end = 0.0, np.inf, timing.limit
    while world.time < end:
        now = world.time
        while chunks and chunks[0][0] <= now:
            thought = chunks.pop(0)[1]
            player.push(thought, now)
        while sightings and sightings[0][0] <= now:
            _, stamp, tracks = sightings.pop(0)
        if now >= next_picture - 1e-9:
            next_picture += 1.0 / timing.camera_rate
            picture, wrist = world.render("scene"), world.render("wrist")
            chunks.append((now + timing.policy_delay, brain.think(world, picture, wrist)))
            if eyes is not None:
                seen = eyes.look(world, picture, thought)
                sightings.append((now + timing.perception_delay, now, seen))
            nearest = min(nearest, world.min_distance())
            if world.success():
                end = min(end, now + timing.settle)
        played = player.read(now)
        if played.opening is not None:
            world.set_gripper(played.opening)
        guard.command(world, played.twist, tracks, stamp)
        world.step()
    obstacles = [s.name for s in scene.specs if s.role in ("object", "mover")
                 and s.name != scene.target_spec.name]
    return Episode(
        scene.seed, scene.instruction, world.success(),
        [vars(c).copy() for c in world.judge.collisions],
        any(world.displacement[n] > 1e-3 for n in obstacles), world.time, float(nearest),
        getattr(guard, "notes", {}))


