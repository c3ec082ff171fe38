"""`make bench-filter`: how long a step of the filter takes, on closed-loop data.

    python -m safety_filter.bench.filter_speed [--steps 5000] [--out out/bench/filter.json]

Each case drives a Panda around moving obstacles for `steps` ticks at 250 Hz; every tick is timed
by wall clock and by the thread's CPU time. `rows` are the candidate pairs of a step, `active_rows`
those that could bind and went to the QP. The stages are timed in a second pass over recorded
states. `stops` says which rows could not hold: the obstacles keep clear of the tool's start, not
of the shoulder, and of a hundred and more some run into links that hardly can move away.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.nominal import TWIST
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.rows import CANDIDATES
from safety_filter.core.wire import Tracks, empty_tracks
from safety_filter.demo.summary import git_revision, machine, versions

RATE = 250.0
HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.9, 0.8])


class Scene:
    """Obstacles that move on ellipses about the arm's workspace."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.base = np.column_stack([rng.uniform(0.25, 0.95, count), rng.uniform(-0.7, 0.7, count),
                                     rng.uniform(0.05, 0.8, count)])
        keep = np.linalg.norm(self.base - (0.48, 0.0, 0.42), axis=1) < 0.22
        self.base[keep, 1] += np.where(self.base[keep, 1] >= 0, 0.35, -0.35)
        self.swing = rng.uniform(0.0, 0.12, (count, 3))
        self.pace = rng.uniform(0.3, 1.2, (count, 3))
        self.phase = rng.uniform(0, 2 * np.pi, (count, 3))
        self.tracks = empty_tracks(count)
        self.tracks['id'] = np.arange(count)
        for name in ('sx', 'sy', 'sz'):
            self.tracks[name] = rng.uniform(0.02, 0.06, count)
        for name in ('pxx', 'pyy', 'pzz'):
            self.tracks[name] = 0.004 ** 2
        for name in ('wxx', 'wyy', 'wzz'):
            self.tracks[name] = 0.02 ** 2

    def at(self, now: float) -> Tracks:
        """Return the tracks at time `now`."""
        angle = self.pace * now + self.phase
        position = self.base + self.swing * np.sin(angle)
        velocity = self.swing * self.pace * np.cos(angle)
        tracks = self.tracks.copy()
        for i, name in enumerate('xyz'):
            tracks[name], tracks['v' + name] = position[:, i], velocity[:, i]
        return tracks


def command(now: float, tool: Array) -> Array:
    """Return a twist towards a goal that wanders about the workspace."""
    goal = np.array([0.5 + 0.15 * np.sin(0.7 * now), 0.3 * np.sin(0.43 * now),
                     0.4 + 0.15 * np.sin(0.91 * now)])
    return np.concatenate([np.clip(1.5 * (goal - tool), -0.25, 0.25), np.zeros(3)])


