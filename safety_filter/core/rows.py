"""The CBF rows: one linear inequality a.q' >= b for each pair that could come too close.

For a robot sphere (p, r) and an obstacle ellipsoid (c, Q) with velocity v, any unit n gives
g(n) = n.(p - c) - r - sqrt(n'Qn), at most the true distance. With n frozen for the step

    n'J q' >= n'v + k_v sqrt(n' Sv n) + V(tau + Ts) - alpha(h) + c Ts / 2,    h = g(n) - margin
    margin = m0 + k_p sqrt(n' Sp n) + k_p s + k_v sqrt(n' Sv n) tau + W(tau) + tracking error

keeps h >= 0: c is predicted by the latency tau, V and W are the speed and the way that the bounds
on the obstacle's acceleration let it gain since it was seen (see surge.py), and c Ts / 2 covers
the curvature of the sphere's path while q' is held (see body_bounds.py); s is the standard
deviation of where a sphere of what is held is, zero for the robot's own. Sv must cover the rate at
which the error of c changes, too: c as it is seen moves with v and with its error. Planes, the
workspace and the robot's own sphere pairs have such rows without the obstacle terms.

Each row is asked for with a comfort reserve: `comfort_margin` more, and a gentler alpha. Where the
rows cannot all hold so, the reserve of some is used first; only beyond it is slack, and a stop.

The reserve also keeps sightings from shaking the arm. A sighting ages: margin and drift grow until
the next one takes that back at once. The reserve covers this growth in advance, so the arm stands
where it would be driven to anyway. And what only the reserve asks for comes with a time constant,
`smoothing`, so that the noise of sightings comes through at once only as far as the rows ask.

For tracks of persons there may be a second row, that of speed and separation monitoring (see
separation.py): n'J q' >= c Ts / 2 - v, v the greatest approach speed that the distance allows.

A row that no q' in the velocity box can violate is left out: that loses nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from safety_filter.core.body_bounds import Bodies, joint_spread
from safety_filter.core.ellipsoids import separating_normal, spread
from safety_filter.core.nominal import smoothing_share
from safety_filter.core.robot import Array, BodyKind, Ints, Record, Structs
from safety_filter.core.separation import approach_limit, note, protective_distance
from safety_filter.core.surge import gained, resting, way
from safety_filter.core.wire import Role

OBSTACLE_ROW, PLANE_ROW, WORKSPACE_ROW, SELF_ROW, SEPARATION_ROW = 0, 1, 2, 3, 4
LEVEL_MOVING, LEVEL_STATIC = 1, 2

ROW_DTYPE = np.dtype([
    ('kind', 'i8'),      # OBSTACLE_ROW ...
    ('sphere', 'i8'),    # index of the sphere, -1: tool frame
    ('other', 'i8'),     # index of the obstacle, plane, workspace side or second sphere
    ('level', 'i8'),     # 1: moving obstacles and self-collision; 2: static scene
    ('body', 'i8'),      # link of the sphere, -1: tool frame
    ('other_body', 'i8'),  # link of the second sphere
    ('track', 'i8'),     # id of the obstacle
    ('h', 'f8'),         # barrier, m
    ('alpha', 'f8'),     # alpha(h), m/s
    ('reserve', 'f8'),   # how much of b is comfort, m/s
    ('drift', 'f8'),     # speed at which the other side may come closer along n, m/s
    ('normal', 'f8', 3)], align=True)

NEAREST_DTYPE = np.dtype([
    ('body', 'i8'), ('track', 'i8'), ('distance', 'f8'),
    ('on_robot', 'f8', 3), ('on_obstacle', 'f8', 3)], align=True)

COUNT, OVERFLOW, INFEASIBLE, CANDIDATES = 0, 1, 2, 3
"""Indices into `Rows.counts`."""

_HAND, _FINGER, _HELD = int(BodyKind.HAND), int(BodyKind.FINGER), int(BodyKind.HELD)
_TARGET, _SUPPORT, _HELD_TRACK = int(Role.TARGET), int(Role.SUPPORT), int(Role.HELD)


class Rows(NamedTuple):
    """Rows a (m, n), b (m,) with what they are about; counts[COUNT] of them are in use."""

    a: Array
    b: Array
    info: Structs
    counts: Ints


@nb.njit(cache=True, error_model='numpy')
def class_k(h: float, slope: float, deceleration: float) -> float:
    """Return alpha(h): slope h near contact, then sqrt(2 a (h - a / (2 slope^2))), joined
    smoothly.

    Below both alpha0 h and sqrt(2 a h), and following it never takes more than `deceleration`.
    """
    knee = deceleration / (slope * slope)
    if h <= knee:
        return slope * h
    return float(np.sqrt(2.0 * deceleration * (h - knee / 2.0)))


@nb.njit(cache=True, error_model='numpy')
def class_k_inverse(speed: float, slope: float, deceleration: float) -> float:
    """Return the h at which alpha(h) = speed >= 0."""
    if speed <= deceleration / slope:
        return speed / slope
    return speed * speed / (2.0 * deceleration) + deceleration / (2.0 * slope * slope)


@nb.njit(cache=True, error_model='numpy')
def _add(rows: Rows, low: Array, high: Array, jacobian: Array, nx: float, ny: float, nz: float,
         h: float, drift: float, bend: float, comfort: float, p: Record, kind: int, sphere: int,
         other: int, level: int, pace: float = -1.0) -> None:
    """Append n'J q' >= drift - alpha(h) + bend unless every q' in the box meets it.

    `drift` is how fast the other side may come closer (m/s), `bend` the sampled-data term (m/s),
    `comfort` the extra clearance (m), none where contact is wanted. `pace` >= 0 (m/s) takes the
    place of alpha(h).
    """
    count = rows.counts[COUNT]
    if count == len(rows.b):
        rows.counts[OVERFLOW] = 1
        return
    share = p.comfort_share
    alpha = max(class_k(h, p.alpha0, p.brake_acceleration), -p.retreat_speed)
    gentle = class_k(h - comfort, share * p.alpha0, share * p.brake_acceleration)
    gentle = max(min(gentle, alpha), -p.retreat_speed)
    if pace >= 0.0:
        alpha = gentle = pace
    bound = drift + bend - gentle
    row = rows.a[count]
    least, most = 0.0, 0.0
    for i in range(len(low)):
        a = nx * jacobian[i, 0] + ny * jacobian[i, 1] + nz * jacobian[i, 2]
        row[i] = a
        least += a * low[i] if a > 0.0 else a * high[i]
        most += a * high[i] if a > 0.0 else a * low[i]
    if least >= bound:
        return
    reserve = alpha - gentle
    if most < bound:  # out of reach: comfort gives way at once
        given = min(bound - most + 1e-9, reserve)
        bound, reserve = bound - given, reserve - given
        if most < bound:
            rows.counts[INFEASIBLE] += 1
    rows.b[count] = bound
    info = rows.info[count]
    info.kind, info.sphere, info.other, info.level = kind, sphere, other, level
    info.h, info.alpha, info.reserve, info.drift = h, alpha, reserve, drift
    info.normal[0], info.normal[1], info.normal[2] = nx, ny, nz
    rows.counts[COUNT] = count + 1


@nb.njit(cache=True, error_model='numpy')
def _clearance(speed: float, p: Record) -> float:
    """Return the h from which on no row can bind if nothing closes in faster than `speed`."""
    share = p.comfort_share
    ahead = class_k_inverse(speed, share * p.alpha0, share * p.brake_acceleration)
    return float(p.comfort_margin + ahead)


@nb.njit(cache=True, error_model='numpy')
def _bend(bodies: Bodies, s: int, nx: float, ny: float, nz: float, p: Record) -> float:
    """Return the sampled-data term: what the path's curvature towards -n may take, m/s."""
    inward = -(nx * bodies.acceleration[s, 0] + ny * bodies.acceleration[s, 1]
               + nz * bodies.acceleration[s, 2])
    return float(p.sampled_data * (max(inward, 0.0) + bodies.spread[s]) * p.period / 2.0)


