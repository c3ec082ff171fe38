"""`make prove`: a long search for an unnoticed collision, and for what each term prevents.

    python -m safety_filter.bench.prove [--runs 1000] [--seed 0] [--out out/bench/prove.json]

Writes the counts with Wilson 95 % intervals and every failing case, which can be run again from
its fields. Each run that ends is kept in a file beside it (`.part`): killed, the search goes on
where it was, unless the code has changed since. The exit code is 1 unless the full filter failed
in no run, without each of its terms it failed in most of those made for that term, and every
broken bound that could be proved was told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from safety_filter.bench import hidden
from safety_filter.bench.adversary import CHASE, COMMANDS, HOLD, LUNGE, Case, cases
from safety_filter.bench.identity import identity
from safety_filter.bench.invariance import EDGE, Outcome, run
from safety_filter.bench.teeth import TEETH, hard_cases
from safety_filter.core.robot import RobotModel, config_dir
from safety_filter.demo.summary import git_revision, machine, versions
from safety_filter.stats import wilson

HARD_RUNS = 24
"""Runs for each term, with it and without."""
BITE = 2 / 3
"""Share of those without it that must fail."""
BEYOND = 1.2
NOISE_FREE = {'position_sigma': 0.0, 'velocity_sigma': 0.0}
PLAIN = {'duration': 2.0, 'camera_rate': 30.0, 'steady': False, 'params': {}, 'beyond': BEYOND}
BEYOND_RUNS: dict[str, dict[str, Any]] = {
    'chasing': {'modes': (0, 1)}, 'chasing, noise free': {'modes': (0, 1), **NOISE_FREE},
    'all modes': {}, 'all modes, noise free': NOISE_FREE}
"""Kinds of runs beyond the bounds: what only holds or wanders rarely breaks one for long."""
SLOWEST = 0.05
"""Least share of the bound on what moves that is drawn as the bound on what rests."""
SEARCHED = ('latency', 'jitter', 'top_speed', 'position_sigma', 'velocity_sigma')
"""What the cross-entropy search varies, from and to:"""
LOWEST = np.array([0.0, 0.0, 0.05, 0.0, 0.0])
HIGHEST = np.array([0.06, 0.02, 0.35, 0.008, 0.04])


class Job(NamedTuple):
    """One run of a set, or one cross-entropy search that starts from its case."""

    name: str
    index: int
    case: Case
    searched: bool = False

    @property
    def key(self) -> str:
        """Return what tells the job from all others."""
        return f'{self.name} {self.index}'


_robot: list[RobotModel] = []


def _outcome(case: Case) -> Outcome:
    if not _robot:
        _robot.append(RobotModel.shipped('panda'))
    return run(_robot[0], case)


def _work(job: Job) -> list[Outcome]:
    return search(job.case) if job.searched else [_outcome(job.case)]


def search(case: Case, generations: int = 4, population: int = 12) -> list[Outcome]:
    """Return the outcomes of a cross-entropy search for the least distance."""
    rng = np.random.default_rng(case.seed)
    mean, spread = (LOWEST + HIGHEST) / 2, (HIGHEST - LOWEST) / 3
    found: list[Outcome] = []
    for generation in range(generations):
        drawn = np.clip(rng.normal(mean, spread, (population, len(SEARCHED))), LOWEST, HIGHEST)
        outcomes = []
        for k, row in enumerate(drawn):
            values = dict(zip(SEARCHED, map(float, row), strict=True))
            outcomes.append(_outcome(replace(
                case, seed=case.seed * 1009 + generation * population + k,
                command=COMMANDS[int(rng.integers(len(COMMANDS)))], **values)))
        found += outcomes
        best = np.argsort([o.least_while_vouched for o in outcomes])[:population // 4]
        mean, spread = drawn[best].mean(0), drawn[best].std(0) + 0.05 * (HIGHEST - LOWEST)
    return found


def jobs(runs: int, seed: int) -> Iterator[Job]:
    """Yield all there is to do: the drawn runs and those from rest first, then the terms' runs
    with and without them, those beyond the bounds, and the searches."""
    sets: list[tuple[str, Iterable[Case]]] = [
        ('full', cases(runs, seed, duration=2.0)), ('from rest', from_rest(-(-runs // 4), seed))]
    for term in TEETH:
        sets += [(f'removed {term}', hard_cases(term, True, HARD_RUNS, seed + 2)),
                 (f'kept {term}', hard_cases(term, False, HARD_RUNS, seed + 2))]
    sets += [(f'beyond {name}', cases(40, seed + 3, **{**PLAIN, **changes}))
             for name, changes in BEYOND_RUNS.items()]
    for name, drawn in sets:
        yield from (Job(name, k, case) for k, case in enumerate(drawn))
    hardest = cases(8, seed + 1, duration=1.5, modes=(0, LUNGE))
    yield from (Job('cross_entropy', k, case, True) for k, case in enumerate(hardest))


def from_rest(count: int, seed: int) -> Iterator[Case]:
    """Yield cases whose obstacles set out from rest, where a lower bound holds, late seen."""
    rng = np.random.default_rng(seed)
    for case in cases(count, seed + 4, duration=2.0, modes=(CHASE, HOLD, LUNGE)):
        yield replace(case, resting=float(SLOWEST ** rng.random()), latency=rng.uniform(0.0, 0.15))


def fingerprint(runs: int, seed: int) -> str:
    """Return what must be the same for results to belong together: the code, the robot, the
    libraries and the request."""
    package = Path(hidden.__file__).parents[1]
    files = [*sorted((package / 'core').glob('*.py')), config_dir() / 'panda.yaml', *(
        package / 'bench' / f'{name}.py'
        for name in ('adversary', 'hidden', 'invariance', 'prove', 'teeth'))]
    digest = hashlib.sha256(f'{runs} {seed} {identity()["libraries"]}'.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def collect(todo: Iterable[Job], part: Path, request: str,
            workers: int) -> dict[str, list[Outcome]]:
    """Return the outcomes of each set of jobs, those known in the file `part` not run again.

    Every job that ends is one more line of it; the first says what `request` they belong to. A
    torn last line is dropped, a file of another request is begun anew: what takes its place is
    written beside it first.
    """
    todo = list(todo)
    known = _known(part, request)
    missing = [job for job in todo if job.key not in known]
    if known and missing:
        print(f'{part}: {len(known)} of {len(todo)} jobs are done, going on', flush=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with ProcessPoolExecutor(workers) as pool, _continued(part, request, known) as file:
        for k, (job, outcomes) in enumerate(zip(missing, pool.map(_work, missing), strict=True)):
            known[job.key] = [_row(o) for o in outcomes]
            _line(file, {'job': job.key, 'outcomes': known[job.key]})
            if k % 50 == 49:
                print(f'{k + 1}/{len(missing)} jobs, {time.time() - started:.0f} s', flush=True)
    out: dict[str, list[Outcome]] = {}
    for job in todo:
        out.setdefault(job.name, []).extend(
            Outcome(**{**row, 'case': _case(row['case'])}) for row in known[job.key])
    return out


def _continued(part: Path, request: str, known: dict[str, list[dict[str, Any]]]) -> TextIO:
    """Return the file, open at its end, with what is known and nothing else."""
    whole = part.with_name(f'{part.name}.new')
    with whole.open('w') as file:
        _line(file, {'request': request})
        for key, rows in known.items():
            _line(file, {'job': key, 'outcomes': rows})
    whole.replace(part)
    return part.open('a')


def _line(file: Any, content: dict[str, Any]) -> None:
    file.write(json.dumps(content) + '\n')
    file.flush()


def _row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(json.dumps(asdict(outcome)))
    return row


def _case(fields: dict[str, Any]) -> Case:
    return Case(**{**fields, 'modes': tuple(fields['modes']),
                   'without': tuple(fields['without'])})


def _known(part: Path, request: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is in the file: the outcomes of each job, none if it is of another request."""
    known: dict[str, list[dict[str, Any]]] = {}
    try:
        lines = part.read_text().split('\n')[:-1]
    except FileNotFoundError:
        return known
    if not lines or json.loads(lines[0]).get('request') != request:
        print(f'{part}: of other code or another request, begun anew', flush=True)
        return known
    for line in lines[1:]:
        content = json.loads(line)
        known[content['job']] = content['outcomes']
    return known


