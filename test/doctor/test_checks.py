"""Findings from what was seen, and their words."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
from pathlib import Path
from typing import Any

import pytest

from safety_filter.doctor import table
from safety_filter.doctor.checks import Endpoint, Seen, Stream, findings
from safety_filter.doctor.machine import other_users
from safety_filter.doctor.table import TABLE, Level, found

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
ARRAY, PLAN = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"
CLOUD = "sensor_msgs/msg/PointCloud2"
TOPIC = "/perception_node/obstacles"


def _stream(**changes: Any) -> Stream:
    content: dict[str, Any] = {
        "node": "filter_node", "role": "obstacles", "topic": TOPIC, "expected": CLOUD,
        "publishers": [Endpoint("perception_node", CLOUD)], "seconds": 4.0, "count": 60,
        "ages": [0.05] * 60, "limit": 0.3, "frame": "base",
    }  # fmt: skip
    return Stream(**{**content, **changes})


def _seen(stream: Stream | None = None, **changes: Any) -> Seen:
    """A system in order, with changes."""
    content: dict[str, Any] = {
        "nodes": {"filter_node": 1, "monitor_node": 1}, "wanted": ("filter_node",),
        "states": {
            "filter_node": (0, "PASS", {
                "ticks": "1000", "deadline_misses": "0",
                "latency_image_to_command_ms_p99": "140",
                "latency_obstacle_to_command_ms_p99": "1",
            }),
            "perception_node": (0, "tracking", {"latency_image_to_obstacles_ms_p99": "120"}),
        },
        "streams": [stream or _stream()], "arm_topic": "/arm/joint_velocity",
        "arm_publishers": ["monitor_node", "filter_node"], "arm_type": ARRAY,
        "arm_listeners": [Endpoint("controller", ARRAY)],
        "base_frames": ("base",), "bound": 0.3, "rmw": "rmw_fastrtps_cpp", "rtprio": 98,
        "governor": "performance", "shm_free": 2**30, "shm_needed": 2**27, "profile": True,
        "overlap": 0.9, "arm_pixels": 5000,
    }  # fmt: skip
    return Seen(**{**content, **changes})


def _codes(seen: Seen) -> set[str]:
    return {f.code for f in findings(seen)}


def _state(level: int, message: str, **values: str) -> dict[str, Any]:
    return {"states": {"filter_node": (level, message, values)}}


FINE = {"middleware", "latency.budget", "extrinsics.fine"}

CASES: dict[str, Seen] = {
    "node.missing": _seen(nodes={}),
    "node.twice": _seen(nodes={"filter_node": 2, "monitor_node": 1}),
    "monitor.missing": _seen(monitored=False),
    "state.stopped": _seen(**_state(2, "STOPPED perception: obstacles: none received")),
    "state.operator": _seen(**_state(2, "STOPPED operator: stopped by the operator")),
    "state.warning": _seen(**_state(1, "inactive")),
    "bounds.hidden": _seen(acceleration=1.0, hidden_acceleration=0.4),
    "bounds.lead": _seen(lead=0.03, tracking_error=0.003),
    "bounds.broken": _seen(**_state(1, "PASS", broken_bounds="tracking_error: 0.02 m")),
    "target.none": _seen(**_state(1, "PASS", no_target="True")),
    "rt.denied": _seen(**_state(0, "PASS", warning="not permitted")),
    "deadline.misses": _seen(**_state(0, "PASS", ticks="1000", deadline_misses="30")),
    "arm.publishers": _seen(arm_publishers=["monitor_node", "moveit"]),
    "arm.type": _seen(arm_listeners=[Endpoint("controller", PLAN)]),
    "arm.unheard": _seen(arm_listeners=[]),
    "topic.unpublished": _seen(_stream(publishers=[], count=0)),
    "topic.twice": _seen(_stream(publishers=[Endpoint("a", CLOUD), Endpoint("b", CLOUD)])),
    "topic.silent": _seen(_stream(count=0, ages=[])),
    "topic.type": _seen(_stream(publishers=[Endpoint("x", "vision_msgs/msg/Detection3DArray")])),
    "qos.mismatch": _seen(_stream(publishers=[Endpoint("x", CLOUD, "durability")])),
    "rate.low": _seen(_stream(count=20, ages=[0.05] * 20)),
    "age.old": _seen(_stream(ages=[0.35] * 60)),
    "frame.unknown": _seen(_stream(frame="camera")),
    "clock.ahead": _seen(_stream(ages=[-0.5] * 60)),
    "clock.far": _seen(_stream(ages=[1e6] * 60)),
    "clock.silent": _seen(clock_known=False),
    "shm.small": _seen(shm_free=2**20),
    "shm.users": _seen(_stream(count=0, ages=[]), shm_users=("robot",)),
    "shm.profile": _seen(_stream(size=2**20), profile=False),
    "rt.off": _seen(rtprio=0),
    "governor": _seen(governor="powersave"),
    "latency.over": _seen(bound=0.1),
    "latency.near": _seen(bound=0.15),
    "extrinsics.off": _seen(overlap=0.1),
    "extrinsics.poor": _seen(overlap=0.4),
    "extrinsics.unseen": _seen(overlap=0.9, arm_pixels=3),
    "extrinsics.unchecked": _seen(unchecked="perception_node is not there"),
}


def test_a_system_in_order_gives_notes_only() -> None:
    assert _codes(_seen()) == FINE
    assert all(f.level == Level.NOTE for f in findings(_seen()))


@pytest.mark.parametrize("code", CASES)
def test_each_fault_is_found(code: str) -> None:
    assert code in _codes(CASES[code])


def test_every_finding_of_the_table_has_a_case() -> None:
    assert set(CASES) | FINE == set(TABLE)


@pytest.mark.parametrize(("acceleration", "hidden"), [(1.0, 1.0), (0.4, 1.0), (1.0, None)])
def test_perception_may_allow_for_more_than_the_filter_or_be_another(
    acceleration: float, hidden: float | None
) -> None:
    assert _codes(_seen(acceleration=acceleration, hidden_acceleration=hidden)) == FINE


def test_a_monitor_that_the_filter_waits_for_is_told_as_missing() -> None:
    alone = {"filter_node": 1}
    (missing,) = [f for f in findings(_seen(nodes=alone)) if f.code == "node.missing"]
    assert missing.says.startswith("monitor_node")
    assert "node.missing" not in _codes(_seen(nodes=alone, monitored=False))


def test_a_latched_stop_is_no_error_but_what_the_monitor_latched_is() -> None:
    assert _codes(CASES["state.operator"]) & {"state.stopped", "state.operator"} == {
        "state.operator"
    }
    states = {"monitor_node": (2, "STOPPED filter: silent (limit 0.04 s)", {})}
    assert "state.stopped" in _codes(_seen(states=states))


def test_what_is_optional_may_be_silent() -> None:
    for publishers in ([], [Endpoint("vla_node", CLOUD)]):
        stream = _stream(publishers=publishers, count=0, ages=[], optional=True)
        assert _codes(_seen(stream)) == FINE


def test_another_user_is_no_matter_while_everything_is_heard() -> None:
    assert _codes(_seen(shm_users=("robot",))) == FINE


def test_only_living_processes_of_others_count(tmp_path: Path) -> None:
    lock = tmp_path / "fastrtps_0123_el"
    lock.touch()
    (tmp_path / "something_el").touch()
    me = os.getuid()
    assert other_users(tmp_path, me + 1) == ()  # left behind by a process that is gone
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as the middleware does while it uses the segment
        assert other_users(tmp_path, me + 1) == (pwd.getpwuid(me).pw_name,)
        assert other_users(tmp_path, me) == ()
    assert other_users(tmp_path / "nowhere", me) == ()


def test_one_clock_fault_is_not_told_as_an_age_fault_too() -> None:
    for code in ("clock.ahead", "clock.far"):
        assert "age.old" not in _codes(CASES[code])


def test_the_worst_comes_first_with_figures_and_a_remedy() -> None:
    result = findings(_seen(_stream(ages=[0.35] * 60), governor="powersave"))
    assert result[0].code == "age.old" and "0.350 s old" in result[0].says and result[0].do
    assert [f.level for f in result] == sorted((f.level for f in result), reverse=True)
    assert result[0].as_dict()["values"]["limit"] == 0.3


def test_the_latency_budget_adds_up() -> None:
    budget = next(f for f in findings(_seen()) if f.code == "latency.budget")
    assert re.search(r"140 ms .* perception 120, transport 19, filter 1; bound 300", budget.says)


def test_words_that_lack_a_value_are_an_error_where_they_are_made() -> None:
    with pytest.raises(KeyError):
        found("age.old", topic="x")


def test_troubleshooting_page_is_current() -> None:
    assert PAGE.read_text() == table.page(), (
        "run: safety-filter doctor --page > docs/troubleshooting.md"
    )
