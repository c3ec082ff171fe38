"""Perception and the policy over recorded pictures, in place of what was recorded of them.

A result counts as received when the recorded one of the same picture was; where none was recorded,
after the median of those delays. So what changes is what they say, not when. Pictures are taken in
order and those that the live run skipped are skipped; joints are interpolated at the picture's
time, as in the nodes. Equal bags and weights give equal results on one machine.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter import images
from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import Bag, BagError, ordered
from safety_filter.bags.recording import Recording, Settings, find_topics, stamp_of
from safety_filter.core.inputs import Command, ObstacleSample
from safety_filter.core.robot import RobotError, urdf_path
from safety_filter.robot_source import Gripper, RobotSource

KEPT = 8  # pictures kept until their partners come
SYNC = 0.02  # s between stamps of a picture and its depth or pose
JOINT_AGE = 0.1  # s: joints must be known this close to the picture
NO_DELAY = 0.1  # s from picture to result where no recorded result tells it
POLICY_PERIOD = 0.2  # s between two calls of the policy where none was recorded
Array = NDArray[np.float64]
_MAPS = ("attention", "wrist_attention")


class Joints:
    """Recorded joint states, looked up at a stamp."""

    def __init__(self, rows: Sequence[tuple[float, bytes]], arm: Sequence[str],
                 gripper: Gripper) -> None:  # fmt: skip
        samples = []
        for received, data in rows:
            try:
                found = ms.joint_sample(ms.decode(data, ms.JOINT_STATE), received, arm, gripper)
            except ms.MessageError:
                continue
            if len(found.q) == len(arm) and np.isfinite(found.q).all():
                samples.append((found.stamp, np.append(found.q, found.opening or 0.0)))
        samples.sort(key=lambda s: s[0])
        self._stamps = [s[0] for s in samples]
        self._values = [s[1] for s in samples]

    def at(self, stamp: float) -> tuple[Array, float] | None:
        """Arm joints and gripper opening at `stamp`, None when not known within JOINT_AGE."""
        after = bisect.bisect_right(self._stamps, stamp)
        near = [i for i in (after - 1, after) if 0 <= i < len(self._stamps)]
        near = [i for i in near if abs(self._stamps[i] - stamp) <= JOINT_AGE]
        if not near:
            return None
        value = self._values[near[0]]
        if len(near) == 2:
            (t0, t1), (a, b) = (
                (items[near[0]], items[near[1]]) for items in (self._stamps, self._values)
            )
            value = a + (b - a) * ((stamp - t0) / (t1 - t0))
        return value[:-1].copy(), float(value[-1])


@dataclass
class _Source:
    """An opened bag with what both reruns need of it."""

    bag: Bag
    topics: dict[str, str]
    joints: Joints

    @classmethod
    def open(cls, path: Path, recording: Recording, settings: Settings,
             roles: Sequence[str]) -> _Source:  # fmt: skip
        """Raise BagError where a role has no topic."""
        bag = Bag.open(path)
        topics = find_topics(bag, settings)
        missing = [role for role in (*roles, "joint_states") if role not in topics]
        if missing:
            raise BagError(f"{path}: no topic for {', '.join(missing)}; record with --perception"
                           " --vla, or name them with --topic")
        rows = [(1e-9 * t, d) for _, t, d in bag.messages({topics["joint_states"]})]
        joints = Joints(rows, recording.robot.joint_names, Gripper.of(recording.spec))
        return cls(bag, topics, joints)

    def messages(self, roles: Sequence[str]) -> Any:
        """(role, time of receipt in s, message) in order; unreadable ones are left out."""
        named = {self.topics[r]: r for r in roles if r in self.topics}
        kinds = {name: self.bag.topics[name].type for name in named}
        for name, received, data in ordered(self.bag, set(named)):
            try:
                yield named[name], 1e-9 * received, ms.decode(data, kinds[name])
            except ms.MessageError as error:
                self.bag.notes.append(f"{named[name]}: left out: {error}")


def _urdf(recording: Recording, settings: Settings) -> str | Path:
    """A URDF whose meshes can be found: where the robot file says, or as given."""
    if settings.urdf:
        return settings.urdf
    try:
        return urdf_path(recording.spec)
    except RobotError as error:
        raise BagError(f"robot: {error} (with --urdf)") from error


class _ByStamp:
    """The last messages of a topic, to find the partner of another's."""

    def __init__(self) -> None:
        self._items: OrderedDict[float, Any] = OrderedDict()

    def add(self, message: Any) -> None:
        self._items[ms.seconds(message.header.stamp)] = message
        while len(self._items) > KEPT:
            self._items.popitem(last=False)

    def near(self, stamp: float, tolerance: float = SYNC) -> Any | None:
        best = min(self._items, key=lambda s: abs(s - stamp), default=None)
        return None if best is None or abs(best - stamp) > tolerance else self._items[best]


