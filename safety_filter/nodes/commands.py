"""`safety-filter parameters`: the declared parameters of each node as markdown."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from safety_filter.core.params import ParamTable

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


def node_tables() -> dict[str, list[ParamTable[Any]]]:
    """The tables that each node declares, its own first."""
    modules = {n: [f"safety_filter.nodes.{n}", *([ALSO[n]] if n in ALSO else [])] for n in NODES}
    return {n: [importlib.import_module(m).TABLE for m in names] for n, names in modules.items()}


HEAD = """# Parameters

Written by `safety-filter parameters > docs/parameters.md`; do not edit by hand.
Numbers outside their range, NaN and infinities are refused; an update that is refused leaves the
old set. What says "no" under "while running" is fixed at start.
"""


def markdown(chosen: Sequence[str]) -> str:
    """The page: what every node has, then one section a node."""
    from safety_filter.nodes import base

    tables = {"every node": [base.TABLE], **node_tables()}
    sections = [HEAD]
    for name in ("every node", *chosen):
        sections += [f"## {name}\n", *(table.markdown() for table in tables[name])]
    return "\n".join(sections)


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    print(markdown(arguments.node or NODES), end="")
    return 0
