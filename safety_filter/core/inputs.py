"""What the filter is given, and whether it may be used: freshness, clocks, order, contents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from safety_filter.core.ellipsoids import usable
from safety_filter.core.held import MOST_HELD
from safety_filter.core.nominal import KINDS
from safety_filter.core.robot import Array
from safety_filter.core.wire import Role, Tracks, track_fault


@dataclass(frozen=True)
class JointSample:
    """Joint positions and velocities of the arm, (n,) each; gripper opening in m if known.

    `stamp` is on the ROS clock, `receipt` on the monotonic clock, both in s. For a tool on its own
    (see tool_model.py), made by `tool_pose`.
    """

    stamp: float
    receipt: float
    q: Array
    dq: Array
    opening: float | None = None


def tool_pose(stamp: float, receipt: float, position: ArrayLike, quaternion: ArrayLike,
              twist: ArrayLike | None = None) -> JointSample:
    """Return the pose of a tool on its own, in place of joint states.

    position (3,) of the tool frame's origin and orientation xyzw (4,) in the base frame make `q`,
    the measured twist (6,) there makes `dq`; without it the last command is taken for it.
    """
    measured = np.zeros(0) if twist is None else np.asarray(twist, float)
    return JointSample(stamp, receipt, np.concatenate([np.asarray(position, float),
                                                       np.asarray(quaternion, float)]), measured)


@dataclass(frozen=True)
class Command:
    """A command: 'twist' (6,), 'joint_velocity' (n,) or 'joint_position' (n,).

    A twist is that of the tool frame's origin, linear then angular, in `frame_id`.
    """

    stamp: float
    receipt: float
    kind: str
    value: Array
    frame_id: str = ''


@dataclass(frozen=True)
class ObstacleSample:
    """Tracks (see wire.py) as seen at `stamp`; `fault` says why a message was unreadable."""

    stamp: float
    receipt: float
    frame_id: str
    tracks: Tracks
    fault: str | None = None


class Stamped(Protocol):
    """Anything with the two times."""

    @property
    def stamp(self) -> float:
        """Return the time on the ROS clock, s."""

    @property
    def receipt(self) -> float:
        """Return the time on the monotonic clock, s."""


S = TypeVar('S', bound=Stamped)


class Source(Generic[S]):
    """The newest usable sample of one input.

    Reordered messages are ignored, messages from the future or from before a clock jump count as
    not received.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sample: S | None = None
        self.fresh = False
        self.age = np.inf
        self._future: str | None = None

    def forget(self) -> None:
        """Drop the sample, as after a clock jump."""
        self.sample = None

    def update(self, offered: S | None, now_mono: float, now_ros: float, limit: float,
               tolerance: float, since: float) -> str | None:
        """Take `offered` if it is newer; return the fault that forbids use, or None.

        `fresh` tells whether the sample is new in this step. `since` is the receipt time before
        which messages do not count.
        """
        self.fresh = False
        self._future = None
        if offered is not None and offered is not self.sample:
            self._take(offered, now_mono, now_ros, tolerance, since)
        if self.sample is None:
            self.age = np.inf
            return self._future or f'{self.name}: none received'
        self.age = max(now_mono - self.sample.receipt, now_ros - self.sample.stamp, 0.0)
        if not self.age <= limit:
            return self._future or f'{self.name}: {self.age:.3f} s old, limit {limit:g} s'
        return None

    def due(self, now_mono: float, now_ros: float, interval: float) -> float:
        """Return the age, s, that the sample will have when the next one comes, if these come
        every `interval` s; at least its age."""
        if self.sample is None:
            return float(np.inf)
        late = (now_ros - self.sample.stamp) - (now_mono - self.sample.receipt)
        return float(max(self.age, late + interval))

    def _take(self, offered: S, now_mono: float, now_ros: float, tolerance: float,
              since: float) -> None:
        ahead = max(offered.stamp - now_ros, offered.receipt - now_mono)
        if not ahead <= tolerance:
            self._future = (f'{self.name}: stamp {ahead:.3f} s in the future, '
                            f'tolerance {tolerance:g} s')
        elif offered.receipt >= since and (self.sample is None
                                           or offered.stamp >= self.sample.stamp):
            self.sample = offered
            self.fresh = True


def finite(value: Array) -> bool:
    """Return whether all elements of a short vector, and their sum, are finite."""
    return math.isfinite(sum(value.tolist()))


def joints_fault(sample: JointSample, n: int) -> str | None:
    """Return why a joint state cannot be used, or None."""
    for name, value in (('q', sample.q), ('dq', sample.dq)):
        if getattr(value, 'shape', None) != (n,):
            return f'joint_state: {name}: expected {n} values, got shape {np.shape(value)}'
        if not finite(value):
            return f'joint_state: {name} is not finite'
    if sample.opening is not None and not np.isfinite(sample.opening):
        return 'joint_state: opening is not finite'
    return None


def tool_fault(sample: JointSample) -> str | None:
    """Return why the pose of a tool on its own cannot be used, or None."""
    q, dq = sample.q, sample.dq
    if getattr(q, 'shape', None) != (7,) or getattr(dq, 'shape', None) not in ((6,), (0,)):
        return (f'tool_pose: expected 7 values and a twist of 6 or none, got shapes '
                f'{np.shape(q)} and {np.shape(dq)}')
    if not (finite(q) and finite(dq)):
        return 'tool_pose: not finite'
    if not abs(float(q[3:] @ q[3:]) - 1.0) < 0.01:
        return f'tool_pose: expected a unit quaternion, got {q[3:]}'
    return None


def command_fault(command: Command, n: int, frames: Sequence[str],
                  tool_only: bool = False) -> str | None:
    """Return why a command cannot be used, or None."""
    if tool_only and command.kind != 'twist':
        return f'command: kind: expected twist for a tool on its own, got {command.kind!r}'
    if command.kind not in KINDS:
        return f'command: kind: expected one of {", ".join(KINDS)}, got {command.kind!r}'
    size = 6 if command.kind == 'twist' else n
    if getattr(command.value, 'shape', None) != (size,):
        return f'command: expected {size} values, got shape {np.shape(command.value)}'
    if not finite(command.value):
        return 'command: not finite'
    if command.kind == 'twist' and command.frame_id not in frames:
        got = repr(command.frame_id) if command.frame_id else 'none'
        return f'command: frame_id: expected one of {", ".join(frames)}, got {got}'
    return None


def obstacles_fault(sample: ObstacleSample, most: int, frames: Sequence[str]) -> str | None:
    """Return why obstacles cannot be used, or None."""
    if sample.fault is not None:
        return f'obstacles: {sample.fault}'
    if sample.frame_id not in frames:
        return f'obstacles: frame_id: expected one of {", ".join(frames)}, got {sample.frame_id!r}'
    if not usable(sample.tracks):
        return f'obstacles: {track_fault(sample.tracks) or "unusable tracks"}'
    if len(sample.tracks) > most:
        return f'obstacles: {len(sample.tracks)} tracks, limit {most}'
    held = int(np.count_nonzero(sample.tracks['role'] == int(Role.HELD)))
    if held > MOST_HELD:
        return f'obstacles: {held} tracks of role HELD, limit {MOST_HELD}'
    return None
