"""The decision table: one test a row, in the pure function and through `SafetyFilter.step`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core.rig import HOME, Bench, track

from safety_filter.core.decision import Action, Conditions, State, decide
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.qp import DaqpSolver, Problem, Solution
from safety_filter.core.robot import RobotModel
from safety_filter.core.wire import empty_tracks

ALL = Conditions('op', 'joints', 'tracks', 'command', 'bound', ('solver', 'why'), True, False)


@pytest.mark.parametrize('conditions, action, state, reason', [
    (ALL, Action.HALT, State.STOPPED, 'operator'),
    (ALL._replace(operator=None), Action.HALT, State.STOPPED, 'joint_state'),
    (ALL._replace(operator=None, joint_state=None), Action.BRAKE, State.STOPPED, 'perception'),
    (ALL._replace(operator=None, joint_state=None, perception=None), Action.BRAKE, State.STOPPED,
     'command'),
    (Conditions(bounds='bound', solve=('level1_slack', 'x')), Action.BRAKE, State.STOPPED,
     'bounds'),
    (Conditions(solve=('level1_slack', 'x')), Action.RETREAT, State.STOPPED, 'level1_slack'),
    (Conditions(changed=True), Action.FILTERED, State.FILTERED, 'filtered'),
    (Conditions(), Action.PASS, State.PASS, 'pass')])
def test_first_match_wins(conditions: Conditions, action: Action, state: State,
                          reason: str) -> None:
    verdict = decide(conditions)
    assert (verdict.action, verdict.state, verdict.reason) == (action, state, reason)


def test_no_target_is_added_to_any_row() -> None:
    assert decide(Conditions(target=False)).no_target
    assert decide(ALL).no_target and not decide(Conditions()).no_target


SLOW = np.full(7, 0.01)


def filtered_bench(panda: RobotModel, **values: Any) -> Bench:
    values = {'base_frames': ['base'], **values}
    return Bench(SafetyFilter(panda, TABLE.validate(values)))


@pytest.fixture
def bench(panda: RobotModel) -> Bench:
    return filtered_bench(panda)


def moving(bench: Bench) -> None:
    """Bring the arm to a steady velocity."""
    for _ in range(40):
        assert bench.step(np.full(7, 0.3)).state != 'STOPPED'


def one_step(bench: Bench, **changes: Any) -> Any:
    """Step with fresh inputs, except for `changes` of (joints, command, obstacles)."""
    now = bench.now
    inputs: dict[str, Any] = {
        'joints': JointSample(now, now, bench.q, np.zeros(7)),
        'command': Command(now, now, 'joint_velocity', SLOW, ''),
        'obstacles': ObstacleSample(now, now, 'base', empty_tracks())}
    for name, change in changes.items():
        inputs[name] = None if change is None else replace(inputs[name], **change)
    bench.now += 0.004
    return bench.safety.step(now, now, *inputs.values())


def test_operator_stop_brakes_to_zeros_and_latches(bench: Bench) -> None:
    moving(bench)
    bench.safety.stop()
    states = [bench.step(np.full(7, 0.3)) for _ in range(60)]
    assert {(d.state, d.reason) for d in states} == {('STOPPED', 'operator')}
    assert states[-1].detail == 'stopped by the operator'
    assert not states[-1].qd.any() and not states[-1].twist.any()


def test_a_stop_names_who_asked(bench: Bench) -> None:
    bench.safety.stop('the monitor')
    told = bench.step(np.zeros(7))
    assert (told.reason, told.detail) == ('operator', 'stopped by the monitor')


def test_reset_waits_for_a_near_zero_command(bench: Bench) -> None:
    bench.safety.stop()
    bench.safety.reset()
    waiting = bench.step(np.full(7, 0.3))
    assert waiting.reason == 'operator' and 'reset waits: command' in waiting.detail
    assert not waiting.qd.any()
    assert bench.step(np.zeros(7)).state == 'PASS'
    assert bench.step(SLOW).state == 'PASS'


def test_reset_waits_for_fresh_inputs(bench: Bench) -> None:
    bench.safety.stop()
    bench.safety.reset()
    assert 'reset waits: obstacles' in one_step(bench, obstacles=None).detail
    assert bench.step(np.zeros(7)).state == 'PASS'


def test_reset_without_a_stop_does_not_release_a_later_one(bench: Bench) -> None:
    bench.safety.reset()
    bench.step(np.zeros(7))
    bench.safety.stop()
    assert bench.step(np.zeros(7)).reason == 'operator'


def test_start_stopped_waits_for_reset(panda: RobotModel) -> None:
    bench = filtered_bench(panda, start_stopped=True)
    told = bench.step(np.zeros(7))
    assert told.reason == 'operator' and told.detail.endswith('start_stopped')
    bench.safety.reset()
    assert bench.step(np.zeros(7)).state == 'PASS'


@pytest.mark.parametrize('change, words', [
    (None, 'none received'), ({'receipt': 99.8}, 'old, limit 0.1 s'),
    ({'stamp': 99.8}, 'old, limit 0.1 s'), ({'q': np.full(7, np.nan)}, 'q is not finite'),
    ({'dq': np.full(7, np.inf)}, 'dq is not finite'), ({'q': np.zeros(6)}, 'expected 7 values'),
    ({'opening': np.nan}, 'opening is not finite'), ({'stamp': 100.1}, 'in the future')])
def test_joint_state_fault_stops(bench: Bench, change: Any, words: str) -> None:
    decision = one_step(bench, joints=change)
    assert (decision.state, decision.reason) == ('STOPPED', 'joint_state')
    assert words in decision.detail and not decision.qd.any()


def bad(name: str, value: float) -> Any:
    tracks = track((1, 1, 1))
    tracks[name] = value
    return {'tracks': tracks}


@pytest.mark.parametrize('change, words', [
    (None, 'none received'), ({'receipt': 99.6}, 'old, limit 0.3 s'),
    ({'stamp': 99.6}, 'old, limit 0.3 s'), (bad('x', np.nan), 'x is not finite'),
    (bad('role', 9), 'role'), (bad('sx', -1), 'semi-axis'), ({'frame_id': 'camera'}, 'frame_id'),
    ({'fault': 'point_step: expected 124, got 16'}, 'point_step'), ({'stamp': 100.1}, 'future'),
    ({'tracks': empty_tracks(300)}, '300 tracks, limit 256')])
def test_perception_fault_stops(bench: Bench, change: Any, words: str) -> None:
    decision = one_step(bench, obstacles=change)
    assert (decision.state, decision.reason) == ('STOPPED', 'perception')
    assert words in decision.detail and not decision.qd.any()


@pytest.mark.parametrize('change, words', [
    (None, 'none received'), ({'receipt': 99.7}, 'old, limit'), ({'stamp': 99.7}, 'old, limit'),
    ({'value': np.full(7, np.nan)}, 'not finite'), ({'value': np.zeros(6)}, 'expected 7 values'),
    ({'kind': 'torque'}, 'expected one of twist, joint_velocity'), ({'stamp': 100.1}, 'future'),
    ({'kind': 'twist', 'value': np.zeros(6)}, 'frame_id: expected one of base, panda_grasptarget'),
    ({'kind': 'twist', 'value': np.zeros(6), 'frame_id': 'map'}, "got 'map'")])
def test_command_fault_stops(bench: Bench, change: Any, words: str) -> None:
    decision = one_step(bench, command=change)
    assert (decision.state, decision.reason) == ('STOPPED', 'command')
    assert words in decision.detail and not decision.qd.any()


@pytest.mark.parametrize('what', ['joints', 'obstacles', 'command'])
def test_losing_an_input_while_moving_brakes_within_the_acceleration_limits(
        bench: Bench, what: str) -> None:
    moving(bench)
    limit = bench.safety.robot.limits.acceleration * bench.safety.params.acceleration_scale / 250
    last = bench.dq
    for _ in range(150):
        decision = one_step(bench, **{what: {'receipt': 0.0, 'stamp': 0.0}})
        assert np.all(np.abs(decision.qd - last) <= limit + 1e-12)
        last = decision.qd
    assert decision.state == 'STOPPED' and not decision.qd.any()


@pytest.mark.parametrize('mono, ros', [(0.004, 5.0), (0.004, -5.0), (-1.0, 0.004), (-5.0, -5.0)])
def test_clock_jump_counts_old_messages_as_not_received(bench: Bench, mono: float,
                                                        ros: float) -> None:
    now = 100.0
    joints = JointSample(now, now, HOME, np.zeros(7))
    command = Command(now, now, 'joint_velocity', SLOW, '')
    obstacles = ObstacleSample(now, now, 'base', empty_tracks())
    assert bench.safety.step(now, now, joints, command, obstacles).state == 'PASS'
    m, r = now + mono, now + ros
    assert bench.safety.step(m, r, joints, command, obstacles).reason == 'joint_state'
    fresh = (replace(joints, stamp=r, receipt=m), replace(command, stamp=r, receipt=m),
             replace(obstacles, stamp=r, receipt=m))
    assert bench.safety.step(m + 0.004, r + 0.004, *fresh).state == 'PASS'


def test_reordered_messages_are_ignored(bench: Bench) -> None:
    assert one_step(bench).state == 'PASS'
    wall = track((0.5, 0.0, 0.45), 0.2)
    late = one_step(bench, obstacles={'tracks': wall, 'stamp': 99.9})
    assert late.nearest is None


class FailingSolver:
    name = 'broken'

    def __init__(self, status: str, x: Any = None) -> None:
        self.status, self.x = status, x

    def solve(self, problem: Any) -> Solution:
        if self.x is None:
            return Solution(False, np.zeros(0), self.status)
        return Solution(True, self.x.copy(), 'solved')


def test_qp_failure_stops(bench: Bench) -> None:
    bench.safety._solver = FailingSolver('cycling')
    decision = bench.step(np.full(7, 0.5))
    assert (decision.state, decision.reason) == ('STOPPED', 'solver')
    assert 'broken: cycling' in decision.detail and not decision.qd.any()


def test_each_step_that_the_solver_cannot_do_brakes(panda: RobotModel) -> None:
    """Ten iterations are too few for some steps among fifty obstacles: those brake along
    the last command, and it goes on with the next that can be solved."""
    bench = filtered_bench(panda, qp_iterations=10)
    turns = np.random.default_rng(0).normal(size=(50, 3))
    turns *= 0.25 / np.linalg.norm(turns, axis=1)[:, None]
    tool = bench.safety._kinematics.tool(bench.q)[1]
    cage = np.concatenate([track(tool + turn, id=k) for k, turn in enumerate(turns)])
    failed = 0
    for _ in range(750):
        before = bench.dq
        decision = bench.step(np.array([0.0, 0.1, 0.0, 0.0, 0.0, 0.0]), cage, 'twist')
        if decision.reason == 'solver':
            failed += 1
            assert decision.state == 'STOPPED' and 'iteration limit' in decision.detail
            left = float(decision.qd @ before) / float(before @ before)
            assert 0.0 <= left < 1.0 and np.abs(decision.qd - left * before).max() < 1e-9
    assert failed
    assert any(bench.step(np.full(7, 0.01)).state == 'PASS' for _ in range(50))


@pytest.mark.parametrize('x, words', [(np.full(7, 9.0), 'box'), (np.full(7, np.nan), 'box'),
                                      (np.full(7, 2e9), 'box')])
def test_a_solvers_answer_is_verified(bench: Bench, x: Any, words: str) -> None:
    bench.safety._solver = FailingSolver('', x)
    decision = bench.step(np.full(7, 0.5))
    assert (decision.state, decision.reason) == ('STOPPED', 'verification')
    assert words in decision.detail and not decision.qd.any()


class BlindSolver(DaqpSolver):
    """Solves as if there were no rows."""

    def solve(self, problem: Problem) -> Solution:
        return super().solve(problem._replace(
            rows=problem.rows[:0], lower=problem.lower[:7], upper=problem.upper[:7]))


def test_an_answer_that_violates_a_row_is_caught(bench: Bench) -> None:
    point = bench.safety._kinematics.tool(HOME)[1]
    wall, down = track(point + (0.0, 0.0, -0.16), 0.05), np.array([0, 0, -0.3, 0, 0, 0.0])
    bench.safety._solver = BlindSolver()
    decisions = [bench.step(down, wall, 'twist') for _ in range(300)]
    caught = [d for d in decisions if d.reason == 'verification']
    assert caught and 'row violated' in caught[0].detail
    assert min(d.min_distance for d in decisions) > 0.0


def test_missed_deadline_stops(panda: RobotModel) -> None:
    ticks = iter(np.arange(0.0, 100.0, 0.02))
    safety = SafetyFilter(panda, TABLE.validate({'base_frames': ['base']}), lambda: next(ticks))
    decision = Bench(safety).step(np.full(7, 0.01))
    assert (decision.state, decision.reason) == ('STOPPED', 'deadline')
    assert '20.00 ms, limit 4 ms' in decision.detail and not decision.qd.any()


def test_rows_that_cannot_hold_stop_with_the_pair_named(bench: Bench) -> None:
    rush = track((0.9, 0.0, 0.4), 0.05, id=3)
    decision = None
    for k in range(120):
        rush['x'] = 0.9 - 0.008 * k
        rush['vx'] = -2.0
        decision = bench.step(np.zeros(7), rush)
        if decision.state == 'STOPPED':
            break
    assert decision is not None and decision.reason == 'level1_slack'
    assert 'track 3' in decision.detail and decision.level1_slack > 0
    assert decision.qd.any(), 'moving away is allowed'


def test_filtered_names_the_pair_and_what_was_active(bench: Bench) -> None:
    point = bench.safety._kinematics.tool(HOME)[1]
    wall = track(point + (0.0, 0.0, -0.16), 0.05, id=9)
    down = np.array([0, 0, -0.3, 0, 0, 0.0])
    last = [bench.step(down, wall, 'twist') for _ in range(300)][-1]
    assert last.state == 'FILTERED' and last.nearest is not None
    assert last.nearest.track_id == 9 and 'finger' in last.nearest.body
    assert 0.0 < last.min_distance < 0.1 and last.intervention > 0
    assert any('track 9' in name for name in last.active_rows)


def test_a_safe_command_passes_unchanged(bench: Bench) -> None:
    far = track((2.0, 2.0, 2.0))
    for command, kind in ((SLOW, 'joint_velocity'), (np.full(6, 0.005), 'twist')):
        decision = bench.step(command, far, kind)
        assert decision.state == 'PASS' and decision.no_target
        sent = decision.qd if kind == 'joint_velocity' else decision.twist
        assert np.allclose(sent, command, rtol=0, atol=1e-9)


def test_target_is_reported(bench: Bench) -> None:
    assert not bench.step(SLOW, track((0.5, 0.3, 0.1), role=1)).no_target
    assert bench.step(SLOW, track((0.5, 0.3, 0.1))).no_target
    two = np.concatenate([track((0.5, 0.3, 0.1), role=1), track((0.5, -0.3, 0.1), role=1, id=2)])
    assert bench.step(SLOW, two).no_target, 'two that claim to be the target are none'
