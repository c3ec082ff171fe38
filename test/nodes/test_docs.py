"""What the pages tell people to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safety_filter import graph, interfaces, launch_arguments, playback
from safety_filter.arms import wiring
from safety_filter.cli import build_parser
from safety_filter.core.robot import read_config
from safety_filter.nodes.commands import node_tables

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
ARGUMENTS = {
    **{group: {a.name for a in launch_arguments.arguments(group)} for group in graph.GROUPS},
    "arm": {a.name for a in wiring.arguments()},
    "replay": {a.name for a in playback.arguments()},
}


def _lines(page: Path) -> list[str]:
    """Lines with those that end in a backslash joined."""
    return page.read_text().replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_subcommands_launch_files_and_their_arguments_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    subcommands = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for name in re.findall(r"safety-filter ([a-z][a-z-]+)", text):
        assert name in subcommands, name
    for line in _lines(page):
        for group, rest in re.findall(r"(\w+)\.launch\.py((?: [\w./$:=-]+)*)", line):
            given = set(re.findall(r"(\w+):=", rest))
            assert given <= ARGUMENTS[group], (line, given - ARGUMENTS[group])


def test_parameters_and_keys_in_the_quick_start_exist() -> None:
    text = (ROOT / "docs/quickstart.md").read_text()
    rows = [row for tables in node_tables().values() for table in tables for row in table.rows]
    names = {row.name for row in rows} | {choice for row in rows for choice in row.choices}
    names |= set(read_config("panda"))  # keys of a robot file
    names |= {port.name for ports in interfaces.NODES.values() for port in ports}
    for name in re.findall(r"`([a-z]+_[a-z_]+)`(?!\.)", text):
        assert name in names | set(graph.NODES) | {"frame_id"}, name
