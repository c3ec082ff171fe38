"""filter_node and monitor_node as processes, and an arm that holds its last command for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ros_rig import EVENT_SECONDS, HOME, PATIENT, Rig, running, second_source
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64MultiArray

from safety_filter import graph
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import empty_tracks
from safety_filter.demo.processes import ProcessGroup
from safety_filter.nodes import conversion
from safety_filter.nodes.filter_node import TABLE as FILTER_TABLE
from safety_filter.nodes.monitor_node import beat_every
from safety_filter.nodes.monitor_params import TABLE as MONITOR_TABLE
from safety_filter.nodes.qos import COMMAND

pytestmark = pytest.mark.ros
FILTER, MONITOR = "filter_node", "monitor_node"
LIMIT = 0.060  # s until the arm sees zero


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Rig, ProcessGroup]]:
    with running(tmp_path, graph.NODES[FILTER], graph.NODES[MONITOR]) as processes:
        rig = Rig("arm/joint_velocity")
        rig.wait_passing()
        yield rig, processes
        rig.close()


def _in_motion(rig: Rig) -> None:
    """Half a second of motion without a break, in as many attempts as a busy machine needs."""
    for _ in range(10):
        rig.twist = np.zeros(6)
        rig.wait_passing()
        rig.twist = np.array([0.0, 0.03, 0.0, 0, 0, 0])
        rig.wait_moving()
        if all(qd.any() for _, qd in rig.watch(0.5)):
            return
    pytest.fail(f"no steady motion; {rig.states}")


def _hiccup(rig: Rig, start: float, end: float) -> float:
    """What the machine itself added, s, from half a second before `start` to `end`: to the
    stream of commands before `start`, or to a thread of the test."""
    times = [t for t, _ in rig.commands_since(start - 0.5) if t <= start]
    stream = float(np.diff(times).max()) - 0.004
    return max(stream, rig.hiccup(start - 0.5, end))


def _zero_after(rig: Rig, start: float) -> float:
    """Seconds from `start` to the command after which there are only zeros."""
    last_motion = max((t for t, qd in rig.commands_since(start) if qd.any()), default=start)
    zeros = [t for t, qd in rig.commands_since(last_motion) if not qd.any()]
    assert zeros, "the arm saw no zero"
    return zeros[0] - start


@pytest.mark.parametrize(
    ("victim", "survivor", "words"),
    [(FILTER, MONITOR, "STOPPED filter: silent"), (MONITOR, FILTER, "STOPPED monitor")],
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_arm_sees_zero_when_filter_or_monitor_dies_or_freezes(
    both: tuple[Rig, ProcessGroup], victim: str, survivor: str, words: str, number: signal.Signals
) -> None:
    rig, processes = both
    _in_motion(rig)
    start = time.monotonic()
    os.kill(processes.processes[victim].pid, number)
    rig.wait_state(survivor, words)
    time.sleep(0.5)
    zero = _zero_after(rig, start)
    assert zero < LIMIT + _hiccup(rig, start, start + zero)
    assert not rig.qd.any()
    if number == signal.SIGKILL and victim == MONITOR:  # another one does not set it free
        assert rig.call(f"{FILTER}/reset") == (False, "not reset: monitor: silent")
        assert rig.values(FILTER)["detail"] == "stopped by the monitor's silence"
    if number == signal.SIGSTOP:  # and it stays at zero when what was frozen comes back
        os.kill(processes.processes[victim].pid, signal.SIGCONT)
        if victim == MONITOR:
            rig.wait_state(MONITOR, "STOPPED monitor: was frozen")
            rig.wait_state(FILTER, "STOPPED operator: stopped by the monitor")
        assert all(not qd.any() for _, qd in rig.watch(0.8))


class Impostor:
    """Publishes joint velocities in the filter's name."""

    def __init__(self, rig: Rig) -> None:
        self.qd, self.period = np.zeros(7), 0.004
        self._publisher = rig.node.create_publisher(
            Float64MultiArray, f"{FILTER}/joint_velocity_out", COMMAND
        )
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            self._publisher.publish(Float64MultiArray(data=array("d", self.qd)))
            self._end.wait(self.period)

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@contextmanager
def _impostor(folder: Path, **parameters: Any) -> Iterator[tuple[Rig, Impostor]]:
    """A monitor with an impostor in the filter's place."""
    with running(folder, graph.NODES[MONITOR].with_parameters(**parameters)):
        rig = Rig("arm/joint_velocity")
        impostor = Impostor(rig)
        try:
            rig.wait_passing(MONITOR)
            yield rig, impostor
        finally:
            impostor.close()
            rig.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Rig, Impostor]]:
    with _impostor(tmp_path) as found:
        yield found


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[tuple[Rig, Impostor]]:
    """With limits that a busy machine does not break."""
    with _impostor(tmp_path, **{**PATIENT[MONITOR], "latch_after": 0.5}) as found:
        yield found


