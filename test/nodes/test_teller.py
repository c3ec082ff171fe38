"""States told beside a control loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from safety_filter.nodes.teller import MOST, StateTeller


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def test_each_change_is_told_in_order_and_the_rest_at_its_rate() -> None:
    told: list[str] = []
    teller = StateTeller(10.0, told.append, _thread)
    teller.start()
    for k, key in enumerate("aaabbab"):
        teller.offer(key, 0.01 * k, f"{key}{k}")
    teller.offer("b", 0.1, "too soon")
    teller.offer("b", 0.2, "again")
    teller.stop()
    assert told == ["a0", "b3", "a5", "b6", "again"]


def test_a_loop_never_waits_for_a_state_to_be_told() -> None:
    free, told = threading.Event(), list[int]()

    def publish(k: int) -> None:
        free.wait(10.0)
        told.append(k)

    teller = StateTeller(10.0, publish, _thread)
    teller.start()
    start = time.monotonic()
    for k in range(10 * MOST):
        teller.offer(str(k), 0.0, k)
    assert time.monotonic() - start < 5.0
    free.set()
    teller.stop()
    assert told[-1] == 10 * MOST - 1 and len(told) <= MOST + 1, "the newest are kept"


def test_after_another_start_the_state_is_told_anew() -> None:
    told: list[int] = []
    teller = StateTeller(10.0, told.append, _thread)
    for k in range(2):
        teller.start()
        teller.offer("same", 0.0, k)
        teller.stop()
    assert told == [0, 1]
