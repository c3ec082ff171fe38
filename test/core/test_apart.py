"""Compiling in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safety_filter.core.apart import _key, compile_apart
from safety_filter.core.compile_cache import PREFIX, VARIABLE
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.robot import RobotModel, read_config

PARAMS = FilterParams()


@pytest.mark.timeout(600)
def test_the_first_start_compiles_nothing_itself_and_stays_small(tmp_path: Path) -> None:
    """With nothing compiled before: the compiler's memory is not that of the filter."""
    code = (
        'import sys\n'
        'from safety_filter.core import kernel, qp\n'
        'from safety_filter.core.apart import compile_apart\n'
        'from safety_filter.core.filter import SafetyFilter\n'
        'from safety_filter.core.filter_params import FilterParams\n'
        'from safety_filter.core.robot import RobotModel, read_config\n'
        'robot = RobotModel.shipped("panda")\n'
        'asked = robot, read_config("panda"), FilterParams()\n'
        'assert compile_apart(*asked) and not compile_apart(*asked)\n'
        'SafetyFilter(robot).warm_up()\n'
        'for f in (kernel.assemble, kernel.verify, qp._grow):\n'
        '    assert f.stats.cache_hits and not f.stats.cache_misses, f\n'
        'words = open("/proc/self/status").read().split()\n'
        'print(int(words[words.index("VmHWM:") + 1]) / 1024)\n')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          env={**os.environ, VARIABLE: str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300.0, 'MB'


def test_without_a_folder_to_write_to_nothing_is_started(panda: RobotModel,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '/proc/nowhere')
    assert not compile_apart(panda, read_config('panda'), PARAMS)


@pytest.mark.parametrize('spec', [{}, {'joints': 'none'}])
def test_a_process_that_fails_leaves_it_to_this_one(
        panda: RobotModel, spec: dict[str, Any], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f'{PREFIX}0'
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    assert compile_apart(panda, spec, PARAMS)
    assert compile_apart(panda, spec, PARAMS), 'not taken for done'
    assert not list(folder.glob('complete-*'))


def test_another_back_end_or_kind_of_robot_is_compiled_for_itself(panda: RobotModel) -> None:
    tool = replace(panda, tool_only=True)
    osqp = replace(PARAMS, qp_solver='osqp')
    keys = {_key(panda, PARAMS), _key(tool, PARAMS), _key(panda, osqp)}
    assert len(keys) == 3
