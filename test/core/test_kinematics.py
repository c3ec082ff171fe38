"""Positions, Jacobians and accelerations against pinocchio and finite differences."""

from __future__ import annotations

import numpy as np
import pinocchio as pin
import pytest

from safety_filter.core.kinematics import (
    Kinematics,
    carried_acceleration,
    joint_accelerations,
    joint_frames,
)
from safety_filter.core.robot import Array, RobotModel


def random_q(robot: RobotModel, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return rng.uniform(robot.limits.lower, robot.limits.upper)


def pinocchio_state(robot: RobotModel, q: Array, opening: float) -> tuple[pin.Model, pin.Data]:
    model = pin.buildModelFromXML(robot.urdf)
    full = pin.neutral(model)
    for name, value in zip(robot.joint_names, q, strict=True):
        full[model.joints[model.getJointId(name)].idx_q] = value
    for i in range(len(robot.joints)):
        if robot.joints['column'][i] < 0:
            full[model.joints[i + 1].idx_q] = opening * robot.joints['gain'][i]
    data = model.createData()
    pin.forwardKinematics(model, data, full)
    pin.updateFramePlacements(model, data)
    pin.computeJointJacobians(model, data, full)
    return model, data


@pytest.mark.parametrize('seed', range(5))
def test_spheres_and_tool_agree_with_pinocchio(panda: RobotModel, seed: int) -> None:
    q, opening = random_q(panda, seed), 0.03 * seed / 5
    kinematics = Kinematics(panda)
    model, data = pinocchio_state(panda, q, opening)
    points = kinematics.spheres(q, opening)
    for sphere, point in zip(panda.spheres, points, strict=True):
        expected = data.oMi[int(sphere['joint']) + 1].act(np.array(sphere['offset']))
        assert np.allclose(point, expected, atol=1e-12)
    rotation, position, jacobian = kinematics.tool(q)
    frame = model.getFrameId(panda.tool_link)
    assert np.allclose(rotation, data.oMf[frame].rotation, atol=1e-12)
    assert np.allclose(position, data.oMf[frame].translation, atol=1e-12)
    columns = [model.joints[model.getJointId(n)].idx_v for n in panda.joint_names]
    oracle = pin.getFrameJacobian(model, data, frame, pin.LOCAL_WORLD_ALIGNED)[:, columns]
    assert np.allclose(jacobian, oracle, atol=1e-12)


def test_sphere_jacobians_are_the_derivatives(panda: RobotModel) -> None:
    kinematics, q, step = Kinematics(panda), random_q(panda, 3), 1e-6
    jacobians = kinematics.sphere_jacobians(q)
    for i in range(panda.n):
        ahead, behind = q.copy(), q.copy()
        ahead[i] += step
        behind[i] -= step
        slope = (kinematics.spheres(ahead) - kinematics.spheres(behind)) / (2 * step)
        assert np.allclose(jacobians[:, i], slope, atol=1e-8)


def test_accelerations_are_second_derivatives_along_constant_velocity(panda: RobotModel) -> None:
    kinematics, q, step = Kinematics(panda), random_q(panda, 4), 1e-4
    rate = np.random.default_rng(5).normal(size=panda.n)
    count = len(panda.joints)
    rotation, position = np.zeros((count, 3, 3)), np.zeros((count, 3))
    axis, omega, alpha, linear = np.zeros((4, count, 3))
    joint_frames(panda.joints, q, panda.max_opening, rotation, position, axis)
    joint_accelerations(panda.joints, position, axis, rate, omega, alpha, linear)
    points = kinematics.spheres(q)
    second = (kinematics.spheres(q + step * rate) - 2 * points
              + kinematics.spheres(q - step * rate)) / step ** 2
    for sphere, point, expected in zip(panda.spheres, points, second, strict=True):
        out = np.zeros(3)
        carried_acceleration(position, omega, alpha, linear, int(sphere['joint']), point, out)
        assert np.allclose(out, expected, atol=1e-5)


def test_fingers_follow_the_opening(panda: RobotModel) -> None:
    kinematics, q = Kinematics(panda), random_q(panda, 1)
    fingers = panda.spheres['kind'] == 2
    moved = np.linalg.norm(kinematics.spheres(q, 0.08) - kinematics.spheres(q, 0.0), axis=1)
    assert np.allclose(moved[fingers], 0.04)
    assert np.allclose(moved[~fingers], 0.0)
