"""The scripted expert: a memoryless vector field that knows poses and ignores obstacles.

The same field drives the simulated arm and labels stored states: its action depends on the
present state only, so any recorded state can be labelled for any task afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.catalogue import Shape
from safety_filter.sim.world import MAX_OPENING, World

Array = NDArray[np.float64]

DT = 0.05  # one action, s
CHUNK = 8  # actions in a chunk
MAX_SPEED = 0.28  # m/s
MIN_SPEED = 0.03  # m/s while there is any way to go: labels stay clear of zero
MAX_TURN = 0.8  # rad/s
GAIN = 5.0  # 1/s
CONE_SLOPE = 2.0
CONE_RADIUS = 0.018  # m: inside it the descent is free
CARRY_RADIUS = 0.030
CLEARANCE = 0.12  # m above the goal while away from it
CLOSE_TOLERANCE = (0.015, 0.012)  # m, across and along z: inside, the gripper closes
KEEP_CLOSING = (0.030, 0.025)  # m: and goes on closing inside these (hysteresis by the opening)
RELEASE_TOLERANCE = (0.030, 0.015)  # m, the same for letting go at the drop point
OPEN_RATE = 0.16  # m/s, of the gripper's opening in the kinematic model
TOOL_DOWN = np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])
RETREAT_HEIGHT = 0.22


@dataclass(frozen=True)
class TaskState:
    """What the expert looks at. Positions (3,) in base, m; rotation (3, 3); openings in m."""

    tool: Array
    rotation: Array
    opening: float
    target: Array  # centre of the target
    half_extents: tuple[float, float, float]  # of the target
    held: bool  # the target is in the gripper
    destination: Array  # centre of the destination's bounding box
    destination_shape: Shape

    @property
    def grasp_height(self) -> float:
        """Height of the grasp point above the target's centre: high enough for the fingers."""
        return max(0.0, 0.018 - self.half_extents[2]) + 0.25 * max(
            0.0, self.half_extents[2] - 0.022)

    @property
    def width(self) -> float:
        """Width of the target between the fingers, m."""
        return 2 * self.half_extents[1]

    @property
    def placed(self) -> bool:
        """The target rests on the destination."""
        off = np.abs(self.target[:2] - self.destination[:2])
        inside = self.destination_shape.half_extents[0] - 0.025
        return bool(off.max() < inside and self.target[2] < self._rest_height() + 0.012)

    def _rest_height(self) -> float:
        shape = self.destination_shape
        floor = 0.006 if shape.name in ("tray", "bin") else 2 * shape.half_extents[2]
        return floor + self.half_extents[2]

    def drop_point(self) -> Array:
        """Where the tool lets go of the target (3,)."""
        shape = self.destination_shape
        height = self._rest_height() + self.grasp_height + 0.006
        if shape.name == "bin":  # let it fall in from above the walls
            height = 2 * shape.half_extents[2] + self.half_extents[2] + self.grasp_height + 0.004
        return np.array([self.destination[0], self.destination[1], height])


def action(state: TaskState) -> tuple[Array, float]:
    """Tool twist (6,) in base and commanded opening (m) for a state."""
    if state.held:
        goal = state.drop_point()
        error = float(np.linalg.norm(goal[:2] - state.tool[:2]))
        across, along = RELEASE_TOLERANCE
        release = error < across and state.tool[2] - goal[2] < along
        velocity = _cone(state.tool, goal, error, CARRY_RADIUS)
        return _twist(velocity, state.rotation), MAX_OPENING if release else 0.0
    if state.placed:
        goal = np.array([state.tool[0], state.tool[1], RETREAT_HEIGHT])
        open_enough = state.opening > state.width + 0.012
        velocity = _speed(goal - state.tool) * (1.0 if open_enough else 0.0)
        return _twist(velocity, state.rotation), MAX_OPENING
    goal = state.target + [0, 0, state.grasp_height]
    off = goal - state.tool
    error = float(np.linalg.norm(off[:2]))
    closing = state.opening < MAX_OPENING - 0.006
    across, along = KEEP_CLOSING if closing else CLOSE_TOLERANCE
    near = error < across and abs(off[2]) < along
    velocity = 0.5 * GAIN * off if near else _cone(state.tool, goal, error, CONE_RADIUS)
    return _twist(velocity, state.rotation), 0.0 if near else MAX_OPENING


