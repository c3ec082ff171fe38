"""`safety-filter SUBCOMMAND`: each package registers its own subcommands in a `commands` module.

A `commands` module has `register(subparsers)`; it adds parsers whose defaults carry
`run`, a function of the parsed arguments that returns the exit code. It imports nothing heavy
before `run` is called, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from safety_filter import __version__

PACKAGES = (
    "demo", "core", "arms", "sim", "vla", "perception", "bench", "flight", "bags", "nodes",
    "doctor",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand whose package can be imported."""
    parser = argparse.ArgumentParser(
        prog="safety-filter",
        description="CBF safety filter between a vision-language-action policy and a robot arm.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for package in PACKAGES:
        name = f"safety_filter.{package}.commands"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            # A package without subcommands is left out; so is one whose extra is not installed
            if error.name not in (name, name.rpartition(".")[0]):
                print(f"{name}: {error.name} is not installed", file=sys.stderr)
            continue
        module.register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code (130 after Ctrl-C)."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141


if __name__ == "__main__":
    sys.exit(main())
