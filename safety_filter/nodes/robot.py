"""The robot that a node works with: a shipped one by name, or the user's file and URDF."""

from __future__ import annotations

import time
from pathlib import Path

from std_msgs.msg import String

from safety_filter.arms.profile import not_shipped
from safety_filter.core.robot import RobotError, read_config, urdf_path
from safety_filter.nodes.base import WARN, ConfigureError, ManagedNode
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import LATCHED
from safety_filter.robot_source import RobotParams, RobotSource


def find_robot(robot: str, urdf: str | Path) -> RobotSource:
    """The robot that the parameters name.

    Raises:
        ConfigureError: no such robot file, it and the parameter name no URDF, or its gripper is
            none.
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
