"""What one step reports: the command, the state, and what was near, active and changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safety_filter.core.kernel import Buffers
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.rows import COUNT, OBSTACLE_ROW, PLANE_ROW, WORKSPACE_ROW

_SIDES = ('x low', 'y low', 'z low', 'x high', 'y high', 'z high')


@dataclass(frozen=True)
class NearestPair:
    """The nearest body and track: distance (m), and the points (2, 3) on robot and track."""

    body: str
    track_id: int
    distance: float
    points: Array

    @classmethod
    def of(cls, robot: RobotModel, buffers: Buffers) -> NearestPair | None:
        """Return the pair of the last step, None without obstacles."""
        pair = buffers.nearest[0]
        if pair['sphere'] < 0:
            return None
        return cls(body_name(robot, buffers, int(pair['sphere'])),
                   int(buffers.obstacles['id'][pair['obstacle']]), float(pair['distance']),
                   np.stack([pair['on_robot'], pair['on_obstacle']]))


@dataclass(frozen=True)
class Decision:
    """What to send and why. `qd` (n,) in rad/s, `twist` (6,) = J qd in the base frame."""

    state: str
    reason: str
    detail: str
    no_target: bool
    qd: Array
    twist: Array
    nominal_qd: Array
    nearest: NearestPair | None
    active_rows: tuple[str, ...]
    level1_slack: float
    level2_slack: float
    rows: int
    solve_us: float

    @property
    def min_distance(self) -> float:
        """Return the distance of the nearest pair, m; infinite without one."""
        return self.nearest.distance if self.nearest else float('inf')

    @property
    def intervention(self) -> float:
        """Return the norm of the change to the nominal joint velocity, rad/s."""
        return float(np.linalg.norm(self.qd - self.nominal_qd))


def body_name(robot: RobotModel, buffers: Buffers, sphere: int) -> str:
    """Return the link of a sphere, 'held' for what is held, 'tool' for -1."""
    if sphere < 0:
        return 'tool'
    group = int(buffers.spheres['group'][sphere])
    return robot.bodies[group] if group < len(robot.bodies) else 'held'


def row_name(robot: RobotModel, buffers: Buffers, index: int) -> str:
    """Return what a row is about, such as 'panda_link5~track 12'."""
    row = buffers.info[index]
    body, other = body_name(robot, buffers, int(row['sphere'])), int(row['other'])
    if row['kind'] == OBSTACLE_ROW:
        return f'{body}~track {int(buffers.obstacles["id"][other])}'
    if row['kind'] == PLANE_ROW:
        return f'{body}~plane {other}'
    if row['kind'] == WORKSPACE_ROW:
        return f'workspace {_SIDES[other]}'
    return f'{body}~{body_name(robot, buffers, other)}'


def active_names(robot: RobotModel, buffers: Buffers, answer: Array) -> tuple[str, ...]:
    """Return the rows that hold with equality and the joints at a bound of their box."""
    count = int(buffers.counts[COUNT])
    names = [row_name(robot, buffers, int(k)) for k in np.flatnonzero(buffers.tight[:count])]
    at_bound = ((answer <= buffers.low + 1e-9) & (buffers.nominal < buffers.low - 1e-9)
                | (answer >= buffers.high - 1e-9) & (buffers.nominal > buffers.high + 1e-9))
    names += [f'{robot.joint_names[i]} limit' for i in np.flatnonzero(at_bound)]
    return tuple(dict.fromkeys(names))
