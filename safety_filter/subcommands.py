"""Subcommands of two words, such as `train vla` and `train yolo`, from separate packages."""

from __future__ import annotations

from typing import Any

GROUPS = {
    "train": "train a shipped model with this repository's own data and recipe",
    "evaluate": "measure a shipped model on held-out scenes",
}


def group(subparsers: Any, name: str) -> Any:
    """The sub-subparsers of `name`, one of GROUPS; made by the first package that asks."""
    existing = subparsers.choices.get(name)
    if existing is None:
        existing = subparsers.add_parser(name, help=GROUPS[name])
        existing.add_subparsers(dest="what", metavar="WHAT", required=True)
    return existing._subparsers._group_actions[0]
