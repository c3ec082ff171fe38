"""Where the camera stood when a recorded picture was taken, as nodes/extrinsics.py has it live."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from safety_filter import images
from safety_filter.bags import messages as ms

Array = NDArray[np.float64]


class RecordedPoses:
    """The messages of `camera_pose`, stamped like the pictures."""

    def __init__(self, messages: Iterable[Any], frame: str, tolerance: float) -> None:
        """frame: the base's; tolerance: s between the stamps of picture and pose."""
        self._poses = {ms.seconds(m.header.stamp): m for m in messages}
        self._stamps = sorted(self._poses)
        self._frame, self._tolerance = frame, tolerance

    def at(self, image: Any) -> Array:
        stamp = ms.seconds(image.header.stamp)
        i = bisect.bisect_left(self._stamps, stamp)
        near = min(self._stamps[max(0, i - 1) : i + 1], key=lambda s: abs(s - stamp), default=None)
        if near is None or abs(near - stamp) > self._tolerance:
            raise ms.MessageError("camera_pose: none at the time of the image")
        msg = self._poses[near]
        if msg.header.frame_id != self._frame:
            raise ms.MessageError(
                f"camera_pose frame_id: expected {self._frame}, got {msg.header.frame_id!r};"
                " with the live run's parameter file its frame counts"
            )
        return images.pose_matrix(msg)


@dataclass
class _Edge:
    """A frame in its parent: rows of stamp, x, y, z, qx, qy, qz, qw; a static one has one row."""

    parent: str
    static: bool
    rows: array[float] = field(default_factory=lambda: array("d"))

    def table(self) -> Array:
        table = np.frombuffer(self.rows).reshape(-1, 8)
        return table[np.argsort(table[:, 0], kind="stable")]


class RecordedTf:
    """The recorded transforms, interpolated at the stamp of the picture as tf2 does."""

    def __init__(self, messages: Iterable[tuple[bool, Any]], frame: str) -> None:
        """messages: (from /tf_static, TFMessage) in order of receipt; frame: the base's."""
        self._frame = frame
        edges: dict[str, _Edge] = {}
        for static, message in messages:
            for t in message.transforms:
                parent, child = t.header.frame_id, t.child_frame_id
                edge = edges.get(child)
                if edge is None or static or (edge.parent, edge.static) != (parent, static):
                    edge = edges[child] = _Edge(parent, static)  # the newest word counts
                p, q = t.transform.translation, t.transform.rotation
                edge.rows.extend((ms.seconds(t.header.stamp), p.x, p.y, p.z, q.x, q.y, q.z, q.w))
        self._edges = {child: (e.parent, e.static, e.table()) for child, e in edges.items()}

    def at(self, image: Any) -> Array:
        child, stamp = image.header.frame_id, ms.seconds(image.header.stamp)
        above = self._ancestors(self._frame)
        common = next((name for name in self._ancestors(child) if name in above), None)
        if common is None:
            raise ms.MessageError(
                f"tf: {child!r} (frame_id of the image) and {self._frame!r} (frame of the"
                f" obstacles) are not connected; known: {', '.join(sorted(self._edges)) or 'none'}"
            )
        from_base = np.linalg.inv(self._pose(self._frame, common, stamp))
        return np.asarray(from_base @ self._pose(child, common, stamp))

    def _ancestors(self, name: str) -> list[str]:
        """The frame, its parent and so on."""
        line = [name]
        while line[-1] in self._edges and self._edges[line[-1]][0] not in line:
            line.append(self._edges[line[-1]][0])
        return line

    def _pose(self, name: str, ancestor: str, stamp: float) -> Array:
        pose = np.eye(4)
        while name != ancestor:
            parent, static, table = self._edges[name]
            row = table[0, 1:] if static else _interpolated(table, stamp, f"{name} in {parent}")
            pose = images.rigid(row.tolist()) @ pose
            name = parent
        return pose


def _interpolated(table: Array, stamp: float, what: str) -> Array:
    """Row (7,) at `stamp`, never beyond what was recorded. Raises MessageError."""
    stamps = table[:, 0]
    if not stamps[0] <= stamp <= stamps[-1]:
        raise ms.MessageError(
            f"tf: {what}: known from {stamps[0]:.3f} to {stamps[-1]:.3f} s, not at {stamp:.3f} s"
        )
    i = int(np.searchsorted(stamps, stamp))
    if stamps[i] == stamp:
        return np.asarray(table[i, 1:])
    between = table[i - 1 : i + 1]
    turns = Slerp(between[:, 0], Rotation.from_quat(between[:, 4:]))
    place = [np.interp(stamp, between[:, 0], between[:, k]) for k in (1, 2, 3)]
    return np.concatenate([place, turns(stamp).as_quat()])
