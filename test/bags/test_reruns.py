"""Perception and policy over recorded pictures: the same pictures give the same results."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from safety_filter import cli
from safety_filter.bags import acting, looking, recording, replay, source
from safety_filter.bags.reader import BagError
from safety_filter.bench.cell import declared
from safety_filter.perception.params import PerceptionParams
from safety_filter.pilot import VlaParams


def test_perception_sees_the_same_in_the_recorded_pictures(watched: Path) -> None:
    found = recording.load(watched)
    cell = declared("perception", PerceptionParams)
    seen = looking.perceive(watched, found, recording.Settings(), cell)
    assert len(seen) == len(found.clouds) > 10
    recorded = {recording.stamp_of(m): m for _, m in found.clouds}
    for stamp, sample in seen:
        assert sample.tracks.tobytes() == bytes(recorded[stamp].data)
    assert max(len(sample.tracks) for _, sample in seen) > 2
    assert max(sample.tracks["p_target"].max() for _, sample in seen[1:]) > 0.1
    assert not [n for n in found.notes if "attention" in n]
    again = looking.with_obstacles(found, seen)
    same = replay.compare(replay.run(found).table, replay.run(again).table)
    assert same.equal.all()


def test_maps_of_a_hands_camera_that_nobody_declared_are_told(watched: Path) -> None:
    found = recording.load(watched)
    looking.perceive(watched, found, recording.Settings(), {})
    (note,) = [n for n in found.notes if "wrist_attention" in n]
    assert "wrist_fov" in note and "parameter file" in note


def test_other_parameters_of_perception_show_in_the_decisions(
    watched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "p.yaml"
    params.write_text("perception_node: {ros__parameters: {confirm_hits: 6}}\n")
    assert cli.main(["replay", str(watched), "--perception", str(params)]) == 0
    text = capsys.readouterr().out
    assert "perception: " in text and "decisions differ" in text
    params.write_text("confirm_hit: 3\n")
    assert cli.main(["replay", str(watched), "--perception", str(params)]) == 1
    assert "did you mean confirm_hits" in capsys.readouterr().err


def test_the_policy_answers_the_recorded_pictures_and_its_twists_are_filtered(
    watched: Path,
) -> None:
    found = recording.load(watched)
    chunks = acting.act(watched, found, recording.Settings(), VlaParams())
    assert len(chunks) == pytest.approx(1.6 / acting.POLICY_PERIOD, abs=1)
    changed = acting.with_commands(found, chunks, VlaParams().blend)
    run = replay.run(changed)
    before = changed.table["now_ros"] < chunks[0][0] + source.NO_DELAY
    assert np.isnan(changed.table["command_receipt"][before]).all()
    after = changed.table["command"][~before]
    assert not np.array_equal(after, found.table["command"][~before])
    assert set(run.table["state"][-50:]) <= {0, 1}


def test_without_pictures_the_missing_topics_are_named(drive: Path) -> None:
    found = recording.load(drive)
    with pytest.raises(BagError, match="image, depth, camera_info, camera_pose"):
        looking.perceive(drive, found, recording.Settings(), {})
    with pytest.raises(BagError, match="image, wrist_image, instruction"):
        acting.act(drive, found, recording.Settings(), VlaParams())


def test_joints_are_interpolated_as_in_the_nodes(make: ModuleType) -> None:
    rows = [(0.0, make.joint_state(make.EPOCH + t, make.HOME + t, np.zeros(7))) for t in (0, 0.1)]
    names = recording.RobotModel.shipped("panda").joint_names
    joints = source.Joints(rows, names, make.GRIPPER)
    q, opening = joints.at(make.EPOCH + 0.05, 0.1) or (None, None)
    np.testing.assert_allclose(q, make.HOME + 0.05, atol=1e-6)
    assert opening == pytest.approx(0.08)
    assert joints.at(make.EPOCH + 1.0, 0.1) is None