def summary(runs: list[Outcome]) -> dict[str, Any]:
    """Return counts and least distances of a set of runs."""
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
        'unnoticed_on_the_edge': sum(o.edge and not o.noticed for o in runs),
        'unnoticed_though_provable': sum(not (o.hidden or o.edge or o.noticed) for o in runs),
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
    parser.add_argument('--jobs', type=int, default=1, help='processes')
    parser.add_argument('--out', type=Path, default=Path('out/bench/prove.json'))
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f'--jobs: expected at least 1, got {args.jobs}')
    part, revision = args.out.with_suffix('.part'), git_revision(Path(__file__).parent)
    found = collect(jobs(args.runs, args.seed), part, fingerprint(args.runs, args.seed), args.jobs)
    sets = {name: summary(outcomes) for name, outcomes in found.items()}
    result: dict[str, Any] = {
        'schema_version': 3, 'git_revision': revision, 'machine': machine(),
        'versions': versions(), 'seed': args.seed, 'full': sets['full'],
        'from_rest': sets['from rest'], 'cross_entropy': sets['cross_entropy'],
        'removed': _of(sets, 'removed '), 'kept': _of(sets, 'kept '), 'beyond_factor': BEYOND,
        'beyond_bounds': _of(sets, 'beyond ')}
    args.out.write_text(json.dumps(result, indent=1) + '\n')
    part.unlink()
    return report(result)


