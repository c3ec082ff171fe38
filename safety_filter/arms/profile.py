"""Files in config/arms: what to start on the driver's side of an arm, and how to talk to it.

An arm whose URDF is not shipped has a `robot_file` in place of the name of one: joints and
limits with their sources, to which `safety-filter fit-robot` adds the bodies from the user's
URDF.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_filter import graph
from safety_filter.core.yaml_file import read_mapping

KINDS = ("joint_velocity", "joint_position", "trajectory", "twist")
_KEYS = {
    "title", "robot", "robot_file", "frame", "outputs", "joint_states", "robot_description",
    "stopping", "filter", "driver",
}  # fmt: skip
_OPTIONAL = {"robot", "robot_file", "filter"}


class ArmError(ValueError):
    """An arm file that cannot be used: the field, what was expected, what came."""


@dataclass(frozen=True)
class Arm:
    """One file of config/arms.

    robot: name in config/robots, '' where the user fits a robot file of their own, which begins
    as `robot_file`; frame: the base link, in which twists and obstacles are given; outputs: kind
    -> topic, the first is the default; stopping: (s, source) from a velocity of zero at the
    filter's top speed to standstill; stop_acceleration: rad/s^2 at which zeros are approached, 0
    for an arm that takes steps; filter: parameters of filter_node.
    """

    name: str
    title: str
    robot: str
    robot_file: Mapping[str, Any]
    frame: str
    outputs: Mapping[str, str]
    joint_states: str
    robot_description: str
    stopping: tuple[float, str]
    stop_acceleration: float
    filter: Mapping[str, Any]
    driver: str


def folder() -> Path:
    """config/arms in the source tree or in the installed share."""
    return graph.share("config/arms")


def names() -> tuple[str, ...]:
    """The arms there is a file for."""
    return tuple(sorted(p.stem for p in folder().glob("*.yaml")))


def load(name: str) -> Arm:
    """The arm of a name in config/arms, or of a path.

    Raises:
        ArmError: no such file, or one that lacks or misspells something.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not path.is_file():
        raise ArmError(f"arm {name}: expected one of {', '.join(names())} or a path, got {name!r}")
    return _checked(path, read_mapping(path, ArmError))


def _checked(path: Path, content: dict[str, Any]) -> Arm:
    unknown, missing = sorted(set(content) - _KEYS), sorted(_KEYS - _OPTIONAL - set(content))
    if unknown or missing:
        raise ArmError(f"{path}: unknown {unknown}, missing {missing}")
    if ("robot" in content) == ("robot_file" in content):
        raise ArmError(f"{path}: expected either robot or robot_file")
    outputs = content["outputs"]
    if not isinstance(outputs, dict) or not outputs or set(outputs) - set(KINDS):
        raise ArmError(f"{path}: outputs: expected some of {KINDS}, got {outputs!r}")
    stopping = content["stopping"]
    time = stopping.get("time") if isinstance(stopping, dict) else None
    if not isinstance(time, float) or not math.isfinite(time) or time <= 0.0:
        raise ArmError(f"{path}: stopping: expected a time in s above 0, got {stopping!r}")
    if not stopping.get("source"):
        raise ArmError(f"{path}: stopping: expected the source of the time")
    slow = stopping.get("acceleration", 0.0)
    if not isinstance(slow, int | float) or not 0.0 <= slow <= 100.0:
        raise ArmError(f"{path}: stopping: acceleration: expected 0 to 100 rad/s^2, got {slow!r}")
    words = str(stopping["source"])
    fields = {**content, "stopping": (time, words), "stop_acceleration": float(slow)}
    defaults: dict[str, Any] = {"robot": "", "robot_file": {}, "filter": {}}
    return Arm(name=path.stem, **{**defaults, **fields})


def not_shipped(robot: str) -> str | None:
    """What to do about a robot whose URDF is not shipped, None if that is not the matter."""
    if robot not in names() or load(robot).robot:
        return None
    return (
        f"{robot}: its URDF is not shipped; with yours run `safety-filter arm {robot} -o"
        f" {robot}.yaml` and `safety-filter fit-robot {robot}.urdf -o {robot}.yaml`, then give"
        f" that file as the robot, and the URDF as a path or on robot_description"
    )


def braking_time(arm: Arm, limits: Mapping[str, Mapping[str, float]]) -> float:
    """Longest time of a joint, s, from the filter's top speed to rest as the filter plans it.

    limits: joint -> velocity, acceleration (rad/s, rad/s^2). The filter's own scales apply.
    """
    from safety_filter.core.filter_params import TABLE

    params = TABLE.validate(arm.filter)
    ratio = params.velocity_scale / params.acceleration_scale
    return max(float(j["velocity"]) / float(j["acceleration"]) for j in limits.values()) * ratio