@nb.njit(cache=True, error_model='numpy')
def obstacle_rows(rows: Rows, bodies: Bodies, obstacles: Structs, count: int, tau: float,
                  due: float, exempt: int, p: Record, low: Array, high: Array, nearest: Structs,
                  separation: Structs) -> None:
    """Append the rows of every sphere against every obstacle; `exempt` is the id of the target.

    `tau` is how old the sightings are, and `due` how old they will be when the next ones come, s.

    A link whose ball is so far that alpha(h) exceeds any closing speed is passed over, likewise a
    sphere; `nearest` gets the least g(n) over all pairs that are not exempt.
    """
    best = nearest[0]
    best.body, best.track, best.distance = -1, -1, np.inf
    separation[0].track, separation[0].margin = -1, np.inf
    for o in range(count):
        e = obstacles[o]
        if e.role == _HELD_TRACK:
            continue
        level = LEVEL_STATIC if e.speed <= p.resting_speed else LEVEL_MOVING
        slow = resting(e.speed + p.sigma_velocity * e.v_sigma, due + p.period, p)
        surge, strayed = gained(tau + p.period, slow, p), way(tau, slow, p)
        fixed_margin = p.obstacle_margin + p.tracking_error + strayed
        # What ageing will take of h, and of the speed allowed: near contact that is worth an h too
        ageing = (way(due, slow, p) - strayed
                  + (gained(due + p.period, slow, p) - surge) / (p.comfort_share * p.alpha0))
        cx = e.centre[0] + e.velocity[0] * tau
        cy = e.centre[1] + e.velocity[1] * tau
        cz = e.centre[2] + e.velocity[2] * tau
        widest = fixed_margin + p.sigma_position * e.p_sigma + p.sigma_velocity * e.v_sigma * tau
        widest = max(widest, p.target_hand_margin, p.support_margin)
        widest += ageing + p.sigma_velocity * e.v_sigma * (due - tau)
        fastest = e.speed + p.sigma_velocity * e.v_sigma + surge
        is_target = e.role == _TARGET and e.id == exempt
        for g in range(len(bodies.groups)):
            group = bodies.groups[g]
            if group.fixed:
                continue
            rows.counts[CANDIDATES] += group.stop - group.start
            bend = p.sampled_data * group.curve * p.period / 2.0
            margin = widest + p.sigma_position * group.sigma
            clear = margin + _clearance(group.speed + fastest + bend, p)
            if e.person:
                clear = max(clear, protective_distance(
                    max(p.ssm_human_speed, fastest), group.speed + bend, tau, margin, p))
            x, y, z = cx - group.centre[0], cy - group.centre[1], cz - group.centre[2]
            rim = group.radius + e.reach
            d2 = x * x + y * y + z * z
            if d2 >= (rim + clear) ** 2 and d2 >= (rim + best.distance) ** 2:
                continue
            for s in range(group.start, group.stop):
                kind, radius = bodies.spheres[s].kind, bodies.spheres[s].radius
                if is_target and (kind == _FINGER or kind == _HELD):
                    continue
                point = bodies.points[s]
                x, y, z = point[0] - cx, point[1] - cy, point[2] - cz
                rim = radius + e.reach
                d2 = x * x + y * y + z * z
                if d2 >= (rim + clear) ** 2 and d2 >= (rim + best.distance) ** 2:
                    continue
                nx, ny, nz, g_n = separating_normal(x, y, z, e.axes, e.rotation)
                above = e.role == _SUPPORT and nz >= p.support_cosine
                if above and kind == _HELD:
                    continue
                distance = g_n - radius
                if distance < best.distance:
                    best.body, best.track, best.distance = g, e.id, distance
                    for k, n in enumerate((nx, ny, nz)):
                        best.on_robot[k] = bodies.points[s, k] - radius * n
                        best.on_obstacle[k] = best.on_robot[k] - distance * n
                v_spread = p.sigma_velocity * spread(e.v_cov, nx, ny, nz)
                approach = nx * e.velocity[0] + ny * e.velocity[1] + nz * e.velocity[2]
                drift = approach + v_spread + surge
                p_spread = p.sigma_position * (spread(e.p_cov, nx, ny, nz)
                                               + bodies.spheres[s].sigma)
                h = distance - fixed_margin - v_spread * tau - p_spread
                if e.person:
                    human = max(p.ssm_human_speed, approach + v_spread)
                    seen = p_spread + p.obstacle_margin
                    robot = max(0.0, -(nx * bodies.velocity[s, 0] + ny * bodies.velocity[s, 1]
                                       + nz * bodies.velocity[s, 2]))
                    note(separation[0], g, e.id, distance, human, robot, tau, seen, p)
                    doubt = seen + p.tracking_error
                    _add(rows, low, high, bodies.jacobian[s], nx, ny, nz,
                         distance - protective_distance(human, 0.0, tau, doubt, p), 0.0,
                         _bend(bodies, s, nx, ny, nz, p), 0.0, p, SEPARATION_ROW, s, o,
                         LEVEL_MOVING, approach_limit(distance, human, tau, doubt, p))
                comfort = p.comfort_margin + ageing + v_spread * (due - tau)
                if is_target and kind == _HAND:
                    h, drift, comfort = distance - p.target_hand_margin, approach, 0.0
                elif (above and kind == _FINGER) or (e.role == _SUPPORT and kind == _HELD):
                    h, drift, comfort = distance - p.support_margin, approach, 0.0
                _add(rows, low, high, bodies.jacobian[s], nx, ny, nz, h, drift,
                     _bend(bodies, s, nx, ny, nz, p), comfort, p, OBSTACLE_ROW, s, o, level)


