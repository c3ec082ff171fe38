"""The relaxed problem in x alone: equal to the back-ends' answers, and proved where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safety_filter.core import relaxed
from safety_filter.core.qp import (
    INFINITY,
    DaqpSolver,
    Problem,
    Relaxed,
    Solution,
    generate_rows,
)
from safety_filter.core.relaxed import solve_relaxed
from safety_filter.core.robot import Array, Ints

N = 7


class NoSolver:
    """A back-end that must not be needed."""

    name = 'none'

    def solve(self, problem: Problem) -> Solution:
        """Raise AssertionError."""
        raise AssertionError('the back-end was asked')


def clash(seed: int, m: int, scale: float = 0.3) -> tuple[Problem, Ints]:
    """Return m rows, some in bundles that are nearly parallel, that cannot all hold in the box of
    one step, and their levels."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, N))
    hessian = 0.05 * root.T @ root + 0.02 * np.eye(N)
    rows = rng.normal(size=(m, N)) * rng.uniform(0.05, 0.6, (m, 1))
    rows[m // 2:] = rows[:m - m // 2] + 1e-3 * rng.normal(size=(m - m // 2, N))
    middle = rng.uniform(-0.5, 0.5, N)
    low, high = middle - 0.04, middle + 0.04
    bound = rows @ middle + rng.normal(0.0, scale * 0.08, m)
    return (Problem(hessian, rng.normal(size=N), rows, np.concatenate([low, bound]),
                    np.concatenate([high, np.full(m, INFINITY)])), rng.integers(1, 3, m))


def both(problem: Problem, levels: Ints, start: Array,
         most: Array | None = None) -> tuple[Relaxed, Relaxed]:
    return (solve_relaxed(NoSolver(), problem, levels, start, most),
            generate_rows(DaqpSolver(), problem, levels, start, most))


@pytest.mark.parametrize('m', [1, 4, 12, 40, 120])
def test_answer_is_that_of_the_back_end_with_a_slack_for_each_row(m: int) -> None:
    slack, tight, compared = 0, 0, 0
    for seed in range(40):
        problem, levels = clash(seed, m)
        start = problem.lower[:N] if seed % 2 else problem.upper[:N]
        ours, theirs = both(problem, levels, start)
        assert ours.found and ours.status == 'solved'
        gap = problem.lower[N:] - problem.rows @ ours.x
        slack += int((gap > 1e-7).sum())
        tight += int((np.abs(gap) <= 1e-7).sum())
        assert np.allclose(ours.slack, np.maximum(gap, 0.0), atol=1e-12)
        if theirs.status == 'solved':  # DAQP comes to its row generation limit now and then
            compared += 1
            assert np.abs(ours.x - theirs.x).max() < 1e-8
            assert np.abs(ours.slack - theirs.slack).max() < 1e-7
    assert compared >= 36 and slack >= 4 and tight >= 10, (compared, slack, tight)


def test_caps_hold_and_the_answer_is_that_of_the_back_end() -> None:
    full, found = 0, 0
    for seed in range(120):
        problem, levels = clash(seed, 14, 0.15)
        rng = np.random.default_rng(seed)
        most = rng.uniform(0.0, 0.03, 14) * (rng.uniform(size=14) < 0.8)
        ours = solve_relaxed(DaqpSolver(), problem, levels, problem.lower[:N], most)
        theirs = generate_rows(DaqpSolver(), problem, levels, problem.lower[:N], most)
        assert ours.found == theirs.found, seed
        if ours.found:
            found += 1
            full += int((ours.slack >= most - 1e-9)[most > 0.0].sum())
            assert np.all(ours.slack <= most + 1e-7)
            assert np.abs(ours.x - theirs.x).max() < 1e-8
    assert 20 <= found <= 100 and full >= 10, (found, full)


def test_the_answer_does_not_depend_on_where_the_search_begins() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        problem, levels = clash(seed, 30)
        answers = [solve_relaxed(NoSolver(), problem, levels, start).x for start in
                   (problem.lower[:N], problem.upper[:N], rng.normal(size=N))]
        assert np.ptp(answers, axis=0).max() < 1e-9


def test_a_cap_that_no_velocity_keeps_to_is_proof_enough() -> None:
    problem, levels = clash(1, 6)
    problem.lower[N] = problem.rows[0] @ problem.lower[:N] + 5.0
    answer = solve_relaxed(NoSolver(), problem, levels, np.zeros(N), np.full(6, 0.01))
    assert not answer.found and answer.status == 'infeasible'


def test_no_rows_and_equal_rows() -> None:
    problem, levels = clash(2, 8)
    none = problem._replace(rows=problem.rows[:0], lower=problem.lower[:N],
                            upper=problem.upper[:N])
    assert solve_relaxed(NoSolver(), none, levels[:0], np.zeros(N)).found
    problem.rows[:], problem.lower[N:] = problem.rows[0], problem.lower[N] + 1.0
    ours, theirs = both(problem, np.ones(8, np.int64), np.zeros(N))
    assert np.abs(ours.x - theirs.x).max() < 1e-8


def test_what_is_left_undecided_is_asked_of_the_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, levels = clash(3, 12)
    expected = solve_relaxed(NoSolver(), problem, levels, np.zeros(N)).x

    def undecided(*args: Any) -> tuple[int, Array, Array]:
        return relaxed.UNDECIDED, np.zeros(N), np.zeros(12)
    monkeypatch.setattr(relaxed, '_solve', undecided)
    answer = solve_relaxed(DaqpSolver(), problem, levels, np.zeros(N))
    assert answer.found and np.abs(answer.x - expected).max() < 1e-8


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without compilation, so that an index out of bounds is an error and not a torn heap."""
    for name, function in list(vars(relaxed).items()):
        if hasattr(function, 'py_func'):
            monkeypatch.setattr(relaxed, name, function.py_func)


@pytest.mark.usefixtures('interpreted')
def test_a_corner_that_rounding_moves_has_no_further_bound() -> None:
    """Rows of a benchmark step that meet at an angle so sharp that their corner is 4e-10 off."""
    saved = np.load(Path(__file__).parent / 'corner.npz')
    problem = Problem(*(saved[name] for name in Problem._fields))
    ours, theirs = both(problem, saved['levels'], saved['start'])
    assert ours.found and np.abs(ours.x - theirs.x).max() < 1e-7


@pytest.mark.usefixtures('interpreted')
def test_no_index_is_out_of_bounds() -> None:
    for seed in range(30):
        problem, levels = clash(seed, 24)
        assert solve_relaxed(NoSolver(), problem, levels, np.zeros(N)).found


@pytest.mark.parametrize('where', ['hessian', 'gradient', 'rows', 'lower', 'upper'])
def test_not_finite_is_refused(where: str) -> None:
    problem, levels = clash(4, 5)
    getattr(problem, where).flat[0] = np.nan
    answer = solve_relaxed(NoSolver(), problem, levels, np.zeros(N))
    assert not answer.found and answer.status == 'not finite' and not len(answer.x)


def test_an_indefinite_objective_is_not_taken_for_solved() -> None:
    problem, _ = clash(5, 5)
    problem.hessian[0, 0] = -1.0
    code, _, _ = relaxed._solve(*problem, np.full(5, 1e4), np.full(5, INFINITY),
                                problem.lower[:N])
    assert code == relaxed.UNDECIDED
