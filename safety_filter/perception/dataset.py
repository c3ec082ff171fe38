"""Labelled pictures for the detector, rendered by the simulator; a pure function of the seeds.

Each scene of the simulator is crowded with more known shapes in any colour (also on destinations
and in the air), and photographed several times with the arm in random reachable poses, sometimes
with an object in the hand, movers anywhere along their paths. Labels come from the renderer's
segmentation. Shapes that the catalogue calls unknown never appear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.sim.catalogue import CLASS_NAMES, COLOURS, GRASPABLE, OBSTACLES
from safety_filter.sim.scene import ObjectSpec, Scene, generate
from safety_filter.sim.world import World

TRAIN_SEED, VAL_SEED, TEST_SEED, CROWDED_SEED = 1_000_000, 2_000_000, 3_000_000, 3_500_000
MIN_LABEL_PIXELS = 12
FRAMES_PER_SCENE = 2
Mask = NDArray[np.bool_]
_MOVABLE = {**GRASPABLE, **OBSTACLES}


@dataclass(frozen=True)
class Labelled:
    """One picture (H, W, 3) uint8 with the visible mask (H, W) and class id of each object."""

    rgb: NDArray[np.uint8]
    masks: list[Mask]
    classes: list[int]


def pictures(first_seed: int, scenes: int, crowd: bool = True) -> Iterator[Labelled]:
    """Yield FRAMES_PER_SCENE pictures of each scene `first_seed` .. `first_seed + scenes - 1`.

    Without `crowd` the scenes are those of the simulator, less the unknown shapes.
    """
    world: World | None = None
    try:
        for seed in range(first_seed, first_seed + scenes):
            rng = np.random.default_rng([seed, 77])
            scene = generate(seed, ("free", "demo")[seed % 2])
            scene = crowded(scene, rng) if crowd else known_only(scene)
            if world is None:
                world = World(scene)
            else:
                world.reset(scene)
            for _ in range(FRAMES_PER_SCENE):
                pose_at_random(world, rng)
                yield label(world)
    finally:
        if world is not None:
            world.close()


def known_only(scene: Scene) -> Scene:
    """The scene without the shapes that the detector is not to know."""
    specs = tuple(s for s in scene.specs if s.shape.known)
    return dataclasses.replace(scene, specs=specs, target=specs.index(scene.target_spec),
                               destination=specs.index(scene.destination_spec))


def crowded(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene without unknown shapes, some colours redrawn, and with up to six more objects."""
    scene = known_only(scene)
    specs, destination = scene.specs, scene.destination_spec
    extra: list[ObjectSpec] = []
    for i in range(int(rng.integers(1, 7))):
        shape = list(_MOVABLE.values())[int(rng.integers(len(_MOVABLE)))]
        height = shape.half_extents[2]
        if rng.random() < 0.25:
            height += float(rng.uniform(0.03, 0.25))
        for _ in range(30):
            x, y = rng.uniform((0.30, -0.40), (0.76, 0.40))
            others = [*specs, *extra]
            if all(np.hypot(x - o.position[0], y - o.position[1])
                   > shape.radius + o.shape.radius + 0.01 for o in others):
                rgb = shape.colour or _colour(rng)
                extra.append(ObjectSpec(f"extra {i}", shape, rgb, (float(x), float(y), height),
                                        float(rng.uniform(-3.1, 3.1)), "object"))
                break
    if rng.random() < 0.4:
        shape = list(GRASPABLE.values())[int(rng.integers(len(GRASPABLE)))]
        base = destination.shape
        x, y = np.add(destination.position[:2], rng.uniform(-0.04, 0.04, 2))
        floor = 2 * base.half_extents[2] if base.name in ("plate", "zone") else 0.006
        position = (float(x), float(y), floor + shape.half_extents[2])
        extra.append(ObjectSpec("placed", shape, _colour(rng), position,
                                float(rng.uniform(-3.1, 3.1)), "object"))
    recoloured = [
        dataclasses.replace(s, rgb=_colour(rng))
        if s.shape.colour is None and rng.random() < 0.4 else s for s in specs]
    return dataclasses.replace(scene, specs=(*recoloured, *extra))


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """One of the catalogue's colours with jitter, or any colour at all."""
    if rng.random() < 0.5:
        base = np.array(list(COLOURS.values())[int(rng.integers(len(COLOURS)))])
        rgb = np.clip(base + rng.uniform(-0.08, 0.08, 3), 0, 1)
    else:
        rgb = rng.uniform(0.05, 0.95, 3)
    return float(rgb[0]), float(rgb[1]), float(rgb[2])


