"""The long mode of the search (`make prove`): a thousand runs, and its parts on the quick."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safety_filter.bench import prove
from safety_filter.bench.adversary import Case
from safety_filter.bench.identity import identity
from safety_filter.core.robot import RobotModel, config_dir


@pytest.mark.prove
def test_a_thousand_runs_find_no_unnoticed_collision() -> None:
    out = Path('out/bench/prove.json')
    assert prove.main(['--runs', '1000', '--out', str(out)]) == 0
    result = json.loads(out.read_text())
    assert result['full']['runs'] >= 1000 and result['full']['failed'] == 0
    assert result['full']['limit_excess'] <= 1e-9
    assert result['full']['told_of_a_broken_bound'] == 0
    assert result['from_rest']['failed'] == result['from_rest']['told_of_a_broken_bound'] == 0
    assert all(row['failed'] >= prove.BITE * row['runs'] for row in result['removed'].values())
    assert all(row['failed'] == 0 for row in result['kept'].values())


def outcomes(count: int) -> list[Any]:
    return [prove._outcome(Case(seed=k, duration=0.02)) for k in range(count)]


def test_summary_counts_what_failed_and_keeps_its_cases(panda: RobotModel) -> None:
    prove._robot[:] = [panda]
    fine, bad = outcomes(2)
    result = prove.summary([fine, replace(bad, least_while_vouched=-0.001, least=-0.001)])
    assert (result['runs'], result['failed'], result['touched_after_a_stop']) == (2, 1, 0)
    assert [case['seed'] for case in result['failing_cases']] == [1]


def test_summary_parts_what_is_not_noticed_by_whether_it_could_be(panda: RobotModel) -> None:
    prove._robot[:] = [panda]
    quiet = replace(outcomes(1)[0], told_at=None, stopped_at=None, hidden=False, edge=False)
    told = replace(quiet, told_at=0.1)
    row = prove.summary([quiet, replace(quiet, hidden=True), replace(quiet, edge=True), told,
                         replace(told, hidden=True)])
    assert row['noticed'] == 2 and row['told_though_explained'] == 1
    assert (row['unnoticed_and_explained'], row['unnoticed_on_the_edge'],
            row['unnoticed_though_provable']) == (1, 1, 1)


def test_cross_entropy_search_draws_new_cases(panda: RobotModel) -> None:
    prove._robot[:] = [panda]
    found = prove.search(Case(seed=1, duration=0.02), generations=2, population=4)
    assert len({o.case.latency for o in found}) == 8


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    """What a torn file holds in whole lines is taken as it stands, the rest is run."""
    todo = [prove.Job('full', k, Case(seed=k, duration=0.02)) for k in range(4)]
    part = tmp_path / 'prove.part'
    whole = prove.collect(todo, part, 'one', 1)['full']
    lines = part.read_text().splitlines(keepends=True)
    assert len(lines) == 5
    known = [line.replace('"reason": ""', '"reason": "known"') for line in lines[:3]]
    part.write_text(''.join(known) + lines[3][:40])
    again = prove.collect(todo, part, 'one', 1)['full']
    assert [o.reason for o in again] == ['known', 'known', '', '']
    assert [replace(o, reason='') for o in again] == whole
    assert part.read_text().splitlines(keepends=True) == known + lines[3:]


def test_results_of_other_code_are_not_mixed_in(tmp_path: Path) -> None:
    part = tmp_path / 'prove.part'
    prove.collect([prove.Job('full', 0, Case(seed=0, duration=0.02))], part, 'one', 1)
    assert prove._known(part, 'one') and not prove._known(part, 'two')
    assert prove.fingerprint(10, 0) == prove.fingerprint(10, 0) != prove.fingerprint(10, 1)


def test_another_robot_or_library_is_another_request(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prove.fingerprint(10, 0)
    changed = {'libraries': {**identity()['libraries'], 'numpy': '9'}}
    monkeypatch.setattr(prove, 'identity', lambda: changed)
    other = prove.fingerprint(10, 0)
    (tmp_path / 'panda.yaml').write_bytes((config_dir() / 'panda.yaml').read_bytes() + b'\n')
    monkeypatch.setattr(prove, 'config_dir', lambda: tmp_path)
    assert len({before, other, prove.fingerprint(10, 0)}) == 3


def test_a_search_that_cannot_begin_loses_nothing(
        tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    todo = [prove.Job('full', k, Case(seed=k, duration=0.02)) for k in range(2)]
    part = tmp_path / 'prove.part'
    prove.collect(todo[:1], part, 'one', 1)
    kept = part.read_text()
    with pytest.raises(ValueError, match='max_workers'):
        prove.collect(todo, part, 'one', 0)
    full = OSError(28, 'No space left on device')
    monkeypatch.setattr(prove, '_line', lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match='No space left'):
        prove.collect(todo, part, 'one', 1)
    assert part.read_text() == kept
    with pytest.raises(SystemExit):
        prove.main(['--jobs', '0', '--out', str(tmp_path / 'prove.json')])
    assert '--jobs: expected at least 1, got 0' in capsys.readouterr().err
    assert part.read_text() == kept


def test_every_set_of_the_search_has_its_jobs() -> None:
    todo = list(prove.jobs(5, 0))
    assert len({job.key for job in todo}) == len(todo)
    names = [job.name for job in todo]
    assert names.count('full') == 5 and names.count('from rest') == 2
    slower = [job.case.resting for job in todo if job.name == 'from rest']
    assert max(slower) < 1.0 == max(job.case.resting for job in todo if job.name == 'full')
    assert names.count('removed latency') == prove.HARD_RUNS
    assert {job.name for job in todo if job.searched} == {'cross_entropy'}
    assert all(job.case.beyond == prove.BEYOND for job in todo if 'beyond' in job.name)
    assert all(bool(job.case.without) == job.name.startswith('removed') for job in todo)


def test_report_fails_for_whatever_must_not_be(capsys: pytest.CaptureFixture[str]) -> None:
    def result(**changes: int) -> dict[str, Any]:
        row = {'runs': 4, 'failed': 0, 'least_while_vouched_m': 0.01, 'stopped': 0, 'noticed': 3,
               'told_of_a_broken_bound': 0, 'unnoticed_and_explained': 1, 'failed_unnoticed': 0,
               'unnoticed_on_the_edge': 0, 'unnoticed_though_provable': 0,
               'told_though_explained': 0, 'touched_after_a_stop': 0}
        return {'full': row, 'from_rest': row, 'cross_entropy': row,
                'removed': {'latency': {**row, 'failed': changes.pop('bitten', 3)}},
                'kept': {'latency': row}, 'beyond_bounds': {'chasing': {**row, **changes}}}

    assert prove.report(result()) == 0
    assert 'chasing: noticed in 3 of 4' in capsys.readouterr().out
    assert prove.report(result(failed_unnoticed=1)) == 1
    assert prove.report(result(told_though_explained=1)) == 1
    assert prove.report(result(unnoticed_on_the_edge=1)) == 0
    assert prove.report(result(unnoticed_though_provable=1)) == 1
    assert prove.report(result(bitten=2)) == 1, 'half of them is no majority to rely on'
    assert 'not as it must be: latency' in capsys.readouterr().out
