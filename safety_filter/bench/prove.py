"""`make prove`: a long search for an unnoticed collision, and for what each term prevents.

    python -m safety_filter.bench.prove [--runs 1000] [--seed 0] [--out out/bench/prove.json]

Writes the counts with Wilson 95 % intervals and every failing case, which can be run again from
its fields. The exit code is 1 if the full filter failed in any run, or a removed term in none.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from safety_filter.bench.invariance import COMMANDS, Case, Outcome, cases, run
from safety_filter.core.robot import RobotModel
from safety_filter.stats import wilson

BARE = {'comfort_margin': 0.0, 'comfort_share': 1.0, 'tracking_error': 0.0}
TEETH: dict[str, dict[str, Any]] = {
    'velocity': {'modes': (0,), 'top_speed': 0.25},
    'latency': {'modes': (0,), 'top_speed': 0.25, 'latency': 0.07, 'jitter': 0.0,
                'position_sigma': 0.0, 'velocity_sigma': 0.0},
    'margins': {'modes': (3,), 'top_speed': 0.0, 'position_sigma': 0.01, 'velocity_sigma': 0.0,
                'acceleration': 0.3, 'steady': True}}
"""For each term a kind of run in which it matters, all of them inside the declared bounds."""
BEYOND = 1.2
NOISE_FREE = {'position_sigma': 0.0, 'velocity_sigma': 0.0}
BEYOND_RUNS: dict[str, dict[str, Any]] = {
    'chasing': {'modes': (0, 1)}, 'chasing, noise free': {'modes': (0, 1), **NOISE_FREE},
    'all modes': {}, 'all modes, noise free': NOISE_FREE}
"""Kinds of runs beyond the bounds: what only holds or wanders rarely breaks one for long."""
_robot: list[RobotModel] = []


def _outcome(case: Case) -> Outcome:
    if not _robot:
        _robot.append(RobotModel.shipped('panda'))
    return run(_robot[0], case)


def search(case: Case, generations: int = 4, population: int = 12) -> list[Outcome]:
    """Return the outcomes of a cross-entropy search for the least distance."""
    rng = np.random.default_rng(case.seed)
    names = ('latency', 'jitter', 'top_speed', 'position_sigma', 'velocity_sigma')
    low = np.array([0.0, 0.0, 0.05, 0.0, 0.0])
    high = np.array([0.06, 0.02, 0.35, 0.008, 0.04])
    mean, spread = (low + high) / 2, (high - low) / 3
    found: list[Outcome] = []
    for generation in range(generations):
        drawn = np.clip(rng.normal(mean, spread, (population, len(names))), low, high)
        outcomes = []
        for k, row in enumerate(drawn):
            values = dict(zip(names, map(float, row), strict=True))
            outcomes.append(_outcome(replace(
                case, seed=case.seed * 1009 + generation * population + k,
                command=COMMANDS[int(rng.integers(len(COMMANDS)))], **values)))
        found += outcomes
        best = np.argsort([o.least_while_vouched for o in outcomes])[:population // 4]
        mean, spread = drawn[best].mean(0), drawn[best].std(0) + 0.05 * (high - low)
    return found


def summary(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return counts and least distances of a set of runs."""
    runs = list(outcomes)
    failed = [o for o in runs if o.failed]
    return {
        'runs': len(runs), 'failed': len(failed),
        'failed_95': list(wilson(len(failed), len(runs))),
        'stopped': sum(o.stopped_at is not None for o in runs),
        'stop_reasons': dict(Counter(o.reason for o in runs if o.reason)),
        'told_of_a_broken_bound': sum(o.told_at is not None for o in runs),
        'noticed': sum(o.noticed for o in runs),
        'told_though_explained': sum(o.told_at is not None and o.hidden for o in runs),
        'unnoticed_and_explained': sum(o.hidden and not o.noticed for o in runs),
        'failed_unnoticed': sum(o.failed and not o.noticed for o in runs),
        'touched_after_a_stop': sum(o.least < 0.0 for o in runs) - len(failed),
        'least_while_vouched_m': min((o.least_while_vouched for o in runs), default=None),
        'limit_excess': max((o.limit_excess for o in runs), default=None),
        'filtered_share': float(np.mean([o.filtered_share for o in runs])) if runs else None,
        'failing_cases': [asdict(o.case) for o in failed]}


