"""Compiled code does not look at its indices: with numba's checks on it must not fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from safety_filter.bench.adversary import cases
from safety_filter.bench.filter_speed import measure
from safety_filter.bench.invariance import run
from safety_filter.core.robot import RobotModel

robot = RobotModel.shipped('panda')
for case in cases(6, 21, duration=0.6):
    run(robot, case)
for solver in ('daqp', 'osqp'):
    row = measure(robot, solver, 200, 250)
print('relaxed', sum(row['stops'].values()))
"""


def test_no_index_is_out_of_bounds(tmp_path: Path) -> None:
    """Adversarial runs, and a crowd in which rows cannot all hold."""
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True,
                          env={**os.environ, 'NUMBA_BOUNDSCHECK': '1',
                               'NUMBA_CACHE_DIR': str(tmp_path)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0, 'the crowd is one'
