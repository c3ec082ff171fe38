"""A control loop in a thread of its own: absolute deadlines, counted misses."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from safety_filter.core.params import param
from safety_filter.nodes.meters import Percentiles

# A thread that waits for the interpreter gets it after this long, s (default 5 ms)
SWITCH_INTERVAL = 2e-4
WINDOW = 10.0  # s over which periods and times are told
# Python counts objects made less objects freed, and then goes through all made since the last
# time. A recorder frees as many as it keeps, so thousands come together before the count is
# reached, and going through them takes a period. Above what it keeps, only garbage reaches it.
SEARCH_AFTER = 20_000
OBJECTS = 10  # at most that a tick which is kept consists of


@dataclass(frozen=True)
class LoopParams:
    """How the loop's thread runs; both need permissions."""

    fifo_priority: int = param(
        0, "-", 0, 98, "SCHED_FIFO priority of the loop; 0 leaves the normal scheduler"
    )
    cpu: int = param(-1, "-", -1, 1023, "core that the loop is pinned to; -1: any")


class ControlLoop:
    """Calls `tick` at a fixed rate.

    A tick that is not done when the next one is due is a miss: it is counted, and ticks that
    could not take place are not made up for.
    """

    def __init__(
        self,
        params: LoopParams,
        rate: float,
        tick: Callable[[], None],
        start_thread: Callable[[Callable[[], None], str], threading.Thread],
    ) -> None:
        """rate: Hz; start_thread: ManagedNode's."""
        self._params = params
        self._period = 1.0 / rate
        self._tick = tick
        self._start_thread = start_thread
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.warning = ""
        self.ticks = 0
        self.misses = 0
        self.started = self._last = 0.0
        window = round(WINDOW * rate)
        self.period_error = Percentiles(window)
        self.tick_time = Percentiles(window)

    def start(self, kept: int = 0) -> None:
        """Start ticking. What was made until now is no longer searched for garbage: with all that
        numba and rclpy hold, one full search would keep the interpreter for 60 ms.

        kept: ticks that a recorder keeps.
        """
        gc.collect()
        gc.freeze()
        self._thresholds = gc.get_threshold()
        gc.set_threshold(SEARCH_AFTER + OBJECTS * kept, *self._thresholds[1:])
        self._end.clear()
        self._thread = self._start_thread(self._run, "control")

    def stop(self) -> None:
        """Stop after the present tick; returns when the thread has ended."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None
            gc.set_threshold(*self._thresholds)

    def measured_rate(self) -> float:
        """Ticks a second since the start."""
        elapsed = time.monotonic() - self.started
        return self.ticks / elapsed if self.started and elapsed > 0.0 else 0.0

    def counts(self) -> dict[str, object]:
        """Ticks and misses, cheap enough for every tick."""
        return {
            "ticks": self.ticks,
            "ticks_at_s": f"{self._last:.6f}",
            "deadline_misses": self.misses,
        }

    def figures(self) -> dict[str, object]:
        """Rate, periods and times: percentiles take a millisecond, so not in the loop."""
        return {
            "rate_loop_hz": self.measured_rate(),
            **self.period_error.values("latency_period_error_ms", 1e3),
            **self.tick_time.values("latency_tick_ms", 1e3),
        }

    def _prepare(self) -> None:
        p = self._params
        try:
            if p.cpu >= 0:
                os.sched_setaffinity(0, {p.cpu})
            if p.fifo_priority > 0:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(p.fifo_priority))
        except OSError as error:
            self.warning = (
                f"real-time settings not permitted ({error.strerror}): the loop runs without;"
                " grant CAP_SYS_NICE or an rtprio limit, and check the core's number"
            )

    def _run(self) -> None:
        self._prepare()
        period = self._period
        deadline = self._last = self.started = time.monotonic()
        while not self._end.is_set():
            deadline += period
            wait = deadline - time.monotonic()
            if wait > 0.0:
                time.sleep(wait)
            now = time.monotonic()
            self.period_error.add(abs(now - self._last - period))
            self._last = now
            self._tick()
            self.ticks += 1
            done = time.monotonic()
            self.tick_time.add(done - now)
            if done > deadline + period:
                self.misses += 1
                deadline = max(deadline, done - period)
