"""Compiled forward kinematics: sphere centres, the tool frame, and their Jacobians, in the base
frame.

Each function fills arrays that the caller owns. Checked against pinocchio in the tests.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from safety_filter.core.robot import Array, RobotModel, Structs


@nb.njit(cache=True, error_model='numpy')
def joint_frames(joints: Structs, q: Array, opening: float, rotation: Array, position: Array,
                 axis: Array) -> None:
    """Fill the joints' frames `rotation` (j, 3, 3), `position` (j, 3) and their axes (j, 3)."""
    for i in range(len(joints)):
        joint = joints[i]
        value = q[joint.column] if joint.column >= 0 else joint.gain * opening
        turned = rotation[i]
        if joint.parent < 0:
            for r in range(3):
                position[i, r] = joint.offset[r]
                for c in range(3):
                    turned[r, c] = joint.rotation[r, c]
        else:
            base = rotation[joint.parent]
            for r in range(3):
                position[i, r] = position[joint.parent, r]
                for k in range(3):
                    position[i, r] += base[r, k] * joint.offset[k]
                for c in range(3):
                    turned[r, c] = (base[r, 0] * joint.rotation[0, c]
                                    + base[r, 1] * joint.rotation[1, c]
                                    + base[r, 2] * joint.rotation[2, c])
        x, y, z = joint.axis[0], joint.axis[1], joint.axis[2]
        for r in range(3):
            axis[i, r] = turned[r, 0] * x + turned[r, 1] * y + turned[r, 2] * z
        if joint.prismatic:
            for r in range(3):
                position[i, r] += value * axis[i, r]
            continue
        s, c1 = np.sin(value), 1.0 - np.cos(value)
        for r in range(3):
            a, b, c = turned[r, 0], turned[r, 1], turned[r, 2]
            along = (a * x + b * y + c * z) * c1  # Rodrigues' formula, row by row
            turned[r, 0] = a * (1.0 - c1) + (b * z - c * y) * s + along * x
            turned[r, 1] = b * (1.0 - c1) + (c * x - a * z) * s + along * y
            turned[r, 2] = c * (1.0 - c1) + (a * y - b * x) * s + along * z


@nb.njit(cache=True, error_model='numpy')
def place(rotation: Array, position: Array, joint: int, offset: Array, out: Array) -> None:
    """Fill `out` (3,) with a point fixed to a joint (-1: base)."""
    for r in range(3):
        if joint < 0:
            out[r] = offset[r]
        else:
            out[r] = (position[joint, r] + rotation[joint, r, 0] * offset[0]
                      + rotation[joint, r, 1] * offset[1] + rotation[joint, r, 2] * offset[2])


@nb.njit(cache=True, error_model='numpy')
def point_jacobian(joints: Structs, position: Array, axis: Array, joint: int, point: Array,
                   out: Array) -> None:
    """Fill `out` (n, 3): row i is the velocity of `point` per unit velocity of arm joint i."""
    out[:] = 0.0
    i = joint
    while i >= 0:
        column = joints[i].column
        if column >= 0:
            ax, ay, az = axis[i, 0], axis[i, 1], axis[i, 2]
            if joints[i].prismatic:
                out[column, 0], out[column, 1], out[column, 2] = ax, ay, az
            else:
                x = point[0] - position[i, 0]
                y = point[1] - position[i, 1]
                z = point[2] - position[i, 2]
                out[column, 0] = ay * z - az * y
                out[column, 1] = az * x - ax * z
                out[column, 2] = ax * y - ay * x
        i = joints[i].parent


@nb.njit(cache=True, error_model='numpy')
def tool_frame(joints: Structs, tool: Structs, rotation: Array, position: Array, axis: Array,
               tool_rotation: Array, tool_position: Array, jacobian: Array) -> None:
    """Fill the tool's rotation (3, 3), origin (3,) and Jacobian (6, n): linear above angular."""
    joint = tool[0].joint
    place(rotation, position, joint, tool[0].offset, tool_position)
    for r in range(3):
        for c in range(3):
            if joint < 0:
                tool_rotation[r, c] = tool[0].rotation[r, c]
            else:
                tool_rotation[r, c] = (rotation[joint, r, 0] * tool[0].rotation[0, c]
                                       + rotation[joint, r, 1] * tool[0].rotation[1, c]
                                       + rotation[joint, r, 2] * tool[0].rotation[2, c])
    jacobian[:] = 0.0
    i = joint
    while i >= 0:
        column = joints[i].column
        if column >= 0:
            ax, ay, az = axis[i, 0], axis[i, 1], axis[i, 2]
            if joints[i].prismatic:
                jacobian[0, column], jacobian[1, column], jacobian[2, column] = ax, ay, az
            else:
                x = tool_position[0] - position[i, 0]
                y = tool_position[1] - position[i, 1]
                z = tool_position[2] - position[i, 2]
                jacobian[0, column] = ay * z - az * y
                jacobian[1, column] = az * x - ax * z
                jacobian[2, column] = ax * y - ay * x
                jacobian[3, column], jacobian[4, column], jacobian[5, column] = ax, ay, az
        i = joints[i].parent


