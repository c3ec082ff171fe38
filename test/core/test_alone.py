"""The core on its own: what it needs, and what a step leaves behind."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
from core.rig import Bench, track

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.robot import RobotModel

FOREIGN = ('rclpy', 'torch', 'torchvision', 'cv2', 'pybullet', 'transformers', 'ultralytics')


def test_neither_ros_nor_torch_nor_a_simulator_is_needed() -> None:
    """With each of them not to be found, a robot is loaded and the answer filtered."""
    code = (
        'import sys\n'
        f'for name in {FOREIGN!r}: sys.modules[name] = None\n'
        'import numpy as np\n'
        'from safety_filter.core.filter import SafetyFilter\n'
        'from safety_filter.core.inputs import Command, JointSample, ObstacleSample\n'
        'from safety_filter.core.robot import RobotModel\n'
        'from safety_filter.core.wire import empty_tracks\n'
        'q = np.array([0, -0.4, 0, -2.2, 0, 1.9, 0.8])\n'
        'step = SafetyFilter(RobotModel.shipped("panda")).step\n'
        'd = step(0.0, 0.0, JointSample(0.0, 0.0, q, np.zeros(7)),\n'
        '         Command(0.0, 0.0, "joint_velocity", np.full(7, 0.01)),\n'
        '         ObstacleSample(0.0, 0.0, "base", empty_tracks()))\n'
        'assert d.state == "PASS", d\n')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_step_leaves_memory_behind(panda: RobotModel) -> None:
    """Moving tracks that come and go under new names, filtered and stopped steps."""
    bench = Bench(SafetyFilter(panda, TABLE.validate({'base_frames': ['base']})))
    tool = bench.safety._kinematics.tool(bench.q)[1]
    down = np.array([0, 0, -0.1, 0, 0, 0.0])
    states: set[str] = set()

    def run(start: int, steps: int) -> None:
        for k in range(start, start + steps):
            near = tool + (0.0, 0.1 * np.sin(0.02 * k), -0.25 + 0.1 * np.sin(0.013 * k))
            tracks = np.concatenate([track(near, 0.05, id=k // 50 + i) for i in range(5)])
            tracks['x'] += 0.2 * np.arange(5)
            states.add(bench.step(down if k % 200 < 100 else -down, tracks, 'twist').state)

    tracemalloc.start()
    try:
        run(0, 1200)  # until every table of past sightings and samples is full
        before, _ = tracemalloc.get_traced_memory()
        run(1200, 1500)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(states) > 1
    assert after - before < 100_000, 'one array kept with each step is more'
