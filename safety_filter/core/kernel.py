"""One compiled call from state and tracks to the QP, and one that verifies its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from safety_filter.core.body_bounds import GROUP_DTYPE, Bodies, body_bounds
from safety_filter.core.handle import Handle
from safety_filter.core.held import MOST_HELD, SPHERES_PER_TRACK
from safety_filter.core.kinematics import (
    carried_acceleration,
    joint_accelerations,
    joint_frames,
    place,
    point_jacobian,
    tool_frame,
)
from safety_filter.core.limits import velocity_box
from safety_filter.core.nominal import nominal_velocity, objective, smoothing_share
from safety_filter.core.qp import INFINITY, Problem
from safety_filter.core.robot import Array, Ints, RobotModel, Structs
from safety_filter.core.rows import (
    COUNT,
    NEAREST_DTYPE,
    ROW_DTYPE,
    SELF_ROW,
    Rows,
    label_rows,
    obstacle_rows,
    plane_rows,
    self_rows,
    smooth_rows,
    workspace_rows,
)
from safety_filter.core.separation import SEPARATION_DTYPE

MAX_ROWS = 2048
"""More rows than this that could bind are an overflow: the step brakes."""
MAX_HELD = SPHERES_PER_TRACK * MOST_HELD
"""Most spheres for what the gripper holds."""
TOLERANCE = 1e-6
"""Accepted violation of a row (m/s) or of the box (rad/s) in a solver's answer."""
NEAR = 1e-9
"""The nominal velocity counts as unchanged if it meets all rows to within this."""

VERIFIED, OUTSIDE_BOX, ROW_VIOLATED, NEXT_STATE_VIOLATED = 0, 1, 2, 3


class Arrays(NamedTuple):
    """What the compiled functions read and write; n joints of the arm, j joints, s spheres."""

    joints: Structs            # (j,) JOINT_DTYPE, and where the joints are now:
    rotation: Array            # (j, 3, 3)
    position: Array            # (j, 3)
    axis: Array                # (j, 3)
    omega: Array               # (j, 3) velocity and accelerations at the middle of the box
    alpha: Array
    linear: Array
    spheres: Structs           # (s,) SPHERE_DTYPE, and the rest of `Bodies`:
    points: Array
    jacobian: Array
    velocity: Array
    acceleration: Array
    speed: Array
    spread: Array
    curve: Array
    groups: Structs
    self_pairs: Ints           # (k, 2) indices of spheres
    tool: Structs              # (1,) TOOL_DTYPE
    tool_rotation: Array       # (3, 3)
    tool_position: Array       # (3,)
    tool_jacobian: Array       # (6, n)
    gain: Structs              # (1,) GAINS_DTYPE
    limits: Array              # (4, n) position from and to, velocity, acceleration
    planes: Array              # (k, 4)
    workspace: Array           # (6,)
    obstacles: Structs         # ELLIPSOID_DTYPE
    q: Array                   # (n,) the state, the last answer, the command
    last: Array
    command: Array
    low: Array                 # (n,) the box and its middle
    high: Array
    middle: Array
    nominal: Array             # (n,) the objective
    hessian: Array             # (n, n)
    gradient: Array            # (n,)
    a: Array                   # the rows, see `Rows`
    b: Array
    info: Structs
    counts: Ints
    slack: Array               # of each row, m/s
    nearest: Structs           # (1,) NEAREST_DTYPE
    separation: Structs        # (1,) SEPARATION_DTYPE
    twist: Array               # (6,) of the answer
    tight: NDArray[np.bool_]   # of each row: it holds with equality
    at_bound: Ints             # (1,) bit i: the box holds joint i back
    held: Ints                 # (1,) 1 from when rows hold the nominal back until it is followed
    scratch: Array             # (n, 3)
    moved: Array               # (3, n)


