"""What lies on disk is kept, read back or refused, and never taken for something else."""

from __future__ import annotations

import html
import json
import multiprocessing as mp
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_rig import dies_after, line

from safety_filter.bench.engines import processes
from safety_filter.bench.jobs import Config, Job
from safety_filter.bench.report import page
from safety_filter.bench.run import Plan, execute
from safety_filter.bench.store import Store, StoreError, load_summary
from safety_filter.bench.summary import make_header
from safety_filter.cli import main

PLAN = Plan(Config("expert", "truth"), ["static-2"], ["none", "ours"], 3000, 2, Path())


def quick(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    return (line(job) for job in jobs)


class FullDisk(Store):
    """A store whose file takes the header and nothing more."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        super().__init__(path, header)
        self._file.close()
        full = Path("/dev/full")
        self._file = full.open("a", encoding="utf-8")


def test_a_store_that_cannot_be_flushed_still_leaves_a_summary(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safety_filter.bench.run.Store", FullDisk)
    with pytest.raises(OSError, match="No space left"):
        execute(replace(PLAN, out=tmp_path), quick)
    content = load_summary(tmp_path / "suites.json")
    assert not content["complete"] and content["episodes"] == []


def test_a_summary_of_another_schema_is_not_overwritten(tmp_path: Path) -> None:
    old = '{"schema_version": 0, "seed0": 5, "git_revision": "old"}'
    (tmp_path / "suites.json").write_text(old)
    with pytest.raises(StoreError, match=r"schema_version 0, this version reads 1.*seed0 5.*old"):
        execute(replace(PLAN, out=tmp_path), quick)
    assert (tmp_path / "suites.json").read_text() == old
    assert not (tmp_path / "episodes.jsonl").exists()


def test_bench_compare_says_which_file_it_expected(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(replace(PLAN, out=tmp_path), quick)
    suites, graph = tmp_path / "suites.json", tmp_path / "summary.json"
    whole: dict[str, Any] = {"schema_version": 1, "suite": "demo", "seeds": [], "episodes": []}
    for content, expected in (
            (whole, "summary.json: expected the suites.json of `safety-filter bench`"),
            ({**whole, "schema_version": 0}, "schema_version 0, this version reads 1"),
            ([], "expected the summary.json of `safety-filter demo`")):
        graph.write_text(json.dumps(content))
        second = graph if content == whole else suites
        assert main(["bench-compare", str(graph), str(second)]) == 2
        assert expected in capsys.readouterr().err
    assert main(["bench-compare", str(suites), str(suites)]) == 2
    assert "suites.json: expected the summary.json of `safety-filter demo`" in (
        capsys.readouterr().err)


def test_a_worker_that_dies_after_its_answer_takes_nothing_with_it() -> None:
    jobs = [Job(seed, "static-1", "none") for seed in range(3)]
    lines = []
    for episode in processes(PLAN.config, jobs, 1, dies_after):
        lines.append(episode)
        end = time.monotonic() + 20.0
        while mp.active_children() and time.monotonic() < end:
            time.sleep(0.01)
    assert [e["seed"] for e in lines] == [0, 1, 2]
    assert not any("error" in e for e in lines)


def _header(revision: str = "abc", config: Config = PLAN.config) -> dict[str, Any]:
    header = make_header(config.as_dict(), ["static-2"], ["none"], [3000])
    return {**header, "git_revision": revision}


@pytest.mark.parametrize("revision", ["0123abc-dirty", "unknown"])
def test_episodes_of_code_that_nothing_names_are_not_continued(
        tmp_path: Path, revision: str) -> None:
    path = tmp_path / "episodes.jsonl"
    for _ in range(2):  # without an episode there is nothing to mix
        store = Store(path, _header(revision))
        store.close()
    store = Store(path, _header(revision))
    store.add(line(Job(3000, "static-2", "none")))
    store.close()
    with pytest.raises(StoreError, match=rf"nothing proves.*'{revision}'.*--fresh.*commit"):
        Store(path, _header(revision))


@pytest.mark.parametrize("changed", [
    ("safety_filter.perception.detector.DEFAULT_WEIGHTS", "detector"),
    ("safety_filter.vla.policy.SHIPPED", "policy_files"),
])
def test_other_weights_are_another_configuration(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: tuple[str, str]) -> None:
    path = tmp_path / "episodes.jsonl"
    Store(path, _header(config=Config())).close()
    Store(path, _header(config=Config())).close()
    monkeypatch.setattr(changed[0], tmp_path)
    with pytest.raises(StoreError, match=rf'its config is {{"{changed[1]}": .*this run\'s is .*'
                                         r'"missing"'):
        Store(path, _header(config=Config()))


def test_another_perception_parameter_is_another_configuration(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "episodes.jsonl"
    Store(path, _header(config=Config())).close()
    monkeypatch.setattr("safety_filter.bench.cell.declared", lambda name, kind: {"lost_time": 9.0})
    with pytest.raises(StoreError, match=r'this run\'s is {"perception_params": .*"lost_time": 9'):
        Store(path, _header(config=Config()))


def test_a_run_that_cannot_be_continued_says_so_when_it_begins(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    for revision, said in (("abc-dirty", True), ("abc", False)):
        monkeypatch.setattr("safety_filter.bench.summary.git_revision", lambda _, r=revision: r)
        execute(replace(PLAN, out=tmp_path / revision), quick)
        assert ("cannot be continued once stopped" in capsys.readouterr().err) is said


def test_the_report_says_what_it_leaves_out(tmp_path: Path) -> None:
    def unlucky(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        for job in jobs:
            hit = job.method == "none"
            yield line(job, collided=hit, cause=f"cause {job.seed % 9}" if hit else None)

    content = execute(replace(PLAN, out=tmp_path, seed0=0, episodes=61), unlucky)
    text = page(content)
    assert "static-2, none: first 60 of 61 episodes" in text
    assert "<td>3 other causes, see suites.json</td><td>19</td>" in text
    assert "61 seeds of each suite from 0 on" in text and "None made.</p>" in text
    assert text.count("<polyline") == 2 * 60
    few = execute(replace(PLAN, out=tmp_path / "few", episodes=2), unlucky)
    assert "first 60" not in page(few) and "other causes" not in page(few)


def test_seeds_of_some_tasks_are_told_as_chosen_from_all(tmp_path: Path) -> None:
    content = execute(replace(PLAN, out=tmp_path, seed0=9, episodes=16, tasks=["cube-plate"]),
                      quick)
    assert (content["seed0"], content["seeds_per_suite"], content["tasks"]) == (
        9, 16, ["cube-plate"])
    assert ("2 of the 16 seeds of each suite from 9 on, those of the tasks cube-plate"
            in page(content))


@pytest.mark.parametrize(("now", "left_out"), [
    ("abc", ""), ("def", "git_revision is \"abc\", this run's is \"def\""),
    ("unknown", "git_revision is \"abc\"")])
def test_old_results_get_no_films_of_other_code(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        now: str, left_out: str) -> None:
    monkeypatch.setattr("safety_filter.bench.summary.git_revision", lambda _: "abc")
    execute(replace(PLAN, out=tmp_path), quick)
    monkeypatch.setattr("safety_filter.bench.summary.git_revision", lambda _: now)
    made: list[Path] = []
    monkeypatch.setattr("safety_filter.bench.films.film",
                        lambda config, jobs, path: made.append(path) or path)
    assert main(["bench", "--report", "--out", str(tmp_path)]) == 0
    assert bool(made) is not bool(left_out)
    assert left_out in capsys.readouterr().err
    text = html.unescape((tmp_path / "report.html").read_text())
    assert left_out in text and ("None made" in text) is bool(left_out)
