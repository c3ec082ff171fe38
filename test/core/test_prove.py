"""The long mode of the search (`make prove`): a thousand runs, and its parts on the quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safety_filter.bench import prove
from safety_filter.bench.invariance import Case
from safety_filter.core.robot import RobotModel


@pytest.mark.prove
def test_a_thousand_runs_find_no_unnoticed_collision() -> None:
    out = Path('out/bench/prove.json')
    assert prove.main(['--runs', '1000', '--out', str(out)]) == 0
    result = json.loads(out.read_text())
    assert result['full']['runs'] >= 1000 and result['full']['failed'] == 0
    assert result['full']['limit_excess'] <= 1e-9
    assert result['full']['told_of_a_broken_bound'] == 0
    assert all(row['failed'] > 0 for row in result['removed'].values())
    assert all(row['failed'] == 0 for row in result['kept'].values())


def test_summary_keeps_the_cases_that_failed(panda: RobotModel) -> None:
    prove._robot[:] = [panda]
    outcomes = [prove._outcome(Case(seed=k, duration=0.05)) for k in range(2)]
    result = prove.summary(outcomes)
    assert result['runs'] == 2 and result['failed'] == 0 and result['failing_cases'] == []


def test_cross_entropy_search_draws_new_cases(panda: RobotModel) -> None:
    prove._robot[:] = [panda]
    found = prove.search(Case(seed=1, duration=0.02), generations=2, population=4)
    assert len({o.case.latency for o in found}) == 8


def test_report_fails_for_whatever_must_not_be(capsys: pytest.CaptureFixture[str]) -> None:
    def result(**changes: int) -> dict[str, Any]:
        row = {'runs': 4, 'failed': 0, 'least_while_vouched_m': 0.01, 'stopped': 0, 'noticed': 3,
               'told_of_a_broken_bound': 0, 'unnoticed_and_explained': 1, 'failed_unnoticed': 0,
               'told_though_explained': 0}
        return {'full': row, 'cross_entropy': row, 'removed': {'latency': {**row, 'failed': 2}},
                'kept': {'latency': row}, 'beyond_bounds': {'chasing': {**row, **changes}}}

    assert prove.report(result()) == 0
    assert 'chasing: noticed in 3 of 4' in capsys.readouterr().out
    assert prove.report(result(failed_unnoticed=1)) == 1
    assert prove.report(result(told_though_explained=1)) == 1
