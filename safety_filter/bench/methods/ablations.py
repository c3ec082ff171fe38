"""Our filter with one thing taken away at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from safety_filter.bench.methods.ours import METHOD, Filter
from safety_filter.core.robot import BodyKind, RobotModel
from safety_filter.core.wire import Role, Tracks


class NoVelocity(Filter):
    """Obstacles count as standing still where they were seen, with all covariances as they are."""

    def tracks(self, tracks: Tracks) -> Tracks:
        """See `Filter`."""
        out = tracks.copy()
        for name in ("vx", "vy", "vz"):
            out[name] = 0.0
        return out


class NoCovariance(Filter):
    """Perception counts as exact."""

    def __init__(self) -> None:
        super().__init__({"sigma_position": 0.0, "sigma_velocity": 0.0})


class ToolOnly(Filter):
    """Hand and fingers are modelled, the links of the arm are not."""

    def __init__(self) -> None:
        super().__init__(robot=tool_bodies(RobotModel.shipped("panda")))


class NoHeld(Filter):
    """The object in the gripper is an obstacle like any other."""

    def tracks(self, tracks: Tracks) -> Tracks:
        """See `Filter`."""
        out = tracks.copy()
        out["role"][out["role"] == int(Role.HELD)] = int(Role.OBSTACLE)
        return out


def tool_bodies(robot: RobotModel) -> RobotModel:
    """The robot without the spheres of its arm links, and so without self-collision pairs."""
    spheres = robot.spheres[robot.spheres["kind"] != int(BodyKind.ARM)].copy()
    kept = sorted({int(g) for g in spheres["group"]})
    spheres["group"] = [kept.index(int(g)) for g in spheres["group"]]
    return replace(robot, spheres=spheres, bodies=tuple(robot.bodies[g] for g in kept),
                   self_pairs=np.zeros((0, 2), np.int64))


METHODS = (
    replace(METHOD, name="no-velocity", about="ours without the velocities of obstacles",
            make=NoVelocity),
    replace(METHOD, name="no-covariance", about="ours without the covariance terms",
            make=NoCovariance),
    replace(METHOD, name="tool-only", about="ours with hand and fingers only", make=ToolOnly),
    replace(METHOD, name="no-held", about="ours, the held object is an obstacle", make=NoHeld),
    replace(METHOD, name="head-mean", about="ours with the mean attention of all heads",
            all_heads=True),
    replace(METHOD, name="scene-only", about="ours without attention to the hand's camera",
            perception={"wrist_fov": 0.0}),
    replace(METHOD, name="no-hysteresis", about="ours, target chosen anew at every picture",
            perception={"hold_factor": 1.0, "switch_time": 0.0, "lost_time": 0.0}),
)
