"""Replays: recorded decisions come out again to the last bit, other parameters differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from safety_filter import cli
from safety_filter.bags import kpi, recording, replay, report
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import BagError
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import Command, ObstacleSample, tool_pose
from safety_filter.core.robot import RobotModel, read_config
from safety_filter.core.wire import empty_tracks
from safety_filter.flight.recorder import NO_EVENT, Tick


def _compared(path: Path) -> tuple[recording.Recording, replay.Replay, replay.Comparison]:
    found = recording.load(path)
    run = replay.run(found)
    unknown = replay.unverifiable(found, run)
    return found, run, replay.compare(found.table, run.table, unknown)


def test_every_recorded_decision_is_reproduced_to_the_last_bit(drive: Path) -> None:
    found, _, compared = _compared(drive)
    assert found.exact and found.notes == []
    states = {tk.STATES[s] for s in found.table["state"]}
    assert states == {"PASS", "FILTERED", "STOPPED"}
    assert compared.equal.all() and len(compared.equal) == 1000


def test_the_recorded_run_changed_parameters_and_was_stopped_and_reset(drive: Path) -> None:
    found = recording.load(drive)
    assert [p.obstacle_margin for p in found.params.values()] == [0.005, 0.01]
    assert set(found.table["event"]) == {0, 1, 2}
    assert set(found.table["config"]) == {1, 2}


def test_the_same_bag_gives_the_same_bytes_twice(drive: Path) -> None:
    digests = {replay.run(recording.load(drive)).digest for _ in range(2)}
    assert len(digests) == 1


def test_the_order_of_the_file_does_not_matter(
    drive: Path, make: ModuleType, tmp_path: Path
) -> None:
    make.shuffled(drive, tmp_path / "shuffled")
    other = replay.run(recording.load(tmp_path / "shuffled"))
    assert other.digest == replay.run(recording.load(drive)).digest


def test_a_recording_that_began_late_is_reproduced_after_its_warm_up(
    make: ModuleType, tmp_path: Path
) -> None:
    make.drive(tmp_path / "late", seconds=3.0, skip=200)
    found, _, compared = _compared(tmp_path / "late")
    assert len(found.table) == 550
    assert not compared.different.any()
    assert compared.unknown.sum() == pytest.approx(replay.WARM_UP * 250, abs=1)


def test_a_missed_deadline_is_missed_again(drive: Path) -> None:
    found = recording.load(drive)
    moving = np.flatnonzero(found.table["state"] != 2)
    found.table["elapsed"][moving[300]] = 0.02
    run = replay.run(found)
    assert tk.text(run.table["reason"][moving[300]]) == "deadline"


def test_a_lost_obstacle_message_is_told_and_its_ticks_do_not_count(drive: Path) -> None:
    found = recording.load(drive)
    del found.clouds[20]
    run = replay.run(found)
    compared = replay.compare(found.table, run.table, replay.unverifiable(found, run))
    assert 5 <= (~run.known).sum() <= 15
    assert any("not in the bag" in note for note in found.notes)
    assert not compared.different.any()


def test_lost_ticks_begin_a_new_segment(drive: Path) -> None:
    found = recording.load(drive)
    found.table = np.concatenate([found.table[:400], found.table[450:]])
    assert [s.start for s in recording.segments(found.table)] == [0, 400]
    run = replay.run(found)
    compared = replay.compare(found.table, run.table, replay.unverifiable(found, run))
    assert not compared.different.any()


def test_other_parameters_give_other_decisions(drive: Path) -> None:
    found = recording.load(drive)
    a, b = replay.run(found), replay.run(found, {"obstacle_margin": 0.05})
    compared = replay.compare(a.table, b.table)
    assert compared.different.any() and compared.largest > 0.01
    assert b.table["distance"][np.isfinite(b.table["distance"])].min() > 0.0


def test_a_bag_without_ticks_is_replayed_from_its_inputs(make: ModuleType, tmp_path: Path) -> None:
    make.drive(tmp_path / "bare", ticks=False, events=False)
    found = recording.load(tmp_path / "bare")
    assert not found.exact and found.clouds
    digests = {replay.run(found).digest, replay.run(recording.load(tmp_path / "bare")).digest}
    assert len(digests) == 1
    table = replay.run(found).table
    assert {tk.STATES[s] for s in table["state"]} == {"PASS", "FILTERED", "STOPPED"}
    reasons = {tk.text(r) for r in table["reason"][table["state"] == 2]}
    assert reasons == {"perception"}


def test_made_up_ticks_decide_like_the_recorded_ones(drive: Path) -> None:
    exact = replay.run(recording.load(drive)).table
    made_up = replay.run(recording.load(drive, reconstruct=True)).table
    agree = exact["state"][: len(made_up)] == made_up["state"][: len(exact)]
    assert agree[:880].mean() > 0.95  # stop and reset are in the ticks only


def test_a_tool_without_a_model_of_its_arm_is_reproduced_too() -> None:
    spec = read_config("panda_hand")
    robot = RobotModel.load(None, spec)
    params = FilterParams()
    safety, kept, position = SafetyFilter(robot, params), [], np.array([0.4, 0.0, 0.4])
    tracks = empty_tracks(1)
    tracks["x"], tracks["y"], tracks["z"], tracks["id"] = 0.4, 0.3, 0.4, 3
    tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.04
    rows = []
    for i in range(300):
        now = i / 250
        if i % 10 == 0:
            seen = ObstacleSample(now, now, "base", tracks)
            rows.append((now, seen))
            command = Command(now, now, "twist", np.array([0, 0.2, 0, 0, 0, 0.1]), "base")
        pose = tool_pose(now, now, position, (1.0, 0.0, 0.0, 0.0))
        decision = safety.step(now, now, pose, command, seen)
        kept.append((i + 1, 1, Tick(now, now, pose, command, seen, decision, NO_EVENT)))
        position = position + decision.twist[:3] / 250
    table = tk.table(kept, robot.n)
    back = tk.decode(tk.fields(robot.n), table.itemsize, len(table), table.tobytes())
    found = recording.Recording(robot, {1: params}, back, rows, True, [], {}, {}, spec)
    compared = replay.compare(back, replay.run(found).table)
    assert compared.equal.all()
    assert {tk.STATES[s] for s in back["state"]} >= {"PASS", "FILTERED"}


# -- command line -------------------------------------------------------------------------------


def test_replay_prints_figures_and_the_reproduction(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert cli.main(["replay", str(drive), "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "reproduced: 1000 of 1000 to the last bit" in text
    assert "min_distance_m" in text and "sha256" in text
    content = json.loads(out.read_text())
    assert content["reproduced"]["different"] == 0
    assert content["runs"]["recorded"]["stops"][0]["reason"] == "perception"


def test_figures_that_are_infinite_are_null_in_json(drive: Path) -> None:
    found = recording.load(drive)
    found.table["state"][800:], found.table["qd"][800:] = 2, 0.1  # never comes to rest
    run = replay.Replay(found.table, np.ones(1000, bool), FilterParams())
    content = report.as_json(found, {"recorded": run}, None, kpi.Expectation(), [])
    json.dumps(content, allow_nan=False)
    assert content["runs"]["recorded"]["stops"][-1]["rest"] is None
    assert content["runs"]["recorded"]["figures"]["time_to_stop_s"] is None


def test_a_recorded_decision_that_does_not_come_out_again_is_an_exit_code(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = recording.load

    def bent(*arguments: object) -> recording.Recording:
        found = real(*arguments)  # type: ignore[arg-type]
        found.table["qd"][500, 2] += 1e-3
        return found

    monkeypatch.setattr(recording, "load", bent)
    assert cli.main(["replay", str(drive)]) == 3


def test_two_configurations_are_compared(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "new.yaml"
    content = "use_sim_time: true, frame: base, comfort_margin: 0.04"
    config.write_text(f"/**:\n  ros__parameters: {{{content}}}\n")
    table = tmp_path / "decisions.npy"
    arguments = ["replay", str(drive), "--config", str(config), "--decisions", str(table)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "decisions differ" in text and "not parameters of the decisions: frame" in text
    assert len(np.load(table, allow_pickle=False)) == 1000


def test_another_rate_makes_ticks_up_and_needs_the_same_on_both_sides(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = tmp_path / "slow.yaml"
    slow.write_text("rate: 125.0\n")
    assert cli.main(["replay", str(drive), "--config", str(slow)]) == 1
    assert "125 and 250 Hz" in capsys.readouterr().err
    both = ["replay", str(drive), "--config", str(slow), "--against", str(slow)]
    assert cli.main(both) == 0
    assert "ticks               " in (text := capsys.readouterr().out) and "made up" in text


@pytest.mark.parametrize(
    "section", ["/cell/filter_node", "/*/filter_node", "filter_node", "/**", "cell: {filter_node"]
)
def test_a_section_that_launch_takes_is_compared(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    config = tmp_path / "new.yaml"
    end = "}" * section.count("{")
    other = "/**/monitor_node: {ros__parameters: {silence: 0.04}}"
    config.write_text(
        f"{section}: {{ros__parameters: {{obstacle_margin: 0.05}}}}{end}\n{other}\n"
    )
    assert cli.main(["replay", str(drive), "--config", str(config)]) == 0
    text = capsys.readouterr().out
    different = re.search(r"(\d+) of 1000 decisions differ", text)
    assert different is not None and int(different.group(1)) > 0


BAD_CONFIGS = {
    "/**/filter_nod: {ros__parameters: {alpha0: 5.0}}": "write /**/filter_node",
    "/**/monitor_node: {ros__parameters: {silence: 0.04}}": "says nothing to filter_node",
    "filter: {ros__parameters: {alpha0: 5.0}}": "says nothing to filter_node",
    "": "says nothing to filter_node",
    "comfort_marginn: 0.1": "did you mean comfort_margin",
    "alpha0: .nan": "alpha0: expected a finite",
    "- 1": "expected a mapping",
    "/**: {rate: 250}": "expected ros__parameters",
    "a: [": "while parsing",
}


@pytest.mark.parametrize("content", BAD_CONFIGS)
def test_bad_configurations_are_refused_with_the_reason(
    replay_with: Callable[[str, str], tuple[int, str]], content: str
) -> None:
    code, text = replay_with("--config", content)
    assert code == 1 and BAD_CONFIGS[content] in text


def test_parameters_of_a_version_that_no_longer_has_them_are_told() -> None:
    notes: list[str] = []
    found = recording._params({"params": {"alpha0": 8.0, "wibble": 1}}, notes)
    assert found == FilterParams(alpha0=8.0) and "wibble" in notes[0]
    with pytest.raises(BagError, match="alpha0"):
        recording._params({"params": {"alpha0": -1.0}}, notes)