def _of(sets: dict[str, Any], start: str) -> dict[str, Any]:
    return {name[len(start):]: row for name, row in sets.items() if name.startswith(start)}


def report(result: dict[str, Any]) -> int:
    """Print what matters of a search; return 1 unless all of it is as it must be."""
    wrong = []
    for name in ('full', 'from_rest', 'cross_entropy'):
        row = result[name]
        print(f'{name}: {row["runs"]} runs, {row["failed"]} failed, least distance while vouched '
              f'{row["least_while_vouched_m"] * 1e3:.1f} mm, {row["stopped"]} stopped, '
              f'{row["touched_after_a_stop"]} touched after it, {row["told_of_a_broken_bound"]} '
              'false alarms of a broken bound')
        if row['failed'] or row['told_of_a_broken_bound']:
            wrong.append(name)
    for term, row in result['removed'].items():
        kept = result['kept'][term]
        print(f'without {term}: {row["failed"]} of {row["runs"]} failed; with it '
              f'{kept["failed"]}, least distance {kept["least_while_vouched_m"] * 1e3:.1f} mm')
        if row['failed'] < BITE * row['runs'] or kept['failed']:
            wrong.append(term)
    for name, row in result['beyond_bounds'].items():
        print(f'bounds exceeded by {BEYOND - 1:.0%}, {name}: noticed in {row["noticed"]} of '
              f'{row["runs"]}; not, and a motion inside the bounds looks the same, in '
              f'{row["unnoticed_and_explained"]}, or inside bounds wider by {EDGE:.1%}, in '
              f'{row["unnoticed_on_the_edge"]}; not, though provable, in '
              f'{row["unnoticed_though_provable"]}; told though explained in '
              f'{row["told_though_explained"]}; {row["failed"]} failed, '
              f'{row["failed_unnoticed"]} of them unnoticed')
        if (row['failed_unnoticed'] or row['told_though_explained']
                or row['unnoticed_though_provable']):
            wrong.append(name)
    if wrong:
        print(f'not as it must be: {", ".join(wrong)}')
    return 1 if wrong else 0


if __name__ == '__main__':
    raise SystemExit(main())
