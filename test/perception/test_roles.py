from __future__ import annotations

import numpy as np
import pytest

from safety_filter.core.wire import Role
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion
from safety_filter.perception.params import TABLE
from safety_filter.perception.roles import Grip, HoldDetector, role_of
from safety_filter.perception.shape import BOX
from safety_filter.perception.track import Track

DT = 1 / 15
PLATE = 8
SUPPORTS = frozenset({PLATE})


def track(at, id_: int = 1, class_id: int = 0, half: float = 0.022) -> Track:
    box = np.full(3, half)
    state = State.at(np.asarray(at, float), np.eye(3) * 1e-6, 0.1)
    return Track(id_, Motion.of(state, 0.5), box, box.copy(), 0.0, BOX, 0.0, 0.0, {class_id: 1.0},
                 0.9, state, confirmed=True, blob=0)


def put(cube: Track, at) -> None:
    cube.motion = Motion.of(State.at(np.asarray(at, float), np.eye(3) * 1e-6, 0.1), 0.5)


def tool_at(p) -> np.ndarray:
    pose = np.diag([1.0, -1.0, -1.0, 1.0])  # pointing down
    pose[:3, 3] = p
    return pose


class Hand:
    def __init__(self) -> None:
        self.detector = HoldDetector(TABLE.validate({}), SUPPORTS)
        self.time = 0.0

    def step(self, at, opening: float, *tracks: Track) -> int | None:
        self.time += DT
        return self.detector.update(Grip(self.time, opening, tool_at(at)), tracks)

    def role(self, cube: Track) -> Role:
        released = self.detector.released
        return role_of(cube, SUPPORTS, None, self.detector.held, released and released[0])

    def grasp(self, cube: Track) -> None:
        for opening in (0.08, 0.06, 0.045, 0.044, 0.044, 0.044):
            self.step(cube.position, opening, cube)


def test_fingers_closed_round_an_object_hold_it():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    assert hand.step([0.5, 0, 0.022], 0.08, cube) is None
    hand.grasp(cube)
    assert hand.detector.held == 1
    assert cube.attached


def test_open_or_closing_fingers_hold_nothing():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    for opening in (0.08, 0.08, 0.08, 0.075, 0.06, 0.045):
        assert hand.step([0.5, 0, 0.022], opening, cube) is None


def test_empty_fingers_hold_nothing():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    for _ in range(6):
        assert hand.step([0.5, 0, 0.022], 0.001, cube) is None


def test_an_object_beside_the_hand_is_not_held():
    hand, cube = Hand(), track([0.5, 0.09, 0.022])
    for _ in range(6):
        assert hand.step([0.5, 0, 0.022], 0.044, cube) is None


def test_a_plate_is_never_held():
    hand = Hand()
    for _ in range(6):
        assert hand.step([0.5, 0, 0.01], 0.044, track([0.5, 0, 0.006], 1, PLATE)) is None


def test_what_moves_with_the_tool_stays_held_hidden_or_not():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    hand.grasp(cube)
    for i in range(20):
        z = 0.022 + 0.01 * i
        put(cube, [0.5, 0, z])
        cube.blob = -1 if i > 10 else 0
        assert hand.step([0.5, 0, z], 0.044, cube) == 1


@pytest.mark.parametrize("speed", [0.02, 0.15])
def test_what_stays_behind_is_not_held_until_the_fingers_close_on_it_anew(speed: float):
    hand, cube = Hand(), track([0.5, 0, 0.022])
    hand.grasp(cube)
    for i in range(round(0.1 / (speed * DT))):
        height = speed * DT * i
        held = hand.step([0.5, 0, 0.022 + height], 0.044, cube)
        if height > 0.031:
            assert held is None and not cube.attached and hand.role(cube) == Role.OBSTACLE
            assert cube.falling is None, "it stands there"
    for _ in range(6):
        assert hand.step(cube.position, 0.044, cube) is None
    hand.grasp(cube)
    assert hand.detector.held == 1


