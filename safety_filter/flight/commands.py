"""`safety-filter explain`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "explain", help="say what a flight record of the filter shows, and redraw it"
    )
    parser.add_argument("file", type=Path, help="file written by filter_node on a stop")
    parser.add_argument("--picture", type=Path, help="PNG to draw; default: beside the file")
    parser.add_argument("--no-replay", action="store_true", help="do not run the filter again")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the story; 1 for a file that cannot be read, 3 when the replay differs."""
    from safety_filter.flight.explain import draw, lines
    from safety_filter.flight.recorder import FlightError, load
    from safety_filter.flight.replay import replay

    try:
        record = load(arguments.file)
    except FlightError as error:
        print(f"explain: {error}", file=sys.stderr)
        return 1
    replayed = None if arguments.no_replay else replay(record)
    for line in lines(record, replayed):
        print(line)
    if record.ticks:
        picture = arguments.picture or arguments.file.with_suffix(".png")
        draw(record, picture)
        print(f"drawn: {picture}")
    return 3 if replayed is not None and replayed.different else 0
