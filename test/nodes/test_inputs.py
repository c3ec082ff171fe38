"""Age limits of inputs and joint states looked up at image time."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from safety_filter.nodes import conversion
from safety_filter.nodes.inputs import JointHistory, Source, first_fault
from safety_filter.nodes.meters import Percentiles, RateMeter
from safety_filter.robot_source import Gripper


def _state(time: float, value: float) -> JointState:
    msg = JointState(name=["a", "f1", "f2"], position=[value, 0.01, 0.02])
    msg.header.stamp = conversion.stamp(time)
    return msg


def test_source_names_what_is_wrong() -> None:
    source = Source("image", 0.5)
    assert source.fault(0.0) == "image: nothing received yet"
    source.accept(1.0)
    assert source.fault(1.4) is None
    assert source.fault(1.6) == "image: silent for 0.6 s (limit 0.5 s)"
    source.accept(2.0)
    source.reject("image encoding: expected rgb8, got mono8")
    assert source.fault(2.1) == "image encoding: expected rgb8, got mono8"
    assert first_fault([source], 2.1) == source.fault(2.1)


def test_a_rejected_message_does_not_renew_the_age() -> None:
    source = Source("image", 0.5)
    source.accept(0.0)
    source.reject("bad")
    source.rejection = ""
    assert source.fault(1.0) is not None


def test_joint_history_interpolates_at_the_stamp() -> None:
    history = JointHistory(["a"], Gripper({"f1": 0.5, "f2": 0.5}))
    history.add(_state(10.0, 1.0))
    history.add(_state(10.1, 2.0))
    found = history.at(10.05, 0.1)
    assert found is not None
    np.testing.assert_allclose(found[0], [1.5], atol=1e-6)
    assert found[1] == pytest.approx(0.03)
    assert history.at(10.4, 0.1) is None
    assert history.newest() is not None


def test_joint_states_of_before_the_clock_was_set_back_are_none_of_now() -> None:
    history = JointHistory(["a"], Gripper({"f1": 0.5, "f2": 0.5}))
    for k in range(20):
        history.add(_state(10.0 + 0.1 * k, 0.1 * k))
    history.add(_state(10.42, 2.0))
    history.add(_state(10.52, 2.1))
    found = history.at(10.47, 0.1)
    assert found is not None
    np.testing.assert_allclose(found[0], [2.05], atol=1e-6)
    assert history.at(11.0, 0.1) is None


def test_joint_history_rejects_nan() -> None:
    history = JointHistory(["a"], Gripper({"f1": 0.5, "f2": 0.5}))
    with pytest.raises(conversion.MessageError, match="finite"):
        history.add(_state(0.0, float("nan")))


def test_rate_falls_when_events_stop() -> None:
    meter = RateMeter()
    assert meter.rate(0.0) == 0.0
    for i in range(11):
        meter.tick(0.1 * i)
    assert meter.rate(1.0) == pytest.approx(10.0)
    assert meter.rate(9.0) < 2.0


def test_percentiles_are_empty_without_samples() -> None:
    samples = Percentiles(100)
    assert samples.values("x") == {}
    for i in range(101):
        samples.add(float(i))
    assert samples.values("x", 2.0)["x_p50"] == pytest.approx(101.0)
    assert samples.values("x")["x_max"] == 100.0
    for _ in range(100):
        samples.add(7.0)
    assert samples.values("x")["x_max"] == 7.0, "only the last ones count"
