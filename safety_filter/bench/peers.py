"""`make bench-peers`: one step of this filter against cbfpy, same robot, spheres and obstacles.

    python -m safety_filter.bench.peers [--steps 1000] [--out out/bench/peers.json]

Builds an environment of its own for cbfpy (JAX, pinned below), records a closed loop of this
filter among moving balls, and gives cbfpy's two back-ends the same states, nominal velocities and
obstacles. What is compared is a call: state in, safe joint velocity out. This filter's call also
checks its inputs, solves under acceleration limits and covariances, verifies the answer and makes
the report; cbfpy's call solves for velocity limits and barriers on the exact distances.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from safety_filter.bench.filter_speed import HOME, RATE, command
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.kernel import moves_with_arm
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.wire import empty_tracks
from safety_filter.demo.summary import git_revision, machine, versions

PINNED = ('cbfpy==0.1.0', 'elastiqp==0.2.0', 'jax==0.10.2', 'jaxlib==0.10.2')
BACKENDS = ('qpax', 'elastiqp')
_LEAKS = ('_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH', 'PYTHONPATH', 'PYTHONHOME')
"""What the ROS wheels export; another environment must not inherit it."""


def balls(count: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Return base (n, 3), swing (n, 3), pace (n,), radii (n,) of balls that swing to and fro."""
    rng = np.random.default_rng(seed)
    base = np.column_stack([rng.uniform(0.35, 0.95, count), rng.uniform(-0.7, 0.7, count),
                            rng.uniform(0.05, 0.8, count)])
    near = np.linalg.norm(base - (0.48, 0.0, 0.42), axis=1) < 0.25
    base[near, 1] += np.where(base[near, 1] >= 0, 0.35, -0.35)
    return (base, rng.uniform(0.0, 0.1, (count, 3)), rng.uniform(0.3, 1.2, count),
            rng.uniform(0.02, 0.06, count))


def record(robot: RobotModel, count: int, steps: int) -> tuple[dict[str, Array], dict[str, Any]]:
    """Drive the arm among balls; return what each step was given, and how long it took."""
    safety = SafetyFilter(robot, TABLE.validate({'base_frames': ['base']}))
    base, swing, pace, radii = balls(count, 0)
    tracks = empty_tracks(count)
    tracks['id'] = np.arange(count)
    for name in ('sx', 'sy', 'sz'):
        tracks[name] = radii
    q, dq = HOME.copy(), np.zeros(robot.n)
    kept: dict[str, list[Array]] = {'q': [], 'nominal': [], 'centres': [], 'velocities': []}
    wall, cpu = np.zeros(steps), np.zeros(steps)
    for k in range(-100, steps):
        now = 100.0 + k / RATE
        angle = pace[:, None] * now + base
        centres, velocities = base + swing * np.sin(angle), swing * pace[:, None] * np.cos(angle)
        for i, name in enumerate('xyz'):
            tracks[name], tracks['v' + name] = centres[:, i], velocities[:, i]
        seen = ObstacleSample(now, now, 'base', tracks.copy())
        twist = Command(now, now, 'twist', command(now, safety._kinematics.tool(q)[1]), 'base')
        joints = JointSample(now, now, q, dq)
        t0, c0 = time.perf_counter(), time.process_time()
        decision = safety.step(now, now, joints, twist, seen)
        c1, t1 = time.process_time(), time.perf_counter()
        if k >= 0:
            wall[k], cpu[k] = t1 - t0, c1 - c0
            for name, value in (('q', q), ('nominal', decision.nominal_qd), ('centres', centres),
                                ('velocities', velocities)):
                kept[name].append(value.copy())
        q, dq = q + decision.qd / RATE, decision.qd
    data = {name: np.array(values) for name, values in kept.items()}
    return {**data, 'radii': radii, **_constants(robot)}, timing(wall, cpu)


def _constants(robot: RobotModel) -> dict[str, Array]:
    """Return the kinematics and the spheres that move, as plain arrays."""
    moving = robot.spheres[[moves_with_arm(robot, int(s['joint'])) for s in robot.spheres]]
    out = {f'joint_{n}': robot.joints[n] for n in robot.joints.dtype.names or ()}
    out |= {f'sphere_{n}': moving[n] for n in ('joint', 'radius', 'offset')}
    limit = robot.limits.velocity * 0.5
    return {**out, 'limit': limit, 'opening': np.array(robot.max_opening)}


