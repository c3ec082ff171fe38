"""The control loop: absolute deadlines, counted misses, settings that are not permitted."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from safety_filter.nodes.loop import SEARCH_AFTER, ControlLoop, LoopParams


def _thread(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _run(params: LoopParams, tick: Callable[[], None], seconds: float = 0.3) -> ControlLoop:
    loop = ControlLoop(params, 100.0, tick, _thread)
    loop.start()
    time.sleep(seconds)
    loop.stop()
    return loop


def test_a_core_that_is_not_there_is_a_warning_and_the_loop_runs() -> None:
    loop = _run(LoopParams(cpu=1023), lambda: None)
    assert "real-time settings not permitted" in loop.warning
    assert "CAP_SYS_NICE" in loop.warning  # what to do
    assert loop.ticks > 0


def test_the_core_and_the_priority_are_those_of_the_loops_thread_alone() -> None:
    seen: list[tuple[set[int], int]] = []
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    loop = _run(
        LoopParams(cpu=core, fifo_priority=1),
        lambda: seen.append((os.sched_getaffinity(0), os.sched_getscheduler(0))),
    )
    assert seen[-1][0] == {core}
    # Without the permission the warning says so
    assert seen[-1][1] == os.SCHED_FIFO or "not permitted" in loop.warning
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == before


def test_a_slow_tick_is_a_miss_and_is_not_made_up_for() -> None:
    times: list[float] = []

    def tick() -> None:
        times.append(time.monotonic())
        if len(times) == 5:
            time.sleep(0.1)

    loop = _run(LoopParams(), tick, 0.5)
    assert loop.misses >= 1
    assert loop.ticks <= 45  # ten periods were lost, not run through in a burst


def test_what_was_there_before_the_loop_is_not_searched_for_garbage_again() -> None:
    """A full search of all that numba and rclpy hold would keep the loop for 60 ms."""
    held = [[k] for k in range(1000)]
    found: list[int] = []
    try:
        _run(LoopParams(), lambda: found.append(len(gc.get_objects())), 0.1)
        assert len(held) == 1000 and max(found) < 1000
    finally:
        gc.unfreeze()


class _Linked:
    """One that only a search for garbage can free."""

    alive = 0

    def __init__(self) -> None:
        self.own = self
        _Linked.alive += 1

    def __del__(self) -> None:
        _Linked.alive -= 1


def test_ticks_that_a_recorder_keeps_are_not_searched_for_garbage() -> None:
    """They come and go in equal numbers: a search would find thousands and nothing to free."""
    kept: deque[list[list[int]]] = deque(maxlen=2000)
    searches: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        searches.append(info["generation"])

    def tick() -> None:
        if not kept:
            gc.callbacks.append(note)
        for k in range(1000):
            kept.append([[k], [k], [k]])

    try:
        loop = ControlLoop(LoopParams(), 100.0, tick, _thread)
        before = gc.get_threshold()
        loop.start(2000)
        time.sleep(0.3)
        seen = len(searches)
        loop.stop()
    finally:
        gc.callbacks.remove(note)
        gc.unfreeze()
    assert loop.ticks > 5 and seen == 0
    assert gc.get_threshold() == before


def test_garbage_does_not_pile_up_without_bound() -> None:
    a_tick = 5000

    def tick() -> None:
        for _k in range(a_tick):
            _Linked()

    loop = ControlLoop(LoopParams(), 100.0, tick, _thread)
    try:
        loop.start()
        most = 0
        while loop.ticks < 15:
            time.sleep(0.005)
            most = max(most, _Linked.alive)
        loop.stop()
    finally:
        gc.unfreeze()
    # The search begins with an object more than that, or when the interpreter gets to it
    assert 0 < most <= SEARCH_AFTER + a_tick < 15 * a_tick
