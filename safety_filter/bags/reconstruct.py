"""Ticks made up from recorded inputs, for bags that hold none or for another rate.

A message counts as received when the recorder received it. Where stamps are on another clock than
the recorder's (simulated time), the ROS clock is that of the joint states' stamps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.core.inputs import Command
from safety_filter.core.robot import RobotModel
from safety_filter.robot_source import Gripper

Rows = Sequence[tuple[int, bytes]]
OTHER_CLOCK = 1.0  # s between stamps and receipts that make them different clocks
JOINT_COMMANDS = ("joint_velocity", "joint_position")


def reconstructed(
    inputs: Mapping[str, Rows],
    clouds: list[tuple[float, Any]],
    versions: Sequence[tuple[float, int]],
    robot: RobotModel,
    gripper: Gripper,
    rate: float,
    kind: str,
    notes: list[str],
) -> tuple[tk.Table, list[tuple[float, Any]]]:
    """The ticks at `rate` (Hz) over the whole bag, and the clouds on the same clock.

    inputs: role -> (time of receipt in ns, bytes); versions: of the configuration by time of
    receipt in s; kind: of joint commands.
    """
    joints = ms.decoded(inputs["joint_states"], ms.JOINT_STATE, "joint_states", notes)
    joint_command = kind in JOINT_COMMANDS and bool(inputs["joint_command"])
    role, type_ = ("joint_command", ms.ARRAY) if joint_command else ("twist", ms.TWIST)
    commands = ms.decoded(inputs[role], type_, role, notes)
    if kind == "trajectory":
        notes.append("commands were trajectories: only recorded ticks replay those")
    if not joints:
        return np.zeros(0, tk.tick_dtype(robot.n)), clouds
    times = [t for t, _ in (*joints, *commands, *clouds)]
    zero, end = min(times), max(times)
    shift = _clock_shift(joints, notes)
    table = np.zeros(int((end - zero) * rate) + 1, tk.tick_dtype(robot.n))
    now = np.arange(len(table)) / rate
    table["number"], table["now_mono"] = np.arange(len(table)) + 1, now
    table["now_ros"] = zero + now - shift
    if versions:
        index = np.maximum(_newest([t - zero for t, _ in versions], now), 0)
        table["config"] = np.array([v for _, v in versions])[index]
    _fill_joints(table, joints, zero, robot, gripper)
    _fill_commands(table, commands, zero, kind if joint_command else "twist", shift)
    index = _newest([t - zero for t, _ in clouds], now)
    stamps = np.array([ms.seconds(m.header.stamp) for _, m in clouds])
    received = np.array([t - zero for t, _ in clouds])
    for name, values in (("obstacles_stamp", stamps), ("obstacles_receipt", received)):
        table[name] = _taken(values, index)
    table["distance"] = np.inf
    return table, [(t - zero, m) for t, m in clouds]


def _clock_shift(joints: list[tuple[float, Any]], notes: list[str]) -> float:
    """Receipt minus stamp if those are different clocks, else 0."""
    ages = [t - ms.seconds(m.header.stamp) for t, m in joints]
    shift = float(np.median(ages))
    if abs(shift) <= OTHER_CLOCK:
        return 0.0
    notes.append(f"stamps are {shift:.1f} s behind the receipts: taken for another clock")
    return float(np.min(ages))


def _newest(received: Sequence[float], now: np.ndarray) -> np.ndarray:
    """Index of the newest message at each time, -1 before the first."""
    return np.searchsorted(np.asarray(received), now, side="right") - 1


def _taken(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    if not len(values):
        return np.full(len(index), np.nan)
    return np.where(index < 0, np.nan, values[np.maximum(index, 0)])


def _fill_joints(
    table: tk.Table, joints: list[tuple[float, Any]], zero: float, robot: RobotModel,
    gripper: Gripper,
) -> None:  # fmt: skip
    index = _newest([t - zero for t, _ in joints], table["now_mono"])
    known, sample = -1, None
    for row, i in zip(table, index.tolist(), strict=True):
        if i < 0:
            row["joints_stamp"] = row["joints_receipt"] = np.nan
            continue
        if i != known:
            time, message = joints[i]
            known = i
            sample = ms.joint_sample(message, time - zero, robot.joint_names, gripper)
        assert sample is not None
        tk.put_joints(row, sample)


def _fill_commands(
    table: tk.Table, commands: list[tuple[float, Any]], zero: float, kind: str, shift: float
) -> None:
    index = _newest([t - zero for t, _ in commands], table["now_mono"])
    for row, i in zip(table, index.tolist(), strict=True):
        if i < 0:
            row["command_stamp"] = row["command_receipt"] = np.nan
            continue
        time, message = commands[i]
        if kind == "twist":
            stamp, value = ms.seconds(message.header.stamp), ms.twist(message)
            frame = message.header.frame_id
        else:
            stamp, value, frame = time - shift, np.asarray(message.data, float), ""
        tk.put_command(row, Command(stamp, time - zero, kind, value, frame))
