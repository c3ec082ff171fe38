"""Takes the newest message of each input into the buffers, or says why it cannot be used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pinocchio as pin

from safety_filter.core.bounds import Bounds
from safety_filter.core.ellipsoids import load_tracks
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.held import held_fault, held_spheres
from safety_filter.core.inputs import (
    Command,
    JointSample,
    ObstacleSample,
    S,
    Source,
    command_fault,
    joints_fault,
    obstacles_fault,
    tool_fault,
)
from safety_filter.core.kernel import Buffers
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.target import Target
from safety_filter.core.wire import UNKNOWN_CLASS, Role

HISTORY = 512
"""Joint states remembered, to place held objects at the time they were seen."""


class Faults(NamedTuple):
    """Why an input cannot be used, in words; None where it can."""

    joint_state: str | None
    perception: str | None
    command: str | None

    @property
    def first(self) -> str | None:
        """Return the first of them."""
        return self.joint_state or self.perception or self.command


class Intake:
    """The inputs of one filter: age, clocks, contents; `buffers` get what is usable."""

    def __init__(self, robot: RobotModel, buffers: Buffers, kinematics: Kinematics) -> None:
        self.robot, self._buffers, self._kinematics = robot, buffers, kinematics
        self.joints: Source[JointSample] = Source('tool_pose' if robot.tool_only
                                                  else 'joint_state')
        self.command: Source[Command] = Source('command')
        self.obstacles: Source[ObstacleSample] = Source('obstacles')
        self.target = Target()
        self.opening, self.count = robot.max_opening, 0
        self._faults: dict[str, str | None] = {}
        self._history: deque[JointSample] = deque(maxlen=HISTORY)
        self.bounds = Bounds(buffers)
        self._clock: tuple[float, float] | None = None
        self._since = -np.inf

    def forget(self) -> None:
        """Drop everything received so far, as before the first step."""
        for source in (self.joints, self.command, self.obstacles):
            source.forget()
        self._history.clear()
        self.bounds.forget()
        self.target.forget()
        self._clock, self._since = None, -np.inf

    def take(self, joints: JointSample | None, command: Command | None,
             obstacles: ObstacleSample | None, now_mono: float, now_ros: float,
             params: FilterParams) -> Faults:
        """Take the newest messages (None: never received) at a time on both clocks, s."""
        self._watch_clocks(now_mono, now_ros, params.clock_jump)
        faults = Faults(self._take_joints(joints, now_mono, now_ros, params),
                        self._take_obstacles(obstacles, now_mono, now_ros, params),
                        self._take_command(command, now_mono, now_ros, params))
        self.bounds.search(now_ros, self.obstacles.fresh)
        return faults

    def _newest(self, source: Source[S], offered: S | None, now_mono: float, now_ros: float,
                limit: float, p: FilterParams,
                fault_of: Callable[[S, FilterParams], str | None]) -> str | None:
        """Take the newest sample of a source; return why it cannot be used: its age, or what
        `fault_of` found in it when it was new."""
        fault = source.update(offered, now_mono, now_ros, limit, p.future_tolerance, self._since)
        if source.fresh and source.sample is not None:
            self._faults[source.name] = fault_of(source.sample, p)
        return fault or self._faults.get(source.name)

    def _watch_clocks(self, now_mono: float, now_ros: float, limit: float) -> None:
        """After a jump of either clock, what was received before does not count."""
        if self._clock is not None:
            mono, ros = now_mono - self._clock[0], now_ros - self._clock[1]
            if mono < 0.0 or not abs(ros - mono) <= limit:
                self.forget()
                self._since = now_mono
        self._clock = (now_mono, now_ros)

    def _take_joints(self, offered: JointSample | None, now_mono: float, now_ros: float,
                     p: FilterParams) -> str | None:
        """Take the joint state, or the tool's pose, predicted to now at its velocity."""
        source = self.joints
        fault = self._newest(source, offered, now_mono, now_ros, p.joint_state_age, p,
                             self._joints_fault)
        sample = source.sample
        if sample is not None and source.fresh and not self._faults[source.name]:
            self._history.append(sample)
        if fault is not None or sample is None:
            return fault
        if self.robot.tool_only:
            rotation, position = self._moved_tool(sample, source.age)
            self._buffers.place_tool(position, rotation)
            return None
        np.multiply(sample.dq, source.age, out=self._buffers.q)
        self._buffers.q += sample.q
        self.bounds.moved(now_ros, sample, p)
        self.opening = self.robot.max_opening if sample.opening is None else sample.opening
        return None

    def _joints_fault(self, sample: JointSample, p: FilterParams) -> str | None:
        return tool_fault(sample) if self.robot.tool_only else joints_fault(sample, self.robot.n)

    def _take_command(self, offered: Command | None, now_mono: float, now_ros: float,
                      p: FilterParams) -> str | None:
        return self._newest(self.command, offered, now_mono, now_ros, p.command_age, p,
                            self._command_fault)

    def _command_fault(self, sample: Command, p: FilterParams) -> str | None:
        frames = (*p.base_frames, self.robot.tool_link)
        return command_fault(sample, self.robot.n, frames, self.robot.tool_only)

    def _take_obstacles(self, offered: ObstacleSample | None, now_mono: float, now_ros: float,
                        p: FilterParams) -> str | None:
        source = self.obstacles
        fault = self._newest(source, offered, now_mono, now_ros, p.obstacles_age, p,
                             self._obstacles_fault)
        if source.fresh and source.sample is not None and not self._faults[source.name]:
            self._faults[source.name] = self._load(source.sample, p)
        return fault or self._faults.get(source.name)

    @staticmethod
    def _obstacles_fault(sample: ObstacleSample, p: FilterParams) -> str | None:
        return obstacles_fault(sample, p.max_obstacles, p.base_frames)

    def _load(self, sample: ObstacleSample, p: FilterParams) -> str | None:
        """Take new tracks: ellipsoids, the target, and what is held; return why that cannot be."""
        rotation, position = np.eye(3), np.zeros(3)
        holding = bool((sample.tracks['role'] == int(Role.HELD)).any())
        if holding:
            state = self._nearest_state(sample.stamp)
            off = sample.stamp - state.stamp if state is not None else np.inf
            if state is None or not abs(off) <= p.joint_state_age:
                return (f'obstacles: track of role HELD seen at {sample.stamp:.3f}, but no joint '
                        f'state within {p.joint_state_age:g} s of that tells where the tool was')
            rotation, position = self._tool_joint(state, off)
            point = position + rotation @ self.robot.tool['offset'][0]
            fault = held_fault(sample.tracks, point)
            if fault is not None:
                return f'obstacles: {fault}'
        load_tracks(sample.tracks, self._buffers.obstacles)
        self.count = len(sample.tracks)
        if p.ssm:
            # What nobody can name may be a person
            persons = np.isin(sample.tracks['class_id'], (p.person_class, UNKNOWN_CLASS))
            self._buffers.obstacles['person'][:self.count] = persons
        self.bounds.sighted(sample.stamp, self.count)
        self.target.update(sample.tracks)
        if holding or self._buffers.sphere_count > len(self.robot.spheres):
            self._buffers.hold(held_spheres(self.robot, rotation, position, sample.tracks,
                                            p.held_inflation))
        return None

    def _nearest_state(self, stamp: float) -> JointSample | None:
        """Return the remembered joint state nearest to a stamp."""
        return min(self._history, key=lambda s: abs(s.stamp - stamp), default=None)

    def _tool_joint(self, state: JointSample, ahead: float) -> tuple[Array, Array]:
        """Return rotation (3, 3) and origin (3,) of the tool's joint `ahead` s after a state."""
        if self.robot.tool_only:
            return self._moved_tool(state, ahead)
        return self._kinematics.joint_frame(state.q + ahead * state.dq,
                                            int(self.robot.tool['joint'][0]))

    def _moved_tool(self, sample: JointSample, ahead: float) -> tuple[Array, Array]:
        """Return rotation (3, 3) and origin (3,) of the tool `ahead` s after a sample, at its
        measured or last commanded twist."""
        twist = sample.dq if len(sample.dq) else self._buffers.twist
        turned: Array = pin.exp3(twist[3:] * ahead) @ _rotation(sample)
        return turned, sample.q[:3] + twist[:3] * ahead


def _rotation(sample: JointSample) -> Array:
    """Return the rotation (3, 3) of a tool's pose."""
    turned: Array = pin.Quaternion(sample.q[3:]).normalized().matrix()
    return turned
