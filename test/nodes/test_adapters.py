"""Inputs and outputs of each kind: filter, monitor and a fake controller as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from rclpy.duration import Duration as RclpyDuration
from ros_rig import ARM_JOINTS, EVENT_SECONDS, HOME, PATIENT, START_SECONDS, Rig, running
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from safety_filter import graph
from safety_filter.arms.profile import KINDS
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel
from safety_filter.demo.processes import ProcessGroup
from safety_filter.nodes.arm_output import OUTPUTS
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST

pytestmark = pytest.mark.ros
FILTER, MONITOR = "filter_node", "monitor_node"
FAKE = Path(__file__).with_name("fake_controller.py")
PUSH = np.array([0.0, 0.05, 0.0, 0, 0, 0])  # m/s


class Arm:
    """The fake controller's process and what it says of itself."""

    def __init__(self, rig: Rig, environment: dict[str, str], kind: str) -> None:
        self.q: np.ndarray | None = None
        self.dropped: list[str] = []
        rig.joints_on = False
        rig.node.create_subscription(JointState, "sim_node/joint_states", self._on_joints, NEWEST)
        rig.node.create_subscription(
            String, "dropped", lambda m: self.dropped.append(m.data), LATCHED
        )
        path = os.pathsep.join([str(FAKE.parents[1]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE), kind, f"arm/{kind}"],
            env={**environment, "PYTHONPATH": path},
        )
        rig.wait(lambda: self.q is not None, START_SECONDS, "the fake controller")

    def _on_joints(self, msg: JointState) -> None:
        if list(msg.name[:7]) == ARM_JOINTS:
            self.q = np.array(msg.position[:7])

    def travel(self, duration: float) -> float:
        """Largest change of a joint during `duration` s, rad."""
        assert self.q is not None
        before = self.q
        time.sleep(duration)
        return float(np.abs(self.q - before).max())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(EVENT_SECONDS)


@contextmanager
def arm_of(folder: Path, kind: str) -> Iterator[tuple[Rig, Arm, ProcessGroup]]:
    """Filter and monitor in series before a fake controller of `kind`."""
    specs = []
    for name, role in ((FILTER, "fallback"), (MONITOR, "out")):
        # Long enough not to be over when it comes late on a busy machine; what stands is then
        # approached in as long
        spec = graph.NODES[name].with_parameters(output=kind, trajectory_hold=1.0, **PATIENT[name])
        remappings = tuple(r for r in spec.remappings if "joint_velocity_" + role not in r[0])
        remappings += ((f"~/{kind}_{role}", f"arm/{kind}"),)
        specs.append(graph.replace(spec, remappings=remappings))
    with running(folder, *specs) as processes:
        rig = Rig(f"{FILTER}/joint_velocity_out")
        arm = Arm(rig, processes.environment, kind)
        try:
            rig.wait_passing()
            yield rig, arm, processes
        finally:
            arm.close()
            rig.close()


def test_the_arm_files_and_the_nodes_know_the_same_outputs() -> None:
    assert set(KINDS) == set(OUTPUTS)


@pytest.mark.parametrize("victim", [FILTER, MONITOR])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_output_moves_the_arm_as_commanded_and_stops_it_whoever_dies(
    tmp_path: Path, kind: str, victim: str
) -> None:
    with arm_of(tmp_path, kind) as (rig, arm, processes):
        kinematics = Kinematics(RobotModel.shipped("panda"))
        assert arm.travel(0.3) < 1e-6  # zeros, or the position where it stands
        start = kinematics.tool(arm.q)[1].copy()
        rig.twist = PUSH
        begun = time.monotonic()
        rig.wait(lambda: kinematics.tool(arm.q)[1][1] - start[1] > 0.04, EVENT_SECONDS, "motion")
        # Never faster than commanded, give or take the lag of the readings
        moved = kinematics.tool(arm.q)[1] - start
        assert moved[1] < 0.05 * (time.monotonic() - begun) + 0.01
        assert np.abs(moved[[0, 2]]).max() < 0.01
        rig.twist = np.zeros(6)
        rig.wait(lambda: arm.travel(0.3) < 2e-3, EVENT_SECONDS, "rest")
        # One dies while the arm moves: the other goes on, on the same topic
        rig.twist = PUSH
        rig.wait(lambda: arm.travel(0.05) > 1e-3, EVENT_SECONDS, "motion")
        os.kill(processes.processes[victim].pid, signal.SIGKILL)
        survivor, words = (
            (FILTER, "STOPPED monitor") if victim == MONITOR else (MONITOR, "filter: silent")
        )
        rig.wait(lambda: words in rig.message(survivor), EVENT_SECONDS, words)
        # Positions and trajectories are approached; a velocity of zero is zero
        still = 1e-6 if kind == "joint_velocity" else 1e-3
        rig.wait(lambda: arm.travel(0.5) < still, EVENT_SECONDS, "rest")
        assert arm.travel(0.5) < still
        assert arm.dropped == []


# -- inputs -----------------------------------------------------------------------------------


class Sender:
    """Publishes commands of one kind at 50 Hz."""

    def __init__(self, rig: Rig, message: type, topic: str) -> None:
        self._publisher = rig.node.create_publisher(message, f"{FILTER}/{topic}", COMMAND)
        self.make: Callable[[], Any] = lambda: None
        rig.node.create_timer(0.02, self._send)

    def _send(self) -> None:
        msg = self.make()
        if msg is not None:
            self._publisher.publish(msg)


