"""Perception and policy over what a real arm's launch file would have recorded: the camera's pose
in tf or in a parameter file, a description whose root is not the base, words said before."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation, Slerp

from safety_filter import cli
from safety_filter.bags import acting, looking, recording
from safety_filter.bags import messages as ms
from safety_filter.bags.extrinsics import RecordedTf
from safety_filter.bags.reader import Bag, BagError
from safety_filter.bags.writer import BagWriter
from safety_filter.bench.cell import declared
from safety_filter.core.wire import Role
from safety_filter.perception.detector import DEFAULT_WEIGHTS
from safety_filter.perception.params import PerceptionParams
from safety_filter.pilot import VlaParams

POSE = "/sim_node/scene/camera_pose"
TF = "tf2_msgs/msg/TFMessage"
KEEP = ()  # what leaves a message as it is
Alter = Callable[[str, bytes], Any]
MOUNT = (
    '<link name="world"/><joint name="mount" type="fixed"><parent link="world"/>'
    '<child link="panda_link0"/><origin xyz="0.3 -0.2 0.7" rpy="0 0 1.2"/></joint></robot>'
)


def _transform(make: ModuleType, time: float, parent: str, child: str, values: Any) -> Any:
    t = make.types()
    move = t["geometry_msgs/msg/Transform"](
        t["geometry_msgs/msg/Vector3"](*values[:3]), t["geometry_msgs/msg/Quaternion"](*values[3:])
    )
    return t["geometry_msgs/msg/TransformStamped"](make.header(time, parent), child, move)


def _values(pose: Any) -> list[float]:
    p, q = pose.pose.position, pose.pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


@pytest.fixture
def alter(watched: Path, tmp_path: Path) -> Callable[[Alter], Path]:
    """The recorded cell with its messages as a function of (topic, bytes) gives them back:
    (topic, type, bytes), KEEP, or None for one that is left out."""

    def bend(change: Alter) -> Path:
        bag, path = Bag.open(watched), tmp_path / "bag"
        with BagWriter(path) as out:
            for name, time, data in bag.messages(bag.topics):
                given = change(name, data)
                if given is None:
                    continue
                topic, kind, content = given or (name, bag.topics[name].type, data)
                if topic not in out.counts:
                    out.add_topic(topic, kind)
                out.write(topic, content, time)
        return path

    return bend


def _file(folder: Path, **more: object) -> Path:
    """What the user's cell.yaml says of perception_node."""
    cell = {k: list(v) if isinstance(v, tuple) else v
            for k, v in declared("perception", PerceptionParams).items()}  # fmt: skip
    path = folder / "cell.yaml"
    path.write_text(yaml.safe_dump({"/**/perception_node": {"ros__parameters": {**cell, **more}}}))
    return path


def _as_recorded(watched: Path, seen: list[Any]) -> None:
    """Byte by byte what perception saw live."""
    recorded = {recording.stamp_of(m): m for _, m in recording.load(watched).clouds}
    assert len(seen) == len(recorded) > 10
    for stamp, sample in seen:
        assert sample.tracks.tobytes() == bytes(recorded[stamp].data)


def _perceived(path: Path, file: Path) -> tuple[recording.Recording, list[Any]]:
    from safety_filter.bags.replay import flat_parameters

    found = recording.load(path)
    changes = flat_parameters(file, "perception_node")
    return found, looking.perceive(path, found, recording.Settings(), changes)


