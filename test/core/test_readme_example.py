"""The README's example of the library, run as it is printed there."""

from __future__ import annotations


def test_example() -> None:
    # --- example
    import numpy as np

    from safety_filter.core.filter import SafetyFilter
    from safety_filter.core.inputs import Command, JointSample, ObstacleSample
    from safety_filter.core.robot import RobotModel
    from safety_filter.core.wire import empty_tracks

    robot = RobotModel.shipped('panda')  # or RobotModel.load('arm.urdf', 'arm.yaml')
    safety = SafetyFilter(robot)
    q, dq, now = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.8]), np.zeros(7), 0.0
    ball = empty_tracks(1)
    ball['x'], ball['y'], ball['z'], ball['vx'] = 0.8, 0.0, 0.45, -0.1  # m, m/s, base frame
    ball['sx'] = ball['sy'] = ball['sz'] = 0.05
    for _ in range(250):  # one second: drive at a ball that rolls towards the arm
        twist = Command(now, now, 'twist', np.array([0.2, 0, 0, 0, 0, 0]), 'base')
        decision = safety.step(now, now, JointSample(now, now, q, dq), twist,
                               ObstacleSample(now, now, 'base', ball))
        q, dq, now = q + decision.qd / 250, decision.qd, now + 1 / 250
        ball['x'] -= 0.1 / 250
    print(decision.state, decision.nearest, decision.active_rows)
    # --- end
    assert decision.state == 'FILTERED' and decision.nearest is not None
    assert 0.0 < decision.min_distance < 0.1