@contextmanager
def filter_with(folder: Path, command: str, message: type, topic: str) -> Iterator[Any]:
    spec = graph.NODES[FILTER].with_parameters(
        monitored=False, command=command, **PATIENT[FILTER]
    )
    with running(folder, spec):
        rig = Rig()
        sender = Sender(rig, message, topic)
        try:
            rig.wait_state(FILTER, "STOPPED command", START_SECONDS)
            yield rig, sender
        finally:
            rig.close()


def _trajectory(
    *points: tuple[float, np.ndarray | None, np.ndarray | None],
    names: list[str] | None = None,
    stamp: Any = None,
) -> JointTrajectory:
    """Points of (s, positions, velocities), joints reversed to show that names count."""
    msg = JointTrajectory(joint_names=names or ARM_JOINTS[::-1])
    if stamp is not None:
        msg.header.stamp = stamp
    for at, q, qd in points:
        whole = int(at)
        msg.points.append(
            JointTrajectoryPoint(
                positions=[] if q is None else array("d", q[::-1]),
                velocities=[] if qd is None else array("d", qd[::-1]),
                time_from_start=Duration(sec=whole, nanosec=round((at - whole) * 1e9)),
            )
        )
    return msg


TURN = np.array([0.1, 0, 0, 0, 0, 0, 0])


def test_float64multiarray_velocities_and_positions(tmp_path: Path) -> None:
    for command, still, move in (
        ("joint_velocity", np.zeros(7), TURN),
        ("joint_position", HOME, HOME + 2 * TURN),
    ):
        folder = tmp_path / command
        with filter_with(folder, command, Float64MultiArray, "joint_command_in") as (rig, sender):
            sender.make = lambda v=still: Float64MultiArray(data=array("d", v))
            rig.wait_state(FILTER, "PASS")
            sender.make = lambda v=move: Float64MultiArray(data=array("d", v))
            rig.wait(lambda r=rig: r.q[0] - HOME[0] > 0.05, EVENT_SECONDS, "motion")
            for bad in (array("d", [0.0] * 6), array("d", [float("nan")] * 7)):
                sender.make = lambda v=bad: Float64MultiArray(data=v)
                rig.wait_state(FILTER, "STOPPED command")
                sender.make = lambda v=still: Float64MultiArray(data=array("d", v))
                rig.wait(
                    lambda r=rig: r.message(FILTER) in ("PASS", "FILTERED"),
                    EVENT_SECONDS,
                    "the command",
                )


TRAJECTORY_FAULTS: dict[str, Callable[[Rig], JointTrajectory]] = {
    "at least one": lambda rig: _trajectory(),
    "expected panda_joint1": lambda rig: _trajectory(
        (0.1, None, TURN[1:]), names=ARM_JOINTS[:0:-1]
    ),
    "increasing": lambda rig: _trajectory((0.1, None, TURN), (0.1, None, TURN)),
    "at most 2 s": lambda rig: _trajectory((5.0, None, TURN)),
    "ahead": lambda rig: _trajectory(
        (0.1, None, TURN), stamp=(rig.node.get_clock().now() + RclpyDuration(seconds=5)).to_msg()
    ),
}


def test_trajectories_are_played_out_and_what_ends_or_cannot_be_followed_stops(
    tmp_path: Path,
) -> None:
    with filter_with(tmp_path, "trajectory", JointTrajectory, "trajectory_in") as (rig, sender):
        # Velocities, streamed
        sender.make = lambda: _trajectory((0.02, None, TURN))
        rig.wait(lambda: rig.q[0] - HOME[0] > 0.05, EVENT_SECONDS, "motion")
        rig.wait(lambda: abs(rig.qd[0] - 0.1) < 0.02, EVENT_SECONDS, "the commanded velocity")
        assert np.abs(rig.q[1:] - HOME[1:]).max() < 1e-3
        # One plan of positions, sent once
        sender.make = lambda: None
        rig.wait_state(FILTER, "STOPPED command")
        here = rig.q.copy()
        plan = _trajectory((0.0, here, None), (1.0, here + TURN, None))
        sent: list[float] = []

        def once() -> JointTrajectory | None:
            sent.append(time.monotonic())
            return plan if len(sent) == 1 else None

        sender.make = once
        rig.wait(lambda: rig.q[0] > here[0] + 0.08, EVENT_SECONDS, "the plan's motion")
        rig.wait_state(FILTER, "STOPPED command")
        assert time.monotonic() - sent[0] > 1.0
        assert abs(rig.q[0] - (here[0] + 0.1)) < 0.01
        for words, make in TRAJECTORY_FAULTS.items():
            sender.make = lambda: _trajectory((0.02, None, np.zeros(7)))
            rig.wait_state(FILTER, "PASS")
            sender.make = lambda m=make: m(rig)
            rig.wait_state(FILTER, "STOPPED command")
            rig.wait(lambda w=words: w in rig.values(FILTER)["rejected"], EVENT_SECONDS, words)
            rig.wait(lambda w=words: w in rig.message(FILTER), EVENT_SECONDS, words)
            rig.wait_still()
