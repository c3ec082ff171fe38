"""A run continues where it was killed, loses nothing, and says what is wrong with its inputs."""

from __future__ import annotations

import json
import multiprocessing as mp
import resource
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_rig import BAD_SEED, dies, line, on_ray, ray_head

from safety_filter.bench.engines import attempt, processes
from safety_filter.bench.films import film
from safety_filter.bench.jobs import CHECK, Config, Job, run_job, task_of
from safety_filter.bench.report import chosen_films, page
from safety_filter.bench.run import Engine, Plan, engine_of, execute, table
from safety_filter.bench.store import Store, StoreError, load_summary
from safety_filter.bench.summary import summarise
from safety_filter.cli import main

CONFIG = Config("expert", "truth")
HEADER: dict[str, Any] = {
    "git_revision": "abc", "code": "abc", "libraries": {},
    "config": {"policy": "vla", "perception": "real"},
    "suites": ["static-1", "dynamic-4"], "methods": ["none", "ours"], "seed0": 0,
    "episodes_per_suite": 4, "versions": {},
    "machine": {"cores": 2, "processor": "x", "memory_gib": 1.0}}


def plan(out: Path) -> Plan:
    return Plan(CONFIG, ["static-2"], ["none", "ours-live-oracle"], 3000, 2, out)


def counted(engine: Engine, log: list[Job], stop_after: int = 1000) -> Engine:
    """The engine, with what it was asked to run in `log` and Ctrl-C after some episodes."""

    def run(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        for episode in engine(config, jobs):
            if len(log) >= stop_after:
                raise KeyboardInterrupt
            log.append(Job(episode["seed"], episode["suite"], episode["method"]))
            yield episode

    return run


def serial(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    return (attempt(run_job, config, job) for job in jobs)


def test_a_stopped_run_continues_and_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole = execute(plan(tmp_path / "whole"), engine_of(1, False, None))
    assert whole["complete"] and len(whole["episodes"]) == 6
    log: list[Job] = []
    with pytest.raises(KeyboardInterrupt):
        execute(plan(tmp_path / "cut"), counted(serial, log, stop_after=3))
    half = load_summary(tmp_path / "cut" / "suites.json")
    assert not half["complete"] and len(half["episodes"]) == 3
    with (tmp_path / "cut" / "episodes.jsonl").open("a") as file:
        file.write('{"suite": "static-2", "se')  # killed while it wrote
    execute(plan(tmp_path / "cut"), counted(serial, log))
    assert len(log) == len(set(log)) == 6
    for name in ("results", "pairs", "episodes", "excluded"):
        assert load_summary(tmp_path / "cut" / "suites.json")[name] == whole[name]


def test_ray_gives_the_same_episodes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    config = Config(timing={"limit": 2.0})  # shipped policy and perception
    jobs = [Job(3000, "dynamic-4", "ours"), Job(3001, "static-1", "none")]
    here = sorted(map(json.dumps, serial(config, jobs)))
    # In a process of its own: Ray's handler of terminate() aborts an interpreter that ends while
    # threads of rclpy are about.
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as pool:
        there = sorted(map(json.dumps, pool.submit(on_ray, config, jobs).result()))
    assert here == there and not any("error" in line for line in here)


def test_ray_at_an_address_tries_again_what_dies_and_reports_it() -> None:
    pytest.importorskip("ray")
    jobs = [Job(seed, "static-1", "none") for seed in range(6)]
    with ray_head() as addresses:
        for address in addresses:
            with ProcessPoolExecutor(1, mp.get_context("spawn")) as pool:
                lines = {e["seed"]: e for e in pool.submit(
                    on_ray, CONFIG, jobs, address, dies).result()}
            assert set(lines) == set(range(6))
            assert "worker died 2 times" in lines[BAD_SEED]["error"]
            assert "ValueError: no such thing" in lines[BAD_SEED + 1]["error"]
            assert sum("error" in e for e in lines.values()) == 2


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:9", "ray://127.0.0.1:9"])
def test_an_address_without_a_cluster_says_what_to_name(
        tmp_path: Path, capfd: pytest.CaptureFixture[str], address: str) -> None:
    pytest.importorskip("ray")
    with ProcessPoolExecutor(1, mp.get_context("spawn")) as pool:
        code = pool.submit(main, [
            "bench", "--suites", "alone-0", "--methods", "none", "--ray", "--address",
            address, "--out", str(tmp_path)]).result()
    assert code == 2
    said = capfd.readouterr().err
    assert f"--address {address}: cannot be reached" in said and "ray://HOST:10001" in said


def test_a_worker_that_dies_is_tried_again_and_reported_with_its_seed() -> None:
    jobs = [Job(seed, "static-1", "none") for seed in range(6)]
    lines = {e["seed"]: e for e in processes(CONFIG, jobs, 2, dies)}
    assert set(lines) == set(range(6))
    assert "worker died 2 times, exit code 7" in lines[BAD_SEED]["error"]
    assert "ValueError: no such thing" in lines[BAD_SEED + 1]["error"]
    assert sum("error" in e for e in lines.values()) == 2


def test_results_of_another_schema_code_or_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"schema_ver')  # killed while it began
    Store(path, HEADER).close()
    Store(path, HEADER).close()
    with pytest.raises(StoreError, match=r"code is \"abc\", this run's is \"def\".*fresh"):
        Store(path, {**HEADER, "code": "def"})
    path.write_text(json.dumps({"schema_version": 0, "seed0": 5, "git_revision": "old"}) + "\n")
    with pytest.raises(StoreError, match=r"schema_version 0, this version reads 2.*seed0 5.*old"):
        Store(path, HEADER)
    (tmp_path / "suites.json").write_text(
        '{"schema_version": 0, "suites": [], "results": [], "episodes": []}')
    with pytest.raises(StoreError, match="schema_version 0"):
        load_summary(tmp_path / "suites.json")
    with pytest.raises(StoreError, match=r"missing; run `safety-filter bench`"):
        load_summary(tmp_path / "none.json")


def test_failed_episodes_are_tried_again_by_the_next_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "e.jsonl", HEADER)
    store.add({"suite": "static-1", "seed": 1, "method": "none", "error": "worker died"})
    store.add(line(Job(2, "static-1", "none")))
    store.close()
    assert list(Store(tmp_path / "e.jsonl", HEADER).episodes) == [Job(2, "static-1", "none")]


def test_a_full_disk_leaves_what_was_there_and_the_next_run_goes_on(tmp_path: Path) -> None:
    many = replace(plan(tmp_path), episodes=20)

    def quick(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
        return (line(job) for job in jobs)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))  # bytes of one file
    try:
        with pytest.raises(OSError, match="File too large"):
            execute(many, quick)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert 5 < len(lines) < 61
    assert load_summary(tmp_path / "suites.json")["complete"] is False
    log: list[Job] = []
    content = execute(many, counted(quick, log))
    assert content["complete"] and len(content["episodes"]) == 60
    assert len(log) <= 60 - len(lines) + 2


