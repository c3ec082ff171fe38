"""RViz configuration and Foxglove layout name topics and services that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from safety_filter import graph, interfaces, security
from safety_filter.bags.record import message_class

TYPES = {
    security.resolve(spec, port.name): port.type
    for spec in graph.NODES.values()
    for port in interfaces.NODES[spec.name]
}
CONFIG = Path(__file__).resolve().parents[2] / "config"
NAMES = set(TYPES)


def test_rviz_displays_read_what_the_nodes_publish_with_their_qos() -> None:
    content = yaml.safe_load((CONFIG / "rviz/safety_filter.rviz").read_text())
    displays = content["Visualization Manager"]["Displays"]
    topics = [d["Topic"] for d in displays if "Topic" in d]
    assert {t["Value"] for t in topics} == {"/filter_node/markers", "/perception_node/overlay"}
    assert all(t["Reliability Policy"] == "Best Effort" for t in topics)
    assert {t["Value"] for t in topics} <= NAMES
    source = Path(security.__file__).parent / "nodes/markers.py"
    drawn = set(re.findall(r'_add\("(\w+)"|arrow\("(\w+)"|line\("(\w+)"', source.read_text()))
    shown = next(d["Namespaces"] for d in displays if d["Name"] == "Filter")
    assert {name for names in drawn for name in names if name} <= set(shown)


def test_foxglove_panels_are_laid_out_once_and_read_what_is_there() -> None:
    content = json.loads((CONFIG / "foxglove/safety_filter.json").read_text())
    panels = content["configById"]

    def leaves(tree: Any) -> list[str]:
        if isinstance(tree, str):
            return [tree]
        return [*leaves(tree["first"]), *leaves(tree["second"])]

    assert sorted(leaves(content["layout"])) == sorted(panels)
    used = {p["value"].partition(".")[0] for c in panels.values() for p in c.get("paths", [])}
    used |= {t for c in panels.values() for t in c.get("topics", {})}
    for config in panels.values():
        used |= {config[k] for k in ("topicPath", "topicToRender", "serviceName") if k in config}
    used.add(panels["Image!overlay"]["imageMode"]["imageTopic"])
    assert used <= NAMES, used - NAMES
    for config in panels.values():
        for path in config.get("paths", []):
            topic, *fields = re.sub(r"\[\d+\]", "", path["value"]).split(".")
            _follow(TYPES[topic], fields)


def _follow(kind: str, fields: list[str]) -> None:
    """Fails where a message of `kind` has not these nested fields."""
    for name in fields:
        members = message_class(kind).get_fields_and_field_types()
        assert name in members, (kind, name)
        kind = members[name].replace("/", "/msg/", 1)
