"""Figures of a run and what is expected of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from safety_filter.bags import kpi, recording
from safety_filter.bags.reader import BagError

ReplayWith = Callable[[str, str], tuple[int, str]]


def test_stops_are_found_with_reason_time_to_rest_and_distance(drive: Path) -> None:
    found = kpi.stops(recording.load(drive).table)
    assert [s.reason for s in found] == ["perception", "operator"]
    lost = found[0]
    assert 2.2 < lost.start < 2.5 and 2.9 < lost.end < 3.1
    assert 0.0 < lost.rest < 0.3 and 0.0 < lost.distance < 0.2


def test_waiting_for_the_first_inputs_is_no_stop(drive: Path) -> None:
    table = recording.load(drive).table
    table["state"][:50] = 2
    assert len(kpi.stops(table)) == 2


def test_a_stop_of_the_solver_far_from_everything_is_false(drive: Path) -> None:
    table = recording.load(drive).table
    assert kpi.figures(table)["false_stops"] == 0
    table["state"][100:110] = 2
    table["reason"][100:110] = 0
    table["reason"][100:110, :6] = list(b"solver")
    table["distance"][99] = 0.05
    assert kpi.figures(table)["false_stops"] == 0
    table["distance"][99] = 0.3
    assert kpi.figures(table)["false_stops"] == 1


MET = """
figures:
  time_to_stop_s: {max: 0.3}
  false_stops: {max: 0}
  min_distance_m: {min: 0.005, max: 0.1}
  intervention_mean_rad_s: {min: 0.01}
expected_stops:
  - {from: 2.2, to: 3.0, reason: perception, within: 0.6}
  - {from: 3.5, to: 4.0, reason: operator}
"""
NOT_MET = {
    "figures: {time_to_stop_s: {max: 0.001}}": "time_to_stop_s: expected at most 0.001",
    "figures: {min_distance_m: {min: 0.5}}": "min_distance_m: expected at least 0.5",
    "expected_stops: [{from: 0.1, to: 1.0}]": "did not happen",
    "{figures: {false_stops: {max: 0}}, expected_stops: []}": "false_stops: expected at most 0",
    "expected_stops: [{from: 2.2, to: 3.0, reason: perception, within: 0.01}]": "rest within",
}


def test_expectations_that_are_met_end_with_0(replay_with: ReplayWith) -> None:
    assert replay_with("--expect", MET)[0] == 0


@pytest.mark.parametrize("content", NOT_MET)
def test_expectations_that_are_not_met_end_with_4_and_say_which(
    replay_with: ReplayWith, content: str
) -> None:
    code, text = replay_with("--expect", content)
    assert code == 4 and NOT_MET[content] in text


BAD = {
    "figurs: {}": "did you mean figures",
    "figures: {min_distance: {min: 0}}": "did you mean min_distance_m",
    "figures: {stops: 3}": "expected {min: ..., max: ...}",
    "figures: {stops: {max: many}}": "expected a number",
    "expected_stops: [{from: 1.0}]": "from and to are needed",
    "expected_stops: {from: 1.0}": "expected a list",
    "[]": "expected a mapping",
    "!!python/object/apply:os.system ['true']": "could not determine a constructor",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_expectations_are_refused_with_the_reason(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kpi.yaml"
    file.write_text(content)
    with pytest.raises(BagError) as error:
        kpi.read(file)
    assert BAD[content] in str(error.value)
