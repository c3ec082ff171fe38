"""Finds the heads that point at what the policy is about to touch, from a few labelled frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safety_filter.sim.catalogue import TRAIN_TEMPLATES
from safety_filter.sim.render import Frame
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World
from safety_filter.vla.dataset import expert_act, proprioception, record, rollout, scatter_start
from safety_filter.vla.policy import Policy
from safety_filter.vla.profile import FARTHEST, HeadProfile, fingerprint, moved_back
from safety_filter.vla.tap import AttentionTap

Maps = NDArray[np.float32]
WRIST_LEAST = 0.5  # cells of the wrist picture's grid that the right object must cover


@dataclass(frozen=True)
class LabelledFrame:
    """One state of the cell with the objects' masks.

    masks (n, g, g): share of each cell that the object covers, in 0..1; right: index of the one
    that the policy should attend to (the target, or once it is in hand the destination);
    nearest: index of the one nearest to the tool; visible: share of the right object's outline
    that is not hidden; wrist_masks (n, h, h): like masks, of the wrist picture.
    """

    scene: NDArray[np.uint8]
    wrist: NDArray[np.uint8]
    proprio: NDArray[np.float32]
    instruction: str
    phase: str
    names: tuple[str, ...]
    masks: NDArray[np.float32]
    right: int
    nearest: int
    visible: float
    wrist_masks: NDArray[np.float32]

    @property
    def by_wrist(self) -> LabelledFrame | None:
        """This frame with the wrist picture's masks; None if they hardly show the right object."""
        shows = self.wrist_masks[self.right].sum() >= WRIST_LEAST
        return replace(self, masks=self.wrist_masks) if shows else None


def label_frame(world: World, grid: int, wrist_grid: int) -> LabelledFrame | None:
    """The present state of a world as a labelled frame; None if the right object is unseen."""
    frame = world.render("scene", (256, 256))
    task = world.scene
    held = world.held == world.bodies[task.target_spec.name]
    right_name = (task.destination_spec if held else task.target_spec).name
    candidates = [s for s in task.specs
                  if (s.role == "destination") == held and (held or s.role == "object")]
    names = tuple(s.name for s in candidates)
    right = names.index(right_name)
    pixels = [np.count_nonzero(frame.seg == world.bodies[n]) for n in names]
    if pixels[right] < 12:
        return None
    tool = world.tool_pose()[0]
    distances = [np.linalg.norm(world.object_position(n) - tool) for n in names]
    from_hand = world.render("wrist", (256, 256))
    expected = _outline_pixels(world, candidates[right].name, frame.K, frame.T_base_cam)
    return LabelledFrame(
        world.render("scene", (128, 128)).rgb, world.render("wrist", (64, 64)).rgb,
        proprioception(world), task.instruction, "carry" if held else "approach", names,
        _masks(world, frame, names, grid), right, int(np.argmin(distances)),
        float(min(1.0, pixels[right] / max(expected, 1.0))),
        _masks(world, from_hand, names, wrist_grid))


def _masks(world: World, frame: Frame, names: Sequence[str], grid: int) -> NDArray[np.float32]:
    """Share of each cell that each object covers, (n, grid, grid), in a square picture."""
    cell = frame.seg.shape[0] // grid
    masks = [(frame.seg == world.bodies[n]).astype(np.float32)
             .reshape(grid, cell, grid, cell).mean((1, 3)) for n in names]
    return np.array(masks)


def _outline_pixels(world: World, name: str, K: NDArray[np.float64],
                    pose: NDArray[np.float64]) -> float:
    """Roughly the number of pixels an object would cover if nothing hid it."""
    spec = next(s for s in world.scene.specs if s.name == name)
    distance = float(pose[:3, 2] @ (world.object_position(name) - pose[:3, 3]))
    a, b, c = spec.shape.half_extents
    # Seen from about 40 degrees above: width times foreshortened depth and height.
    area = 2 * b * (2 * a * 0.64 + 2 * c * 0.77) * (0.85 if spec.shape.name != "zone" else 1.0)
    return float(area * (K[0, 0] / distance) ** 2)


