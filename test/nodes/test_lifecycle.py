"""Lifecycle transitions through the services, and the zeros between them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState
from ros_rig import EVENT_SECONDS, PATIENT, START_SECONDS, Rig, running
from std_msgs.msg import String

from safety_filter import graph
from safety_filter.core.robot import read_config, urdf_path
from safety_filter.nodes.base import _no_room_for_pictures
from safety_filter.nodes.qos import LATCHED

pytestmark = pytest.mark.ros
FILTER, MONITOR = "filter_node", "monitor_node"
INACTIVE = 1.0  # s during which a node is left deactivated


def _state(rig: Rig, node: str) -> int:
    client = rig.node.create_client(GetState, f"{node}/get_state")
    rig.wait(client.service_is_ready, EVENT_SECONDS, f"{node}/get_state")
    future = client.call_async(GetState.Request())
    rig.wait(future.done, EVENT_SECONDS, "the state")
    return int(future.result().current_state.id)


def _gap(rig: Rig, start: float, end: float) -> float:
    """Longest silence towards the arm between two times, s."""
    times = [start, *(t for t, _ in rig.commands_since(start) if t < end), end]
    return float(np.diff(times).max())


def test_zeros_from_configure_on_and_never_a_gap_through_deactivation(tmp_path: Path) -> None:
    """The pair with the monitor, which stays active; the filter waits for its transitions."""
    waiting = graph.NODES[FILTER].with_parameters(activate_at_start=False, **PATIENT[FILTER])
    with running(tmp_path, waiting, graph.NODES[MONITOR].with_parameters(**PATIENT[MONITOR])):
        rig = Rig("arm/joint_velocity")
        try:
            rig.wait_state(FILTER, "unconfigured", START_SECONDS)
            assert _state(rig, FILTER) == State.PRIMARY_STATE_UNCONFIGURED
            assert rig.change(FILTER, Transition.TRANSITION_CONFIGURE)
            rig.wait_state(FILTER, "inactive")
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            # Zeros flow from the filter through the monitor; nothing moves
            rig.wait(lambda: rig.message(MONITOR) == "PASSING", START_SECONDS, "the monitor")
            begun = time.monotonic()
            assert all(not qd.any() for _, qd in rig.watch(0.5))
            assert rig.change(FILTER, Transition.TRANSITION_ACTIVATE)
            rig.wait_moving()
            assert rig.change(FILTER, Transition.TRANSITION_DEACTIVATE)
            rig.wait_state(FILTER, "inactive")
            rig.wait_still()
            assert all(not qd.any() for _, qd in rig.watch(INACTIVE))
            # Activating again is like a reset: not before the command is near zero
            assert rig.change(FILTER, Transition.TRANSITION_ACTIVATE)
            rig.wait_state(FILTER, "STOPPED operator: reset waits: command")
            assert not rig.qd.any()
            rig.twist = np.zeros(6)
            rig.wait_state(FILTER, "PASS")
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            rig.wait_moving()
            # An operator's stop outlasts a deactivation
            rig.call(f"{FILTER}/stop")
            rig.twist = np.zeros(6)
            assert rig.change(FILTER, Transition.TRANSITION_DEACTIVATE)
            assert rig.change(FILTER, Transition.TRANSITION_ACTIVATE)
            rig.wait_state(FILTER, "STOPPED operator: stopped")
            rig.call(f"{FILTER}/reset")
            rig.wait_passing()
            # The monitor too goes on with zeros when it is deactivated
            assert rig.change(MONITOR, Transition.TRANSITION_DEACTIVATE)
            rig.wait_state(MONITOR, "inactive")
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            assert all(not qd.any() for _, qd in rig.watch(INACTIVE))
            # Silence while a node is inactive would be this long; the rest is the machine's
            assert _gap(rig, begun, time.monotonic()) < 0.8 * INACTIVE
            # Activating it starts no motion that the filter has under way
            assert rig.change(MONITOR, Transition.TRANSITION_ACTIVATE)
            rig.wait_state(MONITOR, "STOPPED filter: commands")
            rig.wait_state(FILTER, "STOPPED operator: stopped by the monitor")
            assert all(not qd.any() for _, qd in rig.watch(INACTIVE))
            rig.twist = np.zeros(6)
            rig.wait_passing(MONITOR)
            rig.wait_passing()
            # At rest it lets commands through at once
            assert rig.change(MONITOR, Transition.TRANSITION_DEACTIVATE)
            assert rig.change(MONITOR, Transition.TRANSITION_ACTIVATE)
            rig.wait_state(MONITOR, "PASSING")
            # Shutdown leaves zeros
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            rig.wait_moving()
            assert rig.change(FILTER, Transition.TRANSITION_ACTIVE_SHUTDOWN)
            rig.wait_state(FILTER, "shut down")
            rig.wait_still()
        finally:
            rig.close()


def test_a_filter_that_is_configured_again_waits_like_after_a_reset(tmp_path: Path) -> None:
    """The way to load a robot file anew, under a live command."""
    spec = graph.NODES[FILTER].with_parameters(monitored=False, **PATIENT[FILTER])
    with running(tmp_path, spec):
        rig = Rig()
        try:
            rig.wait_passing(FILTER)
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            rig.wait_moving()
            for transition in (
                Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
                Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
            ):  # fmt: skip
                assert rig.change(FILTER, transition)
                rig.wait_still()
            assert all(not qd.any() for _, qd in rig.watch(INACTIVE))
            rig.wait_state(FILTER, "STOPPED operator: reset waits: command")
            rig.twist = np.zeros(6)
            rig.wait_state(FILTER, "PASS")
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            rig.wait_moving()
        finally:
            rig.close()


def test_a_stop_before_the_filter_is_configured_holds_until_a_reset(tmp_path: Path) -> None:
    spec = graph.NODES[FILTER].with_parameters(
        activate_at_start=False, monitored=False, **PATIENT[FILTER]
    )
    with running(tmp_path, spec):
        rig = Rig()
        try:
            rig.wait_state(FILTER, "unconfigured", START_SECONDS)
            assert rig.call(f"{FILTER}/stop")[0]
            assert rig.change(FILTER, Transition.TRANSITION_CONFIGURE)
            assert rig.change(FILTER, Transition.TRANSITION_ACTIVATE)
            rig.wait_state(FILTER, "STOPPED operator: stopped")
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            assert all(not qd.any() for _, qd in rig.watch(INACTIVE))
            rig.twist = np.zeros(6)
            rig.call(f"{FILTER}/reset")
            rig.wait_passing(FILTER)
        finally:
            rig.close()


@pytest.mark.parametrize(
    ("robot", "description", "told"),
    [("ur5e", False, "ur5e: its URDF is not shipped"), ("/none.yaml", True, "/none.yaml")],
)
def test_a_node_that_cannot_be_configured_stays_unconfigured(
    tmp_path: Path, robot: str, description: bool, told: str
) -> None:
    """A missing robot file is told at once, not after robot_description has come."""
    spec = graph.NODES[FILTER].with_parameters(
        activate_at_start=False, robot=robot, description=description
    )
    with running(tmp_path, spec):
        rig = Rig()
        try:
            rig.wait_state(FILTER, "unconfigured", START_SECONDS)
            assert not rig.change(FILTER, Transition.TRANSITION_CONFIGURE)
            rig.wait_state(FILTER, "not configured: robot: ")
            assert told in rig.message(FILTER)
            assert _state(rig, FILTER) == State.PRIMARY_STATE_UNCONFIGURED
        finally:
            rig.close()


def test_an_error_that_nobody_foresaw_is_told(tmp_path: Path) -> None:
    spec = graph.NODES[MONITOR].with_parameters(activate_at_start=False, robot="panda_hand")
    with running(tmp_path, spec) as processes:
        rig = Rig()
        try:
            rig.wait_state(MONITOR, "unconfigured", START_SECONDS)
            assert not rig.change(MONITOR, Transition.TRANSITION_CONFIGURE)
            rig.wait_state(MONITOR, "not configured: ")
            assert not processes.dead()
        finally:
            rig.close()


@pytest.mark.parametrize("asked", [Transition.TRANSITION_ACTIVATE, 0, 10, 200])
def test_a_transition_that_is_not_possible_now_is_refused_and_nothing_more(
    tmp_path: Path, asked: int
) -> None:
    spec = graph.NODES[FILTER].with_parameters(activate_at_start=False)
    with running(tmp_path, spec) as processes:
        rig = Rig()
        try:
            rig.wait_state(FILTER, "unconfigured", START_SECONDS)
            assert not rig.change(FILTER, asked)
            assert _state(rig, FILTER) == State.PRIMARY_STATE_UNCONFIGURED
            assert not processes.dead()
        finally:
            rig.close()


def test_the_urdf_comes_from_robot_description_and_the_bodies_from_a_robot_file(
    tmp_path: Path,
) -> None:
    """As on an arm whose URDF is not shipped: a driver's text, a file by fit-robot."""
    source = read_config("panda")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in source.items() if k != "urdf"}))
    spec = graph.NODES[FILTER].with_parameters(monitored=False, robot=str(file), description=True)
    with running(tmp_path, spec):
        rig = Rig()
        try:
            rig.wait_state(FILTER, "waiting for /robot_description", START_SECONDS)
            text = urdf_path(source).read_text()
            rig.node.create_publisher(String, "robot_description", LATCHED).publish(
                String(data=text)
            )
            rig.wait_state(FILTER, "PASS", START_SECONDS)
            rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
            rig.wait_moving()
        finally:
            rig.close()


@pytest.mark.parametrize("own", [False, True])
def test_only_the_graphs_own_segment_for_pictures_is_left_out(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = str(tmp_path / "mine.xml") if own else str(graph.share(graph.PICTURES))
    for name in graph.TRANSPORTS[1:]:
        monkeypatch.setenv(name, profile)
    _no_room_for_pictures()
    left = [os.environ.get(name) for name in graph.TRANSPORTS[1:]]
    assert left == ([profile, profile] if own else [None, None])
