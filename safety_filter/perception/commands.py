"""`safety-filter train yolo` and `safety-filter evaluate perception`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safety_filter.subcommands import group


def register(subparsers: Any) -> None:
    """Add the commands to the parser of `safety-filter`."""
    train = group(subparsers, "train").add_parser(
        "yolo", help="train the detector, from scratch, on rendered pictures")
    train.add_argument("--work", type=Path, default=Path("out/train/yolo"),
                       help="folder of data and checkpoints; a stopped run goes on there")
    train.add_argument("--epochs", type=int, default=4)
    train.add_argument("--scenes", type=int, default=3000, help="scenes, 2 pictures each")
    train.add_argument("--output", type=Path, default=Path("out/train/yolo/yolo11n_seg.onnx"))
    train.set_defaults(run=_train)
    evaluate = group(subparsers, "evaluate")
    perception = evaluate.add_parser(
        "perception", help="tracks against the truth in scenes with movers")
    perception.add_argument("--scenes", type=int, default=30)
    perception.add_argument("--seconds", type=float, default=12.0)
    perception.add_argument("--weights", type=Path, default=None, help="default: those shipped")
    perception.add_argument("--output", type=Path, default=Path("out/bench/perception.json"))
    perception.set_defaults(run=_evaluate)


def _train(args: argparse.Namespace) -> int:
    from safety_filter.perception import dataset, train
    print(f"seeds: training {dataset.TRAIN_SEED}+, validation {dataset.VAL_SEED}+, "
          f"test {dataset.TEST_SEED}+, weights {train.SEED}")
    card = train.run(args.work, args.output, args.epochs, args.scenes)
    print(json.dumps(card["held_out"], indent=1))
    print(f"wrote {args.output} and its card")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from safety_filter.perception import evaluate
    from safety_filter.perception.detector import DEFAULT_WEIGHTS
    report = evaluate.run(args.weights or DEFAULT_WEIGHTS, args.scenes, args.seconds, args.output)
    print(evaluate.table(report))
    return 0
