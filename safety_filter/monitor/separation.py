"""Distances between the robot's meshes and the obstacles, now and where a command leads.

Deliberately another path than the filter's: kinematics by pinocchio, distances between convex
hulls of the collision meshes and ellipsoids by coal (GJK/EPA), so that one bug cannot blind both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coal
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from safety_filter.core.wire import PIECE_STEP, Role, Tracks
from safety_filter.perception.meshes import link_triangles

Array = NDArray[np.float64]
HELD = "held"
IN_HAND = 0.3  # m from the tool to the nearest piece of what counts as held; the tool moves on
_POINT = 1e-4  # m, radius of what stands for a point


@dataclass(frozen=True)
class Separation:
    """The smallest distance in m of a link to a track, inf when there is nothing."""

    distance: float
    link: str = ""
    track: int = -1


@dataclass(frozen=True)
class Verdict:
    """Separation now, and after the horizon with the command and with zero velocities.

    `violation`: of the pairs that the command brings within the limit and that would stay farther
    apart if the robot stood still, the nearest. A command that leads away from a contact is none,
    and what is near for another reason hides no other pair.
    """

    now: Separation
    commanded: Separation
    standing: Separation
    violation: Separation | None = None


@dataclass(frozen=True)
class _Body:
    """A convex shape at a pose, in a sphere of `radius` about `centre`."""

    name: str
    shape: Any
    rotation: Array
    translation: Array
    centre: Array
    radius: float


class _Field:
    """The tracks as ellipsoids."""

    def __init__(self, tracks: Tracks) -> None:
        def columns(*names: str) -> Array:
            return np.stack([tracks[n] for n in names], 1).astype(float)

        axes = np.maximum(columns("sx", "sy", "sz"), 1e-4)
        self.centres, self.velocities = columns("x", "y", "z"), columns("vx", "vy", "vz")
        self.rotations = [_rotation(q) for q in columns("qx", "qy", "qz", "qw")]
        self.shapes = [coal.Ellipsoid(*a) for a in axes]
        self.sizes = axes.max(axis=1)
        self.roles, self.ids = tracks["role"].astype(int), tracks["id"]


class SeparationChecker:
    """Convex hulls of a robot's links against tracks.

    Links of the hand and fingers may touch the target and what is held; fingers and the held
    object may touch supports. Arm links may touch nothing.
    """

    def __init__(
        self,
        urdf: str | Path,
        arm_joints: Sequence[str],
        gains: Mapping[str, float],
        tool_link: str,
        hand_links: Sequence[str],
        finger_links: Sequence[str],
        reach: float = 0.5,
        base_link: str = "",
        spheres: Mapping[str, Sequence[tuple[Sequence[float], float]]] | None = None,
    ) -> None:
        """urdf: path or XML text; gains: finger joint -> m of it for 1 m of opening; reach: m
        beyond which a pair is not looked at; base_link: whose frame the tracks are in, empty for
        the URDF's root; spheres: link -> [(centre, radius)] for links whose meshes cannot be read.

        Raises:
            ValueError: a joint or the tool link is missing, or geometry cannot be read.
        """
        text = str(urdf)
        xml = text.lstrip().startswith("<")
        self._model = pin.buildModelFromXML(text) if xml else pin.buildModelFromUrdf(text)
        self._data = self._model.createData()
        for name in (*arm_joints, *gains):
            if not self._model.existJointName(name):
                raise ValueError(f"joint {name!r} is not in the robot description")
        for link in (tool_link, *filter(None, [base_link])):
            if not self._model.existFrame(link):
                raise ValueError(f"link {link!r} is not in the robot description")
        index = {n: self._model.joints[self._model.getJointId(n)].idx_q for n in self._model.names}
        self._arm = [index[n] for n in arm_joints]
        self._arm_v = [self._model.joints[self._model.getJointId(n)].idx_v for n in arm_joints]
        self._fingers = [index[n] for n in gains]
        self._gains = np.array(list(gains.values()))
        self._tool = self._model.getFrameId(tool_link)
        self._to_base = pin.SE3.Identity()
        if base_link:
            pin.framesForwardKinematics(self._model, self._data, pin.neutral(self._model))
            self._to_base = self._data.oMf[self._model.getFrameId(base_link)].inverse()
        self._grasping = frozenset((*hand_links, *finger_links))
        self._touching = frozenset(finger_links)
        self._reach = reach
        self._links: list[tuple[str, int, coal.Convex, Array, float]] = []
        links = link_triangles(urdf, spheres)
        self.by_spheres = links.by_spheres
        """Links that the filter's spheres stand in for, and why"""
        for name, triangles in links.triangles.items():
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
        self, q: Array, opening: float, qd: Array, tracks: Tracks, age: float, horizon: float,
        limit: float = 0.0,
    ) -> Verdict:  # fmt: skip
        """Judge a command.

        Args:
            q, qd: positions and commanded velocities of the arm (n,), rad and rad/s.
            opening: of the gripper, m.
            tracks: OBSTACLE_DTYPE in the base link's frame, `age` s old.
            horizon: s to look ahead with everything at constant velocity.
            limit: m, distance that a command may lead no link inside.
        """
        if not len(tracks):
            nothing = Separation(float("inf"))
            return Verdict(nothing, nothing, nothing)
        field = _Field(tracks)
        here = self._place(q, opening)
        self._release(field, here[1].translation)
        there = self._place(q + horizon * qd, opening)
        bodies_here = self._bodies(here, here, field)
        bodies_there = self._bodies(here, there, field)
        now = self._separation(bodies_here, field, age)
        standing = self._separation(bodies_here, field, age + horizon)
        commanded = self._separation(bodies_there, field, age + horizon)
        violation = None
        if commanded.distance < limit:
            violation = self._violation(bodies_here, bodies_there, field, age + horizon, limit)
        return Verdict(now, commanded, standing, violation)

    def _place(self, q: Array, opening: float) -> tuple[list[pin.SE3], pin.SE3]:
        """Poses of the links and of the tool."""
        pin.framesForwardKinematics(self._model, self._data, self._full(q, opening))
        frames = [self._to_base * self._data.oMf[frame] for _, frame, *_ in self._links]
        return frames, self._to_base * self._data.oMf[self._tool]

    def _full(self, q: Array, opening: float) -> Array:
        """Configuration of the whole model."""
        full = pin.neutral(self._model)
        full[self._arm] = q
        full[self._fingers] = self._gains * opening
        return np.asarray(full)

    def tool_twist(self, q: Array, opening: float, qd: Array) -> Array:
        """Twist (6,) of the tool, linear then angular, in the base link's frame.

        q, qd: arm positions and velocities (n,), rad and rad/s; opening: of the gripper, m.
        """
        aligned = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        full = self._full(q, opening)
        jacobian = pin.computeFrameJacobian(self._model, self._data, full, self._tool, aligned)
        linear, angular = (jacobian[:, self._arm_v] @ qd).reshape(2, 3)
        rotation = self._to_base.rotation
        return np.concatenate([rotation @ linear, rotation @ angular])

    def _release(self, field: _Field, tool: Array) -> None:
        """Make an obstacle of every object of role HELD that is nowhere near `tool` (3,)."""
        point = _Body("tool", coal.Sphere(_POINT), np.eye(3), tool, tool, _POINT)
        objects = field.ids % PIECE_STEP
        for name in np.unique(objects[field.roles == Role.HELD]):
            pieces = np.flatnonzero((objects == name) & (field.roles == Role.HELD))
            if min(self._distance(point, field, t, field.centres) for t in pieces) > IN_HAND:
                field.roles[pieces] = Role.OBSTACLE

    def _bodies(
        self,
        seen: tuple[list[pin.SE3], pin.SE3],
        placed: tuple[list[pin.SE3], pin.SE3],
        field: _Field,
    ) -> list[_Body]:
        """The links at `placed`, and what is held, which moved with the tool since `seen`."""
        bodies = [
            _Body(name, hull, pose.rotation, pose.translation, pose.act(centre), radius)
            for (name, _, hull, centre, radius), pose in zip(self._links, placed[0], strict=True)
        ]
        for i in np.flatnonzero(field.roles == Role.HELD):
            pose = placed[1] * seen[1].inverse() * pin.SE3(field.rotations[i], field.centres[i])
            at = pose.translation
            bodies.append(_Body(HELD, field.shapes[i], pose.rotation, at, at, field.sizes[i]))
        return bodies

    def _separation(self, bodies: list[_Body], field: _Field, ahead: float) -> Separation:
        """Smallest distance with the tracks moved on by `ahead` s: pairs in the order of their
        bounding spheres, until no other pair can be nearer."""
        moved = field.centres + ahead * field.velocities
        bounds = self._bounds(bodies, field, moved)
        best = Separation(float("inf"))
        for flat in np.argsort(bounds, axis=None):
            b, t = divmod(int(flat), len(moved))
            if bounds[b, t] > min(self._reach, best.distance):
                break
            distance = self._distance(bodies[b], field, t, moved)
            if distance < best.distance:
                best = Separation(distance, bodies[b].name, int(field.ids[t]))
        return best

    def _violation(
        self, here: list[_Body], there: list[_Body], field: _Field, ahead: float, limit: float
    ) -> Separation | None:
        """The nearest of the pairs that `Verdict.violation` is about, if there are any."""
        moved = field.centres + ahead * field.velocities
        worst: Separation | None = None
        for b, t in np.argwhere(self._bounds(there, field, moved) < limit):
            distance = self._distance(there[b], field, t, moved)
            if distance >= (limit if worst is None else worst.distance):
                continue
            if distance < self._distance(here[b], field, t, moved) - 1e-4:
                worst = Separation(distance, there[b].name, int(field.ids[t]))
        return worst

    def _bounds(self, bodies: list[_Body], field: _Field, moved: Array) -> Array:
        """No pair (body, track) is nearer than this, m; inf for those that may touch."""
        centres = np.array([b.centre for b in bodies])
        radii = np.array([b.radius for b in bodies])
        bounds = np.linalg.norm(centres[:, None] - moved[None], axis=2)
        bounds -= radii[:, None] + field.sizes[None]
        grasping = np.array([b.name in self._grasping or b.name == HELD for b in bodies])
        touching = np.array([b.name in self._touching or b.name == HELD for b in bodies])
        bounds[:, field.roles == Role.HELD] = np.inf
        bounds[np.ix_(grasping, field.roles == Role.TARGET)] = np.inf
        bounds[np.ix_(touching, field.roles == Role.SUPPORT)] = np.inf
        return np.asarray(bounds)

    def _distance(self, body: _Body, field: _Field, t: int, moved: Array) -> float:
        """Distance of a body to track `t` at moved[t], m, below zero for penetration."""
        self._result.clear()
        return float(
            coal.distance(
                body.shape,
                coal.Transform3s(body.rotation, body.translation),
                field.shapes[t],
                coal.Transform3s(field.rotations[t], moved[t]),
                self._request,
                self._result,
            )
        )


def _rotation(quaternion: Array) -> Array:
    """Rotation matrix of a quaternion xyzw of any length > 0."""
    return np.asarray(pin.Quaternion(quaternion / np.linalg.norm(quaternion)).matrix())
