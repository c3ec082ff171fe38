"""The informed expert: knows all poses and all paths, and shows that a scene can be solved.

It rises above everything, flies across, waits until nothing will be in the way as it goes
straight down, grips or lets go, and comes up again. A scene that it cannot complete without a
contact within the time of an episode is left out of every suite; nothing else is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.expert import CHUNK, DT, MAX_SPEED, TOOL_DOWN, Expert, TaskState, action
from safety_filter.sim.render import Frame
from safety_filter.sim.suites import hand_gap
from safety_filter.sim.world import World
from safety_filter.vla.policy import PolicyOutput

Array = NDArray[np.float64]
ABOVE = 0.10  # m of the tool over the highest top: what it holds hangs below it
LOWEST_FLIGHT = 0.27  # m
CENTRED = 0.012  # m off the goal, seen from above
SETTLED = 1e-3  # m that things sink or stand out as they settle: no matter for what fits
ROOM = 0.02  # m between the hand and what passes by while it is down
DWELL = 0.7  # s at the bottom, to grip or to let go
BELOW = 0.03  # m from the tool down to what is lowest of fingers and load, with room to spare


class InformedExpert:
    """A brain that uses what no policy has: the future."""

    sees = False

    def think(self, world: World, scene: Frame | None, wrist: Frame | None) -> PolicyOutput:
        """See `Brain`: one action, held for the length of a chunk."""
        twist, opening = act(world)
        return PolicyOutput(np.tile(twist, (CHUNK, 1)), np.full(CHUNK, opening), DT, world.time,
                            None, "", 1.0, "approach")


def act(world: World) -> tuple[Array, float]:
    """Tool twist (6,) in base and gripper opening (m) for now."""
    state = Expert(world).state()
    twist, opening = action(state)
    high = flight_height(world)
    if state.placed and not state.held:
        return _move(state, np.array([0.0, 0.0, high - state.tool[2]])), opening
    goal = state.drop_point() if state.held else state.target
    off = goal[:2] - state.tool[:2]
    over_goal = float(np.linalg.norm(off)) < CENTRED
    down = over_goal and state.tool[2] < high - 0.05
    if down and float(np.linalg.norm(off)) < 2 * CENTRED:
        return twist, opening
    if state.tool[2] < high - 0.02 and not over_goal:
        return _move(state, np.array([0.0, 0.0, high - state.tool[2]])), opening
    if not over_goal:
        return _move(state, np.array([*off, high - state.tool[2]])), opening
    if column_is_clear(world, goal, high, 2 * state.half_extents[2] if state.held else 0.0):
        return twist, opening
    return _move(state, np.array([*off, high - state.tool[2]])), opening


def flight_height(world: World) -> float:
    """Height of the tool at which nothing in the scene is ever touched, m."""
    tops = [spec.position[2] + spec.shape.half_extents[2] for spec in world.scene.specs]
    return max(LOWEST_FLIGHT, max(tops) + ABOVE)


def column_is_clear(world: World, goal: Array, high: float, load: float) -> bool:
    """Whether nothing will be in the way of going down to `goal` (3,) from `high` now, and up.

    load: height of what is held, m; it may hang below the tool.
    """
    point = (float(goal[0]), float(goal[1]), float(goal[2]) + SETTLED)
    way = (high - point[2]) / (0.9 * MAX_SPEED)  # s for going down
    for i, spec in enumerate(world.scene.specs):
        if spec.path is None:
            continue
        if i == world.scene.target:
            if world.time < spec.path.stops_at:
                return False
            continue
        for t in np.arange(0.0, 2 * way + DWELL, 0.1):
            share = min(t / way, 1.0, max(2 * way + DWELL - t, 0.0) / way)
            lowest = high - share * (high - point[2]) - BELOW - load
            where = spec.path.state(world.time + float(t))[0]
            place = (float(where[0]), float(where[1]), float(where[2]))
            if place[2] + spec.shape.half_extents[2] > lowest \
                    and hand_gap(point, place, spec.shape) < ROOM:
                return False
    return True


def _move(state: TaskState, off: Array) -> Array:
    """A straight move by `off` (3,) that also keeps the tool pointing down."""
    distance = float(np.linalg.norm(off))
    speed = min(MAX_SPEED, 5.0 * distance)
    error = TOOL_DOWN @ state.rotation.T
    turn = np.array([error[2, 1] - error[1, 2], error[0, 2] - error[2, 0],
                     error[1, 0] - error[0, 1]])
    return np.concatenate([off / max(distance, 1e-9) * speed, turn])