def timing(wall: Array, cpu: Array) -> dict[str, float]:
    """Return percentiles in us."""
    return {'p50_us': round(1e6 * float(np.percentile(wall, 50)), 1),
            'p99_us': round(1e6 * float(np.percentile(wall, 99)), 1),
            'cpu_p50_us': round(1e6 * float(np.percentile(cpu, 50)), 1),
            'cpu_p99_us': round(1e6 * float(np.percentile(cpu, 99)), 1)}


def environment(folder: Path) -> Path:
    """Build the peers' environment if it is not there; return its interpreter.

    Raises:
        RuntimeError: pip could not install them; its last words.
    """
    python, stamp = folder / 'bin' / 'python', folder / 'installed'
    if stamp.is_file() and stamp.read_text() == ' '.join(PINNED):
        return python
    print(f'building {folder} with {", ".join(PINNED)}', flush=True)
    for arguments in ([sys.executable, '-m', 'venv', str(folder)],
                      [str(python), '-m', 'pip', 'install', '-q', *PINNED]):
        done = subprocess.run(arguments, env=clean(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f'{" ".join(arguments[:4])}: {done.stderr.strip()[-800:]}')
    stamp.write_text(' '.join(PINNED))
    return python


def clean() -> dict[str, str]:
    """Return this process's environment without what belongs to its own interpreter."""
    return {k: v for k, v in os.environ.items() if k not in _LEAKS}


def run_peer(python: Path, data: Path, backend: str, steps: int) -> dict[str, Any]:
    """Return the timing of one back-end, measured in the peers' environment.

    Raises:
        RuntimeError: it failed; its last words.
    """
    script = Path(__file__).with_name('peer_cbfpy.py')
    done = subprocess.run([str(python), str(script), str(data), backend, str(steps)], env=clean(),
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{backend}: {done.stderr.strip()[-800:]}')
    out: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return the exit code."""
    parser = argparse.ArgumentParser(description='this filter against cbfpy')
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--obstacles', type=int, nargs='+', default=[10, 50])
    parser.add_argument('--venv', type=Path, default=Path('out/peers-venv'))
    parser.add_argument('--out', type=Path, default=Path('out/bench/peers.json'))
    args = parser.parse_args(argv)
    robot = RobotModel.shipped('panda')
    SafetyFilter(robot).warm_up()
    try:
        python = environment(args.venv.resolve())
        args.out.parent.mkdir(parents=True, exist_ok=True)
        cases = [case for count in args.obstacles for case in compare(
            robot, count, args.steps, python, args.out.with_suffix('.npz').resolve())]
    except RuntimeError as error:
        print(f'bench-peers: {error}', file=sys.stderr)
        return 1
    args.out.write_text(json.dumps({
        'schema_version': 2, 'git_revision': git_revision(Path(__file__).parent),
        'machine': machine(), 'versions': versions(), 'peers': PINNED, 'cases': cases},
        indent=1) + '\n')
    return 0


def compare(robot: RobotModel, count: int, steps: int, python: Path,
            data: Path) -> list[dict[str, Any]]:
    """Return one case a method and print the ratios."""
    given, ours = record(robot, count, steps)
    np.savez(data, allow_pickle=False, **given)  # type: ignore[arg-type]
    cases = [{'method': 'safety_filter', 'n_obstacles': count, **ours}]
    try:
        for backend in BACKENDS:
            found = run_peer(python, data, backend, steps)
            ratios = {f'ratio_{k}': round(found[f'{k}_us'] / ours[f'{k}_us'], 1)
                      for k in ('p50', 'cpu_p50')}
            cases.append({'method': f'cbfpy {backend}', 'n_obstacles': count, **found, **ratios})
    finally:
        data.unlink(missing_ok=True)
    for case in cases:
        more = (f', {case["ratio_p50"]} times ours ({case["ratio_cpu_p50"]} in CPU time)'
                if 'ratio_p50' in case else '')
        print(f'N={count:3d} {case["method"]:16s} p50 {case["p50_us"]:9.1f} us, CPU p50 '
              f'{case["cpu_p50_us"]:9.1f} us, p99 {case["cpu_p99_us"]:9.1f} us{more}', flush=True)
    return cases


if __name__ == '__main__':
    raise SystemExit(main())
