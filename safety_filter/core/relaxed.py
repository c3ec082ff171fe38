"""The relaxed problem: where rows cannot all hold, each may have a slack of its own.

    min 1/2 x'Hx + f'x + sum_k (w_k s_k + s_k^2 / 2),   low <= x <= high,
    a_k x + s_k >= b_k,   0 <= s_k <= cap_k

w_k is an exact penalty (L1: s_k > 0 only where the rows cannot all hold); the square, small
beside it, makes the optimum one. To a QP back-end each slack is a variable, and the time for k
rows grows with k^3. But where x is known so is s_k = max(0, b_k - a_k x), and `_solve` has x alone
to find, of a convex cost made of quadratic pieces: an active set method with an exact search along
each step, which goes through many pieces at once (as for least absolute deviations, Barrodale and
Roberts 1973). Its time grows with the rows. What it ends with must meet the conditions of
optimality, or there is proof that there is no answer; otherwise the back-end answers.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from safety_filter.core.qp import (
    INFINITY,
    PENALTY_1,
    PENALTY_2,
    SATISFIED,
    Problem,
    Relaxed,
    Solver,
    generate_rows,
    problem_fault,
)
from safety_filter.core.robot import Array, Ints

MET = 1e-9
"""Largest violation of a row (m/s) or bound (rad/s) in an optimum."""
EXACT = 1e-8
"""Largest error of a multiplier or of the gradient in an optimum."""
DEPENDENT = 1e-9
"""A normal with less than this share of it outside the span of the active ones is in the span."""
STILL = 1e-10
"""A step (rad/s) below which x is where its active set wants it."""
LOOSE, TIGHT, SLACK, FULL = 0, 1, 2, 3
"""A row holds; with equality; has slack; has all it may have, none if its cap is 0."""
SOLVED, IMPOSSIBLE, UNDECIDED = 0, 1, 2
_NOTHING = np.zeros(0)


class _Work(NamedTuple):
    """The problem, with the rows that have slack made part of the objective, and the active set:
    normal x = value, with a force (its multiplier) that should be between floor and ceiling."""

    hessian: Array    # (n, n)
    gradient: Array   # (n,)
    rows: Array       # (m, n)
    lower: Array      # (n + m,)
    upper: Array      # (n + m,)
    weights: Array    # (m,)
    caps: Array       # (m,)
    state: Ints       # (m,)
    who: Ints         # (n,) bound of x_i: i; row k: n + k
    normals: Array    # (n, n)
    values: Array     # (n,)
    force: Array      # (n,)
    floor: Array      # (n,)
    ceiling: Array    # (n,)
    factor: Array     # (n, n) L of H = L L'
    base: Array       # (n, n) rows: orthonormal, of L^-1 normals' = base' upward
    upward: Array     # (n, n)
    shares: Array     # (n,)
    x: Array          # (n,)
    step: Array       # (n,)


def solve_relaxed(solver: Solver, problem: Problem, levels: Ints, start: Array,
                  most: Array | None = None) -> Relaxed:
    """Return the x in the box of least weighted violation sum, then of least objective.

    With `most` (m,), no row may be violated by more than that: then it may have no answer. The
    search begins at `start` or, where that violates a row by more, at the optimum for rows that
    ask for so much less. The `solver` is asked only for what `_solve` leaves undecided.
    """
    n, m = len(problem.gradient), len(problem.rows)
    fault = problem_fault(problem)
    if fault is not None:
        return Relaxed(False, _NOTHING, np.zeros(m), fault)
    free = np.full(m, INFINITY)
    caps = free if most is None else np.ascontiguousarray(most)
    weights = np.where(levels == 1, PENALTY_1, PENALTY_2)
    code, x, slack = _solve(*problem, weights, caps, start)
    if code == UNDECIDED and most is not None:
        least = problem.lower.copy()
        least[n:] -= most
        code, x, slack = _solve(*problem._replace(lower=least), weights, free, start)
        code, x, slack = (_solve(*problem, weights, caps, x) if code == SOLVED
                          and slack.max() <= MET else (UNDECIDED, x, slack))
    if code == UNDECIDED:
        return generate_rows(solver, problem, np.ascontiguousarray(levels), start, most)
    return Relaxed(code == SOLVED, x, slack, 'solved' if code == SOLVED else 'infeasible')


@nb.njit(cache=True, error_model='numpy')
def _solve(hessian: Array, gradient: Array, rows: Array, lower: Array, upper: Array,
           weights: Array, caps: Array, start: Array) -> tuple[int, Array, Array]:
    """Return SOLVED with x and slack, or IMPOSSIBLE (by the caps) or UNDECIDED."""
    n, m = len(gradient), len(rows)
    vectors, square = np.zeros((7, n)), np.zeros((4, n, n))
    w = _Work(hessian.copy(), gradient.copy(), rows, lower, upper, weights, caps,
              np.zeros(m, np.int64), np.zeros(n, np.int64), square[0], vectors[0], vectors[1],
              vectors[2], vectors[3], square[1], square[2], square[3], vectors[4], vectors[5],
              vectors[6])
    slack, count = np.zeros(m), 0
    code = _begin(w, start)
    if code != SOLVED:
        return code, w.x, slack
    for _ in range(4 * (n + m)):
        if not _factors(w, count):
            break
        _optimum(w, count)
        w.step[:] -= w.x
        if count < n and np.max(np.abs(w.step)) > STILL:  # in a corner a step is rounding
            count = _move(w, count)
            continue
        worst = _worst(w, count)
        if worst < 0:
            w.x[:] += w.step
            return (SOLVED if _optimal(w, hessian, gradient, count, slack) else UNDECIDED,
                    w.x, slack)
        _release(w, count, worst)
        count -= 1
    return UNDECIDED, w.x, slack


@nb.njit(cache=True, error_model='numpy')
def _begin(w: _Work, start: Array) -> int:
    """Put x at `start`; return IMPOSSIBLE where no x in the box keeps to a cap, and UNDECIDED
    where `start` does not."""
    n, code = len(w.x), SOLVED
    for i in range(n):
        w.x[i] = min(max(start[i], w.lower[i]), w.upper[i])
    for k in range(len(w.rows)):
        most = 0.0
        for i in range(n):
            a = w.rows[k, i]
            most += a * (w.upper[i] if a > 0.0 else w.lower[i])
        if most < w.lower[n + k] - w.caps[k] - SATISFIED:
            return IMPOSSIBLE
        gap = w.lower[n + k] - _dot(w.rows[k], w.x)
        if gap > w.caps[k] + MET:
            code = UNDECIDED
        elif gap > 0.0 and w.caps[k] > 0.0:
            _penalise(w, k, 1.0)
    return code


@nb.njit(cache=True, error_model='numpy')
def _penalise(w: _Work, k: int, sign: float) -> None:
    """Take the penalty of row k, s_k = b_k - a_k x, into the objective (`sign` -1: out of it)."""
    a, n = w.rows[k], len(w.x)
    pull = sign * (w.weights[k] + w.lower[n + k])
    for i in range(n):
        w.gradient[i] -= pull * a[i]
        for j in range(n):
            w.hessian[i, j] += sign * a[i] * a[j]
    w.state[k] = SLACK if sign > 0.0 else LOOSE


@nb.njit(cache=True, error_model='numpy')
def _factors(w: _Work, count: int) -> bool:
    """Fill the factors of H and of the active normals; return whether H is positive definite."""
    n = len(w.x)
    for i in range(n):
        for j in range(i + 1):
            total = w.hessian[i, j]
            for k in range(j):
                total -= w.factor[i, k] * w.factor[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                w.factor[i, i] = np.sqrt(total)
            else:
                w.factor[i, j] = total / w.factor[j, j]
    for c in range(count):
        _forward(w, w.normals[c], w.base[c])
        full = np.sqrt(np.sum(w.base[c] ** 2))
        _split(w, c, w.base[c], w.upward[:, c])
        size = np.sqrt(np.sum(w.base[c] ** 2))
        w.upward[c, c] = size
        if not size > DEPENDENT * full:
            return False
        w.base[c] /= size
    return True


@nb.njit(cache=True, error_model='numpy')
def _forward(w: _Work, right: Array, out: Array) -> None:
    """Fill out = L^-1 right."""
    for i in range(len(out)):
        total = right[i]
        for k in range(i):
            total -= w.factor[i, k] * out[k]
        out[i] = total / w.factor[i, i]


@nb.njit(cache=True, error_model='numpy')
def _split(w: _Work, count: int, vector: Array, shares: Array) -> None:
    """Take out of a vector its `shares` along the first rows of `base`, twice for rounding."""
    shares[:count] = 0.0
    for _ in range(2):
        for c in range(count):
            along = 0.0
            for i in range(len(vector)):
                along += w.base[c, i] * vector[i]
            shares[c] += along
            for i in range(len(vector)):
                vector[i] -= along * w.base[c, i]


@nb.njit(cache=True, error_model='numpy')
def _optimum(w: _Work, count: int) -> None:
    """Fill `step` with the x of least objective on the active set, and the forces for it."""
    n = len(w.x)
    _forward(w, w.gradient, w.step)  # y = L'x is -step but for what the active set asks of it
    for c in range(count):
        share = w.values[c]
        for k in range(c):
            share -= w.upward[k, c] * w.shares[k]
        w.shares[c] = share / w.upward[c, c]
        w.force[c] = w.shares[c] + _dot(w.base[c], w.step)
    w.step[:] *= -1.0
    for c in range(count):
        for i in range(n):
            w.step[i] += w.force[c] * w.base[c, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            w.step[i] -= w.factor[k, i] * w.step[k]
        w.step[i] /= w.factor[i, i]
    for c in range(count - 1, -1, -1):
        for k in range(c + 1, count):
            w.force[c] -= w.upward[c, k] * w.force[k]
        w.force[c] /= w.upward[c, c]


@nb.njit(cache=True, error_model='numpy')
def _dot(a: Array, b: Array) -> float:
    total = 0.0
    for i in range(len(b)):
        total += a[i] * b[i]
    return total


@nb.njit(cache=True, error_model='numpy')
def _move(w: _Work, count: int) -> int:
    """Go along `step` to where the cost is least; return how many are active then.

    On the way rows lose their slack or come to need some; where that ends the descent the row
    stays tight. Bounds and caps end it in any case.
    """
    n, p = len(w.x), w.step
    bend = 0.0
    for i in range(n):
        bend += p[i] * _dot(w.hessian[i], p)
    slope = -bend  # as `step` goes to the optimum; from the gradient it would be lost in rounding
    for _ in range(2 * len(w.rows) + 1):
        length, event, after = _next(w, count)
        if slope + length * bend >= 0.0:
            w.x[:] += max(-slope / bend, 0.0) * p
            return count
        w.x[:] += length * p
        slope += length * bend
        if event < n:
            _bound(w, count, event)
            return count + 1
        k = event - n
        rate = _dot(w.rows[k], p)
        if after != FULL:
            slope += abs(rate) * w.weights[k]
        if after == FULL or slope >= 0.0:
            if w.state[k] == SLACK:
                _penalise(w, k, -1.0)
            _activate(w, count, k, after)
            return count + 1
        was = w.state[k] == SLACK
        bend += -rate * rate if was else rate * rate
        _penalise(w, k, -1.0 if was else 1.0)
    return count


@nb.njit(cache=True, error_model='numpy')
def _next(w: _Work, count: int) -> tuple[float, int, int]:
    """Return how far along `step` the next bound (event i) or change of a row (n + k) is, and
    what the row could become."""
    n, p = len(w.x), w.step
    length, event, after = np.inf, 0, TIGHT
    for i in range(n):
        if p[i] == 0.0 or _active(w, count, i):
            continue
        room = max(((w.upper[i] if p[i] > 0.0 else w.lower[i]) - w.x[i]) / p[i], 0.0)
        if room < length:
            length, event = room, i
    for k in range(len(w.rows)):
        if w.state[k] != LOOSE and w.state[k] != SLACK:
            continue
        rate = _dot(w.rows[k], p)
        gap = w.lower[n + k] - _dot(w.rows[k], w.x)
        room, becomes = np.inf, TIGHT if w.caps[k] > 0.0 else FULL
        if rate < 0.0 if w.state[k] == LOOSE else rate > 0.0:
            room = gap / rate
        elif w.state[k] == SLACK and rate < 0.0:
            room, becomes = (gap - w.caps[k]) / rate, FULL
        room = max(room, 0.0)
        if room < length:
            length, event, after = room, n + k, becomes
    return length, event, after


@nb.njit(cache=True, error_model='numpy')
def _active(w: _Work, count: int, i: int) -> bool:
    return bool(np.any(w.who[:count] == i))


@nb.njit(cache=True, error_model='numpy')
def _bound(w: _Work, c: int, i: int) -> None:
    """Put the bound that x_i has reached at place c of the active set."""
    sign = -1.0 if w.step[i] > 0.0 else 1.0
    w.who[c], w.normals[c], w.floor[c], w.ceiling[c] = i, 0.0, 0.0, np.inf
    w.normals[c, i] = sign
    w.values[c] = w.lower[i] if sign > 0.0 else -w.upper[i]
    w.x[i] = sign * w.values[c]


@nb.njit(cache=True, error_model='numpy')
def _activate(w: _Work, c: int, k: int, state: int) -> None:
    """Put row k at place c of the active set."""
    n = len(w.x)
    w.state[k], w.who[c], w.normals[c], w.values[c] = state, n + k, w.rows[k], w.lower[n + k]
    w.floor[c], w.ceiling[c] = 0.0, w.weights[k]
    if state == FULL:
        w.values[c] -= w.caps[k]
        w.floor[c], w.ceiling[c] = w.weights[k] + w.caps[k] if w.caps[k] > 0.0 else 0.0, np.inf


@nb.njit(cache=True, error_model='numpy')
def _worst(w: _Work, count: int) -> int:
    """Return the place in the active set whose force is furthest from what it may be, or -1."""
    worst, most = -1, EXACT
    for c in range(count):
        off = max(w.floor[c] - w.force[c], w.force[c] - w.ceiling[c])
        if off > most:
            worst, most = c, off
    return worst


@nb.njit(cache=True, error_model='numpy')
def _release(w: _Work, count: int, place: int) -> None:
    """Take what is at `place` out of the active set, to the side that its force asks for."""
    k = w.who[place] - len(w.x)
    if k >= 0:
        eased = w.force[place] > w.ceiling[place] or (w.state[k] == FULL and w.caps[k] > 0.0)
        w.state[k] = LOOSE
        if eased:
            _penalise(w, k, 1.0)
    for c in range(place, count - 1):
        w.who[c], w.normals[c], w.values[c] = w.who[c + 1], w.normals[c + 1], w.values[c + 1]
        w.floor[c], w.ceiling[c] = w.floor[c + 1], w.ceiling[c + 1]


@nb.njit(cache=True, error_model='numpy')
def _optimal(w: _Work, hessian: Array, gradient: Array, count: int, slack: Array) -> bool:
    """Bring x into the box, fill `slack`; return whether the conditions of optimality hold."""
    n, rest = len(w.x), w.step
    for i in range(n):
        if not w.lower[i] - MET <= w.x[i] <= w.upper[i] + MET:
            return False
        w.x[i] = min(max(w.x[i], w.lower[i]), w.upper[i])
    for i in range(n):
        rest[i] = gradient[i] + _dot(hessian[i], w.x)
    for k in range(len(w.rows)):
        gap = w.lower[n + k] - _dot(w.rows[k], w.x)
        slack[k] = max(gap, 0.0)
        most = w.caps[k] if w.state[k] == SLACK or w.state[k] == FULL else 0.0
        least = most if w.state[k] == FULL else (-np.inf if w.state[k] == LOOSE else 0.0)
        if not least - MET <= gap <= most + MET:
            return False
        if w.state[k] == SLACK:
            for i in range(n):
                rest[i] -= (w.weights[k] + gap) * w.rows[k, i]
    for c in range(count):
        if not w.floor[c] - EXACT <= w.force[c] <= w.ceiling[c] + EXACT:
            return False
        for i in range(n):
            rest[i] -= w.force[c] * w.normals[c, i]
    return bool(np.max(np.abs(rest)) <= EXACT)
