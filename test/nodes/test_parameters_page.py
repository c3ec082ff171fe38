"""docs/parameters.md is what the tables say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from safety_filter import graph
from safety_filter.cli import main
from safety_filter.nodes.commands import NODES, markdown, node_tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parameters.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == markdown(NODES), (
        "run: safety-filter parameters > docs/parameters.md"
    )


def test_every_parameter_has_a_text_and_numbers_have_a_range() -> None:
    for node, tables in node_tables().items():
        names = [row.name for table in tables for row in table.rows]
        assert len(names) == len(set(names)), node  # one namespace a node
        for row in (row for table in tables for row in table.rows):
            assert row.text, (node, row.name)
            if isinstance(row.default, float | int) and not isinstance(row.default, bool):
                assert row.lo is not None and row.hi is not None, (node, row.name)


def test_config_files_name_only_declared_parameters() -> None:
    tables = node_tables()
    for name, spec in graph.NODES.items():
        content = yaml.safe_load(graph.share(f"config/{spec.config}").read_text())
        given = set(content["/**"]["ros__parameters"]) - {"use_sim_time"}
        assert given <= {row.name for table in tables[name] for row in table.rows}


def test_the_beginning_of_a_cells_file_is_valid_for_every_node() -> None:
    content = yaml.safe_load(graph.share("config/cell.yaml").read_text())
    # What the simulated cell declares must not reach a real one by a launch file that has both
    simulated = yaml.safe_load(graph.share("config/filter.yaml").read_text())
    names = set(simulated["/**"]["ros__parameters"]) - {"use_sim_time"}
    assert names <= set(content["/**/filter_node"]["ros__parameters"])
    tables = node_tables()
    for key, section in content.items():
        name = key.removeprefix("/**/")  # whatever the namespace is
        assert name in graph.NODES and key != name
        given = dict(section["ros__parameters"])
        for table in tables[name]:
            own = {row.name for row in table.rows} & set(given)
            table.validate({row: given.pop(row) for row in own})
        assert not given, (name, given)


def test_nodes_that_are_not_installed_do_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the image with the filter only."""
    monkeypatch.setitem(sys.modules, "safety_filter.nodes.sim_node", None)
    assert main(["parameters", "filter_node"]) == 0
    assert "obstacle_margin" in capsys.readouterr().out
    assert main(["parameters"]) == 1
    assert "name the nodes that are installed" in capsys.readouterr().err
