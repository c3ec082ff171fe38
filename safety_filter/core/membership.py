"""Is there a motion inside the declared bounds that passes what was seen of a track?

Of sightings i = 0.. at t_i with centre and velocity measured, an acceleration of at most A(s)
between them and errors of at most a radius each, a motion exists only if some positions p_i and
velocities v_i make every row r below at most 1 long:

    (p_i - seen) / radius                                    and the same for v_i
    (p_i - p_j + c v_i + (T - c) v_j) / int A(s) |s - c| ds   j = i + 1, T = t_j - t_i, 0 <= c <= T

The last is the integral of (s - c) a(s) over the time s from t_i on, A as in surge.py; it is
asked for at the c of `SHARES`, so what is asked contains every motion inside the bounds and little
more. This is a set-membership problem (Schweppe 1968), here over a window and exact, not by an
ellipsoid. Newton steps lessen f = sum max(0, |r| - level)^2 / 2, a level near 1. They end in one
of two ways:

- all rows are at most 1 long: what was seen is explained, by the p_i and v_i found.
- y = max(0, |r| - level) r / |r|, the derivative of f by r, is a proof that nothing explains it.
  With g the gradient of f, all p, v that meet the rows have y.r + g.(change of p, v) =
  y.r' <= sum |y|, and the change is at most (1 + |r|) radius for each p_i and v_i; so where
  sum |y| (|r| - 1) > sum |g| (1 + |r|) radius there are none (Farkas). It holds for any p, v.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from safety_filter.core.robot import Array
from safety_filter.core.surge import push

SHARES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
"""c of the rows between two sightings, as shares of the time between them."""
BETWEEN = len(SHARES)
ROWS = 2 + BETWEEN
"""Of a sighting: position, velocity, and those since the sighting before it."""
STAMP, SEEN, RADIUS, SCALE, STATE, WIDTH = 0, 1, 7, 9, 9 + BETWEEN, 15 + BETWEEN
"""Columns of a node: stamp (s), centre and velocity seen (6), their radii (2), one over the
integrals (`BETWEEN`), and p, v of the motion looked for (6)."""
OPEN, EXPLAINED, PROVED = 0, 1, 2
LEVEL = 0.95
"""Where the steps aim at first; a motion well inside is likelier to pass the next sighting too."""
_FINEST = 0.9999
_QUIET = 1e-5
"""Weight of the rows that are not in the way: keeps the Hessian regular."""
_HALVINGS = 8


class Window(NamedTuple):
    """What is worked on, for up to n nodes; shared by all tracks."""

    nodes: Array      # (n, WIDTH)
    rows: Array       # (n, ROWS, 3)
    lengths: Array    # (n, ROWS)
    gradient: Array   # (n, 6)
    diagonal: Array   # (n, 6, 6) of the Hessian, then of its factor
    beside: Array     # (n, 6, 6) the block left of it
    step: Array       # (n, 6)
    base: Array       # (n, 6) where the step begins
    sides: Array      # (4,) what a row between sightings multiplies p, v before and after with
    implied: Array    # (2,) acceleration that a proof implies, and the bound on it, m/s^2


def window(n: int) -> Window:
    """Return a window for up to `n` nodes."""
    return Window(np.zeros((n, WIDTH)), np.zeros((n, ROWS, 3)), np.zeros((n, ROWS)),
                  np.zeros((n, 6)), np.zeros((n, 6, 6)), np.zeros((n, 6, 6)), np.zeros((n, 6)),
                  np.zeros((n, 6)), np.zeros(4), np.zeros(2))


@nb.njit(cache=True, error_model='numpy')
def measure(w: Window, n: int, level: float) -> tuple[float, float]:
    """Fill the rows of the first `n` nodes; return f and the longest of them."""
    f, worst = 0.0, 0.0
    x = w.nodes
    for i in range(n):
        t = x[i, STAMP] - x[i - 1, STAMP] if i else 0.0
        for m in range(ROWS):
            square = 0.0
            if m < 2:
                scale = 1.0 / x[i, RADIUS + m]
                for k in range(3 * m, 3 * m + 3):
                    r = scale * (x[i, STATE + k] - x[i, SEEN + k])
                    w.rows[i, m, k - 3 * m] = r
                    square += r * r
            elif i > 0:
                c, scale = SHARES[m - 2] * t, x[i, SCALE + m - 2]
                for k in range(STATE, STATE + 3):
                    r = scale * (x[i - 1, k] - x[i, k] + c * x[i - 1, k + 3]
                                 + (t - c) * x[i, k + 3])
                    w.rows[i, m, k - STATE] = r
                    square += r * r
            length = np.sqrt(square)
            w.lengths[i, m] = length
            worst = max(worst, length)
            if length > level:
                f += (length - level) ** 2
    return f / 2.0, worst


@nb.njit(cache=True, error_model='numpy')
def _slope(w: Window, n: int, level: float) -> tuple[float, float]:
    """Fill the gradient; return by how much y is a proof, and how much is missing as g is not 0.

    `implied` gets the acceleration without which y is no proof, and its bound.
    """
    w.gradient[:n] = 0.0
    gain, noise, pushed, mean = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        node = w.nodes[i]
        t = node[STAMP] - w.nodes[i - 1, STAMP] if i else 0.0
        for m in range(ROWS):
            y = w.lengths[i, m] - level
            if y <= 0.0:
                continue
            gain += y * (w.lengths[i, m] - 1.0)
            if m < 2:
                noise += y
                weight = y / (w.lengths[i, m] * node[RADIUS + m])
                for k in range(3):
                    w.gradient[i, 3 * m + k] += weight * w.rows[i, m, k]
                continue
            c, scale = SHARES[m - 2] * t, node[SCALE + m - 2]
            pushed += y
            mean += y / (scale * push(c, t, 0.0, 1.0, 1.0))
            weight = y * scale / w.lengths[i, m]
            for k in range(3):
                force = weight * w.rows[i, m, k]
                w.gradient[i - 1, k] += force
                w.gradient[i, k] -= force
                w.gradient[i - 1, 3 + k] += c * force
                w.gradient[i, 3 + k] += (t - c) * force
    loose = 0.0
    for i in range(n):
        for q in range(2):
            g = w.gradient[i, 3 * q:3 * q + 3]
            size = np.sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2])
            loose += size * (1.0 + w.lengths[i, q]) * w.nodes[i, RADIUS + q]
    if pushed > 0.0:
        w.implied[1] = mean / pushed
        w.implied[0] = w.implied[1] * (1.0 + (gain - loose) / pushed)
    return gain - 1e-9 * (noise + pushed), loose * (1.0 + 1e-9)


@nb.njit(cache=True, error_model='numpy')
def _curve(w: Window, n: int, level: float) -> None:
    """Fill the Hessian: for each row I - level (I - rr'/|r|^2) / |r| where it is too long."""
    sides = w.sides
    w.diagonal[:n] = 0.0
    w.beside[:n] = 0.0
    for i in range(n):
        t = w.nodes[i, STAMP] - w.nodes[i - 1, STAMP] if i else 0.0
        for m in range(ROWS if i else 2):
            length = w.lengths[i, m]
            flat, along = _QUIET, 0.0
            if length > level:
                flat, along = max(1.0 - level / length, _QUIET), level / length ** 3
            if m < 2:
                weight = 1.0 / w.nodes[i, RADIUS + m] ** 2
                _add(w.diagonal, i, 3 * m, 3 * m, weight, flat, along, w.rows, i, m)
                continue
            c, scale = SHARES[m - 2] * t, w.nodes[i, SCALE + m - 2]
            sides[0], sides[1], sides[2], sides[3] = scale, scale * c, -scale, scale * (t - c)
            for a in range(2):
                for b in range(2):
                    _add(w.diagonal, i - 1, 3 * a, 3 * b, sides[a] * sides[b], flat, along,
                         w.rows, i, m)
                    _add(w.diagonal, i, 3 * a, 3 * b, sides[2 + a] * sides[2 + b], flat, along,
                         w.rows, i, m)
                    _add(w.beside, i, 3 * a, 3 * b, sides[2 + a] * sides[b], flat, along,
                         w.rows, i, m)


@nb.njit(cache=True, error_model='numpy', inline='always')
def _add(blocks: Array, to: int, a: int, b: int, weight: float, flat: float, along: float,
         rows: Array, i: int, m: int) -> None:
    """Add weight (flat I + along r r') to the 3 x 3 part at (a, b) of a block, r being a row."""
    for k in range(3):
        blocks[to, a + k, b + k] += weight * flat
    if along != 0.0:
        for k in range(3):
            for j in range(3):
                blocks[to, a + k, b + j] += weight * along * rows[i, m, k] * rows[i, m, j]


@nb.njit(cache=True, error_model='numpy')
def _newton(w: Window, n: int) -> float:
    """Fill the step -H^-1 g by Cholesky factors, block by block; return its slope."""
    for i in range(n):
        d, e, x = w.diagonal[i], w.beside[i], w.step[i]
        for a in range(6):
            x[a] = -w.gradient[i, a]
        if i > 0:
            old, x_old = w.diagonal[i - 1], w.step[i - 1]
            for a in range(6):
                for b in range(6):
                    total = e[a, b]
                    for k in range(b):
                        total -= e[a, k] * old[b, k]
                    e[a, b] = total / old[b, b]
                for b in range(a + 1):
                    for k in range(6):
                        d[a, b] -= e[a, k] * e[b, k]
                for k in range(6):
                    x[a] -= e[a, k] * x_old[k]
        for a in range(6):
            for b in range(a):
                for k in range(b):
                    d[a, b] -= d[a, k] * d[b, k]
                d[a, b] /= d[b, b]
                d[a, a] -= d[a, b] * d[a, b]
                x[a] -= d[a, b] * x[b]
            d[a, a] = np.sqrt(max(d[a, a], 1e-30))
            x[a] /= d[a, a]
    slope = 0.0
    for i in range(n - 1, -1, -1):
        d, x = w.diagonal[i], w.step[i]
        for a in range(5, -1, -1):
            if i < n - 1:
                for k in range(6):
                    x[a] -= w.beside[i + 1, k, a] * w.step[i + 1, k]
            for k in range(a + 1, 6):
                x[a] -= d[k, a] * x[k]
            x[a] /= d[a, a]
            slope += x[a] * w.gradient[i, a]
    return slope


@nb.njit(cache=True, error_model='numpy')
def improve(w: Window, n: int, level: float) -> tuple[int, float]:
    """Do one step on the first `n` nodes; return OPEN, EXPLAINED or PROVED, and the level to go
    on with."""
    f, worst = measure(w, n, level)
    if worst <= 1.0:
        return EXPLAINED, level
    gain, loose = _slope(w, n, level)
    if gain > loose:
        return PROVED, level
    if loose < -0.1 * gain and level < _FINEST:  # nearly at rest, and no proof
        level = min(_FINEST, 1.0 - (1.0 - level) / 8.0)
        f, _ = measure(w, n, level)
        _slope(w, n, level)
    _curve(w, n, level)
    slope = _newton(w, n)
    w.base[:n] = w.nodes[:n, STATE:]
    share = 1.0
    for _ in range(_HALVINGS):
        for i in range(n):
            for k in range(6):
                w.nodes[i, STATE + k] = w.base[i, k] + share * w.step[i, k]
        lessened, worst = measure(w, n, level)
        if lessened <= f + 1e-4 * share * slope:
            break
        share /= 2.0
    return (EXPLAINED if worst <= 1.0 else OPEN), level
