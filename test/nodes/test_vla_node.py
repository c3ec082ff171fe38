"""vla_node as a process: commands when all is well; with bad input a clear state and silence."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from ros_rig import EVENT_SECONDS, PATIENT, START_SECONDS, Rig, SimulatedTime, running
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, String

from safety_filter import graph, images, launch_arguments
from safety_filter.cli import main
from safety_filter.demo.processes import ProcessGroup
from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST

pytestmark = pytest.mark.ros
INSTRUCTION = "put the red cube on the plate"
GRIPPER = "/bridge/opening"  # gripper:=
OTHER = "put the blue can in the bin"


class Camera:
    """Publishes both pictures at 15 Hz; `size`, `encoding` and `on` are bent by tests."""

    def __init__(self, rig: Rig) -> None:
        self.size, self.encoding, self.on = 256, "rgb8", True
        self.twists: list[tuple[float, float, np.ndarray]] = []  # receipt, stamp (s), values
        self.openings: list[float] = []  # m, for the gripper
        self.maps: list[Image] = []
        self.wrist_maps: list[Image] = []
        self.stamps: list[float] = []  # of the scene's pictures
        self.wrist_stamps: list[float] = []
        self.now = rig.now
        node = rig.node
        self._scene = node.create_publisher(Image, "sim_node/scene/image", NEWEST)
        self._wrist = node.create_publisher(Image, "sim_node/wrist/image", NEWEST)
        self._instruction = node.create_publisher(String, "sim_node/instruction", LATCHED)
        node.create_subscription(TwistStamped, "vla_node/twist", self._on_twist, COMMAND)
        node.create_subscription(
            Float64, GRIPPER, lambda m: self.openings.append(m.data), COMMAND
        )
        node.create_subscription(Image, "vla_node/attention", self.maps.append, NEWEST)
        node.create_subscription(
            Image, "vla_node/wrist_attention", self.wrist_maps.append, NEWEST
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_twist(self, msg: TwistStamped) -> None:
        twist = conversion.twist_vector(msg)
        assert np.isfinite(twist).all()
        self.twists.append((time.monotonic(), conversion.seconds(msg.header.stamp), twist))

    def _run(self) -> None:
        rng = np.random.default_rng(0)
        while not self._end.is_set():
            if self.on:
                pixels = rng.integers(0, 255, (self.size, self.size, 3), dtype=np.uint8)
                msg = conversion.image(pixels, "rgb8", self.now(), "scene_camera_optical")
                msg.encoding = self.encoding
                self.stamps.append(conversion.seconds(msg.header.stamp))
                wrist = conversion.image(pixels[:64, :64], "rgb8", self.now(), "wrist")
                self.wrist_stamps.append(conversion.seconds(wrist.header.stamp))
                self._wrist.publish(wrist)
                self._scene.publish(msg)
            time.sleep(1 / 15)

    def say(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def silent(self) -> bool:
        """Nothing is commanded any more, but for what was under way."""
        time.sleep(0.3)
        start = time.monotonic()
        time.sleep(0.7)
        return not [t for t, *_ in self.twists if t > start]

    def close(self) -> None:
        self._end.set()
        self._thread.join(timeout=2.0)


@pytest.fixture(scope="module")
def bench(
    untrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, Camera]]:
    (spec,) = launch_arguments.build("vla", {"gripper": GRIPPER})
    spec = spec.with_parameters(
        weights=str(untrained), present_min=0.0, **PATIENT["vla_node"]
    )
    with running(tmp_path_factory.mktemp("log"), spec):
        rig = Rig()
        rig.twist = None
        camera = Camera(rig)
        rig.wait_state("vla_node", "no instruction", START_SECONDS)
        yield rig, camera
        camera.close()
        rig.close()


@pytest.fixture
def cell(bench: tuple[Rig, Camera]) -> Iterator[tuple[Rig, Camera]]:
    """The bench at work, whatever the test before did."""
    rig, camera = bench
    camera.size, camera.encoding, camera.on, rig.joints_on = 256, "rgb8", True, True
    camera.say(INSTRUCTION)
    rig.wait_state("vla_node", "commanding")
    yield bench


def test_an_opening_for_the_gripper_comes_with_every_twist_of_a_task(cell: Any) -> None:
    """On the topic of `gripper:=`, as docs/quickstart.md tells those who bridge it."""
    rig, camera = cell
    camera.openings.clear()
    camera.twists.clear()
    rig.wait(lambda: len(camera.twists) > 20, EVENT_SECONDS, "a stream")
    assert len(camera.openings) > 10 and np.isfinite(camera.openings).all()
    camera.say("")
    rig.wait_state("vla_node", "no instruction")
    time.sleep(0.3)  # what was under way
    count = len(camera.openings)
    camera.twists.clear()
    rig.wait(lambda: len(camera.twists) > 20, EVENT_SECONDS, "zeros")
    assert len(camera.openings) == count, "who stands still opens nothing"


def test_an_instruction_is_said_from_the_command_line(
    cell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, _ = cell
    for words, state in (("", "no instruction"), (INSTRUCTION, "commanding")):
        assert main(["say", words, "--topic", "sim_node/instruction"]) == 0
        assert "heard by vla_node" in capsys.readouterr().out
        rig.wait_state("vla_node", state)


def test_commands_a_stamped_stream_and_maps_stamped_like_their_pictures(cell: Any) -> None:
    rig, camera = cell
    camera.twists.clear()
    camera.maps.clear()
    rig.wait(lambda: len(camera.twists) > 40 and len(camera.maps) > 5, EVENT_SECONDS, "a stream")
    # The median: a busy machine may lose some of a stream of 20 Hz
    assert 0.02 < np.median(np.diff([stamp for _, stamp, _ in camera.twists])) < 0.08
    assert images.float_map(camera.maps[-1]).shape == (16, 16)
    assert camera.maps[-1].header.frame_id.startswith("scene_camera_optical#")
    stamps = {conversion.seconds(m.header.stamp) for m in camera.maps}
    assert stamps <= set(camera.stamps)
    # With random weights the phase is whatever it is; maps of the wrist come on the approach
    assert bool(camera.wrist_maps) == (rig.values("vla_node")["phase"] == "approach")
    for msg in camera.wrist_maps:
        assert images.float_map(msg).shape == (8, 8)
        assert msg.header.frame_id.startswith("wrist#")
        assert conversion.seconds(msg.header.stamp) in set(camera.wrist_stamps)
    rig.wait(
        lambda: float(rig.values("vla_node")["rate_policy_hz"]) > 5.0, EVENT_SECONDS, "the rate"
    )
    assert rig.values("vla_node")["profile"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defenestrate the xylophone", "instruction 'defenestrate the xylophone'"),
        ("put the red cube", "instruction 'put the red cube'"),
    ],
)
def test_instruction_that_names_nothing_is_told_and_nothing_is_commanded(
    cell: Any, text: str, words: str
) -> None:
    rig, camera = cell
    camera.say(text)
    rig.wait_state("vla_node", words)
    assert camera.silent()


def test_without_an_instruction_it_asks_for_standing_still_while_its_inputs_are_well(
    cell: Any,
) -> None:
    rig, camera = cell
    camera.say("")
    rig.wait_state("vla_node", "no instruction")
    time.sleep(0.3)  # what was under way
    camera.twists.clear()
    rig.wait(lambda: len(camera.twists) > 20, EVENT_SECONDS, "a stream")
    assert all(not twist.any() for *_, twist in camera.twists)
    assert rig.now() - camera.twists[-1][1] < 2.0
    camera.encoding = "mono16"
    rig.wait_state("vla_node", "image encoding: expected rgb8 or bgr8")
    assert camera.silent()


def test_a_latched_stop_is_reset_and_the_doctor_content_before_the_arm_moves(
    cell: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, _ = cell

    def call(*words: str) -> tuple[int, str]:
        code = main(words)
        return code, capsys.readouterr().out

    spec = graph.NODES["filter_node"].with_parameters(monitored=False, **PATIENT["filter_node"])
    with ProcessGroup(os.environ, tmp_path) as processes:  # in the domain of the bench
        processes.start(spec)
        rig.wait(
            lambda: rig.message("filter_node") in ("PASS", "FILTERED"), START_SECONDS, "commands"
        )
        assert call("call", "filter_node", "stop")[0] == 0
        rig.wait_state("filter_node", "STOPPED operator")
        assert call("say", "", "--topic", "sim_node/instruction")[0] == 0
        rig.wait_state("vla_node", "no instruction")
        code, told = call("doctor", "--json")
        found = {f["code"]: f["level"] for f in json.loads(told)["findings"]}
        assert code == 0 and found["state.operator"] == "WARNING", told
        rig.wait(lambda: call("call", "filter_node", "reset")[0] == 0, EVENT_SECONDS, "the reset")
        rig.wait_state("filter_node", "PASS")
        code, told = call("doctor", "--json")
        assert code == 0 and "state.operator" not in told, told
        assert not rig.qd.any()
        assert call("say", INSTRUCTION, "--topic", "sim_node/instruction")[0] == 0
        rig.wait_moving()


def test_what_is_not_in_view_is_told_and_nothing_is_commanded(cell: Any) -> None:
    """The same for a scene without any object; untrained weights are never sure of anything."""
    rig, camera = cell
    assert rig.set_parameter("vla_node", "present_min", 1.0)[0]
    try:
        camera.say(OTHER)
        rig.wait_state("vla_node", f"instruction {OTHER!r}: nothing in view fits")
        assert camera.silent()
    finally:
        rig.set_parameter("vla_node", "present_min", 0.0)


def test_what_was_in_view_may_be_hidden_later(cell: Any) -> None:
    """The hand hides what it grasps: an instruction that fitted is not taken back for that."""
    rig, camera = cell
    camera.twists.clear()
    rig.wait(lambda: len(camera.twists) > 20, EVENT_SECONDS, "pictures that fit")
    assert rig.set_parameter("vla_node", "present_min", 1.0)[0]
    try:
        camera.twists.clear()
        rig.wait(lambda: len(camera.twists) > 20, EVENT_SECONDS, "a stream")
        camera.say(OTHER)
        rig.wait_state("vla_node", f"instruction {OTHER!r}: nothing in view fits")
    finally:
        rig.set_parameter("vla_node", "present_min", 0.0)


def test_camera_that_stops_is_told_and_the_chunk_runs_out(cell: Any) -> None:
    rig, camera = cell
    camera.on = False
    rig.wait_state("vla_node", "not commanding: chunk ran out")
    rig.wait_state("vla_node", "image: silent for")
    assert camera.silent()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoding", "mono16", "image encoding: expected rgb8 or bgr8, got 'mono16'"),
        ("encoding", "16UC1", "image encoding: expected rgb8 or bgr8, got '16UC1'"),
        ("size", 96, "scene picture: expected a square RGB picture"),
    ],
)
def test_image_of_another_size_or_encoding_is_told_and_nothing_is_commanded(
    cell: Any, field: str, value: Any, words: str
) -> None:
    rig, camera = cell
    setattr(camera, field, value)
    rig.wait_state("vla_node", words)
    assert camera.silent()


def test_joint_states_that_stop_are_told_and_nothing_is_commanded(cell: Any) -> None:
    rig, camera = cell
    rig.joints_on = False
    rig.wait_state("vla_node", "joint_states: silent for")
    assert camera.silent()


def test_a_clock_that_is_set_back_leaves_no_old_chunk_in_force(
    untrained: Path, tmp_path: Path
) -> None:
    spec = graph.NODES["vla_node"].with_parameters(
        weights=str(untrained), present_min=0.0, use_sim_time=True, **PATIENT["vla_node"]
    )
    with running(tmp_path, spec):
        rig = Rig()
        rig.twist = None
        clock = SimulatedTime(rig)
        camera = Camera(rig)
        camera.now = clock.now
        try:
            camera.say(INSTRUCTION)
            rig.wait_state("vla_node", "commanding", START_SECONDS)
            clock.leap(-60.0)

            def of_new_pictures() -> bool:
                """Twists of the last 20 differ, as those of pictures of noise do."""
                now = clock.now()
                last = [twist for _, stamp, twist in camera.twists[-20:] if stamp < now + 1.0]
                return len(last) == 20 and len(np.unique(last, axis=0)) > 10

            # Sooner by far than the clock is where it was
            rig.wait(of_new_pictures, EVENT_SECONDS, "twists of new pictures")
            rig.wait_state("vla_node", "commanding")
        finally:
            camera.close()
            clock.close()
            rig.close()


def _not_configured(tmp_path: Path, **parameters: Any) -> str:
    spec = graph.NODES["vla_node"].with_parameters(**parameters)
    with running(tmp_path / "log", spec) as processes:
        rig = Rig()
        try:
            rig.wait_state("vla_node", "not configured", START_SECONDS)
            time.sleep(0.3)
            assert not processes.dead()
            return rig.message("vla_node")
        finally:
            rig.close()


def test_missing_weights_are_a_state_not_a_crash(tmp_path: Path) -> None:
    assert "nowhere" in _not_configured(tmp_path, weights=str(tmp_path / "nowhere"))


def test_corrupt_weights_are_a_state_not_a_crash(tmp_path: Path, untrained: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in untrained.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    assert "cannot be read" in _not_configured(tmp_path, weights=str(broken))


def test_profile_of_other_weights_is_refused(tmp_path: Path, untrained: Path) -> None:
    profile = tmp_path / "profile.yaml"
    text = (untrained / "profile.yaml").read_text()
    profile.write_text(text.replace("weights: ", "weights: '0' #"))
    text = _not_configured(tmp_path, weights=str(untrained), profile=str(profile))
    assert "made for weights 0" in text