@nb.njit(cache=True, error_model='numpy')
def assemble(handle: Any, obstacle_count: int, sphere_count: int, opening: float, tau: float,
             due: float, exempt: int, kind: int, in_tool_frame: bool) -> tuple[bool, bool]:
    """Fill kinematics, box, rows (without slack) and objective of one step.

    Returns whether the nominal velocity meets them all, and whether a twist was damped.
    """
    w = handle.arrays
    p, low, high, n = w.gain[0], w.low, w.high, len(w.q)
    bodies = Bodies(w.spheres[:sphere_count], w.points[:sphere_count], w.jacobian[:sphere_count],
                    w.velocity[:sphere_count], w.acceleration[:sphere_count],
                    w.speed[:sphere_count], w.spread[:sphere_count], w.curve[:sphere_count],
                    w.groups)
    rows = Rows(w.a, w.b, w.info, w.counts)
    rows.counts[:] = 0
    joint_frames(w.joints, w.q, opening, w.rotation, w.position, w.axis)
    for s in range(sphere_count):
        place(w.rotation, w.position, w.spheres[s].joint, w.spheres[s].offset, w.points[s])
        point_jacobian(w.joints, w.position, w.axis, w.spheres[s].joint, w.points[s],
                       w.jacobian[s])
    tool_frame(w.joints, w.tool, w.rotation, w.position, w.axis, w.tool_rotation, w.tool_position,
               w.tool_jacobian)
    velocity_box(w.q, w.last, w.limits[0], w.limits[1], w.limits[2], w.limits[3], p.period, low,
                 high)
    damped = nominal_velocity(kind, w.command, w.q, w.limits[2], w.tool_rotation, in_tool_frame,
                              w.tool_jacobian, p, w.nominal)
    for i in range(n):
        w.middle[i] = (low[i] + high[i]) / 2.0
    joint_accelerations(w.joints, w.position, w.axis, w.middle, w.omega, w.alpha, w.linear)
    for s in range(sphere_count):
        carried_acceleration(w.position, w.omega, w.alpha, w.linear, w.spheres[s].joint,
                             w.points[s], w.acceleration[s])
    body_bounds(bodies, low, high)
    obstacle_rows(rows, bodies, w.obstacles, obstacle_count, tau, due, exempt, p, low, high,
                  w.nearest, w.separation)
    plane_rows(rows, bodies, w.planes, p, low, high)
    bend = p.sampled_data * np.max(bodies.curve) * p.period / 2.0
    workspace_rows(rows, w.workspace, w.tool_position, w.tool_jacobian, bend, p, low, high,
                   w.scratch)
    self_rows(rows, bodies, w.self_pairs, p, low, high, w.scratch)
    smooth_rows(rows, w.last, p)
    label_rows(rows, bodies, w.obstacles)
    w.slack[:rows.counts[COUNT]] = 0.0
    if not _meets_rows(w.nominal, rows, NEAR):
        w.held[0] = 1
    elif _inside(w.nominal, low, high, NEAR):
        w.held[0] = 0
        return True, damped
    share = smoothing_share(p) if w.held[0] else 1.0
    objective(kind, w.nominal, w.last, share, w.tool_jacobian, p, w.hessian, w.gradient)
    return False, damped


@nb.njit(cache=True, error_model='numpy')
def _inside(x: Array, low: Array, high: Array, tolerance: float) -> bool:
    return bool(np.all(x >= low - tolerance) and np.all(x <= high + tolerance))


@nb.njit(cache=True, error_model='numpy')
def _meets_rows(x: Array, rows: Rows, tolerance: float) -> bool:
    for k in range(rows.counts[COUNT]):
        total = -rows.b[k] + tolerance
        for i in range(len(x)):
            total += rows.a[k, i] * x[i]
        if not total >= 0.0:
            return False
    return True


