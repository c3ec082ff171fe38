"""bench-loop: one short case with the real filter_node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safety_filter.bench import loop
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
    assert 50.0 < case["memory_mb"] <= min(300.0, case["memory_peak_mb"])


def test_too_short_a_run_is_refused() -> None:
    with pytest.raises(SystemExit):
        loop.main(["--seconds", "1"])
