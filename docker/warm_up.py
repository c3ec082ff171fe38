"""Compiles what the nodes of an image run, while it is built: containers then start at once."""

from __future__ import annotations

import importlib.util

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.robot import RobotModel

ROBOT = "panda"


def main() -> None:
    SafetyFilter(RobotModel.shipped(ROBOT)).warm_up()
    if importlib.util.find_spec("onnxruntime") is not None:
        _perception()


def _perception() -> None:
    """Perception's kernels; they are not in images without its detector."""
    from safety_filter.eyes import build
    from safety_filter.nodes.robot import find_robot
    from safety_filter.perception.params import PerceptionParams
    from safety_filter.perception.warm_up import warm_up

    robot = find_robot(ROBOT, "")
    warm_up(build(robot, PerceptionParams(), ""), len(robot.arm_joints))


if __name__ == "__main__":
    main()