def main(argv: list[str] | None = None) -> int:
    """Run the search; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else '')
    parser.add_argument('--runs', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--out', type=Path, default=Path('out/bench/prove.json'))
    args = parser.parse_args(argv)
    started = time.time()
    drawn = list(cases(args.runs, args.seed, duration=2.0))
    with ProcessPoolExecutor(args.jobs) as pool:
        outcomes = []
        for k, outcome in enumerate(pool.map(_outcome, drawn, chunksize=4), 1):
            outcomes.append(outcome)
            if k % 50 == 0:
                print(f'{k}/{args.runs}: {sum(o.failed for o in outcomes)} failed, '
                      f'{time.time() - started:.0f} s', flush=True)
        searched = [o for found in pool.map(search, cases(4, args.seed + 1, duration=1.5))
                    for o in found]
        result: dict[str, Any] = {
            'schema': 1, 'revision': revision(), 'machine': platform.platform(),
            'seed': args.seed, 'full': summary(outcomes), 'cross_entropy': summary(searched),
            'removed': {}, 'kept': {}, 'beyond_factor': BEYOND, 'beyond_bounds': {}}
        for term in TEETH:
            result['removed'][term] = summary(pool.map(_outcome, hard_cases(term, True, 16,
                                                                            args.seed + 2)))
            result['kept'][term] = summary(pool.map(_outcome, hard_cases(term, False, 16,
                                                                         args.seed + 2)))
        for name, changes in BEYOND_RUNS.items():
            drawn = list(cases(40, args.seed + 3, duration=2.0, beyond=BEYOND, **changes))
            result['beyond_bounds'][name] = summary(pool.map(_outcome, drawn))
    result['seconds'] = time.time() - started
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + '\n')
    return report(result)


def hard_cases(term: str, blind: bool, count: int, seed: int) -> list[Case]:
    """Return runs in which a term matters, with it taken out of the filter or not."""
    drawn = cases(count, seed, obstacles=1, duration=2.5, rate=250.0, dropout=0.0, params=BARE,
                  blind=(term,) if blind else (), **TEETH[term])
    return [replace(case, command=('twist', 'steepest')[k % 2]) for k, case in enumerate(drawn)]


def report(result: dict[str, Any]) -> int:
    """Print what matters of a search; return 1 unless all of it is as it must be."""
    full, wrong = result['full'], []
    print(f'{full["runs"]} runs: {full["failed"]} failed, least distance while vouched '
          f'{full["least_while_vouched_m"] * 1e3:.1f} mm, {full["stopped"]} stopped, '
          f'{full["told_of_a_broken_bound"]} false alarms of a broken bound')
    if full['failed'] or result['cross_entropy']['failed'] or full['told_of_a_broken_bound']:
        wrong.append('full')
    for term, row in result['removed'].items():
        kept = result['kept'][term]
        print(f'without {term}: {row["failed"]} of {row["runs"]} failed; with it {kept["failed"]}')
        if not row['failed'] or kept['failed']:
            wrong.append(term)
    for name, row in result['beyond_bounds'].items():
        print(f'bounds exceeded by {BEYOND - 1:.0%}, {name}: noticed in {row["noticed"]} of '
              f'{row["runs"]}; not, and a motion inside the bounds looks the same, in '
              f'{row["unnoticed_and_explained"]}; {row["failed"]} failed, '
              f'{row["failed_unnoticed"]} of them unnoticed')
        if row['failed_unnoticed'] or row['told_though_explained']:
            wrong.append(name)
    return 1 if wrong else 0


def revision() -> str:
    """Return the git revision, 'unknown' outside a repository."""
    try:
        out = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True,
                             cwd=Path(__file__).parent, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return out.stdout.strip() or 'unknown'


if __name__ == '__main__':
    raise SystemExit(main())