def simulate_frames(seeds: range, grid: int, wrist_grid: int, per_episode: int = 4, *,
                    held_out: bool = False, destinations: int = 1) -> Iterator[LabelledFrame]:
    """Labelled frames of noisy expert episodes, both phases alike; `destinations` is the least
    number of them in a scene."""
    world: World | None = None
    for seed in seeds:
        rng = np.random.default_rng([seed, 11])
        scene = generate(seed, "free", held_out=held_out)
        if sum(s.role == "destination" for s in scene.specs) < destinations:
            continue
        scene = scene.retask(scene.target, scene.destination,
                             TRAIN_TEMPLATES[int(rng.integers(len(TRAIN_TEMPLATES)))])
        if world is None:
            world = World(scene)
        else:
            world.reset(scene)
        if rng.random() < 0.3:
            scatter_start(world, rng)
        quota = {"approach": per_episode // 2, "carry": per_episode // 2}
        for step in rollout(world, rng, expert_act, 0.5):
            if not any(quota.values()):
                break
            if rng.random() < 0.12:
                row = record(world, step)
                placed = row["held"] < 0 and world.success()
                frame = None if placed else label_frame(world, grid, wrist_grid)
                if frame is not None and quota[frame.phase] > 0:
                    quota[frame.phase] -= 1
                    yield frame
    if world is not None:
        world.close()


def attention_maps(policy: Policy, frames: list[LabelledFrame], camera: str = "scene") -> Maps:
    """Maps (frames, layers, heads, g, g) of the action token over one camera's picture."""
    config = policy.model.config
    heads = [(i, j) for i in range(config.layers) for j in range(config.heads)]
    maps = []
    with AttentionTap(policy.model, heads, camera) as tap, torch.inference_mode():
        for frame in frames:
            policy.act(frame.scene, frame.wrist, frame.proprio, frame.instruction, 0.0)
            maps.append(tap.maps()[0])
    stacked = np.stack(maps)
    return stacked.reshape(len(frames), config.layers, config.heads, *stacked.shape[2:])


def points_at(attention: Maps, frame: LabelledFrame) -> int:
    """Index of the object a map (g, g) points at: the greatest mass per visible area."""
    mass = (attention[None] * frame.masks).sum((1, 2))
    area = frame.masks.sum((1, 2))
    return int(np.argmax(np.where(area > 0, mass / np.maximum(area, 1e-6), -1.0)))


def peak_on_object(attention: Maps, frame: LabelledFrame) -> bool:
    """Whether the greatest cell of a map touches the right object."""
    cell = np.unravel_index(int(np.argmax(attention)), attention.shape)
    return bool(frame.masks[frame.right][cell] > 0)


def score(maps: Maps, frames: list[LabelledFrame]) -> dict[str, float]:
    """Pointing accuracy, peak accuracy and mean mass on the right object for maps (n, g, g)."""
    hits = [points_at(m, f) == f.right for m, f in zip(maps, frames, strict=True)]
    peaks = [peak_on_object(m, f) for m, f in zip(maps, frames, strict=True)]
    mass = [float((m * (f.masks[f.right] > 0)).sum()) for m, f in zip(maps, frames, strict=True)]
    return {"n": len(frames), "pointing": float(np.mean(hits)), "peak": float(np.mean(peaks)),
            "mass": float(np.mean(mass))}


def controls(maps: Maps, frames: list[LabelledFrame], seed: int = 0) -> dict[str, Any]:
    """What pointing is worth without the head: chance, nearest to the gripper, a uniform map's
    mass, maps shuffled between frames, and the mean of all heads (maps (n, L, H, g, g))."""
    order = np.random.default_rng(seed).permutation(len(frames))
    flat = maps.reshape(len(frames), -1, *maps.shape[3:])
    shuffled = [score(flat[order, i], frames)["pointing"] for i in range(flat.shape[1])]
    return {
        "chance": float(np.mean([1 / len(f.names) for f in frames])),
        "nearest_to_gripper": float(np.mean([f.nearest == f.right for f in frames])),
        "uniform_mass": float(np.mean([(f.masks[f.right] > 0).mean() for f in frames])),
        "shuffled_best_head": max(shuffled),
        "head_mean": score(flat.mean(1), frames),
    }


def _worth(found: dict[str, float]) -> float:
    """Accuracy alone is coarse on so few frames: a hit by little mass is worth less."""
    return found["pointing"] + found["mass"]


def best_offset(maps: Maps, frames: list[LabelledFrame]) -> tuple[tuple[int, int],
                                                                   dict[str, float]]:
    """The offset of at most FARTHEST cells either way with which a head's maps (n, g, g) are
    worth most, and the score with it."""
    cells = range(-FARTHEST, FARTHEST + 1)
    scores = {(y, x): score(moved_back(maps, (y, x)), frames) for y in cells for x in cells}
    best = max(scores, key=lambda o: _worth(scores[o]))
    return best, scores[best]


def calibrate(model: Path, policy: Policy, frames: list[LabelledFrame]) -> HeadProfile:
    """The best head of each phase and its offset on labelled frames (at most 50 are needed); that
    of the wrist picture on the frames of the approach in which it shows the target, if any.

    Raises: ValueError if a phase has no frame.
    """
    maps = attention_maps(policy, frames)
    found: dict[str, tuple[int, int]] = {}
    scores: dict[str, Any] = {}
    for phase in ("approach", "carry"):
        chosen = [i for i, f in enumerate(frames) if f.phase == phase]
        if not chosen:
            raise ValueError(f"calibration: expected labelled frames of the {phase} phase, got "
                             f"none among {len(frames)}")
        head, scores[phase] = _best_head(maps[chosen], [frames[i] for i in chosen])
        found |= {phase: head[0], f"{phase}_offset": head[1]}
    from_hand = seen_by_wrist(frames)
    if from_hand:
        head, scores["wrist"] = _best_head(attention_maps(policy, from_hand, "wrist"), from_hand)
        found |= {"wrist": head[0], "wrist_offset": head[1]}
    return HeadProfile(fingerprint(model), **found, scores=scores)


def seen_by_wrist(frames: list[LabelledFrame]) -> list[LabelledFrame]:
    """The frames of the approach in which the wrist picture shows the target, with its masks."""
    return [w for f in frames if f.phase == "approach" and (w := f.by_wrist) is not None]


def _best_head(maps: Maps, frames: list[LabelledFrame],
               ) -> tuple[tuple[tuple[int, int], tuple[int, int]], dict[str, Any]]:
    """The head that maps (n, L, H, g, g) are worth most of, its offset, and all heads' scores."""
    heads = [(a, b) for a in range(maps.shape[1]) for b in range(maps.shape[2])]
    fits = {(a, b): best_offset(maps[:, a, b], frames) for a, b in heads}
    best = max(heads, key=lambda h: _worth(fits[h][1]))
    table = {f"layer {a} head {b}": fits[a, b][1] | {"offset": list(fits[a, b][0])}
             for a, b in heads}
    return (best, fits[best][0]), {"heads": table, "controls": controls(maps, frames)}
