"""What an episode is made of: who commands the arm (brains) and who sees the obstacles (eyes)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from safety_filter.core.wire import Role, Tracks, empty_tracks
from safety_filter.sim.catalogue import Shape
from safety_filter.sim.expert import CHUNK, DT, Expert, chunk
from safety_filter.sim.render import Frame
from safety_filter.sim.world import World
from safety_filter.vla.dataset import proprioception
from safety_filter.vla.policy import PROFILE, SHIPPED, Policy, PolicyOutput

Array = NDArray[np.float64]
_UNKNOWN_CLASS = 0xFFFF


class Brain(Protocol):
    """A policy: one chunk for the pictures of now."""

    def think(self, world: World, scene: Frame, wrist: Frame) -> PolicyOutput:
        """The chunk for a world as it is now."""
        ...


class VlaBrain:
    """The vision-language-action policy with its attention tap."""

    def __init__(self, model: Path = SHIPPED) -> None:
        profile = model / PROFILE
        self.policy = Policy.load(model, profile if profile.exists() else None)

    def think(self, world: World, scene: Frame, wrist: Frame) -> PolicyOutput:
        return self.policy.act(scene.rgb, wrist.rgb, proprioception(world),
                               world.scene.instruction, world.time)


class ExpertBrain:
    """The scripted expert: knows poses, ignores obstacles, has no attention."""

    def think(self, world: World, scene: Frame, wrist: Frame) -> PolicyOutput:
        twists, openings = chunk(Expert(world).state(), CHUNK)
        return PolicyOutput(twists, openings, DT, world.time, None, "", 1.0, "approach")


class Eyes(Protocol):
    """A source of tracks."""

    def look(self, world: World, scene: Frame, thought: PolicyOutput | None) -> Tracks:
        """Tracks for a picture; `thought` is the newest finished chunk, with its attention."""
        ...


class TruthEyes:
    """Tracks from the simulator's own state: no error, no covariance, roles known."""

    def look(self, world: World, scene: Frame, thought: PolicyOutput | None) -> Tracks:
        parts = [_true_tracks(world, i) for i in range(len(world.scene.specs))]
        return np.concatenate([p for p in parts if len(p)] or [empty_tracks()])


def enclosing_axes(shape: Shape) -> Array:
    """Semi-axes (3,) of an ellipsoid around a shape, m: least volume for boxes and cylinders."""
    half = np.asarray(shape.half_extents)
    kinds = {part.kind for part in shape.parts}
    if kinds == {"sphere"} or shape.mesh:
        return half
    if kinds == {"cylinder"}:
        return half * np.sqrt([1.5, 1.5, 3.0])
    return half * np.sqrt(3.0)


def _true_tracks(world: World, index: int) -> Tracks:
    spec = world.scene.specs[index]
    state = world.truth()[index]
    pieces = [(np.zeros(3), enclosing_axes(spec.shape))]
    if spec.shape.name in ("tray", "bin"):
        pieces = [(np.asarray(part.offset), np.asarray(part.size) * np.sqrt(3.0))
                  for part in spec.shape.parts[1:]]
    out = empty_tracks(len(pieces))
    rotation = Rotation.from_quat(state.orientation).as_matrix()
    for k, (offset, axes) in enumerate(pieces):
        out["x"][k], out["y"][k], out["z"][k] = state.position + rotation @ offset
        out["sx"][k], out["sy"][k], out["sz"][k] = axes
        out["id"][k] = 1 + index + 1000 * k
    for name, value in zip(("vx", "vy", "vz"), state.velocity, strict=True):
        out[name] = value
    for name, value in zip(("qx", "qy", "qz", "qw"), state.orientation, strict=True):
        out[name] = value
    out["score"], out["class_id"] = 1.0, _UNKNOWN_CLASS
    held = world.held == state.body
    role = Role.OBSTACLE
    if held:
        role = Role.HELD
    elif index == world.scene.target:
        role = Role.TARGET
    elif spec.role == "destination":
        role = Role.SUPPORT
    out["role"], out["p_target"] = int(role), float(index == world.scene.target)
    return out


class RealEyes:
    """The shipped detector, tracker and target selection on rendered RGB-D pictures."""

    def __init__(self) -> None:
        from safety_filter.perception.detector import Detector
        from safety_filter.perception.episodes import panda_mask
        from safety_filter.perception.params import PerceptionParams
        from safety_filter.perception.pipeline import Perception

        self.perception = Perception(PerceptionParams(), Detector.load(), panda_mask())
        self._stamp = -1.0

    def look(self, world: World, scene: Frame, thought: PolicyOutput | None) -> Tracks:
        from safety_filter.perception.targets import AttentionMap

        if scene.stamp < self._stamp:
            self.perception.reset()
        self._stamp = scene.stamp
        q, _, opening = world.joint_state()
        attention = None
        if thought is not None and thought.attention is not None:
            attention = AttentionMap(thought.stamp, thought.attention, thought.profile_id)
        return self.perception.update(scene.stamp, scene.rgb, scene.depth, scene.K,
                                      scene.T_base_cam, q, opening, attention).tracks