def measure(robot: RobotModel, solver: str, count: int, steps: int,
            seed: int = 0) -> dict[str, Any]:
    """Return one case of the report."""
    safety = SafetyFilter(robot, TABLE.validate({'qp_solver': solver, 'base_frames': ['base']}))
    scene, q, dq = Scene(count, seed), HOME.copy(), np.zeros(7)
    wall, cpu, kept = np.zeros(steps), np.zeros(steps), np.zeros(steps)
    states: Counter[str] = Counter()
    stops: Counter[str] = Counter()
    recorded: list[tuple[Any, ...]] = []
    obstacles: ObstacleSample | None = None
    twist: Command | None = None
    for k in range(-200, steps):
        now = 100.0 + k / RATE
        if k % 8 == 0 or obstacles is None:
            obstacles = ObstacleSample(now - 0.04, now, 'base', scene.at(now - 0.04))
        if k % 12 == 0 or twist is None:
            tool = safety._kinematics.tool(q)[1]
            twist = Command(now, now, 'twist', command(now, tool), 'base')
        joints = JointSample(now, now, q, dq)
        t0, c0 = time.perf_counter(), time.thread_time()
        decision = safety.step(now, now, joints, twist, obstacles)
        c1, t1 = time.thread_time(), time.perf_counter()
        q, dq = q + decision.qd / RATE, decision.qd
        if k >= 0:
            wall[k], cpu[k], kept[k] = t1 - t0, c1 - c0, decision.rows
            states[decision.state] += 1
            if decision.state == 'STOPPED':
                stops[f'{decision.reason} {decision.detail.split(":")[0]}'] += 1
            if k % max(1, steps // 300) == 0:
                b = safety._buffers
                recorded.append((b.q.copy(), b.last.copy(), b.command.copy(), decision.qd.copy()))
    rows = int(safety._buffers.counts[CANDIDATES])
    return {'solver': solver, 'n_obstacles': count, 'rows': rows, 'steps': steps,
            'active_rows': round(float(kept.mean()), 2), 'active_rows_max': int(kept.max()),
            'p50_us': _us(wall, 50), 'p99_us': _us(wall, 99), 'cpu_p50_us': _us(cpu, 50),
            'cpu_p99_us': _us(cpu, 99), 'states': dict(states), 'stops': dict(stops),
            'stages_us': stages(safety, count, recorded)}


def stages(safety: SafetyFilter, count: int, recorded: list[tuple[Any, ...]]) -> dict[str, float]:
    """Return the median time of each stage over recorded states, us."""
    b = safety._buffers
    times: dict[str, list[float]] = {'assemble': [], 'solve': [], 'verify': []}
    for q, last, value, _ in recorded:
        b.q[:], b.last[:], b.command[:] = q, last, value
        t0 = time.perf_counter()
        meets, _ = b.assemble(count, 0.08, 0.05, -1, TWIST, False)
        t1 = time.perf_counter()
        times['assemble'].append(t1 - t0)
        answer = b.nominal.copy()
        if not meets:
            solution = safety._solver.solve(b.problem())
            times['solve'].append(time.perf_counter() - t1)
            answer = solution.x if solution.found else b.low.copy()
        b.slack[:] = 0.0
        t2 = time.perf_counter()
        b.verify(answer, 0.08)
        times['verify'].append(time.perf_counter() - t2)
    return {name: round(1e6 * float(np.median(t)), 1) for name, t in times.items() if t}


def _us(values: Array, percentile: float) -> float:
    return round(1e6 * float(np.percentile(values, percentile)), 1)


def main(argv: list[str] | None = None) -> int:
    """Run the cases; return the exit code."""
    parser = argparse.ArgumentParser(description='speed of one filter step')
    parser.add_argument('--steps', type=int, default=5000)
    parser.add_argument('--obstacles', type=int, nargs='+', default=[1, 10, 25, 50, 100, 200])
    parser.add_argument('--out', type=Path, default=Path('out/bench/filter.json'))
    args = parser.parse_args(argv)
    robot = RobotModel.shipped('panda')
    compile_s = SafetyFilter(robot).warm_up()
    print(f'compiled or loaded in {compile_s:.2f} s')
    cases = []
    for solver, counts in (('daqp', args.obstacles), ('osqp', [10, 50])):
        for count in counts:
            case = measure(robot, solver, count, args.steps)
            cases.append(case)
            print(f'{solver} N={count:3d}: p50 {case["p50_us"]:7.1f} us, CPU p99 '
                  f'{case["cpu_p99_us"]:7.1f} us, {case["rows"]} rows, {case["active_rows"]} kept '
                  f'{case["states"]} {case["stops"]}', flush=True)
    result = {'schema_version': 2, 'git_revision': git_revision(Path(__file__).parent),
              'machine': machine(), 'versions': versions(), 'bodies': len(robot.spheres),
              'rate_hz': RATE,
              'start_up_s': round(compile_s, 2), 'cases': cases,
              'memory_mb': round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