def _cone(tool: Array, goal: Array, error: float, radius: float) -> Array:
    """Velocity (3,) towards `goal` that stays above a soft cone around it."""
    height = goal[2] + np.clip(CONE_SLOPE * (error - radius), 0.0, CLEARANCE)
    off = np.array([goal[0] - tool[0], goal[1] - tool[1], height - tool[2]])
    # Below the cone: rise first, so that nothing is dragged along the table.
    below = np.clip((off[2] - 0.02) / 0.05, 0.0, 0.9)
    off[:2] *= 1.0 - below
    return _speed(off)


def _speed(off: Array) -> Array:
    distance = float(np.linalg.norm(off))
    if distance < 1e-6:
        return np.zeros(3)
    return off / distance * np.clip(GAIN * distance, min(MIN_SPEED, distance / DT), MAX_SPEED)


def _twist(velocity: Array, rotation: Array) -> Array:
    """Adds the turn that brings the tool back to pointing straight down."""
    error = TOOL_DOWN @ rotation.T
    axis = 0.5 * np.array([error[2, 1] - error[1, 2], error[0, 2] - error[2, 0],
                           error[1, 0] - error[0, 1]])
    turn = 2.0 * axis
    norm = float(np.linalg.norm(turn))
    return np.concatenate([velocity, turn * min(1.0, MAX_TURN / max(norm, 1e-9))])


def advance(state: TaskState, twist: Array, opening: float) -> TaskState:
    """The kinematic model of one action (DT): tool moves exactly, the held target with it."""
    tool = state.tool + DT * twist[:3]
    rotation = _rotate(DT * twist[3:]) @ state.rotation
    limit = OPEN_RATE * DT
    wanted = opening
    grasp = state.target + [0, 0, state.grasp_height]
    between = bool(np.linalg.norm((grasp - state.tool)[:2]) < 0.02
                   and abs(grasp[2] - state.tool[2]) < 0.03)
    if between or state.held:
        wanted = max(opening, state.width)
    new_opening = state.opening + float(np.clip(wanted - state.opening, -limit, limit))
    held = between and opening < state.width and new_opening <= state.width + 1e-3
    target = state.target
    if state.held:
        held = opening < state.width
        target = target + DT * twist[:3]
        if not held:
            target = np.array([target[0], target[1], state._rest_height()])
    return replace(state, tool=tool, rotation=rotation, opening=new_opening, held=held,
                   target=target)


def chunk(state: TaskState, length: int = CHUNK) -> tuple[Array, Array]:
    """Expert's next actions from a state: twists (length, 6) and openings (length,)."""
    twists, openings = np.empty((length, 6)), np.empty(length)
    for i in range(length):
        twists[i], openings[i] = action(state)
        state = advance(state, twists[i], openings[i])
    return twists, openings


def _rotate(vector: Array) -> Array:
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k))


class Expert:
    """The expert on a live world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def state(self) -> TaskState:
        """What it sees now."""
        world = self._world
        scene = world.scene
        target, destination = scene.target_spec, scene.destination_spec
        tool, rotation = world.tool_pose()
        return TaskState(
            tool, rotation, world.joint_state()[2], world.object_position(target.name),
            target.shape.half_extents, world.held == world.bodies[target.name],
            np.asarray(destination.position), destination.shape)

    def act(self) -> tuple[Array, float]:
        """Tool twist (6,) in base and gripper opening (m) for now."""
        return action(self.state())
