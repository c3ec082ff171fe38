"""The launch files under ROS's own `ros2 launch`, where it is installed: a sourced Jazzy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safety_filter import graph, launch_arguments, playback
from safety_filter.arms import wiring
from safety_filter.demo.processes import ros_environment

pytestmark = [
    pytest.mark.ros,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("ros2") is None, reason="`ros2 launch` is not installed"),
]
LAUNCH = Path(__file__).resolve().parents[2] / "launch"
ARGUMENTS: dict[str, tuple[launch_arguments.Argument, ...]] = {
    **{group: launch_arguments.arguments(group) for group in graph.GROUPS},
    "arm": wiring.arguments(),
    "replay": playback.arguments(),
}
PATIENCE = 240.0  # s: the first start of an installation compiles


@pytest.mark.parametrize("group", ARGUMENTS)
def test_show_args_describes_every_argument(group: str) -> None:
    command = ["ros2", "launch", str(LAUNCH / f"{group}.launch.py"), "--show-args"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for argument in ARGUMENTS[group]:
        assert f"'{argument.name}':\n        {argument.text}" in done.stdout


Launched = tuple[subprocess.Popen[bytes], Callable[[str], None]]


@contextmanager
def _launched(folder: Path, *arguments: str) -> Iterator[Launched]:
    """`ros2 launch` of filter and monitor; also what waits for words of its output."""
    folder.mkdir()
    log = folder / "launch.log"
    command = ["ros2", "launch", str(LAUNCH / "filter.launch.py"), *arguments]
    environment = {**ros_environment(), "ROS_LOG_DIR": str(folder)}
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def wait(words: str) -> None:
        end = time.monotonic() + PATIENCE
        while words not in log.read_text():
            assert time.monotonic() < end and process.poll() is None, log.read_text()
            time.sleep(0.1)

    try:
        yield process, wait
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_filter_and_monitor_run_in_a_namespace_and_end_in_order(tmp_path: Path) -> None:
    with _launched(tmp_path / "log", "namespace:=cell") as (process, wait):
        wait("[cell.filter_node]: STOPPED joint_state")
        wait("[cell.monitor_node]: ZERO")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    text = (tmp_path / "log/launch.log").read_text()
    assert text.count("process has finished cleanly") == 2


def test_a_filter_that_dies_is_told_and_not_started_again(tmp_path: Path) -> None:
    with _launched(tmp_path / "log") as (_, wait):
        wait("[filter_node]: STOPPED joint_state")
        text = (tmp_path / "log/launch.log").read_text()
        pid = text.split("[filter_node-1]: process started with pid [")[1].split("]")[0]
        os.kill(int(pid), signal.SIGKILL)
        wait("filter_node ended and is not started again by itself")
        wait("ZERO filter: silent")  # the monitor's zeros
    assert (tmp_path / "log/launch.log").read_text().count("process started") == 2