def perceive(path: Path, recording: Recording, settings: Settings,
             changes: Mapping[str, Any]) -> list[tuple[float, ObstacleSample]]:  # fmt: skip
    """Obstacles by stamp that perception sees in the recorded pictures.

    Raises:
        BagError: a topic is missing, parameters or weights do not fit.
    """
    from safety_filter.core.params import ParamError
    from safety_filter.perception.detector import DEFAULT_WEIGHTS, Detector, DetectorError
    from safety_filter.perception.params import TABLE
    from safety_filter.perception.pipeline import Perception

    roles = ("image", "depth", "camera_info", "camera_pose")
    source = _Source.open(path, recording, settings, roles)
    try:
        tuning = TABLE.validate(changes)
        mask = RobotSource(recording.spec, _urdf(recording, settings)).mask(tuning)
        perception = Perception(tuning, Detector.load(DEFAULT_WEIGHTS), mask)
    except (ParamError, DetectorError, ValueError, OSError) as error:
        raise BagError(f"perception: {error}") from error
    if "wrist_attention" in source.topics and not tuning.wrist_fov:
        recording.notes.append("perception: wrist_attention is not used without wrist_fov and the"
                               " hand-eye calibration; give the live run's parameter file")
    looking = _Looking(recording, source.joints, perception)
    for role, _, message in source.messages((*roles, *_MAPS, "instruction")):
        looking.take(role, message)
    if not looking.found:
        raise BagError(f"{path}: no picture with depth, pose and joints of the same time")
    return looking.found


class _Looking:
    """Puts pictures, depth and poses of one time together and shows them to perception."""

    def __init__(self, recording: Recording, joints: Joints, perception: Any) -> None:
        self.found: list[tuple[float, ObstacleSample]] = []
        self._recording, self._joints, self._perception = recording, joints, perception
        self._recorded = {stamp_of(cloud) for _, cloud in recording.clouds}
        self._pictures = {role: _ByStamp() for role in ("image", "depth", "camera_pose")}
        self._info: Any = None
        self._maps: dict[str, Any] = {}  # those not yet used
        self._done: set[float] = set()

    def take(self, role: str, message: Any) -> None:
        """Take the next message; complete pictures become tracks."""
        if role == "camera_info":
            self._info = message
        elif role in _MAPS:
            self._attend(role, message)
        elif role == "instruction":
            self._perception.instruct(message.data)
        else:
            self._pictures[role].add(message)
            self._look(ms.seconds(message.header.stamp))

    def _attend(self, role: str, message: Any) -> None:
        from safety_filter.perception.gaze import AttentionMap

        stamp, profile = ms.seconds(message.header.stamp), message.header.frame_id.partition("#")
        try:
            self._maps[role] = AttentionMap(stamp, images.float_map(message), profile[2])
        except ValueError as error:
            self._recording.notes.append(f"perception: {role} at {stamp:.3f}: {error}")

    def _look(self, near: float) -> None:
        image, depth, pose = (p.near(near) for p in self._pictures.values())
        if image is None or depth is None or pose is None or self._info is None:
            return
        stamp = ms.seconds(image.header.stamp)
        joints = self._joints.at(stamp)
        skipped = bool(self._recorded) and stamp not in self._recorded
        if stamp in self._done or joints is None or skipped:
            return
        self._done.add(stamp)
        try:
            rgb, metres = images.rgb(image), images.depth(depth)
            images.registered(rgb, metres)
            seen = self._perception.params
            images.measured(metres, seen.depth_min, seen.depth_max, seen.depth_share)
            result = self._perception.update(
                stamp, rgb, metres, images.intrinsics(self._info), images.pose_matrix(pose),
                *joints, *(self._maps.pop(role, None) for role in _MAPS),
            )  # fmt: skip
        except ValueError as error:
            self._recording.notes.append(f"perception: picture at {stamp:.3f}: {error}")
            return
        sample = ObstacleSample(stamp, 0.0, pose.header.frame_id, result.tracks)
        self.found.append((stamp, sample))


