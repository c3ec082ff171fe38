"""The doctor's look at the camera: the simulator's pictures against the arm's model."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros_rig import ARM_JOINTS, EVENT_SECONDS, FINGER_JOINTS
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from safety_filter.core.robot import read_config, urdf_path
from safety_filter.doctor.checks import OVERLAP_FINE, OVERLAP_POOR
from safety_filter.nodes import conversion
from safety_filter.nodes.camera_check import CameraCheck
from safety_filter.nodes.qos import LATCHED
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World

pytestmark = pytest.mark.ros
NOW, CAMERA = 100.0, "scene_camera_optical"
TOPIC = {
    "extrinsics": "topic", "camera_xyz": [], "camera_xyzw": [], "robot": "panda", "urdf": "",
    "description": False, "frame": "base", "sync": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Iterator[Any]:
    """A picture, and the arm as it stood."""
    with World(generate(3, "free")) as world:
        yield SimpleNamespace(frame=world.render("scene"), joints=world.joint_state())


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=103, signal_handler_options=SignalHandlerOptions.NO)
    made = Node("doctor", context=context)
    yield made
    made.destroy_node()
    rclpy.try_shutdown(context=context)


def _show(check: CameraCheck, seen: Any, pose: np.ndarray | None = None) -> None:
    """What a live graph tells in the instant of one picture."""
    frame, (q, dq, opening) = seen.frame, seen.joints
    height, width = frame.depth.shape
    check.take("image", conversion.image(frame.depth, "32FC1", NOW, CAMERA))
    check.take("camera info", conversion.camera_info(frame.K, width, height, NOW, CAMERA))
    if pose is not None:
        check.take("camera pose", conversion.pose(pose, NOW, "base"))
    for at in (NOW - 0.05, NOW + 0.05):
        msg = JointState(name=[*ARM_JOINTS, *FINGER_JOINTS])
        msg.header.stamp = conversion.stamp(at)
        msg.position = array("d", [*q, opening / 2, opening / 2])
        msg.velocity = array("d", [*dq, 0.0, 0.0])
        check.take("joint states", msg)


def _moved(pose: np.ndarray, y: float) -> np.ndarray:
    """The pose `y` m further along the base's y axis."""
    result = pose.copy()
    result[1, 3] += y
    return result


@pytest.mark.parametrize("way", ["topic", "parameter", "tf"])
def test_a_calibrated_camera_is_told_from_one_that_was_pushed(
    seen: Any, node: Node, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    overlaps = []
    for offset in (0.0, 0.04, 0.15):
        pose = _moved(seen.frame.T_base_cam, offset)
        msg = conversion.pose(pose, NOW, "base").pose
        xyz, o = msg.position, msg.orientation
        given = {**TOPIC, "extrinsics": way, "camera_xyz": [xyz.x, xyz.y, xyz.z],
                 "camera_xyzw": [o.x, o.y, o.z, o.w]}  # fmt: skip
        if way == "tf":
            monkeypatch.setitem(sys.modules, "tf2_ros", _tf2(msg))
        check = CameraCheck()
        check.listen(node, given)
        _show(check, seen, pose if way == "topic" else None)
        why, overlap, pixels = check.judge()
        assert why == "" and overlap is not None and pixels > 1000
        overlaps.append(overlap)
    assert overlaps[0] > OVERLAP_FINE
    assert overlaps[0] > overlaps[1] > overlaps[2]
    assert overlaps[2] < OVERLAP_POOR


def _tf2(pose: Any) -> ModuleType:
    """As much of tf2_ros as is asked for: one transform, there as soon as somebody listens."""
    module: Any = ModuleType("tf2_ros")

    class Buffer:
        heard = False

        def lookup_transform(self, target: str, source: str, stamp: Any) -> TransformStamped:
            assert (target, source) == ("base", CAMERA) and stamp.nanoseconds == int(NOW * 1e9)
            if not self.heard:
                raise module.TransformException("nothing heard")
            found = TransformStamped()
            p, t = pose.position, found.transform.translation
            t.x, t.y, t.z = p.x, p.y, p.z
            found.transform.rotation = pose.orientation
            return found

    def listener(buffer: Buffer, _: Node) -> None:
        buffer.heard = True

    module.Buffer, module.TransformListener = Buffer, listener
    module.TransformException = type("TransformException", (Exception,), {})
    return module


def test_the_urdf_is_read_where_perception_reads_it(seen: Any, node: Node) -> None:
    check = CameraCheck()
    check.listen(node, {**TOPIC, "description": True}, "arm_description")
    _show(check, seen, seen.frame.T_base_cam)
    assert check.judge() == ("no robot_description came", None, 0)
    text = urdf_path(read_config("panda")).read_text()
    publisher = node.create_publisher(String, "arm_description", LATCHED)
    publisher.publish(String(data=text))
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    for _ in range(int(EVENT_SECONDS / 0.1)):
        executor.spin_once(timeout_sec=0.1)
        why, overlap, _pixels = check.judge()
        if overlap is not None:
            break
    assert why == "" and overlap is not None and overlap > OVERLAP_FINE


def test_what_is_missing_is_named(seen: Any, node: Node) -> None:
    check = CameraCheck()
    assert check.judge()[0] == "perception_node is not there"
    check.listen(node, TOPIC)
    assert check.judge()[0] == "no camera info came"
    _show(check, seen)
    assert "camera pose" in check.judge()[0]
    check = CameraCheck()
    check.listen(node, {**TOPIC, "extrinsics": "tf"})
    if "tf2_ros" not in sys.modules:
        assert "tf2_ros is missing" in check.judge()[0]
