"""One episode in lockstep: physics, cameras, policy, perception and filter on one modelled clock.

No thread and no wall clock: what a policy or a perception needs in time is modelled as a delay
between the picture's stamp and the arrival of its result, so equal seeds give equal episodes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.bench.methods.base import Guard, Step
from safety_filter.bench.record import Recorder
from safety_filter.bench.sources import Brain, Eyes
from safety_filter.core.wire import Tracks
from safety_filter.sim.scene import Scene
from safety_filter.sim.world import DT, World
from safety_filter.vla.chunk import ChunkPlayer
from safety_filter.vla.policy import PolicyOutput

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """Modelled rates (Hz) and delays (s) of each stage."""

    camera_rate: float = 15.0
    policy_every: int = 2  # the policy looks at every so many-th picture
    camera_delay: float = 0.015  # from the picture's stamp to its arrival
    policy_delay: float = 0.045
    perception_delay: float = 0.075
    actuation_delay: float = 2.0 / 240.0  # from the command to the joints' reference
    limit: float = 20.0  # length of an episode at most
    settle: float = 1.0  # after success, so that a late touch still counts


class Film:
    """Takes a picture of the scene and what is written below it; without one nothing is drawn."""

    def shoot(self, world: World, tracks: Tracks | None, step: Step | None) -> None:
        """Called at the camera's rate."""
        raise NotImplementedError


class Feed:
    """Results on their way: each becomes the newest one when its delay is over."""

    def __init__(self) -> None:
        self._queue: deque[tuple[float, Any]] = deque()

    def put(self, at: float, value: Any) -> None:
        """A result that arrives at time `at`."""
        self._queue.append((at, value))

    def take(self, now: float) -> list[Any]:
        """What has arrived by now and was not taken yet, oldest first."""
        out = []
        while self._queue and self._queue[0][0] <= now + 1e-9:
            out.append(self._queue.popleft()[1])
        return out


def run_episode(world: World, scene: Scene, brain: Brain, eyes: Eyes | None, guard: Guard,
                timing: Timing, film: Film | None = None) -> dict[str, Any]:
    """Run one scene to success, to the target's loss off the table or to the time limit.

    Returns what `Recorder.result` describes.
    """
    world.reset(scene)
    guard.reset(world)
    player, record = ChunkPlayer(), Recorder(world, timing.limit)
    chunks, sightings, commands = Feed(), Feed(), Feed()
    thought: PolicyOutput | None = None
    tracks: Tracks | None = None
    step: Step | None = None
    stamp, picture_number, end = -1.0, 0, timing.limit
    while world.time < end:
        now = world.time
        for thought in chunks.take(now):
            player.push(thought, now)
        for sighting in sightings.take(now):
            stamp, tracks = sighting
            record.saw(tracks)
        if now >= picture_number / timing.camera_rate - 1e-9:
            thinks = picture_number % timing.policy_every == 0
            picture_number += 1
            arrival = now + timing.camera_delay
            looks = eyes is not None and eyes.sees
            picture = world.render("scene") if looks or (thinks and brain.sees) else None
            if thinks:
                wrist = world.render("wrist") if brain.sees else None
                chunks.put(arrival + timing.policy_delay, brain.think(world, picture, wrist))
            if eyes is not None:
                seen = eyes.look(world, picture, thought)
                sightings.put(arrival + timing.perception_delay, (now, seen))
            # What lay on its place may yet be taken away: time goes on then.
            end = min(end, now + timing.settle) if record.look() else timing.limit
            if film is not None:
                film.shoot(world, tracks, step)
        played = player.read(now)
        if played.opening is not None:
            world.set_gripper(played.opening)
        step = guard.command(world, played.twist, tracks, stamp)
        commands.put(now + timing.actuation_delay, step.qd)
        for qd in commands.take(now):
            world.set_joint_velocity(qd)
        world.step()
        record.stepped(step, DT)
    return record.result()
