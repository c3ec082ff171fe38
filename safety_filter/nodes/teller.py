"""Puts states into words and publishes them beside a control loop.

To word, publish and log a state takes longer than a step of the filter; the loop only leaves it
here. Every change is told, in order; what has not changed is repeated now and then.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
MOST = 100  # states that may wait; the oldest go first


class StateTeller(Generic[T]):
    """`offer` is called by the loop and never waits; `publish` runs in a thread of its own."""

    def __init__(
        self, rate: float, publish: Callable[[T], None],
        start_thread: Callable[[Callable[[], None], str], threading.Thread],
    ) -> None:  # fmt: skip
        """rate: Hz, of what has not changed; start_thread: ManagedNode's."""
        self._interval, self._publish = 1.0 / rate, publish
        self._start_thread = start_thread
        self._waiting: deque[T] = deque(maxlen=MOST)
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = ("", -math.inf)

    def start(self) -> None:
        """Tell from now on, whatever comes first."""
        self._ended, self._told = False, ("", -math.inf)
        self._thread = self._start_thread(self._run, "state")

    def stop(self) -> None:
        """Tell what waits, and end."""
        self._ended = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None

    def offer(self, key: str, now: float, what: T) -> None:
        """Publish `what` soon if `key` is another than last time, or that was long ago.

        now: s on the monotonic clock.
        """
        known, last = self._told
        if key == known and now - last < self._interval:
            return
        self._told = (key, now)
        self._waiting.append(what)
        self._news.set()

    def _run(self) -> None:
        while not self._ended:
            self._news.wait()
            self._news.clear()
            while self._waiting:
                self._publish(self._waiting.popleft())
