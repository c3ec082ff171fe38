"""QP back-ends for min 1/2 x'Hx + f'x, low <= x <= high, A x >= b, and its L1 relaxation.

Each back-end is a small adapter with one test body. Neither its status nor its x is trusted alone:
data are checked before (`problem_fault`), the answer after (`kernel.verify`). Traps that are
pinned by tests: OSQP 1.1.3 keeps the old data when `update` is given l > u and then "solves" the
stale problem, one NaN poisons its workspace until it is rebuilt, and an infeasible problem returns
a finite x; DAQP ignores rows with NaN and says solved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import daqp
import numba as nb
import numpy as np

from safety_filter.core.robot import Array, Ints

INFINITY = 1e30
"""Both back-ends take this for no bound."""
PENALTY = {1: 1e4, 2: 1e2}
"""L1 weight of slack on rows of level 1 and 2, s/m times the unit of the objective."""
ADDED_ROWS = 8
"""Rows taken into a relaxed problem at a time, the most violated first."""
MAX_ROUNDS = 12
SATISFIED = 1e-7
"""A row (m/s) that holds to within this needs no slack."""


class Problem(NamedTuple):
    """H (n, n) positive definite, f (n,), A (m, n); bounds (n + m,): of x, then of the rows."""

    hessian: Array
    gradient: Array
    rows: Array
    lower: Array
    upper: Array


class Solution(NamedTuple):
    """`found`: the back-end claims an optimum; otherwise x is empty and status says why."""

    found: bool
    x: Array
    status: str
    iterations: int = 0


_NOTHING = np.zeros(0)


class Solver(Protocol):
    """A QP back-end."""

    name: str

    def solve(self, problem: Problem) -> Solution:
        """Return the optimum, or a solution that was not found with the reason."""


@nb.njit(cache=True, error_model='numpy')
def _fault(hessian: Array, gradient: Array, rows: Array, lower: Array, upper: Array) -> int:
    total = 0.0
    for i in range(hessian.shape[0]):
        total += gradient[i] * 0.0
        for j in range(hessian.shape[1]):
            total += hessian[i, j] * 0.0
    for k in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            total += rows[k, j] * 0.0
    if not total == 0.0:  # NaN or infinite somewhere
        return 1
    for k in range(len(lower)):
        if not (-1.1e30 < lower[k] < 1.1e30 and -1.1e30 < upper[k] < 1.1e30):
            return 1
        if lower[k] > upper[k]:
            return 2
    return 0


def problem_fault(problem: Problem) -> str | None:
    """Return why a problem must not be given to a solver, or None."""
    code = _fault(problem.hessian, problem.gradient, problem.rows, problem.lower, problem.upper)
    return (None, 'not finite', 'lower bound above upper bound')[code]


class DaqpSolver:
    """Dual active set, exact to rounding; the default."""

    name = 'daqp'

    def solve(self, problem: Problem) -> Solution:
        """See `Solver.solve`."""
        fault = problem_fault(problem)
        if fault is not None:
            return Solution(False, _NOTHING, fault)
        x, _, flag, info = daqp.solve(
            problem.hessian, problem.gradient, problem.rows, problem.upper, problem.lower,
            primal_tol=1e-9, iter_limit=1000)
        if flag != 1 or not np.isfinite(x).all():
            words = {-1: 'infeasible', -2: 'cycling', -3: 'unbounded', -4: 'iteration limit'}
            return Solution(False, _NOTHING, words.get(flag, f'exit flag {flag}'))
        return Solution(True, x, 'solved', info['iterations'])


class OsqpSolver:
    """Operator splitting with polishing; the usual choice of the field, as an alternative.

    One workspace for each number of variables and padded number of rows; dropped after any status
    but solved, so that no state of a failed problem survives.
    """

    name = 'osqp'

    def __init__(self) -> None:
        self._workspaces: dict[tuple[int, int], Any] = {}

    def solve(self, problem: Problem) -> Solution:
        """See `Solver.solve`."""
        fault = problem_fault(problem)
        if fault is not None:
            return Solution(False, _NOTHING, fault)
        n, m = len(problem.gradient), len(problem.rows)
        size = n + max(16, 1 << (m - 1).bit_length() if m else 0)
        matrix = np.zeros((size, n))
        matrix[:n] = np.eye(n)
        matrix[n:n + m] = problem.rows
        lower, upper = np.full(size, -INFINITY), np.full(size, INFINITY)
        lower[:n + m], upper[:n + m] = problem.lower, problem.upper
        triangle = problem.hessian.T[np.tril_indices(n)]
        work = self._workspaces.get((n, size))
        if work is None:
            work = self._setup(problem, matrix, lower, upper)
            self._workspaces[n, size] = work
        else:
            work.update(q=problem.gradient, l=lower, u=upper, Px=triangle,
                        Ax=np.ascontiguousarray(matrix.T).ravel())
        result = work.solve(raise_error=False)
        status = str(result.info.status)
        if status != 'solved' or not np.isfinite(result.x).all():
            del self._workspaces[n, size]
            short = 'infeasible' if 'infeasible' in status else status
            return Solution(False, _NOTHING, short)
        return Solution(True, np.array(result.x), 'solved', int(result.info.iter))

    @staticmethod
    def _setup(problem: Problem, matrix: Array, lower: Array, upper: Array) -> Any:
        import osqp
        from scipy import sparse
        n, size = len(problem.gradient), len(lower)
        dense = sparse.csc_matrix((np.ascontiguousarray(matrix.T).ravel(),
                                   np.tile(np.arange(size), n), np.arange(0, n * size + 1, size)),
                                  shape=(size, n))
        columns = np.concatenate([np.arange(j + 1) for j in range(n)])
        starts = np.cumsum([0, *range(1, n + 1)])
        upper_triangle = sparse.csc_matrix(
            (problem.hessian.T[np.tril_indices(n)], columns, starts), shape=(n, n))
        work = osqp.OSQP()
        work.setup(P=upper_triangle, q=problem.gradient, A=dense, l=lower, u=upper, verbose=False,
                   eps_abs=1e-7, eps_rel=1e-7, polishing=True, max_iter=20000,
                   check_termination=10)
        return work


SOLVERS: dict[str, Callable[[], Solver]] = {'daqp': DaqpSolver, 'osqp': OsqpSolver}


class Relaxed(NamedTuple):
    """Answer of a relaxed problem: x, the slack of each row (m/s), and the back-end's status."""

    found: bool
    x: Array
    slack: Array
    status: str


