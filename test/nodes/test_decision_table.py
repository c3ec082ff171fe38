"""Rows of the decision table that need a filter of their own, through real topics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from ros_rig import (
    EVENT_SECONDS,
    PATIENT,
    START_SECONDS,
    Rig,
    SimulatedTime,
    obstacle,
    passing,
    running,
)

from safety_filter import graph
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import empty_tracks
from safety_filter.nodes.qos import LATCHED

pytestmark = pytest.mark.ros
NODE = "filter_node"
SPEC = graph.NODES[NODE].with_parameters(monitored=False, **PATIENT[NODE])


def _comes_to_rest(rig: Rig) -> bool:
    """Explicit zeros all the time from then on."""
    rig.wait_still()
    commands = rig.watch(0.5)
    return len(commands) > 10 and all(not qd.any() for _, qd in commands)


def test_a_broken_bound_and_a_missed_deadline_stop(tmp_path: Path) -> None:
    """Rows of the table that need other parameters: 0.1 ms is too short for operator splitting."""
    strict = SPEC.with_parameters(bound_broken="brake", qp_solver="osqp", deadline=1e-4)
    with running(tmp_path, strict):
        rig = Rig()
        try:
            there, here = obstacle((0.45, 0.5, 0.5)), obstacle((0.45, 0.9, 0.5))

            def leaping() -> None:
                rig.tracks = there if rig.tracks is here else here

            rig.wait(lambda: (leaping(), rig.message(NODE).startswith("STOPPED bounds"))[1],
                     START_SECONDS, "a broken bound")  # fmt: skip
            assert "track 7 moved as if" in rig.message(NODE)
            rig.tracks = obstacle((0.45, 0.22, 0.45))
            rig.twist = np.array([0.0, 0.15, 0.0, 0, 0, 0])
            rig.wait_state(NODE, "STOPPED deadline")
            assert "limit 0.1 ms" in rig.message(NODE)
        finally:
            rig.close()


def _cage(rig: Rig, count: int, distance: float) -> np.ndarray:
    """`count` small tracks all round the tool, `distance` m from it."""
    turns = np.random.default_rng(0).normal(size=(count, 3))
    turns *= distance / np.linalg.norm(turns, axis=1)[:, None]
    tracks = np.repeat(obstacle((0.0, 0.0, 0.0), 0.03), count)
    points = turns + Kinematics(RobotModel.shipped("panda")).tool(rig.q)[1]
    tracks["x"], tracks["y"], tracks["z"] = points.T
    tracks["id"] = np.arange(count)
    return tracks


def test_a_solver_that_finds_no_answer_stops_and_goes_on_when_it_can(tmp_path: Path) -> None:
    """Ten iterations are enough for an arm alone, not for each step between fifty obstacles; and a
    thousand make more rows than the filter takes, at every step."""
    scarce = SPEC.with_parameters(qp_iterations=10, max_obstacles=1024)
    with passing(tmp_path, scarce) as rig:
        rig.twist = np.array([0.0, 0.1, 0.0, 0, 0, 0])
        rig.wait_moving()
        rig.twist = np.zeros(6)
        rig.restore(NODE)
        for count, distance, words in ((50, 0.25, "iteration limit"), (1024, 0.1, "too many")):
            rig.tracks = _cage(rig, count, distance)
            rig.twist = np.array([0.0, 0.1, 0.0, 0, 0, 0])
            rig.wait_state(NODE, "STOPPED solver")
            assert words in rig.message(NODE)
            # Where some steps can be solved the arm goes on: that each other one brakes is tested
            # in test_decision.py.
            assert words == "iteration limit" or _comes_to_rest(rig)
            rig.restore(NODE)


def test_an_answer_that_fails_verification_stops(tmp_path: Path) -> None:
    """Without the term for what happens between two samples and without any reserve, the arm's
    own curvature takes it beyond a row in one period: the filter sees that before it sends."""
    bare = SPEC.with_parameters(
        sampled_data=0.0, comfort_share=1.0, comfort_margin=0.0, sighting_interval=0.0,
        smoothing=0.0,
    )  # fmt: skip
    told: list[str] = []
    with passing(tmp_path, bare) as rig:
        subscription = rig.node.create_subscription(
            DiagnosticStatus, f"{NODE}/state", lambda m: told.append(m.message), LATCHED
        )
        tool = Kinematics(RobotModel.shipped("panda")).tool(rig.q)[1]
        wall = obstacle((tool[0] - 0.16, tool[1], tool[2]), 0.05)
        wall["sy"] = 0.6
        rig.tracks = wall
        rig.twist = np.array([-0.1, 0.3, 0.0, 0, 0, 0])
        rig.wait(
            lambda: any(m.startswith("STOPPED verification") for m in told), EVENT_SECONDS,
            "a rejected answer",
        )  # fmt: skip
        assert "STOPPED verification: next state violated" in told
        rig.unsubscribe(subscription)
        rig.restore(NODE)


@pytest.mark.parametrize("seconds", [-5.0, 5.0])
def test_what_came_before_a_jump_of_the_clock_counts_as_not_received(
    tmp_path: Path, seconds: float
) -> None:
    with running(tmp_path, SPEC.with_parameters(use_sim_time=True, future_tolerance=0.1)):
        rig = Rig()
        clock = SimulatedTime(rig)
        told: list[str] = []
        rig.node.create_subscription(
            DiagnosticStatus, f"{NODE}/state", lambda m: told.append(m.message), LATCHED
        )
        try:
            rig.wait_state(NODE, "PASS", START_SECONDS)
            rig.twist = None  # the newest would be acted upon for a good while
            rig.tracks = empty_tracks()
            told.clear()
            clock.leap(seconds)
            rig.wait_state(NODE, "STOPPED command")
            # One more may have been on its way, with a stamp of the time before
            words = ("none received",) if seconds > 0.0 else ("none received", "in the future")
            stops = [m for m in told if m.startswith("STOPPED command")]
            assert any(w in m for m in stops for w in words), told
            assert _comes_to_rest(rig)
            rig.twist = np.zeros(6)
            rig.wait_state(NODE, "PASS")
        finally:
            clock.close()
            rig.close()


def test_inputs_that_never_came_are_named_one_after_the_other(tmp_path: Path) -> None:
    with running(tmp_path, SPEC):
        rig = Rig()
        rig.joints_on, rig.twist, rig.tracks = False, None, None
        try:
            rig.wait_state(NODE, "STOPPED joint_state: joint_state: none received", START_SECONDS)
            rig.joints_on = True
            rig.wait_state(NODE, "STOPPED perception: obstacles: none received")
            rig.tracks = empty_tracks()
            rig.wait_state(NODE, "STOPPED command: command: none received")
            rig.twist = np.zeros(6)
            rig.wait_state(NODE, "PASS")
        finally:
            rig.close()
