"""The policy as vla_node and a replay of its pictures put it together. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safety_filter.core.params import ParamTable, param
from safety_filter.robot_source import RobotParams

if TYPE_CHECKING:
    from safety_filter.vla.policy import Policy

PARTNER_WAIT = 0.01  # s that a scene's picture waits for the hand's of its time


@dataclass(frozen=True)
class VlaParams(RobotParams):
    """Parameters of vla_node."""

    weights: str = param("", "-", None, None, "folder of the policy; empty: the shipped one")
    profile: str = param(
        "", "-", None, None, "head profile; empty: profile.yaml beside the weights; none: no tap"
    )
    frame: str = param("base", "-", None, None, "frame of the commanded twist")
    twist_rate: float = param(20.0, "Hz", 5.0, 100.0, "rate of the twist stream")
    blend: float = param(0.1, "s", 0.01, 1.0, "time in which a new chunk takes over")
    image_age: float = param(0.5, "s", 0.05, 5.0, "silence after which a camera is gone", True)
    joint_age: float = param(0.2, "s", 0.01, 2.0, "silence after which the joints are gone", True)
    wrist_skew: float = param(
        0.1, "s", 0.0, 1.0, "largest difference between the stamps of the two pictures", True
    )
    present_min: float = param(
        0.3, "-", 0.0, 1.0,
        "below it nothing in view fits the instruction; judged until something once does", True
    )


TABLE = ParamTable.of(VlaParams)


def load(weights: str, profile: str) -> Policy:
    """The policy of these parameters (see `VlaParams`).

    Raises:
        ValueError, OSError: weights or profile cannot be used.
    """
    # Torch and transformers load here: not with the parameters, which every page lists
    from safety_filter.vla.policy import PROFILE, SHIPPED, Policy

    folder = Path(weights) if weights else SHIPPED
    chosen = None if profile == "none" else Path(profile) if profile else folder / PROFILE
    return Policy.load(folder, chosen)