def _on_the_way(angle: float) -> np.ndarray:
    """An obstacle where the tool comes when the first joint has turned by `angle`, rad."""
    tool = Kinematics(RobotModel.shipped("panda")).tool(HOME)[1]
    c, s = np.cos(angle), np.sin(angle)
    tracks = empty_tracks(1)
    tracks["x"], tracks["y"] = c * tool[0] - s * tool[1], s * tool[0] + c * tool[1]
    tracks["z"] = tool[2]
    tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.05
    tracks["id"] = 7
    return tracks


def test_a_lie_never_brings_the_arm_to_the_obstacle(patient: tuple[Rig, Impostor]) -> None:
    rig, impostor = patient
    rig.tracks = _on_the_way(0.7)
    time.sleep(0.3)
    impostor.qd = np.array([0.8, 0, 0, 0, 0, 0, 0])
    rig.wait_state(MONITOR, "STOPPED collision ahead")
    rig.wait_still()
    values = rig.values(MONITOR)
    assert float(values["distance_m"]) > 0.0 and values["track"] == "7"
    assert abs(rig.q[0] - HOME[0]) > 0.02  # it did move before
    # Moving away is not on offer either until somebody has looked and reset
    impostor.qd = np.array([-0.2, 0, 0, 0, 0, 0, 0])
    assert all(not qd.any() for _, qd in rig.watch(0.3))
    # and a reset starts no motion
    told = "not reset: filter: commands 0.20 rad/s"
    rig.wait(lambda: rig.call(f"{MONITOR}/reset")[1].startswith(told), EVENT_SECONDS, told)
    impostor.qd = np.zeros(7)
    rig.wait(lambda: rig.call(f"{MONITOR}/reset")[0], EVENT_SECONDS, "reset")
    rig.wait_state(MONITOR, "PASSING")
    impostor.qd = np.array([-0.2, 0, 0, 0, 0, 0, 0])
    rig.wait_moving()


def test_a_slow_filter_is_stopped(alone: tuple[Rig, Impostor]) -> None:
    rig, impostor = alone
    impostor.qd = np.array([0.05, 0, 0, 0, 0, 0, 0])
    rig.wait_moving()
    impostor.period = 0.12
    start = time.monotonic()
    rig.wait_state(MONITOR, "STOPPED filter: late")
    time.sleep(0.3)
    assert not rig.qd.any()
    # Until then each command was passed on for no longer than the limit of silence
    passed = [t for t, qd in rig.commands_since(start) if qd.any()]
    gaps = np.diff([t for t, qd in rig.commands_since(start) if not qd.any()])
    hiccup = rig.hiccup(start, passed[-1])
    assert passed[-1] - start < 1.0 + hiccup and gaps.max() < LIMIT + 0.04 + hiccup


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_never_passed_on(patient: tuple[Rig, Impostor], value: float) -> None:
    rig, impostor = patient
    impostor.qd = np.array([value, 0, 0, 0, 0, 0, 0])
    rig.wait_state(MONITOR, "STOPPED filter: expected 7 finite velocities")
    rig.wait_still()
    assert all(np.isfinite(qd).all() for _, qd in rig.commands)


def test_without_obstacles_or_joint_states_nothing_is_vouched_for(
    patient: tuple[Rig, Impostor],
) -> None:
    rig, impostor = patient
    impostor.qd = np.array([0.02, 0, 0, 0, 0, 0, 0])
    rig.wait_moving()
    rig.tracks = None
    rig.wait_state(MONITOR, "ZERO obstacles: silent")
    rig.wait_still()
    rig.tracks = empty_tracks()
    rig.wait_moving()
    rig.joints_on = False
    rig.wait_state(MONITOR, "ZERO joint_states: silent")
    rig.wait_still()


