"""`safety-filter train vla`, `calibrate` and `evaluate vla`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from safety_filter.subcommands import group


def register(subparsers: Any) -> None:
    """Add the subcommands."""
    train = group(subparsers, "train").add_parser(
        "vla", help="behaviour cloning and DAgger in the simulator, resumable")
    train.add_argument("--work", type=Path, default=Path("out/train/vla"),
                       help="folder for data and stages")
    train.add_argument("--out", type=Path, help="copy the last model here")
    train.add_argument("--threads", type=int, default=2, help="CPU threads of the fit")
    train.add_argument("--start", type=Path, metavar="MODEL",
                       help="go on from these weights: DAgger rounds only")
    train.add_argument("--rounds", type=int, default=3, help="rounds of DAgger")
    train.add_argument("--seed0", type=int, default=1_000_000,
                       help="seed of the first scene to learn from")
    train.add_argument("--no-auxiliary", action="store_true",
                       help="without the head that predicts the goal's position")
    train.set_defaults(run=run_train)

    calibrate = subparsers.add_parser(
        "calibrate", help="find the attention heads that point at the target")
    calibrate.add_argument("--model", type=Path, help="folder of the policy (default: shipped)")
    calibrate.add_argument("--frames", type=int, default=50, help="labelled frames, at most")
    calibrate.add_argument("--seed0", type=int, default=20_000, help="seed of the first scene")
    calibrate.add_argument("--out", type=Path, help="profile to write (default: beside the model)")
    calibrate.set_defaults(run=run_calibrate)

    evaluate = group(subparsers, "evaluate").add_parser(
        "vla", help="closed-loop success, pointing accuracy and latency on held-out scenes")
    evaluate.add_argument("--model", type=Path, help="folder of the policy (default: shipped)")
    evaluate.add_argument("--scenes", type=int, default=200)
    evaluate.add_argument("--extra-scenes", type=int, default=60,
                          help="scenes each for held-out combinations and for paraphrases")
    evaluate.add_argument("--frames", type=int, default=500, help="frames for pointing accuracy")
    evaluate.add_argument("--seed0", type=int, default=500_000, help="seed of the first scene")
    evaluate.add_argument("--workers", type=int, default=2)
    evaluate.add_argument("--close-at", type=float,
                          help="gripper closes above this probability (default: the policy's)")
    evaluate.add_argument("--out", type=Path, default=Path("out/bench/vla.json"))
    evaluate.set_defaults(run=run_evaluate)


def run_train(arguments: argparse.Namespace) -> int:
    """Collect, fit, DAgger, fit; then copy."""
    import shutil
    import sys

    from safety_filter.vla.train import TrainPlan, train

    if arguments.seed0 < TrainPlan.seed0:
        print(f"train vla: --seed0: expected at least {TrainPlan.seed0}, got {arguments.seed0}: "
              "policies are judged on the scenes below", file=sys.stderr)
        return 2
    plan = replace(TrainPlan(), threads=arguments.threads, dagger_rounds=arguments.rounds,
                   seed0=arguments.seed0, auxiliary=not arguments.no_auxiliary)
    model = train(arguments.work, plan, arguments.start)
    if arguments.out is not None:
        shutil.copytree(model, arguments.out, dirs_exist_ok=True)
        model = arguments.out
    print(f"trained {model}; next: safety-filter calibrate --model {model}")
    return 0


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Write a head profile."""
    from itertools import islice

    from safety_filter.vla.calibrate import calibrate, simulate_frames
    from safety_filter.vla.policy import PROFILE, SHIPPED, Policy

    model = arguments.model or SHIPPED
    policy = Policy.load(model)
    seeds = range(arguments.seed0, arguments.seed0 + 10 * arguments.frames)
    frames = list(islice(simulate_frames(seeds, *policy.model.config.grids), arguments.frames))
    profile = calibrate(model, policy, frames)
    path = arguments.out or model / PROFILE
    profile.save(path)
    for name in profile.scores:
        layer, head = profile.head(name)
        found = profile.scores[name]["heads"][f"layer {layer} head {head}"]
        print(f"{name:9s} layer {layer} head {head}, read {found['offset']} cells beside: "
              f"points right on {found['pointing']:.3f} of {found['n']} frames, "
              f"mass {found['mass']:.3f}; controls {profile.scores[name]['controls']}")
    print(f"wrote {path}")
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Measure and write JSON."""
    from safety_filter.vla.evaluate import evaluate

    evaluate(arguments)
    return 0