def act(path: Path, recording: Recording, settings: Settings,
        weights: Path | None = None) -> list[tuple[float, Any]]:  # fmt: skip
    """Chunks by the stamp of their picture that the policy answers the recorded pictures with.

    Raises:
        BagError: a topic is missing, or the policy cannot be loaded or used.
    """
    from safety_filter.vla.policy import SHIPPED, Policy, PolicyError, pack_proprioception

    source = _Source.open(path, recording, settings, ("image", "wrist_image", "instruction"))
    try:
        policy = Policy.load(weights or SHIPPED)
        tool = RobotSource(recording.spec, _urdf(recording, settings)).mask()
    except (PolicyError, ValueError, OSError) as error:
        raise BagError(f"policy: {error}") from error
    considered = {
        ms.seconds(m.header.stamp) for _, _, m in source.messages(("attention",))
    }
    scenes, wrists = _ByStamp(), _ByStamp()
    instruction, last = "", -np.inf
    found: list[tuple[float, Any]] = []
    for role, _, message in source.messages(("image", "wrist_image", "instruction")):
        if role == "instruction":
            instruction = message.data.strip()
            continue
        (scenes if role == "image" else wrists).add(message)
        stamp = ms.seconds(message.header.stamp)
        scene, wrist = scenes.near(stamp), wrists.near(stamp)
        joints = source.joints.at(stamp)
        if scene is None or wrist is None or joints is None or not instruction:
            continue
        stamp = ms.seconds(scene.header.stamp)
        due = stamp in considered if considered else stamp - last >= POLICY_PERIOD
        if not due or stamp <= last:
            continue
        last = stamp
        pose = tool.tool_pose(*joints)
        proprio = pack_proprioception(pose[:3, 3], pose[:3, :3], joints[1])
        try:
            chunk = policy.act(images.rgb(scene), images.rgb(wrist), proprio, instruction, stamp)
        except (PolicyError, ms.MessageError) as error:
            raise BagError(f"policy: picture at {stamp:.3f}: {error}") from error
        found.append((stamp, chunk))
    if not found:
        raise BagError(f"{path}: no pair of pictures with joints and an instruction")
    return found


def _receipts(recording: Recording, role: str, stamps: Sequence[float]) -> Array:
    """When results of these pictures count as received, on the monotonic clock of the ticks."""
    table = recording.table
    clock = float(table["now_ros"][0] - table["now_mono"][0])
    known = np.isfinite(table[f"{role}_receipt"])
    recorded = dict(zip(table[f"{role}_stamp"][known].tolist(),
                        table[f"{role}_receipt"][known].tolist(), strict=True))  # fmt: skip
    delays = [receipt + clock - stamp for stamp, receipt in recorded.items()]
    delay = float(np.median(delays)) if delays else NO_DELAY
    return np.array([recorded.get(s, s - clock + delay) for s in stamps])


def with_obstacles(
    recording: Recording, found: list[tuple[float, ObstacleSample]]
) -> Recording:
    """The recording with these obstacles in place of the recorded ones."""
    receipts = _receipts(recording, "obstacles", [s for s, _ in found])
    order = np.argsort(receipts, kind="stable")
    table = recording.table.copy()
    newest = np.searchsorted(receipts[order], table["now_mono"], side="right") - 1
    stamps = np.array([s for s, _ in found])[order]
    for name, values in (("stamp", stamps), ("receipt", receipts[order])):
        chosen = values[np.maximum(newest, 0)]
        table[f"obstacles_{name}"] = np.where(newest < 0, np.nan, chosen)
    offset = float(table["now_ros"][0] - table["now_mono"][0])
    clouds = [(float(receipts[i]) + offset, found[i][1]) for i in order]
    return replace(recording, table=table, clouds=clouds)


def with_commands(recording: Recording, chunks: list[tuple[float, Any]]) -> Recording:
    """The recording with the played-out chunks in place of the recorded twists.

    Each recorded twist keeps its times and gets the value that the player had then; where the
    chunks have run out, or before the first, there is no command.
    """
    from safety_filter.vla.chunk import ChunkPlayer

    table = recording.table.copy()
    clock = float(table["now_ros"][0] - table["now_mono"][0])
    starts = [stamp + NO_DELAY for stamp, _ in chunks]
    player, taken = ChunkPlayer(), 0
    known: tuple[float, Command | None] = (np.nan, None)
    for row in table:
        receipt = float(row["command_receipt"])
        if np.isnan(receipt):
            continue
        if receipt != known[0]:
            now = receipt + clock
            while taken < len(chunks) and starts[taken] <= now:
                player.push(chunks[taken][1], starts[taken])
                taken += 1
            value = player.read(now).twist
            stamp, frame = float(row["command_stamp"]), tk.text(row["command_frame"])
            played = None if value is None else Command(stamp, receipt, "twist", value, frame)
            known = receipt, played
        if known[1] is None:
            row["command_receipt"] = np.nan
        else:
            tk.put_command(row, known[1])
    return replace(recording, table=table)
