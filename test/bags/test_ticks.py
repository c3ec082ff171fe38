"""The table of ticks: what was consumed comes back to the last bit, other tables are refused."""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.bags import ticks
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.inputs import Command, JointSample
from safety_filter.core.robot import RobotModel
from safety_filter.flight.recorder import STOP, Tick

HOME = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])


@pytest.fixture(scope="module")
def decide() -> SafetyFilter:
    return SafetyFilter(RobotModel.shipped("panda"))


def _row(decide: SafetyFilter, joints: JointSample | None, command: Command | None) -> np.void:
    decision = decide.step(1.0, 2.0, joints, command, None)
    tick = Tick(1.0, 2.0, joints, command, None, decision, STOP)
    found = ticks.table([(7, 3, tick)], 7)
    back = ticks.decode(ticks.fields(7), found.itemsize, 1, found.tobytes())
    assert back.tobytes() == found.tobytes()
    return back[0]


JOINTS = {
    "whole": JointSample(0.1 + 0.2, 1 / 3, HOME, HOME / 3, 0.08),
    "no opening": JointSample(0.1, 0.2, HOME, HOME / 3),
    "unreadable": JointSample(0.1, 0.2, np.zeros(0), np.zeros(0)),
    "none": None,
}


@pytest.mark.parametrize("name", JOINTS)
def test_joint_states_come_back_to_the_last_bit(decide: SafetyFilter, name: str) -> None:
    given = JOINTS[name]
    back = ticks.joints_of(_row(decide, given, None))
    if given is None:
        assert back is None
        return
    assert back is not None
    assert (back.stamp, back.receipt, back.opening) == (given.stamp, given.receipt, given.opening)
    np.testing.assert_array_equal(back.q, given.q)
    np.testing.assert_array_equal(back.dq, given.dq)


COMMANDS = {
    "twist": Command(0.1, 0.2, "twist", np.arange(6) / 7, "base"),
    "joints": Command(0.1, 0.2, "joint_velocity", np.arange(7) / 7),
    "not finite": Command(0.1, 0.2, "twist", np.full(6, np.nan), "base"),
    "too short": Command(0.1, 0.2, "joint_position", np.arange(3) / 7),
    "too long": Command(0.1, 0.2, "joint_position", np.arange(20) / 7),
    "long frame": Command(0.1, 0.2, "twist", np.zeros(6), "a" * 60),
    "none": None,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_come_back_and_cause_the_same_fault(decide: SafetyFilter, name: str) -> None:
    from safety_filter.core.inputs import command_fault

    given = COMMANDS[name]
    back = ticks.command_of(_row(decide, None, given))
    if given is None:
        assert back is None
        return
    assert back is not None and back.kind == given.kind
    faults = [command_fault(c, 7, ("base",)) for c in (given, back)]
    assert (faults[0] is None) == (faults[1] is None)
    if faults[0] is None:
        np.testing.assert_array_equal(back.value, given.value)


def test_the_decision_and_the_event_are_in_the_row(decide: SafetyFilter) -> None:
    row = _row(decide, None, None)
    assert ticks.STATES[row["state"]] == "STOPPED"
    assert ticks.text(row["reason"]) == "joint_state"
    assert (row["number"], row["config"], row["event"]) == (7, 3, STOP)
    assert np.isinf(row["distance"])


def test_other_tables_and_cut_data_are_refused_with_the_difference() -> None:
    good = ticks.fields(7)
    data = bytes(ticks.tick_dtype(7).itemsize)
    with pytest.raises(ticks.TickError, match=r"missing: .*reason"):
        ticks.decode([f for f in good if f[0] != "reason"], len(data), 1, data)
    with pytest.raises(ticks.TickError, match=r"unknown: .*extra"):
        ticks.decode([*good, ("extra", 0, 8, 1)], len(data), 1, data)
    with pytest.raises(ticks.TickError, match="expected 2 rows"):
        ticks.decode(good, len(data), 2, data)
