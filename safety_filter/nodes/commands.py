"""`safety-filter parameters`: the declared parameters of each node as markdown."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

NODES = ("sim_node", "vla_node", "perception_node", "filter_node", "monitor_node")
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


def run(arguments: argparse.Namespace) -> int:
    """Print one table a node."""
    for name in arguments.node or NODES:
        modules = [f"safety_filter.nodes.{name}", *([ALSO[name]] if name in ALSO else [])]
        print(f"### {name}\n")
        for module in modules:
            print(importlib.import_module(module).TABLE.markdown())
    return 0
