"""Perception over recorded pictures, in place of the recorded obstacles; see bags/source.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safety_filter import eyes, images
from safety_filter.bags import messages as ms
from safety_filter.bags.extrinsics import RecordedPoses, RecordedTf
from safety_filter.bags.reader import BagError
from safety_filter.bags.recording import Recording, Settings, stamp_of
from safety_filter.bags.source import NO_DELAY, Joints, Source
from safety_filter.core.inputs import ObstacleSample
from safety_filter.core.params import ParamError
from safety_filter.eyes import PerceptionNodeParams
from safety_filter.perception.params import TABLE, PerceptionParams

if TYPE_CHECKING:
    from safety_filter.perception.pipeline import Perception

KEPT = 8  # pictures kept until their partners come
Array = NDArray[np.float64]
_PICTURES = ("image", "depth", "camera_info")
_MAPS = ("attention", "wrist_attention")


class _ByStamp:
    """The last messages of a topic, to find the partner of another's."""

    def __init__(self, tolerance: float) -> None:
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


def _extrinsics(source: Source, live: PerceptionNodeParams, said: str) -> eyes.Extrinsics:
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
        source = Source.open(path, recording, settings, _PICTURES, said)
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
