"""The demo end to end, with a policy of the shipped architecture and random weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safety_filter.cli import main
from safety_filter.demo.processes import DOMAINS, _free_domain, ros_environment

pytestmark = pytest.mark.ros


def _command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "safety_filter.cli", "demo", "--out", str(out), *arguments]


def _nodes_of(out: Path) -> list[psutil.Process]:
    """Nodes whose environment names this run's log folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(out) in process.environ().get("ROS_LOG_DIR", ""):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.timeout(400)
def test_one_short_scene_with_both_methods(tmp_path: Path, untrained: Path) -> None:
    out = tmp_path / "demo"
    command = _command(out, "--episodes", "1", "--time-limit", "3", "--policy", str(untrained))
    done = subprocess.run(command, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((out / "summary.json").read_text())
    assert content["complete"] is True
    for method in ("none", "filter"):
        figures = content["methods"][method]
        assert figures["n"] == 1
        assert {"collisions", "successes", "safe_successes", "min_distance_m"} <= set(figures)
    assert content["rates_hz"]["filter_node.loop"] > 0.0
    assert content["latency_ms"]["filter_node.image_to_command_p50"] > 0.0
    assert (out / "film.webm").stat().st_size > 1000
    assert "data:video/webm" in (out / "report.html").read_text()
    assert "filter" in done.stdout and "collisions" in done.stdout
    assert not _nodes_of(out)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_no_process_is_left(
    tmp_path: Path, untrained: Path, number: signal.Signals
) -> None:
    out = tmp_path / "demo"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    runner = subprocess.Popen(_command(out, "--policy", str(untrained)), **quiet)
    deadline = time.monotonic() + 150.0
    while len(_nodes_of(out)) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(_nodes_of(out)) >= 4
    os.kill(runner.pid, number)
    code = runner.wait(timeout=60.0)
    assert code == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    deadline = time.monotonic() + 30.0
    while _nodes_of(out) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _nodes_of(out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--episodes", "0"], "--episodes >= 1"),
        (["--instruction", "sing"], "names no object"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_arguments_are_told_before_anything_starts(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    command = _command(tmp_path / "demo", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr


def test_too_little_room_for_the_results_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**20))
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "10 MiB free, expected at least 200" in capsys.readouterr().err


def test_a_domain_that_somebody_has_joined_is_not_drawn() -> None:
    context = Context()
    taken = int(ros_environment()["ROS_DOMAIN_ID"])
    free = next(d for d in DOMAINS if d != taken and _free_domain([d, 0]) == d)
    rclpy.init(context=context, domain_id=taken, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node("somebody", context=context)
        assert _free_domain([taken, free]) == free
        node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)


@pytest.mark.parametrize("display", ["", ":987"])
def test_a_window_without_a_display_is_told_before_anything_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    display: str,
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    assert main(["demo", "--gui", "--out", str(tmp_path / "demo")]) == 2
    assert "--gui: no display for the window" in capsys.readouterr().err


@pytest.mark.timeout(200)
def test_a_policy_that_is_not_there_ends_the_demo_with_its_name(tmp_path: Path) -> None:
    command = _command(tmp_path / "demo", "--policy", str(tmp_path / "none"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert "vla_node" in done.stdout and "is missing" in done.stdout
    assert not _nodes_of(tmp_path / "demo")
