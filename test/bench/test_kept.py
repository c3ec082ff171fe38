"""What lies on disk is kept, read back or refused, and never taken for something else."""

from __future__ import annotations

import html
import json
import multiprocessing as mp
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_rig import dies_after, line

from safety_filter.bench import identity
from safety_filter.bench.engines import failed, processes
from safety_filter.bench.jobs import Config, Job
from safety_filter.bench.report import page
from safety_filter.bench.run import Plan, execute
from safety_filter.bench.store import Store, StoreError, load_summary
from safety_filter.bench.summary import make_header
from safety_filter.cli import main
from safety_filter.vla.policy import SHIPPED

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


def test_a_summary_is_there_before_the_first_episode_ends(tmp_path: Path) -> None:
    before: list[dict[str, Any]] = []

    def looks(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        before.append(load_summary(tmp_path / "suites.json"))
        return quick(config, jobs)

    execute(replace(PLAN, out=tmp_path), looks)
    assert before[0]["episodes"] == [] and before[0]["complete"] is False


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    first = Store(path, _header())
    with pytest.raises(StoreError, match=r"another process writes there; .* another --out"):
        Store(path, _header())
    first.close()
    Store(path, _header()).close()


@pytest.mark.parametrize(("content", "expected"), [
    ("1", r"jsonl:2: expected an object with seed, suite, method, got 1; .* delete that line"),
    ('{"seed": 3}', r'expected an object with seed, suite, method, got {"seed": 3}'),
    ("{,}", r"jsonl:2: not JSON"),
])
def test_a_line_that_is_no_episode_is_named(
        tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "episodes.jsonl"
    Store(path, _header()).close()
    with path.open("a") as file:
        file.write(content + "\n")
    with pytest.raises(StoreError, match=expected):
        Store(path, _header())
    path.write_text("[]\n")
    with pytest.raises(StoreError, match=r"jsonl:1: expected an object, got \[\]; .*--fresh"):
        Store(path, _header())


def test_the_word_on_another_schema_names_the_whole_command(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    old = {**_header(), "schema_version": 1, "tasks": ["cube-plate"], "seeds_per_suite": 16}
    path.write_text(json.dumps(old) + "\n")
    command = ("safety-filter bench --seed0 3000 --episodes 16 --suites static-2 --methods none "
               "--tasks cube-plate --policy expert --perception truth --out ANOTHER")
    with pytest.raises(StoreError, match=f"run `{command}`"):
        Store(path, _header())


def _as_in_a_terminal() -> None:
    """A shell's background jobs, and what they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "safety_filter.cli", "bench", "--suites", "alone-0",
               "--methods", "none", "--policy", "expert", "--perception", "truth", "--workers",
               "1", "--episodes", "3", "--seed0", "3000", "--no-films", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": "1"},
                          preexec_fn=_as_in_a_terminal) as run:
        assert run.stdout is not None and run.stderr is not None
        progress = next(text for text in run.stdout if " gone, " in text)
        run.send_signal(signal.SIGINT)
        said = run.stderr.read()
        assert run.wait() == 130
    assert re.match(r" +\d/3  0:\d\d:\d\d gone, 0:\d\d:\d\d left  alone-0 30", progress)
    assert "the same command continues" in said and "Traceback" not in said
    kept = load_summary(tmp_path / "suites.json")
    assert not kept["complete"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    there = len(kept["episodes"])
    assert 0 < there < 6
    assert f"scenes that can be solved: {max(3 - there, 0)} to run" in again.stdout
    assert load_summary(tmp_path / "suites.json")["complete"]


def test_a_summary_of_another_schema_is_not_overwritten(tmp_path: Path) -> None:
    old = '{"schema_version": 0, "seed0": 5, "git_revision": "old"}'
    (tmp_path / "suites.json").write_text(old)
    with pytest.raises(StoreError, match=r"schema_version 0, this version reads 2.*seed0 5.*old"):
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
        second = graph if content == whole else suites  # the demo's own, or the benchmark's
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


def _header(config: Config = PLAN.config) -> dict[str, Any]:
    return make_header(config.as_dict(), ["static-2"], ["none"], [3000])


def test_the_code_counts_and_not_what_its_revision_is_called(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    for revision in ("abc", "def-dirty", "unknown"):  # as when documents changed
        Store(path, {**_header(), "git_revision": revision}).close()
    for name, value in (("code", "0123"), ("libraries", {**_header()["libraries"], "numpy": "9"})):
        with pytest.raises(StoreError, match=f"its {name} is .*, this run's is .*--fresh"):
            Store(path, {**_header(), name: value})


def test_every_module_that_an_episode_imports_is_part_of_the_code() -> None:
    script = """
import sys
from pathlib import Path
from safety_filter.bench.jobs import Config, Job, run_job
for method in ("ours", "aegis", "informed"):
    run_job(Config(timing={"limit": 0.2}), Job(3000, "dynamic-4", method))
used = {Path(module.__file__) for name, module in sys.modules.items()
        if name.startswith("safety_filter.")}
from safety_filter.bench.identity import CODE, PACKAGE, _files
parts = {part: set(_files(PACKAGE / part)) for part in CODE}
assert used <= set().union(*parts.values()), used - set().union(*parts.values())
assert all(files & used for files in parts.values()), parts
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_change_of_any_file_of_the_code_is_another_code(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "safety_filter"
    for part in identity.CODE:
        kind = shutil.copytree if (identity.PACKAGE / part).is_dir() else shutil.copy
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        kind(identity.PACKAGE / part, copy / part)
    monkeypatch.setattr(identity, "PACKAGE", copy)
    fresh = identity.identity.__wrapped__
    assert fresh() == identity.identity()
    with (copy / "core" / "rows.py").open("a") as file:
        file.write("\n")
    assert fresh()["code"] != identity.identity()["code"]
    assert fresh()["libraries"] == identity.identity()["libraries"]


def test_a_worker_of_other_code_ends_the_run_and_what_was_run_is_kept(
        tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {**identity.identity(), "code": "0123"}  # the files changed since this process began
    monkeypatch.setattr("safety_filter.bench.engines.identity", lambda: ours)
    arguments = ["bench", "--suites", "alone-0", "--episodes", "1", "--policy", "expert",
                 "--methods", "none", "--perception", "truth", "--out", str(tmp_path)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "expected a worker with code 0123" in said and "one version everywhere" in said
    assert load_summary(tmp_path / "suites.json")["complete"] is False


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


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_policy_that_reads_other_words_is_another_configuration(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "episodes.jsonl"
    Store(path, _header(config=Config())).close()
    other = shutil.copytree(SHIPPED, tmp_path / "vla")
    (other / name).write_text((other / name).read_text() + "\n")
    monkeypatch.setattr("safety_filter.vla.policy.SHIPPED", other)
    with pytest.raises(StoreError, match=r'its config is {"policy_files": .*this run\'s is'):
        Store(path, _header(config=Config()))


def test_another_perception_parameter_is_another_configuration(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "episodes.jsonl"
    Store(path, _header(config=Config())).close()
    monkeypatch.setattr("safety_filter.bench.cell.declared", lambda name, kind: {"lost_time": 9.0})
    with pytest.raises(StoreError, match=r'this run\'s is {"perception_params": .*"lost_time": 9'):
        Store(path, _header(config=Config()))


def test_what_could_not_be_run_leaves_the_run_unfinished(tmp_path: Path) -> None:
    def broken(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        return (failed(job, "worker died") if job == Job(3001, "static-2", "ours") else line(job)
                for job in jobs)

    assert execute(replace(PLAN, out=tmp_path), broken)["complete"] is False
    assert execute(replace(PLAN, out=tmp_path), quick)["complete"] is True


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
    ("abc", ""), ("def", "code is \"abc\", this run's is \"def\"")])
def test_old_results_get_no_films_of_other_code(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        now: str, left_out: str) -> None:
    for code in ("abc", now):
        monkeypatch.setattr("safety_filter.bench.summary.identity",
                            lambda code=code: {"code": code, "libraries": {}})
        if code == "abc":
            execute(replace(PLAN, out=tmp_path), quick)
    made: list[Path] = []
    monkeypatch.setattr("safety_filter.bench.films.film",
                        lambda config, recorded, path: made.append(path) or [])
    assert main(["bench", "--report", "--out", str(tmp_path)]) == 0
    assert bool(made) is not bool(left_out)
    assert left_out in capsys.readouterr().err
    text = html.unescape((tmp_path / "report.html").read_text())
    assert left_out in text and ("None made" in text) is bool(left_out)
