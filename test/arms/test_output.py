"""Velocities as positions and as short trajectories."""

from __future__ import annotations

import numpy as np

from safety_filter.arms.output import JointPositions, short_trajectory

Q = np.array([0.1, -0.2])


def test_positions_start_where_the_arm_stands_and_integrate() -> None:
    positions = JointPositions(0.05)
    target = Q
    for _ in range(10):
        found = positions.follow(np.array([0.1, 0.0]), target, 0.01)
        assert found is not None
        target = found
    np.testing.assert_allclose(target, Q + [0.01, 0.0])


def test_the_target_never_leads_the_arm_by_more_than_the_limit() -> None:
    positions = JointPositions(0.05)
    for _ in range(1000):  # the arm is stuck
        found = positions.follow(np.array([1.0, -1.0]), Q, 0.004)
    assert found is not None
    np.testing.assert_allclose(found, Q + [0.05, -0.05])


def test_zero_velocity_holds_the_target_and_does_not_pull_the_arm_back() -> None:
    positions = JointPositions(0.05)
    moved = positions.follow(np.array([1.0, 0.0]), Q, 0.02)
    held = positions.follow(np.zeros(2), Q + [0.01, 0.0], 0.02)
    np.testing.assert_allclose(held, moved)


def test_lost_joint_states_hold_the_target_and_none_at_all_gives_none() -> None:
    positions = JointPositions(0.05)
    assert positions.follow(np.ones(2), None, 0.01) is None
    target = positions.follow(np.zeros(2), Q, 0.01)
    np.testing.assert_allclose(positions.follow(np.ones(2), None, 0.01), target)


def test_an_arm_moved_by_hand_is_not_pulled_back_far() -> None:
    positions = JointPositions(0.05)
    positions.follow(np.zeros(2), Q, 0.01)
    found = positions.follow(np.zeros(2), Q + 1.0, 0.01)
    np.testing.assert_allclose(found, Q + 0.95)


def test_a_trajectory_holds_the_velocity_and_ends_at_rest() -> None:
    qd = np.array([0.5, -0.1])
    first, last = short_trajectory(Q, qd, 0.1, 0.2)
    np.testing.assert_allclose(first.positions, Q + 0.1 * qd)
    np.testing.assert_allclose(last.positions, Q + 0.2 * qd)
    assert not last.velocities.any() and 0.0 < first.time < last.time


def test_standing_still_is_one_point_where_the_arm_stands() -> None:
    (only,) = short_trajectory(Q, np.zeros(2), 0.1, 0.2)
    np.testing.assert_allclose(only.positions, Q)
    assert not only.velocities.any()
