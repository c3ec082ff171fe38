"""The SROS2 policy: who may publish, read and call what, written from the graph.

Everything that is not listed is forbidden. Only the filter and the monitor may publish to the
arm's controller, and only the enclave `operator` may call the resets, the lifecycle transitions
and `set_parameters`. The enclave `viewer` is for the tools: it reads every topic and what the
doctor asks of the nodes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from safety_filter import interfaces
from safety_filter.graph import NodeSpec, in_force
from safety_filter.interfaces import CLIENT, PUB, SERVICE, SUB, Port

ENCLAVES = "/safety_filter"
_PARAMETERS = (
    "describe_parameters", "get_parameter_types", "get_parameters", "list_parameters",
    "set_parameters", "set_parameters_atomically", "get_type_description",
)  # fmt: skip
# Of each of these nodes `safety-filter doctor` asks for parameters
ASKED = ("perception_node", "filter_node")
_LIFECYCLE = (
    "change_state", "get_state", "get_available_states", "get_available_transitions",
    "get_transition_graph",
)  # fmt: skip


def resolve(spec: NodeSpec, name: str) -> str:
    """The absolute name that `name` of a node has in the graph."""
    name = dict(spec.remappings).get(name, name)
    space = f"/{spec.namespace.strip('/')}" if spec.namespace.strip("/") else ""
    if name.startswith("~"):
        return f"{space}/{spec.name}{name[1:]}"
    return name if name.startswith("/") else f"{space}/{name}"


def exists(spec: NodeSpec, port: Port) -> bool:
    """Whether the node opens the port with its parameters in the graph.

    Raises:
        ValueError: a parameter file cannot be read.
    """
    if not port.when:
        return True
    values = in_force(spec)
    for condition in port.when.split(", "):
        key, _, wanted = condition.partition(": ")
        value = values[key]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if text not in wanted.split(" or "):
            return False
    return True


def _names(spec: NodeSpec, direction: str) -> list[str]:
    return [
        resolve(spec, p.name)
        for p in interfaces.NODES[spec.name]
        if p.direction == direction and exists(spec, p)
    ]


def arm_topics(specs: Iterable[NodeSpec]) -> set[str]:
    """The topics that command the arm: the monitor's output and the filter's fallback, or its
    output where there is no monitor."""
    topics = set()
    for spec in specs:
        told = in_force(spec)
        ends = {"monitor_node": "out", "filter_node": "fallback" if told["monitored"] else "out"}
        if spec.name in ends:
            topics.add(resolve(spec, f"~/{told['output']}_{ends[spec.name]}"))
    return topics


def policy(specs: Sequence[NodeSpec]) -> str:
    """The policy (XML, SROS2 schema 0.2.0) of a graph, with a driver, an operator and a viewer."""
    root = ET.Element("policy", version="0.2.0")
    enclaves = ET.SubElement(root, "enclaves")
    space = specs[0].namespace.strip("/")
    for spec in specs:
        profile = _profile(enclaves, spec.name, space)
        _topics(profile, "publish", [*_names(spec, PUB), f"/{_in(space, spec.name)}"
                                     "/transition_event", *_common_out()])  # fmt: skip
        _topics(profile, "subscribe", [*_names(spec, SUB), "/clock", "/parameter_events"])
        own = [f"/{_in(space, spec.name)}/{s}" for s in (*_PARAMETERS, *_LIFECYCLE)]
        _services(profile, "reply", [*_names(spec, SERVICE), *own])
        _services(profile, "request", _names(spec, CLIENT))
    published = {n for s in specs for n in _names(s, PUB)}
    words = [n for n in _heard(specs, "instruction") if n not in published]
    everything = sorted(published - arm_topics(specs))
    _driver(enclaves, specs, space, {*published, *words})
    operator = _profile(enclaves, "operator", space)
    _topics(operator, "publish", [*words, *_common_out()])
    _topics(operator, "subscribe", [*everything, "/rosout", "/clock"])
    # What one node asks of another is told as that node's doing: not for the operator
    between = {n for s in specs for n in _names(s, CLIENT)}
    calls = [n for s in specs for n in _names(s, SERVICE) if n not in between]
    calls += [f"/{_in(space, s.name)}/{n}" for s in specs for n in (*_PARAMETERS, *_LIFECYCLE)]
    _services(operator, "request", calls)
    viewer = _profile(enclaves, "viewer", space)
    _topics(viewer, "publish", _common_out())
    read = {n for s in specs for n in _names(s, SUB)}
    read |= {f"/{_in(space, s.name)}/transition_event" for s in specs}
    _topics(viewer, "subscribe", [*sorted(published | read), "/rosout", "/clock"])
    asked = [f"/{_in(space, s.name)}/get_parameters" for s in specs if s.name in ASKED]
    _services(viewer, "request", asked)
    ET.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- Written by safety-filter policy. -->\n'
    return head + ET.tostring(root, encoding="unicode") + "\n"


def _in(space: str, name: str) -> str:
    return f"{space}/{name}" if space else name


def _common_out() -> list[str]:
    return ["/rosout", "/parameter_events"]


def _heard(specs: Sequence[NodeSpec], name: str) -> list[str]:
    """The topics that the nodes read as `name`."""
    return [
        resolve(s, p.name)
        for s in specs
        for p in interfaces.NODES[s.name]
        if p.name == name and p.direction == SUB
    ]


def _driver(
    enclaves: ET.Element, specs: Sequence[NodeSpec], space: str, others: set[str]
) -> None:
    """The arm's driver, the cameras and what is brought: what our nodes read, `others` apart."""
    if any(s.name == "sim_node" for s in specs):
        return
    wanted = sorted({n for s in specs for n in _names(s, SUB)} - others)
    profile = _profile(enclaves, "driver", space)
    transforms = ["/tf", "/tf_static"]  # of the arm, whoever reads them
    _topics(profile, "publish", [*wanted, "/clock", *transforms, *_common_out()])
    gripper = [resolve(s, "~/gripper") for s in specs if s.name == "vla_node"]
    _topics(profile, "subscribe", [*sorted(arm_topics(specs)), *gripper, "/parameter_events"])


def _profile(enclaves: ET.Element, name: str, space: str) -> ET.Element:
    enclave = ET.SubElement(enclaves, "enclave", path=f"{ENCLAVES}/{name}")
    profiles = ET.SubElement(enclave, "profiles")
    return ET.SubElement(profiles, "profile", ns=f"/{space}", node=name)


def _topics(profile: ET.Element, how: str, names: Iterable[str]) -> None:
    _list(profile, "topic", how, names)


def _services(profile: ET.Element, how: str, names: Iterable[str]) -> None:
    _list(profile, "service", how, names)


def _list(profile: ET.Element, what: str, how: str, names: Iterable[str]) -> None:
    unique = list(dict.fromkeys(names))
    if not unique:
        return
    group = ET.SubElement(profile, f"{what}s", {how: "ALLOW"})
    for name in unique:
        ET.SubElement(group, what).text = name
