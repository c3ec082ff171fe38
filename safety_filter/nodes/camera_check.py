"""The arm's model drawn into the depth image: how much of it is where the camera sees it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState

from safety_filter import images
from safety_filter.nodes import conversion
from safety_filter.nodes.base import ConfigureError
from safety_filter.nodes.extrinsics import ByStamp, Extrinsics, FixedExtrinsics, TfExtrinsics
from safety_filter.nodes.inputs import JointHistory
from safety_filter.nodes.robot import find_robot

Judgement = tuple[str, float | None, int]
_NOT_SEEN = "no {} came"


class CameraCheck:
    """Keeps what perception reads; `judge` compares the last depth image with the model."""

    def __init__(self) -> None:
        self._depths: deque[Image] = deque(maxlen=8)
        self._joints: deque[JointState] = deque(maxlen=2000)
        self._info: CameraInfo | None = None
        self._poses = ByStamp()

    def take(self, role: str, msg: Any) -> None:
        """Keep a message of one of the roles."""
        if role == "image" and msg.encoding in images.DEPTH_ENCODINGS:
            self._depths.append(msg)
        elif role == "joint states":
            self._joints.append(msg)
        elif role == "camera info":
            self._info = msg
        elif role == "camera pose":
            self._poses.add(msg)

    def judge(self, node: Node, parameters: dict[str, Any] | None) -> Judgement:
        """Why it could not be checked ('' if it was), the share of the arm's picture that has the
        predicted depth, and how many pixels the arm has.

        parameters: of perception_node, None where it is not there.
        """
        if not parameters:
            return "perception_node is not there", None, 0
        info = self._info
        if info is None:
            return _NOT_SEEN.format("camera info"), None, 0
        # An attention map is a 32FC1 image too, but not of the camera's size
        depths = [d for d in self._depths if (d.height, d.width) == (info.height, info.width)]
        if not depths:
            return _NOT_SEEN.format("depth image"), None, 0
        try:
            return self._overlap(node, parameters, depths, images.intrinsics(info))
        except (conversion.MessageError, ConfigureError, ImportError, ValueError) as error:
            return str(error), None, 0

    def _overlap(
        self, node: Node, p: dict[str, Any], depths: list[Image], k: np.ndarray
    ) -> Judgement:
        from safety_filter.perception.robot_mask import RobotMask

        robot = find_robot(str(p["robot"]), str(p["urdf"]))
        arm, fingers = robot.arm_joints, robot.finger_joints
        mask = RobotMask(
            robot.urdf, arm, fingers, robot.tool_link,
            spheres=robot.spheres, base_link=robot.base_link,
        )  # fmt: skip
        history = JointHistory(arm, fingers, len(self._joints) or 1)
        for msg in self._joints:
            history.add(msg)
        where = self._extrinsics(node, p)
        best: Judgement = "no joint states or camera pose at the time of a depth image", None, 0
        for image in depths:
            joints = history.at(conversion.seconds(image.header.stamp), 0.1)
            pose = where.at(image) if where is not None else self._pose(image, p)
            if joints is None or pose is None:
                continue
            view = mask.view(images.depth(image), *joints, k, pose)
            drawn = np.isfinite(view.near)
            pixels = int(drawn.sum())
            best = "", float((view.mask & drawn).sum() / max(pixels, 1)), pixels
        return best

    def _extrinsics(self, node: Node, p: dict[str, Any]) -> Extrinsics | None:
        """Where the pose comes from; None for the topic, which `take` has collected."""
        if p["extrinsics"] == "parameter":
            return FixedExtrinsics(p["camera_xyz"], p["camera_xyzw"])
        return TfExtrinsics(node, str(p["frame"])) if p["extrinsics"] == "tf" else None

    def _pose(self, image: Image, p: dict[str, Any]) -> np.ndarray | None:
        msg = self._poses.near(image, float(p["sync"]))
        return None if msg is None else images.pose_matrix(msg)
