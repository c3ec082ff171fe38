"""The arm files: complete, consistent with the filter, and told when something is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pybullet_data
import pytest
import yaml

from safety_filter.arms import profile
from safety_filter.arms.profile import Arm, ArmError
from safety_filter.cli import main
from safety_filter.core.robot import RobotModel, read_config

NOT_SHIPPED = ("fr3", "ur5e", "xarm7")
XARM = Path(pybullet_data.getDataPath()) / "xarm/xarm6_robot.urdf"


def _joints(arm: Arm) -> dict[str, dict[str, float]]:
    spec = read_config(arm.robot) if arm.robot else arm.robot_file
    joints: dict[str, dict[str, float]] = spec["joints"]
    return joints


def test_there_is_a_file_for_every_arm() -> None:
    assert set(profile.names()) == {"panda", "fr3", "ur5e", "xarm7", "iiwa"}


@pytest.mark.parametrize("name", profile.names())
def test_limits_have_a_source_and_the_filter_plans_no_shorter_stop_than_the_arm_needs(
    name: str,
) -> None:
    arm = profile.load(name)
    spec = read_config(arm.robot) if arm.robot else arm.robot_file
    assert spec["limits_source"] and arm.stopping[1]
    assert arm.frame in arm.filter["base_frames"]
    planned = profile.braking_time(arm, _joints(arm))
    assert arm.stopping[0] <= planned, (arm.stopping, planned)
    # what the class-K function asks for can be braked: see filter_params.braking_fault
    assert arm.filter.get("alpha0", 10.0) * planned / 2 <= 1.0


@pytest.mark.parametrize("name", ["panda", "iiwa"])
def test_the_frame_of_a_shipped_arm_is_the_base_of_its_model(name: str) -> None:
    arm = profile.load(name)
    assert RobotModel.shipped(arm.robot).base_link == arm.frame


@pytest.mark.parametrize("name", NOT_SHIPPED)
def test_an_arm_without_a_shipped_urdf_says_what_to_run(name: str) -> None:
    told = profile.not_shipped(name)
    assert told is not None and f"safety-filter fit-robot {name}.urdf -o {name}.yaml" in told
    assert profile.not_shipped("panda") is None and profile.not_shipped("r2d2") is None


def test_a_robot_file_begun_by_arm_lacks_only_bodies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the xArm 6 that is at hand in place of a URDF that is not."""
    content = yaml.safe_load((profile.folder() / "xarm7.yaml").read_text())
    seed = content["robot_file"]
    seed["tool_link"] = "link6"
    seed["joints"] = {k: v for k, v in seed["joints"].items() if k != "joint7"}
    for joint in seed["joints"].values():
        joint["velocity"] = 1.5
    path = tmp_path / "xarm6x.yaml"
    path.write_text(yaml.safe_dump(content))
    out = tmp_path / "robot.yaml"
    assert main(["arm", str(path), "-o", str(out)]) == 0
    begun = read_config(out)
    assert "bodies" not in begun  # fit-robot keeps what is known and adds them
    spec = {**begun, "bodies": read_config("xarm6")["bodies"]}
    model = RobotModel.load(XARM, spec)
    np.testing.assert_allclose(model.limits.velocity, 1.5)
    assert spec["limits_source"] == seed["limits_source"] and model.tool_link == "link6"
    assert main(["arm", str(path), "-o", str(out)]) == 1
    assert "remove it first" in capsys.readouterr().err


def test_arm_prints_what_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arm"]) == 0 and main(["arm", "ur5e"]) == 0
    text = capsys.readouterr().out
    assert "ur_type:=ur5e" in text and "/forward_velocity_controller/commands" in text
    assert text.endswith("robot:=ur5e robot_file:=$PWD/ur5e.yaml\n  safety-filter doctor\n")
    assert main(["arm", "iiwa"]) == 0  # shipped: nothing to fit
    assert "fit-robot iiwa" not in capsys.readouterr().out
    assert main(["arm", "r2d2"]) == 1
    assert "panda" in capsys.readouterr().err


FAULTS = {
    "expected either robot": {"robot": "panda", "robot_file": {}},
    "outputs: expected some of": {"outputs": {"torque": "/a"}},
    "stopping: expected a time": {"stopping": {"time": 0.0, "source": "guess"}},
    "source of the time": {"stopping": {"time": 0.1}},
    "acceleration: expected 0 to 100": {
        "stopping": {"time": 0.1, "source": "guess", "acceleration": float("nan")}
    },
    r"unknown \['colour'\]": {"colour": "red"},
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_faulty_file_is_refused_with_the_field(tmp_path: Path, words: str) -> None:
    content = yaml.safe_load((profile.folder() / "panda.yaml").read_text())
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump({**content, **FAULTS[words]}))
    with pytest.raises(ArmError, match=words):
        profile.load(str(path))


def test_an_arm_file_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "arm.yaml"
    path.write_text("title: !!python/object/apply:os.system ['touch owned']\n")
    with pytest.raises(ArmError, match="could not determine a constructor"):
        profile.load(str(path))
