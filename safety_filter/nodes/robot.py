"""The robot that a node works with: a shipped one by name, or the user's file and URDF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_filter.core.params import param
from safety_filter.core.robot import RobotError, read_config, urdf_path
from safety_filter.nodes.base import ConfigureError


@dataclass(frozen=True)
class RobotParams:
    """Which robot; the same two parameters on every node that has a model."""

    robot: str = param("panda", "-", None, None, "shipped robot, or path of a robot file (YAML)")
    urdf: str = param(
        "", "-", None, None, "path of the URDF; empty: what the robot file says, or the topic"
    )


@dataclass(frozen=True)
class RobotSource:
    """The robot file's content and the URDF (path or XML text)."""

    spec: dict[str, Any]
    urdf: str | Path

    @property
    def arm_joints(self) -> tuple[str, ...]:
        return tuple(self.spec["joints"])

    @property
    def finger_joints(self) -> tuple[str, ...]:
        return tuple((self.spec.get("gripper") or {}).get("joints") or ())

    def links(self, kind: str) -> tuple[str, ...]:
        """Links whose bodies are of a kind: arm, hand or finger."""
        bodies = self.spec.get("bodies") or {}
        return tuple(name for name, b in bodies.items() if b.get("kind", "arm") == kind)

    @property
    def tool_link(self) -> str:
        return str(self.spec["tool_link"])


def find_robot(robot: str, urdf: str) -> RobotSource:
    """The robot that the parameters name.

    Raises:
        ConfigureError: no such robot file, or it and the parameter name no URDF.
    """
    try:
        spec = read_config(robot)
        return RobotSource(spec, urdf or urdf_path(spec))
    except RobotError as error:
        raise ConfigureError(f"robot: {error}") from error