def sample() -> list[dict[str, Any]]:
    out = []
    for seed in range(4):
        out.append(line(Job(seed, "dynamic-4", CHECK), success=seed != 3, safe_success=seed != 3))
        out.append(line(Job(seed, "dynamic-4", "none"), collided=True, cause="hand on mover: x",
                        min_distance_m=-0.01, penetration_m=0.01, car_displaced=True))
        out.append(line(Job(seed, "dynamic-4", "ours"), success=seed != 1,
                        safe_success=seed != 1, cause="not placed" if seed == 1 else None))
    return out


def test_summary_counts_pairs_and_leaves_out_what_cannot_be_solved() -> None:
    content = summarise(HEADER, sample(), True)
    none, ours = content["results"]
    assert (none["method"], none["n"], none["collisions"], none["safe_successes"]) == (
        "none", 3, 3, 0)
    assert none["car"] == 0.0 and none["penetration_m"] == 0.01
    assert none["collision_causes"] == {"hand on mover: x": 3}
    assert (ours["n"], ours["collisions"], ours["successes"], ours["safe_successes"]) == (
        3, 0, 2, 2)
    assert ours["failure_causes"] == {"not placed": 1} and ours["lost_target_share"] is None
    assert ours["collisions_rate"]["high"] == pytest.approx(0.5615, abs=1e-3)
    assert content["excluded"] == [["dynamic-4", 3]]
    pair = content["pairs"][0]["collisions"]
    assert (pair["only_first"], pair["only_second"], pair["difference"]) == (0, 3, -1.0)
    assert pair["p"] == pytest.approx(0.25)
    assert summarise(HEADER, reversed(sample()), True) == content
    assert "dynamic-4   ours" in table(content) and "left out" in table(content)


def test_report_shows_results_causes_and_the_films_it_was_given(tmp_path: Path) -> None:
    content = summarise(HEADER, sample(), False)
    content["results"][0]["states"] = {"PASS": 0.9, "STOPPED joint_state": 0.1}
    films = chosen_films(content)
    assert films[0][0].startswith("dynamic-4, worst of ours") and "seed 1" in films[0][0]
    text = page(content, [("worst", Path("film_0.webm"))])
    for part in ("did not finish", "hand on mover: x", 'src="film_0.webm"', "<svg", "polyline",
                 "-100.0", "<td>joint state</td><td>10.0</td>", "4 seeds of each suite from 0 on"):
        assert part in text