@nb.njit(cache=True, error_model='numpy')
def plane_rows(rows: Rows, bodies: Bodies, planes: Array, p: Record, low: Array,
               high: Array) -> None:
    """Append the rows n.p - r >= d + margin of every moving sphere against every plane (k, 4)."""
    for k in range(len(planes)):
        nx, ny, nz = planes[k, 0], planes[k, 1], planes[k, 2]
        for g in range(len(bodies.groups)):
            group = bodies.groups[g]
            if group.fixed:
                continue
            for s in range(group.start, group.stop):
                rows.counts[CANDIDATES] += 1
                kind = bodies.spheres[s].kind
                margin, comfort = p.plane_margin, p.comfort_margin
                if kind == _FINGER:
                    margin, comfort = p.plane_finger_margin, 0.0
                elif kind == _HELD:
                    margin, comfort = p.plane_held_margin, 0.0
                h = (nx * bodies.points[s, 0] + ny * bodies.points[s, 1] + nz * bodies.points[s, 2]
                     - planes[k, 3] - bodies.spheres[s].radius - margin)
                bend = p.sampled_data * bodies.curve[s] * p.period / 2.0
                if h >= _clearance(bodies.speed[s] + bend, p):
                    continue
                _add(rows, low, high, bodies.jacobian[s], nx, ny, nz, h, 0.0,
                     _bend(bodies, s, nx, ny, nz, p), comfort, p, PLANE_ROW, s, k, LEVEL_STATIC)


