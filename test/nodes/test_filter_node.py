"""filter_node through real topics: each row of the decision table."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from ros_rig import EVENT_SECONDS, PATIENT, Rig, obstacle, passing, second_source
from sensor_msgs.msg import JointState, PointCloud2
from visualization_msgs.msg import MarkerArray

from safety_filter import graph
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import Role, empty_tracks
from safety_filter.nodes import conversion
from safety_filter.nodes.qos import COMMAND, NEWEST

pytestmark = pytest.mark.ros
NODE = "filter_node"
FAST = graph.NODES[NODE].with_parameters(monitored=False)
SPEC = FAST.with_parameters(**PATIENT[NODE])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with passing(tmp_path_factory.mktemp("log"), SPEC) as rig:
        yield rig


@pytest.fixture
def rig(bench: Rig) -> Iterator[Rig]:
    """The bench in its best state before and after each test."""
    bench.restore(NODE)
    yield bench
    bench.restore(NODE)


def _still(rig: Rig) -> bool:
    """Once it has come to rest, explicit zeros all the time: neither silence nor motion."""
    rig.wait_still()
    commands = rig.watch(0.5)
    return len(commands) > 10 and all(not qd.any() for _, qd in commands)


def test_a_safe_twist_passes_and_moves_the_tool_as_commanded(rig: Rig) -> None:
    tool = Kinematics(RobotModel.shipped("panda"))
    start = tool.tool(rig.q)[1].copy()
    rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
    rig.wait(lambda: tool.tool(rig.q)[1][1] - start[1] > 0.03, EVENT_SECONDS, "motion")
    moved = tool.tool(rig.q)[1] - start
    assert np.abs(moved[[0, 2]]).max() < 0.005
    rig.wait_state(NODE, "PASS")
    sent: list[TwistStamped] = []
    subscription = rig.node.create_subscription(
        TwistStamped, f"{NODE}/twist_out", sent.append, COMMAND
    )
    rig.wait(lambda: len(sent) > 5, EVENT_SECONDS, "twists")
    assert rig.message(NODE) == "PASS" and float(rig.values(NODE)["start_up_s"]) > 0.0
    rig.unsubscribe(subscription)
    assert np.allclose(conversion.twist_vector(sent[-1]), rig.twist, rtol=0.0, atol=1e-9)


def test_a_clear_target_is_told_and_two_or_none_are_no_target(rig: Rig) -> None:
    def told(expected: str) -> None:
        rig.wait(lambda: rig.values(NODE)["no_target"] == expected, EVENT_SECONDS, expected)

    target = obstacle((0.45, 0.5, 0.3))
    target["role"] = Role.TARGET
    rig.tracks = target
    told("False")
    other = target.copy()
    other["id"], other["x"] = 8, 0.3
    rig.tracks = np.concatenate([target, other])
    told("True")
    rig.tracks = obstacle((0.45, 0.5, 0.3))
    told("True")


def test_a_twist_towards_an_obstacle_is_filtered_and_the_nearest_pair_is_told(rig: Rig) -> None:
    rig.tracks = obstacle((0.45, 0.22, 0.45))
    rig.twist = np.array([0.0, 0.15, 0.0, 0, 0, 0])
    rig.wait_state(NODE, "FILTERED")
    values: dict[str, str] = {}

    def told() -> bool:
        values.update(rig.values(NODE))
        return "track 7" in values["active_rows"]

    rig.wait(told, EVENT_SECONDS, "the obstacle's row")
    assert values["nearest_body"].startswith("panda_")
    assert float(values["nearest_distance_m"]) > 0.0
    assert len(values["nearest_on_robot"].split()) == 3
    assert values["nearest_track"] == "7"
    rig.twist = np.zeros(6)


def _future(msg: PointCloud2 | TwistStamped | JointState) -> None:
    msg.header.stamp = conversion.stamp(conversion.seconds(msg.header.stamp) + 5.0)


def _past(msg: PointCloud2 | TwistStamped | JointState) -> None:
    msg.header.stamp = conversion.stamp(conversion.seconds(msg.header.stamp) - 5.0)


JOINT_FAULTS: dict[str, Callable[[JointState], None]] = {
    "nan": lambda m: m.position.__setitem__(0, float("nan")),
    "infinite velocity": lambda m: m.velocity.__setitem__(0, float("inf")),
    "missing joint": lambda m: setattr(m, "name", [*m.name[:6], "elbow", *m.name[7:]]),
    "wrong size": lambda m: setattr(m, "position", array("d", [0.0])),
    "stale stamp": _past,
    "stamp in the future": _future,
}


@pytest.mark.parametrize("fault", JOINT_FAULTS)
def test_stops_on_joint_states_that_cannot_be_used(rig: Rig, fault: str) -> None:
    rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
    rig.alter_joints = JOINT_FAULTS[fault]
    rig.wait_state(NODE, "STOPPED joint_state")
    assert _still(rig)
    if fault == "missing joint":
        assert "expected panda_joint7, got ['panda_joint1'" in rig.message(NODE)


def test_stops_when_joint_states_fall_silent(rig: Rig) -> None:
    rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
    rig.joints_on = False
    rig.wait_state(NODE, "STOPPED joint_state")
    assert _still(rig)


def _another_layout(msg: PointCloud2) -> None:
    msg.fields = list(msg.fields)[:-1]


CLOUD_FAULTS: dict[str, Callable[[PointCloud2], None]] = {
    "another layout": _another_layout,
    "foreign frame": lambda m: setattr(m.header, "frame_id", "camera"),
    "stale stamp": _past,
    "stamp in the future": _future,
    "cut data": lambda m: setattr(m, "data", array("B", bytes(m.data)[:-4])),
}


@pytest.mark.parametrize("fault", CLOUD_FAULTS)
def test_stops_on_obstacles_that_cannot_be_used(rig: Rig, fault: str) -> None:
    rig.tracks = obstacle((0.45, 0.5, 0.5))
    rig.twist = np.array([0.0, 0.02, 0.0, 0, 0, 0])
    rig.alter_cloud = CLOUD_FAULTS[fault]
    rig.wait_state(NODE, "STOPPED perception")
    assert _still(rig)


def test_silence_of_perception_stops_but_an_empty_cloud_does_not(rig: Rig) -> None:
    rig.tracks = None
    rig.wait_state(NODE, "STOPPED perception")
    rig.tracks = empty_tracks()
    rig.wait_state(NODE, "PASS")


TWIST_FAULTS: dict[str, Callable[[TwistStamped], None]] = {
    "nan": lambda m: setattr(m.twist.linear, "x", float("nan")),
    "infinite": lambda m: setattr(m.twist.angular, "z", float("inf")),
    "no frame": lambda m: setattr(m.header, "frame_id", ""),
    "unknown frame": lambda m: setattr(m.header, "frame_id", "camera"),
    "stale stamp": _past,
    "stamp in the future": _future,
}


@pytest.mark.parametrize("fault", TWIST_FAULTS)
def test_stops_on_commands_that_cannot_be_used(rig: Rig, fault: str) -> None:
    rig.twist = np.array([0.0, 0.02, 0.0, 0, 0, 0])
    rig.alter_twist = TWIST_FAULTS[fault]
    rig.wait_state(NODE, "STOPPED command")
    assert _still(rig)


def test_stops_when_commands_fall_silent_and_goes_on_when_they_come_back(rig: Rig) -> None:
    rig.twist = None
    rig.wait_state(NODE, "STOPPED command")
    assert _still(rig)
    rig.twist = np.zeros(6)
    rig.wait_state(NODE, "PASS")


def test_stops_while_another_node_publishes_obstacles_too(rig: Rig) -> None:
    with second_source(rig):
        both = "2 nodes publish /perception_node/obstacles (/rig, /virtual_walls)"
        rig.wait_state(NODE, f"STOPPED perception: obstacles: {both}")
        assert _still(rig)
    rig.wait_state(NODE, "PASS")


def test_rows_that_cannot_hold_stop_and_name_the_pair(rig: Rig) -> None:
    tool = Kinematics(RobotModel.shipped("panda")).tool(rig.q)[1]
    rush = obstacle((tool[0] + 0.35, tool[1], tool[2]))
    rush["vx"] = -3.0
    rig.tracks = rush
    rig.wait_state(NODE, "STOPPED level1_slack")
    assert "track 7" in rig.message(NODE)


def test_stop_latches_and_reset_never_restarts_motion_by_itself(rig: Rig) -> None:
    rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
    rig.wait_moving()
    ok, message = rig.call(f"{NODE}/stop")
    assert ok and "not an emergency stop" in message
    rig.wait_state(NODE, "STOPPED operator")
    assert _still(rig)
    ok, message = rig.call(f"{NODE}/reset")
    assert not ok and "command" in message  # the stick is not centred
    assert _still(rig)
    # What was refused takes no effect later, when the stick crosses its centre
    rig.twist = np.zeros(6)
    time.sleep(0.3)
    rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
    time.sleep(0.3)
    assert _still(rig) and rig.message(NODE) == "STOPPED operator: stopped by the operator"
    rig.twist = np.zeros(6)
    rig.wait(lambda: rig.call(f"{NODE}/reset")[0], EVENT_SECONDS, "the reset")
    rig.wait_state(NODE, "PASS")
    assert _still(rig)


def test_a_stop_of_the_monitor_is_told_as_such_and_only_reset_releases_it(rig: Rig) -> None:
    rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
    rig.wait_moving()
    assert rig.call(f"{NODE}/monitor_stop")[0]
    rig.wait_state(NODE, "STOPPED operator: stopped by the monitor")
    rig.call(f"{NODE}/stop")  # the first who asked stays named
    rig.twist = np.zeros(6)
    time.sleep(0.3)
    assert _still(rig) and "stopped by the monitor" in rig.message(NODE)
    assert rig.call(f"{NODE}/reset")[0]
    rig.wait_state(NODE, "PASS")


def test_reset_waits_for_fresh_inputs(rig: Rig) -> None:
    rig.call(f"{NODE}/stop")
    rig.tracks = None
    time.sleep(PATIENT[NODE]["obstacles_age"] + 0.3)
    ok, message = rig.call(f"{NODE}/reset")
    assert not ok and "obstacles" in message
    rig.tracks = empty_tracks()
    rig.wait(lambda: rig.call(f"{NODE}/reset")[0], EVENT_SECONDS, "the reset")
    rig.wait_state(NODE, "PASS")


def test_publishes_at_its_rate_and_never_jumps_beyond_the_acceleration_limit(
    tmp_path: Path,
) -> None:
    with passing(tmp_path, FAST) as rig:
        rig.twist = np.array([0.0, 0.2, 0.0, 0, 0, 0])
        commands = rig.watch(1.0)
        rig.twist = np.zeros(6)
        # Half of the periods are right, or as wrong as a busy machine makes those of any thread
        rig.wait(
            lambda: float(rig.values(NODE)["latency_period_error_ms_p50"])
            < 0.5 + 2e3 * rig.lateness(),
            EVENT_SECONDS,
            "periods of 4 ms",
        )
    limit = np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0]) / 250.0
    steps = np.abs(np.diff([qd for _, qd in commands], axis=0))
    # A best-effort pair of readings may have lost one in between
    assert steps.any() and (np.median(steps, axis=0) <= limit + 1e-9).all()


def test_parameters_change_while_running_and_a_bad_update_is_refused_with_the_reason(
    rig: Rig,
) -> None:
    assert rig.set_parameter(NODE, "obstacle_margin", 0.02) == (True, "")
    ok, reason = rig.set_parameter(NODE, "obstacle_margin", float("nan"))
    assert not ok
    ok, reason = rig.set_parameter(NODE, "alpha0", 40.0)  # more than the arm can brake
    assert not ok and "alpha0" in reason
    ok, reason = rig.set_parameter(NODE, "rate", 500.0)
    assert not ok and "fixed at start" in reason
    assert rig.set_parameter(NODE, "obstacle_margin", 0.01)[0]


def test_markers_draw_bodies_tracks_and_the_nearest_pair(rig: Rig) -> None:
    received: list[MarkerArray] = []
    rig.tracks = obstacle((0.45, 0.4, 0.45))
    subscription = rig.node.create_subscription(
        MarkerArray, f"{NODE}/markers", received.append, NEWEST
    )
    rig.wait(
        lambda: bool(received)
        and {m.ns for m in received[-1].markers} >= {"bodies", "tracks", "margins"},
        EVENT_SECONDS,
        "markers",
    )
    rig.wait(
        lambda: "nearest" in {m.ns for m in received[-1].markers}, EVENT_SECONDS, "nearest pair"
    )
    rig.tracks = obstacle((0.45, 0.22, 0.45))
    rig.twist = np.array([0.0, 0.15, 0.0, 0, 0, 0])

    def removed() -> bool:
        """Whether an arrow points where the obstacle is and the arm must not go."""
        arrows = [m.points for m in received[-1].markers if m.ns == "removed"]
        return any(tip.y > tail.y + 0.005 for tail, tip in arrows)

    rig.wait(removed, EVENT_SECONDS, "the removed part of the command")
    rig.unsubscribe(subscription)
