"""Forward invariance under adversarial commands and obstacles, with the teeth to prove it wrong.

60 fixed runs here; `make prove` runs a thousand and more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safety_filter.bench.invariance import Case, Outcome, cases, distance_by_bisection, run
from safety_filter.core.robot import RobotModel

RUNS = 60
BARE = {'comfort_margin': 0.0, 'comfort_share': 1.0, 'tracking_error': 0.0}
HARD: dict[str, dict[str, Any]] = {
    'velocity': {'modes': (0,), 'top_speed': 0.25},
    'latency': {'modes': (0,), 'top_speed': 0.25, 'latency': 0.07, 'jitter': 0.0,
                'position_sigma': 0.0, 'velocity_sigma': 0.0},
    'margins': {'modes': (0,), 'top_speed': 0.1, 'position_sigma': 0.01, 'velocity_sigma': 0.0,
                'acceleration': 1.5}}
"""For each term a kind of run in which it matters, all of them inside the declared bounds."""


@pytest.fixture(scope='module')
def outcomes(panda: RobotModel) -> list[Outcome]:
    return [run(panda, case) for case in cases(RUNS, seed=1, duration=1.0)]


def test_nothing_is_touched_while_the_filter_vouches_for_it(outcomes: list[Outcome]) -> None:
    assert len(outcomes) == RUNS
    assert [o.case for o in outcomes if o.failed] == []


def test_the_runs_are_hard_and_mostly_vouched_for(outcomes: list[Outcome]) -> None:
    assert np.mean([o.filtered_share for o in outcomes]) > 0.5
    assert sum(o.stopped_at is None for o in outcomes) >= 0.8 * RUNS
    assert sum(o.least_while_vouched < 0.08 for o in outcomes) >= RUNS / 4


def test_limits_hold_in_every_run(outcomes: list[Outcome]) -> None:
    assert max(o.limit_excess for o in outcomes) <= 1e-9


def hard_cases(term: str, blind: bool) -> list[Case]:
    changes = {**HARD[term], 'params': BARE, 'blind': (term,) if blind else ()}
    found = cases(8, seed=2, obstacles=1, duration=2.0, rate=250.0, dropout=0.0, **changes)
    return [replace(case, command=('twist', 'steepest')[k % 2]) for k, case in enumerate(found)]


@pytest.mark.parametrize('term', ['velocity', 'latency'])
def test_taking_a_term_out_makes_it_fail_and_with_it_the_run_holds(panda: RobotModel,
                                                                  term: str) -> None:
    assert any(run(panda, case).failed for case in hard_cases(term, True))
    assert [c for c in hard_cases(term, False) if run(panda, c).failed] == []


def test_without_margins_noise_leads_to_contact_and_with_them_never(panda: RobotModel) -> None:
    assert any(run(panda, case).least < 0.0 for case in hard_cases('margins', True))
    assert min(run(panda, case).least for case in hard_cases('margins', False)) > 0.0


def test_the_oracle_is_the_closest_point(panda: RobotModel) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        axes, d = rng.uniform(0.05, 0.3, 3), rng.normal(size=3)
        u = rng.normal(size=(200_000, 3))
        surface = axes * u / np.linalg.norm(u, axis=1)[:, None]
        brute = np.linalg.norm(surface - d, axis=1).min()
        exact = abs(distance_by_bisection(d, axes, np.eye(3)))
        assert exact <= brute + 1e-9 and brute - exact < 0.01
