"""What the monitor sends when zeros take over and when a command comes back."""

from __future__ import annotations

import numpy as np

from safety_filter.monitor.ramp import Ramp

DT, SLOW = 0.004, 7.5
STEP = SLOW * DT
COMMAND = np.array([0.5, -0.25, 0.0])


def _moving(acceleration: float = SLOW) -> tuple[Ramp, float]:
    """A ramp through which the whole command goes, and the time."""
    ramp, now = Ramp(acceleration, 0.04, 3), 10.0
    for _ in range(100):
        now += DT
        sent = ramp.step(COMMAND, now, True)
    np.testing.assert_array_equal(sent, COMMAND)
    return ramp, now


def test_the_first_command_is_approached_and_a_later_one_goes_out_as_it_is() -> None:
    ramp = Ramp(SLOW, 0.04, 3)
    assert not ramp.step(COMMAND, 10.0, True).any()
    np.testing.assert_allclose(ramp.step(COMMAND, 10.0 + DT, True), STEP * COMMAND / 0.5)
    ramp, now = _moving()
    np.testing.assert_array_equal(ramp.step(2 * COMMAND, now + DT, True), 2 * COMMAND)


def test_zeros_are_approached_in_the_direction_of_the_motion_and_reached() -> None:
    ramp, now = _moving()
    sent = [COMMAND]
    while not ramp.at_rest:
        now += DT
        sent.append(ramp.step(np.zeros(3), now, False))
        assert len(sent) < 20
    steps = np.diff(np.array(sent), axis=0)
    assert np.abs(steps).max() <= STEP + 1e-12 and len(sent) == 18  # 0.5 / 0.03 steps
    np.testing.assert_allclose(np.array(sent)[:, 1], -0.5 * np.array(sent)[:, 0], atol=1e-12)


def test_a_command_that_comes_back_meanwhile_makes_no_step() -> None:
    ramp, now = _moving()
    sent = [COMMAND, ramp.step(np.zeros(3), now + DT, False)]  # one tick without inputs
    for k, share in enumerate((0.04, 0.08, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)):
        sent.append(ramp.step(share * COMMAND, now + (2 + k) * DT, share == 1.0))
    assert np.abs(np.diff(np.array(sent), axis=0)).max() <= STEP + 1e-12
    np.testing.assert_array_equal(sent[-1], COMMAND)


def test_after_a_freeze_it_begins_at_rest_for_others_have_stopped_the_arm() -> None:
    ramp, now = _moving()
    assert not ramp.step(np.zeros(3), now + 0.3, False).any()
    ramp, now = _moving()
    assert not ramp.step(COMMAND, now + 0.05, True).any()


def test_without_an_acceleration_everything_is_at_once() -> None:
    ramp, now = _moving(0.0)
    assert not ramp.step(np.zeros(3), now + DT, False).any() and ramp.at_rest
    np.testing.assert_array_equal(ramp.step(COMMAND, now + 2 * DT, True), COMMAND)
