"""Each kind of command becomes a nominal joint velocity by its rule."""

from __future__ import annotations

import numpy as np
import pytest
from core.rig import HOME

from safety_filter.core.filter_params import FilterParams, gains
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.nominal import (
    JOINT_POSITION,
    JOINT_VELOCITY,
    NO_COMMAND,
    TWIST,
    nominal_velocity,
    objective,
)
from safety_filter.core.robot import Array, RobotModel


def nominal(robot: RobotModel, kind: int, command: Array, q: Array = HOME,
            in_tool_frame: bool = False) -> tuple[Array, bool, Array]:
    rotation, _, jacobian = Kinematics(robot).tool(q)
    out = np.zeros(robot.n)
    damped = nominal_velocity(kind, command, q, robot.limits.velocity, rotation, in_tool_frame,
                              jacobian, gains(FilterParams())[0], out)
    return out, damped, jacobian


@pytest.mark.parametrize('seed', range(10))
def test_a_twist_is_resolved_exactly_and_with_least_norm(panda: RobotModel, seed: int) -> None:
    twist = np.random.default_rng(seed).normal(size=6)
    qd, damped, jacobian = nominal(panda, TWIST, twist)
    assert not damped
    assert np.allclose(jacobian @ qd, twist, atol=1e-10)
    assert np.allclose(qd, np.linalg.pinv(jacobian) @ twist, atol=1e-9)


def test_a_twist_in_the_tool_frame_is_turned(panda: RobotModel) -> None:
    twist = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    rotation, _, jacobian = Kinematics(panda).tool(HOME)
    qd, _, _ = nominal(panda, TWIST, twist, in_tool_frame=True)
    assert np.allclose(jacobian @ qd, np.concatenate([rotation @ twist[:3], rotation @ twist[3:]]))


def test_near_a_singularity_the_twist_is_damped_and_stays_bounded(panda: RobotModel) -> None:
    stretched = np.array([0.0, 0.0, 0.0, -0.0701, 0.0, 0.05, 0.0])
    qd, damped, _ = nominal(panda, TWIST, np.array([0.1, 0, 0, 0, 0, 0.1]), stretched)
    assert damped and np.abs(qd).max() < 5.0 and np.isfinite(qd).all()
    assert not nominal(panda, TWIST, np.zeros(6), stretched)[1]  # zero passes, also there


def test_joint_velocity_is_itself(panda: RobotModel) -> None:
    command = np.linspace(-1, 1, 7)
    assert np.array_equal(nominal(panda, JOINT_VELOCITY, command)[0], command)


def test_joint_position_is_proportional_and_scaled_into_the_limits(panda: RobotModel) -> None:
    near, _, _ = nominal(panda, JOINT_POSITION, HOME + 0.01)
    assert np.allclose(near, 4.0 * 0.01)
    offset = np.array([3.0, 1, 0, 0, 0, 0, 0])
    far, _, _ = nominal(panda, JOINT_POSITION, HOME + offset)
    assert np.isclose(far[0], panda.limits.velocity[0]) and np.isclose(far[1], far[0] / 3)


def test_no_command_is_zero(panda: RobotModel) -> None:
    assert not nominal(panda, NO_COMMAND, np.zeros(7))[0].any()


@pytest.mark.parametrize('kind', [TWIST, JOINT_VELOCITY])
def test_the_objective_is_least_at_the_nominal_without_jerk(panda: RobotModel, kind: int) -> None:
    jacobian = Kinematics(panda).tool(HOME)[2]
    parameters = gains(FilterParams())
    parameters['jerk_weight'] = 0.0
    target, hessian, gradient = np.linspace(-1, 1, 7), np.zeros((7, 7)), np.zeros(7)
    objective(kind, target, np.ones(7), 1.0, jacobian, parameters[0], hessian, gradient)
    assert np.allclose(hessian, hessian.T) and np.linalg.eigvalsh(hessian).min() > 0
    assert np.allclose(np.linalg.solve(hessian, -gradient), target, atol=1e-8)
