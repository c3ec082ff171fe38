"""One episode as a job: what to run, and what a worker keeps between jobs."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from safety_filter.bench.methods import METHODS
from safety_filter.bench.methods.base import Guard, Method
from safety_filter.sim.suites import TASKS

CHECK = "informed"
"""The method that shows that a scene can be solved; see informed.py."""
TASK_NAMES = tuple(f"{shape}-{place}" for shape, place in TASKS)


class Job(NamedTuple):
    """One episode. The scene is a function of suite and seed, its task that of the seed."""

    seed: int
    suite: str
    method: str


@dataclass(frozen=True)
class Config:
    """What is the same for all episodes of a run."""

    policy: str = "vla"
    perception: str = "real"
    timing: dict[str, float] = field(default_factory=dict)  # what differs from Timing's defaults
    options: dict[str, Any] = field(default_factory=dict)  # arguments of methods in a sweep

    def as_dict(self) -> dict[str, Any]:
        """For the header of the results."""
        from safety_filter.bench.episode import Timing
        from safety_filter.bench.methods.ours import Filter

        return {"policy": self.policy, "perception": self.perception,
                "timing": asdict(Timing(**self.timing)), "options": self.options,
                "filter": asdict(Filter().params), "policy_files": self._policy_files(),
                **self._perception_of_cell()}

    def _policy_files(self) -> dict[str, str]:
        """Fingerprints of what the policy reads; none without the policy."""
        if self.policy != "vla":
            return {}
        from safety_filter.vla.policy import MODEL_FILES, PROFILE, SHIPPED

        return {name: _fingerprint(SHIPPED / name) for name in (*MODEL_FILES, PROFILE)}

    def _perception_of_cell(self) -> dict[str, Any]:
        """The real perception's parameters and its detector's fingerprint, else nothing."""
        if self.perception != "real":
            return {"perception_params": {}, "detector": ""}
        from safety_filter.bench.cell import declared
        from safety_filter.perception.detector import DEFAULT_WEIGHTS
        from safety_filter.perception.params import PerceptionParams

        params = PerceptionParams(**declared("perception", PerceptionParams))
        return {"perception_params": asdict(params), "detector": _fingerprint(DEFAULT_WEIGHTS)}


def _fingerprint(path: Path) -> str:
    """SHA-256 of a file, shortened to 16 hex digits; "missing" where there is none."""
    if not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def task_of(job: Job) -> str:
    """The task's name, such as "cube-plate"; that of the scene's suite where it has none."""
    from safety_filter.sim.scene import BENCH_SUITES

    return TASK_NAMES[job.seed % len(TASKS)] if job.suite in BENCH_SUITES else job.suite


def run_job(config: Config, job: Job, film: Any = None) -> dict[str, Any]:
    """Run one episode; returns its line of the results."""
    from safety_filter.bench.episode import Timing, run_episode

    scene = _scene(job.seed, job.suite)
    timing = Timing(**config.timing)
    if job.method == CHECK:
        brain, eyes, guard = _informed(), None, METHODS["none"].make()
    else:
        method = METHODS[job.method]
        brain = _brain(config.policy, method.all_heads)
        eyes = _eyes(method, config.perception)
        guard = _guard(job.method, config)
    result = run_episode(_world(), scene, brain, eyes, guard, timing, film)
    return {"suite": job.suite, "task": task_of(job), "seed": job.seed, "method": job.method,
            "instruction": scene.instruction, **result}


@cache
def _one_thread() -> None:
    """As many workers as cores: each takes one."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@lru_cache(maxsize=8)
def _scene(seed: int, suite: str) -> Any:
    """The methods of a scene follow each other, and some scenes take 0.3 s to lay out."""
    from safety_filter.sim.scene import generate

    return generate(seed, suite)


@cache
def _world() -> Any:
    from safety_filter.sim.scene import generate
    from safety_filter.sim.world import World

    return World(generate(0))


@cache
def _informed() -> Any:
    from safety_filter.bench.informed import InformedExpert

    return InformedExpert()


@cache
def _brain(policy: str, all_heads: bool) -> Any:
    from safety_filter.bench.sources import ExpertBrain, VlaBrain

    _one_thread()
    return VlaBrain(all_heads=all_heads) if policy == "vla" else ExpertBrain()


def _eyes(method: Method, perception: str) -> Any:
    from safety_filter.bench.sources import FrozenEyes, TruthEyes

    if method.knowledge == "none":
        return None
    if method.knowledge == "start":
        return FrozenEyes(method.pieces)
    if method.knowledge == "truth" or perception == "truth":
        return TruthEyes(method.pieces)
    params = method.perception if method.pieces else {**method.perception, "pieces": 1}
    return _real_eyes(tuple(sorted(params.items())))


@cache
def _real_eyes(params: tuple[tuple[str, Any], ...]) -> Any:
    from safety_filter.bench.sources import RealEyes

    _one_thread()
    return RealEyes(dict(params))


def _guard(name: str, config: Config) -> Guard:
    if config.options:
        return METHODS[name].make(**config.options)  # type: ignore[call-arg]
    return _kept_guard(name)


@cache
def _kept_guard(name: str) -> Guard:
    return METHODS[name].make()
