"""Distances between the robot's meshes and the obstacles, now and where a command leads.

Deliberately another path than the filter's: kinematics by pinocchio, distances between convex
hulls of the collision meshes and ellipsoids by coal (GJK/EPA), so that one bug cannot blind both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from safety_filter.core.wire import Role, Tracks
from safety_filter.perception.meshes import link_triangles

Array = NDArray[np.float64]
HELD = "held"


@dataclass(frozen=True)
class Separation:
    """The smallest distance in m of a link to a track, inf when there is nothing."""

    distance: float
    link: str = ""
    track: int = -1


@dataclass(frozen=True)
class Verdict:
    """Separation now, and after the horizon with the command and with zero velocities."""

    now: Separation
    commanded: Separation
    standing: Separation

    def violates(self, limit: float) -> bool:
        """Whether the command leads inside `limit` where standing still would stay farther off.

        A command that leads away from a contact is never a violation.
        """
        inside = self.commanded.distance < limit
        return inside and self.commanded.distance < self.standing.distance - 1e-4


class SeparationChecker:
    """Convex hulls of a robot's links against tracks.

    Links of the hand and fingers may touch the target and what is held; fingers and the held
    object may touch supports. Arm links may touch nothing.
    """

    def __init__(
        self,
        urdf: str | Path,
        arm_joints: Sequence[str],
        finger_joints: Sequence[str],
        tool_link: str,
        hand_links: Sequence[str],
        finger_links: Sequence[str],
        reach: float = 0.5,
    ) -> None:
        """urdf: path or XML text; reach: m beyond which a pair is not looked at.

        Raises:
            ValueError: a joint or the tool link is missing, or geometry cannot be read.
        """
        text = str(urdf)
        xml = text.lstrip().startswith("<")
        self._model = pin.buildModelFromXML(text) if xml else pin.buildModelFromUrdf(text)
        self._data = self._model.createData()
        for name in (*arm_joints, *finger_joints):
            if not self._model.existJointName(name):
                raise ValueError(f"joint {name!r} is not in the robot description")
        if not self._model.existFrame(tool_link):
            raise ValueError(f"link {tool_link!r} is not in the robot description")
        index = {n: self._model.joints[self._model.getJointId(n)].idx_q for n in self._model.names}
        self._arm = [index[n] for n in arm_joints]
        self._fingers = [index[n] for n in finger_joints]
        self._tool = self._model.getFrameId(tool_link)
        self._grasping = frozenset((*hand_links, *finger_links))
        self._touching = frozenset(finger_links)
        self._reach = reach
        self._links: list[tuple[str, int, coal.Convex, Array, float]] = []
        for name, triangles in link_triangles(urdf).items():
            points = np.unique(triangles.reshape(-1, 3), axis=0)
            vector = coal.StdVec_Vec3s()
            for point in points:
                vector.append(point)
            hull = coal.Convex.convexHull(vector, True, "Qt")
            centre = (points.min(0) + points.max(0)) / 2
            radius = float(np.linalg.norm(points - centre, axis=1).max())
            self._links.append((name, self._model.getFrameId(name), hull, centre, radius))
        self._request, self._result = coal.DistanceRequest(), coal.DistanceResult()

    def check(
        self, q: Array, opening: float, qd: Array, tracks: Tracks, age: float, horizon: float
    ) -> Verdict:
        """Judge a command.

        Args:
            q, qd: positions and commanded velocities of the arm (n,), rad and rad/s.
            opening: of the gripper, m.
            tracks: OBSTACLE_DTYPE in the frame of the URDF's root, `age` s old.
            horizon: s to look ahead with everything at constant velocity.
        """
        now = self._separation(q, q, opening, tracks, age)
        standing = self._separation(q, q, opening, tracks, age + horizon)
        commanded = self._separation(q, q + horizon * qd, opening, tracks, age + horizon)
        return Verdict(now, commanded, standing)

    def _place(self, q: Array, opening: float) -> tuple[list[tuple[Array, Array]], pin.SE3]:
        full = pin.neutral(self._model)
        full[self._arm] = q
        full[self._fingers] = opening / 2
        pin.framesForwardKinematics(self._model, self._data, full)
        frames = [self._data.oMf[frame] for _, frame, *_ in self._links]
        return [(f.rotation.copy(), f.translation.copy()) for f in frames], pin.SE3(
            self._data.oMf[self._tool]
        )

    def _separation(
        self, q0: Array, q: Array, opening: float, tracks: Tracks, ahead: float
    ) -> Separation:
        """Separation at joints `q` with the tracks moved on by `ahead` s; what is held moves
        with the tool from where it was at `q0`."""
        if not len(tracks):
            return Separation(float("inf"))
        tool0 = self._place(q0, opening)[1]
        placed, tool = self._place(q, opening)
        bodies = [
            (name, hull, rotation, translation, rotation @ centre + translation, radius)
            for (name, _, hull, centre, radius), (rotation, translation) in zip(
                self._links, placed, strict=True
            )
        ]
        p = np.stack([tracks[c] for c in "xyz"], 1).astype(float)
        v = np.stack([tracks[c] for c in ("vx", "vy", "vz")], 1).astype(float)
        axes = np.maximum(np.stack([tracks[c] for c in ("sx", "sy", "sz")], 1).astype(float), 1e-4)
        turns = np.stack([tracks[c] for c in ("qx", "qy", "qz", "qw")], 1).astype(float)
        moved = p + ahead * v
        held = tracks["role"] == Role.HELD
        for i in np.flatnonzero(held):
            place = tool * tool0.inverse() * pin.SE3(_rotation(turns[i]), p[i])
            hull = coal.Ellipsoid(*axes[i])
            bodies.append(
                (HELD, hull, place.rotation, place.translation, place.translation, max(axes[i]))
            )
        best = Separation(float("inf"))
        for i in range(len(tracks)):
            if held[i]:
                continue
            role = int(tracks["role"][i])
            shape = coal.Ellipsoid(*axes[i])
            where = coal.Transform3s(_rotation(turns[i]), moved[i])
            size = float(axes[i].max())
            for name, hull, rotation, translation, centre, radius in bodies:
                if role == Role.TARGET and (name in self._grasping or name == HELD):
                    continue
                if role == Role.SUPPORT and (name in self._touching or name == HELD):
                    continue
                bound = float(np.linalg.norm(centre - moved[i])) - radius - size
                if bound > min(self._reach, best.distance):
                    continue
                self._result.clear()
                distance = coal.distance(
                    hull,
                    coal.Transform3s(rotation, translation),
                    shape,
                    where,
                    self._request,
                    self._result,
                )
                if distance < best.distance:
                    best = Separation(float(distance), name, int(tracks["id"][i]))
        return best


def _rotation(quaternion: Array) -> Array:
    """Rotation matrix of a quaternion xyzw of any length > 0."""
    return np.asarray(pin.Quaternion(quaternion / np.linalg.norm(quaternion)).matrix())
