"""`safety-filter bench`, `bench-sweep` and `bench-compare`."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import Any

FULL = ("alone-0", "static-1", "static-2", "dynamic-3", "dynamic-4", "clutter-5", "alone-5")
SUITES = (*FULL, "free", "demo")


def register(subparsers: Any) -> None:
    """Add the subcommands."""
    parser = subparsers.add_parser(
        "bench", help="compare the filter with published methods and oracles on the suites")
    add = parser.add_argument
    add("--suites", nargs="+", default=list(FULL), metavar="SUITE", help=", ".join(SUITES))
    add("--methods", nargs="+", default=None, metavar="METHOD", help="default: all")
    add("--tasks", nargs="+", default=None, metavar="TASK",
        help="only seeds of these tasks, such as cube-plate")
    add("--episodes", type=int, default=400, help="scenes of each suite, eight tasks in turn")
    add("--seed0", type=int, default=700000, help="seed of the first scene of each suite")
    add("--policy", default="vla", choices=("vla", "expert"))
    add("--perception", default="real", choices=("real", "truth"),
        help="shipped detector and tracker, or the simulator's state")
    add("--workers", type=int, help="processes; default: one a core")
    add("--ray", action="store_true", help="run on Ray in place of worker processes")
    add("--address", help="of a Ray cluster, such as ray://host:10001 (with --ray)")
    add("--out", type=Path, default=Path("out/bench"), help="folder for results")
    add("--fresh", action="store_true", help="begin anew where results lie already")
    add("--check", action="store_true", help="only find out which scenes can be solved")
    add("--report", action="store_true", help="only draw the report from suites.json again")
    add("--no-films", action="store_true", help="report without films")
    parser.set_defaults(run=run)
    sweep = subparsers.add_parser(
        "bench-sweep", help="choose the free parameters of a baseline, on its own seeds")
    sweep.add_argument("method", metavar="METHOD", help="naive or knows")
    sweep.add_argument("--episodes", type=int, default=16, help="scenes of each suite")
    sweep.add_argument("--seed0", type=int, default=500000)
    sweep.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    sweep.add_argument("--out", type=Path, default=Path("out/bench/sweep"))
    sweep.set_defaults(run=run_sweep)
    compare = subparsers.add_parser(
        "bench-compare", help="the ROS graph in real time against lockstep, on the same scenes")
    compare.add_argument("graph", type=Path, help="summary.json of the demo")
    compare.add_argument("lockstep", type=Path, help="suites.json of the benchmark")
    compare.set_defaults(run=run_compare)


def run(arguments: argparse.Namespace) -> int:
    """Run what is missing, then write the report."""
    from safety_filter.bench.engines import EngineError
    from safety_filter.bench.run import engine_of, execute, table
    from safety_filter.bench.store import StoreError, load_summary

    fault = _fault(arguments)
    if fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 2
    try:
        if arguments.report:
            content = load_summary(arguments.out / "suites.json")
        else:
            if arguments.fresh:
                for name in ("episodes.jsonl", "suites.json"):
                    (arguments.out / name).unlink(missing_ok=True)
            workers = arguments.workers or len(os.sched_getaffinity(0))
            engine = engine_of(workers, arguments.ray, arguments.address)
            content = execute(_plan(arguments), engine, arguments.check)
        print(table(content))
        if not arguments.check:
            print(f"wrote {_report(content, arguments)}")
    except (StoreError, EngineError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; the episodes until now are in {arguments.out / 'episodes.jsonl'}, "
              "the same command continues", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"bench: {error}; the episodes until now are kept: {_remedy(error)} and run the "
              "same command again", file=sys.stderr)
        return 1
    return 1 if content["errors"] else 0


def _report(content: dict[str, Any], arguments: argparse.Namespace) -> Path:
    """Write the page; old results get films only from the code that made them."""
    from safety_filter.bench.report import other_code, write

    why = "--no-films" if arguments.no_films else ""
    if arguments.report and not why:
        why = other_code(content)
        if why:
            print(f"no films: {why}", file=sys.stderr)
    return write(content, arguments.out, why)


def _remedy(error: OSError) -> str:
    """What to do about a file that cannot be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room"
    return "let --out be a folder that can be written"


def _plan(arguments: argparse.Namespace) -> Any:
    from safety_filter.bench.jobs import TASK_NAMES, Config
    from safety_filter.bench.methods import METHODS
    from safety_filter.bench.run import Plan

    return Plan(Config(arguments.policy, arguments.perception), arguments.suites,
                arguments.methods or list(METHODS), arguments.seed0, arguments.episodes,
                arguments.out, arguments.tasks or TASK_NAMES)


def _fault(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, or None."""
    from safety_filter.bench.jobs import TASK_NAMES
    from safety_filter.bench.methods import METHODS

    for name, valid in (("suites", SUITES), ("methods", METHODS), ("tasks", TASK_NAMES)):
        strange = [v for v in getattr(arguments, name) or () if v not in valid]
        if strange:
            return f"--{name}: unknown {', '.join(strange)}; expected of {', '.join(valid)}"
        twice = {v for v in getattr(arguments, name) or ()
                 if getattr(arguments, name).count(v) > 1}
        if twice:
            return f"--{name}: {', '.join(sorted(twice))} more than once; expected each once"
    fault = _too_small(arguments)
    if fault:
        return fault
    blind = [name for name in arguments.methods or METHODS
             if METHODS[name].knowledge == "perception"]
    if (arguments.policy, arguments.perception) == ("expert", "real") and blind:
        return ("--policy expert: has no attention, so with real perception nothing is ever the "
                f"target of {', '.join(blind)}: add --perception truth, or leave them out")
    if arguments.address and not arguments.ray:
        return "--address: needs --ray"
    if arguments.ray and arguments.workers is not None:
        return "--workers: has no effect with --ray, which fills the cluster: leave one out"
    if arguments.tasks and not _plan(arguments).seeds:
        return (f"--tasks: none of the {arguments.episodes} seeds from {arguments.seed0} on has "
                f"one of them; expected more --episodes")
    return None


def _too_small(arguments: argparse.Namespace) -> str | None:
    for name, least in (("episodes", 1), ("seed0", 0), ("workers", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            return f"--{name}: expected at least {least}, got {value}"
    return None


def run_sweep(arguments: argparse.Namespace) -> int:
    """Try every set of parameters on the same scenes; see sweep.py."""
    from safety_filter.bench.engines import EngineError
    from safety_filter.bench.store import StoreError
    from safety_filter.bench.sweep import GRIDS, sweep

    fault = _too_small(arguments)
    if arguments.method not in GRIDS:
        fault = f"unknown method {arguments.method}; expected of {', '.join(GRIDS)}"
    if fault:
        print(f"bench-sweep: {fault}", file=sys.stderr)
        return 2
    try:
        best = sweep(arguments.method, arguments.seed0, arguments.episodes, arguments.workers,
                     arguments.out)
    except (StoreError, EngineError) as error:
        print(f"bench-sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command continues", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"bench-sweep: {error}; {_remedy(error)} and run the same command again",
              file=sys.stderr)
        return 1
    print(f"best: {best}")
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    """Say whether the two agree; see compare.py."""
    from safety_filter.bench.compare import print_comparison
    from safety_filter.bench.store import StoreError

    try:
        return print_comparison(arguments.graph, arguments.lockstep)
    except StoreError as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 2
