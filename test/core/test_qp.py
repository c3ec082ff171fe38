"""One test body for every back-end, failure cases included."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from safety_filter.core.qp import (
    INFINITY,
    SOLVERS,
    STAGES,
    DaqpSolver,
    Problem,
    Solver,
    generate_rows,
    problem_fault,
)


@pytest.fixture(params=sorted(SOLVERS))
def solver(request: pytest.FixtureRequest) -> Solver:
    return SOLVERS[request.param]()


def problem(seed: int, m: int = 12, n: int = 7, feasible: bool = True) -> Problem:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    hessian = 0.1 * root @ root.T + 0.05 * np.eye(n)
    rows = rng.normal(size=(m, n)) * 0.4
    inside = rng.uniform(-0.3, 0.3, n)
    bound = rows @ inside - (rng.uniform(0, 0.1, m) if feasible else -5.0)
    return Problem(hessian, -hessian @ rng.normal(size=n), rows,
                   np.concatenate([-np.ones(n), bound]),
                   np.concatenate([np.ones(n), np.full(m, INFINITY)]))


@pytest.mark.parametrize('seed', range(20))
def test_answer_meets_the_conditions_of_optimality(solver: Solver, seed: int) -> None:
    p = problem(seed)
    solution = solver.solve(p)
    assert solution.found and solution.status == 'solved'
    x, n = solution.x, 7
    value = np.concatenate([x, p.rows @ x])
    assert np.all(value >= p.lower - 1e-6) and np.all(value <= p.upper + 1e-6)
    normals = np.vstack([np.eye(n), p.rows])
    low, high = value <= p.lower + 1e-5, value >= p.upper - 1e-5
    active = np.vstack([normals[low], -normals[high]])
    gradient = p.hessian @ x + p.gradient
    from scipy.optimize import nnls
    _, residual = nnls(active.T, gradient) if len(active) else (0, np.linalg.norm(gradient))
    assert residual < 1e-5


def test_an_answer_holds_little_but_its_numbers(solver: Solver) -> None:
    """A recorder keeps thousands of them."""
    p = problem(3)
    solver.solve(p)
    tracemalloc.start()
    try:
        kept = [solver.solve(p).x for _ in range(1000)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(kept) < 600.0, 'bytes for seven numbers'


def test_answer_equals_that_of_a_general_optimiser(solver: Solver) -> None:
    p = problem(3)
    oracle = minimize(lambda x: 0.5 * x @ p.hessian @ x + p.gradient @ x, np.zeros(7),
                      jac=lambda x: p.hessian @ x + p.gradient, method='SLSQP',
                      bounds=[(-1, 1)] * 7, options={'ftol': 1e-14, 'maxiter': 500},
                      constraints={'type': 'ineq', 'fun': lambda x: p.rows @ x - p.lower[7:]})
    assert np.allclose(solver.solve(p).x, oracle.x, atol=1e-5)


def test_no_rows_at_all(solver: Solver) -> None:
    p = problem(0, m=0)
    solution = solver.solve(p)
    assert solution.found and np.all(np.abs(solution.x) <= 1 + 1e-6)


def test_infeasible_is_not_found(solver: Solver) -> None:
    rows = np.vstack([np.eye(7)[0], -np.eye(7)[0]])
    p = Problem(np.eye(7), np.zeros(7), rows, np.concatenate([-np.ones(7), [0.5, 0.5]]),
                np.concatenate([np.ones(7), np.full(2, INFINITY)]))
    solution = solver.solve(p)
    assert not solution.found and solution.status == 'infeasible' and solution.x.size == 0


@pytest.mark.parametrize('where', ['hessian', 'gradient', 'rows', 'lower', 'upper'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_not_finite_is_refused_and_leaves_no_trace(solver: Solver, where: str,
                                                   value: float) -> None:
    good, bad = problem(1), problem(1)
    expected = solver.solve(good).x
    getattr(bad, where).flat[0] = value
    solution = solver.solve(bad)
    assert not solution.found and solution.status == 'not finite'
    assert np.allclose(solver.solve(good).x, expected, atol=1e-7)


def test_crossed_bounds_are_refused_and_leave_no_trace(solver: Solver) -> None:
    good, bad = problem(2), problem(2)
    expected = solver.solve(good).x
    bad.lower[0] = bad.upper[0] + 1.0
    assert problem_fault(bad) == 'lower bound above upper bound'
    assert not solver.solve(bad).found
    assert np.allclose(solver.solve(good).x, expected, atol=1e-7)


def test_a_failed_problem_does_not_spoil_the_next(solver: Solver) -> None:
    good = problem(4)
    expected = solver.solve(good).x
    assert not solver.solve(problem(4, feasible=False)).found
    assert np.allclose(solver.solve(good).x, expected, atol=1e-6)


def test_number_of_rows_may_change_from_step_to_step(solver: Solver) -> None:
    for m in (0, 3, 40, 1, 17, 0):
        assert solver.solve(problem(5, m=m)).found


def relaxable(seed: int) -> tuple[Problem, Any]:
    """Return a problem of which some rows cannot hold, and their levels."""
    rng, p = np.random.default_rng(seed + 1000), problem(seed)
    hard = p.lower.copy()
    hard[7:] += rng.uniform(0.0, 0.4, 12)
    return (p._replace(lower=hard, rows=p.rows * rng.uniform(0.1, 1.0, (12, 1))),
            rng.integers(1, 3, 12))


def test_every_relaxed_problem_has_an_answer_that_holds(solver: Solver,
                                                        capfd: pytest.CaptureFixture[str]) -> None:
    """Penalties of 1e4 beside a cost of 0.01: where the optimum is out of reach, what is there is
    taken, with the slack that it needs."""
    proven, worst = 0, 0.0
    for seed in range(60):
        p, levels = relaxable(seed)
        relaxed = generate_rows(solver, p, levels, np.zeros(7))
        assert relaxed.found and np.all(np.abs(relaxed.x) <= 1.0)
        assert np.all(p.rows @ relaxed.x + relaxed.slack >= p.lower[7:] - 1e-6)
        if relaxed.status == 'solved':
            proven += 1
            exact = generate_rows(DaqpSolver(), p, levels, np.zeros(7))
            worst = max(worst, float(np.abs(exact.x - relaxed.x).max()))
    assert proven >= 50 and worst < 1e-6
    assert capfd.readouterr().out == ''


def test_operator_splitting_does_a_bounded_amount_of_work() -> None:
    assert sum(most for _, most in STAGES) <= 2500


@pytest.mark.parametrize('name', sorted(SOLVERS))
def test_no_more_iterations_than_it_may_take_and_then_it_says_so(name: str) -> None:
    """A cap that binds, and one that does not."""
    hard, few = problem(3, m=200), 10
    free, bound = SOLVERS[name]().solve(hard), SOLVERS[name](few).solve(hard)
    assert free.found and free.iterations > few
    assert not bound.found and bound.iterations <= few
    assert 'iteration' in bound.status
    assert np.array_equal(SOLVERS[name](free.iterations + 1).solve(hard).x, free.x)


@pytest.mark.parametrize('seed', range(10))
def test_rows_that_are_nearly_parallel_have_an_exact_answer(solver: Solver, seed: int) -> None:
    """As those of the spheres of one link against one obstacle are."""
    rng, p = np.random.default_rng(seed), problem(seed)
    rows = p.rows[:1] + 1e-3 * rng.normal(size=(12, 7))
    near = p._replace(rows=rows, lower=np.concatenate([p.lower[:7], rows @ np.full(7, 0.05)]))
    solution, exact = solver.solve(near), DaqpSolver().solve(near)
    assert solution.found and np.allclose(solution.x, exact.x, atol=1e-6)


def test_relaxation_of_a_feasible_problem_is_exact(solver: Solver) -> None:
    p = problem(6)
    relaxed = generate_rows(solver, p, np.ones(12, np.int64), np.zeros(7))
    assert relaxed.found and relaxed.slack.max() < 1e-7
    assert np.allclose(relaxed.x, solver.solve(p).x, atol=1e-7)


def test_relaxation_violates_as_few_and_as_little_as_it_must() -> None:
    """x >= 0.5 twice against -x >= 0.4: the sum is least at 0.5 (an L2 slack would share)."""
    rows = np.array([[1.0], [1.0], [-1.0]])
    p = Problem(np.eye(1), np.zeros(1), rows, np.array([-1.0, 0.5, 0.5, 0.4]),
                np.array([1.0, INFINITY, INFINITY, INFINITY]))
    relaxed = generate_rows(SOLVERS['daqp'](), p, np.ones(3, np.int64), np.zeros(1))
    assert relaxed.found and np.allclose(relaxed.x, 0.5, atol=1e-6)
    assert np.allclose(relaxed.slack, [0, 0, 0.9], atol=1e-6)


def test_level_one_gives_way_last() -> None:
    rows = np.array([[1.0], [-1.0]])
    p = Problem(np.eye(1), np.zeros(1), rows, np.array([-1.0, 0.5, 0.4]),
                np.array([1.0, INFINITY, INFINITY]))
    solver = SOLVERS['daqp']()
    first = generate_rows(solver, p, np.array([1, 2]), np.zeros(1))
    second = generate_rows(solver, p, np.array([2, 1]), np.zeros(1))
    assert np.allclose(first.slack, [0, 0.9], atol=1e-6)
    assert np.allclose(second.slack, [0.9, 0], atol=1e-6)


def test_the_box_is_never_relaxed_and_caps_may_make_it_impossible() -> None:
    rows = np.array([[1.0]])
    p = Problem(np.eye(1), np.zeros(1), rows, np.array([-1.0, 3.0]), np.array([1.0, INFINITY]))
    solver, levels = SOLVERS['daqp'](), np.ones(1, np.int64)
    relaxed = generate_rows(solver, p, levels, np.zeros(1))
    assert np.allclose(relaxed.x, 1.0, atol=1e-6) and np.allclose(relaxed.slack, 2.0, atol=1e-6)
    assert not generate_rows(solver, p, levels, np.zeros(1), np.array([1.9])).found
    assert generate_rows(solver, p, levels, np.zeros(1), np.array([2.1])).found


def test_row_generation_gives_the_answer_of_the_full_problem() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        p = problem(seed, m=60)
        bound = p.lower.copy()
        bound[7:] += rng.uniform(0.0, 0.5, 60)
        hard = p._replace(lower=bound)
        levels = rng.integers(1, 3, 60)
        relaxed = generate_rows(SOLVERS['daqp'](), hard, levels, np.zeros(7))
        if relaxed.found:
            assert np.all(hard.rows @ relaxed.x + relaxed.slack >= bound[7:] - 1e-6)
