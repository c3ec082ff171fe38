"""One description: launch files and the runner's commands are drawn from it."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from safety_filter import graph

ROOT = Path(__file__).resolve().parents[2]


class _Recorded(SimpleNamespace):
    """Stands for a class of `launch`: keeps what it was made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(args=args, **kwargs)


@pytest.fixture
def launching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """nodes/launching.py over recorders; the wheels have no `launch`."""
    names = {
        "launch": ["LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "SetEnvironmentVariable"],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
        "launch_ros.parameter_descriptions": ["ParameterValue"],
    }
    for module_name, classes in names.items():
        module = ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (_Recorded,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.delitem(sys.modules, "safety_filter.nodes.launching", raising=False)
    return importlib.import_module("safety_filter.nodes.launching")


@pytest.mark.parametrize("group", graph.GROUPS)
def test_launch_file_starts_what_the_graph_says(launching: Any, group: str) -> None:
    path = ROOT / "launch" / f"{group}.launch.py"
    namespace: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    entities = namespace["generate_launch_description"]().args[0]
    nodes = {e.name: e for e in entities if type(e).__name__ == "Node"}
    assert tuple(nodes) == graph.GROUPS[group]
    for name, node in nodes.items():
        spec = graph.NODES[name]
        assert node.executable == name
        assert tuple(node.remappings) == spec.remappings
        assert node.respawn == spec.respawn
        assert node.prefix == (f"nice -n {spec.nice}" if spec.nice else "")
    variables = {
        e.args[0]: e.args[1] for e in entities if type(e).__name__ == "SetEnvironmentVariable"
    }
    assert variables == graph.environment_variables()
    declared = [e for e in entities if type(e).__name__ == "DeclareLaunchArgument"]
    assert all(e.description for e in declared)


def test_every_launch_file_belongs_to_a_group() -> None:
    names = {p.name.removesuffix(".launch.py") for p in (ROOT / "launch").glob("*.launch.py")}
    assert names == set(graph.GROUPS)


def test_runner_command_has_every_remapping_and_parameter() -> None:
    spec = graph.NODES["filter_node"].with_parameters(rate=500.0, names=["a", "b"], on=True)
    words = graph.command(spec)
    assert words[1:3] == ["-m", "safety_filter.nodes.filter_node"]
    for source, target in spec.remappings:
        assert f"{source}:={target}" in words
    assert "rate:=500.0" in words
    assert "names:=[a, b]" in words
    assert "on:=true" in words


def test_nothing_that_commands_the_arm_is_respawned_silently() -> None:
    assert not any(graph.NODES[n].respawn for n in graph.NODES if n in ("filter_node", "sim_node"))
    assert not graph.NODES.get("monitor_node", graph.NodeSpec("monitor_node")).respawn


def test_config_files_exist_and_name_only_declared_parameters() -> None:
    for spec in graph.NODES.values():
        assert spec.config is not None
        content = yaml.safe_load(graph.share(f"config/{spec.config}").read_text())
        assert set(content) == {"/**"}


def test_scarce_shared_memory_keeps_the_default_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=64 * 2**20)
    monkeypatch.setattr(graph.shutil, "disk_usage", lambda _: usage)
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in graph.environment_variables()
    usage.free = 2**30
    assert Path(graph.environment_variables()["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


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