def pose_at_random(world: World, rng: np.random.Generator) -> None:
    """Put the arm, perhaps with an object in the hand, and the movers somewhere at random."""
    for spec in world.scene.specs:
        position = spec.position
        if spec.path is not None:
            at = spec.path.state(float(rng.uniform(0.0, 12.0)))[0]
            position = (float(at[0]), float(at[1]), float(at[2]))
        world.place_object(spec.name, np.asarray(position), spec.yaw)
    opening = float(rng.uniform(0.0, 0.08))
    if rng.random() < 0.12:
        world.teleport(rng.uniform([-2, -1, -2, -2.8, -2, 0.5, -2], [2, 1, 2, -1, 2, 3.2, 2]),
                       opening)
        return
    for _ in range(20):
        tool = rng.uniform((0.32, -0.36, 0.02), (0.72, 0.36, 0.32))
        if rng.random() < 0.3:  # about to grasp, or just after
            graspable = [s for s in world.scene.specs if s.shape.graspable]
            spec = graspable[int(rng.integers(len(graspable)))]
            lift = abs(float(rng.normal(0, 0.05)))
            tool = np.add(spec.position, rng.normal(0, 0.006, 3) + (0, 0, lift))
        yaw, tilt = rng.normal(0, 0.5), rng.normal(0, 0.12, 2)
        q = world.inverse_kinematics(tool, _pointing_down(yaw, tilt))
        if np.isfinite(q).all():
            break
    world.teleport(q, opening)
    if rng.random() < 0.35:
        _put_in_hand(world, rng, q)


def _pointing_down(yaw: float, tilt: NDArray[np.float64]) -> NDArray[np.float64]:
    z = np.array([tilt[0], tilt[1], -1.0])
    z /= np.linalg.norm(z)
    x = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    x -= z * float(x @ z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _put_in_hand(world: World, rng: np.random.Generator, q: NDArray[np.float64]) -> None:
    graspable = [s for s in world.scene.specs if s.shape.graspable]
    spec = graspable[int(rng.integers(len(graspable)))]
    position, rotation = world.tool_pose()
    # Fingers close along the y axis of the tool frame.
    yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0])) + float(rng.normal(0, 0.05))
    world.teleport(q, float(np.clip(2 * spec.shape.half_extents[1] + 0.002, 0.0, 0.08)))
    world.place_object(spec.name, position + rotation @ rng.normal(0, (0.005, 0.002, 0.008)), yaw)


def label(world: World) -> Labelled:
    """Photograph the world as it is and label what is visible enough."""
    frame = world.render("scene")
    masks, classes = [], []
    for spec in world.scene.specs:
        if not spec.shape.known:
            continue
        mask = frame.seg == world.bodies[spec.name]
        if int(mask.sum()) >= MIN_LABEL_PIXELS:
            masks.append(mask)
            classes.append(CLASS_NAMES.index(spec.shape.name))
    return Labelled(frame.rgb, masks, classes)


def polygon(mask: Mask) -> NDArray[np.float64] | None:
    """Outline (n, 2) of a mask in pixels; parts split by an occluder are joined by a thin line."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_NONE)
    parts = [c[:, 0].astype(float) for c in contours if len(c) >= 4]
    if not parts:
        return None
    parts.sort(key=len, reverse=True)
    outline = parts[0]
    for part in parts[1:]:
        distance = np.linalg.norm(outline[:, None] - part[None], axis=2)
        i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
        ring = np.roll(part, -int(j), axis=0)
        outline = np.concatenate([outline[: i + 1], ring, ring[:1], outline[i:]])
    return outline


def write(folder: Path, first_seed: int, scenes: int, crowd: bool = True) -> int:
    """Write pictures and labels in the layout of ultralytics; returns the number of pictures.

    `folder/images/*.png` and `folder/labels/*.txt`, one line an object: class and outline, in
    fractions of width and height. A folder that is complete already is left as it is.
    """
    done = folder / f"complete_{first_seed}_{scenes}"
    total = scenes * FRAMES_PER_SCENE
    if done.exists():
        return total
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures(first_seed, scenes, crowd)):
        name = f"{first_seed + i // FRAMES_PER_SCENE}_{i % FRAMES_PER_SCENE}"
        height, width = picture.rgb.shape[:2]
        lines = []
        for mask, class_id in zip(picture.masks, picture.classes, strict=True):
            outline = polygon(mask)
            if outline is not None:
                scaled = (outline + 0.5) / (width, height)
                lines.append(f"{class_id} " + " ".join(f"{v:.5f}" for v in scaled.ravel()))
        (folder / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")
        cv2.imwrite(str(folder / "images" / f"{name}.png"), picture.rgb[..., ::-1])
    done.touch()
    return total