@nb.njit(cache=True, error_model='numpy')
def verify(handle: Any, x: Array, opening: float) -> int:
    """Check `x` against the box, the rows less `slack`, and every row's h one period on.

    Clips rounding (at most TOLERANCE) to the box, fills `twist` = J x, `tight` (of each row) and
    `at_bound` (bit i: the box holds joint i back).
    """
    w = handle.arrays
    n, count, p, low, high, points = len(x), w.counts[COUNT], w.gain[0], w.low, w.high, w.points
    w.at_bound[0] = 0
    for i in range(n):
        if not low[i] - TOLERANCE <= x[i] <= high[i] + TOLERANCE:
            return OUTSIDE_BOX
        x[i] = min(max(x[i], low[i]), high[i])
        if ((x[i] <= low[i] + NEAR and w.nominal[i] < low[i] - NEAR)
                or (x[i] >= high[i] - NEAR and w.nominal[i] > high[i] + NEAR)):
            w.at_bound[0] |= 1 << i
    for r in range(6):
        w.twist[r] = 0.0
        for i in range(n):
            w.twist[r] += w.tool_jacobian[r, i] * x[i]
    if count == 0:
        return VERIFIED
    for k in range(count):
        rest = w.slack[k] - w.b[k]
        for i in range(n):
            rest += w.a[k, i] * x[i]
        if not rest >= -TOLERANCE:
            return ROW_VIOLATED
        w.tight[k] = rest <= TOLERANCE
    for i in range(n):
        w.moved[0, i] = w.q[i] + p.period * x[i]
    joint_frames(w.joints, w.moved[0], opening, w.rotation, w.position, w.axis)
    point, other = w.moved[1], w.moved[2]
    for k in range(count):
        row = w.info[k]
        ahead = row.h - p.period * row.drift
        if row.sphere < 0:
            place(w.rotation, w.position, w.tool[0].joint, w.tool[0].offset, point)
            for r in range(3):
                ahead += row.normal[r] * (point[r] - w.tool_position[r])
        else:
            sphere = w.spheres[row.sphere]
            place(w.rotation, w.position, sphere.joint, sphere.offset, point)
            for r in range(3):
                ahead += row.normal[r] * (point[r] - points[row.sphere, r])
        if row.kind == SELF_ROW:
            sphere = w.spheres[row.other]
            place(w.rotation, w.position, sphere.joint, sphere.offset, other)
            before, after = 0.0, 0.0
            for r in range(3):
                before += (points[row.sphere, r] - points[row.other, r]) ** 2
                after += (point[r] - other[r]) ** 2
            ahead = row.h + np.sqrt(after) - np.sqrt(before)
        allowed = row.alpha + max(w.slack[k] - row.reserve, 0.0)
        if not ahead >= row.h - p.period * (allowed + TOLERANCE):
            return NEXT_STATE_VIOLATED
    return VERIFIED