def solve_relaxed(solver: Solver, problem: Problem, levels: Ints, start: Array,
                  most: Array | None = None) -> Relaxed:
    """Return the x in the box of least weighted violation sum, then of least objective.

    With `most` (m,), no row may be violated by more than that: then it may have no answer.

    Each row gets a slack of its own with the exact penalty of its level (L1: a weight on s itself,
    so s > 0 only where the rows cannot all hold). Rows are generated: those that x (first `start`)
    violates join the problem until x meets all others, so the answer is that of the full problem.
    """
    n = len(problem.gradient)
    bounds = problem.lower[n:]
    slack = np.zeros(len(bounds))
    chosen: list[int] = []
    x = start
    for _ in range(MAX_ROUNDS):
        rest = problem.rows @ x - bounds
        rest[chosen] = 0.0
        worst = np.argsort(rest)[:ADDED_ROWS]
        added = [int(k) for k in worst if rest[k] < -SATISFIED]
        if chosen and not added:
            return Relaxed(True, x, slack, 'solved')
        chosen += added
        solution = solver.solve(_with_slack(problem, chosen, levels, most))
        if not solution.found:
            return Relaxed(False, _NOTHING, slack, solution.status)
        x = np.ascontiguousarray(solution.x[:n])
        slack[chosen] = np.maximum(solution.x[n:], 0.0)
    return Relaxed(False, _NOTHING, slack, 'row generation limit')


def _with_slack(problem: Problem, chosen: list[int], levels: Ints,
                most: Array | None) -> Problem:
    """Return the problem in (x, s) with the `chosen` rows."""
    n, k = len(problem.gradient), len(chosen)
    weights = np.where(levels[chosen] == 1, PENALTY[1], PENALTY[2])
    hessian = np.eye(n + k)
    hessian[:n, :n] = problem.hessian
    infinite = np.full(k, INFINITY)
    return Problem(
        hessian, np.concatenate([problem.gradient, weights]),
        np.hstack([problem.rows[chosen], np.eye(k)]),
        np.concatenate([problem.lower[:n], np.zeros(k), problem.lower[n:][chosen]]),
        np.concatenate([problem.upper[:n], infinite if most is None else most[chosen],
                        infinite]))
