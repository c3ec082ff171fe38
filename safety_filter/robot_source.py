"""A robot file as nodes and replays read it, so that both make the same of it. No ROS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.params import param
from safety_filter.core.robot import RobotError
from safety_filter.perception.params import PerceptionParams

if TYPE_CHECKING:
    from safety_filter.perception.robot_mask import RobotMask

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
class Gripper:
    """The joints that move the fingers; gains: the position of each, m, for 1 m of opening."""

    gains: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Gripper:
        """Of a robot file; without joints where it has none.

        Raises:
            RobotError: gripper.joints is not joint: m for 1 m of opening.
        """
        given = (spec.get("gripper") or {}).get("joints") or {}
        if not isinstance(given, Mapping):
            raise RobotError(f"gripper.joints: expected joint: m for 1 m of opening, got {given}")
        for name, gain in given.items():
            number = isinstance(gain, int | float) and not isinstance(gain, bool)
            if not number or not math.isfinite(gain) or gain == 0:
                raise RobotError(
                    f"gripper.joints: {name}: expected m of it for 1 m of opening, other than"
                    f" zero (a joint that does not move is fixed in the URDF), got {gain!r}"
                )
        return cls({str(name): float(gain) for name, gain in given.items()})

    @property
    def joints(self) -> tuple[str, ...]:
        return tuple(self.gains)

    def opening(self, positions: NDArray[np.float64]) -> float:
        """Opening in m at joint positions (n,), m; the best fit where they disagree. 0 for none.

        For gains of 0.5 each, to the last bit their sum.
        """
        gains, squares = self._row
        return float((gains * positions).sum()) / squares

    @cached_property
    def _row(self) -> tuple[NDArray[np.float64], float]:
        """The gains, and the sum of their squares."""
        gains = np.array(list(self.gains.values()), float)
        return gains, float(gains @ gains) or 1.0


@dataclass(frozen=True)
class RobotSource:
    """The robot file's content, the URDF (path or XML text) and the gripper.

    Raises:
        RobotError: the robot file's gripper is none.
    """

    spec: dict[str, Any]
    urdf: str | Path
    gripper: Gripper = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gripper", Gripper.of(self.spec))

    @property
    def arm_joints(self) -> tuple[str, ...]:
        """Raises RobotError: the robot is a tool without a model of its arm."""
        if "joints" not in self.spec:
            raise RobotError(
                f"robot: {self.tool_link} alone has no joints, which filter_node only can do"
                " without: start with monitor:=false, perception:=false, vla:=false"
            )
        return tuple(self.spec["joints"])

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

    def mask(self, tuning: PerceptionParams | None = None) -> RobotMask:
        """The robot to be drawn into pictures; it knows the pose of the tool too.

        Raises:
            ValueError: a joint or link that is missing, or geometry that cannot be read.
        """
        from safety_filter.perception.robot_mask import RobotMask

        p = tuning or PerceptionParams()
        return RobotMask(
            self.urdf,
            self.arm_joints,
            self.gripper.gains,
            self.tool_link,
            p.robot_tolerance,
            p.robot_grow_px,
            self.spheres,
            self.base_link,
        )