def test_the_cameras_pose_comes_from_the_recorded_tf(
    alter: Callable[[Alter], Path], watched: Path, make: ModuleType, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As `extrinsics: tf`, the default of arm.launch.py, with a file that says nothing of it."""

    def change(name: str, data: bytes) -> Any:
        if name != POSE:
            return KEEP
        pose = ms.decode(data, ms.POSE)
        moved = _transform(make, ms.seconds(pose.header.stamp), "base", "scene", _values(pose))
        return "/tf", TF, ms.encode(make.types()[TF]([moved]), TF)

    path, file = alter(change), _file(tmp_path)
    _as_recorded(watched, _perceived(path, file)[1])
    assert cli.main(["replay", str(path), "--perception", str(file), "--policy"]) == 0
    assert "perception: " in capsys.readouterr().out


def test_a_pose_that_only_the_parameter_file_says(
    alter: Callable[[Alter], Path], watched: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said: list[list[float]] = []

    def change(name: str, data: bytes) -> Any:
        if name != POSE:
            return KEEP
        said.append(_values(ms.decode(data, ms.POSE)))
        return None

    path = alter(change)
    assert cli.main(["replay", str(path), "--perception"]) == 1
    error = capsys.readouterr().err
    assert "no topic for camera_pose or tf" in error
    assert "extrinsics: parameter, camera_xyz, camera_xyzw" in error
    file = _file(
        tmp_path, extrinsics="parameter", camera_xyz=said[0][:3], camera_xyzw=said[0][3:],
        weights=str(DEFAULT_WEIGHTS), image_age=1.0, overlay_rate=5.0,
    )  # fmt: skip
    _as_recorded(watched, _perceived(path, file)[1])
    file = _file(tmp_path, extrinsics="parameter", weights=str(tmp_path / "mine.onnx"))
    assert cli.main(["replay", str(path), "--perception", str(file)]) == 1
    assert "mine.onnx" in capsys.readouterr().err


def test_a_description_whose_root_is_not_the_base(
    alter: Callable[[Alter], Path], watched: Path, make: ModuleType, tmp_path: Path
) -> None:
    """As with robot_file: the URDF came as text, its meshes cannot be found, the robot file names
    no URDF. The policy is told the same pose of the tool, and perception does not see the arm."""

    def change(name: str, data: bytes) -> Any:
        if name != "/filter_node/config":
            return KEEP
        content = json.loads(ms.decode(data, ms.STRING).data)
        del content["robot"]["urdf"]
        text = content["urdf"].replace("package://", "package://elsewhere_")
        content |= {"urdf": text.replace("</robot>", MOUNT)}
        content["node"] |= {"description": True, "urdf": ""}
        return name, ms.STRING, make.string(json.dumps(content))

    path, settings = alter(change), recording.Settings()
    (_, first), *_ = acting.act(watched, recording.load(watched), settings, VlaParams())
    (_, same), *_ = acting.act(path, recording.load(path), settings, VlaParams())
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(same, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(other, one, atol=1e-4)
    _, seen = _perceived(path, _file(tmp_path))
    live = recording.load(watched).clouds
    for (_, sample), (_, cloud) in zip(seen, live, strict=True):
        # Spheres stand out of the meshes, so that a thing may be hidden; none is made of the arm
        assert 2 < len(sample.tracks) <= cloud.width


def test_without_words_there_is_no_target_and_that_is_told(
    alter: Callable[[Alter], Path], tmp_path: Path
) -> None:
    path = alter(lambda name, _: None if name.endswith("/instruction") else KEEP)
    found, seen = _perceived(path, _file(tmp_path))
    assert all((sample.tracks["role"] != Role.TARGET).all() for _, sample in seen)
    (note,) = [n for n in found.notes if "no instruction" in n]
    assert "named_share" in note
    found, seen = _perceived(path, _file(tmp_path, named_share=0.0))
    assert max(sample.tracks["p_target"].max() for _, sample in seen[1:]) > 0.1
    assert not [n for n in found.notes if "no instruction" in n]
    with pytest.raises(BagError, match=r"no topic for instruction;.* said before the recording"):
        acting.act(path, found, recording.Settings(), VlaParams())


def test_cameras_that_do_not_wait_for_each_other(
    alter: Callable[[Alter], Path], watched: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The hand's picture is 40 ms older than the scene's, which live is within wrist_skew."""

    def change(name: str, data: bytes) -> Any:
        if not name.endswith("wrist/image"):
            return KEEP
        picture = ms.decode(data, ms.IMAGE)
        late = round((ms.seconds(picture.header.stamp) - 0.04) * 1e9)
        picture.header.stamp.sec, picture.header.stamp.nanosec = divmod(late, 10**9)
        return name, ms.IMAGE, ms.encode(picture, ms.IMAGE)

    path, settings = alter(change), recording.Settings()
    as_live = acting.act(watched, recording.load(watched), settings, VlaParams())
    found = acting.act(path, recording.load(path), settings, VlaParams())
    assert [stamp for stamp, _ in found] == [stamp for stamp, _ in as_live]
    for (_, one), (_, other) in zip(found, as_live, strict=True):
        np.testing.assert_array_equal(one.twists, other.twists)  # of the picture just before it
    file = tmp_path / "vla.yaml"
    file.write_text("/**/vla_node: {ros__parameters: {wrist_skew: 0.02}}")
    assert cli.main(["replay", str(path), "--policy", str(file)]) == 1
    assert "within 0.02 s (wrist_skew)" in capsys.readouterr().err
    file.write_text("/**/vla_node: {ros__parameters: {wrist_skews: 0.02}}")
    assert cli.main(["replay", str(path), "--policy", str(file)]) == 1
    assert "did you mean wrist_skew" in capsys.readouterr().err
    file.write_text(f"/**/vla_node: {{ros__parameters: {{weights: {tmp_path}}}}}")
    assert cli.main(["replay", str(path), "--policy", str(file)]) == 1
    assert f"{tmp_path}" in capsys.readouterr().err
    assert cli.main(["replay", str(path), "--policy", str(tmp_path)]) == 1
    assert "got a folder; other weights are said in the file" in capsys.readouterr().err


def test_transforms_are_chained_and_interpolated_and_never_carried_on(make: ModuleType) -> None:
    """base <- mount (static) <- camera (moving), and tool on another branch."""
    turns = Rotation.from_euler("xyz", [[0.3, 0.1, 0.0], [0.7, -0.4, 1.0]])
    mount = Rotation.from_euler("z", 0.5)
    t0, t1 = make.EPOCH, make.EPOCH + 0.1
    static = [_transform(make, 0.0, "base", "mount", [0.4, 0, 0.5, *mount.as_quat()])]
    message = make.types()[TF]
    moving = [
        message([_transform(make, t, "mount", "camera", [x, 0.2, 0.0, *sign * turn.as_quat()])])
        for t, x, sign, turn in ((t0, 0.0, 1, turns[0]), (t1, 0.1, -1, turns[1]))
    ]
    messages = [(True, message(static)), *((False, m) for m in moving)]

    def picture(time: float, frame: str = "camera") -> Any:
        return make.types()[ms.POSE](make.header(time, frame), None)

    middle = make.EPOCH + 0.05
    at = (ms.seconds(make.stamp(middle)) - t0) / (ms.seconds(make.stamp(t1)) - t0)
    turn = mount * Slerp([0, 1], turns)(at)
    place = np.array([0.4, 0, 0.5]) + mount.apply([0.1 * at, 0.2, 0.0])
    pose = RecordedTf(messages, "base").at(picture(middle))
    np.testing.assert_allclose(pose[:3, 3], place, atol=1e-9)
    np.testing.assert_allclose(pose[:3, :3], turn.as_matrix(), atol=1e-9)
    back = RecordedTf(messages, "camera").at(picture(middle, "base"))
    np.testing.assert_allclose(back @ pose, np.eye(4), atol=1e-9)
    with pytest.raises(ms.MessageError, match=r"camera in mount: known from .* not at"):
        RecordedTf(messages, "base").at(picture(t1 + 0.01))
    with pytest.raises(ms.MessageError, match=r"'eye' .* and 'base' .* not connected"):
        RecordedTf(messages, "base").at(picture(middle, "eye"))
