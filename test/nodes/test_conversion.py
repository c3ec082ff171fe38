"""Messages to arrays and back; what cannot be used says field, expected and got."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import Image, JointState, PointCloud2

from safety_filter import images
from safety_filter.core.wire import empty_tracks
from safety_filter.images import MessageError
from safety_filter.nodes import conversion


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_stamp_round_trip_keeps_microseconds() -> None:
    for time in (0.0, 1.5, 1_795_314_027.123456, 3.9999999999):
        assert conversion.seconds(conversion.stamp(time)) == pytest.approx(time, abs=1e-6)


def test_rgb_and_bgr_give_the_same_picture() -> None:
    pixels = _rng().integers(0, 255, (5, 7, 3), dtype=np.uint8)
    as_rgb = conversion.image(pixels, "rgb8", 1.0, "c")
    as_bgr = conversion.image(pixels[:, :, ::-1], "bgr8", 1.0, "c")
    np.testing.assert_array_equal(images.rgb(as_rgb), pixels)
    np.testing.assert_array_equal(images.rgb(as_bgr), pixels)


def test_padded_rows_are_cut() -> None:
    pixels = _rng().integers(0, 255, (2, 3, 3), dtype=np.uint8)
    msg = Image(height=2, width=3, encoding="rgb8", step=12)
    msg.data = b"".join(row.tobytes() + b"\0\0\0" for row in pixels)
    np.testing.assert_array_equal(images.rgb(msg), pixels)


def test_depth_in_metres_from_both_encodings_and_nan_means_nothing_measured() -> None:
    metres = np.array([[0.5, np.nan], [-1.0, 1.25]], np.float32)
    msg = conversion.image(metres, "32FC1", 0.0, "c")
    np.testing.assert_allclose(images.depth(msg), [[0.5, 0.0], [0.0, 1.25]])
    millimetres = np.array([[500, 0], [0, 1250]], "<u2")
    msg = conversion.image(millimetres, "16UC1", 0.0, "c")
    np.testing.assert_allclose(images.depth(msg), [[0.5, 0.0], [0.0, 1.25]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "yuv422"}, "encoding: expected rgb8 or bgr8, got 'yuv422'"),
        ({"height": 0}, "size: expected at least 1x1"),
        ({"step": 2}, "step: expected at least 21 bytes, got 2"),
        ({"height": 6}, "data: expected 126 bytes, got 105"),
    ],
)
def test_bad_images_name_the_field(change: dict, words: str) -> None:
    msg = conversion.image(np.zeros((5, 7, 3), np.uint8), "rgb8", 0.0, "c")
    for name, value in change.items():
        setattr(msg, name, value)
    with pytest.raises(MessageError, match=words):
        images.rgb(msg)


def test_map_with_nan_is_rejected() -> None:
    msg = conversion.image(np.full((2, 2), np.nan, np.float32), "32FC1", 0.0, "c")
    with pytest.raises(MessageError, match="finite"):
        images.float_map(msg)


def test_cloud_round_trip() -> None:
    tracks = empty_tracks(3)
    tracks["x"], tracks["id"], tracks["role"] = [0.1, 0.2, 0.3], [4, 5, 6], [0, 1, 3]
    msg = conversion.cloud(tracks, 2.0, "base")
    np.testing.assert_array_equal(conversion.tracks(msg), tracks)
    assert conversion.cloud(empty_tracks(), 2.0, "base").width == 0
    assert len(conversion.tracks(conversion.cloud(empty_tracks(), 2.0, "base"))) == 0


def test_another_cloud_layout_is_an_error_not_a_guess() -> None:
    msg = conversion.cloud(empty_tracks(1), 2.0, "base")
    msg.fields = list(msg.fields)[:-1]
    with pytest.raises(MessageError, match=r"obstacles fields: expected .*missing: role"):
        conversion.tracks(msg)
    with pytest.raises(MessageError, match="obstacles"):
        conversion.tracks(PointCloud2())


def test_joints_are_taken_by_name() -> None:
    msg = JointState(name=["b", "x", "a"], position=[2.0, 9.0, 1.0], velocity=[0.2, 0.9, 0.1])
    position, velocity = conversion.JointReader(["a", "b"]).read(msg)
    np.testing.assert_array_equal(position, [1.0, 2.0])
    np.testing.assert_array_equal(velocity, [0.1, 0.2])


@pytest.mark.parametrize(
    ("msg", "words"),
    [
        (JointState(name=["a"], position=[1.0]), "name: expected b"),
        (JointState(name=["a", "b"], position=[1.0]), "position: expected 2 values, got 1"),
        (
            JointState(name=["a", "b"], position=[1.0, 2.0], velocity=[0.0]),
            "velocity: expected 2 values, got 1",
        ),
    ],
)
def test_bad_joint_states_name_the_field(msg: JointState, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        conversion.JointReader(["a", "b"]).read(msg)


def test_joints_are_found_again_when_their_order_changes() -> None:
    reader = conversion.JointReader(["a", "b"])
    reader.read(JointState(name=["b", "a"], position=[2.0, 1.0]))
    position, velocity = reader.read(JointState(name=["a", "c", "b"], position=[3.0, 9.0, 4.0]))
    np.testing.assert_array_equal(position, [3.0, 4.0])
    assert velocity.shape == (0,)
    with pytest.raises(MessageError, match="name: expected b"):
        reader.read(JointState(name=["a"], position=[3.0]))


def test_pose_round_trip_for_random_rotations() -> None:
    rng = _rng()
    for _ in range(50):
        q, _r = np.linalg.qr(rng.normal(size=(3, 3)))
        transform = np.eye(4)
        transform[:3, :3] = q * np.sign(np.linalg.det(q))
        transform[:3, 3] = rng.normal(size=3)
        msg = conversion.pose(transform, 0.0, "base")
        np.testing.assert_allclose(images.pose_matrix(msg), transform, atol=1e-12)


def test_camera_info_round_trip_and_distortion_is_rejected() -> None:
    k = np.array([[300.0, 0, 127.5], [0, 300.0, 127.5], [0, 0, 1]])
    msg = conversion.camera_info(k, 256, 256, 0.0, "c")
    np.testing.assert_array_equal(images.intrinsics(msg), k)
    msg.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(MessageError, match="rectified"):
        images.intrinsics(msg)
    msg.k = [0.0] * 9
    with pytest.raises(MessageError, match="fx, fy > 0"):
        images.intrinsics(msg)


def test_twist_round_trip() -> None:
    msg = conversion.fill_twist(TwistStamped(), [1, 2, 3, 4, 5, 6], 7.5)
    np.testing.assert_array_equal(conversion.twist_vector(msg), [1, 2, 3, 4, 5, 6])
    assert conversion.seconds(msg.header.stamp) == 7.5
