"""Lockstep against the ROS graph in real time, on the same scenes.

    safety-filter demo --episodes 10 --seed 0 --out out/demo
    safety-filter bench --suites dynamic-4 --methods none ours --seed0 0 --episodes 10 --out out/ls
    safety-filter bench-compare out/demo/summary.json out/ls/suites.json

The two agree where their 95 % intervals overlap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safety_filter.bench.store import StoreError, load_summary, require
from safety_filter.demo.summary import SCHEMA_VERSION
from safety_filter.stats import rate

PAIRS = (("none", "none"), ("filter", "ours"))  # the demo's method, the benchmark's
MEASURES = {"collisions": "collided", "successes": "success", "safe_successes": "safe_success"}


def compare(graph: Mapping[str, Any], lockstep: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a method and measure over the seeds that both have.

    Raises:
        StoreError: they have no scene in common.
    """
    rows = []
    for theirs, ours in PAIRS:
        real = {e["seed"]: e for e in graph["episodes"]
                if e["method"] == theirs and not e["error"]}
        modelled = {e["seed"]: e for e in lockstep["episodes"]
                    if e["method"] == ours and e["suite"] == graph["suite"]}
        seeds = sorted(set(real) & set(modelled))
        for name, key in MEASURES.items() if seeds else ():
            values = [bool(real[s]["collisions"]) if key == "collided" else real[s][key]
                      for s in seeds]
            first = rate(sum(values), len(seeds))
            second = rate(sum(modelled[s][key] for s in seeds), len(seeds))
            agree = first["low"] <= second["high"] and second["low"] <= first["high"]
            rows.append({"method": ours, "measure": name, "n": len(seeds), "graph": first,
                         "lockstep": second, "agree": agree})
    if not rows:
        raise StoreError(
            f"no scene in common: the demo has suite {graph['suite']!r}, seeds {graph['seeds']}; "
            f"run `safety-filter bench --suites {graph['suite']} --methods none ours` on them")
    return rows


def load_graph(path: Path) -> dict[str, Any]:
    """The demo's summary.json.

    Raises:
        StoreError: missing, not JSON, of another schema, or not of the demo.
    """
    what = "the summary.json of `safety-filter demo`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}; expected {what}") from error
    require(path, content, ("schema_version", "suite", "seeds", "episodes"), what)
    if content["schema_version"] != SCHEMA_VERSION:
        raise StoreError(f"{path}: schema_version {content['schema_version']!r}, this version "
                         f"reads {SCHEMA_VERSION}: run the demo again, or compare with the "
                         "revision that wrote it")
    return dict(content)


def print_comparison(graph: Path, lockstep: Path) -> int:
    """Print the rows; the exit code is 1 where the two do not agree."""
    rows = compare(load_graph(graph), load_summary(lockstep))
    for r in rows:
        a, b = (f"{r[k]['count']}/{r['n']} ({100 * r[k]['low']:.0f}-{100 * r[k]['high']:.0f} %)"
                for k in ("graph", "lockstep"))
        print(f"{r['method']:6} {r['measure']:15} graph {a:18} lockstep {b:18} "
              f"{'agree' if r['agree'] else 'DIFFER'}")
    return 0 if all(r["agree"] for r in rows) else 1
