"""Figures of a policy on scenes it has never seen: closed loop, pointing, latency."""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safety_filter.sim.scene import generate
from safety_filter.sim.world import World
from safety_filter.stats import rate
from safety_filter.vla.calibrate import (
    LabelledFrame,
    attention_maps,
    controls,
    score,
    seen_by_wrist,
    simulate_frames,
)
from safety_filter.vla.closed_loop import Outcome, PolicyDriver, run_episode
from safety_filter.vla.policy import PROFILE, SHIPPED, Policy
from safety_filter.vla.profile import HeadProfile
from safety_filter.vla.tap import AttentionTap

_VARIANTS: dict[str, dict[str, bool]] = {
    "seen_combinations": {}, "held_out_combinations": {"held_out": True},
    "paraphrases": {"paraphrase": True},
}


def _episodes(model: Path, close_at: float | None, variant: str,
              seeds: list[int]) -> list[Outcome]:
    torch.set_num_threads(1)
    driver = PolicyDriver.load(model)
    if close_at is not None:
        driver.policy.close_at = close_at
    outcomes = []
    with World(generate(seeds[0])) as world:
        for seed in seeds:
            outcomes.append(run_episode(world, generate(seed, **_VARIANTS[variant]), driver))
    return outcomes


def closed_loop(model: Path, seeds: range, variant: str, workers: int,
                close_at: float | None = None) -> dict[str, Any]:
    """Success without obstacles in the way and without a filter."""
    parts = [list(seeds)[w::workers] for w in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(_episodes, model, close_at, variant, p) for p in parts if p]
        outcomes = sorted((o for f in futures for o in f.result()), key=lambda o: o.seed)
    n = len(outcomes)
    return {
        "n": n,
        **{key: rate(sum(getattr(o, key) for o in outcomes), n)
           for key in ("reached", "success", "wrong_lifted", "collided")},
        "median_steps": float(np.median([o.steps for o in outcomes])),
        "episodes": [asdict(o) for o in outcomes],
    }


def pointing(policy: Policy, profile: HeadProfile, frames: list[LabelledFrame]) -> dict[str, Any]:
    """Pointing accuracy of the profile's heads by phase, with controls and occluded cases."""
    result: dict[str, Any] = {}
    maps = attention_maps(policy, frames)
    for phase in ("approach", "carry"):
        chosen = [i for i, f in enumerate(frames) if f.phase == phase]
        if not chosen:
            continue
        labels = [frames[i] for i in chosen]
        layer, head = profile.head(phase)
        mine = profile.align(maps[chosen][:, layer, head], phase)
        hidden = [i for i, f in enumerate(labels) if f.visible < 0.34]
        result[phase] = score(mine, labels) | {
            "controls": controls(maps[chosen], labels),
            "mostly_hidden": score(mine[hidden], [labels[i] for i in hidden]) if hidden else None,
        }
    from_hand = seen_by_wrist(frames)
    if profile.wrist is not None and from_hand:
        maps = attention_maps(policy, from_hand, "wrist")
        layer, head = profile.wrist
        result["wrist"] = score(profile.align(maps[:, layer, head], "wrist"), from_hand) | {
            "controls": controls(maps, from_hand)}
    return result


def latency(policy: Policy, frame: LabelledFrame, runs: int = 300) -> dict[str, float]:
    """Milliseconds per chunk on one thread, with the tap attached and without."""
    torch.set_num_threads(1)
    model = policy.model
    tap = AttentionTap(model, [(0, 0)])
    figures: dict[str, list[float]] = {"off": [], "on": []}
    for i in range(2 * runs + 20):
        name = ("off", "on")[i % 2]
        if name == "on":
            tap.attach()
        start = time.perf_counter()
        policy.act(frame.scene, frame.wrist, frame.proprio, frame.instruction, 0.0)
        spent = (time.perf_counter() - start) * 1e3
        tap.detach()
        if i >= 20:
            figures[name].append(spent)
    return {f"{n}_p{q}_ms": float(np.percentile(v, q)) for n, v in figures.items()
            for q in (50, 99)}


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures, written to `arguments.out` as they come."""
    model = arguments.model or SHIPPED
    result: dict[str, Any] = {"schema": 1, "model": model.name, "seed0": arguments.seed0}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(key: str, value: Any) -> None:
        result[key] = value
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")

    policy = Policy.load(model)
    grids = policy.model.config.grids
    if (model / PROFILE).exists():
        profile = HeadProfile.load(model / PROFILE, model)
        for name, options in (("seen_combinations", {}),
                              ("held_out_combinations", {"held_out": True}),
                              ("several_destinations", {"destinations": 2})):
            seeds = range(arguments.seed0 + 50_000, arguments.seed0 + 60_000)
            wanted = arguments.frames if not options else max(1, arguments.frames // 2)
            frames = list(islice(simulate_frames(seeds, *grids, **options), wanted))
            keep(f"pointing_{name}", pointing(policy, profile, frames))
            _show(f"pointing, {name}", result[f"pointing_{name}"])
        keep("latency", latency(policy, frames[0]))
        _show("latency", result["latency"])
    for variant in _VARIANTS:
        n = arguments.scenes if variant == "seen_combinations" else arguments.extra_scenes
        if n:
            seeds = range(arguments.seed0, arguments.seed0 + n)
            keep(variant, closed_loop(model, seeds, variant, arguments.workers,
                                      arguments.close_at))
            _show(variant, {k: v for k, v in result[variant].items() if k != "episodes"})
    return result


def _show(title: str, value: Any) -> None:
    print(f"{title}: {json.dumps(value)}", flush=True)
