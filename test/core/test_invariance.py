"""Forward invariance under adversarial commands and obstacles, with the teeth to prove it wrong.

60 fixed runs here; `make prove` runs a thousand and more.
"""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.bench.invariance import Outcome, cases, distance_by_bisection, run
from safety_filter.bench.prove import TEETH, hard_cases
from safety_filter.core.robot import RobotModel

RUNS = 60


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


@pytest.mark.parametrize('term', sorted(TEETH))
def test_taking_a_term_out_makes_it_fail_and_with_it_the_run_holds(panda: RobotModel,
                                                                  term: str) -> None:
    assert any(run(panda, case).failed for case in hard_cases(term, True, 8, 2))
    assert [c for c in hard_cases(term, False, 8, 2) if run(panda, c).failed] == []


def test_no_bound_is_told_to_be_broken_while_all_hold(outcomes: list[Outcome]) -> None:
    assert [o.case for o in outcomes if o.told_at is not None] == []


def test_twenty_per_cent_beyond_the_bounds_is_noticed(panda: RobotModel) -> None:
    """Without noise whenever a motion inside the bounds does not look the same."""
    clear = [run(panda, case) for case in cases(12, 3, duration=1.2, beyond=1.2,
                                                position_sigma=0.0, velocity_sigma=0.0)]
    assert sum(o.noticed for o in clear) >= 8
    assert all(o.noticed != o.hidden for o in clear)
    noisy = [run(panda, case) for case in cases(12, 4, duration=1.2, beyond=1.2, modes=(0, 1))]
    assert sum(o.noticed for o in noisy) >= 8
    assert not any(o.told_at is not None and o.hidden for o in noisy)
    assert not any(o.failed and not o.noticed for o in noisy)


def test_the_oracle_is_the_closest_point(panda: RobotModel) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        axes, d = rng.uniform(0.05, 0.3, 3), rng.normal(size=3)
        u = rng.normal(size=(200_000, 3))
        surface = axes * u / np.linalg.norm(u, axis=1)[:, None]
        brute = np.linalg.norm(surface - d, axis=1).min()
        exact = abs(distance_by_bisection(d, axes, np.eye(3)))
        assert exact <= brute + 1e-9 and brute - exact < 0.01
