"""Grippers that are not the Panda's, through the real nodes: filter and monitor have their fingers
where the robot file has them, and nobody draws them elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pybullet_data
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ros_rig import (
    ARM_JOINTS,
    EVENT_SECONDS,
    FINGER_JOINTS,
    HOME,
    PATIENT,
    Rig,
    obstacle,
    running,
)
from sensor_msgs.msg import JointState, PointCloud2

from safety_filter import graph
from safety_filter.bags import ticks as tk
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotError, RobotModel, read_config
from safety_filter.monitor.separation import SeparationChecker
from safety_filter.nodes.robot import find_robot
from safety_filter.robot_source import Gripper

FOLDER = Path(pybullet_data.getDataPath()) / "franka_panda"
LEFT, RIGHT = FINGER_JOINTS


class Bent(NamedTuple):
    """A Panda with another gripper: what of its URDF is replaced, its gains, and where its finger
    joints are while the fingers stand as those of a Panda at `opening`."""

    old: str
    new: str
    gains: dict[str, float]
    positions: dict[str, float]
    opening: float


# As Interbotix: one joint counts the other way
OPPOSED = Bent(
    '<axis xyz="0 -1 0"/>', '<axis xyz="0 1 0"/>', {LEFT: 0.5, RIGHT: -0.5},
    {LEFT: 0.03, RIGHT: -0.03}, 0.06,
)  # fmt: skip
# One finger moves, the other is a part of the hand
ONE = Bent(
    f'<joint name="{RIGHT}" type="prismatic">', f'<joint name="{RIGHT}" type="fixed">',
    {LEFT: 1.0}, {LEFT: 0.03}, 0.03,
)  # fmt: skip


def _files(folder: Path, bent: Bent) -> dict[str, str]:
    """Parameters `robot` and `urdf`; the meshes lie beside the URDF, as in the original."""
    folder.mkdir(exist_ok=True)
    (folder / "meshes").symlink_to(FOLDER / "meshes")
    text = (FOLDER / "panda.urdf").read_text()
    assert bent.old in text
    (folder / "panda.urdf").write_text(text.replace(bent.old, bent.new))
    spec = read_config("panda")
    spec["gripper"] = {"max_opening": 0.08, "joints": bent.gains}
    (folder / "robot.yaml").write_text(yaml.safe_dump(spec))
    return {"robot": str(folder / "robot.yaml"), "urdf": str(folder / "panda.urdf")}


def _beside_the_left_finger() -> tuple[float, float, float]:
    """7 cm outward of it at home and 6 cm lower, so that the hand is farther away."""
    kinematics = Kinematics(RobotModel.shipped("panda"))
    model, places = kinematics.robot, kinematics.spheres(HOME, 0.06)
    left, right = (
        places[model.spheres["group"] == model.bodies.index(f"panda_{side}finger")].mean(0)
        for side in ("left", "right")
    )
    out = (left - right) / np.linalg.norm(left - right)
    x, y, z = left + 0.07 * out - (0, 0, 0.06)
    return float(x), float(y), float(z)


@pytest.mark.ros
@pytest.mark.parametrize("bent", [OPPOSED, ONE])
def test_filter_and_monitor_have_the_fingers_where_they_are(tmp_path: Path, bent: Bent) -> None:
    files = _files(tmp_path / "robot", bent)
    specs = [
        graph.NODES[n].with_parameters(**PATIENT[n], **files)
        for n in ("filter_node", "monitor_node")
    ]
    panda = find_robot("panda", "")
    truth = SeparationChecker(
        panda.urdf, ARM_JOINTS, {LEFT: 0.5, RIGHT: 0.5}, panda.tool_link, (), ()
    )
    ball = obstacle(_beside_the_left_finger(), 0.03)
    # Where one finger is fixed only that beside the ball stands as the Panda's
    there = truth.check(HOME, 0.06, np.zeros(7), ball, 0.0, 0.1).now
    assert there.link == "panda_leftfinger"
    openings: list[float] = []

    def keep(msg: PointCloud2) -> None:
        fields = [(f.name, f.offset, f.datatype, f.count) for f in msg.fields]
        openings.extend(tk.decode(fields, msg.point_step, msg.width, msg.data)["opening"])

    def bend(msg: JointState) -> None:
        msg.name = [*ARM_JOINTS, *bent.positions]
        msg.position = [*msg.position[:7], *bent.positions.values()]
        msg.velocity = [*msg.velocity[:7], *([0.0] * len(bent.positions))]

    with running(tmp_path / "log", *specs):
        rig = Rig("arm/joint_velocity")
        try:
            rig.tracks, rig.alter_joints = ball, bend
            rig.wait_passing()
            rig.node.create_subscription(PointCloud2, "filter_node/ticks", keep, 10)
            rig.wait(lambda: len(openings) > 50, EVENT_SECONDS, "ticks")
            assert np.allclose(openings[-50:], bent.opening, atol=1e-9)
            told = rig.values("monitor_node")
            assert told["link"] == "panda_leftfinger"
            assert float(told["distance_m"]) == pytest.approx(there.distance, abs=1e-4)
        finally:
            rig.close()


@pytest.mark.parametrize("bent", [OPPOSED, ONE])
def test_pictures_show_the_fingers_where_they_are(tmp_path: Path, bent: Bent) -> None:
    panda = find_robot("panda", "").mask()
    mask = find_robot(**_files(tmp_path / "robot", bent)).mask()
    positions = np.array([bent.positions[name] for name in bent.gains])
    opening = Gripper(bent.gains).opening(positions)
    assert opening == pytest.approx(bent.opening)
    # Looks along the hand's x, so that both fingers show beside each other
    tool = panda.tool_pose(HOME)
    camera = np.eye(4)
    camera[:3, :3] = tool[:3, [1, 2, 0]]
    camera[:3, 3] = tool[:3, 3] - 0.3 * tool[:3, 0]
    k = np.array([[300.0, 0.0, 80.0], [0.0, 300.0, 80.0], [0.0, 0.0, 1.0]])
    depth = np.full((160, 160), 0.3, np.float32)
    theirs = panda.view(depth, HOME, 0.06, k, camera).near
    ours = mask.view(depth, HOME, opening, k, camera).near
    closed = panda.view(depth, HOME, 0.0, k, camera).near
    beside = slice(85, None) if bent is ONE else slice(None)  # the other is fixed, closed
    assert (np.isfinite(theirs) != np.isfinite(closed)).sum() > 500  # the opening shows
    np.testing.assert_allclose(ours[:, beside], theirs[:, beside], atol=1e-6)


@given(st.floats(-1.0, 1.0).filter(lambda v: abs(v) > 1e-300 or v == 0.0),
       st.floats(0.0, 0.05, allow_subnormal=False))
def test_of_the_panda_it_is_the_sum_to_the_last_bit(a: float, b: float) -> None:
    gripper = find_robot("panda", "").gripper
    positions = np.array([a, b])
    assert gripper.opening(positions) == float(positions.sum())


def test_the_opening_fits_what_disagrees_best() -> None:
    assert Gripper({"one": 1.0}).opening(np.array([0.03])) == 0.03
    assert Gripper({"a": 0.5, "b": -0.5}).opening(np.array([0.02, -0.03])) == pytest.approx(0.05)
    uneven = Gripper({"a": 0.8, "b": 0.2})
    assert uneven.opening(np.array([0.08, 0.02])) == pytest.approx(0.1)
    assert Gripper().opening(np.zeros(0)) == 0.0


@pytest.mark.parametrize(
    ("joints", "words"),
    [
        ({LEFT: 0.0}, "expected m of it for 1 m of opening"),
        ({LEFT: float("nan")}, "expected m of it"),
        ({LEFT: "wide"}, "got 'wide'"),
        ([LEFT, RIGHT], "expected joint: m for 1 m of opening"),
    ],
)
def test_gains_that_are_none_are_told(joints: object, words: str) -> None:
    with pytest.raises(RobotError, match=words):
        Gripper.of({"gripper": {"joints": joints}})
