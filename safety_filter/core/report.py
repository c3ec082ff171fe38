"""What one step reports: the command, the state, and what was near, active and changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from safety_filter.core.kernel import Buffers
from safety_filter.core.robot import Array, Record, RobotModel
from safety_filter.core.rows import (
    COUNT,
    NEAREST_DTYPE,
    OBSTACLE_ROW,
    PLANE_ROW,
    ROW_DTYPE,
    SEPARATION_ROW,
    WORKSPACE_ROW,
)
from safety_filter.core.separation import SEPARATION_DTYPE, TERMS, Separation

WHOLE_ARM, TOOL_ONLY = 'whole arm', 'tool bodies only'
"""Which bodies a decision is about."""
_NO_ROWS = np.zeros((0, ROW_DTYPE.itemsize // 8))
_SIDES = ('x low', 'y low', 'z low', 'x high', 'y high', 'z high')


@dataclass(frozen=True)
class NearestPair:
    """The nearest body and track: distance (m), and the points (2, 3) on robot and track."""

    body: str
    track_id: int
    distance: float
    points: Array


class Evidence(NamedTuple):
    """Copies of what a step found, put into words only when somebody asks."""

    robot: RobotModel
    nearest: Array     # one NEAREST_DTYPE, as words
    rows: Array        # (k, words of ROW_DTYPE) of the rows that hold with equality
    bounds: int        # bit i: joint i is held back by its box
    separation: Array  # one SEPARATION_DTYPE, as words

    @classmethod
    def of(cls, robot: RobotModel, b: Buffers, changed: bool) -> Evidence:
        """Return the evidence of the last step; rows and bounds only where it changed anything."""
        nearest, separation = b.nearest_words.copy(), b.separation_words.copy()
        if not changed:
            return cls(robot, nearest, _NO_ROWS, 0, separation)
        count = b.counts[COUNT]
        return cls(robot, nearest, b.info_words[:count][b.tight[:count]], int(b.at_bound[0]),
                   separation)

    def pair(self) -> NearestPair | None:
        """Return the nearest pair, None without obstacles."""
        pair = self.nearest.view(NEAREST_DTYPE)[0]
        if pair['body'] < 0:
            return None
        return NearestPair(link_name(self.robot, int(pair['body'])), int(pair['track']),
                           float(pair['distance']),
                           np.stack([pair['on_robot'], pair['on_obstacle']]))

    def least_separation(self) -> Separation | None:
        """Return the protective separation distance of the tightest pair, None without persons."""
        pair = self.separation.view(SEPARATION_DTYPE)[0]
        if pair['track'] < 0:
            return None
        return Separation(link_name(self.robot, int(pair['body'])), int(pair['track']),
                          *(float(pair[t]) for t in TERMS))

    def active(self) -> tuple[str, ...]:
        """Return the names of the rows that hold with equality and of the joints at a bound."""
        names = [row_name(self.robot, row) for row in self.rows.view(ROW_DTYPE)[:, 0]]
        names += [f'{joint} limit' for i, joint in enumerate(self.robot.joint_names)
                  if self.bounds >> i & 1]
        return tuple(dict.fromkeys(names))


@dataclass
class Decision:
    """What to send and why. `qd` (n,) in rad/s, `twist` (6,) = J qd in the base frame."""

    state: str
    reason: str
    detail: str
    no_target: bool
    qd: Array
    twist: Array
    nominal_qd: Array
    level1_slack: float
    level2_slack: float
    rows: int
    solve_us: float
    evidence: Evidence | None = field(default=None, repr=False)
    covers: str = WHOLE_ARM
    broken_bounds: tuple[str, ...] = ()

    @cached_property
    def nearest(self) -> NearestPair | None:
        """Return the nearest body and track, None where there are no tracks or no solve."""
        return self.evidence.pair() if self.evidence else None

    @cached_property
    def active_rows(self) -> tuple[str, ...]:
        """Return what limited the command, such as 'panda_link5~track 12'."""
        return self.evidence.active() if self.evidence else ()

    @property
    def separation(self) -> Separation | None:
        """Return what speed and separation monitoring found, None where it is off or idle."""
        return self.evidence.least_separation() if self.evidence else None

    @property
    def min_distance(self) -> float:
        """Return the distance of the nearest pair, m; infinite without one."""
        if self.evidence is None:
            return float('inf')
        return float(self.evidence.nearest.view(NEAREST_DTYPE)['distance'][0])

    @property
    def intervention(self) -> float:
        """Return the norm of the change to the nominal joint velocity, rad/s; that of circulation
        is part of the nominal one."""
        return float(np.linalg.norm(self.qd - self.nominal_qd))


def link_name(robot: RobotModel, group: int) -> str:
    """Return the link of a group of spheres: 'held' beyond the robot's own, 'tool' for -1."""
    if group < 0:
        return 'tool'
    return robot.bodies[group] if group < len(robot.bodies) else 'held'


def row_name(robot: RobotModel, row: Record) -> str:
    """Return what a row is about, such as 'panda_link5~track 12'."""
    body, other = link_name(robot, int(row['body'])), int(row['other'])
    if row['kind'] == OBSTACLE_ROW:
        return f'{body}~track {int(row["track"])}'
    if row['kind'] == SEPARATION_ROW:
        return f'{body}~person {int(row["track"])}'
    if row['kind'] == PLANE_ROW:
        return f'{body}~plane {other}'
    if row['kind'] == WORKSPACE_ROW:
        return f'workspace {_SIDES[other]}'
    return f'{body}~{link_name(robot, int(row["other_body"]))}'