def test_a_film_is_made_by_running_the_episode_again(tmp_path: Path) -> None:
    config = Config("expert", "truth", timing={"limit": 0.5})
    recorded = json.loads(json.dumps(run_job(config, Job(3000, "static-1", "ours"))))
    path = tmp_path / "film.webm"
    assert film(config, [recorded], path) == []
    assert path.read_bytes()[:4] == b"\x1a\x45\xdf\xa3"
    other = {**recorded, "success": True, "min_distance_m": -0.01}
    assert film(config, [recorded, other], path) == ["ours: success, min_distance_m"]


def test_the_worst_film_is_of_a_collision_though_the_task_was_done() -> None:
    lines = [line(Job(s, "dynamic-4", m)) for s in range(3) for m in ("none", "ours")]
    hovered, hit = lines[1], lines[3]
    hovered.update(success=False, safe_success=False, min_distance_m=0.001, cause="not placed")
    hit.update(collided=True, safe_success=False, min_distance_m=-0.001, cause="hand on mover")
    (worst, episodes), (_, typical) = chosen_films(summarise(HEADER, lines, True))
    assert "seed 1" in worst and episodes == lines[2:4] and typical == lines[0:2]


def test_changes_are_weighted_by_the_time_that_they_took() -> None:
    lines = [line(Job(s, "dynamic-4", "ours"), duration=d, intervention_share=share,
                  intervention_mean=mean) for s, (d, share, mean) in enumerate(
                      [(10.0, 0.5, 0.1), (20.0, 0.05, 0.4), (30.0, 0.0, 0.0)])]
    row = summarise(HEADER, lines, True)["results"][0]
    assert row["intervention_mean"] == pytest.approx((5.0 * 0.1 + 1.0 * 0.4) / 6.0)
    assert row["intervention_share"] == pytest.approx(0.55 / 3)
    still = summarise(HEADER, lines[2:], True)["results"][0]
    assert still["intervention_mean"] == 0.0


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--suites", "moon"], r"--suites: unknown moon; expected of alone-0, static-1"),
    (["--methods", "magic"], r"--methods: unknown magic; expected of none, naive, init-oracle"),
    (["--tasks", "fly"], r"--tasks: unknown fly; expected of cube-plate, can-bin"),
    (["--episodes", "0"], r"--episodes: expected at least 1, got 0"),
    (["--address", "ray://x"], r"--address: needs --ray"),
    (["--workers", "0"], r"--workers: expected at least 1, got 0"),
    (["--workers", "2", "--ray"], r"--workers: has no effect with --ray"),
    (["--seed0", "3", "--episodes", "1", "--tasks", "cube-plate"], r"--tasks: none of the 1 seed"),
    (["--methods", "ours", "none", "ours"], r"--methods: ours more than once"),
    (["--policy", "expert", "--methods", "none", "ours"],
     r"nothing is ever the target of ours: add --perception truth"),
    (["--report", "--out", "/nonexistent"], r"suites.json: missing"),
])
def test_bad_arguments_say_what_was_expected(
        arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert expected in capsys.readouterr().err
    assert main(["bench-sweep", "ours"]) == 2
    assert "expected of naive, knows" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_not_taken_for_a_full_disk(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["bench", "--out", str(tmp_path / "file")]) == 1
    assert "let --out be a folder that can be written" in capsys.readouterr().err


def test_tasks_go_round_with_the_seed() -> None:
    assert task_of(Job(8, "static-1", "none")) == task_of(Job(0, "dynamic-4", "ours"))
    assert len({task_of(Job(s, "static-1", "none")) for s in range(8)}) == 8
    assert task_of(Job(1, "free", "none")) == "free"


def test_graph_and_lockstep_are_compared_on_the_scenes_that_both_have(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = {"schema_version": 1, "suite": "dynamic-4", "seeds": [0, 1, 2, 9], "episodes": [
        {"seed": s, "method": m, "error": "", "success": True,
         "collisions": [{}] if m == "none" else [], "safe_success": m == "filter"}
        for s in (0, 1, 2, 9) for m in ("none", "filter")]}
    summary, suites = tmp_path / "summary.json", tmp_path / "suites.json"
    summary.write_text(json.dumps(graph))
    suites.write_text(json.dumps(summarise(HEADER, sample(), True)))
    assert main(["bench-compare", str(summary), str(suites)]) == 0
    out = capsys.readouterr().out
    assert "none   collisions      graph 3/3" in out and out.count("agree") == 6
    assert main(["bench-compare", str(tmp_path / "x.json"), str(suites)]) == 2
    graph["suite"] = "demo"
    summary.write_text(json.dumps(graph))
    assert main(["bench-compare", str(summary), str(suites)]) == 2
    assert "no scene in common" in capsys.readouterr().err
