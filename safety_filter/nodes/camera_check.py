"""The arm's model drawn into the depth image: how much of it is where the camera sees it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String

from safety_filter import images
from safety_filter.eyes import Extrinsics, FixedExtrinsics
from safety_filter.nodes import conversion
from safety_filter.nodes.base import ConfigureError
from safety_filter.nodes.extrinsics import ByStamp, TfExtrinsics
from safety_filter.nodes.inputs import JointHistory
from safety_filter.nodes.qos import LATCHED
from safety_filter.nodes.robot import find_robot

Judgement = tuple[str, float | None, int]
_NOT_SEEN = "no {} came"


class CameraCheck:
    """Keeps what perception reads; `judge` compares the last depth images with the model."""

    def __init__(self) -> None:
        self._depths: deque[Image] = deque(maxlen=8)
        self._joints: deque[JointState] = deque(maxlen=2000)
        self._info: CameraInfo | None = None
        self._poses = ByStamp()
        self._where: Extrinsics | None = None  # None: from the topic, which `take` collects
        self._parameters: dict[str, Any] = {}
        self._urdf = ""
        self._fault = "perception_node is not there"

    def listen(
        self, node: Node, parameters: dict[str, Any], description: str = "robot_description"
    ) -> None:
        """Subscribe to what has no role: transforms, the URDF on the topic `description`.

        To be called before the doctor listens: both must have come when pictures are judged.
        parameters: of perception_node.
        """
        self._parameters, self._fault = parameters, ""
        if parameters["description"]:
            node.create_subscription(String, description, self._on_description, LATCHED)
        if parameters["extrinsics"] == "parameter":
            xyz, xyzw = parameters["camera_xyz"], parameters["camera_xyzw"]
            self._where = FixedExtrinsics(xyz, xyzw)
        elif parameters["extrinsics"] == "tf":
            try:
                self._where = TfExtrinsics(node, str(parameters["frame"]))
            except ConfigureError as error:
                self._fault = str(error)

    def _on_description(self, msg: String) -> None:
        self._urdf = msg.data

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

    def judge(self) -> Judgement:
        """Why it could not be checked ('' if it was), the share of the arm's picture that has the
        predicted depth, and how many pixels the arm has."""
        if self._fault:
            return self._fault, None, 0
        info = self._info
        if info is None:
            return _NOT_SEEN.format("camera info"), None, 0
        # An attention map is a 32FC1 image too, but not of the camera's size
        depths = [d for d in self._depths if (d.height, d.width) == (info.height, info.width)]
        if not depths:
            return _NOT_SEEN.format("depth image"), None, 0
        if self._parameters["description"] and not self._urdf.strip():
            return _NOT_SEEN.format("robot_description"), None, 0
        try:
            return self._overlap(self._parameters, depths, images.intrinsics(info))
        except (conversion.MessageError, ConfigureError, ImportError, ValueError) as error:
            return str(error), None, 0

    def _overlap(self, p: dict[str, Any], depths: list[Image], k: np.ndarray) -> Judgement:
        robot = find_robot(str(p["robot"]), self._urdf or str(p["urdf"]))
        mask = robot.mask()
        history = JointHistory(robot.arm_joints, robot.gripper, len(self._joints) or 1)
        for msg in self._joints:
            history.add(msg)
        best: Judgement = "no joint states or camera pose at the time of a depth image", None, 0
        for image in depths:
            joints = history.at(conversion.seconds(image.header.stamp), 0.1)
            pose = self._pose(image, p)
            if joints is None or pose is None:
                continue
            view = mask.view(images.depth(image), *joints, k, pose)
            drawn = np.isfinite(view.near)
            pixels = int(drawn.sum())
            best = "", float((view.mask & drawn).sum() / max(pixels, 1)), pixels
        return best

    def _pose(self, image: Image, p: dict[str, Any]) -> np.ndarray | None:
        if self._where is not None:
            return np.asarray(self._where.at(image))
        msg = self._poses.near(image, float(p["sync"]))
        return None if msg is None else images.pose_matrix(msg)