@dataclass
class Buffers:
    """Everything the compiled functions read and write for one robot, allocated once."""

    robot: RobotModel
    limits: Array
    gain: Structs
    planes: Array
    workspace: Array
    obstacles: Structs

    def __post_init__(self) -> None:
        robot, n = self.robot, self.robot.n
        count, held = len(robot.joints), len(robot.spheres)
        total = held + MAX_HELD
        self.sphere_count = held
        self.joints = robot.joints.copy()  # those of a tool on its own move with it
        self.tool, self.self_pairs = robot.tool, robot.self_pairs
        self.spheres = np.zeros(total, robot.spheres.dtype)
        self.spheres[:held] = robot.spheres
        self.rotation, self.position = np.zeros((count, 3, 3)), np.zeros((count, 3))
        self.axis = np.zeros((count, 3))
        self.points, self.jacobian = np.zeros((total, 3)), np.zeros((total, n, 3))
        self.velocity, self.acceleration = np.zeros((total, 3)), np.zeros((total, 3))
        self.speed, self.spread, self.curve = np.zeros((3, total))
        self.omega, self.alpha, self.linear = np.zeros((3, count, 3))
        self.middle = np.zeros(n)
        self.groups = np.zeros(len(robot.bodies) + 1, GROUP_DTYPE)
        self.tool_rotation, self.tool_position = np.zeros((3, 3)), np.zeros(3)
        self.tool_jacobian = np.zeros((6, n))
        self.lower = np.zeros(n + MAX_ROWS)  # bounds of x, then of the rows, as solvers want them
        self.upper = np.full(n + MAX_ROWS, INFINITY)
        self.low, self.high, self.b = self.lower[:n], self.upper[:n], self.lower[n:]
        self.nominal, self.gradient = np.zeros(n), np.zeros(n)
        self.hessian = np.zeros((n, n))
        self.a = np.zeros((MAX_ROWS, n))
        self.info = np.zeros(MAX_ROWS, ROW_DTYPE)
        self.info_words = self.info.view(np.float64).reshape(MAX_ROWS, -1)
        self.counts = np.zeros(4, np.int64)
        self.nearest = np.zeros(1, NEAREST_DTYPE)
        self.nearest_words = self.nearest.view(np.float64)  # plain arrays are quicker to copy
        self.separation = np.zeros(1, SEPARATION_DTYPE)
        self.separation_words = self.separation.view(np.float64)
        self.scratch = np.zeros((n, 3))
        self.slack, self.tight = np.zeros(MAX_ROWS), np.zeros(MAX_ROWS, np.bool_)
        self.at_bound, self.held = np.zeros((2, 1), np.int64)
        self.moved = np.zeros((3, max(n, 3)))
        self.q, self.last = np.zeros(n), np.zeros(n)
        self.command, self.twist = np.zeros(max(n, 6)), np.zeros(6)
        self._groups_of_robot()
        self.handle = Handle(Arrays(*(getattr(self, name) for name in Arrays._fields)))

    def _groups_of_robot(self) -> None:
        spheres = self.robot.spheres
        for g in range(len(self.robot.bodies)):
            members = np.flatnonzero(spheres['group'] == g)
            joint = int(spheres['joint'][members[0]])
            self.groups[g]['start'], self.groups[g]['stop'] = members[0], members[-1] + 1
            self.groups[g]['fixed'] = not moves_with_arm(self.robot, joint)
        self.groups[-1]['fixed'] = True

    def place_tool(self, position: Array, rotation: Array) -> None:
        """Put a tool on its own (see tool_model.py) at a pose, its free joints at zero."""
        self.joints[0]['offset'][:] = position
        self.joints[3]['rotation'][:] = rotation
        self.q[:] = 0.0

    def hold(self, spheres: Structs) -> None:
        """Attach `spheres` (at most MAX_HELD) as the last group; an empty array lets go."""
        base = len(self.robot.spheres)
        self.sphere_count = base + len(spheres)
        self.spheres[base:self.sphere_count] = spheres
        group = self.groups[-1:]
        group['start'], group['stop'] = base, self.sphere_count
        group['fixed'] = len(spheres) == 0

    def assemble(self, obstacle_count: int, opening: float, tau: float, exempt: int, kind: int,
                 in_tool_frame: bool, due: float = 0.0) -> tuple[bool, bool]:
        """Call `assemble` on these buffers; `due` counts where it is more than `tau`."""
        out: tuple[bool, bool] = assemble(
            self.handle, obstacle_count, self.sphere_count, opening, tau, max(due, tau), exempt,
            kind, in_tool_frame)
        return out

    def problem(self) -> Problem:
        """Return the QP of the last `assemble`, as views."""
        count = int(self.counts[COUNT])
        n = len(self.gradient)
        return Problem(self.hessian, self.gradient, self.a[:count], self.lower[:n + count],
                       self.upper[:n + count])

    def verify(self, x: Array, opening: float) -> int:
        """Call `verify` on these buffers; `x` is clipped to the box in place."""
        return int(verify(self.handle, x, opening))


def moves_with_arm(robot: RobotModel, joint: int) -> bool:
    """Return whether an arm joint moves what is fixed to `joint` (-1: base)."""
    while joint >= 0:
        if robot.joints['column'][joint] >= 0:
            return True
        joint = int(robot.joints['parent'][joint])
    return False
