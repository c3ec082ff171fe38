"""What the gripper holds: tracks of role HELD become spheres fixed to the tool."""

from __future__ import annotations

import numpy as np

from safety_filter.core.ellipsoids import ELLIPSOID_DTYPE, load_tracks, separating_normal
from safety_filter.core.robot import SPHERE_DTYPE, Array, BodyKind, RobotModel, Structs
from safety_filter.core.wire import PIECE_STEP, Role, Tracks

SPHERES_PER_TRACK = 3
MOST_HELD = 8
"""More tracks of role HELD than this are unreadable."""
REACH = 0.15
"""m from the tool frame's origin to the nearest surface of what is held, at most."""


def held_fault(tracks: Tracks, point: Array, reach: float = REACH) -> str | None:
    """Return why an object of role HELD cannot be in a gripper at `point` (3,), or None.

    The filter keeps such objects off others and nothing off them, so that a role which is wrong
    would hide an obstacle. An object may have pieces; its nearest one counts.
    """
    held = tracks[tracks['role'] == int(Role.HELD)]
    if len(held) == 0:
        return None
    away = distances(held, point)
    objects = held['id'] % PIECE_STEP
    for name in np.unique(objects):
        nearest = float(away[objects == name].min())
        if nearest > reach:
            return (f'track {name} of role HELD is {nearest:.2f} m from the tool, limit '
                    f'{reach:g} m; what the gripper does not hold is of another role')
    return None


def distances(tracks: Tracks, point: Array) -> Array:
    """Return the distances (n,) of a point (3,) to usable tracks, m; negative inside."""
    ellipsoids = np.zeros(len(tracks), ELLIPSOID_DTYPE)
    load_tracks(tracks, ellipsoids)
    return np.array([separating_normal(*(point - e['centre']), e['axes'], e['rotation'])[3]
                     for e in ellipsoids])


def held_spheres(robot: RobotModel, rotation: Array, position: Array, tracks: Tracks,
                 inflation: float) -> Structs:
    """Return spheres that cover the HELD tracks (at most `MOST_HELD`), fixed to the tool's joint.

    `rotation` (3, 3) and `position` (3,) are that joint's frame at the tracks' stamp. An ellipsoid
    with semi-axes a >= b >= c is cut in three along a; each sphere holds one slab of the enclosing
    spheroid (a, b, b).
    """
    held = tracks[tracks['role'] == int(Role.HELD)]
    if len(held) == 0:
        return np.zeros(0, SPHERE_DTYPE)
    ellipsoids = np.zeros(len(held), ELLIPSOID_DTYPE)
    load_tracks(held, ellipsoids)
    out = np.zeros(len(held) * SPHERES_PER_TRACK, SPHERE_DTYPE)
    out['joint'], out['kind'] = robot.tool['joint'][0], int(BodyKind.HELD)
    out['group'], out['columns'] = len(robot.bodies), robot.n
    for i, e in enumerate(ellipsoids):
        long = int(np.argmax(e['axes']))
        a, b = float(e['axes'][long]), float(np.delete(e['axes'], long).max())
        shift, radius = slab_spheres(a, b)
        for k, along in enumerate((-shift, 0.0, shift)):
            sphere = out[SPHERES_PER_TRACK * i + k]
            centre = e['centre'] + along * e['rotation'][:, long]
            sphere['offset'] = rotation.T @ (centre - position)
            sphere['radius'], sphere['sigma'] = radius + inflation, e['p_sigma']
    return out


def slab_spheres(a: float, b: float) -> tuple[float, float]:
    """Return offset and radius of three equal spheres on the axis that hold a spheroid (a, b, b).

    With spheres at -d, 0, d, the surface point at x along the axis is at distance^2
    (x - d_k)^2 + b^2 (1 - x^2 / a^2) from the nearest; d is chosen to make the largest one least.
    """
    x = np.linspace(0.0, a, 201)
    height = b * b * (1.0 - (x / a) ** 2)
    best = (0.0, max(a, b))
    for d in np.linspace(0.0, a, 41):
        worst = float(np.sqrt(np.max(np.minimum((x - d) ** 2, x ** 2) + height)))
        if worst < best[1]:
            best = (float(d), worst)
    return best[0], best[1] + a / 400.0  # half the grid's step
