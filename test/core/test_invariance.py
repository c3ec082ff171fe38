"""Forward invariance under adversarial commands and obstacles, with the teeth to prove it wrong.

60 fixed runs here; `make prove` runs a thousand and more.
"""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.bench.adversary import HOLD, LEAD, Case, World, cases, distance_by_bisection
from safety_filter.bench.invariance import Outcome, run
from safety_filter.bench.prove import BEYOND, BITE, NOISE_FREE, PLAIN
from safety_filter.bench.teeth import TEETH, hard_cases
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel

RUNS, HARD = 60, 10


@pytest.fixture(scope='module')
def outcomes(panda: RobotModel) -> list[Outcome]:
    return [run(panda, case) for case in cases(RUNS, seed=1, duration=1.5)]


def test_nothing_is_touched_while_the_filter_vouches_for_it(outcomes: list[Outcome]) -> None:
    assert len(outcomes) == RUNS
    assert [o.case for o in outcomes if o.failed] == []


def test_the_runs_are_hard_and_mostly_vouched_for(outcomes: list[Outcome]) -> None:
    assert np.mean([o.filtered_share for o in outcomes]) > 0.5
    with_reserve = [o for o in outcomes if not o.case.params]
    assert sum(o.stopped_at is None for o in with_reserve) >= 0.8 * len(with_reserve)
    assert sum(o.least_while_vouched < 0.04 for o in outcomes) >= RUNS / 4
    assert min(o.least_while_vouched for o in outcomes) < 0.015


def test_limits_hold_in_every_run(outcomes: list[Outcome]) -> None:
    assert max(o.limit_excess for o in outcomes) <= 1e-9


@pytest.mark.parametrize('term', sorted(TEETH))
def test_taking_a_term_out_makes_it_fail_and_with_it_the_run_holds(panda: RobotModel,
                                                                  term: str) -> None:
    bitten = [run(panda, case) for case in hard_cases(term, True, HARD, 2)]
    assert sum(o.failed for o in bitten) >= BITE * HARD
    held = [run(panda, case) for case in hard_cases(term, False, HARD, 2)]
    assert [o.case for o in held if o.failed] == []
    assert min(o.least_while_vouched for o in held) < 0.005, 'the run gets as near as it may'


def test_no_bound_is_told_to_be_broken_while_all_hold(outcomes: list[Outcome]) -> None:
    assert [o.case for o in outcomes if o.told_at is not None] == []


def test_twenty_per_cent_beyond_the_bounds_is_noticed(panda: RobotModel) -> None:
    """Without noise whenever a motion inside the bounds does not look the same."""
    short = {**PLAIN, 'duration': 1.2, 'beyond': BEYOND}
    clear = [run(panda, case) for case in cases(12, 3, **short, **NOISE_FREE)]
    assert sum(o.noticed for o in clear) >= 8
    assert all(o.noticed != o.hidden for o in clear)
    noisy = [run(panda, case) for case in cases(12, 4, **short, modes=(0, 1))]
    assert sum(o.noticed for o in noisy) >= 8
    assert not any(o.told_at is not None and o.hidden for o in noisy)
    assert not any(o.failed and not o.noticed for o in noisy)


def test_the_arm_is_off_by_what_is_declared_and_no_more(panda: RobotModel) -> None:
    """Of all bodies one is as far from where the joint state says as `tracking_error` allows."""
    world = World(panda, Case(3, obstacles=1, modes=(HOLD,)))
    world.distance()
    kinematics, off = Kinematics(panda), []
    for _ in range(20):
        before = world.distance()
        world.advance(np.zeros(panda.n), 0.004)
        said = kinematics.spheres(world.q)
        off.append(float(np.linalg.norm(world.points - said, axis=1).max()))
        assert world.distance() <= before + 1e-9
    assert min(off) > 0.9 * 0.003 and max(off) <= 0.003


@pytest.mark.parametrize('lead', [0.0, LEAD])
def test_a_standing_error_is_as_large_and_turns_as_fast_as_declared(panda: RobotModel,
                                                                    lead: float) -> None:
    case = Case(5, obstacles=2, modes=(HOLD,), steady=True, lead=lead, turning=0.01)
    world, errors = World(panda, case), []
    rng = np.random.default_rng(0)
    for k in range(200):
        if k % 20 == 0:
            qd = rng.uniform(-1.0, 1.0, panda.n)
        seen = world.tracks()
        errors.append(np.column_stack([seen[n] for n in 'xyz']) - world.centres)
        world.advance(qd, 0.004)
    assert np.sqrt(seen['wxx']) == pytest.approx(case.velocity_sigma + case.turning)
    size = np.linalg.norm(errors, axis=2)
    assert 0.9 * 2 * case.position_sigma < np.median(size)
    assert size.max() <= 2 * case.position_sigma + 1e-7  # single precision on the wire
    rate = np.linalg.norm(np.diff(errors, axis=0), axis=2) / 0.004
    assert 0.9 * 2 * case.turning < rate.max() <= 2 * case.turning + 1e-4


def test_the_oracle_is_the_closest_point() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        axes, d = rng.uniform(0.05, 0.3, 3), rng.normal(size=3)
        u = rng.normal(size=(200_000, 3))
        surface = axes * u / np.linalg.norm(u, axis=1)[:, None]
        brute = np.linalg.norm(surface - d, axis=1).min()
        exact = abs(distance_by_bisection(d, axes, np.eye(3)))
        assert exact <= brute + 1e-9 and brute - exact < 0.01
