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
PENALTY_1, PENALTY_2 = 1e4, 1e2
"""L1 weight of slack on rows of level 1 and 2, s/m times the unit of the objective."""
ADDED_ROWS = 8
"""Rows taken into a relaxed problem at a time, the most violated first."""
MAX_ROUNDS = 12
SATISFIED = 1e-7
"""A row (m/s) that holds to within this needs no slack."""
ITERATIONS = 1000
"""Most iterations of a back-end for one problem, unless it is told otherwise."""
STAGES = ((1e-3, 200), (1e-4, 400))
"""OSQP's tolerances and the most iterations for each."""
STEEPEST = 10.0
"""OSQP's cost is scaled down to this largest gradient: penalties dwarf the rest otherwise."""
CERTAIN = 1e-4
"""OSQP's tolerance for a proof that a problem is infeasible. Now and then a thin set is taken for
an empty one; then the relaxed problem gives the same answer, later."""
REPAIRS = 12
"""Most changes of the active set that OSQP's multipliers point at."""
EXACT, SIGNED = 1e-8, 1e-9
"""Largest violation of a bound or row in an optimum; least multiplier that has a sign."""


class Problem(NamedTuple):
    """H (n, n) positive definite, f (n,), A (m, n); bounds (n + m,): of x, then of the rows."""

    hessian: Array
    gradient: Array
    rows: Array
    lower: Array
    upper: Array


class Solution(NamedTuple):
    """`found`: the back-end claims an optimum; otherwise status says why, and x is empty or what
    it came to without proof."""

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

    def __init__(self, iterations: int = ITERATIONS) -> None:
        self._iterations = iterations

    def solve(self, problem: Problem) -> Solution:
        """See `Solver.solve`."""
        fault = problem_fault(problem)
        if fault is not None:
            return Solution(False, _NOTHING, fault)
        x, _, flag, info = daqp.solve(
            problem.hessian, problem.gradient, problem.rows, problem.upper, problem.lower,
            primal_tol=1e-9, iter_limit=self._iterations)
        if flag != 1 or not np.isfinite(x).all():
            words = {-1: 'infeasible', -2: 'cycling', -3: 'unbounded', -4: 'iteration limit'}
            return Solution(False, _NOTHING, words.get(flag, f'exit flag {flag}'))
        # What DAQP returns holds a dozen objects, which a recorder would keep with every tick
        return Solution(True, np.array(x), 'solved', info['iterations'])


