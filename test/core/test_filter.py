"""What a user of the filter relies on: least change, limits, a way out, roles."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from core.rig import Bench, make, run, tool, track
from scipy.optimize import minimize

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.params import ParamError
from safety_filter.core.qp import Problem
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.wire import Role, Tracks, empty_tracks

DOWN = np.array([0.0, 0.0, -0.2, 0.0, 0.0, 0.0])


def optimum(p: Problem, start: Array) -> Array:
    """Return the optimum by sequential quadratic programming."""
    n = len(start)
    result = minimize(
        lambda x: 0.5 * x @ p.hessian @ x + p.gradient @ x, start,
        jac=lambda x: p.hessian @ x + p.gradient, method='SLSQP',
        bounds=list(zip(p.lower[:n], p.upper[:n], strict=True)),
        options={'ftol': 1e-15, 'maxiter': 300},
        constraints={'type': 'ineq', 'fun': lambda x: p.rows @ x - p.lower[n:],
                     'jac': lambda x: p.rows})
    return np.asarray(result.x)


def test_least_change_equals_that_of_a_general_optimiser(panda: RobotModel) -> None:
    bench = make(panda)
    wall = track(tool(bench) + (0.05, 0.02, -0.15), 0.05, v=(0, 0, 0.05), id=9)
    compared = 0
    for k in range(200):
        decision = bench.step(DOWN + 0.1 * np.sin(0.1 * k), wall, 'twist')
        if decision.state == 'FILTERED' and decision.rows and k % 20 == 0:
            oracle = optimum(bench.safety._buffers.problem(), decision.qd)
            assert np.allclose(decision.qd, oracle, atol=1e-6)
            compared += 1
    assert compared >= 5


def test_both_solvers_drive_the_arm_the_same_way(panda: RobotModel) -> None:
    ends = []
    for name in ('daqp', 'osqp'):
        bench = make(panda, qp_solver=name)
        wall = track(tool(bench) + (0.0, 0.0, -0.15), 0.05, id=9)
        decisions = run(bench, DOWN, wall, 150)
        assert {d.state for d in decisions} <= {'PASS', 'FILTERED'}
        ends.append(bench.q)
    assert np.allclose(*ends, atol=1e-4)


@pytest.mark.parametrize('direction', range(6))
def test_moving_away_is_possible_from_contact(panda: RobotModel, direction: int) -> None:
    bench = make(panda)
    offset = np.zeros(3)
    offset[direction % 3] = (0.045, -0.045)[direction // 3]
    touching = track(tool(bench) + offset, 0.05, id=1)
    away = np.concatenate([-4.0 * offset, np.zeros(3)])
    decisions = run(bench, away, touching, 250)
    assert decisions[0].min_distance < 0.001
    assert decisions[-1].min_distance > 0.015
    distances = [d.min_distance for d in decisions]
    assert min(distances) >= distances[0] - 5e-4, 'no deeper'


def test_from_between_two_obstacles_one_can_back_out(panda: RobotModel) -> None:
    bench = make(panda)
    centre = tool(bench)
    squeeze = np.concatenate([track(centre + (0, side, 0), 0.1, id=i)
                              for i, side in enumerate((-0.13, 0.13))])
    up = np.array([0.0, 0.0, 0.15, 0.0, 0.0, 0.0])
    decisions = run(bench, up, squeeze, 1500)
    assert decisions[0].min_distance < 0.0
    assert decisions[-1].min_distance > 0.0
    assert tool(bench)[2] > centre[2] + 0.05


def test_a_command_along_a_surface_slides(panda: RobotModel) -> None:
    bench = make(panda)
    start = tool(bench)
    slab = track(start + (0.0, 0.0, -0.18), id=1)
    slab['sx'], slab['sy'], slab['sz'] = 0.2, 0.6, 0.05
    command = np.array([0.0, 0.1, -0.1, 0.0, 0.0, 0.0])
    decisions = run(bench, command, slab, 500)
    assert {d.state for d in decisions} <= {'PASS', 'FILTERED'}
    moved = tool(bench) - start
    assert moved[1] > 0.12, 'slides along'
    assert decisions[-1].min_distance > 0.0


@pytest.mark.parametrize('kind', ['joint_velocity', 'joint_position', 'twist'])
@pytest.mark.parametrize('seed', range(3))
def test_limits_hold_in_every_command(panda: RobotModel, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bench = make(panda)
    limits, last = panda.limits, np.zeros(7)
    tracks = empty_tracks(4)
    tracks['sx'] = tracks['sy'] = tracks['sz'] = 0.05
    for k in range(400):
        if k % 25 == 0:
            value = rng.normal(size=6 if kind == 'twist' else 7) * 3
            for name in ('x', 'y', 'z'):
                tracks[name] = rng.uniform(-0.6, 0.6, 4)
        if k % 100 == 99:
            bench.safety.stop()
        if k % 100 == 30:
            bench.safety._stopped = False
        decision = bench.step(None if k % 90 > 80 else value, tracks, kind)
        assert np.all(np.abs(decision.qd) <= limits.velocity + 1e-9)
        assert np.all(np.abs(decision.qd - last) <= limits.acceleration / 250 + 1e-9)
        assert np.all(bench.q >= limits.lower) and np.all(bench.q <= limits.upper)
        last = decision.qd


def test_equal_inputs_give_equal_decisions(panda: RobotModel) -> None:
    wall = track((0.5, 0.0, 0.3), 0.05, id=9)
    first, second = (run(make(panda), DOWN, wall, 100) for _ in range(2))
    assert all(np.array_equal(a.qd, b.qd) for a, b in zip(first, second, strict=True))


def grasp_scene(bench: Bench, role: Role) -> tuple[Tracks, Array]:
    """Return an object under the open gripper, and where it is."""
    at = tool(bench) + (0.0, 0.0, -0.1)
    tracks = track(at, 0.02, id=5, role=int(role))
    tracks['sx'] = tracks['sy'] = 0.045
    return tracks, at


def test_fingers_reach_the_target_and_stay_off_an_obstacle(panda: RobotModel) -> None:
    reached = {}
    for role in (Role.TARGET, Role.OBSTACLE):
        bench = make(panda)
        tracks, at = grasp_scene(bench, role)
        run(bench, np.array([0, 0, -0.1, 0, 0, 0.0]), tracks, 260)
        reached[role] = tool(bench)[2] - at[2]
    assert reached[Role.TARGET] < 0.01
    assert reached[Role.OBSTACLE] > 0.03


def test_exemption_ends_by_expiry_and_says_so(panda: RobotModel) -> None:
    bench = make(panda, target_expiry=0.5)
    tracks, at = grasp_scene(bench, Role.TARGET)
    decisions = run(bench, np.zeros(6), tracks, 200)
    assert not decisions[50].no_target and decisions[-1].no_target
    run(bench, np.array([0, 0, -0.1, 0, 0, 0.0]), tracks, 300)
    assert tool(bench)[2] - at[2] > 0.03


def test_a_message_without_the_target_does_not_begin_its_time_anew(panda: RobotModel) -> None:
    bench = make(panda, target_expiry=0.5)
    tracks, _ = grasp_scene(bench, Role.TARGET)
    doubt = tracks.copy()
    doubt['role'] = int(Role.OBSTACLE)
    decisions = [bench.step(np.zeros(6), doubt if k % 100 == 99 else tracks, 'twist')
                 for k in range(400)]
    told = [d.no_target for k, d in enumerate(decisions) if k % 100 != 99]
    assert not any(told[:120]) and all(told[130:])
    run(bench, np.zeros(6), doubt, 550)  # let go of for more than two seconds, it may come again
    assert not run(bench, np.zeros(6), tracks, 20)[-1].no_target


def test_a_far_target_is_an_obstacle(panda: RobotModel) -> None:
    bench = make(panda, target_max_distance=0.03)
    tracks, at = grasp_scene(bench, Role.TARGET)
    run(bench, np.array([0, 0, -0.1, 0, 0, 0.0]), tracks, 300)
    assert tool(bench)[2] - at[2] > 0.03


def test_a_small_object_on_the_table_can_be_reached(panda: RobotModel) -> None:
    low = np.array([0.0, 0.35, 0.0, -2.2, 0.0, 2.55, 0.8])
    bench = make(panda, low)
    at = np.array([*tool(bench)[:2], 0.01])
    cube = track(at, 0.01, id=5, role=int(Role.TARGET))
    for _ in range(1500):
        command = np.concatenate([np.clip(2 * (at - tool(bench)), -0.1, 0.1), np.zeros(3)])
        bench.step(command, cube, 'twist')
    assert np.linalg.norm(tool(bench) - at) < 0.004


def test_no_target_exempts_nothing(panda: RobotModel) -> None:
    bench = make(panda)
    tracks, at = grasp_scene(bench, Role.OBSTACLE)
    decisions = run(bench, np.array([0, 0, -0.1, 0, 0, 0.0]), tracks, 300)
    assert all(d.no_target for d in decisions) and tool(bench)[2] - at[2] > 0.03


def test_workspace_and_table_hold(panda: RobotModel) -> None:
    bench = make(panda, workspace=[0.3, -0.2, 0.1, 0.6, 0.2, 0.8])
    for command in ((0.3, 0, 0), (0, 0.3, 0), (0, 0, -0.3), (-0.3, 0, 0), (0, -0.3, 0)):
        run(bench, np.array([*command, 0, 0, 0.0]), empty_tracks(), 300)
        p = tool(bench)
        assert np.all(p >= [0.3, -0.2, 0.1]) and np.all(p <= [0.6, 0.2, 0.8])


def test_parameters_change_while_running_or_not_at_all(panda: RobotModel) -> None:
    bench = make(panda)
    bench.safety.update_params({'obstacle_margin': 0.02})
    assert bench.safety._buffers.gain['obstacle_margin'][0] == 0.02
    with pytest.raises(ParamError, match='alpha0 40'):
        bench.safety.update_params({'alpha0': 40.0})
    with pytest.raises(ParamError, match='fixed at start'):
        bench.safety.update_params({'rate': 500.0})
    assert bench.safety.params.alpha0 == 10.0 and bench.safety.params.obstacle_margin == 0.02


def test_a_faster_slope_than_the_arm_can_brake_is_refused(panda: RobotModel) -> None:
    with pytest.raises(ParamError, match=r'alpha0 30 1/s must be at most .* for this robot'):
        SafetyFilter(panda, TABLE.validate({'alpha0': 30.0}))


def test_warm_up_leaves_no_trace(panda: RobotModel) -> None:
    bench = make(panda)
    assert bench.safety.warm_up() > 0.0
    assert bench.safety._intake._clock is None and not bench.safety._buffers.last.any()


def test_jerk_costs_something_where_the_command_is_filtered(panda: RobotModel) -> None:
    """Along a surface and under a shaky command the joints move the smoother the more it costs."""
    jerks = []
    for weight in (0.0, 0.0005, 0.3):
        bench, rng = make(panda, jerk_weight=weight), np.random.default_rng(0)
        slab = track(tool(bench) + (0.0, 0.0, -0.16), id=1)
        slab['sx'], slab['sy'], slab['sz'] = 0.2, 0.6, 0.05
        moved = [np.zeros(7)]
        for k in range(300):
            if k % 5 == 0:
                shaky = np.array([0.0, 0.1, -0.1, 0, 0, 0.0]) + 0.05 * rng.normal(size=6)
            moved.append(bench.step(shaky, slab, 'twist').qd)
        last = np.diff(np.array(moved[100:]), 2, axis=0) * 250 ** 2
        jerks.append(float(np.sqrt(np.mean(last ** 2))))
    assert jerks[2] < 0.8 * jerks[0] and jerks[1] <= jerks[0], jerks
    worst = panda.limits.acceleration * 0.8 * 2 * 250
    assert jerks[0] < worst.max(), 'acceleration within its limit bounds the jerk too'


@pytest.mark.parametrize('solver', ['daqp', 'osqp'])
def test_nothing_is_left_to_compile_after_the_warm_up(solver: str) -> None:
    """In a fresh process: first contact, first slack and first held track compile nothing."""
    code = (
        'import time, numpy as np\n'
        'from safety_filter.core import qp, kernel, bounds, relaxed, rows, separation\n'
        'from safety_filter.core.filter import SafetyFilter\n'
        'from safety_filter.core.robot import RobotModel\n'
        'from safety_filter.core.inputs import Command, JointSample, ObstacleSample\n'
        'from safety_filter.core.wire import empty_tracks\n'
        'from safety_filter.core.filter_params import TABLE\n'
        f'p = TABLE.validate(dict(qp_solver="{solver}", base_frames=["base"]))\n'
        'safety = SafetyFilter(RobotModel.shipped("panda"), p); safety.warm_up()\n'
        'found = [f for m in (qp, kernel, bounds, relaxed, rows, separation)\n'
        '         for f in vars(m).values()\n'
        '         if hasattr(f, "signatures")]\n'
        'before = [len(f.signatures) for f in found]\n'
        'q, t = np.array([0, -0.4, 0, -2.2, 0, 1.9, 0.8]), empty_tracks(2)\n'
        't["id"], t["role"] = [1, 2], [0, 2]\n'
        'for n, v in zip("xyz", safety._kinematics.spheres(q)[-1]): t[n] = v\n'
        't["sx"] = t["sy"] = t["sz"] = 0.05\n'
        'for k in range(20):\n'
        '    now = 1 + k * 0.004\n'
        '    d = safety.step(now, now, JointSample(now, now, q, np.zeros(7)),\n'
        '                    Command(now, now, "twist", np.full(6, 0.1), "base"),\n'
        '                    ObstacleSample(now, now, "base", t.copy()))\n'
        'assert d.state == "STOPPED" and "slack" in d.reason, d\n'
        'problem = safety._buffers.problem()\n'
        'levels, box = np.ones(len(problem.rows), int), problem.upper[:7]\n'
        'for start in (box, -box):\n'
        '    assert qp.generate_rows(safety._solver, problem, levels, start).found\n'
        'assert before == [len(f.signatures) for f in found]\n')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_way_out_that_fails_its_check_sends_braking_in_both_forms(
        panda: RobotModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(panda)
    at = tool(bench)
    tracks = np.concatenate([track(at + (side, 0, 0), 0.06, id=k + 1)
                             for k, side in enumerate((-0.05, 0.05))])
    run(bench, np.array([0, 0.1, 0, 0, 0, 0.0]), empty_tracks(), 50)
    buffers = bench.safety._buffers

    def refuse(answer: Array, _: float) -> int:
        np.matmul(buffers.tool_jacobian, answer + 1.0, out=buffers.twist)
        return 1

    monkeypatch.setattr(buffers, 'verify', refuse)
    decision = bench.step(np.array([0, 0.1, 0, 0, 0, 0.0]), tracks, 'twist')
    assert decision.state == 'STOPPED'
    np.testing.assert_allclose(decision.twist, buffers.tool_jacobian @ decision.qd, atol=1e-12)


def test_after_a_clock_jump_the_targets_time_begins_anew(panda: RobotModel) -> None:
    bench = make(panda, target_expiry=0.5)
    tracks, _ = grasp_scene(bench, Role.TARGET)
    assert not run(bench, np.zeros(6), tracks, 20)[-1].no_target
    bench.safety._intake.forget()
    bench.safety._intake.target.update(tracks)
    tool_position = tool(bench)
    target = bench.safety._intake.target
    assert target.exempt(-1000.0, tool_position, 0.0, bench.safety.params) >= 0
    assert target.exempt(-999.0, tool_position, 0.0, bench.safety.params) < 0
