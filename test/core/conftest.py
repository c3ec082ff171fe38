"""Shared fixtures: the Panda, and a filter that compiles once."""

from __future__ import annotations

import pytest

from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel


@pytest.fixture(scope='session')
def panda() -> RobotModel:
    return RobotModel.shipped('panda')


@pytest.fixture(scope='session')
def panda_kinematics(panda: RobotModel) -> Kinematics:
    return Kinematics(panda)
