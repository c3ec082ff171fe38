"""`make bench-loop`: the real filter_node under real rclpy, idle and loaded, at several rates.

Perception at 30 Hz, joint states at 250 Hz and commands at 20 Hz come from this process. The
command stands still while nothing is near; then one cloud brings an obstacle in front of the
hand, and the time from publishing that cloud to receiving the first changed command is measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray

from safety_filter import graph
from safety_filter.bench.pauses import PauseWatch
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import Tracks, empty_tracks
from safety_filter.demo import summary
from safety_filter.demo.processes import ProcessGroup, ros_environment
from safety_filter.nodes import conversion
from safety_filter.nodes.loop import WINDOW
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST

HOME = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])
SPEED = 0.1  # m/s, commanded along y
JOINT_RATE, CLOUD_RATE, COMMAND_RATE = 250.0, 30.0, 20.0
START_SECONDS = 120.0
CHANGED = 2e-3  # rad/s, change of the command that counts


class Source(Node):
    """Publishes what the filter reads and times its answers. The arm stands still on purpose:
    every change of the command is then an answer to a cloud."""

    def __init__(self) -> None:
        super().__init__("bench_loop")
        robot = RobotModel.shipped("panda")
        self._names = [*robot.joint_names, "panda_finger_joint1", "panda_finger_joint2"]
        tool = Kinematics(robot).tool(HOME)[1]
        self._near = _obstacle(tool + [0.0, 0.16, 0.03])
        self._joints = self.create_publisher(JointState, "sim_node/joint_states", NEWEST)
        self._clouds = self.create_publisher(PointCloud2, "perception_node/obstacles", COMMAND)
        self._twists = self.create_publisher(TwistStamped, "vla_node/twist", COMMAND)
        self.create_subscription(
            Float64MultiArray, "arm/joint_velocity", self._on_command, COMMAND
        )
        self.create_subscription(DiagnosticStatus, "filter_node/state", self._on_state, LATCHED)
        self.state: DiagnosticStatus | None = None
        self.answers: list[float] = []
        self._asked = 0.0  # when the cloud with the obstacle went out; 0: not waiting
        self._before = np.zeros(7)
        self._newest = np.zeros(7)
        self._near_until = 0.0
        self._end = threading.Event()
        self._rng = np.random.default_rng(0)
        self._threads = [
            threading.Thread(target=self._feed, args=args, daemon=True)
            for args in (
                (JOINT_RATE, self._publish_joints),
                (CLOUD_RATE, self._publish_cloud),
                (COMMAND_RATE, self._publish_twist),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _feed(self, rate: float, publish: Any) -> None:
        deadline = time.monotonic()
        while not self._end.is_set():
            publish()
            deadline = max(deadline + 1.0 / rate, time.monotonic())
            time.sleep(max(0.0, deadline - time.monotonic()))

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _publish_joints(self) -> None:
        msg = JointState(name=self._names)
        msg.header.stamp = conversion.stamp(self._now())
        msg.position = array("d", [*HOME, 0.04, 0.04])
        msg.velocity = array("d", [0.0] * 9)
        self._joints.publish(msg)

    def _publish_cloud(self) -> None:
        """Every half second or so the obstacle appears, for long enough to be answered."""
        now = time.monotonic()
        tracks = empty_tracks()
        if now < self._near_until:
            tracks = self._near
        elif now > self._near_until + 0.4 and self._rng.random() < 0.2:
            self._near_until = now + 0.15
            tracks = self._near
            self._before = self._newest
            self._asked = time.monotonic()
        self._clouds.publish(conversion.cloud(tracks, self._now(), "base"))

    def _publish_twist(self) -> None:
        msg = conversion.fill_twist(TwistStamped(), [0, SPEED, 0, 0, 0, 0], self._now())
        msg.header.frame_id = "base"
        self._twists.publish(msg)

    def _on_command(self, msg: Float64MultiArray) -> None:
        now = time.monotonic()
        self._newest = np.array(msg.data)
        if self._asked and float(np.abs(self._newest - self._before).max()) > CHANGED:
            self.answers.append(now - self._asked)
            self._asked = 0.0

    def _on_state(self, msg: DiagnosticStatus) -> None:
        self.state = msg

    def values(self) -> dict[str, str]:
        return {} if self.state is None else conversion.values(self.state)

    def close(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=1.0)
        self.destroy_node()


def _obstacle(position: np.ndarray) -> Tracks:
    tracks = empty_tracks(1)
    tracks["x"], tracks["y"], tracks["z"] = position
    tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.05
    tracks["id"] = 1
    return tracks


def _burn() -> None:
    x = 1.0
    while True:
        x = x * 1.000001 % 7.0


@contextmanager
def _load(busy: bool) -> Iterator[None]:
    """One busy process a core, at the same priority."""
    context = multiprocessing.get_context("spawn")
    count = len(os.sched_getaffinity(0)) if busy else 0
    burners = [context.Process(target=_burn, daemon=True) for _ in range(count)]
    for burner in burners:
        burner.start()
    try:
        yield
    finally:
        for burner in burners:
            burner.terminate()
            burner.join()


def run_case(
    rate: float, busy: bool, seconds: float, logs: Path, fifo: int = 0
) -> dict[str, Any]:
    """Measure one rate under one load.

    Raises:
        RuntimeError: the filter did not start.
    """
    environment = ros_environment()
    os.environ.update(environment)
    spec = graph.NODES["filter_node"].with_parameters(
        monitored=False,
        rate=rate,
        deadline=min(FilterParams().deadline, 1.0 / rate),
        fifo_priority=fifo,
    )
    wiring = tuple(
        (name, "arm/joint_velocity" if name == "~/joint_velocity_out" else target)
        for name, target in (*spec.remappings, ("~/joint_velocity_out", ""))
        if name != "~/joint_velocity_fallback"
    )
    spec = replace(spec, remappings=wiring)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    source = Source()
    executor = SingleThreadedExecutor()
    executor.add_node(source)

    def spin(duration: float) -> None:
        until = time.monotonic() + duration
        while time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)

    try:
        with ProcessGroup(environment, logs) as processes:
            processes.start(spec)
            deadline = time.monotonic() + START_SECONDS
            while "ticks" not in source.values():
                spin(0.1)
                if processes.dead() or time.monotonic() > deadline:
                    raise RuntimeError(f"filter_node: {processes.log_tail('filter_node')}")
            with _load(busy):
                spin(2.0)
                if "latency_tick_ms_p50" not in source.values():
                    raise RuntimeError("filter_node tells no figures in its state")
                watch = PauseWatch(1.0 / rate, 2.0 * seconds)
                watch.start()
                before = source.values()
                source.answers.clear()
                spin(seconds)
                after = source.values()
                pauses = watch.stop()
                memory = _memory(processes.processes["filter_node"].pid)
    finally:
        source.close()
        executor.shutdown()
        rclpy.shutdown()
    ticks = int(after["ticks"]) - int(before["ticks"])
    elapsed = float(after["ticks_at_s"]) - float(before["ticks_at_s"])
    misses = int(after["deadline_misses"]) - int(before["deadline_misses"])
    answers = 1e3 * np.array(source.answers)
    return {
        "rate_hz": rate,
        "fifo_priority": fifo,
        "warning": after["warning"],
        "load": "loaded" if busy else "idle",
        "seconds": elapsed,
        "ticks": ticks,
        "achieved_hz": ticks / elapsed,
        "misses": misses,
        **memory,
        "miss_fraction": misses / ticks,
        # As long as a period or longer: those of no process's making
        "machine_pauses": None if pauses is None else asdict(pauses),
        "period_error_us": {
            k: 1e3 * float(after[f"latency_period_error_ms_{k}"]) for k in ("p50", "p99", "max")
        },
        "tick_us": {k: 1e3 * float(after[f"latency_tick_ms_{k}"]) for k in ("p50", "p99", "max")},
        "obstacle_to_command_ms": {
            "n": len(answers),
            "p50": float(np.percentile(answers, 50)) if len(answers) else None,
            "p99": float(np.percentile(answers, 99)) if len(answers) else None,
            "max": float(answers.max()) if len(answers) else None,
        },
    }


def _memory(pid: int) -> dict[str, float]:
    """Resident memory of a process now and at its most (while it compiled), MB."""
    words = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").split()
    return {
        name: round(int(words[words.index(key) + 1]) / 1024, 1)
        for name, key in (("memory_mb", "VmRSS:"), ("memory_peak_mb", "VmHWM:"))
    }


def _line(case: dict[str, Any]) -> str:
    period, answer = case["period_error_us"], case["obstacle_to_command_ms"]
    pauses = case["machine_pauses"]
    still = f" (the machine stood still {pauses['n']} times)" if pauses else ""
    text = "-" if answer["p50"] is None else f"{answer['p50']:5.1f} / {answer['p99']:5.1f}"
    return (
        f"{case['load']:6} {case['rate_hz']:5.0f} Hz  {case['achieved_hz']:7.2f} Hz"
        f"  misses {100 * case['miss_fraction']:6.3f} %{still}"
        f"  period error {period['p50']:6.0f} / {period['p99']:6.0f} / {period['max']:7.0f} us"
        f"  obstacle to command {text} ms (n {answer['n']})  {case['memory_mb']:.0f} MB"
    )


def main(argv: list[str] | None = None) -> int:
    """Run all cases; the file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[100.0, 250.0, 500.0])
    parser.add_argument("--loads", nargs="+", choices=("idle", "loaded"),
                        default=["idle", "loaded"])  # fmt: skip
    parser.add_argument("--seconds", type=float, default=2 * WINDOW, help="for each case")
    parser.add_argument("--fifo", type=int, default=0, help="SCHED_FIFO priority of the loop")
    parser.add_argument("--out", type=Path, default=Path("out/bench/loop.json"))
    arguments = parser.parse_args(argv)
    if arguments.seconds < WINDOW:
        parser.error(f"--seconds: expected at least {WINDOW:g}, got {arguments.seconds:g}")
    content: dict[str, Any] = {
        "schema_version": summary.SCHEMA_VERSION,
        "git_revision": summary.git_revision(Path(__file__).parent),
        "versions": summary.versions(),
        "machine": summary.machine(),
        "sources_hz": {"joints": JOINT_RATE, "clouds": CLOUD_RATE, "commands": COMMAND_RATE},
        "cases": [],
    }
    with tempfile.TemporaryDirectory() as logs:
        for load in arguments.loads:
            for rate in arguments.rates:
                busy = load == "loaded"
                case = run_case(rate, busy, arguments.seconds, Path(logs), arguments.fifo)
                # What the machine did beside us decides what these figures are worth
                case["load_average"] = os.getloadavg()[0]
                content["cases"].append(case)
                print(_line(case), flush=True)
                summary.write_json(arguments.out, content)
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
