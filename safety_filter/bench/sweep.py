"""The free parameters of the baselines: the best of a small grid, on seeds of its own.

First every set of the grid with the scripted expert and the true state, so that nothing but the
filter counts; then the best few as they are used, with the shipped policy and perception, on other
seeds. Best: most safe successes over the suites, then fewest collisions. The results are written
after every set of values; the same command continues them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safety_filter.bench.engines import processes
from safety_filter.bench.identity import identity
from safety_filter.bench.jobs import Config, Job
from safety_filter.bench.store import StoreError, require
from safety_filter.demo.summary import write_json

SUITES = ("static-2", "dynamic-3", "dynamic-4")
# A discrete barrier's gamma is at most 1
_GRID = {"gamma": (0.25, 0.5, 1.0), "eps": (0.01, 0.02, 0.05), "weight": (0.1, 1.0, 10.0, 100.0)}
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {"naive": _GRID, "knows": _GRID}
FINALISTS = 6
Rows = list[dict[str, Any]]
FINAL_SEEDS = 10_000  # after those of the grid


def sweep(method: str, seed0: int, episodes: int, workers: int, out: Path) -> dict[str, Any]:
    """Run the grid, then the finals on twice as many scenes; print and write both, best first.

    Returns the best row of the finals.

    Raises:
        StoreError: `out` holds a sweep of other code, configuration or arguments.
        EngineError: a worker runs other code.
        OSError: the results cannot be written; what was written before stays.
    """
    grid = GRIDS[method]
    head = {"schema_version": 3, "method": method, "seed0": seed0, "episodes": episodes,
            "suites": SUITES, **identity(), **Config().as_dict()}
    rows, finals = _kept(out / f"{method}.json", head)

    def add(to: Rows, options: Mapping[str, float], policy: str,
            perception: str, seeds: range) -> None:
        jobs = [Job(seed, suite, method) for seed in seeds for suite in SUITES]
        before = [row for row in to if all(row[k] == v for k, v in options.items())]
        if any(row["n"] == len(jobs) for row in before):
            return
        for row in before:  # a worker died: scenes are missing
            to.remove(row)
        config = Config(policy, perception, options=dict(options))
        lines = [e for e in processes(config, jobs, workers) if "error" not in e]
        to.append({**options, "n": len(lines),
                   "safe_successes": sum(e["safe_success"] for e in lines),
                   "successes": sum(e["success"] for e in lines),
                   "collisions": sum(e["collided"] for e in lines)})
        print(json.dumps(to[-1]), flush=True)
        to.sort(key=lambda r: (-r["safe_successes"], r["collisions"]))
        write_json(out / f"{method}.json", {**head, "rows": rows, "finals": finals})

    for values in itertools.product(*grid.values()):
        add(rows, dict(zip(grid, values, strict=True)), "expert", "truth",
            range(seed0, seed0 + episodes))
    first = seed0 + FINAL_SEEDS
    print(f"the best {FINALISTS} with the shipped policy and perception:", flush=True)
    for row in rows[:FINALISTS]:
        add(finals, {name: row[name] for name in grid}, "vla", "real",
            range(first, first + 2 * episodes))
    return finals[0]


def _kept(path: Path, head: Mapping[str, Any]) -> tuple[Rows, Rows]:
    """What an earlier run of the same code and configuration left at `path`."""
    if not path.exists():
        return [], []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path}: not JSON ({error}): move it away") from error
    require(path, found, (*head, "rows", "finals"), "results of `safety-filter bench-sweep`")
    for name, value in json.loads(json.dumps(head)).items():
        if found[name] != value:
            raise StoreError(f"{path}: its {name} is {found[name]}, this run's is {value}; "
                             "results of both must not be mixed: use another --out")
    return found["rows"], found["finals"]