class OsqpSolver:
    """Operator splitting; the usual choice of the field, as an alternative.

    It stops at a loose tolerance first: the signs of its multipliers show the active set early,
    and where the optimum for that set, a few changes of it allowed, meets all conditions of
    optimality, it is the answer (`_refined`; OSQP's own polishing allows no change and prints).
    Otherwise it goes on: relaxed problems with their large penalties and rows that are nearly
    parallel take thousands of iterations to a tight tolerance.

    One workspace for each padded size; dropped after any status but solved, so that no state of a
    failed problem survives.
    """

    name = 'osqp'

    def __init__(self, iterations: int = ITERATIONS) -> None:
        self._iterations = iterations
        self._workspaces: dict[tuple[int, int], Any] = {}

    def solve(self, problem: Problem) -> Solution:
        """See `Solver.solve`."""
        fault = problem_fault(problem)
        if fault is not None:
            return Solution(False, _NOTHING, fault)
        free = np.asarray(np.linalg.solve(problem.hessian, -problem.gradient), float)
        value = np.concatenate([free, problem.rows @ free])
        if np.all(value >= problem.lower) and np.all(value <= problem.upper):
            return Solution(True, free, 'solved')  # polishing would print that it is not needed
        n, m = len(problem.gradient), len(problem.rows)
        wide = -8 * (-n // 8)
        size = wide + max(8, 1 << (m - 1).bit_length() if m else 0)
        matrix, hessian = np.zeros((size - wide + 1, wide)), np.eye(wide)
        matrix[0] = 1.0  # the diagonal of the block of bounds
        matrix[1:m + 1, :n] = problem.rows
        lower, upper = np.full(size, -INFINITY), np.full(size, INFINITY)
        lower[:n], upper[:n] = problem.lower[:n], problem.upper[:n]
        lower[wide:wide + m], upper[wide:wide + m] = problem.lower[n:], problem.upper[n:]
        steepest = float(np.max(np.abs(problem.gradient), initial=1.0))
        scale = min(1.0, STEEPEST / steepest)
        hessian[:n, :n] = problem.hessian * scale
        gradient = np.zeros(wide)
        gradient[:n] = problem.gradient * scale
        work = self._workspaces.get((wide, size))
        if work is None:
            work = self._setup(hessian, gradient, matrix, lower, upper)
            self._workspaces[wide, size] = work
        else:
            work.update(q=gradient, l=lower, u=upper, Px=hessian.T[np.tril_indices(wide)],
                        Ax=np.ascontiguousarray(matrix.T).ravel())
        solution = self._stages(work, problem, wide)
        if not solution.found:
            del self._workspaces[wide, size]
        return solution

    def _stages(self, work: Any, problem: Problem, wide: int) -> Solution:
        """Return the answer of the loosest stage that leads to the optimum."""
        n, m, iterations = len(problem.gradient), len(problem.rows), 0
        x = _NOTHING
        for tolerance, most in STAGES:
            if iterations >= self._iterations:
                break
            work.update_settings(eps_abs=tolerance, eps_rel=tolerance,
                                 max_iter=min(most, self._iterations - iterations))
            result = work.solve(raise_error=False)
            iterations += int(result.info.iter)
            status = str(result.info.status)
            if 'infeasible' in status or not np.isfinite(result.x).all():
                short = 'infeasible' if 'infeasible' in status else status
                return Solution(False, _NOTHING, short, iterations)
            x = np.array(result.x[:n])
            found, exact = _refined(*problem, np.concatenate([result.y[:n],
                                                              result.y[wide:wide + m]]))
            if found:
                return Solution(True, exact, 'solved', iterations)
        return Solution(False, x, f'no optimum after {iterations} iterations', iterations)

    @staticmethod
    def _setup(hessian: Array, gradient: Array, matrix: Array, lower: Array,
               upper: Array) -> Any:
        import osqp
        from scipy import sparse
        n, size = len(gradient), len(lower)
        places = np.column_stack([np.arange(n), np.tile(np.arange(n, size), (n, 1))]).ravel()
        dense = sparse.csc_matrix((np.ascontiguousarray(matrix.T).ravel(), places,
                                   np.arange(n + 1) * len(matrix)), shape=(size, n))
        columns = np.concatenate([np.arange(j + 1) for j in range(n)])
        starts = np.cumsum([0, *range(1, n + 1)])
        upper_triangle = sparse.csc_matrix(
            (hessian.T[np.tril_indices(n)], columns, starts), shape=(n, n))
        work = osqp.OSQP()
        work.setup(P=upper_triangle, q=gradient, A=dense, l=lower, u=upper, verbose=False,
                   polishing=False, check_termination=10, rho=1.0, eps_prim_inf=CERTAIN,
                   eps_dual_inf=CERTAIN)
        return work


@nb.njit(cache=True, error_model='numpy')
def _refined(hessian: Array, gradient: Array, rows: Array, lower: Array, upper: Array,
             multipliers: Array) -> tuple[bool, Array]:
    """Return the optimum for the active set that `multipliers` (n + m,) point at by their signs
    (negative: at the lower bound), or for one some changes away, and whether one was found.

    Each turn solves for equality on the set, drops what holds with the wrong sign and adds the
    bound violated most (primal-dual active set method). What meets all bounds with no wrong sign
    is the optimum of a convex problem, whatever led there.
    """
    n, both = len(gradient), np.zeros(0)
    matrix = np.vstack((np.eye(n), rows))
    side = np.sign(multipliers) * (np.abs(multipliers) > SIGNED)
    for k in range(len(side)):
        if (side[k] < 0.0 and lower[k] <= -INFINITY) or (side[k] > 0.0 and upper[k] >= INFINITY):
            side[k] = 0.0
    steepest = max(1.0, np.max(np.abs(gradient)))
    for _ in range(REPAIRS):
        held = np.flatnonzero(side)
        size = n + len(held)
        system, right = np.zeros((size, size)), np.zeros(size)
        system[:n, :n], right[:n] = hessian, -gradient
        for k in range(len(held)):
            system[n + k, :n] = system[:n, n + k] = matrix[held[k]]
            right[n + k] = lower[held[k]] if side[held[k]] < 0.0 else upper[held[k]]
        both = _equal(system, right)
        solved = np.max(np.abs(system @ both - right)) <= EXACT * steepest
        value = matrix @ both[:n]
        violation = np.maximum(lower - value, value - upper)
        worst = np.argmax(violation)
        wrong = False
        for k in range(len(held)):
            if both[n + k] * side[held[k]] < -SIGNED * steepest:
                wrong, side[held[k]] = True, 0.0
        if solved and not wrong and violation[worst] <= EXACT:
            return True, both[:n].copy()
        if violation[worst] > EXACT:
            side[worst] = 1.0 if value[worst] > upper[worst] else -1.0
    return False, both[:n].copy()


@nb.njit(cache=True, error_model='numpy')
def _equal(system: Array, right: Array) -> Array:
    """Return an x with system x = right (m, m), by elimination with complete pivoting; where rows
    depend on each other, the unknowns left over are zero."""
    m = len(right)
    a, b, order = system.copy(), right.copy(), np.arange(m)
    rank, largest = m, 0.0
    for k in range(m):
        row, column, most = k, k, 0.0
        for i in range(k, m):
            for j in range(k, m):
                if abs(a[i, j]) > most:
                    row, column, most = i, j, abs(a[i, j])
        largest = max(largest, most)
        if most <= 1e-13 * largest:
            rank = k
            break
        for j in range(m):
            a[k, j], a[row, j] = a[row, j], a[k, j]
        b[k], b[row] = b[row], b[k]
        for i in range(m):
            a[i, k], a[i, column] = a[i, column], a[i, k]
        order[k], order[column] = order[column], order[k]
        for i in range(k + 1, m):
            factor = a[i, k] / a[k, k]
            if factor != 0.0:
                for j in range(k, m):
                    a[i, j] -= factor * a[k, j]
                b[i] -= factor * b[k]
    x = np.zeros(m)
    for k in range(rank - 1, -1, -1):
        total = b[k]
        for j in range(k + 1, rank):
            total -= a[k, j] * x[order[j]]
        x[order[k]] = total / a[k, k]
    return x


SOLVERS: dict[str, Callable[..., Solver]] = {'daqp': DaqpSolver, 'osqp': OsqpSolver}


class Relaxed(NamedTuple):
    """Answer of a relaxed problem: x, the slack of each row (m/s), and a status: 'solved' for the
    optimum."""

    found: bool
    x: Array
    slack: Array
    status: str


def generate_rows(solver: Solver, problem: Problem, levels: Ints, start: Array,
                  most: Array | None = None) -> Relaxed:
    """Return what relaxed.py's `solve_relaxed` does, from a back-end.

    What it came to without proof of the optimum is taken: with its slack any x in the box meets
    all rows.

    Each row gets a slack of its own with the exact penalty of its level (L1: a weight on s itself,
    so s > 0 only where the rows cannot all hold). Rows are generated: those that x (first `start`)
    violates join the problem until x meets all others, so the answer is that of the full problem.
    """
    n, m = len(problem.gradient), len(problem.rows)
    caps = np.full(m, INFINITY) if most is None else np.ascontiguousarray(most)
    levels = np.ascontiguousarray(levels)
    chosen = np.zeros(m, np.int64)
    slack, x, count, status = np.zeros(m), start, 0, 'solved'
    for turn in range(MAX_ROUNDS):
        # Few at first, for few decide; more and more where that does not end.
        before, count = count, _grow(problem.rows, problem.lower[n:], x, chosen, count,
                                     ADDED_ROWS << (turn // 3))
        if turn and before == count:
            return Relaxed(True, x, slack, status)
        relaxed = _with_slack(problem.hessian, problem.gradient, problem.rows, problem.lower,
                              problem.upper, levels, caps, chosen[:count])
        solution = solver.solve(Problem(*relaxed))
        if not len(solution.x):
            return Relaxed(False, _NOTHING, slack, solution.status)
        status = solution.status
        x = np.clip(solution.x[:n], problem.lower[:n], problem.upper[:n])
        held = chosen[:count]
        slack[held] = np.maximum(problem.lower[n + held] - problem.rows[held] @ x, 0.0)
        if np.any(slack > caps + SATISFIED):
            return Relaxed(False, _NOTHING, slack, status)
    return Relaxed(False, _NOTHING, slack, 'row generation limit')


@nb.njit(cache=True, error_model='numpy')
def _grow(rows: Array, bounds: Array, x: Array, chosen: Ints, count: int, most: int) -> int:
    """Append the `most` rows that x violates most to `chosen[:count]`; return the new count."""
    rest = rows @ x - bounds
    for k in range(count):
        rest[chosen[k]] = 0.0
    for _ in range(most):
        if count == len(chosen):
            break
        worst = np.argmin(rest)
        if rest[worst] >= -SATISFIED:
            break
        chosen[count] = worst
        rest[worst] = 0.0
        count += 1
    return count


@nb.njit(cache=True, error_model='numpy')
def _with_slack(hessian: Array, gradient: Array, rows: Array, lower: Array, upper: Array,
                levels: Ints, caps: Array, chosen: Ints,
                ) -> tuple[Array, Array, Array, Array, Array]:
    """Return the problem in (x, t) with the `chosen` rows.

    Rows are brought to length 1, and the slack of row k is s_k = length_k t_k: then x and t are of
    one size, without which operator splitting takes ten times the iterations.
    """
    n, k = len(gradient), len(chosen)
    h, f, a = np.zeros((n + k, n + k)), np.zeros(n + k), np.zeros((k, n + k))
    low, high = np.zeros(n + 2 * k), np.full(n + 2 * k, INFINITY)
    h[:n, :n], f[:n], low[:n], high[:n] = hessian, gradient, lower[:n], upper[:n]
    for j in range(k):
        row = chosen[j]
        square = 0.0
        for i in range(n):
            square += rows[row, i] ** 2
        size = max(np.sqrt(square), 1e-3)
        for i in range(n):
            a[j, i] = rows[row, i] / size
        a[j, n + j] = 1.0
        h[n + j, n + j] = size * size
        f[n + j] = size * (PENALTY_1 if levels[row] == 1 else PENALTY_2)
        high[n + j] = min(caps[row] / size, INFINITY)
        low[n + k + j] = lower[n + row] / size
    return h, f, a, low, high
