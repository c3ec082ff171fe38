"""perception_node as a process: clouds when all is well; bad input gives a state and silence."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from ros_rig import EVENT_SECONDS, START_SECONDS, Rig, running
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String

from safety_filter import graph
from safety_filter.core.wire import Role
from safety_filter.nodes import conversion
from safety_filter.nodes.operator import Operator
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST
from safety_filter.sim.render import Frame
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World

pytestmark = pytest.mark.ros
NODE = "perception_node"


class DepthCamera:
    """Publishes a rendered frame at 10 Hz; the attributes are bent by tests."""

    def __init__(self, rig: Rig, frame: Frame) -> None:
        self._whole, self._rig = frame, rig
        self.clouds: list[tuple[float, PointCloud2]] = []
        self.stamps: list[float] = []  # of the pictures
        node = rig.node
        prefix = "sim_node/scene"
        self._image = node.create_publisher(Image, f"{prefix}/image", NEWEST)
        self._depth = node.create_publisher(Image, f"{prefix}/depth", NEWEST)
        self._info = node.create_publisher(CameraInfo, f"{prefix}/camera_info", NEWEST)
        self._pose = node.create_publisher(PoseStamped, f"{prefix}/camera_pose", NEWEST)
        self._attention = node.create_publisher(Image, "vla_node/attention", NEWEST)
        self._wrist = node.create_publisher(Image, "vla_node/wrist_attention", NEWEST)
        self._words = node.create_publisher(String, "sim_node/instruction", LATCHED)
        node.create_subscription(
            PointCloud2,
            f"{NODE}/obstacles",
            lambda m: self.clouds.append((time.monotonic(), m)),
            COMMAND,
        )
        self.defaults()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def defaults(self) -> None:
        self.frame = self._whole
        self.on = self.with_pose = self.with_depth = True
        self.encoding, self.crop, self.millimetres = "rgb8", 0, False
        self.depth_encoding, self.depth_crop, self.depth_dead = "32FC1", 0, False
        self.attention: np.ndarray | None = None
        self.wrist_attention: np.ndarray | None = None
        self.say("")

    def say(self, instruction: str) -> None:
        self._words.publish(String(data=instruction))

    def point_at(self, position: np.ndarray) -> None:
        """Attention on what is at `position` (base, m)."""
        f = self.frame
        x, y, z = np.linalg.inv(f.T_base_cam)[:3] @ [*position, 1.0]
        u, v = (f.K @ [x / z, y / z, 1.0])[:2]
        self.attention = np.ones((16, 16), np.float32)
        height, width = f.depth.shape
        self.attention[int(16 * v / height), int(16 * u / width)] = 30.0

    def _run(self) -> None:
        while not self._end.is_set():
            if self.on:
                self._publish()
            time.sleep(0.1)

    def _publish(self) -> None:
        now, name, f = self._rig.now(), "scene_camera_optical", self.frame
        self.stamps.append(conversion.seconds(conversion.stamp(now)))
        height, width = f.depth.shape
        self._info.publish(conversion.camera_info(f.K, width, height, now, name))
        if self.with_pose:
            self._pose.publish(conversion.pose(f.T_base_cam, now, "base"))
        if self.with_depth:
            depth = np.zeros_like(f.depth) if self.depth_dead else f.depth
            msg = conversion.image(depth[self.depth_crop :], "32FC1", now, name)
            msg.encoding = self.depth_encoding
            if self.millimetres:
                values = np.round(f.depth * 1000).astype("<u2")
                msg = conversion.image(values, "16UC1", now, name)
            self._depth.publish(msg)
        if self.attention is not None:
            self._attention.publish(conversion.image(self.attention, "32FC1", now, f"{name}#p"))
        if self.wrist_attention is not None:
            self._wrist.publish(conversion.image(self.wrist_attention, "32FC1", now, "wrist#p"))
        image = conversion.image(f.rgb[self.crop :], "rgb8", now, name)
        image.encoding = self.encoding
        self._image.publish(image)

    def tracks(self) -> np.ndarray:
        """The tracks of the next cloud."""
        count = len(self.clouds)
        self._rig.wait(lambda: len(self.clouds) > count, EVENT_SECONDS, "a cloud")
        return conversion.tracks(self.clouds[-1][1])

    def newest(self) -> float:
        """Stamp of the newest cloud, s."""
        return conversion.seconds(self.clouds[-1][1].header.stamp)

    def silent(self) -> bool:
        """No more clouds, but for the one that was under way."""
        time.sleep(0.7)
        start = time.monotonic()
        time.sleep(0.7)
        return not [t for t, _ in self.clouds if t > start]

    def close(self) -> None:
        self._end.set()
        self._thread.join(timeout=2.0)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(3, "free")) as made:
        yield made


@pytest.fixture(scope="module")
def bench(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, DepthCamera]]:
    with running(tmp_path_factory.mktemp("log"), graph.NODES[NODE]):
        rig = Rig()
        rig.tracks = rig.twist = None
        rig.q = world.joint_state()[0]
        camera = DepthCamera(rig, world.render("scene"))
        rig.wait_state(NODE, "no target", START_SECONDS)
        yield rig, camera
        camera.close()
        rig.close()


@pytest.fixture
def cell(bench: tuple[Rig, DepthCamera]) -> Iterator[tuple[Rig, DepthCamera]]:
    """The bench at work, whatever the test before did."""
    rig, camera = bench
    camera.defaults()
    rig.joints_on = True
    rig.wait_state(NODE, "no target")
    yield bench


def test_tracks_lie_where_the_objects_are_and_carry_the_image_stamp(
    cell: Any, world: World
) -> None:
    rig, camera = cell
    things = [s for s in world.truth() if s.role in ("object", "target")]

    def found() -> bool:
        tracks = camera.tracks()
        assert (tracks["role"] != Role.TARGET).all()  # nobody pointed at anything
        near = 0
        for thing in things:
            offsets = [
                np.linalg.norm([t["x"], t["y"], t["z"]] - thing.position) for t in tracks
            ]
            near += min(offsets, default=1.0) < 0.03
        return near >= len(things) - 1

    rig.wait(found, EVENT_SECONDS, "tracks at the objects")
    cloud = camera.clouds[-1][1]
    assert cloud.header.frame_id == "base"
    assert conversion.seconds(cloud.header.stamp) in camera.stamps


def test_depth_in_millimetres_gives_the_same_tracks(cell: Any) -> None:
    rig, camera = cell
    metres = camera.tracks()
    camera.millimetres = True
    last = camera.stamps[-1]
    rig.wait(lambda: camera.newest() > last + 0.5, EVENT_SECONDS, "clouds of the new depth")
    assert abs(len(camera.tracks()) - len(metres)) <= 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoding", "yuv422", "image encoding: expected rgb8 or bgr8, got 'yuv422'"),
        ("depth_encoding", "mono16", "image encoding: expected 32FC1 or 16UC1, got 'mono16'"),
        ("depth_crop", 32, "depth size: expected 256x256 as the colour image, got 256x224"),
        ("crop", 32, "depth size: expected 256x224 as the colour image, got 256x256"),
        ("both_crop", 32, "image size: expected 256x256 as in camera_info, got 256x224"),
        ("depth_dead", True, "depth data: expected at least 10% of pixels between 0.1 and 3 m"),
        ("with_pose", False, "camera_pose: none at the time of the image"),
        ("with_depth", False, "depth: silent for"),
        ("on", False, "image: silent for"),
    ],
)
def test_what_the_camera_does_wrong_is_told_and_there_is_no_cloud(
    cell: Any, field: str, value: Any, words: str
) -> None:
    rig, camera = cell
    if field == "both_crop":
        camera.crop = camera.depth_crop = value
    else:
        setattr(camera, field, value)
    rig.wait_state(NODE, words)
    assert camera.silent()


def test_joint_states_that_stop_are_told_and_there_is_no_cloud(cell: Any) -> None:
    rig, camera = cell
    rig.joints_on = False
    rig.wait_state(NODE, "joint_states: ")
    assert camera.silent()


def test_a_scene_without_any_object_is_an_empty_cloud_not_silence(
    cell: Any, world: World
) -> None:
    rig, camera = cell
    full = camera.frame
    # Only the table: the plane z = 0 seen by the same camera
    k, pose = full.K, full.T_base_cam
    height, width = full.depth.shape
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1)
    down = rays @ pose[2, :3]
    depth = np.where(down < -1e-3, -pose[2, 3] / down, 0.0).astype(np.float32)
    rgb = np.full_like(full.rgb, 150)
    camera.frame = replace(full, rgb=rgb, depth=np.where(depth > 2.9, 0, depth))
    rig.call(f"{NODE}/reset")
    rig.wait(lambda: len(camera.tracks()) == 0, EVENT_SECONDS, "an empty cloud")
    for _ in range(5):  # and it goes on looking
        assert len(camera.tracks()) == 0


def test_attention_that_is_not_finite_counts_as_none_and_is_told(cell: Any) -> None:
    rig, camera = cell
    camera.attention = np.full((16, 16), np.nan, np.float32)
    rig.wait(
        lambda: "finite" in rig.values(NODE).get("attention_fault", ""),
        EVENT_SECONDS,
        "the fault told",
    )
    assert (camera.tracks()["role"] != Role.TARGET).all()


def test_an_unreadable_map_of_the_wrist_is_told_by_its_name(cell: Any) -> None:
    rig, camera = cell
    camera.say("pick up the cube")
    camera.wrist_attention = np.zeros((8, 8), np.float32)
    rig.wait(
        lambda: rig.values(NODE).get("attention_fault") == "wrist attention: the map is empty",
        EVENT_SECONDS,
        "the fault told",
    )


def test_the_overlay_is_drawn_only_while_somebody_watches(cell: Any) -> None:
    rig, camera = cell
    camera.tracks()

    def drawn() -> float:
        return float(rig.values(NODE)["rate_overlay_hz"])

    assert drawn() == 0.0
    seen: list[Image] = []
    watching = rig.node.create_subscription(Image, f"{NODE}/overlay", seen.append, NEWEST)
    rig.wait(lambda: len(seen) > 2, EVENT_SECONDS, "overlays")
    assert (seen[0].height, seen[0].width) == camera.frame.depth.shape
    assert any(abs(conversion.seconds(seen[0].header.stamp) - t) < 1e-6 for t in camera.stamps)
    rig.wait(lambda: drawn() > 0.0, EVENT_SECONDS, "the rate told")
    before = drawn()
    rig.unsubscribe(watching)
    rig.wait(lambda: drawn() < 0.3 * before, EVENT_SECONDS, "the end of it")


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_missing_or_corrupt_weights_are_a_state_not_a_crash(
    tmp_path: Path, content: bytes | None
) -> None:
    weights = tmp_path / "detector.onnx"
    if content is not None:
        weights.write_bytes(content)
    spec = graph.NODES[NODE].with_parameters(weights=str(weights))
    with running(tmp_path / "log", spec) as processes:
        rig = Rig()
        rig.wait_state(NODE, "not configured", START_SECONDS)
        assert "detector.onnx" in rig.message(NODE)
        assert not processes.dead()
        rig.close()


@pytest.mark.skipif(importlib.util.find_spec("tf2_ros") is not None, reason="tf2 is installed")
def test_tf_without_tf2_is_told(tmp_path: Path) -> None:
    spec = graph.NODES[NODE].with_parameters(extrinsics="tf")
    with running(tmp_path / "log", spec):
        rig = Rig()
        rig.wait_state(NODE, "not configured: extrinsics", START_SECONDS)
        rig.close()


def test_a_target_must_be_what_the_instruction_names(cell: Any, world: World) -> None:
    rig, camera = cell
    spec = world.scene.specs[world.scene.target]
    camera.say(f"pick up the {spec.name}")
    camera.point_at(world.object_position(spec.name))
    rig.wait(
        lambda: bool((camera.tracks()["role"] == Role.TARGET).any()), EVENT_SECONDS, "a target"
    )
    other = "ball" if spec.shape.name != "ball" else "cube"
    camera.say(f"pick up the {other}")
    rig.wait(
        lambda: "not what the instruction means" in rig.message(NODE), EVENT_SECONDS, "the veto"
    )
    assert not (camera.tracks()["role"] == Role.TARGET).any()
    for name in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        assert rig.change(NODE, getattr(Transition, f"TRANSITION_{name}"))
    camera.tracks()
    rig.wait(
        lambda: "not what the instruction means" in rig.message(NODE), EVENT_SECONDS, "the veto"
    )


def test_one_that_is_started_again_has_no_target_until_the_words_are_said_again(
    tmp_path: Path, world: World
) -> None:
    """`safety-filter say` leaves when it was heard; attention goes on meanwhile."""
    spec = graph.NODES[NODE].with_remappings({"instruction": "instruction"})
    thing = world.scene.specs[world.scene.target]
    with running(tmp_path / "log", spec) as processes, Operator(patience=START_SECONDS) as person:
        rig = Rig()
        rig.tracks = rig.twist = None
        rig.q = world.joint_state()[0]
        camera = DepthCamera(rig, world.render("scene"))
        camera.point_at(world.object_position(thing.name))

        def has_target() -> bool:
            return bool((camera.tracks()["role"] == Role.TARGET).any())

        try:
            rig.wait_state(NODE, "no target: no instruction came", START_SECONDS)
            assert person.say(f"pick up the {thing.name}") == [NODE]
            rig.wait(has_target, EVENT_SECONDS, "a target")
            processes.processes[NODE].kill()
            processes.processes[NODE].wait()
            rig.states.clear()
            processes.start(spec)
            rig.wait_state(NODE, "no target: no instruction came", START_SECONDS)
            assert not any(has_target() for _ in range(20))
            assert "say it (again)" in rig.message(NODE)
            person.say(f"pick up the {thing.name}")
            rig.wait(has_target, EVENT_SECONDS, "a target")
            assert rig.set_parameter(NODE, "named_share", 0.0)[0]
            person.say("")
            rig.wait(has_target, EVENT_SECONDS, "a target without words")
        finally:
            camera.close()
            rig.close()
