"""The robot that a node works with: a shipped one by name, or the user's file and URDF."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from std_msgs.msg import String

from safety_filter.arms.profile import not_shipped
from safety_filter.core.params import param
from safety_filter.core.robot import RobotError, read_config, urdf_path
from safety_filter.nodes.base import WARN, ConfigureError, ManagedNode
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import LATCHED

Spheres = dict[str, list[tuple[list[float], float]]]


@dataclass(frozen=True)
class RobotParams:
    """Which robot; the same parameters on every node that has a model."""

    robot: str = param("panda", "-", None, None, "shipped robot, or path of a robot file (YAML)")
    urdf: str = param("", "-", None, None, "path of the URDF; empty: what the robot file says")
    description: bool = param(
        False, "-", None, None, "take the URDF from robot_description instead of the parameters"
    )


@dataclass(frozen=True)
class RobotSource:
    """The robot file's content and the URDF (path or XML text)."""

    spec: dict[str, Any]
    urdf: str | Path

    @property
    def arm_joints(self) -> tuple[str, ...]:
        """Raises ConfigureError: the robot is a tool without a model of its arm."""
        if "joints" not in self.spec:
            raise ConfigureError(
                f"robot: {self.tool_link} alone has no joints, which filter_node only can do"
                " without: start with monitor:=false, perception:=false, vla:=false"
            )
        return tuple(self.spec["joints"])

    @property
    def finger_joints(self) -> tuple[str, ...]:
        return tuple((self.spec.get("gripper") or {}).get("joints") or ())

    @property
    def _bodies(self) -> Mapping[str, Any]:
        return self.spec.get("bodies") or {}

    def links(self, kind: str) -> tuple[str, ...]:
        """Links whose bodies are of a kind: arm, hand or finger."""
        return tuple(name for name, b in self._bodies.items() if b.get("kind", "arm") == kind)

    @property
    def spheres(self) -> Spheres:
        """Link -> [(centre, radius)] in m, for links whose meshes cannot be read."""
        return {
            name: [(sphere[:3], sphere[3]) for sphere in body.get("spheres") or []]
            for name, body in self._bodies.items()
        }

    @property
    def base_link(self) -> str:
        return str(self.spec["base_link"])

    @property
    def tool_link(self) -> str:
        return str(self.spec["tool_link"])


def find_robot(robot: str, urdf: str | Path) -> RobotSource:
    """The robot that the parameters name.

    Raises:
        ConfigureError: no such robot file, or it and the parameter name no URDF.
    """
    try:
        spec = read_config(robot)
        return RobotSource(spec, "" if "tool_only" in spec else urdf or urdf_path(spec))
    except RobotError as error:
        raise ConfigureError(f"robot: {not_shipped(robot) or error}") from error


class RobotInput:
    """The robot of a node's parameters, its URDF from `robot_description` if they say so."""

    def __init__(self, node: ManagedNode, params: RobotParams) -> None:
        self._node, self._params = node, params
        self._topic = None
        if params.description:
            self._topic = Polled(node, String, "robot_description", LATCHED)

    def find(self) -> RobotSource:
        """The robot; waits for the topic if it has to.

        Raises:
            ConfigureError: as `find_robot`, the URDF is said to come from two places, or the node
                has to end while it waits.
        """
        p = self._params
        if self._topic is None:
            return find_robot(p.robot, p.urdf)
        if p.urdf:
            raise ConfigureError(f"urdf: {p.urdf}, but description: true takes it from a topic;"
                                 " give one of them")  # fmt: skip
        found = find_robot(p.robot, "not told yet")  # a wrong file is told before the waiting
        return find_robot(p.robot, self._wait(self._topic)) if found.urdf else found

    def _wait(self, topic: Polled[String]) -> str:
        name = self._node.resolve_topic_name("robot_description")
        while not self._node.stopping.is_set():
            for msg in topic.drain():
                if msg.data.strip():
                    return str(msg.data)
            self._node.publish_state(WARN, f"waiting for {name}", {})
            time.sleep(0.2)
        raise ConfigureError(f"{name}: nothing received")
