"""Perception as perception_node and a replay of its pictures put it together. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from safety_filter import images
from safety_filter.core.params import ParamTable, param, pose_fault
from safety_filter.perception.params import PerceptionParams
from safety_filter.robot_source import RobotParams, RobotSource

if TYPE_CHECKING:
    from safety_filter.perception.pipeline import Perception

EXTRINSICS = ("topic", "parameter", "tf")
NO_WORDS = (
    "no instruction came since the start, or an empty one; say it (again), or set named_share to"
    " 0 where the policy takes no words"
)


@dataclass(frozen=True)
class PerceptionNodeParams(RobotParams):
    """Parameters of perception_node beside those of the pipeline."""

    weights: str = param("", "-", None, None, "detector (.onnx); empty: the shipped one")
    frame: str = param("base", "-", None, None, "frame of the obstacles: the robot's base")
    extrinsics: str = param(
        "topic", "-", None, None, "where the camera's pose comes from", choices=EXTRINSICS
    )
    camera_xyz: tuple[float, ...] = param(
        (0.0, 0.0, 0.0), "m", -10.0, 10.0, "position of the optical frame (extrinsics: parameter)"
    )
    camera_xyzw: tuple[float, ...] = param(
        (0.0, 0.0, 0.0, 1.0), "-", -1.0, 1.0, "its orientation (extrinsics: parameter)"
    )
    image_age: float = param(0.5, "s", 0.05, 5.0, "silence after which the camera is gone")
    joint_age: float = param(0.1, "s", 0.01, 2.0, "joints must be known this close to the image")
    overlay_rate: float = param(10.0, "Hz", 0.5, 60.0, "rate of ~/overlay while it is watched")
    sync: float = param(0.02, "s", 0.0, 0.5, "largest difference between image and depth stamps")


def _pose_parameters(p: PerceptionNodeParams) -> str | None:
    return pose_fault("camera", p.camera_xyz, p.camera_xyzw)


TABLE = ParamTable.of(PerceptionNodeParams, (_pose_parameters,))


class Extrinsics(Protocol):
    """Where the camera stood that took a picture."""

    def at(self, image: Any) -> NDArray[np.float64]:
        """Pose (4, 4) of the optical frame in the base frame.

        Raises:
            ValueError: it is not known for the stamp or the frame of the image.
        """


class FixedExtrinsics:
    """A calibrated camera that does not move."""

    def __init__(self, xyz: Sequence[float], xyzw: Sequence[float]) -> None:
        """xyz, m, and quaternion of the optical frame in the base frame."""
        self._pose = images.rigid((*xyz, *xyzw))

    def at(self, image: Any) -> NDArray[np.float64]:
        """See `Extrinsics`."""
        return self._pose


class EyesError(ValueError):
    """Perception cannot be put together; the message says why."""


def build(robot: RobotSource, tuning: PerceptionParams, weights: str) -> Perception:
    """Perception of `robot` with the detector in `weights` ('': the shipped one).

    Raises:
        EyesError: the weights or the robot's geometry cannot be used.
    """
    from safety_filter.perception.detector import DEFAULT_WEIGHTS, Detector, DetectorError
    from safety_filter.perception.pipeline import Perception

    try:
        return Perception(tuning, Detector.load(weights or DEFAULT_WEIGHTS), robot.mask(tuning))
    except (DetectorError, ValueError, OSError) as error:
        raise EyesError(str(error)) from error


def may_point(instruction: str, tuning: PerceptionParams) -> bool:
    """Whether attention counts: only where words can check it. Who missed them must not guess."""
    return tuning.named_share <= 0 or bool(instruction.strip())
