"""Perception and the policy over recorded pictures, in place of what was recorded of them.

A result counts as received when the recorded one of the same picture was; where none was recorded,
after the median of those delays. So what changes is what they say, not when. Pictures are taken in
order and those that the live run skipped are skipped; joints are interpolated at the picture's
time, as in the nodes. Equal bags and weights give equal results on one machine.
"""

from __future__ import annotations

import bisect
import contextlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safety_filter import eyes, images
from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.bags.extrinsics import RecordedPoses, RecordedTf
from safety_filter.bags.reader import Bag, BagError, ordered
from safety_filter.bags.recording import Recording, Settings, find_topics, stamp_of
from safety_filter.core.inputs import Command, ObstacleSample
from safety_filter.core.params import ParamError
from safety_filter.core.robot import RobotError, urdf_path
from safety_filter.eyes import PerceptionNodeParams
from safety_filter.perception.params import TABLE, PerceptionParams
from safety_filter.robot_source import Gripper, RobotSource

if TYPE_CHECKING:
    from safety_filter.perception.pipeline import Perception

KEPT = 8  # pictures kept until their partners come
SYNC = 0.02  # s between stamps of the pictures of two cameras
JOINT_AGE = 0.1  # s: joints must be known this close to the picture
NO_DELAY = 0.1  # s from picture to result where no recorded result tells it
POLICY_PERIOD = 0.2  # s between two calls of the policy where none was recorded
Array = NDArray[np.float64]
_PICTURES = ("image", "depth", "camera_info")
_MAPS = ("attention", "wrist_attention")
# Roles of which one has to tell where the camera stood, by the extrinsics that were said
_POSES = {
    "": ("camera_pose", "tf", "tf_static"),
    "topic": ("camera_pose",),
    "tf": ("tf", "tf_static"),
    "parameter": (),
}


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

    def at(self, stamp: float, age: float = JOINT_AGE) -> tuple[Array, float] | None:
        """Arm joints and gripper opening at `stamp`, None when not known within `age` s of it."""
        after = bisect.bisect_right(self._stamps, stamp)
        near = [i for i in (after - 1, after) if 0 <= i < len(self._stamps)]
        near = [i for i in near if abs(self._stamps[i] - stamp) <= age]
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
    robot: RobotSource

    @classmethod
    def open(cls, path: Path, recording: Recording, settings: Settings, roles: Sequence[str],
             extrinsics: str | None = None) -> _Source:  # fmt: skip
        """extrinsics: where the camera's pose has to come from, '' for what there is.

        Raises:
            BagError: a role, or the camera's pose, has no topic.
        """
        bag = Bag.open(path)
        topics = find_topics(bag, settings)
        missing = [role for role in (*roles, "joint_states") if role not in topics]
        advice = "record with --perception --vla, or name them with --topic"
        poses = _POSES[extrinsics] if extrinsics is not None else ()
        if poses and not topics.keys() & set(poses):
            missing.append(" or ".join(poses))
            advice += ("; the pose of a camera that stands still may be said in the file of"
                       " --perception: extrinsics: parameter, camera_xyz, camera_xyzw")
        if "instruction" in missing:
            advice += "; what was said before the recording began is not in it"
        if missing:
            raise BagError(f"{path}: no topic for {', '.join(missing)}; {advice}")
        robot = RobotSource(recording.spec, _urdf(recording, settings))
        rows = [(1e-9 * t, d) for _, t, d in bag.messages({topics["joint_states"]})]
        joints = Joints(rows, recording.robot.joint_names, robot.gripper)
        return cls(bag, topics, joints, robot)

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
    """As the live nodes had it, by its path where that is here, for its meshes; else its text."""
    live = recording.node_params
    if settings.urdf:
        return settings.urdf
    if live.get("urdf") and Path(live["urdf"]).is_file():
        return str(live["urdf"])
    if not live.get("urdf") and not live.get("description"):
        with contextlib.suppress(RobotError):
            return urdf_path(recording.spec)
    return recording.robot.urdf


class _ByStamp:
    """The last messages of a topic, to find the partner of another's."""

    def __init__(self, tolerance: float = SYNC) -> None:
        """tolerance: s between a stamp that is looked for and that of its partner."""
        self._items: OrderedDict[float, Any] = OrderedDict()
        self._tolerance = tolerance

    def add(self, message: Any) -> None:
        self._items[ms.seconds(message.header.stamp)] = message
        while len(self._items) > KEPT:
            self._items.popitem(last=False)

    def near(self, stamp: float) -> Any | None:
        best = min(self._items, key=lambda s: abs(s - stamp), default=None)
        return None if best is None or abs(best - stamp) > self._tolerance else self._items[best]


def _parameters(
    recording: Recording, changes: Mapping[str, Any]
) -> tuple[PerceptionNodeParams, PerceptionParams]:
    """Those of perception_node, and of its pipeline; the base's frame is as recorded where the
    file of the live run does not say it. Raises ParamError."""
    names = eyes.TABLE.defaults()
    node = {n: v for n, v in changes.items() if n in names}
    frame = recording.node_params.get("frame", names["frame"])
    live = eyes.TABLE.validate({"frame": frame, **node})
    return live, TABLE.validate({n: v for n, v in changes.items() if n not in names})


