"""Recordings drawn with Rerun: every kind of message ends up as an entity, nothing else breaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from safety_filter import cli, images
from safety_filter.bags import messages as ms
from safety_filter.bags.reader import Bag
from safety_filter.bags.writer import BagWriter

RERUN = Path(sys.executable).parent / "rerun"


def _image(make: ModuleType, pixels: np.ndarray, encoding: str) -> bytes:
    step = pixels[0].nbytes
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    height, width = pixels.shape[:2]
    header = make.header(make.EPOCH, "camera")
    return ms.encode(
        make.types()[ms.IMAGE](header, height, width, encoding, 0, step, data), ms.IMAGE
    )


def _camera_info(make: ModuleType) -> bytes:
    t = make.types()
    k = np.array([300.0, 0, 32, 0, 300, 24, 0, 0, 1])
    p = np.array([300.0, 0, 32, 0, 0, 300, 24, 0, 0, 0, 1, 0])
    roi = t["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    header = make.header(make.EPOCH, "camera")
    message = t[ms.CAMERA_INFO](
        header, 48, 64, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, roi
    )
    return ms.encode(message, ms.CAMERA_INFO)


def _pose(make: ModuleType) -> bytes:
    t = make.types()
    point = t["geometry_msgs/msg/Point"](1.0, 0.0, 0.8)
    turn = t["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    inner = t["geometry_msgs/msg/Pose"](point, turn)
    return ms.encode(t[ms.POSE](make.header(make.EPOCH), inner), ms.POSE)


def _status(make: ModuleType, words: str) -> bytes:
    t = make.types()
    values = {
        "nearest_on_robot": "0.4 0.0 0.4",
        "nearest_on_obstacle": "0.4 0.1 0.4",
        "nearest_distance_m": "0.1",
    }
    pairs = [t["diagnostic_msgs/msg/KeyValue"](k, v) for k, v in values.items()]
    return ms.encode(t[ms.STATUS](2, words, "filter_node", "safety_filter", pairs), ms.STATUS)


@pytest.fixture
def pictures(tmp_path: Path, make: ModuleType) -> Path:
    """A bag with one of everything that has to do with pictures."""
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    rows: list[tuple[str, str, bytes]] = [
        ("/sim_node/scene/image", ms.IMAGE, _image(make, rgb, "rgb8")),
        ("/sim_node/wrist/image", ms.IMAGE, _image(make, rgb, "bgr8")),
        ("/perception_node/overlay", ms.IMAGE, _image(make, rgb, "rgb8")),
        ("/sim_node/scene/depth", ms.IMAGE,
         _image(make, np.full((48, 64), 0.7, np.float32), "32FC1")),
        ("/vla_node/attention", ms.IMAGE,
         _image(make, np.eye(8, dtype=np.float32), "32FC1")),
        ("/sim_node/scene/camera_info", ms.CAMERA_INFO, _camera_info(make)),
        ("/sim_node/scene/camera_pose", ms.POSE, _pose(make)),
        ("/vla_node/wrist_attention", ms.IMAGE,
         _image(make, np.eye(4, dtype=np.float32), "32FC1")),
        ("/filter_node/state", ms.STATUS, _status(make, "STOPPED command: none")),
        ("/sim_node/instruction", ms.STRING, make.string("put the red cube on the plate")),
        ("/broken/image", ms.IMAGE, b"\0\1\0\0 no picture"),
    ]  # fmt: skip
    with BagWriter(tmp_path / "pictures") as bag:
        for i, (name, kind, data) in enumerate(rows):
            bag.add_topic(name, kind)
            bag.write(name, data, round(make.EPOCH * 1e9) + i)
    return tmp_path / "pictures"


def _entities(file: Path) -> str:
    for action in ("verify", "print"):
        done = subprocess.run(
            [str(RERUN), "rrd", action, str(file)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_drawn_with_tracks_bodies_and_plots(drive: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.rrd"
    assert cli.main(["view", str(drive), "--save", str(file)]) == 0
    text = _entities(file)
    for entity in ("/world/tracks", "/world/velocities", "/world/bodies", "/plots/distance",
                   "/plots/velocity/asked", "/plots/velocity/sent", "/plots/state"):  # fmt: skip
        assert f"- {entity} -" in text
    # Without perception there is no distance; a column without rows makes the viewer panic
    bag = Bag.open(drive)
    tables = [ms.tick_table(ms.decode(data, ms.CLOUD))
              for _, _, data in bag.messages({"/filter_node/ticks"})]  # fmt: skip
    assert any(not np.isfinite(table["distance"]).any() for table in tables)
    assert "with 0 rows" not in text


def test_pictures_masks_attention_camera_states_and_words_are_drawn(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pictures.rrd"
    assert cli.main(["view", str(pictures), "--save", str(file)]) == 0
    text = _entities(file)
    for entity in ("/pictures/scene", "/pictures/scene/attention", "/pictures/overlay",
                   "/pictures/wrist", "/pictures/wrist/attention", "/pictures/depth",
                   "/world/camera", "/world/nearest", "/world/camera/picture",
                   "/log/filter_node", "/log/instruction"):  # fmt: skip
        assert f"- {entity} -" in text
    assert "/broken/image: 1 messages could not be drawn" in capsys.readouterr().err


def test_the_viewers_arrangement_shows_only_what_is_drawn(
    drive: Path, pictures: Path, tmp_path: Path
) -> None:
    from safety_filter.bags.view import blueprint

    def origins(part: Any) -> set[str]:
        own = {part.origin} if getattr(part, "origin", None) else set()
        return own.union(*(origins(p) for p in getattr(part, "contents", []) or []))

    text = ""
    for i, bag in enumerate((drive, pictures)):
        assert cli.main(["view", str(bag), "--save", str(tmp_path / f"{i}.rrd")]) == 0
        text += _entities(tmp_path / f"{i}.rrd")
    shown = origins(blueprint().root_container)
    assert len(shown) == 9
    assert not [o for o in shown if f"- /{o} -" not in text and f"- /{o}/" not in text]


def test_a_bag_with_nothing_to_draw_and_no_choice_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BagWriter(tmp_path / "b") as bag:
        bag.add_topic("/x", ms.ARRAY)
        bag.write("/x", b"\0\1\0\0", 1)
    save = ["--save", str(tmp_path / "x.rrd")]
    assert cli.main(["view", str(tmp_path / "b"), *save]) == 1
    assert "nothing to draw" in capsys.readouterr().err
    assert cli.main(["view", *save]) == 1
    assert "either a bag or --live" in capsys.readouterr().err


def test_without_rerun_the_line_to_type_is_told(
    drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "safety_filter.bags.view", raising=False)
    monkeypatch.delattr("safety_filter.bags.view", raising=False)
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert cli.main(["view", str(drive)]) == 1
    assert "pip install" in capsys.readouterr().err


BENT: dict[str, dict[str, Any]] = {
    "encoding": {"encoding": "yuv422"},
    "step": {"step": 3},
    "data": {"data": np.zeros(5, np.uint8)},
    "size": {"height": 0, "data": np.zeros(0, np.uint8)},
}


@pytest.mark.parametrize("fault", BENT)
def test_pictures_that_do_not_fit_are_refused(make: ModuleType, fault: str) -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    message = ms.decode(_image(make, pixels, "rgb8"), ms.IMAGE)
    assert images.rgb(message).shape == (4, 5, 3)
    for name, value in BENT[fault].items():
        setattr(message, name, value)
    with pytest.raises(ms.MessageError, match="expected"):
        images.rgb(message)


def test_pictures_of_a_bag_are_read_as_those_of_a_live_topic(make: ModuleType) -> None:
    from safety_filter.nodes import conversion

    rng = np.random.default_rng(1)
    colour = rng.integers(0, 255, (4, 5, 3), np.uint8)
    millimetres = rng.integers(0, 3000, (4, 5)).astype(np.uint16)
    metres = np.array([[0.5, np.nan], [-1.0, np.inf]], np.float32)
    for pixels, encoding, read in (
        (colour, "bgr8", images.rgb),
        (millimetres, "16UC1", images.depth),
        (metres, "32FC1", images.depth),
    ):
        recorded = ms.decode(_image(make, pixels, encoding), ms.IMAGE)
        live = conversion.image(pixels, encoding, make.EPOCH, "camera")
        np.testing.assert_array_equal(read(recorded), read(live))
        assert read(recorded).flags.writeable
