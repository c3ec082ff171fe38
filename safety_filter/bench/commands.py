"""`safety-filter lockstep`: episodes on one modelled clock, without ROS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "lockstep", help="episodes without ROS, deterministic for a seed")
    parser.add_argument("--suite", default="demo", choices=("free", "demo"))
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--seed0", type=int, default=200, help="seed of the first scene")
    parser.add_argument("--policy", default="vla", choices=("vla", "expert"))
    parser.add_argument("--perception", default="real", choices=("real", "truth"),
                        help="shipped detector and tracker, or the simulator's state")
    parser.add_argument("--method", default="filter", choices=("filter", "none"))
    parser.add_argument("--out", type=Path, default=Path("out/bench/lockstep.json"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the episodes, one line each, and write the JSON after every one."""
    import json
    from dataclasses import asdict

    import torch

    from safety_filter.bench.episode import Episode, Timing, run_episode
    from safety_filter.bench.guards import Filter, NoFilter
    from safety_filter.bench.sources import ExpertBrain, RealEyes, TruthEyes, VlaBrain
    from safety_filter.sim.scene import generate
    from safety_filter.sim.world import World
    from safety_filter.stats import rate

    if arguments.episodes < 1 or arguments.seed0 < 0:
        print("lockstep: expected --episodes >= 1 and --seed0 >= 0, got "
              f"{arguments.episodes} and {arguments.seed0}")
        return 2
    torch.set_num_threads(1)
    brain = VlaBrain() if arguments.policy == "vla" else ExpertBrain()
    filtered = arguments.method == "filter"
    guard = Filter() if filtered else NoFilter()
    eyes = None
    if filtered:
        eyes = RealEyes() if arguments.perception == "real" else TruthEyes()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done: list[Episode] = []
    with World(generate(arguments.seed0, arguments.suite)) as world:
        for seed in range(arguments.seed0, arguments.seed0 + arguments.episodes):
            scene = generate(seed, arguments.suite)
            episode = run_episode(world, scene, brain, eyes, guard, Timing())
            done.append(episode)
            touched = sorted({f"{c['body']}-{c['other']}" for c in episode.collisions})
            print(f"seed {seed:6d}  {'success' if episode.success else 'no success':10s}  "
                  f"{episode.duration:5.1f} s  nearest {1e3 * episode.min_distance:4.0f} mm  "
                  f"touched: {', '.join(touched) or 'nothing'}", flush=True)
            n = len(done)
            result = {
                "schema_version": 1, "suite": arguments.suite, "policy": arguments.policy,
                "perception": arguments.perception, "method": arguments.method, "n": n,
                "collisions": rate(sum(e.collided for e in done), n),
                "successes": rate(sum(e.success for e in done), n),
                "safe_successes": rate(sum(e.safe_success for e in done), n),
                "episodes": [asdict(e) for e in done]}
            arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print({k: result[k]["count"] for k in ("collisions", "successes", "safe_successes")}, "of", n)
    return 0
