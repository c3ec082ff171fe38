"""What reruns of perception and policy both need of a bag: its pictures, its joints, its robot.

A result counts as received when the recorded one of the same picture was; where none was recorded,
after the median of those delays. So what changes is what they say, not when. Pictures are taken in
order and those that the live run skipped are skipped; joints are interpolated at the picture's
time, as in the nodes. Equal bags and weights give equal results on one machine.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.bags import messages as ms
from safety_filter.bags.reader import Bag, BagError, ordered
from safety_filter.bags.recording import Recording, Settings, find_topics
from safety_filter.core.robot import RobotError, urdf_path
from safety_filter.robot_source import Gripper, RobotSource

NO_DELAY = 0.1  # s from picture to result where no recorded result tells it
Array = NDArray[np.float64]
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

    def at(self, stamp: float, age: float) -> tuple[Array, float] | None:
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
class Source:
    """An opened bag with what both reruns need of it."""

    bag: Bag
    topics: dict[str, str]
    joints: Joints
    robot: RobotSource

    @classmethod
    def open(cls, path: Path, recording: Recording, settings: Settings, roles: Sequence[str],
             extrinsics: str | None = None) -> Source:  # fmt: skip
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