@nb.njit(cache=True, error_model='numpy')
def workspace_rows(rows: Rows, box: Array, tool_position: Array, tool_jacobian: Array,
                   bend: float, p: Record, low: Array, high: Array, scratch: Array) -> None:
    """Append the rows that keep the tool frame's origin in `box` (lower x y z, upper x y z)."""
    for i in range(len(low)):
        for k in range(3):
            scratch[i, k] = tool_jacobian[k, i]
    for side in range(6):
        k, sign = side % 3, 1.0 if side < 3 else -1.0
        h = sign * (tool_position[k] - box[side])
        rows.counts[CANDIDATES] += 1
        _add(rows, low, high, scratch, sign * (k == 0), sign * (k == 1), sign * (k == 2), h, 0.0,
             bend, 0.0, p, WORKSPACE_ROW, -1, side, LEVEL_STATIC)


@nb.njit(cache=True, error_model='numpy')
def self_rows(rows: Rows, bodies: Bodies, pairs: NDArray[np.int64], p: Record, low: Array,
              high: Array, scratch: Array) -> None:
    """Append the rows of the robot's own sphere pairs (m, 2).

    The distance D = |d| of two points has D'' = n.d'' + (|d'|^2 - (n.d')^2) / D, in which a
    rotation of both cancels; so only joints between them add to the spread.
    """
    rows.counts[CANDIDATES] += len(pairs)
    for k in range(len(pairs)):
        i, j = pairs[k, 0], pairs[k, 1]
        reach = bodies.spheres[i].radius + bodies.spheres[j].radius + p.self_margin
        closing = bodies.speed[i] + bodies.speed[j]
        bend = p.sampled_data * (bodies.curve[i] + bodies.curve[j]) * p.period / 2.0
        clear = reach + _clearance(closing + bend, p)
        x = bodies.points[i, 0] - bodies.points[j, 0]
        y = bodies.points[i, 1] - bodies.points[j, 1]
        z = bodies.points[i, 2] - bodies.points[j, 2]
        d2 = x * x + y * y + z * z
        if d2 >= clear * clear:
            continue
        distance = np.sqrt(d2)
        nx, ny, nz = 0.0, 0.0, 1.0
        if distance > 1e-9:
            nx, ny, nz = x / distance, y / distance, z / distance
        fast2, along, inward = 0.0, 0.0, 0.0
        for r, n in enumerate((nx, ny, nz)):
            speed = bodies.velocity[i, r] - bodies.velocity[j, r]
            fast2 += speed * speed
            along += n * speed
            inward -= n * (bodies.acceleration[i, r] - bodies.acceleration[j, r])
        inward -= (fast2 - along * along) / max(distance, 1e-3)
        distal, first = i, bodies.spheres[j].columns
        if bodies.spheres[j].columns > bodies.spheres[i].columns:
            distal, first = j, bodies.spheres[i].columns
        spread = joint_spread(bodies, distal, first, low, high)
        for c in range(len(low)):
            for r in range(3):
                scratch[c, r] = bodies.jacobian[i, c, r] - bodies.jacobian[j, c, r]
        bend = p.sampled_data * (max(inward, 0.0) + spread) * p.period / 2.0
        _add(rows, low, high, scratch, nx, ny, nz, distance - reach, 0.0, bend, 0.0, p, SELF_ROW,
             i, j, LEVEL_MOVING)


