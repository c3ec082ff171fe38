"""bench-loop: one short case with the real filter_node."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from safety_filter.bench import loop
from safety_filter.bench.pauses import PauseWatch, main
from safety_filter.nodes.loop import WINDOW


@pytest.mark.ros
def test_a_case_tells_what_the_loop_kept_and_how_long_an_answer_took(tmp_path: Path) -> None:
    out = tmp_path / "loop.json"
    asked = ["--rates", "100", "--loads", "idle", "--seconds", f"{WINDOW}", "--out", str(out)]
    assert loop.main(asked) == 0
    (case,) = json.loads(out.read_text())["cases"]
    assert (case["rate_hz"], case["load"], case["warning"]) == (100.0, "idle", "")
    assert case["ticks"] == pytest.approx(case["achieved_hz"] * case["seconds"])
    assert case["miss_fraction"] == case["misses"] / case["ticks"]
    assert set(case["period_error_us"]) == {"p50", "p99", "max"}
    assert case["obstacle_to_command_ms"]["n"] > 0
    assert case["obstacle_to_command_ms"]["p50"] > 0.0
    assert 50.0 < case["memory_mb"] <= case["memory_peak_mb"] <= 300.0
    pauses = case["machine_pauses"]
    assert pauses is None or pauses["n"] == 0 or pauses["longest_ms"] >= 10.0


def test_too_short_a_run_is_refused() -> None:
    with pytest.raises(SystemExit):
        loop.main(["--seconds", "1"])


def test_a_watch_that_is_stopped_at_once_ends_at_once() -> None:
    watch = PauseWatch(1e-3, 60.0)
    watch.start()
    start = time.monotonic()
    pauses = watch.stop()
    assert time.monotonic() - start < 20.0
    assert pauses is None or (pauses.n == 0) == (pauses.longest_ms == 0.0)


def test_what_keeps_a_core_is_a_pause_of_its_length(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that is over after the first nap, which itself lasts longer than asked."""
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0), os.sched_getscheduler(0)
    code = main([str(core), "0.0", "0.0005"])
    os.sched_setscheduler(0, before[1], os.sched_param(0))
    os.sched_setaffinity(0, before[0])
    told = capsys.readouterr().out.splitlines()
    if code == 1:
        assert told == []  # such a priority is not permitted here
        return
    assert told[0] == "begun"
    (pause,) = json.loads(told[1])
    assert 0.0 <= pause < 10.0
