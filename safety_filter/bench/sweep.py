"""The free parameters of the baselines: the best of a small grid, on seeds of its own.

With the scripted expert and the true state, so that nothing but the filter counts. Best: most safe
successes over the suites, then fewest collisions. The results are written after every set of
values, so that what was run is kept.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from safety_filter.bench.engines import processes
from safety_filter.bench.jobs import Config, Job
from safety_filter.demo.summary import write_json

SUITES = ("static-2", "dynamic-3", "dynamic-4")
_GRID = {"gamma": (0.1, 0.25, 0.5, 1.0), "eps": (0.005, 0.01, 0.02, 0.05),
         "weight": (0.01, 0.1, 1.0)}
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {"naive": _GRID, "knows": _GRID}


def sweep(method: str, seed0: int, episodes: int, workers: int, out: Path) -> int:
    """Run the grid, print and write it, best first; returns the exit code."""
    grid = GRIDS[method]
    jobs = [Job(seed, suite, method) for seed in range(seed0, seed0 + episodes)
            for suite in SUITES]
    rows: list[dict[str, Any]] = []
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        config = Config("expert", "truth", options=options)
        lines = [e for e in processes(config, jobs, workers) if "error" not in e]
        rows.append({**options, "n": len(lines),
                     "safe_successes": sum(e["safe_success"] for e in lines),
                     "successes": sum(e["success"] for e in lines),
                     "collisions": sum(e["collided"] for e in lines)})
        print(json.dumps(rows[-1]), flush=True)
        rows.sort(key=lambda r: (-r["safe_successes"], r["collisions"]))
        write_json(out / f"{method}.json", {
            "schema_version": 1, "method": method, "seed0": seed0, "episodes": episodes,
            "suites": SUITES, "rows": rows})
    print(f"best: {rows[0]}")
    return 0
