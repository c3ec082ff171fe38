"""The whole benchmark: which episodes, in what order, what is kept while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_filter.bench.engines import processes, ray_cluster
from safety_filter.bench.jobs import CHECK, TASK_NAMES, Config, Job
from safety_filter.bench.store import Store, refuse_other_schema
from safety_filter.bench.summary import make_header, summarise
from safety_filter.demo.summary import write_json

WRITE_EVERY = 60.0  # s between two versions of suites.json while it runs
SAY_EVERY = 5.0  # s between two lines of progress
Engine = Callable[[Config, Iterable[Job]], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Plan:
    """What to run. Episode k of a suite has the seed seed0 + k; its task is that of its seed."""

    config: Config
    suites: Sequence[str]
    methods: Sequence[str]
    seed0: int
    episodes: int
    out: Path
    tasks: Sequence[str] = TASK_NAMES

    @property
    def seeds(self) -> list[int]:
        """The seeds of each suite."""
        return [s for s in range(self.seed0, self.seed0 + self.episodes)
                if TASK_NAMES[s % len(TASK_NAMES)] in self.tasks]

    def checks(self) -> list[Job]:
        """The episodes that show which scenes can be solved."""
        return [Job(seed, suite, CHECK) for seed in self.seeds for suite in self.suites]

    def jobs(self, solvable: set[tuple[str, int]]) -> list[Job]:
        """The other episodes, all methods of a scene together: a cut run stays paired."""
        return [Job(seed, suite, method) for seed in self.seeds for suite in self.suites
                if (suite, seed) in solvable for method in self.methods]


def engine_of(workers: int, ray: bool, address: str | None) -> Engine:
    """Worker processes of this machine, or Ray."""
    if ray:
        return lambda config, jobs: ray_cluster(config, jobs, address)
    return lambda config, jobs: processes(config, jobs, workers)


def execute(plan: Plan, engine: Engine, check_only: bool = False) -> dict[str, Any]:
    """Run what is missing and write suites.json; returns its content.

    Raises:
        StoreError: results on disk that cannot be continued.
        EngineError: the engine cannot be started, or a worker runs other code.
        KeyboardInterrupt, OSError: after suites.json was written with what there is.
    """
    header = make_header(plan.config.as_dict(), plan.suites, plan.methods, plan.seeds,
                         {"seed0": plan.seed0, "seeds_per_suite": plan.episodes,
                          "tasks": list(plan.tasks)})
    refuse_other_schema(plan.out / "suites.json")
    store = Store(plan.out / "episodes.jsonl", header)
    complete = False
    try:
        write_json(plan.out / "suites.json", _content(plan, store, header, False))
        _stage("scenes that can be solved", plan, store, engine, plan.checks(), header)
        solvable = {(job.suite, job.seed) for job, e in store.episodes.items()
                    if job.method == CHECK and e.get("safe_success")}
        if not check_only:
            _stage("episodes", plan, store, engine, plan.jobs(solvable), header)
        complete = not check_only and not any("error" in e for e in store.episodes.values())
    finally:
        try:
            store.close()  # flushes what could not be written, and fails again
        finally:
            content = _content(plan, store, header, complete)
            write_json(plan.out / "suites.json", content)
    return content


def _stage(what: str, plan: Plan, store: Store, engine: Engine, jobs: list[Job],
           header: dict[str, Any]) -> None:
    missing = [job for job in jobs if job not in store.episodes]
    print(f"{what}: {len(missing)} to run, {len(jobs) - len(missing)} there", flush=True)
    if not missing:
        return
    started = said = written = time.monotonic()
    for done, episode in enumerate(engine(plan.config, missing), 1):
        store.add(episode)
        now = time.monotonic()
        if "error" in episode:
            print(f"  {episode['suite']} seed {episode['seed']} {episode['method']}: "
                  f"{episode['error']}", file=sys.stderr, flush=True)
        if now - said > SAY_EVERY or done == len(missing):
            said = now
            left = (now - started) / done * (len(missing) - done)
            print(f"  {done}/{len(missing)}  {_clock(now - started)} gone, {_clock(left)} left  "
                  f"{_line(episode)}", flush=True)
        if now - written > WRITE_EVERY:
            written = now
            write_json(plan.out / "suites.json", _content(plan, store, header, False))


def _content(plan: Plan, store: Store, header: dict[str, Any], complete: bool) -> dict[str, Any]:
    """What suites.json says of the plan; other seeds and methods in the store are left alone."""
    wanted = set(plan.checks())
    chosen = [e for job, e in store.episodes.items()
              if job in wanted or (job.method in plan.methods and job.suite in plan.suites
                                   and job.seed in plan.seeds)]
    return summarise(header, chosen, complete)


def _line(episode: dict[str, Any]) -> str:
    where = f"{episode['suite']} {episode['seed']} {episode['method']}"
    if "error" in episode:
        return f"{where}: failed"
    safe = "collided" if episode["collided"] else "safe"
    return f"{where}: {'success' if episode['success'] else 'no success'}, {safe}"


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"


def table(content: dict[str, Any]) -> str:
    """The results as text for a terminal."""
    head = (f"{'suite':11} {'method':17} {'n':>4} {'collided':>17} {'success':>9} {'safe':>9} "
            f"{'CAR':>6} {'ETS':>5} {'nearest':>9}")
    lines = [head]
    for r in content["results"]:
        low, high = (100 * r["collisions_rate"][k] for k in ("low", "high"))
        share = {k: 100 * r[k] / r["n"] for k in ("collisions", "successes", "safe_successes")}
        lines.append(
            f"{r['suite']:11} {r['method']:17} {r['n']:4d} {share['collisions']:5.1f}"
            f" ({low:4.1f}-{high:5.1f}) {share['successes']:7.1f} %"
            f" {share['safe_successes']:7.1f} % {100 * r['car']:5.1f} {r['ets']:5.0f}"
            f" {1e3 * r['min_distance_m']:6.0f} mm")
    if content["excluded"]:
        lines.append(f"left out, not solvable: {len(content['excluded'])} scenes")
    if content["errors"]:
        lines.append(f"not run: {len(content['errors'])} episodes, see `errors`")
    return "\n".join(lines)
