"""The monitor's distances, checked against PyBullet, and what it lets touch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pybullet as p
import pybullet_data
import pytest

from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel, read_config
from safety_filter.core.wire import PIECE_STEP, Role, empty_tracks
from safety_filter.monitor.separation import SeparationChecker

URDF = Path(pybullet_data.getDataPath()) / "franka_panda/panda.urdf"
ARM = [f"panda_joint{i}" for i in range(1, 8)]
FINGERS = {"panda_finger_joint1": 0.5, "panda_finger_joint2": 0.5}
FINGER_LINKS = ["panda_leftfinger", "panda_rightfinger"]
HOME = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])


@pytest.fixture(scope="module")
def checker() -> SeparationChecker:
    return SeparationChecker(
        URDF, ARM, FINGERS, "panda_grasptarget", ["panda_hand"], FINGER_LINKS, reach=2.0
    )


def _track(position: object, radius: float = 0.04, role: Role = Role.OBSTACLE) -> np.ndarray:
    tracks = empty_tracks(1)
    tracks["x"], tracks["y"], tracks["z"] = position
    tracks["sx"] = tracks["sy"] = tracks["sz"] = radius
    tracks["role"], tracks["id"] = role, 7
    return tracks


def test_distance_agrees_with_pybullet(checker: SeparationChecker) -> None:
    client = p.connect(p.DIRECT)
    robot = p.loadURDF(str(URDF), useFixedBase=True, physicsClientId=client)
    rng = np.random.default_rng(0)
    shape = p.createCollisionShape(p.GEOM_SPHERE, radius=0.04, physicsClientId=client)
    ball = p.createMultiBody(0.0, shape, physicsClientId=client)
    worst = 0.0
    for _ in range(40):
        q = HOME + rng.uniform(-0.5, 0.5, 7)
        position = rng.uniform([0.1, -0.5, 0.1], [0.8, 0.5, 0.9])
        for i in range(7):
            p.resetJointState(robot, i, q[i], physicsClientId=client)
        for i in (9, 10):
            p.resetJointState(robot, i, 0.02, physicsClientId=client)
        p.resetBasePositionAndOrientation(ball, position, [0, 0, 0, 1], physicsClientId=client)
        points = p.getClosestPoints(robot, ball, 2.0, physicsClientId=client)
        truth = min(point[8] for point in points)
        found = checker.check(q, 0.04, np.zeros(7), _track(position), 0.0, 0.1).now
        if truth > 0.0:  # PyBullet's penetration depths are not exact
            worst = max(worst, abs(found.distance - truth))
    p.disconnect(client)
    assert worst < 2e-3


def test_a_command_into_an_obstacle_violates_and_its_opposite_does_not(
    checker: SeparationChecker,
) -> None:
    tracks = _track([0.45, 0.16, 0.30])
    towards = np.array([1.0, 0, 0, 0, 0, 0, 0])
    verdict = checker.check(HOME, 0.08, towards, tracks, 0.0, 0.15)
    assert verdict.commanded.distance < verdict.standing.distance
    limit = verdict.commanded.distance + 0.005
    assert checker.check(HOME, 0.08, towards, tracks, 0.0, 0.15, limit).violation == (
        verdict.commanded)
    assert verdict.commanded.track == 7
    for qd in (-towards, np.zeros(7)):
        assert checker.check(HOME, 0.08, qd, tracks, 0.0, 0.15, limit).violation is None


def test_what_is_inside_a_link_hides_no_other_pair(checker: SeparationChecker) -> None:
    towards = np.array([1.0, 0, 0, 0, 0, 0, 0])
    ghost, wall = _track([0.0, 0.0, 0.2], 0.1), _track([0.45, 0.16, 0.30])
    ghost["id"] = 1
    both = checker.check(
        HOME, 0.08, towards, np.concatenate([ghost, wall]), 0.0, 0.15, 0.005)
    assert both.commanded.track == both.standing.track == 1 and both.now.distance < -0.01
    alone = checker.check(HOME, 0.08, towards, wall, 0.0, 0.15, 0.005)
    assert both.violation == alone.violation is not None


def test_what_is_called_held_far_from_the_hand_is_an_obstacle(checker: SeparationChecker) -> None:
    tool = checker._place(HOME, 0.04)[1].translation
    elbow = _track([0.0, 0.0, 0.6], 0.1, Role.HELD)
    assert np.linalg.norm(tool - [0.0, 0.0, 0.6]) > 0.4
    found = checker.check(HOME, 0.04, np.zeros(7), elbow, 0.0, 0.1).now
    assert found.distance < 0.0 and found.link != "held"
    grip = _track(tool, 0.03, Role.HELD)
    elbow["id"] = grip["id"] + PIECE_STEP  # a piece of what the hand does hold
    found = checker.check(
        HOME, 0.04, np.zeros(7), np.concatenate([grip, elbow]), 0.0, 0.1).now
    assert found.distance == np.inf


def test_a_long_thing_beside_the_hand_is_not_held(checker: SeparationChecker) -> None:
    tool = checker._place(HOME, 0.04)[1].translation
    post = _track(tool + [0.0, 0.4, 0.0], 0.01, Role.HELD)
    post["sz"] = 0.3
    found = checker.check(HOME, 0.04, np.zeros(7), post, 0.0, 0.1).now
    assert np.isfinite(found.distance) and found.link != "held"


def test_an_obstacle_that_comes_is_predicted_by_its_age(checker: SeparationChecker) -> None:
    tracks = _track([0.45, 0.50, 0.30])
    tracks["vy"] = -0.3
    fresh = checker.check(HOME, 0.08, np.zeros(7), tracks, 0.0, 0.0).now.distance
    old = checker.check(HOME, 0.08, np.zeros(7), tracks, 0.5, 0.0).now.distance
    assert fresh - old == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("role", [Role.TARGET, Role.SUPPORT])
def test_fingers_may_touch_target_and_support_arm_links_may_not(
    checker: SeparationChecker, role: Role
) -> None:
    between = checker._place(HOME, 0.02)[1].translation
    as_obstacle = checker.check(HOME, 0.02, np.zeros(7), _track(between, 0.02), 0.0, 0.1).now
    assert as_obstacle.distance < 0.0 and "finger" in as_obstacle.link
    allowed = checker.check(HOME, 0.02, np.zeros(7), _track(between, 0.02, role), 0.0, 0.1).now
    assert allowed.distance > 0.0
    at_elbow = _track([0.0, 0.0, 0.6], 0.1, role)
    assert checker.check(HOME, 0.08, np.zeros(7), at_elbow, 0.0, 0.1).now.distance < 0.0


def test_what_is_held_counts_as_part_of_the_robot(checker: SeparationChecker) -> None:
    tool = checker._place(HOME, 0.04)[1].translation
    tracks = np.concatenate(
        [_track(tool, 0.03, Role.HELD), _track(tool + [0.0, 0.0, -0.1], 0.04)]
    )
    tracks["id"] = [1, 2]
    found = checker.check(HOME, 0.04, np.zeros(7), tracks, 0.0, 0.1).now
    assert (found.link, found.track) == ("held", 2)


def test_nothing_around_is_infinitely_far(checker: SeparationChecker) -> None:
    verdict = checker.check(HOME, 0.08, np.ones(7), empty_tracks(), 0.0, 0.1)
    assert verdict.now.distance == np.inf and verdict.violation is None


def test_a_missing_joint_is_named() -> None:
    with pytest.raises(ValueError, match="elbow"):
        SeparationChecker(URDF, ["elbow"], {}, "panda_grasptarget", [], [])


def test_tool_twist_is_that_of_the_filters_kinematics(checker: SeparationChecker) -> None:
    kinematics = Kinematics(RobotModel.shipped("panda"))
    qd = np.linspace(-0.5, 0.5, 7)
    expected = kinematics.tool(HOME)[2] @ qd
    np.testing.assert_allclose(checker.tool_twist(HOME, 0.08, qd), expected, atol=1e-9)


def test_a_base_away_from_the_urdfs_root_changes_nothing(checker: SeparationChecker) -> None:
    """Drivers' descriptions begin with a world link; obstacles are in the base link's frame."""
    mount = (
        '<link name="world"/><joint name="mount" type="fixed"><parent link="world"/>'
        '<child link="panda_link0"/><origin xyz="0.3 -0.2 0.7" rpy="0 0 1.2"/></joint></robot>'
    )
    text = URDF.read_text().replace("package://", "package://elsewhere_")
    text = text.replace("</robot>", mount)
    bodies = read_config("panda")["bodies"]
    spheres = {k: [(s[:3], s[3]) for s in b["spheres"]] for k, b in bodies.items()}
    # Meshes of a description that came as text cannot be found: spheres stand in
    moved, plain = (
        SeparationChecker(
            xml, ARM, FINGERS, "panda_grasptarget", ["panda_hand"], FINGER_LINKS, reach=2.0,
            base_link="panda_link0", spheres=spheres,
        )
        for xml in (text, text.replace(mount, "</robot>"))
    )  # fmt: skip
    qd = np.linspace(-0.5, 0.5, 7)
    tracks = _track((0.5, 0.4, 0.5))
    far, near = (
        c.check(HOME, 0.08, qd, tracks, 0.0, 0.1).commanded.distance for c in (moved, plain)
    )
    assert far == pytest.approx(near, abs=1e-6)
    assert "panda_link3" in moved.by_spheres
    # Spheres hold the meshes
    assert near <= checker.check(HOME, 0.08, qd, tracks, 0.0, 0.1).commanded.distance + 0.01
    np.testing.assert_allclose(
        moved.tool_twist(HOME, 0.08, qd), checker.tool_twist(HOME, 0.08, qd), atol=1e-9
    )