@pytest.mark.parametrize("height", [0.025, 0.03, 0.045])
def test_half_open_fingers_that_stop_over_a_thing_or_pass_by_do_not_hold_it(height: float):
    hand, cube = Hand(), track([0.5, 0, 0.022])
    way = [0.6] * 10 + [0.5] * 10 + [0.5 - 0.05 * DT * i for i in range(40)]
    for x in way:
        assert hand.step([x, 0, 0.022 + height], 0.04, cube) is None
        assert hand.role(cube) == Role.OBSTACLE


def test_fingers_all_but_closed_over_a_thing_do_not_hold_it():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    cube.clean = True
    for opening in (0.08, 0.05, 0.03, 0.01, 0.01, 0.01):
        assert hand.step([0.5, 0, 0.05], opening, cube) is None


def test_what_moves_with_fingers_that_were_closed_before_is_held():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    held = []
    for _ in range(10):
        assert hand.step([0.6, 0, 0.022], 0.044, cube) is None
    for i in range(10):
        put(cube, [0.5, 0, 0.022 + 0.01 * i])
        held.append(hand.step(cube.position, 0.044, cube))
    assert held[:4] == [None] * 4 and held[4:] == [1] * 6


def test_what_was_in_the_hand_before_the_first_picture_is_held():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    assert [hand.step([0.5, 0, 0.022], 0.044, cube) for _ in range(3)] == [None, 1, 1]


def test_what_fingers_closed_on_unseen_is_held_as_soon_as_it_has_a_track():
    """In 3004 of static-1 the hand hid a brick; its track began 0.5 s after the grasp."""
    hand, brick = Hand(), track([0.5, 0, 0.022])
    for opening in (0.08, 0.06, 0.045, 0.044, 0.044, 0.044):
        hand.step([0.5, 0, 0.022], opening)
    brick.first_seen = hand.time
    assert hand.step([0.5, 0, 0.022], 0.044, brick) == 1


def test_what_slips_after_it_was_carried_is_a_target_and_held_once_it_moves_with_the_tool():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    hand.grasp(cube)
    held = []
    for i in range(20):
        z = 0.022 + 0.01 * i
        put(cube, [0.5, 0, z - 0.025 * (i >= 10)])  # it is seen elsewhere in the hand
        held.append(hand.step([0.5, 0, z], 0.044, cube))
        assert hand.role(cube) == (Role.HELD if held[-1] else Role.TARGET)
    assert held == [1] * 10 + [None] * 4 + [1] * 6


def test_what_falls_has_its_shape_seen_anew_until_it_lies():
    """A can that falls over is not the upright one and something else beside it."""
    hand, can = Hand(), track([0.5, 0, 0.12])
    hand.grasp(can)
    can.clean = True
    hand.step(can.position, 0.08, can)
    assert hand.detector.released is not None
    assert can.clean, "it has not fallen yet"
    put(can, [0.5, 0, 0.08])
    hand.step([0.5, 0, 0.12], 0.08, can)
    assert not can.clean
    assert can.template is None
    for _ in range(16):
        hand.step([0.5, 0, 0.12], 0.08, can)
    can.clean = True
    hand.step([0.5, 0, 0.12], 0.08, can)
    assert hand.detector.released is not None
    assert can.clean, "by now it lies"


def test_opening_lets_go_and_the_released_object_is_a_target_until_the_hand_is_clear():
    hand, cube = Hand(), track([0.5, 0, 0.022])
    hand.grasp(cube)
    assert hand.step([0.5, 0, 0.022], 0.079, cube) is None
    assert hand.detector.released is not None
    assert role_of(cube, SUPPORTS, None, None, 1) == Role.TARGET
    hand.step([0.5, 0, 0.20], 0.08, cube)
    assert hand.detector.released is None


def test_roles_default_to_obstacle():
    cube, plate = track([0.5, 0, 0.02]), track([0.5, 0, 0.006], 2, PLATE)
    assert role_of(cube, SUPPORTS, None, None, None) == Role.OBSTACLE
    assert role_of(cube, SUPPORTS, 1, None, None) == Role.TARGET
    assert role_of(cube, SUPPORTS, 1, 1, None) == Role.HELD
    assert role_of(plate, SUPPORTS, 2, None, None) == Role.SUPPORT
