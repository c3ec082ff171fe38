"""Measured rates and latencies, bounded in memory, for the states that nodes publish."""

from __future__ import annotations

from collections import deque

import numpy as np


class RateMeter:
    """Events a second over the last `window` events."""

    def __init__(self, window: int = 100) -> None:
        self._times: deque[float] = deque(maxlen=window)

    def tick(self, now: float) -> None:
        """Count one event at monotonic time `now`, s."""
        self._times.append(now)

    def rate(self, now: float) -> float:
        """Hz; falls to zero when events stop coming (`now` ends the last interval)."""
        times = list(self._times)
        if len(times) < 2:
            return 0.0
        span = times[-1] - times[0]
        mean = span / (len(times) - 1)
        silent = now - times[-1]
        if silent > 4.0 * mean:
            span += silent
        return (len(times) - 1) / span if span > 0.0 else 0.0


class Percentiles:
    """p50, p99 and maximum of the last `window` samples.

    Plain numbers in one array: a deque of them would be copied number by number while a control
    loop waits for the interpreter.
    """

    def __init__(self, window: int = 2000) -> None:
        self._samples = np.zeros(window)
        self._count = 0

    def add(self, sample: float) -> None:
        """Keep one sample; called by one thread only."""
        self._samples[self._count % len(self._samples)] = sample
        self._count += 1

    def values(self, name: str, scale: float = 1.0) -> dict[str, float]:
        """{name_p50, name_p99, name_max}, scaled; empty while there is no sample."""
        samples = self._samples[: self._count].copy()
        if samples.size == 0:
            return {}
        p50, p99 = np.percentile(samples, [50, 99]) * scale
        largest = float(samples.max()) * scale
        return {f"{name}_p50": float(p50), f"{name}_p99": float(p99), f"{name}_max": largest}
