"""`safety-filter parameters`, `interfaces`, `policy`: pages from the tables; `call`, `say`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from safety_filter.core.params import ParamTable

NODES = ("sim_node", "vla_node", "perception_node", "filter_node", "monitor_node")
CALLS = ("stop", "reset", "configure", "activate", "deactivate", "cleanup", "set")
# Tables that a node declares beside its own
ALSO = {
    "perception_node": "safety_filter.perception.params",
    "filter_node": "safety_filter.core.filter_params",
}


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "parameters", help="print the parameters of the nodes as markdown tables"
    )
    parser.add_argument("node", nargs="*", choices=[*NODES, []], help="default: all nodes")
    parser.set_defaults(run=run)
    parser = subparsers.add_parser("interfaces", help="print docs/topics.md")
    parser.set_defaults(run=_print_interfaces)
    parser = subparsers.add_parser("policy", help="print the SROS2 policy of a graph")
    parser.add_argument("--arm", default="", help="of arm.launch.py with this robot; else demo")
    parser.add_argument("--namespace", default="", help="namespace of the nodes")
    parser.add_argument(
        "given", nargs="*", metavar="NAME:=VALUE", help="launch arguments (with --arm)"
    )
    parser.set_defaults(run=_print_policy)
    parser = subparsers.add_parser(
        "call", help="stop, reset, activate or set parameters of a running node",
        epilog="exit code: 0 done, 1 refused, 2 nobody answers",
    )  # fmt: skip
    parser.add_argument("node", choices=NODES)
    parser.add_argument("what", choices=CALLS)
    parser.add_argument("given", nargs="*", metavar="NAME:=VALUE", help="parameters (with set)")
    parser.add_argument("--namespace", default="", help="namespace of the nodes")
    parser.set_defaults(run=_call)
    parser = subparsers.add_parser(
        "say", help="tell policy and perception what to do",
        epilog="exit code: 0 heard, 2 nobody reads it. What starts later has not heard it.",
    )  # fmt: skip
    parser.add_argument("text", metavar="INSTRUCTION", help="in words; '' ends the task")
    parser.add_argument(
        "--topic", default="instruction", help="default: instruction, as arm.launch.py wires it"
    )
    parser.add_argument("--namespace", default="", help="namespace of the nodes")
    parser.set_defaults(run=_say)


def node_tables(nodes: Sequence[str] = NODES) -> dict[str, list[ParamTable[Any]]]:
    """The tables that each of the nodes declares, its own first."""
    modules = {n: [f"safety_filter.nodes.{n}", *([ALSO[n]] if n in ALSO else [])] for n in nodes}
    return {n: [importlib.import_module(m).TABLE for m in names] for n, names in modules.items()}


HEAD = """# Parameters

Written by `safety-filter parameters > docs/parameters.md`; do not edit by hand.
Numbers outside their range, NaN and infinities are refused; an update that is refused leaves the
old set. What says "no" under "while running" is fixed at start.
"""


def markdown(chosen: Sequence[str]) -> str:
    """The page: what every node has, then one section a node."""
    from safety_filter.nodes import base

    tables = {"every node": [base.TABLE], **node_tables(chosen)}
    sections = [HEAD]
    for name in ("every node", *chosen):
        sections += [f"## {name}\n", *(table.markdown() for table in tables[name])]
    return "\n".join(sections)


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    try:
        print(markdown(arguments.node or NODES), end="")
    except ModuleNotFoundError as error:
        print(
            f"parameters: {error}; name the nodes that are installed here, such as filter_node",
            file=sys.stderr,
        )
        return 1
    return 0


def _print_interfaces(_: argparse.Namespace) -> int:
    from safety_filter import interfaces

    print(interfaces.page(), end="")
    return 0


def _print_policy(arguments: argparse.Namespace) -> int:
    from safety_filter import launch_arguments, security
    from safety_filter.arms import wiring

    values = {"namespace": arguments.namespace}
    try:
        if arguments.arm:
            given = _launch_arguments(arguments.given)
            specs = wiring.build({"robot": arguments.arm, **values, **given})
        else:
            specs = launch_arguments.build("demo", values)
        text = security.policy(specs)
    except ValueError as error:
        print(f"policy: {error}", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


def _launch_arguments(words: Sequence[str]) -> dict[str, str]:
    """Raises ValueError where one is not NAME:=VALUE, or no argument of arm.launch.py."""
    from safety_filter.arms import wiring

    known = {a.name for a in wiring.arguments()}
    given = {}
    for word in words:
        name, found, value = word.partition(":=")
        if not found or name not in known:
            raise ValueError(f"expected NAME:=VALUE of arm.launch.py, got {word}")
        given[name] = value
    return given


def _call(arguments: argparse.Namespace) -> int:
    """0: done, 1: refused, 2: cannot be asked, or nobody answers."""
    import yaml

    try:
        pairs = [word.split(":=", 1) for word in arguments.given]
        values = {name: yaml.safe_load(text) for name, text in pairs}
        if any(isinstance(value, dict | None) for value in values.values()):
            raise ValueError
    except (ValueError, yaml.YAMLError):
        print(f"call: expected NAME:=VALUE, got {' '.join(arguments.given)}", file=sys.stderr)
        return 2
    if bool(values) != (arguments.what == "set"):
        print("call: parameters NAME:=VALUE go with set, and only with it", file=sys.stderr)
        return 2
    from safety_filter.nodes.operator import CallError, Operator

    try:
        with Operator(arguments.namespace) as operator:
            if values:
                done, words = operator.set(arguments.node, values)
            else:
                done, words = operator.call(arguments.node, arguments.what)
    except CallError as error:
        print(f"call: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.node}: {words}")
    return int(not done)


def _say(arguments: argparse.Namespace) -> int:
    """0: heard, 2: nobody reads it."""
    from rclpy.exceptions import InvalidTopicNameException

    from safety_filter.nodes.operator import CallError, Operator

    try:
        with Operator(arguments.namespace) as operator:
            heard = operator.say(arguments.text, arguments.topic)
    except (CallError, InvalidTopicNameException) as error:
        print(f"say: {error}", file=sys.stderr)
        return 2
    print(f"heard by {', '.join(heard)}")
    return 0
