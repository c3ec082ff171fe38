"""`safety-filter record`, `replay`, `play` and `view`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

UNREADABLE, NOT_REPRODUCED, NOT_MET = 1, 3, 4


def register(subparsers: Any) -> None:
    """Add the subcommands."""
    _register_record(subparsers)
    _register_replay(subparsers)
    _register_play(subparsers)
    _register_view(subparsers)


def _register_record(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "record", help="record all inputs and outputs of the running filter as a rosbag2 (MCAP)"
    )
    add = parser.add_argument
    add("bag", type=Path, nargs="?", help="folder to write; default: safety_filter_DATE")
    add("--node", action="append", default=[], metavar="NAME",
        help="record the topics of this node instead of filter_node and monitor_node")  # fmt: skip
    add("--perception", action="store_true", help="also those of perception_node, images too")
    add("--vla", action="store_true", help="also those of vla_node")
    add("--topic", action="append", default=[], metavar="/NAME", help="also this topic")
    add("--all", action="store_true", help="every topic")
    add("--duration", type=float, help="s; default: until Ctrl-C")
    parser.set_defaults(run=_record)


def _record(arguments: argparse.Namespace) -> int:
    import time

    from safety_filter.bags.record import FILTER_NODES, Choice, record
    from safety_filter.bags.writer import WriteError

    nodes = [*(arguments.node or FILTER_NODES)]
    nodes += ["perception_node"] * arguments.perception + ["vla_node"] * arguments.vla
    path = arguments.bag or Path(time.strftime("safety_filter_%Y%m%d_%H%M%S"))
    try:
        return record(path, Choice(nodes, arguments.topic, arguments.all), arguments.duration)
    except WriteError as error:
        print(f"record: {error}", file=sys.stderr)
        return UNREADABLE


def _register_play(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "play", help="publish a bag's inputs on their topics with /clock, as `ros2 bag play` does"
    )
    add = parser.add_argument
    add("bag", type=Path, help="rosbag2 folder, .mcap or .db3 file")
    add("--topics", nargs="+", default=[], metavar="/NAME", help="default: the filter's inputs")
    add("--rate", type=float, default=1.0, help="times the recorded speed (1)")
    parser.set_defaults(run=_play)


def _play(arguments: argparse.Namespace) -> int:
    import signal
    import threading

    from safety_filter.bags.play import play
    from safety_filter.bags.reader import BagError

    if not 0.05 <= arguments.rate <= 20.0:
        print(f"play: --rate: expected 0.05 to 20, got {arguments.rate:g}", file=sys.stderr)
        return UNREADABLE
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    try:
        return play(arguments.bag, arguments.topics, arguments.rate, end)
    except BagError as error:
        print(f"play: {error}", file=sys.stderr)
        return UNREADABLE


def _pair(text: str) -> tuple[str, str]:
    role, sep, name = text.partition("=")
    if not sep or not name.startswith("/"):
        raise argparse.ArgumentTypeError(f"expected ROLE=/topic, got {text!r}")
    return role, name


def _register_replay(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "replay",
        help="run the filter over a bag again: figures, regression test, difference of two"
        " configurations",
        epilog="exit code: 0 all well, 1 nothing to replay, 3 recorded decisions not reproduced,"
        " 4 an expectation not met",
    )
    add = parser.add_argument
    add("bag", type=Path, help="rosbag2 folder, .mcap or .db3 file")
    add("--config", type=Path, help="parameter file (YAML) whose values replace the recorded ones;"
        " the decisions of both are compared")  # fmt: skip
    add("--against", type=Path, help="compare with this parameter file instead of the recorded")
    add("--expect", type=Path, help="figures that must hold (YAML), see bags/kpi.py")
    add("--json", type=Path, help="write all figures here")
    add("--decisions", type=Path, help="write the decisions here (.npy table)")
    add("--topic", type=_pair, action="append", default=[], metavar="ROLE=/TOPIC",
        help="joint_states, obstacles, twist or joint_command of a foreign bag")  # fmt: skip
    add("--robot", default="panda", help="robot of a bag that does not say it (panda)")
    add("--urdf", default="", help="its URDF, if the robot file names none")
    add("--joint-command", default="joint_velocity", choices=("joint_velocity", "joint_position"),
        help="meaning of joint commands in a bag that does not say it")  # fmt: skip
    add("--reconstruct", action="store_true",
        help="make ticks up from the inputs even where they were recorded")  # fmt: skip
    add("--perception", nargs="?", const="", metavar="PARAMS.yaml",
        help="run perception over the recorded pictures again, with these parameters")  # fmt: skip
    add("--policy", nargs="?", const="", metavar="PARAMS.yaml",
        help="run the policy over the recorded pictures again, with these parameters")  # fmt: skip
    parser.set_defaults(run=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    from safety_filter.bags.reader import BagError

    try:
        return _replayed(arguments)
    except (BagError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return UNREADABLE


def _replayed(arguments: argparse.Namespace) -> int:
    from safety_filter.bags import kpi, recording, replay, report

    settings = recording.Settings(
        dict(arguments.topic), arguments.robot, arguments.urdf, arguments.joint_command
    )
    expected = kpi.read(arguments.expect) if arguments.expect else kpi.Expectation()
    found = recording.load(arguments.bag, settings, arguments.reconstruct)
    old, new = _changes(arguments.against, found), _changes(arguments.config, found)
    found = _at_one_rate(arguments, found, settings, old, new)
    _print(report.summary(found))
    first = replay.run(found, old)
    runs = {"against" if old else "recorded" if found.exact else "default": first}
    reproduced = None
    if found.exact and old is None:
        unknown = replay.unverifiable(found, first)
        reproduced = replay.compare(found.table, first.table, unknown)
        _print(report.reproduction(reproduced))
    judged = first
    changed = _rerun(arguments, found, settings)
    if new is not None or changed is not found:
        name = "config" if changed is found else "rerun"
        judged = runs[name] = replay.run(changed, new if new is not None else old)
    columns = {name: kpi.figures(r.table, expected) for name, r in runs.items()}
    _print(report.table_of_figures(columns))
    if judged is not first:
        _print(report.difference(first.table, judged.table))
    missed = kpi.failures(judged.table, expected)
    _print(f"decisions of {name}: sha256 {run.digest}" for name, run in runs.items())
    _print(f"NOT MET: {line}" for line in missed)
    _write(arguments, judged, report.as_json(found, runs, reproduced, expected, missed))
    if missed:
        return NOT_MET
    return NOT_REPRODUCED if reproduced is not None and reproduced.different.any() else 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _at_one_rate(arguments: argparse.Namespace, found: Any, settings: Any,
                 old: dict[str, Any] | None, new: dict[str, Any] | None) -> Any:  # fmt: skip
    """The recording at the rate of the configurations that are compared."""
    from safety_filter.bags import recording
    from safety_filter.bags.reader import BagError

    recorded = next(iter(found.params.values())).rate
    rates = {float((c or {}).get("rate", recorded)) for c in (old, new if new else old)}
    if len(rates) > 1:
        raise BagError(f"rate: {' and '.join(f'{r:g}' for r in sorted(rates))} Hz cannot be"
                       " compared tick by tick; give --against a file with the same rate")
    if rates == {recorded}:
        return found
    found = recording.load(arguments.bag, settings, True, rates.pop())
    found.notes.append("another rate: ticks are made up from the recorded inputs")
    return found


def _write(arguments: argparse.Namespace, judged: Any, content: dict[str, Any]) -> None:
    import json

    import numpy as np

    if arguments.decisions:
        with open(arguments.decisions, "wb") as file:
            np.save(file, judged.table, allow_pickle=False)
    if arguments.json:
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        arguments.json.write_text(text, encoding="utf-8")


def _rerun(arguments: argparse.Namespace, found: Any, settings: Any) -> Any:
    """The recording with perception's and the policy's results of today, as asked for."""
    from safety_filter.bags import acting, looking
    from safety_filter.bags.reader import BagError
    from safety_filter.bags.replay import flat_parameters

    def said(given: str, node: str) -> dict[str, Any]:
        if given and Path(given).is_dir():
            raise BagError(f"{given}: expected a parameter file of {node}, got a folder; other"
                           " weights are said in the file, as `weights: FOLDER`")  # fmt: skip
        return flat_parameters(Path(given), node) if given else {}

    changed = found
    if arguments.perception is not None:
        changes = said(arguments.perception, "perception_node")
        results = looking.perceive(arguments.bag, found, settings, changes)
        print(f"perception: {len(results)} pictures")
        changed = looking.with_obstacles(changed, results)
    if arguments.policy is not None:
        live = acting.parameters(said(arguments.policy, "vla_node"))
        chunks = acting.act(arguments.bag, found, settings, live)
        print(f"policy: {len(chunks)} chunks")
        changed = acting.with_commands(changed, chunks, live.blend)
    return changed


def _changes(path: Path | None, found: Any) -> dict[str, Any] | None:
    from safety_filter.bags.replay import read_config

    if path is None:
        return None
    changes, ignored = read_config(path, found.node_params)
    if ignored:
        found.notes.append(f"{path.name}: not parameters of the decisions: {', '.join(ignored)}")
    return changes


def _register_view(subparsers: Any) -> None:
    parser = subparsers.add_parser("view", help="draw a bag or the live graph with Rerun")
    add = parser.add_argument
    add("bag", type=Path, nargs="?", help="rosbag2 folder, .mcap or .db3 file")
    add("--live", action="store_true", help="the running nodes instead of a bag, until Ctrl-C")
    add("--save", type=Path, metavar="FILE.rrd", help="write a file instead of opening a viewer")
    add("--connect", nargs="?", const="", metavar="URL",
        help="send to a viewer that runs already; default: that on this machine")  # fmt: skip
    parser.set_defaults(run=_view)


def _view(arguments: argparse.Namespace) -> int:
    if (arguments.bag is None) != arguments.live:
        print("view: expected either a bag or --live", file=sys.stderr)
        return UNREADABLE
    try:
        from safety_filter.bags import view
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rerun":
            raise
        print("view: rerun-sdk is not installed; type: pip install 'safety_filter[view]'",
              file=sys.stderr)  # fmt: skip
        return UNREADABLE
    from safety_filter.bags.reader import BagError

    try:
        stream = view.open_stream(arguments.save, arguments.connect)
        if arguments.live:
            drawn = _view_live(stream)
        else:
            drawn = view.view_bag(arguments.bag, stream)
    except (BagError, OSError, RuntimeError) as error:
        print(f"view: {error}", file=sys.stderr)
        return UNREADABLE
    stream.disconnect()  # ends a file with its index
    for topic, count in drawn.unreadable.items():
        print(f"note: {topic}: {count} messages could not be drawn", file=sys.stderr)
    if arguments.save:
        print(f"written: {arguments.save}; open it with: rerun {arguments.save}")
    return 0


def _view_live(stream: Any) -> Any:
    import signal
    import threading

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from safety_filter.bags.record import FILTER_NODES, Choice, watch
    from safety_filter.bags.view import LiveSink, View

    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    sink = LiveSink(View(stream))
    print("drawing the live graph, end with Ctrl-C", flush=True)
    watch(sink, Choice((*FILTER_NODES, "perception_node", "vla_node")), end)
    rclpy.try_shutdown()
    print(f"{sum(sink.counts.values())} messages of {len(sink.counts)} topics")
    return sink.view
