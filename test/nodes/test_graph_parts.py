"""What the graph consists of: its files, its commands, what each process is given."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from safety_filter import graph, parameter_files
from safety_filter.nodes.commands import node_tables

ROOT = Path(__file__).resolve().parents[2]


def test_every_launch_file_belongs_to_a_group() -> None:
    names = {p.name.removesuffix(".launch.py") for p in (ROOT / "launch").glob("*.launch.py")}
    assert names == {*graph.GROUPS, "arm", "replay"}


def test_runner_command_has_every_remapping_and_parameter() -> None:
    spec = graph.NODES["filter_node"].with_parameters(rate=500.0, names=["a", "b"], on=True)
    words = graph.command(spec)
    assert words[1:3] == ["-m", "safety_filter.nodes.filter_node"]
    for source, target in spec.remappings:
        assert f"{source}:={target}" in words
    content = yaml.safe_load(Path(words[-1]).read_text())
    told = content[parameter_files.LAST]["ros__parameters"]
    assert (told["rate"], told["names"], told["on"]) == (500.0, ["a", "b"], True)


def test_nothing_that_commands_the_arm_is_respawned_silently() -> None:
    assert not any(graph.NODES[n].respawn for n in graph.NODES if n in ("filter_node", "sim_node"))
    assert not graph.NODES.get("monitor_node", graph.NodeSpec("monitor_node")).respawn


def test_config_files_exist_and_name_only_declared_parameters() -> None:
    for spec in graph.NODES.values():
        assert spec.config is not None
        content = yaml.safe_load(graph.share(f"config/{spec.config}").read_text())
        assert set(content) == {"/**"}


def test_what_decides_about_the_wiring_is_by_default_what_the_nodes_say() -> None:
    declared = {n: {k: v for table in tables for k, v in table.defaults().items()}
                for n, tables in node_tables().items()}  # fmt: skip
    for name, value in graph.in_force(graph.NodeSpec("any")).items():
        said = [own[name] for own in declared.values() if name in own]
        assert said and all(other == value for other in said), name


def test_scarce_shared_memory_keeps_the_default_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in graph.TRANSPORTS:  # another test may have joined a graph
        monkeypatch.delenv(name, raising=False)
    usage = SimpleNamespace(free=64 * 2**20)
    monkeypatch.setattr(graph.shutil, "disk_usage", lambda _: usage)
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in graph.environment_variables()
    usage.free = 2**30
    assert Path(graph.environment_variables()["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")  # the user's choice stays
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in graph.environment_variables()


def test_entry_points_exist_for_every_node() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    nodes = next(
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "NODES"
    )
    assert set(graph.NODES) <= set(nodes)


def test_share_says_where_it_looked() -> None:
    with pytest.raises(FileNotFoundError, match="expected in one of"):
        graph.share("config/nothing.yaml")
