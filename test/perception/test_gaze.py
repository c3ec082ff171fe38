"""Where tracks show in a picture that was never looked at: the one of the camera in the hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from safety_filter.bench.cell import declared
from safety_filter.perception.episodes import panda_mask
from safety_filter.perception.gaze import GRID, drawn
from safety_filter.perception.params import TABLE, PerceptionParams

FOV = 60.0
DOWN = np.diag([1.0, -1.0, -1.0, 1.0])  # at the origin, looking down


@dataclass
class Box:
    """What `drawn` reads of a track."""

    id: int
    position: np.ndarray
    box: np.ndarray = field(default_factory=lambda: np.full(3, 0.02))
    yaw: float = 0.0


def above(height: float) -> np.ndarray:
    pose = DOWN.copy()
    pose[2, 3] = height
    return pose


def test_a_box_covers_what_a_pinhole_camera_shows_of_it():
    owner = drawn([Box(7, np.zeros(3), np.array([0.04, 0.02, 0.01]))], FOV, above(0.2))
    focal = GRID / 2 / np.tan(np.radians(FOV / 2))
    rows, cols = np.nonzero(owner == 7)
    # Its upper side is nearest and so the largest: 0.19 m off
    assert np.ptp(cols) == pytest.approx(2 * focal * 0.04 / 0.19, abs=1.5)
    assert np.ptp(rows) == pytest.approx(2 * focal * 0.02 / 0.19, abs=1.5)
    assert rows.mean() == pytest.approx((GRID - 1) / 2, abs=0.6)
    assert set(np.unique(owner)) == {0, 7}


def test_a_turned_box_is_drawn_turned():
    long = np.array([0.06, 0.01, 0.01])
    owner = drawn([Box(1, np.zeros(3), long, np.pi / 4)], FOV, above(0.2))
    rows, cols = np.nonzero(owner)
    # y of base is up in this picture, so a turn to the left rises to the right
    assert np.corrcoef(rows, cols)[0, 1] < -0.8


def test_the_nearest_is_in_front():
    low, high = Box(1, np.zeros(3), np.full(3, 0.05)), Box(2, np.array([0.0, 0.0, 0.1]))
    for order in ([low, high], [high, low]):
        owner = drawn(order, FOV, above(0.3))
        assert owner[GRID // 2, GRID // 2] == 2 and (owner == 1).any()


def test_nothing_is_drawn_of_what_lies_behind_and_a_part_of_what_reaches_past():
    behind = Box(1, np.array([0.0, 0.0, 0.3]))
    assert not drawn([behind], FOV, above(0.2)).any()
    between = Box(2, np.array([0.0, 0.0, 0.19]), np.full(3, 0.05))
    assert (drawn([between], FOV, above(0.2)) == 2).mean() > 0.5


def test_the_cells_hand_eye_calibration_draws_things_where_its_camera_shows_them():
    p = TABLE.validate(declared("perception", PerceptionParams))
    hand_eye = np.eye(4)
    hand_eye[:3, :3] = Rotation.from_quat(p.wrist_xyzw).as_matrix()
    hand_eye[:3, 3] = p.wrist_xyz
    pushed = hand_eye.copy()
    pushed[:3, 3] += hand_eye[:3, 0] * 0.06  # to the side of the picture
    right, wrong = _overlaps(p.wrist_fov, hand_eye), _overlaps(p.wrist_fov, pushed)
    assert len(right) >= 10
    # The box of a thing covers the thing, and a rim of a pixel at this resolution
    assert min(inside for inside, _ in right) > 0.95
    assert max(size for _, size in right) < 1.7
    assert np.median([inside for inside, _ in wrong]) < 0.8


def _overlaps(fov: float, hand_eye: np.ndarray) -> list[tuple[float, float]]:
    """Of boxlike things along a motion: the share of what shows that is drawn, and how much is
    drawn by what shows."""
    from safety_filter.sim.scene import generate
    from safety_filter.sim.world import World

    mask, found = panda_mask(), []
    with World(generate(5, "static-1")) as world:
        for _ in range(6):
            boxes, bodies = [], {}
            for i, state in enumerate(world.truth()):
                shape = world.scene.specs[i].shape
                if shape.name == "cross":
                    continue
                yaw = float(Rotation.from_quat(state.orientation).as_euler("xyz")[2])
                boxes.append(Box(i + 1, np.asarray(state.position),
                                 np.asarray(shape.half_extents), yaw))
                bodies[i + 1] = state.body
            q, _, opening = world.joint_state()
            owner = drawn(boxes, fov, mask.tool_pose(q, opening) @ hand_eye)
            frame = world.render("wrist", (GRID, GRID))
            for number, body in bodies.items():
                shown, told = frame.seg == body, owner == number
                if shown.sum() > 40:
                    found.append(((shown & told).sum() / shown.sum(), told.sum() / shown.sum()))
            for _ in range(40):
                world.set_joint_velocity(np.array([0.15, 0.25, 0.0, 0.1, 0.0, 0.1, 0.2]))
                world.step()
    return found


@pytest.mark.parametrize(("changes", "text"), [
    ({"wrist_xyz": [0.1, 0.2]}, "wrist_xyz, wrist_xyzw: expected 3 and 4 numbers, got 2 and 4"),
    ({"wrist_xyzw": [0.0, 0.0, 0.0, 0.5]}, "wrist_xyzw: expected a unit quaternion, got norm 0.5"),
    ({"wrist_fov": 200.0}, "wrist_fov"),
])
def test_a_calibration_that_cannot_be_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        TABLE.validate(changes)
