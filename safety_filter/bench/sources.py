"""What an episode is made of: who commands the arm (brains) and who sees the obstacles (eyes)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from safety_filter.bench.cell import declared
from safety_filter.core import shapes
from safety_filter.core.wire import Role, Tracks, empty_tracks
from safety_filter.sim.bodies import mesh_vertices
from safety_filter.sim.catalogue import SHAPES, Part, Shape
from safety_filter.sim.expert import CHUNK, DT, Expert, chunk
from safety_filter.sim.render import Frame
from safety_filter.sim.world import World
from safety_filter.vla.dataset import proprioception
from safety_filter.vla.policy import PROFILE, SHIPPED, Policy, PolicyOutput
from safety_filter.vla.tap import AttentionTap

Array = NDArray[np.float64]
_UNKNOWN_CLASS = 0xFFFF


class Brain(Protocol):
    """A policy: one chunk for the pictures of now."""

    sees: bool  # whether it looks at pictures; without them none are rendered for it

    def think(self, world: World, scene: Frame | None, wrist: Frame | None) -> PolicyOutput:
        """The chunk for a world as it is now."""
        ...


class VlaBrain:
    """The vision-language-action policy with its attention tap.

    With `all_heads` the attention is the mean over all heads of each camera, in place of the
    calibrated head of each phase.
    """

    sees = True

    def __init__(self, model: Path = SHIPPED, all_heads: bool = False) -> None:
        profile = model / PROFILE
        self.policy = Policy.load(model, profile if profile.exists() else None)
        self._taps: list[AttentionTap] = []
        if all_heads:
            config = self.policy.model.config
            heads = [(i, j) for i in range(config.layers) for j in range(config.heads)]
            self._taps = [AttentionTap(self.policy.model, heads, c) for c in ("scene", "wrist")]
            for tap in self._taps:
                tap.attach()

    def think(self, world: World, scene: Frame | None, wrist: Frame | None) -> PolicyOutput:
        assert scene is not None and wrist is not None
        out = self.policy.act(scene.rgb, wrist.rgb, proprioception(world),
                              world.scene.instruction, world.time)
        if not self._taps:
            return out
        scene_mean, wrist_mean = (tap.maps()[0].mean(0) for tap in self._taps)
        return replace(out, attention=scene_mean,
                       wrist_attention=wrist_mean if out.phase == "approach" else None)


class ExpertBrain:
    """The scripted expert: knows poses, ignores obstacles, has no attention."""

    sees = False

    def think(self, world: World, scene: Frame | None, wrist: Frame | None) -> PolicyOutput:
        twists, openings = chunk(Expert(world).state(), CHUNK)
        return PolicyOutput(twists, openings, DT, world.time, None, "", 1.0, "approach")


class Eyes(Protocol):
    """A source of tracks."""

    sees: bool  # whether it looks at pictures

    def look(self, world: World, scene: Frame | None, thought: PolicyOutput | None) -> Tracks:
        """Tracks for a picture; `thought` is the newest finished chunk, with its attention."""
        ...


class TruthEyes:
    """Tracks from the simulator's own state: no error, no covariance, roles known.

    With `pieces` an object is the union of a few tight ellipsoids, else one that encloses it.
    """

    sees = False

    def __init__(self, pieces: bool = True) -> None:
        self._pieces = pieces

    def look(self, world: World, scene: Frame | None, thought: PolicyOutput | None) -> Tracks:
        parts = [_true_tracks(world, i, self._pieces) for i in range(len(world.scene.specs))]
        return np.concatenate([p for p in parts if len(p)] or [empty_tracks()])


class FrozenEyes:
    """The true state at the start of the episode, never updated: what was known once.

    Gripper and arm tell of what is held, without sight: it is HELD, moves with the hand from where
    the fingers closed on it, and stays where they let go of it, with its role of the start.
    """

    sees = False

    def __init__(self, pieces: bool = True) -> None:
        self._pieces = pieces
        self._parts: list[Tracks] = []
        self._grip: tuple[int, Array, Array] | None = None  # what, and its pose in the tool frame

    def look(self, world: World, scene: Frame | None, thought: PolicyOutput | None) -> Tracks:
        if world.steps == 0:
            self._grip = None
            self._parts = [_tracks_at(world, i, self._pieces, s.position, _turn(s.orientation))
                           for i, s in enumerate(world.truth())]
        self._feel(world)
        return np.concatenate([p for p in self._parts if len(p)] or [empty_tracks()])

    def _feel(self, world: World) -> None:
        """Update what the gripper holds or has let go of."""
        states = world.truth()
        held = next((i for i, s in enumerate(states) if s.body == world.held), None)
        if self._grip is not None and self._grip[0] != held:
            self._parts[self._grip[0]]["role"] = int(_role(world, self._grip[0]))
            self._grip = None
        if held is None:
            return
        tool, turn = world.tool_pose()
        if self._grip is None:
            state = states[held]
            self._grip = (held, turn.T @ (state.position - tool),
                          turn.T @ _turn(state.orientation))
        _, offset, turned = self._grip
        self._parts[held] = _tracks_at(
            world, held, self._pieces, tool + turn @ offset, turn @ turned)


def enclosing_axes(shape: Shape) -> Array:
    """Semi-axes (3,) of an ellipsoid around a shape, m: least volume for boxes and cylinders, the
    least in proportion to its half extents for meshes."""
    half = np.asarray(shape.half_extents)
    kinds = {part.kind for part in shape.parts}
    if shape.mesh:
        return half * np.sqrt(((mesh_vertices(shape) / half) ** 2).sum(1).max())
    if kinds == {"sphere"}:
        return half
    if kinds == {"cylinder"}:
        return half * np.sqrt([1.5, 1.5, 3.0])
    return half * np.sqrt(3.0)


@cache
def _cover(name: str, pieces: bool) -> shapes.Cover:
    """The ellipsoids of a shape, in its frame."""
    shape = SHAPES[name]
    if name in ("tray", "bin"):  # walls, for what is put in comes between them
        parts = [shapes.box(p.size, most=4 if pieces else 1).moved(p.offset)
                 for p in shape.parts[1:]]
        return shapes.combined(parts)
    if not pieces:
        return shapes.ellipsoid(enclosing_axes(shape))
    if shape.mesh:
        return shapes.box(shape.half_extents, resting=True)
    return shapes.combined([_part(p).moved(p.offset) for p in shape.parts])


def _part(part: Part) -> shapes.Cover:
    if part.kind == "sphere":
        return shapes.sphere(part.size[0])
    if part.kind == "cylinder":
        return shapes.cylinder(part.size[0], part.size[2], resting=True)
    return shapes.box(part.size, resting=True)


def _true_tracks(world: World, index: int, pieces: bool) -> Tracks:
    state = world.truth()[index]
    return _tracks_at(world, index, pieces, state.position, _turn(state.orientation),
                      state.velocity)


def _tracks_at(world: World, index: int, pieces: bool, position: Array, rotation: Array,
               velocity: ArrayLike = (0.0, 0.0, 0.0)) -> Tracks:
    """The tracks of a thing in its role of now, put at a pose (m, base) with a velocity (m/s)."""
    return shapes.tracks(
        _cover(world.scene.specs[index].shape.name, pieces), 1 + index, position, rotation,
        velocity, role=_role(world, index), class_id=_UNKNOWN_CLASS,
        p_target=float(index == world.scene.target))


def _role(world: World, index: int) -> Role:
    spec = world.scene.specs[index]
    if world.held == world.bodies[spec.name]:
        return Role.HELD
    if index == world.scene.target:
        return Role.TARGET
    return Role.SUPPORT if spec.role == "destination" else Role.OBSTACLE


def _turn(orientation: Array) -> Array:
    """The rotation matrix (3, 3) of a quaternion (x, y, z, w)."""
    return np.asarray(Rotation.from_quat(orientation).as_matrix())


class RealEyes:
    """The shipped detector, tracker and target selection on rendered RGB-D pictures."""

    sees = True

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        from safety_filter.perception.detector import Detector
        from safety_filter.perception.episodes import panda_mask
        from safety_filter.perception.params import PerceptionParams
        from safety_filter.perception.pipeline import Perception

        chosen = PerceptionParams(**{**declared("perception", PerceptionParams), **(params or {})})
        self.perception = Perception(chosen, Detector.load(), panda_mask())

    def look(self, world: World, scene: Frame | None, thought: PolicyOutput | None) -> Tracks:
        from safety_filter.perception.gaze import AttentionMap

        assert scene is not None
        if world.steps == 0:
            self.perception.reset()
            self.perception.instruct(world.scene.instruction)
        q, _, opening = world.joint_state()
        maps = (thought.attention, thought.wrist_attention) if thought is not None else ()
        attention = [None if m is None or thought is None
                     else AttentionMap(thought.stamp, m) for m in maps]
        return self.perception.update(scene.stamp, scene.rgb, scene.depth, scene.K,
                                      scene.T_base_cam, q, opening, *attention).tracks