def _extrinsics(source: _Source, live: PerceptionNodeParams, said: str) -> eyes.Extrinsics:
    """Where the camera stood, by what was said or else recorded."""
    if said == "parameter":
        return eyes.FixedExtrinsics(live.camera_xyz, live.camera_xyzw)
    if said != "tf" and "camera_pose" in source.topics:
        messages = (m for _, _, m in source.messages(("camera_pose",)))
        return RecordedPoses(messages, live.frame, live.sync)
    found = source.messages(("tf", "tf_static"))
    return RecordedTf(((role == "tf_static", m) for role, _, m in found), live.frame)


def perceive(path: Path, recording: Recording, settings: Settings,
             changes: Mapping[str, Any]) -> list[tuple[float, ObstacleSample]]:  # fmt: skip
    """Obstacles by stamp that perception sees in the recorded pictures.

    changes: parameters of perception_node, as in a file for the live one.

    Raises:
        BagError: a topic is missing, parameters or weights do not fit, nothing could be used.
    """
    said = str(changes.get("extrinsics", ""))
    try:
        live, tuning = _parameters(recording, changes)
        source = _Source.open(path, recording, settings, _PICTURES, said)
        perception = eyes.build(source.robot, tuning, live.weights)
        where = _extrinsics(source, live, said)
    except (ParamError, eyes.EyesError, ms.MessageError) as error:
        raise BagError(f"perception: {error}") from error
    if "wrist_attention" in source.topics and not tuning.wrist_fov:
        recording.notes.append("perception: wrist_attention is not used without wrist_fov and the"
                               " hand-eye calibration; give the live run's parameter file")
    looking = _Looking(recording, source.joints, perception, where, live)
    for role, _, message in source.messages((*_PICTURES, *_MAPS, "instruction")):
        looking.take(role, message)
    faults = looking.faults
    if not looking.found:
        why = f" ({faults[0]})" if faults else ""
        raise BagError(f"{path}: no picture with depth, pose and joints of the same time{why}")
    if faults:
        recording.notes.append(f"perception: {len(faults)} left out, the first: {faults[0]}")
    if looking.unheard:
        recording.notes.append(f"perception: in {looking.unheard} pictures: {eyes.NO_WORDS}")
    return looking.found


class _Looking:
    """Puts pictures and depth of one time together and shows them to perception.

    faults: what could not be used, in words; unheard: pictures whose attention no words checked.
    """

    def __init__(self, recording: Recording, joints: Joints, perception: Perception,
                 where: eyes.Extrinsics, live: PerceptionNodeParams) -> None:  # fmt: skip
        self.found: list[tuple[float, ObstacleSample]] = []
        self.faults: list[str] = []
        self.unheard = 0
        self._joints, self._perception, self._where, self._live = joints, perception, where, live
        self._recorded = {stamp_of(cloud) for _, cloud in recording.clouds}
        self._pictures = {role: _ByStamp(live.sync) for role in ("image", "depth")}
        self._info: Any = None
        self._maps: dict[str, Any] = {}  # those not yet used
        self._words = ""
        self._done: set[float] = set()

    def take(self, role: str, message: Any) -> None:
        """Take the next message; complete pictures become tracks."""
        if role == "camera_info":
            self._info = message
        elif role in _MAPS:
            self._attend(role, message)
        elif role == "instruction":
            self._words = message.data
            self._perception.instruct(self._words)
        else:
            self._pictures[role].add(message)
            self._look(ms.seconds(message.header.stamp))

    def _attend(self, role: str, message: Any) -> None:
        from safety_filter.perception.gaze import AttentionMap

        stamp = ms.seconds(message.header.stamp)
        try:
            self._maps[role] = AttentionMap(stamp, images.float_map(message))
        except ValueError as error:
            self.faults.append(f"{role} at {stamp:.3f}: {error}")

    def _look(self, near: float) -> None:
        image, depth = (p.near(near) for p in self._pictures.values())
        if image is None or depth is None or self._info is None:
            return
        stamp = ms.seconds(image.header.stamp)
        joints = self._joints.at(stamp, self._live.joint_age)
        skipped = bool(self._recorded) and stamp not in self._recorded
        if stamp in self._done or joints is None or skipped:
            return
        self._done.add(stamp)
        seen, maps = self._perception.params, [self._maps.pop(role, None) for role in _MAPS]
        if any(maps) and not eyes.may_point(self._words, seen):
            self.unheard += 1
            maps = [None, None]
        try:
            rgb, metres = images.rgb(image), images.depth(depth)
            images.registered(rgb, metres)
            images.measured(metres, seen.depth_min, seen.depth_max, seen.depth_share)
            k, pose = images.intrinsics(self._info), self._where.at(image)
            result = self._perception.update(stamp, rgb, metres, k, pose, *joints, *maps)
        except ValueError as error:
            self.faults.append(f"picture at {stamp:.3f}: {error}")
            return
        sample = ObstacleSample(stamp, 0.0, self._live.frame, result.tracks)
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
        tool = source.robot.mask()
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
