"""The filter's view as RViz markers: bodies, ellipsoids, the nearest pair, the removed command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pinocchio as pin
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import (
    JointSample,
    ObstacleSample,
    joints_fault,
    obstacles_fault,
    tool_fault,
)
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.margins import track_margins
from safety_filter.core.report import Decision
from safety_filter.core.wire import Role, Tracks

_ROLE_COLOURS = {
    Role.OBSTACLE: (0.92, 0.27, 0.20, 0.5),
    Role.TARGET: (0.24, 0.82, 0.35, 0.5),
    Role.HELD: (0.27, 0.59, 0.98, 0.5),
    Role.SUPPORT: (0.75, 0.67, 0.24, 0.4),
}
_BODY = (0.6, 0.65, 0.7, 0.25)
_MARGIN = (1.0, 1.0, 1.0, 0.12)
_PAIR = (1.0, 0.9, 0.2, 1.0)
_REMOVED = (0.9, 0.2, 0.9, 1.0)
LIFETIME = 0.5  # s, so that what is no longer published disappears
SECONDS_SHOWN = 1.0  # an arrow is as long as the tool would travel in this time


class Markers:
    """Builds one MarkerArray; every marker is in `frame`."""

    def __init__(self, frame: str, stamp: Time) -> None:
        self._frame, self._stamp = frame, stamp
        self.array = MarkerArray()

    def _add(self, namespace: str, kind: int, colour: Sequence[float]) -> Marker:
        count = sum(m.ns == namespace for m in self.array.markers)
        marker = Marker(ns=namespace, id=count, type=kind, action=Marker.ADD)
        marker.header.frame_id, marker.header.stamp = self._frame, self._stamp
        marker.pose.orientation.w = 1.0
        marker.color = ColorRGBA(r=colour[0], g=colour[1], b=colour[2], a=colour[3])
        marker.lifetime.nanosec = int(LIFETIME * 1e9)
        self.array.markers.append(marker)
        return marker

    def bodies(self, centres: NDArray[Any], radii: NDArray[Any]) -> None:
        """Spheres of the robot: centres (n, 3), radii (n,) in m."""
        for centre, radius in zip(centres, radii, strict=True):
            marker = self._add("bodies", Marker.SPHERE, _BODY)
            marker.pose.position = _point(centre)
            marker.scale.x = marker.scale.y = marker.scale.z = 2.0 * float(radius)

    def tracks(self, tracks: Tracks) -> None:
        """Ellipsoids coloured by role, with their ids and velocities."""
        for t in tracks:
            colour = _ROLE_COLOURS[Role(int(t["role"]))]
            marker = self._add("tracks", Marker.SPHERE, colour)
            centre = np.array([t["x"], t["y"], t["z"]], float)
            marker.pose.position = _point(centre)
            o = marker.pose.orientation
            o.x, o.y, o.z, o.w = (float(t[c]) for c in ("qx", "qy", "qz", "qw"))
            s = marker.scale
            s.x, s.y, s.z = (2.0 * max(1e-3, float(t[c])) for c in ("sx", "sy", "sz"))
            label = self._add("ids", Marker.TEXT_VIEW_FACING, (1.0, 1.0, 1.0, 0.9))
            label.pose.position = _point(centre + [0.0, 0.0, float(t["sz"]) + 0.02])
            label.scale.z = 0.02
            label.text = f"{int(t['id'])} {Role(int(t['role'])).name.lower()}"
            velocity = np.array([t["vx"], t["vy"], t["vz"]], float)
            if float(np.linalg.norm(velocity)) > 0.01:
                self.arrow("velocities", centre, centre + SECONDS_SHOWN * velocity, colour)

    def margins(self, tracks: Tracks, margins: NDArray[Any]) -> None:
        """Shells about the ellipsoids, `margins` (n,) m out: what the rows keep clear."""
        for t, margin in zip(tracks, margins, strict=True):
            marker = self._add("margins", Marker.SPHERE, _MARGIN)
            marker.pose.position = _point(np.array([t["x"], t["y"], t["z"]], float))
            o = marker.pose.orientation
            o.x, o.y, o.z, o.w = (float(t[c]) for c in ("qx", "qy", "qz", "qw"))
            s = marker.scale
            s.x, s.y, s.z = (2.0 * (float(t[c]) + float(margin)) for c in ("sx", "sy", "sz"))

    def arrow(
        self, namespace: str, start: NDArray[Any], end: NDArray[Any], colour: Sequence[float]
    ) -> None:
        """An arrow from `start` to `end`, (3,) m."""
        marker = self._add(namespace, Marker.ARROW, (*colour[:3], 1.0))
        marker.points = [_point(start), _point(end)]
        marker.scale.x, marker.scale.y, marker.scale.z = 0.006, 0.014, 0.02

    def line(self, namespace: str, ends: NDArray[Any], text: str) -> None:
        """The nearest pair: a line between its points (2, 3) m with a label."""
        marker = self._add(namespace, Marker.LINE_LIST, _PAIR)
        marker.points = [_point(ends[0]), _point(ends[1])]
        marker.scale.x = 0.004
        label = self._add(namespace, Marker.TEXT_VIEW_FACING, _PAIR)
        label.pose.position = _point(np.mean(ends, axis=0))
        label.scale.z = 0.02
        label.text = text

    def removed(self, tool: NDArray[Any], nominal: NDArray[Any], twist: NDArray[Any]) -> None:
        """What was taken out of the command: linear parts of two twists at the tool (3,)."""
        difference = np.asarray(nominal[:3]) - np.asarray(twist[:3])
        if float(np.linalg.norm(difference)) > 1e-3:
            self.arrow("removed", tool, tool + SECONDS_SHOWN * difference, _REMOVED)


def of_decision(
    kinematics: Kinematics,
    joints: JointSample,
    obstacles: ObstacleSample | None,
    decision: Decision,
    frame: str,
    stamp: Time,
    params: FilterParams,
    now: float,
) -> MarkerArray:
    """Everything about one decision; `frame` is the robot's base, `now` in s on the ROS clock.

    Inputs that the filter does not use are not drawn.
    """
    found, robot = Markers(frame, stamp), kinematics.robot
    if tool_fault(joints) if robot.tool_only else joints_fault(joints, robot.n):
        return found.array
    centres, tool, nominal = _placed(kinematics, joints, decision)
    found.bodies(centres, kinematics.robot.spheres["radius"])
    found.removed(tool, nominal, decision.twist)
    usable = (params.max_obstacles, params.base_frames)
    if obstacles is not None and obstacles_fault(obstacles, *usable) is None:
        age = min(max(now - obstacles.stamp, 0.0), params.obstacles_age)
        found.tracks(obstacles.tracks)
        found.margins(obstacles.tracks, track_margins(obstacles.tracks, age, params))
    if decision.nearest is not None:
        text = f"{decision.nearest.body} {1e3 * decision.nearest.distance:.0f} mm"
        found.line("nearest", decision.nearest.points, text)
    return found.array


def _placed(
    kinematics: Kinematics, joints: JointSample, decision: Decision
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Centres of the bodies (n, 3), the tool's origin (3,) and the nominal twist (6,)."""
    robot = kinematics.robot
    if not robot.tool_only:
        _, tool, jacobian = kinematics.tool(joints.q)
        return kinematics.spheres(joints.q, joints.opening), tool, jacobian @ decision.nominal_qd
    turn = pin.Quaternion(joints.q[3:]).normalized().matrix()
    nominal = np.concatenate([decision.nominal_qd[:3], turn @ decision.nominal_qd[3:]])
    return robot.spheres["offset"] @ turn.T + joints.q[:3], joints.q[:3], nominal


def _point(p: NDArray[Any]) -> Point:
    return Point(x=float(p[0]), y=float(p[1]), z=float(p[2]))
