"""Trajectories as streams of set points."""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.arms.trajectory import Point, Trajectory, TrajectoryError

NAMES = ("a", "b")


def _of(points: list[Point], names: tuple[str, ...] = NAMES) -> Trajectory:
    return Trajectory.of(names, points, NAMES, 10.0, 2.0)


def test_positions_are_interpolated_and_their_slope_is_fed_forward() -> None:
    found = _of([Point(0.0, [0, 1], []), Point(1.0, [2, 0], [])]).at(10.5)
    assert found.positions is not None
    np.testing.assert_allclose(found.positions, [1.0, 0.5])
    np.testing.assert_allclose(found.velocities, [2.0, -1.0])


def test_given_velocities_are_fed_forward_in_place_of_the_slope() -> None:
    points = [Point(0.0, [0, 0], [1, 1]), Point(1.0, [1, 1], [0, 0])]
    np.testing.assert_allclose(_of(points).at(10.25).velocities, [0.75, 0.75])


def test_velocities_alone_are_interpolated_and_the_last_stays() -> None:
    found = _of([Point(0.1, [], [0.2, 0.0]), Point(0.3, [], [0.4, 0.2])])
    assert found.at(10.2).positions is None
    np.testing.assert_allclose(found.at(10.2).velocities, [0.3, 0.1])
    np.testing.assert_allclose(found.at(11.0).velocities, [0.4, 0.2])
    np.testing.assert_allclose(found.at(9.0).velocities, [0.2, 0.0])


def test_outside_of_its_points_a_position_trajectory_is_at_rest() -> None:
    found = _of([Point(0.1, [0, 0], [1, 1]), Point(0.3, [1, 1], [1, 1])])
    for now, expected in ((10.0, 0.0), (10.4, 1.0)):
        positions, velocities = found.at(now)
        np.testing.assert_allclose(positions, expected)
        assert not velocities.any()


def test_one_point_is_a_set_point() -> None:
    found = _of([Point(0.02, [0.1, 0.2], [])])
    np.testing.assert_allclose(found.at(10.0).positions, [0.1, 0.2])
    assert found.end == pytest.approx(10.02)


def test_joints_come_in_any_order_with_others_between_them() -> None:
    found = _of([Point(0.0, [9, 2, 1], [])], ("finger", "b", "a"))
    np.testing.assert_allclose(found.at(10.0).positions, [1, 2])


FAULTS = {
    "at least one": [],
    "positions or velocities": [Point(0.0, [], [])],
    "2 values a point": [Point(0.0, [1], [])],
    r"2 values a point, got \[0, 2\]": [Point(0.0, [1, 1], []), Point(1.0, [], [])],
    "increasing": [Point(0.5, [1, 1], []), Point(0.5, [2, 2], [])],
    "increasing from 0": [Point(-0.5, [1, 1], [])],
    "at most 2 s, got 3 s": [Point(3.0, [1, 1], [])],
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_cannot_be_followed_is_refused_with_the_reason(words: str) -> None:
    with pytest.raises(TrajectoryError, match=words):
        _of(FAULTS[words])


def test_a_missing_joint_is_named() -> None:
    with pytest.raises(TrajectoryError, match="expected b"):
        _of([Point(0.0, [1, 1], [])], ("a", "c"))
