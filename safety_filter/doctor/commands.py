"""`safety-filter doctor`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from safety_filter.doctor.table import Level, page


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("doctor", help="look at a live system and say what is wrong")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to listen (4)")
    parser.add_argument("--namespace", default="", help="namespace of the nodes")
    parser.add_argument("--json", action="store_true", help="findings as JSON")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--page", action="store_true", help="print docs/troubleshooting.md")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0: nothing worse than a warning, 1: errors, 2: no filter to look at."""
    if arguments.page:
        print(page(), end="")
        return 0
    if not 0.5 <= arguments.seconds <= 600.0:
        text = f"doctor: --seconds: expected 0.5 to 600, got {arguments.seconds:g}"
        print(text, file=sys.stderr)
        return 2
    from safety_filter.doctor.checks import findings

    try:
        from safety_filter.nodes.doctor_node import look
    except ModuleNotFoundError as error:
        print(f"doctor: {error}; source ROS 2 Jazzy or install safety_filter[ros]",
              file=sys.stderr)  # fmt: skip
        return 2
    seen = look(arguments.seconds, arguments.namespace)
    result = findings(seen)
    if arguments.json:
        print(json.dumps({"version": 1, "findings": [f.as_dict() for f in result]}, indent=1))
    else:
        for finding in result:
            print(f"{finding.level.name:8} {finding.says}  [{finding.code}]")
            if finding.do:
                print(f"{'':8} -> {finding.do}")
    if not seen.nodes.get("filter_node"):
        return 2
    limit = Level.WARNING if arguments.strict else Level.ERROR
    return 1 if any(f.level >= limit for f in result) else 0