def test_after_zeros_a_command_comes_back_without_a_step(tmp_path: Path) -> None:
    with _impostor(tmp_path, **PATIENT[MONITOR], resume_time=2.0) as (rig, impostor):
        impostor.qd = np.array([0.04, 0, 0, 0, 0, 0, 0])
        rig.wait(lambda: rig.qd[0] == 0.04, EVENT_SECONDS, "the whole command")
        rig.tracks = None
        rig.wait_state(MONITOR, "ZERO obstacles: silent")
        rig.wait_still()
        start = time.monotonic()
        assert all(not qd.any() for _, qd in rig.watch(0.2))
        rig.tracks = empty_tracks()
        rig.wait(lambda: rig.qd[0] == 0.04, EVENT_SECONDS, "the whole command again")
        share = [qd[0] / 0.04 for _, qd in rig.commands_since(start)]
        assert min(share) == 0.0
        # 0.005 a tick, and the arm may have missed some on a busy machine
        assert np.all(np.diff(share) >= 0.0) and np.diff(share).max() < 0.25


@pytest.mark.parametrize(
    ("shift", "told"),
    [(-60.0, "obstacles: silent for 60"), (5.0, "obstacles stamp: expected the past")],
)
def test_obstacles_of_another_time_count_as_none(
    patient: tuple[Rig, Impostor], shift: float, told: str
) -> None:
    rig, impostor = patient
    impostor.qd = np.array([0.02, 0, 0, 0, 0, 0, 0])
    rig.wait_moving()

    def move(msg: PointCloud2) -> None:
        msg.header.stamp = conversion.stamp(conversion.seconds(msg.header.stamp) + shift)

    rig.alter_cloud = move
    rig.wait_state(MONITOR, f"ZERO {told}")
    rig.wait_still()


def test_obstacles_in_another_frame_or_of_two_nodes_count_as_none(
    patient: tuple[Rig, Impostor],
) -> None:
    rig, impostor = patient
    impostor.qd = np.array([0.02, 0, 0, 0, 0, 0, 0])
    rig.wait_moving()

    def rename(msg: PointCloud2) -> None:
        msg.header.frame_id = "camera"

    rig.alter_cloud = rename
    rig.wait_state(MONITOR, "ZERO obstacles: frame_id: expected one of base")
    rig.wait_still()
    rig.alter_cloud = lambda msg: None
    rig.wait_moving()
    with second_source(rig):
        rig.wait_state(MONITOR, "ZERO obstacles: 2 nodes publish /perception_node/obstacles")
        rig.wait_still()
    rig.wait_moving()


def test_zeros_and_what_follows_them_come_at_the_acceleration_that_the_arm_takes(
    tmp_path: Path,
) -> None:
    slow = {**PATIENT[MONITOR], "stop_acceleration": 2.0, "resume_time": 0.0}
    with _impostor(tmp_path, **slow) as (rig, impostor):
        impostor.qd = np.array([0.8, -0.4, 0, 0, 0, 0, 0])
        rig.wait(lambda: rig.qd[0] == 0.8, EVENT_SECONDS, "the whole command")
        for again in range(2):
            start = time.monotonic()
            rig.watch(0.2)
            rig.tracks = None if again == 0 else empty_tracks()
            rig.wait(lambda a=again: rig.qd[0] == 0.8 * a, EVENT_SECONDS, "its end")
            qd = np.array([qd for _, qd in rig.commands_since(start)])
            # 0.02 a tick of 10 ms, and the arm may have missed some on a busy machine
            assert np.abs(np.diff(qd[:, 0])).max() < 0.3 and len(np.unique(qd[:, 0])) > 10
            np.testing.assert_allclose(qd[:, 1], -0.5 * qd[:, 0], atol=1e-9)


def test_one_lost_sign_of_life_is_no_silence_at_any_rate_that_is_permitted() -> None:
    rate = next(row for row in MONITOR_TABLE.rows if row.name == "rate")
    silence = next(row for row in FILTER_TABLE.rows if row.name == "monitor_silence")
    for hertz in np.linspace(rate.lo, rate.hi, 2000):
        assert 2 * beat_every(hertz) / hertz <= silence.lo


def test_a_shorter_silence_than_that_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """The filter would send zeros between the commands of a monitor that lives."""
    command = graph.command(graph.NODES[FILTER].with_parameters(monitor_silence=0.015))
    assert subprocess.run(command, timeout=60).returncode == 2
    assert "monitor_silence: expected 0.04 to 0.5 s, got 0.015" in capfd.readouterr().err
