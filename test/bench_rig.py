"""Faults for the benchmark's engines; workers import this by name."""

from __future__ import annotations

import os
import threading
from typing import Any

from safety_filter.bench.engines import ray_cluster
from safety_filter.bench.jobs import Config, Job

BAD_SEED = 3


def line(job: Job, **changes: object) -> dict[str, Any]:
    """A line of the results as `run_job` makes it, safe and quick unless changed."""
    out = {"suite": job.suite, "task": "cube-plate", "seed": job.seed, "method": job.method,
           "instruction": "put the red cube on the plate", "success": True, "collided": False,
           "safe_success": True, "end": "success", "success_time": 4.0, "ets": 80,
           "duration": 5.0, "collisions": [], "cause": None, "car_displaced": False,
           "min_distance_m": 0.05, "penetration_m": 0.0, "intervention_mean": 0.0,
           "intervention_share": 0.0, "intervention_median": 0.0, "states": {"PASS": 1.0},
           "wrong_target_share": 0.0, "lost_target_share": None, "jerk_rms": 1.0,
           "distance_mm": [50, 60]}
    out.update(changes)
    if changes.get("collided"):
        out["safe_success"] = False
    return out


def dies(config: Config, job: Job) -> dict[str, Any]:
    """Takes the worker down for one seed, raises for another."""
    if job.seed == BAD_SEED:
        os._exit(7)
    if job.seed == BAD_SEED + 1:
        raise ValueError("no such thing")
    return line(job)


def dies_after(config: Config, job: Job) -> dict[str, Any]:
    """Answers, and takes the worker down a moment later."""
    threading.Timer(0.2, os._exit, (7,)).start()
    return line(job)


def on_ray(config: Config, jobs: list[Job]) -> list[dict[str, Any]]:
    """The lines of `jobs` from a local Ray instance."""
    return list(ray_cluster(config, jobs, None))
