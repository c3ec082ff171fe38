"""Why an episode failed, in a few words that can be counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from safety_filter.core.wire import PIECE_STEP, Role, Tracks
from safety_filter.sim.contacts import FINGERS, HAND, Contact
from safety_filter.sim.world import World

NEAR = 0.10  # m: a track farther from a thing than this is not of it
MISPLACED = 0.03  # m
WRONG_SPEED = 0.08  # m/s


def collision_cause(world: World, contact: Contact, tracks: Tracks | None, state: str) -> str:
    """The cause of a collision: what touched what, and what the filter knew of it."""
    body = "held object" if contact.body == "held" else (
        "fingers" if contact.body in FINGERS else "hand" if contact.body in HAND else "arm link")
    if contact.other not in world.bodies or contact.role == "destination":
        return f"{body} on {contact.role}: {_word(state)}"
    return f"{body} on {contact.role}: {_knowledge(world, contact.other, tracks, state)}"


def _knowledge(world: World, name: str, tracks: Tracks | None, state: str) -> str:
    """What was known of the thing that was touched."""
    if tracks is None:
        return "nothing known"
    things = {n: world.object_position(n) for n in world.bodies}
    moves = world.velocities[name]  # after the step it would be what the contact made of it
    centres = np.stack([tracks[a] for a in "xyz"], axis=1).astype(float)
    objects = tracks["id"].astype(np.int64) % PIECE_STEP
    off: dict[int, float] = {}
    for i in np.unique(objects):
        centre = centres[objects == i].mean(0)
        gaps = {n: float(np.linalg.norm(t[:2] - centre[:2])) for n, t in things.items()}
        if min(gaps, key=lambda n: gaps[n]) == name:  # it is of this thing, not of its neighbour
            off[int(i)] = gaps[name]
    nearest = min(off, key=lambda i: off[i], default=None)
    if nearest is None or off[nearest] > NEAR:
        return "not tracked"
    track = tracks[objects == nearest][0]
    role = Role(int(track["role"]))
    if role != Role.OBSTACLE:
        return f"taken for {role.name.lower()}"
    velocity = np.array([track[a] for a in ("vx", "vy", "vz")], float)
    if np.linalg.norm(velocity - moves) > WRONG_SPEED:
        return "velocity wrong"
    if off[nearest] > MISPLACED + 0.15 * float(np.linalg.norm(moves)):
        return "misplaced"
    moving = float(np.linalg.norm(moves)) > 0.03
    if state.startswith("STOPPED"):
        return f"{'ran into the arm' if moving else 'known'}, {_word(state)}"
    return f"known, {_word(state)}"


def failure_cause(recent: Sequence[str], grasped: bool, held: bool, end: str) -> str:
    """The cause of a failure without a collision: how far it came, and the state at the end.

    recent: states of the last seconds; grasped: the target was held at some time; held: it is at
    the end. A grasp of another thing is a collision.
    """
    if end == "target off the table":
        return "target fell off the table"
    phase = "not placed" if held else "dropped" if grasped else "not grasped"
    state = Counter(recent).most_common(1)[0][0] if recent else "PASS"
    return f"{phase}, {_word(state)}"


def _word(state: str) -> str:
    return {"PASS": "unfiltered", "FILTERED": "held off"}.get(
        state, state.replace("STOPPED", "stopped for").replace("_", " "))
