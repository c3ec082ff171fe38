"""From episodes to suites.json: counts beside rates, intervals, paired tests, causes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_filter.bench.identity import identity
from safety_filter.bench.jobs import CHECK
from safety_filter.demo.summary import git_revision, machine, versions
from safety_filter.stats import mcnemar, rate

SCHEMA_VERSION = 2
COUNTS = {"collisions": "collided", "successes": "success", "safe_successes": "safe_success"}
MEANS = ("intervention_share", "jerk_rms", "wrong_target_share", "lost_target_share")
Episode = Mapping[str, Any]


def summarise(header: Mapping[str, Any], episodes: Iterable[Episode],
              complete: bool) -> dict[str, Any]:
    """The whole content of suites.json; equal episodes give equal content, in any order."""
    order = {name: i for i, name in enumerate([CHECK, *header["methods"], *header["suites"]])}
    every = sorted(episodes, key=lambda e: (order[e["suite"]], order[e["method"]], e["seed"]))
    errors = [e for e in every if "error" in e]
    good = [e for e in every if "error" not in e]
    unsolvable = {(e["suite"], e["seed"]) for e in good
                  if e["method"] == CHECK and not e["safe_success"]}
    counted = [e for e in good
               if e["method"] != CHECK and (e["suite"], e["seed"]) not in unsolvable]
    cells: dict[tuple[str, str], list[Episode]] = {}
    for e in counted:
        cells.setdefault((e["suite"], e["method"]), []).append(e)
    return {
        "schema_version": SCHEMA_VERSION, "complete": complete, **header,
        "results": [result(header, s, m, cell) for (s, m), cell in cells.items()],
        "pairs": pairs(cells), "excluded": sorted(list(x) for x in unsolvable),
        "errors": errors, "episodes": good}


def result(header: Mapping[str, Any], suite: str, method: str,
           episodes: Sequence[Episode]) -> dict[str, Any]:
    """One row: a method on a suite."""
    n = len(episodes)
    out: dict[str, Any] = {"suite": suite, "method": method, "policy": header["config"]["policy"],
                           "perception": header["config"]["perception"], "n": n}
    for name, key in COUNTS.items():
        out[name] = sum(e[key] for e in episodes)
        out[f"{name}_rate"] = rate(out[name], n)
    kept = sum(not e["car_displaced"] for e in episodes)
    out["car"], out["car_rate"] = kept / n, rate(kept, n)
    out["ets"] = statistics.fmean(e["ets"] for e in episodes)
    out["min_distance_m"] = min(e["min_distance_m"] for e in episodes)
    out["median_min_distance_m"] = statistics.median(e["min_distance_m"] for e in episodes)
    out["penetration_m"] = max(e["penetration_m"] for e in episodes)
    for name in MEANS:
        values = [e[name] for e in episodes if e[name] is not None]
        out[name] = statistics.fmean(values) if values else None
    changed = [e["intervention_share"] * e["duration"] for e in episodes]  # s
    out["intervention_mean"] = sum(
        t * e["intervention_mean"] for t, e in zip(changed, episodes, strict=True)
    ) / (sum(changed) or 1.0)
    out["intervention_median"] = statistics.median(e["intervention_median"] for e in episodes)
    shares: Counter[str] = Counter()
    for e in episodes:
        shares.update({state: share / n for state, share in e["states"].items()})
    out["states"] = {k: round(v, 6) for k, v in sorted(shares.items())}
    out["collision_causes"] = _count(e["cause"] for e in episodes if e["collided"])
    out["failure_causes"] = _count(e["cause"] for e in episodes
                                   if not e["success"] and not e["collided"])
    return out


def _count(causes: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(causes).items(), key=lambda x: (-x[1], x[0])))


def pairs(cells: Mapping[tuple[str, str], Sequence[Episode]]) -> list[dict[str, Any]]:
    """Ours against every other method on the seeds that both have, with exact McNemar tests."""
    out = []
    for (suite, method), episodes in cells.items():
        if method == "ours" or (suite, "ours") not in cells:
            continue
        ours = {e["seed"]: e for e in cells[suite, "ours"]}
        both = [(ours[e["seed"]], e) for e in episodes if e["seed"] in ours]
        row: dict[str, Any] = {"suite": suite, "first": "ours", "second": method, "n": len(both)}
        for name, key in COUNTS.items():
            first = sum(a[key] and not b[key] for a, b in both)
            second = sum(b[key] and not a[key] for a, b in both)
            row[name] = {"only_first": first, "only_second": second,
                         "difference": (first - second) / len(both) if both else None,
                         "p": mcnemar(first, second)}
        out.append(row)
    return out


def make_header(config: Mapping[str, Any], suites: Sequence[str], methods: Sequence[str],
                seeds: Sequence[int], of_plan: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a run is: the same header, the same results.

    `of_plan` says from which seeds those of the run were chosen, where not all are run.
    """
    return {"git_revision": git_revision(Path(__file__).resolve().parent), **identity(),
            "config": dict(config), "suites": list(suites), "methods": list(methods),
            "seed0": min(seeds), "episodes_per_suite": len(seeds), **(of_plan or {}),
            "versions": versions(), "machine": machine()}
