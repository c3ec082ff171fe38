"""A robot of which only the tool's bodies are known: no URDF, the tool's pose in, a twist out.

The tool flies freely: three prismatic joints along the base's axes, then three revolute ones about
the tool's. They are placed anew at every pose with all joints at zero, where their Jacobian is a
rotation, so no attitude is singular. Arm links are not modelled and nothing keeps them safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safety_filter.core.robot import (
    JOINT_DTYPE,
    SPHERE_DTYPE,
    TOOL_DTYPE,
    BodyKind,
    Limits,
    RobotError,
    body_spheres,
)

if TYPE_CHECKING:
    from safety_filter.core.robot import RobotModel

NAMES = ('x', 'y', 'z', 'turn_x', 'turn_y', 'turn_z')
FAR = 1e4
"""Position limit of the free joints, m and rad: none."""
_LIMITS = ('linear_velocity', 'angular_velocity', 'linear_acceleration', 'angular_acceleration')


def tool_model(spec: Mapping[str, Any]) -> RobotModel:
    """Return the model of a robot file whose `tool_only` gives the tool's limits, each axis alike.

    Its bodies are spheres [x, y, z, r] in the tool's frame, for the gripper wide open.

    Raises:
        RobotError: a limit or the bodies are missing or wrong.
    """
    from safety_filter.core.robot import RobotModel
    missing = [key for key in ('base_link', 'tool_link', 'bodies') if key not in spec]
    if missing:
        raise RobotError(f'robot file: missing {", ".join(missing)}')
    bodies = tuple(spec['bodies'])
    spheres = np.array(
        [(5, BodyKind[kind], bodies.index(link), 6, row[3], 0.0, tuple(row[:3]))
         for link, body in spec['bodies'].items()
         for kind, rows in [body_spheres(link, body)] for row in rows], SPHERE_DTYPE)
    if not len(spheres):
        raise RobotError('bodies: expected at least one sphere in the tool frame')
    joints = np.zeros(6, JOINT_DTYPE)
    for i in range(6):
        axis = np.eye(3)[i % 3]
        joints[i] = (i - 1, i, i < 3, 0.0, np.eye(3), np.zeros(3), axis)
    tool = np.zeros(1, TOOL_DTYPE)
    tool[0] = (5, np.eye(3), np.zeros(3))
    return RobotModel(
        name=str(spec.get('name', 'tool')), base_link=str(spec['base_link']),
        tool_link=str(spec['tool_link']), joint_names=NAMES, bodies=bodies,
        limits=_limits(spec['tool_only']), max_opening=0.0, joints=joints, spheres=spheres,
        tool=tool, self_pairs=np.zeros((0, 2), np.int64), urdf='', tool_only=True)


def _limits(given: Any) -> Limits:
    """Return the limits of the free joints: m/s, rad/s and their rates per second."""
    known = given if isinstance(given, Mapping) else {}
    values = [known.get(name) for name in _LIMITS]
    for name, value in zip(_LIMITS, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e3:
            raise RobotError(f'tool_only: {name}: expected a number > 0, got {value!r}')
    linear, angular, surge, swing = (float(v) for v in values if v is not None)
    return Limits(np.full(6, -FAR), np.full(6, FAR), np.repeat([linear, angular], 3),
                  np.repeat([surge, swing], 3))
