"""A made-up picture through the pipeline, so that the first real one finds everything compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.camera import back_project
from safety_filter.perception.detector import Detection
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.pipeline import Perception

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
SIZE = 128  # px
ABOVE = 0.7  # m from the camera down to the table
RADIUS = 0.05  # m, of the ball and the cylinder, and half the side of the box
BALL, BOX, CYLINDER = (0.0, 0.0), (0.2, 0.1), (-0.2, 0.1)  # m from the picture's middle
LOOK = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # straight down


class _Drawn:
    """Stands in for the detector, which knows no made-up things: finds the one it is given."""

    def __init__(self, names: list[str], mask: NDArray[np.bool_]) -> None:
        self.names = names
        self._found = Detection(mask, np.zeros(4, np.float32), 0, 1.0)

    def detect(self, rgb: NDArray[np.uint8], score_min: float) -> list[Detection]:
        return [self._found]


def warm_up(perception: Perception, joints: int) -> None:
    """Compile what `perception` runs and load what its detector does; it is left as it was.

    joints: how many the arm has.
    """
    params = perception.params
    k = np.array([[SIZE, 0.0, SIZE / 2], [0.0, SIZE, SIZE / 2], [0.0, 0.0, 1.0]])
    depth, known, pose = _picture(params, k)
    rgb = np.zeros((SIZE, SIZE, 3), np.uint8)
    perception.detector.detect(rgb, params.score_min)
    # A pipeline of its own: tracks, masks and stamps of the real one are not touched
    trial = Perception(params, _Drawn(perception.detector.names, known), perception.robot_mask)
    for stamp in (0.0, 0.04, 0.08):  # seen, confirmed, moved with the tool
        trial.update(stamp, rgb, depth, k, pose, np.zeros(joints), 0.0)


def _picture(params: PerceptionParams, k: F64) -> tuple[F32, NDArray[np.bool_], F64]:
    """Depth (H, W) of a ball, a box and a cylinder on the table in the middle of the workspace,
    which of its pixels show the ball, and the camera's pose (4, 4)."""
    low, high = np.asarray(params.workspace_min), np.asarray(params.workspace_max)
    pose = np.eye(4)
    pose[:3, :3] = LOOK
    pose[:3, 3] = *((low + high)[:2] / 2), params.table_z + ABOVE
    depth = np.full((SIZE, SIZE), ABOVE, np.float32)
    ground = back_project(depth, k, pose)[..., :2] - pose[:2, 3]
    ball = np.hypot(*(ground - BALL).transpose(2, 0, 1))
    known = np.asarray(ball < RADIUS)
    depth[known] -= (RADIUS + np.sqrt(RADIUS**2 - ball[known] ** 2)).astype(np.float32)
    depth[np.abs(ground - BOX).max(axis=2) < RADIUS] -= RADIUS
    depth[np.hypot(*(ground - CYLINDER).transpose(2, 0, 1)) < RADIUS] -= RADIUS
    return depth, known, pose
