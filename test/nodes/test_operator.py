"""`safety-filter call` on a live filter; `say` where nobody listens (see also test_vla_node)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from ros_rig import PATIENT, START_SECONDS, Rig, running
from std_msgs.msg import String

from safety_filter import graph
from safety_filter.cli import main
from safety_filter.core.robot import read_config, urdf_path
from safety_filter.nodes.operator import CallError, Operator
from safety_filter.nodes.qos import LATCHED

pytestmark = pytest.mark.ros
FILTER = "filter_node"


def _call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    return _main(capsys, "call", FILTER, *words)


def _main(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(words)
    told = capsys.readouterr()
    return code, told.out + told.err


def test_stop_reset_transitions_and_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = graph.NODES[FILTER].with_parameters(monitored=False, **PATIENT[FILTER])
    with running(tmp_path, spec):
        rig = Rig()
        try:
            rig.wait_passing(FILTER)
            assert _call(capsys, "stop")[0] == 0
            rig.wait_state(FILTER, "STOPPED operator: stopped by the operator")
            assert _call(capsys, "reset")[0] == 0
            rig.wait_state(FILTER, "PASS")
            assert _call(capsys, "set", "obstacle_acceleration:=2", "tracking_error:=0.02")[0] == 0
            # All or none, with the reason
            code, told = _call(capsys, "set", "obstacle_acceleration:=3.0", "rate:=200.0")
            assert code == 1 and "rate" in told
            code, told = _call(capsys, "set", "obstacle_acceleration:=-2.0")
            assert code == 1 and "-2" in told
            code, told = _call(capsys, "set", "obstacle_aceleration:=2.0")
            assert code == 1 and "not a parameter of filter_node: one of obstacle_acel" in told
            code, told = _call(capsys, "activate")
            assert code == 1 and "refused" in told
            assert _call(capsys, "deactivate") == (0, "filter_node: deactivate: done\n")
            rig.wait_state(FILTER, "inactive")
            rig.twist = np.zeros(6)
            assert _call(capsys, "activate")[0] == 0
            rig.wait_state(FILTER, "PASS")
        finally:
            rig.close()


def test_configure_may_take_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here for a description that comes late, else for compiling."""
    spec = graph.NODES[FILTER].with_parameters(
        activate_at_start=False, monitored=False, description=True
    )
    with running(tmp_path, spec):
        rig = Rig()
        try:
            rig.wait_state(FILTER, "unconfigured", START_SECONDS)
            publisher = rig.node.create_publisher(String, "robot_description", LATCHED)
            text = String(data=urdf_path(read_config("panda")).read_text())

            def describe() -> None:
                rig.wait_state(FILTER, "waiting for /robot_description")
                try:
                    with Operator() as other, pytest.raises(CallError) as refused:
                        other.call(FILTER, "stop")
                    told.append(str(refused.value))
                finally:
                    publisher.publish(text)  # longer after the call than others are waited for

            told: list[str] = []
            late = threading.Thread(target=describe)
            late.start()
            answer = _call(capsys, "configure")
            late.join()
            assert answer == (0, "filter_node: configure: done\n")
            assert told == [
                "no answer from /filter_node/stop within 5 s; it may still be at it, see its state"
            ]
        finally:
            rig.close()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["set"], "only with it"),
        (["stop", "rate:=1"], "only with it"),
        (["set", "rate"], "expected NAME:=VALUE"),
        (["set", "rate:={a: 1}"], "expected NAME:=VALUE"),
        (["stop"], "no service /filter_node/stop within 5 s"),
    ],
)
def test_what_cannot_be_asked_or_is_not_answered_ends_with_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "101")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    code, said = _call(capsys, *words)
    assert code == 2 and told in said, said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--namespace", "cell"], "nobody reads /cell/instruction within 5 s"),
        (["--topic", "no topic"], "Invalid topic name"),
    ],
)
def test_words_that_nobody_hears_end_with_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    told: str,
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "101")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    code, said = _main(capsys, "say", "put the red cube on the plate", *options)
    assert code == 2 and told in said, said
