"""Measured rates and latencies, bounded in memory, for the states that nodes publish."""

from __future__ import annotations

import threading
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
    """p50, p99 and maximum of the last `window` samples."""

    def __init__(self, window: int = 2000) -> None:
        self._samples: deque[float] = deque(maxlen=window)
        self._lock = threading.Lock()

    def add(self, sample: float) -> None:
        with self._lock:
            self._samples.append(sample)

    def clear(self) -> None:
        with self._lock:
            self._samples.clear()

    def values(self, name: str, scale: float = 1.0) -> dict[str, float]:
        """{name_p50, name_p99, name_max}, scaled; empty while there is no sample."""
        with self._lock:
            samples = np.array(self._samples)
        if samples.size == 0:
            return {}
        p50, p99 = np.percentile(samples, [50, 99]) * scale
        largest = float(samples.max()) * scale
        return {f"{name}_p50": float(p50), f"{name}_p99": float(p99), f"{name}_max": largest}