@nb.njit(cache=True, error_model='numpy')
def smooth_rows(rows: Rows, last: Array, p: Record) -> None:
    """Let what only the reserve of the obstacles' rows asks for come with `smoothing`: where the
    `last` answer (n,) does not give it, the rows ask for a step's share of the difference."""
    rest = 1.0 - smoothing_share(p)
    for k in range(rows.counts[COUNT]):
        info = rows.info[k]
        if info.kind != OBSTACLE_ROW or info.reserve <= 0.0:
            continue
        missing = rows.b[k]
        for i in range(len(last)):
            missing -= rows.a[k, i] * last[i]
        if missing > 0.0:
            given = min(missing * rest, info.reserve)
            rows.b[k] -= given
            info.reserve -= given


@nb.njit(cache=True, error_model='numpy')
def label_rows(rows: Rows, bodies: Bodies, obstacles: Structs) -> None:
    """Fill in which links and tracks the rows are about, for the report."""
    for k in range(rows.counts[COUNT]):
        info = rows.info[k]
        info.body = bodies.spheres[info.sphere].group if info.sphere >= 0 else -1
        info.other_body = bodies.spheres[info.other].group if info.kind == SELF_ROW else -1
        seen = info.kind == OBSTACLE_ROW or info.kind == SEPARATION_ROW
        info.track = obstacles[info.other].id if seen else -1
