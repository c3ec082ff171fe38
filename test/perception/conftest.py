"""An analytic cell for tests: primitives seen by a pinhole camera, without a simulator."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from perception.solids import box, cylinder

from safety_filter.perception.camera import back_project
from safety_filter.perception.detector import Detection
from safety_filter.perception.meshes import sphere
from safety_filter.perception.raster import raster_interval

F64 = NDArray[np.float64]
SIZE = 256


def looking(eye: tuple[float, float, float], at: tuple[float, float, float]) -> F64:
    """Pose (4, 4) of an optical frame at `eye` that looks at `at`."""
    z = np.subtract(at, eye)
    z = z / np.linalg.norm(z)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = eye
    return pose


@dataclass
class Cell:
    """A table at z = 0 with things on it. `things`: name -> triangles (n, 3, 3) in base.

    score: of every detection.
    """

    k: F64 = field(default_factory=lambda: np.array(
        [[287.0, 0, 127.5], [0, 287.0, 127.5], [0, 0, 1.0]]))
    pose: F64 = field(default_factory=lambda: looking((1.12, 0.0, 0.72), (0.46, 0.0, 0.06)))
    things: dict[str, F64] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    score: float = 0.9

    def put(self, name: str, triangles: F64, at: tuple[float, float, float] | F64,
            yaw: float = 0.0, class_id: int | None = None) -> None:
        """Stand `triangles` at a position of base; without a class the detector misses it."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        self.things[name] = triangles @ turn.T + np.asarray(at, float)
        if class_id is not None:
            self.classes[name] = class_id

    def picture(self) -> tuple[NDArray[np.float32], dict[str, NDArray[np.bool_]]]:
        """Depth (H, W) m and the visible mask of each thing."""
        table = box((3.0, 3.0, 0.001)) - np.array([0.0, 0.0, 0.001])
        depth = self._draw(self._split(table))
        owner = np.full(depth.shape, "", dtype=object)
        for name, triangles in self.things.items():
            own = self._draw(triangles)
            nearer = own < depth
            depth = np.where(nearer, own, depth)
            owner[nearer] = name
        depth[~np.isfinite(depth)] = 0.0
        return depth.astype(np.float32), {n: owner == n for n in self.things}

    def detections(self, masks: dict[str, NDArray[np.bool_]]) -> list[Detection]:
        """Perfect detections of the things with a class."""
        return [Detection(masks[n], np.zeros(4, np.float32), c, self.score)
                for n, c in self.classes.items() if n in masks and masks[n].sum() > 8]

    def points(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        return back_project(depth, self.k, self.pose)

    @staticmethod
    def _split(triangles: F64, n: int = 6) -> F64:
        """Smaller triangles, so that those behind the camera can be skipped."""
        for _ in range(n):
            a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
            ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
            triangles = np.concatenate([np.stack(t, 1) for t in (
                (a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        return triangles

    def _draw(self, triangles: F64) -> NDArray[np.float32]:
        local = (triangles.reshape(-1, 3) - self.pose[:3, 3]) @ self.pose[:3, :3]
        near = np.full((SIZE, SIZE), np.inf, np.float32)
        raster_interval(local.reshape(-1, 3, 3), self.k[0, 0], self.k[1, 1], self.k[0, 2],
                        self.k[1, 2], near, np.zeros((SIZE, SIZE), np.float32))
        return near


@pytest.fixture
def cell() -> Cell:
    return Cell()


@pytest.fixture
def shapes() -> dict[str, F64]:
    """Triangles of a cube, a can, a ball and a tall box, centred at the origin."""
    return {"cube": box((0.022, 0.022, 0.022)), "can": cylinder(0.026, 0.068, 32),
            "ball": sphere(0.026, rings=24), "carton": box((0.038, 0.038, 0.080)),
            "plate": cylinder(0.085, 0.012, 48)}
