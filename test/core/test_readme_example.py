"""The library's example in twenty lines, and whatever of Python the README prints: both run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[2] / 'README.md'


def test_what_the_readme_prints_runs_as_it_stands() -> None:
    blocks = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
    examples = [b for b in blocks if 'SafetyFilter(' in b]
    assert examples, 'the README shows the library'
    for text in examples:
        names: dict[str, Any] = {}
        exec(compile(text, str(README), 'exec'), names)
        assert names['decision'].state == 'FILTERED'
        assert 0.0 < names['decision'].min_distance < 0.1


def test_example() -> None:
    # --- example
    import numpy as np

    from safety_filter.core import shapes
    from safety_filter.core.filter import SafetyFilter
    from safety_filter.core.inputs import Command, JointSample, ObstacleSample
    from safety_filter.core.robot import RobotModel

    robot = RobotModel.shipped('panda')  # or RobotModel.load('arm.urdf', 'arm.yaml')
    safety = SafetyFilter(robot)
    q, dq, now = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.8]), np.zeros(7), 0.0
    carton = shapes.box((0.04, 0.04, 0.08), resting=True)  # half extents, m: four tight ellipsoids
    ball, x = shapes.sphere(0.05), 0.8  # m, base frame; cylinders, capsules and planes likewise
    for _ in range(250):  # one second: drive at a ball that rolls towards the arm
        seen = np.concatenate([shapes.tracks(carton, 1, (0.5, 0.3, 0.08)),
                               shapes.tracks(ball, 2, (x, 0.0, 0.45), velocity=(-0.1, 0, 0))])
        twist = Command(now, now, 'twist', np.array([0.2, 0, 0, 0, 0, 0]), 'base')
        decision = safety.step(now, now, JointSample(now, now, q, dq), twist,
                               ObstacleSample(now, now, 'base', seen))
        q, dq, now, x = q + decision.qd / 250, decision.qd, now + 1 / 250, x - 0.1 / 250
    print(decision.state, decision.nearest, decision.active_rows)
    # --- end
    assert decision.state == 'FILTERED' and decision.nearest is not None
    assert decision.nearest.track_id == 2
    assert 0.0 < decision.min_distance < 0.1
