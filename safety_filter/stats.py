"""Counts to rates with intervals, and paired tests."""

from __future__ import annotations

import math
from typing import Any


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); (0, 1) without any trial."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(successes: int, n: int) -> dict[str, Any]:
    """A count with its rate and 95 % interval, as it appears in every JSON."""
    low, high = wilson(successes, n)
    return {"count": int(successes), "value": successes / n if n else None, "low": low,
            "high": high}


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test from the two kinds of discordant pairs."""
    n = only_first + only_second
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return min(1.0, 2 * tail)