@nb.njit(cache=True, error_model='numpy')
def joint_accelerations(joints: Structs, position: Array, axis: Array, rate: Array, omega: Array,
                        alpha: Array, acceleration: Array) -> None:
    """Fill angular velocity, angular and linear acceleration (j, 3) of the joints' frames.

    At constant joint velocity `rate` (n,), so this is J' q' (time derivative of J): the recursion
    of Luh, Walker and Paul with zero joint acceleration and no gravity.
    """
    for i in range(len(joints)):
        parent = joints[i].parent
        speed = rate[joints[i].column] if joints[i].column >= 0 else 0.0
        zx, zy, zz = axis[i, 0] * speed, axis[i, 1] * speed, axis[i, 2] * speed
        if parent < 0:
            for k in range(3):
                omega[i, k] = alpha[i, k] = acceleration[i, k] = 0.0
        else:
            for k in range(3):
                omega[i, k], alpha[i, k] = omega[parent, k], alpha[parent, k]
            carried_acceleration(position, omega, alpha, acceleration, parent, position[i],
                                 acceleration[i])
        wx, wy, wz = omega[i, 0], omega[i, 1], omega[i, 2]
        cx, cy, cz = wy * zz - wz * zy, wz * zx - wx * zz, wx * zy - wy * zx
        if joints[i].prismatic:
            acceleration[i, 0] += 2.0 * cx
            acceleration[i, 1] += 2.0 * cy
            acceleration[i, 2] += 2.0 * cz
        else:
            alpha[i, 0], alpha[i, 1] = alpha[i, 0] + cx, alpha[i, 1] + cy
            alpha[i, 2] += cz
            omega[i, 0], omega[i, 1], omega[i, 2] = wx + zx, wy + zy, wz + zz


@nb.njit(cache=True, error_model='numpy')
def carried_acceleration(position: Array, omega: Array, alpha: Array, acceleration: Array,
                         joint: int, point: Array, out: Array) -> None:
    """Fill `out` (3,) with the acceleration of a point fixed to a joint (-1: base)."""
    if joint < 0:
        out[:] = 0.0
        return
    x = point[0] - position[joint, 0]
    y = point[1] - position[joint, 1]
    z = point[2] - position[joint, 2]
    wx, wy, wz = omega[joint, 0], omega[joint, 1], omega[joint, 2]
    ax, ay, az = alpha[joint, 0], alpha[joint, 1], alpha[joint, 2]
    along, square = wx * x + wy * y + wz * z, wx * wx + wy * wy + wz * wz
    out[0] = acceleration[joint, 0] + ay * z - az * y + wx * along - square * x
    out[1] = acceleration[joint, 1] + az * x - ax * z + wy * along - square * y
    out[2] = acceleration[joint, 2] + ax * y - ay * x + wz * along - square * z


class Kinematics:
    """Kinematics of one robot with its own buffers, for use outside the filter's kernel."""

    def __init__(self, robot: RobotModel) -> None:
        self.robot = robot
        count = len(robot.joints)
        self._rotation, self._position = np.zeros((count, 3, 3)), np.zeros((count, 3))
        self._axis = np.zeros((count, 3))

    def _update(self, q: Array, opening: float | None) -> None:
        value = self.robot.max_opening if opening is None else opening
        joint_frames(self.robot.joints, np.asarray(q, float), value, self._rotation,
                     self._position, self._axis)

    def spheres(self, q: Array, opening: float | None = None) -> Array:
        """Return the sphere centres (s, 3), m."""
        self._update(q, opening)
        out = np.zeros((len(self.robot.spheres), 3))
        for sphere, point in zip(self.robot.spheres, out, strict=True):
            place(self._rotation, self._position, sphere['joint'], sphere['offset'], point)
        return out

    def sphere_jacobians(self, q: Array, opening: float | None = None) -> Array:
        """Return the Jacobians (s, n, 3) of the sphere centres, transposed."""
        points = self.spheres(q, opening)
        out = np.zeros((len(points), self.robot.n, 3))
        for sphere, point, jacobian in zip(self.robot.spheres, points, out, strict=True):
            point_jacobian(self.robot.joints, self._position, self._axis, sphere['joint'], point,
                           jacobian)
        return out

    def tool(self, q: Array) -> tuple[Array, Array, Array]:
        """Return the tool frame's rotation (3, 3), origin (3,) and Jacobian (6, n)."""
        self._update(q, None)
        rotation, position = np.zeros((3, 3)), np.zeros(3)
        jacobian = np.zeros((6, self.robot.n))
        tool_frame(self.robot.joints, self.robot.tool, self._rotation, self._position, self._axis,
                   rotation, position, jacobian)
        return rotation, position, jacobian

    def joint_frame(self, q: Array, joint: int) -> tuple[Array, Array]:
        """Return rotation (3, 3) and origin (3,) of a joint's frame (-1: base)."""
        if joint < 0:
            return np.eye(3), np.zeros(3)
        self._update(q, None)
        return self._rotation[joint].copy(), self._position[joint].copy()
