"""The demo's results as JSON: counts beside rates, intervals, versions, machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from safety_filter import __version__
from safety_filter.stats import wilson

SCHEMA_VERSION = 1
_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "pin",
    "daqp",
    "osqp",
    "pybullet",
    "torch",
    "transformers",
    "onnxruntime",
    "ultralytics",
    "opencv-python",
    "ros-jazzy-rclpy",
)


@dataclass
class Episode:
    """What happened in one scene with one method. Distances in m, times in s."""

    method: str  # "none" or "filter"
    seed: int
    instruction: str
    success: bool
    success_time: float | None
    collisions: list[dict[str, Any]]  # as sim_node's truth reports them
    min_distance: float
    duration: float
    # share of the filter's published states, by state and by reason
    filter_states: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def collided(self) -> bool:
        return bool(self.collisions)

    @property
    def safe_success(self) -> bool:
        return self.success and not self.collided


def method_summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Counts, rates with intervals, and the nearest distance over a method's episodes."""
    n = len(episodes)
    counts = {
        "collisions": sum(e.collided for e in episodes),
        "successes": sum(e.success for e in episodes),
        "safe_successes": sum(e.safe_success for e in episodes),
    }
    result: dict[str, Any] = {"n": n, **counts}
    for name, count in counts.items():
        low, high = wilson(count, n)
        result[f"{name}_rate"] = {"value": count / n if n else None, "low": low, "high": high}
    result["min_distance_m"] = min((e.min_distance for e in episodes), default=None)
    times = [e.success_time for e in episodes if e.success_time is not None]
    result["mean_success_time_s"] = sum(times) / len(times) if times else None
    return result


def git_revision(folder: Path) -> str:
    """Revision of the checkout, "-dirty" when changed; "unknown" outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system of this machine."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, this package and what it stands on."""
    found = {"python": platform.python_version(), "safety_filter": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if os.environ.get("ROS_DISTRO"):
        found["ros_distro"] = os.environ["ROS_DISTRO"]
    return found


def summarise(
    episodes: Sequence[Episode],
    *,
    complete: bool,
    suite: str,
    rates_hz: Mapping[str, float],
    latency_ms: Mapping[str, float],
    wall_s: float,
) -> dict[str, Any]:
    """The whole summary, ready for JSON."""
    methods = list(dict.fromkeys(e.method for e in episodes))
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": complete,
        "git_revision": git_revision(Path(__file__).resolve().parent),
        "suite": suite,
        "seeds": sorted({e.seed for e in episodes}),
        "versions": versions(),
        "machine": machine(),
        "wall_s": wall_s,
        "methods": {m: method_summary([e for e in episodes if e.method == m]) for m in methods},
        "rates_hz": dict(rates_hz),
        "latency_ms": dict(latency_ms),
        "episodes": [{**asdict(e), "safe_success": e.safe_success} for e in episodes],
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees the old or the new file, never half of one.

    Raises:
        OSError: no space or no permission; the old file stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=path.name, suffix=".part", delete=False, encoding="utf-8"
    ) as part:
        try:
            json.dump(content, part, indent=1, allow_nan=False)
            part.write("\n")
            part.flush()
            os.fsync(part.fileno())
        except BaseException:
            os.unlink(part.name)
            raise
    os.chmod(part.name, 0o644)
    os.replace(part.name, path)


def table(summary: Mapping[str, Any]) -> str:
    """The summary as text for a terminal."""
    lines = [f"{'':8} {'n':>4} {'collisions':>11} {'success':>8} {'safe':>6} {'nearest':>9}"]
    for name, m in summary["methods"].items():
        nearest = "-" if m["min_distance_m"] is None else f"{1e3 * m['min_distance_m']:.0f} mm"
        lines.append(
            f"{name:8} {m['n']:4d} {m['collisions']:11d} {m['successes']:8d}"
            f" {m['safe_successes']:6d} {nearest:>9}"
        )
    for title, unit in (("rates_hz", "Hz"), ("latency_ms", "ms")):
        lines += ["", title]
        lines += [f"  {name:42} {value:9.2f} {unit}" for name, value in summary[title].items()]
    return "\n".join(lines)
