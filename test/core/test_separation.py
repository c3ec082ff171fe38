"""Speed and separation monitoring: the standard's formula, its inverse, and what the arm does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core.rig import Bench, track
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE, gains
from safety_filter.core.report import Decision
from safety_filter.core.robot import RobotModel
from safety_filter.core.separation import approach_limit, protective_distance
from safety_filter.core.wire import UNKNOWN_CLASS, Tracks

PERSON = 7
VALUES: dict[str, Any] = {
    'base_frames': ['base'], 'ssm': True, 'person_class': PERSON, 'ssm_human_speed': 0.5,
    'ssm_reaction': 0.05, 'ssm_deceleration': 3.0, 'ssm_intrusion': 0.02,
    'resting_acceleration': 0.0, 'obstacle_acceleration': 0.3}
AHEAD = np.array([0.25, 0.0, 0.0, 0.0, 0.0, 0.0])


def make(robot: RobotModel, **values: Any) -> Bench:
    return Bench(SafetyFilter(robot, TABLE.validate({**VALUES, **values})))


def person(x: float, v: float = 0.0, class_id: int = PERSON) -> Tracks:
    out = track((x, 0.0, 0.6), 0.15, v=(v, 0, 0), id=9, class_id=class_id)
    out['sz'] = 0.6
    return out


@settings(max_examples=300, deadline=None)
@given(distance=st.floats(0.0, 5.0), human=st.floats(0.0, 3.0), tau=st.floats(0.0, 0.3),
       doubt=st.floats(0.0, 0.3))
def test_the_speed_limit_is_the_inverse_of_the_protective_distance(
        distance: float, human: float, tau: float, doubt: float) -> None:
    p = gains(TABLE.validate(VALUES))[0]
    limit = approach_limit(distance, human, tau, doubt, p)
    if limit > 0.0:
        assert protective_distance(human, limit, tau, doubt, p) == pytest.approx(distance)
    else:
        assert protective_distance(human, 0.0, tau, doubt, p) >= distance


def test_every_term_is_visible_and_they_sum_up(panda: RobotModel) -> None:
    bench = make(panda)
    for _ in range(20):
        found = bench.step(AHEAD, person(1.8), 'twist').separation
    assert found is not None and found.track_id == 9 and found.body in panda.bodies
    assert found.human == pytest.approx(0.5 * (0.05 + found.robot_speed / 3.0))
    assert found.robot == pytest.approx(found.robot_speed * 0.05)
    assert found.stopping == pytest.approx(found.robot_speed ** 2 / 6.0)
    assert found.intrusion == pytest.approx(0.02)
    assert found.required == pytest.approx(
        found.human + found.robot + found.stopping + found.intrusion
        + found.person_uncertainty + found.robot_uncertainty)
    assert found.margin == pytest.approx(found.distance - found.required)
    assert 0.1 < found.robot_speed < 0.3


def worst(decisions: list[Decision]) -> float:
    return min(d.separation.margin for d in decisions
               if d.separation is not None and d.state != 'STOPPED')


def test_an_approach_keeps_the_distance_at_every_speed_and_ends_there(panda: RobotModel) -> None:
    bench = make(panda)
    decisions = [bench.step(AHEAD, person(0.95), 'twist') for _ in range(1000)]
    assert {d.state for d in decisions} <= {'PASS', 'FILTERED'}
    assert worst(decisions) >= -2e-3, 'one sample period of motion'
    assert any('~person 9' in name for name in decisions[-1].active_rows)
    last = decisions[-1].separation
    assert last is not None and last.robot_speed < 0.01
    assert last.distance == pytest.approx(last.required, abs=0.01)
    plain = make(panda, ssm=False)
    for _ in range(1000):
        closer = plain.step(AHEAD, person(0.95), 'twist')
    assert closer.separation is None
    assert closer.min_distance < decisions[-1].min_distance - 0.02


def test_a_person_who_appears_inside_the_distance_stops_the_arm(panda: RobotModel) -> None:
    bench = make(panda)
    for _ in range(100):
        bench.step(AHEAD, kind='twist')
    decisions = [bench.step(AHEAD, person(0.85), 'twist') for _ in range(200)]
    first, last = decisions[0].separation, decisions[-1].separation
    assert first is not None and last is not None
    assert first.margin < 0.0 and first.robot_speed > 0.1
    assert decisions[0].state == 'STOPPED' and decisions[0].reason == 'level1_slack'
    assert 'person 9' in decisions[0].detail
    assert last.margin > -1e-3 and last.robot_speed < 0.03


def test_other_classes_are_obstacles_as_before(panda: RobotModel) -> None:
    with_ssm, without = make(panda), make(panda, ssm=False)
    for _ in range(300):
        a = with_ssm.step(AHEAD, person(0.95, class_id=3), 'twist')
        b = without.step(AHEAD, person(0.95, class_id=3), 'twist')
        assert np.array_equal(a.qd, b.qd) and a.separation is None


def test_what_nobody_can_name_may_be_a_person(panda: RobotModel) -> None:
    decision = make(panda).step(AHEAD, person(0.95, class_id=UNKNOWN_CLASS), 'twist')
    assert decision.separation is not None


def test_a_person_inside_the_distance_lets_the_arm_move_away(panda: RobotModel) -> None:
    bench = make(panda, ssm_human_speed=1.6, ssm_intrusion=0.3)
    start = bench.step(np.zeros(6), person(0.9), 'twist').min_distance
    for _ in range(200):
        decision = bench.step(-AHEAD, person(0.9), 'twist')
    assert decision.min_distance > start + 0.1
