"""The table of topics and services is what the nodes really open."""

from __future__ import annotations

import importlib
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from ros_rig import EVENT_SECONDS

from safety_filter import graph, interfaces, security
from safety_filter.demo.processes import ros_environment
from safety_filter.interfaces import CLIENT, COMMAND, LATCHED, NEWEST, PUB, QUEUE, SERVICE, SUB
from safety_filter.nodes.tools import QUIET

pytestmark = pytest.mark.ros
PAGE = Path(__file__).resolve().parents[2] / "docs" / "topics.md"
CLASSES = {
    "sim_node": "SimNode", "vla_node": "VlaNode", "perception_node": "PerceptionNode",
    "filter_node": "FilterNode", "monitor_node": "MonitorNode",
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything else": {
        "monitored": True, "output": "trajectory", "command": "trajectory", "description": True,
    },
    "joint command": {"monitored": True, "output": "joint_position", "command": "joint_velocity"},
}  # fmt: skip
# What every node of ROS 2 has
COMMON = {"/rosout", "/parameter_events", "/clock"}


@pytest.fixture
def context(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    for key, value in ros_environment().items():
        monkeypatch.setenv(key, value)
    given: dict[str, Any] = SETTINGS[request.param]
    words = [w for k, v in given.items() for w in ("-p", f"{k}:={str(v).lower()}")]
    rclpy.init(args=["--ros-args", *words], signal_handler_options=SignalHandlerOptions.NO)
    yield given
    rclpy.try_shutdown()


def _profile(node: Any, topic: str, publisher: bool) -> str:
    infos = (
        node.get_publishers_info_by_topic(topic)
        if publisher
        else node.get_subscriptions_info_by_topic(topic)
    )
    qos = next(i.qos_profile for i in infos if i.node_name == node.get_name())
    if qos.reliability == ReliabilityPolicy.BEST_EFFORT:
        return NEWEST
    return LATCHED if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL else COMMAND


def _opened(node: Any, name: str, direction: str) -> dict[str, str]:
    """The types of a node's topics or services of its own, by full name."""
    ask = {
        PUB: node.get_publisher_names_and_types_by_node,
        SUB: node.get_subscriber_names_and_types_by_node,
        SERVICE: node.get_service_names_and_types_by_node,
        CLIENT: node.get_client_names_and_types_by_node,
    }[direction]
    return {
        topic: types[0]
        for topic, types in ask(name, "/")
        if topic not in COMMON
        and not types[0].startswith(("rcl_interfaces/", "lifecycle_msgs/"))
        and not topic.endswith("/get_type_description")
    }


def _forbidden(node: Any, spec: graph.NodeSpec) -> set[str]:
    """What the node has opened, common things included, that its SROS2 enclave may not."""
    name, policy = spec.name, ET.fromstring(security.policy([spec]))
    (enclave,) = policy.findall(f".//enclave[@path='{security.ENCLAVES}/{name}']")
    opened = {
        "publish": node.get_publisher_names_and_types_by_node(name, "/"),
        "subscribe": node.get_subscriber_names_and_types_by_node(name, "/"),
        "reply": node.get_service_names_and_types_by_node(name, "/"),
        "request": node.get_client_names_and_types_by_node(name, "/"),
    }
    return {
        f"{how} {topic}"
        for how, topics in opened.items()
        for topic, _ in topics
        if topic not in [t.text for t in enclave.findall(f".//*[@{how}='ALLOW']/*")]
    }


@pytest.mark.parametrize("context", SETTINGS, indirect=True)
def test_nodes_open_what_the_table_says(context: dict[str, Any]) -> None:
    for name, class_name in CLASSES.items():
        node = getattr(importlib.import_module(f"safety_filter.nodes.{name}"), class_name)()
        spec = graph.NodeSpec(name, parameters=context)
        for direction in (PUB, SUB, SERVICE, CLIENT):
            ports = [
                p
                for p in interfaces.NODES[name]
                if p.direction == direction
                and security.exists(spec, p)
                and p.name != "camera_pose"  # opened by configure, with `extrinsics: topic`
            ]
            told = {security.resolve(spec, p.name): p.type for p in ports}
            # The middleware learns of a node's own endpoints a moment after they were made
            deadline = time.monotonic() + EVENT_SECONDS
            while _opened(node, name, direction) != told and time.monotonic() < deadline:
                time.sleep(0.02)
            assert _opened(node, name, direction) == told, (name, direction)
            for p in ports:
                if direction in (PUB, SUB):
                    qos = COMMAND if p.qos == QUEUE else p.qos
                    topic = security.resolve(spec, p.name)
                    assert _profile(node, topic, direction == PUB) == qos, (name, p.name)
        assert _forbidden(node, spec) == set()
        node.destroy_node()


@pytest.mark.parametrize("context", ["defaults"], indirect=True)
def test_nodes_of_the_tools_have_no_services_of_their_own(context: dict[str, Any]) -> None:
    """Or a policy that does not know their names would refuse them."""
    node = rclpy.create_node("tool", **QUIET)
    published = {"/rosout", "/parameter_events"}
    deadline = time.monotonic() + EVENT_SECONDS
    while time.monotonic() < deadline:
        found = {t for t, _ in node.get_publisher_names_and_types_by_node("tool", "/")}
        if found == published:
            break
        time.sleep(0.02)
    assert found == published
    time.sleep(0.5)  # s; services are told in the same breath
    assert node.get_service_names_and_types_by_node("tool", "/") == []
    assert node.get_subscriber_names_and_types_by_node("tool", "/") == []
    node.destroy_node()


def test_page_is_current() -> None:
    assert PAGE.read_text() == interfaces.page(), "run: safety-filter interfaces > docs/topics.md"
