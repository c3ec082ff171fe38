"""Which pixels show the robot: its own geometry drawn at image time, compared with the depth.

The same idea as a URDF filter for depth cameras: each link's collision geometry is rasterised at
the joint state of the image. A pixel is the robot if its depth lies between the nearest and the
farthest surface of the robot along the ray, give or take a tolerance; so an object in front of the
arm remains, and so does one behind it that shows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

from safety_filter.perception.meshes import link_triangles
from safety_filter.perception.raster import raster_interval

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RobotView:
    """The robot as the camera should see it: masks (H, W) and the pose (4, 4) of the tool."""

    mask: Mask  # pixels that show the robot
    near: F32  # nearest modelled depth, m, inf where there is none
    t_base_tool: F64


class RobotMask:
    """Draws a robot into a depth image.

    Args:
        urdf: path or XML text of the robot.
        arm_joints: names of the joints that `q` gives, in its order.
        finger_joints: joint -> its position for 1 m of the gripper's opening.
        tool_frame: the frame whose pose is returned.
        tolerance: m of depth within which a pixel counts as the robot.
        grow_px: dilation of the silhouette, for edges and small errors of calibration.
        spheres: link -> [(centre, radius)], for links whose meshes cannot be read.
        base_link: the link whose frame is `base`; empty: the URDF's root.
    """

    def __init__(self, urdf: str | Path, arm_joints: Sequence[str],
                 finger_joints: Mapping[str, float], tool_frame: str,
                 tolerance: float = 0.015, grow_px: int = 2,
                 spheres: Mapping[str, Sequence[tuple[Sequence[float], float]]] | None = None,
                 base_link: str = "") -> None:
        text = str(urdf)
        if text.lstrip().startswith("<"):
            self._model = pin.buildModelFromXML(text)
        else:
            self._model = pin.buildModelFromUrdf(text)
        self._data = self._model.createData()
        for name in (*arm_joints, *finger_joints):
            if not self._model.existJointName(name):
                known = ", ".join(list(self._model.names)[1:])
                raise ValueError(f"joint {name!r} is not in the robot description ({known})")
        for what, frame in (("tool frame", tool_frame), ("base link", base_link)):
            if frame and not self._model.existFrame(frame):
                raise ValueError(f"{what} {frame!r} is not in the robot description")
        index = {n: self._model.joints[self._model.getJointId(n)].idx_q
                 for n in (*arm_joints, *finger_joints)}
        self._arm = [index[n] for n in arm_joints]
        self._fingers = [index[n] for n in finger_joints]
        self._gains = np.array(list(finger_joints.values()), float)
        self._tool = self._model.getFrameId(tool_frame)
        self._to_base = pin.SE3.Identity()
        if base_link:
            pin.framesForwardKinematics(self._model, self._data, pin.neutral(self._model))
            self._to_base = self._data.oMf[self._model.getFrameId(base_link)].inverse()
        triangles = link_triangles(urdf, spheres).triangles
        self._links = [(self._model.getFrameId(name), t) for name, t in triangles.items()
                       if self._model.existFrame(name)]
        self.tolerance, self.grow_px = tolerance, grow_px

    def configuration(self, q: F64, opening: float) -> F64:
        """Return the configuration of the whole model for arm joints `q` and a gripper opening.

        Raises:
            ValueError: wrong size, or not finite.
        """
        q = np.asarray(q, float)
        if q.shape != (len(self._arm),) or not np.isfinite(q).all() or not np.isfinite(opening):
            raise ValueError(f"joints: expected {len(self._arm)} finite angles and an opening, "
                             f"got {q} and {opening}")
        full = pin.neutral(self._model)
        full[self._arm] = q
        full[self._fingers] = self._gains * opening
        return np.asarray(full)

    def tool_pose(self, q: F64, opening: float = 0.0) -> F64:
        """Return the pose (4, 4) of the tool frame in `base`."""
        pin.framesForwardKinematics(self._model, self._data, self.configuration(q, opening))
        return np.array((self._to_base * self._data.oMf[self._tool]).homogeneous)

    def view(self, depth: F32, q: F64, opening: float, k: F64, t_base_cam: F64) -> RobotView:
        """Return which pixels of `depth` (H, W), m, show the robot at joints `q` and `opening`."""
        pin.framesForwardKinematics(self._model, self._data, self.configuration(q, opening))
        r_cam, p_cam = t_base_cam[:3, :3], t_base_cam[:3, 3]
        near = np.full(depth.shape, np.inf, np.float32)
        far = np.zeros(depth.shape, np.float32)
        parts = []
        for frame, triangles in self._links:
            pose = self._to_base * self._data.oMf[frame]
            rotation = r_cam.T @ pose.rotation
            offset = r_cam.T @ (pose.translation - p_cam)
            parts.append((triangles.reshape(-1, 3) @ rotation.T + offset).reshape(-1, 3, 3))
        raster_interval(np.concatenate(parts), k[0, 0], k[1, 1], k[0, 2], k[1, 2], near, far)
        grown_near, grown_far = near, far
        if self.grow_px:
            kernel = np.ones((2 * self.grow_px + 1,) * 2, np.uint8)
            grown_near = np.asarray(cv2.erode(near, kernel), np.float32)
            grown_far = np.asarray(cv2.dilate(far, kernel), np.float32)
        mask = ((depth > grown_near - self.tolerance) & (depth < grown_far + self.tolerance)
                & (depth > 0))
        tool = self._to_base * self._data.oMf[self._tool]
        return RobotView(mask, near, np.array(tool.homogeneous))
