"""Cameras of the simulated cell, rendered by PyBullet's software renderer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pybullet
from numpy.typing import NDArray

from safety_filter.sim.scene import Appearance

NEAR, FAR = 0.02, 3.0
SCENE_CAMERA = {"eye": (1.12, 0.0, 0.72), "look": (0.46, 0.0, 0.06), "fov_deg": 48.0}
WRIST_FOV_DEG = 75.0
# The wrist camera in the hand's frame: beside the fingers, tilted towards their tips.
WRIST_EYE = (0.095, 0.0, 0.035)
WRIST_LOOK = (0.022, 0.0, 0.150)


@dataclass(frozen=True)
class Frame:
    """One RGB-D picture.

    rgb (H, W, 3) uint8; depth (H, W) float32 along the optical axis in m, 0 where nothing was
    hit; seg (H, W) int32 PyBullet body ids, -1 for none (ground truth, for labels and tests
    only); K (3, 3) in pixels; T_base_cam (4, 4) pose of the optical frame; stamp in s.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    seg: NDArray[np.int32]
    K: NDArray[np.float64]
    T_base_cam: NDArray[np.float64]
    stamp: float


def look_at(eye: NDArray[np.float64], look: NDArray[np.float64],
            up: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pose (4, 4) of an optical frame (z forward, y down) at `eye` that looks at `look`."""
    z = (look - eye) / np.linalg.norm(look - eye)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    pose[:3, 3] = eye
    return pose


def intrinsics(width: int, height: int, fov_deg: float) -> NDArray[np.float64]:
    """Pinhole matrix for a vertical field of view and square pixels.

    Integer coordinates are where the renderer takes its samples: it samples the corners of pixels
    and flips the picture, so the principal point is half a pixel off the centre each way.
    """
    f = height / 2 / np.tan(np.radians(fov_deg) / 2)
    return np.array([[f, 0, width / 2], [0, f, height / 2 - 1], [0, 0, 1.0]])


def scene_camera_pose(appearance: Appearance) -> NDArray[np.float64]:
    """Pose of the fixed camera, with the scene's random offset."""
    eye = np.add(SCENE_CAMERA["eye"], appearance.camera_offset)
    look = np.add(SCENE_CAMERA["look"], appearance.look_offset)
    return look_at(eye, look, np.array([0.0, 0.0, 1.0]))


def wrist_camera_pose(T_base_hand: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pose of the wrist camera for a pose (4, 4) of the hand."""
    eye = T_base_hand[:3, :3] @ np.array(WRIST_EYE) + T_base_hand[:3, 3]
    look = T_base_hand[:3, :3] @ np.array(WRIST_LOOK) + T_base_hand[:3, 3]
    return look_at(eye, look, T_base_hand[:3, 0])


@dataclass(frozen=True)
class Drawing:
    """What the renderer gives: rgba (H, W) uint32, its depth buffer (H, W) and body ids (H, W)."""

    rgba: NDArray[np.uint32]
    zbuffer: NDArray[np.float32]
    seg: NDArray[np.int32]

    def before(self, backdrop: Drawing) -> Drawing:
        """This in front of, or behind, what `backdrop` shows, as if both were drawn at once.

        But for a pixel in some forty pictures, where a thing meets the table: there the depths
        are equal to the last bit that the renderer gives, though not to what it compares.
        """
        ours = self.zbuffer <= backdrop.zbuffer  # of equals the renderer shows the later one
        return Drawing(np.where(ours, self.rgba, backdrop.rgba),
                       np.where(ours, self.zbuffer, backdrop.zbuffer),
                       np.where(ours, self.seg, backdrop.seg))


def draw(client: int, size: tuple[int, int], pose: NDArray[np.float64], fov_deg: float,
         appearance: Appearance) -> Drawing:
    """Draw all that is visible in `client`; see `render`."""
    width, height = size
    eye, forward, up = pose[:3, 3], pose[:3, 2], -pose[:3, 1]
    view = pybullet.computeViewMatrix(eye, eye + forward, up)
    projection = pybullet.computeProjectionMatrixFOV(fov_deg, width / height, NEAR, FAR)
    _, _, rgba, zbuffer, seg = pybullet.getCameraImage(
        width, height, view, projection, lightDirection=appearance.light, shadow=0,
        lightAmbientCoeff=appearance.ambient, lightDiffuseCoeff=0.45, lightSpecularCoeff=0.02,
        renderer=pybullet.ER_TINY_RENDERER, physicsClientId=client,
    )
    return Drawing(np.ascontiguousarray(rgba, np.uint8).view(np.uint32).reshape(height, width),
                   np.asarray(zbuffer, np.float32).reshape(height, width),
                   np.asarray(seg, np.int32).reshape(height, width))


def render(client: int, size: tuple[int, int], pose: NDArray[np.float64], fov_deg: float,
           appearance: Appearance, stamp: float, backdrop: Drawing | None = None) -> Frame:
    """Render `size` = (width, height) from an optical-frame pose.

    backdrop: a drawing from the same pose of what `client` does not show now.
    """
    width, height = size
    drawing = draw(client, size, pose, fov_deg, appearance)
    if backdrop is not None:
        drawing = drawing.before(backdrop)
    depth = FAR * NEAR / (FAR - (FAR - NEAR) * drawing.zbuffer)
    depth[drawing.zbuffer >= 1.0] = 0.0
    rgba = drawing.rgba.view(np.uint8).reshape(height, width, 4)
    return Frame(np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8),
                 depth.astype(np.float32), drawing.seg, intrinsics(width, height, fov_deg), pose,
                 stamp)


@cache
def scratch_folder() -> TemporaryDirectory[str]:
    """A folder for files that PyBullet can only read from disk; gone when the process ends."""
    return TemporaryDirectory(prefix="safety_filter_sim_")


@cache
def texture_files() -> tuple[str, ...]:
    """Eight table textures (PNG paths), drawn once a process: plain, wood, speckle, checks."""
    folder = FilePath(scratch_folder().name)
    rng = np.random.default_rng(0)
    files = []
    for index in range(8):
        size = 128
        noise = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), 1 + index)
        noise /= np.abs(noise).max()
        y, x = np.mgrid[:size, :size] / size
        wood = np.sin(2 * np.pi * (5 + index) * y + 3 * noise)
        checks = ((x * 8).astype(int) + (y * 8).astype(int)) % 2 - 0.5
        pattern = (0.1 * noise, 0.12 * wood, 0.25 * noise, 0.12 * checks)[index % 4]
        tint = rng.uniform(0.75, 1.0, 3)
        image = np.clip((0.85 + pattern)[..., None] * tint, 0, 1)
        path = folder / f"table{index}.png"
        cv2.imwrite(str(path), (image * 255).astype(np.uint8))
        files.append(str(path))
    return tuple(files)
