"""`safety-filter demo`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from safety_filter.bench.commands import SUITES

MIN_FREE_BYTES = 200 * 2**20


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo", help="run scenes without and with the filter, and report what was touched"
    )
    parser.add_argument("--episodes", type=int, default=10, help="scenes for each method")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first scene")
    parser.add_argument(
        "--suite", choices=SUITES,
        help="whose scenes (default: dynamic-4, whose movers are timed to meet the arm; with"
        " --instruction demo, where any object may go with any destination)",
    )
    parser.add_argument(
        "--instruction", help='one scene of your choice: "put the red cube on the plate"'
    )
    parser.add_argument("--gui", action="store_true", help="show PyBullet's window")
    parser.add_argument(
        "--methods", nargs="+", choices=("none", "filter"), default=["none", "filter"]
    )
    parser.add_argument("--time-limit", type=float, default=20.0, help="s for one episode")
    parser.add_argument("--policy", type=Path, help="folder of a policy; default: the shipped one")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for results")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the arguments, then run the demo."""
    from safety_filter.demo import tasks
    from safety_filter.demo.runner import Options, Runner, flush_print
    from safety_filter.nodes.display import display_fault

    if arguments.episodes < 1 or arguments.seed < 0 or not arguments.time_limit > 0:
        print("demo: expected --episodes >= 1, --seed >= 0, --time-limit > 0", file=sys.stderr)
        return 2
    fault = display_fault() if arguments.gui else None
    if fault is not None:
        print(f"demo: --gui: {fault}", file=sys.stderr)
        return 2
    suite = arguments.suite or ("dynamic-4" if arguments.instruction is None else "demo")
    try:
        if arguments.instruction is not None:
            chosen = [tasks.for_instruction(arguments.instruction, suite, arguments.seed)]
        else:
            last = arguments.seed + arguments.episodes
            chosen = [tasks.Task(seed) for seed in range(arguments.seed, last)]
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (tasks.TaskError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    free = shutil.disk_usage(arguments.out).free
    if free < MIN_FREE_BYTES:
        print(
            f"demo: {arguments.out} has {free / 2**20:.0f} MiB free, expected at least"
            f" {MIN_FREE_BYTES / 2**20:.0f}; name another folder with --out",
            file=sys.stderr,
        )
        return 2
    options = Options(
        tasks=tuple(chosen),
        out=arguments.out,
        suite=suite,
        methods=tuple(arguments.methods),
        time_limit=arguments.time_limit,
        gui=arguments.gui,
        parameters=(("vla_node", "weights", str(arguments.policy.resolve())),)
        if arguments.policy
        else (),
    )
    try:
        return Runner(options, flush_print).run()
    except OSError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
