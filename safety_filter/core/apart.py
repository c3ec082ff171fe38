"""Compiles in another process: what a compiler takes, some 200 MB, it does not give back.

Afterwards the compiled code lies in numba's cache, from which this process loads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba as nb
from llvmlite import binding  # type: ignore[import-untyped]

from safety_filter.core.compile_cache import PREFIX, VARIABLE
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE, FilterParams
from safety_filter.core.robot import RobotModel

LONGEST = 600.0
"""Seconds after which the other process is given up."""


def compile_apart(robot: RobotModel, spec: Mapping[str, Any], params: FilterParams) -> bool:
    """Compile for a robot of the robot file `spec` unless that was done; return if it was needed.

    Where the cache cannot be written, or the other process fails, this one compiles by itself
    when it has to.
    """
    folder = Path(os.environ.get(VARIABLE, ''))
    if not folder.name.startswith(PREFIX):
        return False
    mark = folder / f'complete-{_key(robot, params)}'
    if mark.exists():
        return False
    job = {'urdf': robot.urdf, 'spec': dict(spec), 'params': dataclasses.asdict(params)}
    try:
        done = subprocess.run([sys.executable, '-m', __name__], input=json.dumps(job), text=True,
                              stdout=subprocess.DEVNULL, check=False, timeout=LONGEST)
        if done.returncode == 0:
            mark.touch()
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f'compiling in another process: {error}', file=sys.stderr)
    return True


def _key(robot: RobotModel, params: FilterParams) -> str:
    """Return what numba's cache holds good for, and what of it was called."""
    digest = hashlib.sha256(f'{sys.version} {nb.__version__} {binding.get_host_cpu_name()}'
                            f' {params.qp_solver} {robot.tool_only}'.encode())
    for path in sorted(Path(__file__).parent.glob('*.py')):
        digest.update(f'{path} {path.stat().st_mtime_ns}'.encode())
    return digest.hexdigest()[:16]


def main() -> None:
    """Compile what the standard input asks for."""
    job = json.load(sys.stdin)
    robot = RobotModel.load(job['urdf'] or None, job['spec'])
    SafetyFilter(robot, TABLE.validate(job['params'])).warm_up()


if __name__ == '__main__':
    main()
