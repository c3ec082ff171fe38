"""The safety filter: newest inputs in, the nearest safe command out, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from safety_filter.core.circulation import Circulation
from safety_filter.core.decision import Action, Conditions, State, Verdict, decide
from safety_filter.core.ellipsoids import ELLIPSOID_DTYPE
from safety_filter.core.filter_params import TABLE, FilterParams, braking_fault, gains
from safety_filter.core.inputs import Command, JointSample, ObstacleSample, tool_pose
from safety_filter.core.intake import Intake
from safety_filter.core.kernel import VERIFIED, Buffers
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.limits import brake, velocity_box
from safety_filter.core.nominal import KINDS
from safety_filter.core.params import ParamError
from safety_filter.core.qp import SOLVERS, Problem, Solution, generate_rows
from safety_filter.core.relaxed import solve_relaxed
from safety_filter.core.report import TOOL_ONLY, WHOLE_ARM, Decision, Evidence, row_name
from safety_filter.core.robot import Array, RobotModel, Structs
from safety_filter.core.rows import COUNT, INFEASIBLE, OVERFLOW
from safety_filter.core.wire import Role, empty_tracks

SLACK = 1e-5
"""Slack up to this (m/s) is rounding."""
START_STOPPED = 'the parameter start_stopped'
Outcome = tuple[Array, tuple[str, str] | None, bool]
"""The joint velocity, the fault that stops (reason, detail), and whether it was changed."""
_VERIFICATION = ('', 'box', 'row', 'next state')


class SafetyFilter:
    """Filters one arm's commands; see decision.py for the table and rows.py for the barriers.

    `timer` (seconds, any origin) measures each step against the deadline; without it there is
    none. The filter reads no clock itself: equal calls give equal decisions.
    """

    def __init__(self, robot: RobotModel, params: FilterParams | None = None,
                 timer: Callable[[], float] | None = None) -> None:
        """Raise ParamError where `params` do not fit the robot."""
        self.robot, self.params, self._timer = robot, params or FilterParams(), timer
        p, n = self.params, robot.n
        self._check(p)
        limits = robot.limits
        self._buffers = Buffers(
            robot, np.stack([limits.lower, limits.upper, limits.velocity, limits.acceleration]),
            gains(p), np.array(p.planes).reshape(-1, 4), np.array(p.workspace),
            np.zeros(p.max_obstacles, ELLIPSOID_DTYPE))
        self._kinematics = Kinematics(robot)
        self._solver = SOLVERS[p.qp_solver](p.qp_iterations)
        self._circulation = Circulation()
        self._intake = Intake(robot, self._buffers, self._kinematics)
        self._stopped, self._reset_asked = p.start_stopped, False
        self._stopped_by = START_STOPPED
        self._zero = np.zeros(n)
        self._apply_params()

    # --- one step -------------------------------------------------------------------------------

    def step(self, now_mono: float, now_ros: float, joints: JointSample | None,
             command: Command | None, obstacles: ObstacleSample | None) -> Decision:
        """Return what to send now, given the newest message of each input (None: never received).

        `now_mono` is on the clock of the receipts, `now_ros` on that of the stamps, both in s.
        """
        started = self._timer() if self._timer else 0.0
        faults = self._intake.take(joints, command, obstacles, now_mono, now_ros, self.params)
        operator_fault = self._operator(faults.first)
        broken = self._intake.bounds.broken(now_ros)
        bounds_fault = broken[0] if broken and self.params.bound_broken == 'brake' else None

        answer, solve_fault, changed = self._zero, None, False
        if not (operator_fault or faults.first or bounds_fault):
            answer, solve_fault, changed = self._solve(now_mono, now_ros)
        elapsed = self._timer() - started if self._timer else 0.0
        if solve_fault is None and elapsed > self.params.deadline:
            limit = self.params.deadline
            solve_fault = 'deadline', f'{elapsed * 1e3:.2f} ms, limit {limit * 1e3:g} ms'
            answer = self._brake(True)

        verdict = decide(Conditions(operator_fault, *faults, bounds_fault, solve_fault, changed,
                                    self._intake.target.clear, self._circulation.way))
        if verdict.action in (Action.HALT, Action.BRAKE):
            answer = self._brake(faults.joint_state is None)
            self._circulation.reset()
        self._buffers.last[:] = answer
        return self._report(verdict, answer, elapsed, broken)

    def _solve(self, now_mono: float, now_ros: float) -> Outcome:
        """Return the filtered joint velocity, a fault that stops, and whether it is changed."""
        buffers, intake = self._buffers, self._intake
        command, age = intake.command.sample, intake.obstacles.age
        assert command is not None
        exempt = intake.target.exempt(now_ros, buffers.tool_position, age, self.params)
        in_tool_frame = command.frame_id == self.robot.tool_link
        due = intake.obstacles.due(now_mono, now_ros, self.params.sighting_interval)
        buffers.command[:len(command.value)] = command.value
        bent = False
        if self.params.circulation and command.kind == 'twist':
            turned = buffers.tool_rotation if in_tool_frame else np.eye(3)
            bias = self._circulation.bias(
                now_ros, turned @ command.value[:3], buffers, intake.count, intake.target.centre,
                self.params)
            buffers.command[:3] += turned.T @ bias
            bent = bool(bias.any())
        meets, damped = buffers.assemble(
            intake.count, intake.opening, age, exempt, KINDS[command.kind], in_tool_frame, due)
        if buffers.counts[OVERFLOW]:
            return self._brake(True), ('solver', 'too many rows'), True
        if meets:
            answer = buffers.nominal.copy()
        else:
            solution = (Solution(False, self._zero, 'infeasible') if buffers.counts[INFEASIBLE]
                        else self._solver.solve(buffers.problem()))
            if not solution.found:
                return self._relax(solution)
            answer = solution.x
        code = buffers.verify(answer, self._intake.opening)
        if code != VERIFIED:
            return self._brake(True), ('verification', f'{_VERIFICATION[code]} violated'), True
        return answer, None, bent or damped or not meets

    def _relax(self, solution: Solution) -> Outcome:
        """Return the answer where the rows cannot all hold: comfort first, then `_retreat`."""
        buffers = self._buffers
        if solution.status != 'infeasible' and not len(solution.x):
            fault = 'solver', f'{self._solver.name}: {solution.status}'
            return self._brake(True), fault, True
        problem = buffers.problem()
        info = buffers.info[:len(problem.rows)]
        start = self._brake(True)
        relaxed = solve_relaxed(self._solver, problem, info['level'], start, info['reserve'])
        if relaxed.found:
            buffers.slack[:len(relaxed.slack)] = relaxed.slack
            if buffers.verify(relaxed.x, self._intake.opening) == VERIFIED:
                return relaxed.x, None, True
        return self._retreat(problem, info, start)

    def _retreat(self, problem: Problem, info: Structs, start: Array) -> Outcome:
        """Return the way out when hard rows cannot all hold: brake, and move away as they ask.

        The command is followed, slowly, only if no violated row gets worse by it than by standing
        still.
        """
        buffers, p, levels = self._buffers, self.params, info['level']
        pull = -p.jerk_weight * buffers.last
        still = solve_relaxed(self._solver, problem._replace(gradient=pull), levels, start)
        if not still.found:
            fault = 'solver', f'{self._solver.name}: relaxed problem: {still.status}'
            return self._brake(True), fault, True
        over = float(np.max(np.abs(buffers.nominal) / buffers.limits[2]))
        asked = buffers.nominal * min(1.0, p.retreat_fraction / max(over, 1e-9))
        towards = pull - (problem.hessian - p.jerk_weight * np.eye(self.robot.n)) @ asked
        away = solve_relaxed(self._solver, problem._replace(gradient=towards), levels, start)
        excess = still.slack - info['reserve']
        violated = excess > SLACK
        gain = problem.rows[violated] @ (away.x - still.x) if away.found else np.full(1, -np.inf)
        chosen = away if away.found and gain.min(initial=0.0) >= -SLACK else still
        buffers.slack[:len(chosen.slack)] = chosen.slack
        answer = chosen.x.copy()
        if buffers.verify(answer, self._intake.opening) != VERIFIED:
            answer = self._brake(True)  # its twist, too
        worst = int(np.argmax(excess * np.where(levels == 1, 1e3, 1.0)))
        name = row_name(self.robot, info[worst])
        detail = f'{name}: {max(excess[worst], 0.0):.3f} m/s short'
        return answer, (f'level{levels[worst]}_slack', detail), True

    def _brake(self, state_known: bool) -> Array:
        """Return one period of braking along the last command, with joint limits if known."""
        b, period = self._buffers, 1.0 / self.params.rate
        answer = np.zeros(self.robot.n)
        if state_known:
            velocity_box(b.q, b.last, b.limits[0], b.limits[1], b.limits[2], b.limits[3], period,
                         b.low, b.high)
        else:
            b.low[:] = b.last - b.limits[3] * period
            b.high[:] = b.last + b.limits[3] * period
        brake(b.last, b.limits[3], period, b.low, b.high, answer)
        np.matmul(b.tool_jacobian, answer, out=b.twist)
        return answer

    # --- operator -------------------------------------------------------------------------------

    def stop(self, by: str = 'the operator') -> None:
        """Latch a stop that `by` asked for. Not an emergency stop: it relies on this software."""
        self._stopped, self._reset_asked, self._stopped_by = True, False, by

    def reset(self) -> None:
        """Ask to release the stop; done once all inputs are fresh and the command is near zero."""
        self._reset_asked = True

    def _operator(self, blocked: str | None) -> str | None:
        if not self._stopped:
            self._reset_asked = False
            return None
        if not self._reset_asked:
            return f'stopped by {self._stopped_by}'
        if blocked:
            return f'reset waits: {blocked}'
        command = self._intake.command.sample
        assert command is not None
        value = command.value
        if command.kind == 'joint_position':
            value = self.params.position_gain * (value - self._buffers.q)
        size = float(np.linalg.norm(value))
        if size > self.params.reset_speed:
            return f'reset waits: command {size:.3f}, must be at most {self.params.reset_speed:g}'
        self._stopped = self._reset_asked = False
        return None

    def withdraw_reset(self) -> None:
        """Ask for the release no more; the stop stays."""
        self._reset_asked = False

    @property
    def stopped(self) -> bool:
        """Whether a stop is latched, or a reset of it waits."""
        return self._stopped

    def continue_from(self, qd: Array) -> None:
        """Take `qd` (n,) for the last answer, as when a recording is replayed from its middle."""
        self._buffers.last[:] = qd

    # --- parameters and start -------------------------------------------------------------------

    def update_params(self, changes: Mapping[str, object]) -> None:
        """Change parameters while running.

        Raises:
            ParamError: not allowed or not valid; the old set stands.
        """
        new = TABLE.update(self.params, changes)
        self._check(new)
        self.params = new
        self._apply_params()

    def _check(self, params: FilterParams) -> None:
        fault = braking_fault(params, self.robot)
        if fault is not None:
            raise ParamError([fault])

    def _apply_params(self) -> None:
        p, limits, b = self.params, self.robot.limits, self._buffers
        b.gain[:] = gains(p)
        b.limits[0], b.limits[1] = limits.lower + p.joint_margin, limits.upper - p.joint_margin
        b.limits[2] = limits.velocity * p.velocity_scale
        b.limits[3] = limits.acceleration * p.acceleration_scale

    def warm_up(self) -> float:
        """Compile everything, on a copy; return how many seconds that took."""
        started = time.perf_counter()
        copy, frame = SafetyFilter(self.robot, self.params), self.params.base_frames[0]
        middle = (self.robot.limits.lower + self.robot.limits.upper) / 2
        copy._kinematics.tool(middle)
        tracks = empty_tracks(2)
        for i, name in enumerate('xyz'):
            tracks[name] = copy._kinematics.spheres(middle)[-1][i]
        tracks['role'][1] = int(Role.HELD)
        for k in range(3):
            now = k / self.params.rate
            copy.step(now, now, tool_pose(now, now, middle[:3], (0, 0, 0, 1))
                      if self.robot.tool_only else
                      JointSample(now, now, middle, np.zeros(self.robot.n)),
                      Command(now, now, 'twist', np.full(6, 0.1), frame),
                      ObstacleSample(now, now, frame, tracks))
        problem = copy._buffers.problem()  # what is needed once in a long time compiles now too
        generate_rows(copy._solver, problem, np.ones(len(problem.rows), np.int64), copy._zero)
        copy.step(1e3, 1e3, None, None, None)
        return time.perf_counter() - started

    # --- report ---------------------------------------------------------------------------------

    def _report(self, verdict: Verdict, answer: Array, elapsed: float,
                broken: tuple[str, ...]) -> Decision:
        b = self._buffers
        solved = verdict.action in (Action.PASS, Action.FILTERED, Action.RETREAT)
        count = int(b.counts[COUNT]) if solved else 0
        first = second = 0.0
        if verdict.action is Action.RETREAT and count:
            info = b.info[:count]
            excess = np.maximum(b.slack[:count] - info['reserve'], 0.0)
            first = float(excess[info['level'] == 1].max(initial=0.0))
            second = float(excess[info['level'] == 2].max(initial=0.0))
        return Decision(
            verdict.state.value, verdict.reason, verdict.detail, verdict.no_target, answer,
            b.twist.copy(), b.nominal.copy() if solved else self._zero, first, second, count,
            elapsed * 1e6,
            Evidence.of(self.robot, b, verdict.state is not State.PASS) if solved else None,
            TOOL_ONLY if self.robot.tool_only else WHOLE_ARM, broken)
