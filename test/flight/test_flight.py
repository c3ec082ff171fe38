"""Flight records: what is saved comes back, replays to the last bit, and is told in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel, read_config
from safety_filter.core.wire import Role, empty_tracks
from safety_filter.flight.explain import draw, lines, spans, stop_index
from safety_filter.flight.recorder import (
    BY,
    FlightError,
    FlightRecorder,
    load,
    save,
)
from safety_filter.flight.replay import replay

HOME = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])
RATE = 250.0


def _fly(ticks: int, seconds: float = 10.0) -> tuple[FlightRecorder, RobotModel, FilterParams]:
    """An arm that is driven towards a moving obstacle and loses its command near the end."""
    robot, params = RobotModel.shipped("panda"), FilterParams()
    safety_filter, recorder = SafetyFilter(robot, params), FlightRecorder(seconds, RATE)
    tool = Kinematics(robot).tool(HOME)[1]
    q, command, cloud = HOME.copy(), None, None
    for i in range(ticks):
        now = i / RATE
        if i % 10 == 0 and i < ticks - 120:
            twist = np.array([0.02, 0.12, 0.0, 0.0, 0.0, 0.1 * np.sin(now)])
            command = Command(now, now, "twist", twist, "base")
        if i % 8 == 0:
            tracks = empty_tracks(2)
            tracks["x"], tracks["z"] = tool[0], tool[2]
            tracks["y"] = [tool[1] + 0.25 - 0.02 * now, tool[1] - 0.4]
            tracks["vy"] = [-0.02, 0.0]
            tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.05
            tracks["id"], tracks["role"] = [4, 9], Role.OBSTACLE
            cloud = ObstacleSample(now - 0.05, now, "base", tracks)
        joints = JointSample(now, now, q.copy(), np.zeros(7), 0.08)
        decision = safety_filter.step(now, now, joints, command, cloud)
        recorder.add(now, now, joints, command, cloud, decision)
        q = q + decision.qd / RATE
    return recorder, robot, params


@pytest.fixture(scope="module")
def record_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recorder, robot, params = _fly(600)
    path = tmp_path_factory.mktemp("flight") / "a.flight.npz"
    save(path, recorder.ticks(), params, read_config("panda"), robot.urdf, why="a test")
    return path


def test_what_is_saved_comes_back(record_file: Path) -> None:
    recorder, _, params = _fly(600)
    record = load(record_file)
    assert record.params == params and len(record.ticks) == 600
    for tick, back in zip(recorder.ticks(), record.ticks, strict=True):
        assert (tick.now_mono, tick.decision.state) == (back.now_mono, back.told.state)
        np.testing.assert_array_equal(tick.decision.qd, back.told.qd)
        assert tick.obstacles is not None and back.obstacles is not None
        np.testing.assert_array_equal(tick.obstacles.tracks, back.obstacles.tracks)


def test_every_saved_step_replays_to_the_last_bit(record_file: Path) -> None:
    replayed = replay(load(record_file))
    states = {d.state for d in replayed.decisions}
    assert {"FILTERED", "STOPPED"} <= states
    assert replayed.different == []


def test_a_record_that_begins_in_the_middle_replays_too(tmp_path: Path) -> None:
    recorder, robot, params = _fly(600, seconds=1.0)
    path = tmp_path / "b.flight.npz"
    save(path, recorder.ticks(), params, read_config("panda"), robot.urdf)
    record = load(path)
    assert len(record.ticks) == 250
    assert replay(record).different in ([], [0])


def test_other_parameters_give_other_decisions(record_file: Path) -> None:
    record = load(record_file)
    assert replay(record, FilterParams(obstacle_margin=0.05)).different


def test_the_story_names_the_stop_what_was_near_and_the_ages(record_file: Path) -> None:
    record = load(record_file)
    text = "\n".join(lines(record, replay(record)))
    assert "the stop: command" in text
    assert "track 4" in text and "mm" in text
    assert "replayed: 600 of 600 decisions equal to the last bit" in text
    stop = stop_index(record)
    assert stop is not None and record.ticks[stop].told.reason == "command"
    assert sum(s.last - s.first + 1 for s in spans(record)) == 600


@pytest.mark.parametrize("event", list(BY))
def test_a_stop_names_who_asked_and_replays(tmp_path: Path, event: int) -> None:
    robot, params = RobotModel.shipped("panda"), FilterParams()
    safety_filter, recorder = SafetyFilter(robot, params), FlightRecorder(5.0, RATE)
    joints = JointSample(0.0, 0.0, HOME, np.zeros(7), 0.08)
    cloud = ObstacleSample(0.0, 0.0, "base", empty_tracks())
    for i in range(20):
        now = i / RATE
        if i == 10:
            safety_filter.stop(BY[event])
            recorder.event(event)
        command = Command(now, now, "twist", np.full(6, 0.01), "base")
        decision = safety_filter.step(now, now, joints, command, cloud)
        recorder.add(now, now, joints, command, cloud, decision)
    path = tmp_path / "c.flight.npz"
    save(path, recorder.ticks(), params, read_config("panda"), robot.urdf)
    record = load(path)
    assert record.ticks[-1].told.reason == "operator"
    assert f"the stop: operator: stopped by {BY[event]}" in "\n".join(lines(record))
    again = replay(record)
    assert again.different == []
    assert again.decisions[-1].detail == record.ticks[-1].told.detail


def test_the_ring_keeps_the_last_seconds_only() -> None:
    recorder, _, _ = _fly(300, seconds=0.5)
    ticks = recorder.ticks()
    assert len(ticks) == 125 and ticks[-1].now_mono == pytest.approx(299 / RATE)


@pytest.mark.parametrize("fault", ["missing", "torn", "text", "pickle"])
def test_files_that_are_no_records_are_told_and_run_nothing(
    tmp_path: Path, record_file: Path, fault: str
) -> None:
    path = tmp_path / "x.flight.npz"
    if fault == "torn":
        path.write_bytes(record_file.read_bytes()[:-3000])
    elif fault == "text":
        path.write_text("hello")
    elif fault == "pickle":
        np.savez(open(path, "wb"), header=np.array([{"a": 1}], dtype=object))  # noqa: SIM115
    with pytest.raises(FlightError, match=r"x\.flight\.npz"):
        load(path)


def test_explain_prints_and_draws(record_file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    command = [sys.executable, "-m", "safety_filter.cli", "explain", str(record_file)]
    done = subprocess.run(
        [*command, "--picture", str(picture)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "the stop: command" in done.stdout
    assert picture.stat().st_size > 5000
    missing = [*command[:-1], str(tmp_path / "none")]
    done = subprocess.run(missing, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "explain:" in done.stderr


def test_drawing_needs_no_obstacle(tmp_path: Path) -> None:
    recorder, robot, params = _fly(3)
    path = tmp_path / "d.flight.npz"
    save(path, recorder.ticks(), params, read_config("panda"), robot.urdf)
    draw(load(path), tmp_path / "d.png")
    assert (tmp_path / "d.png").exists()
