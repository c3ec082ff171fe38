"""Faults for the benchmark's engines; workers import this by name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safety_filter.bench.engines import Runner, ray_cluster
from safety_filter.bench.jobs import Config, Job, run_job

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


def on_ray(config: Config, jobs: list[Job], address: str | None = None,
           run: Runner = run_job) -> list[dict[str, Any]]:
    """The lines of `jobs` from Ray: a local instance, or the cluster at `address`."""
    return list(ray_cluster(config, jobs, address, run))


@contextmanager
def ray_head() -> Iterator[tuple[str, str]]:
    """A Ray cluster of one machine; its address for those inside and for those elsewhere."""
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        inside, outside = one.getsockname()[1], two.getsockname()[1]
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
               f"--port={inside}", f"--ray-client-server-port={outside}", "--num-cpus=2",
               "--include-dashboard=false", "--disable-usage-stats"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(places),
                               # s for a client's process to start; 30 on a busy machine are few
                               "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "240"}) as head:
        assert head.stdout is not None
        try:
            assert any("will now block" in line for line in head.stdout), "no cluster"
            yield f"127.0.0.1:{inside}", f"ray://127.0.0.1:{outside}"
        finally:
            head.terminate()
