"""From masks and depth to blobs: the visible surface points of each thing in the picture.

Depth has the sharp edges that a detector's masks lack, so masks only name surfaces: inside a mask
the depth is trimmed, beyond its edge it may grow along an unbroken surface by a few pixels. What
stands above the table and belongs neither to the robot nor to a detection forms class-agnostic
clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception.detector import Detection

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Window = tuple[slice, slice]
_RING = 3  # px round a thing in which its ground shows


@dataclass(frozen=True)
class Blob:
    """Visible pixels of one thing: mask (H, W), `rows`, `cols` (n,), points (n, 3) in `base`."""

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    points: F32
    class_id: int
    score: float
    hidden: Mask  # (n,) pixels at an edge where something nearer, or the picture's end, begins
    ground: float = 0.0  # height of what it would stand on, m
    support: bool = False  # it is of a class that others rest on, and rests on the table itself

    def part(self, kept: Mask, class_id: int, score: float) -> Blob:
        """The blob of some of its pixels (n,), of another class."""
        return Blob(self.rows[kept], self.cols[kept], self.points[kept], class_id, score,
                    self.hidden[kept], self.ground, self.support)


@njit(cache=True)  # type: ignore[untyped-decorator]
def standing(depth: F32, points: F32, robot: Mask, low: F32, high: F32,
             floor: float) -> tuple[Mask, Mask]:
    """Return which pixels (H, W) have depth inside the corners `low` and `high` (3,) and are not
    the robot, and which of those are above the height `floor`; m."""
    valid, above = np.zeros(depth.shape, np.bool_), np.zeros(depth.shape, np.bool_)
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            if depth[v, u] <= 0 or robot[v, u]:
                continue
            inside = True
            for i in range(3):
                inside &= low[i] < points[v, u, i] < high[i]
            valid[v, u] = inside
            above[v, u] = inside and points[v, u, 2] > floor
    return valid, above


@njit(cache=True)  # type: ignore[untyped-decorator]
def surfaces(depth: F32, allowed: Mask, step: float) -> Labels:
    """Label pixels (H, W) joined by depth steps below `step`, m; -1 where not `allowed`."""
    height, width = depth.shape
    parent = np.full(height * width, -1, np.int32)
    for v in range(height):
        for u in range(width):
            if not allowed[v, u]:
                continue
            i = v * width + u
            parent[i] = i
            for k in range(4):
                dv = 0 if k == 0 else -1
                du = -1 if k in (0, 1) else (0 if k == 2 else 1)
                a, b = v + dv, u + du
                if a < 0 or b < 0 or b >= width or not allowed[a, b]:
                    continue
                if abs(depth[v, u] - depth[a, b]) >= step:
                    continue
                x, y = i, a * width + b
                while parent[x] != x:
                    parent[x] = parent[parent[x]]
                    x = parent[x]
                while parent[y] != y:
                    parent[y] = parent[parent[y]]
                    y = parent[y]
                if x != y:
                    if x < y:
                        parent[y] = x
                    else:
                        parent[x] = y
    out = np.full((height, width), -1, np.int32)
    count = 0
    for i in range(height * width):
        if parent[i] < 0:
            continue
        x = i
        while parent[x] != x:
            x = parent[x]
        v, u = i // width, i % width
        if x == i:
            out[v, u] = count
            count += 1
        else:
            out[v, u] = out[x // width, x % width]
    return out


def median(values: F32) -> np.floating[Any]:
    """Return the median of values (n,), n > 0; for few values numpy's own costs five times it."""
    middle = values.size // 2
    if values.size % 2:
        return np.partition(values, middle)[middle]
    part = np.partition(values, (middle - 1, middle))
    return (part[middle - 1] + part[middle]) / 2


def trim(depth: F32, mads: float, floor: float) -> Mask:
    """Return which of depths (n,) lie within `mads` deviations, or `floor` m, of the median."""
    deviation = np.abs(depth - median(depth))
    return np.asarray(deviation <= max(floor, mads * 1.4826 * float(median(deviation))))


def window(mask: Mask, margin: int) -> Window | None:
    """Return rows and columns that hold a mask (H, W) and `margin` px around it; None if empty."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return None
    return (slice(max(y - margin, 0), y + height + margin),
            slice(max(x - margin, 0), x + width + margin))


def _marked(labels: Labels, chosen: NDArray[np.integer[Any]]) -> Mask:
    """Which of `labels` are among `chosen`, which are some of them; -1 never is."""
    among = np.zeros(labels.max(initial=-1) + 2, np.bool_)
    among[chosen] = True
    among[-1] = False
    return np.asarray(among[labels])


@njit(cache=True)  # type: ignore[untyped-decorator]
def hidden_edges(depth: F32, rows: NDArray[np.intp], cols: NDArray[np.intp], robot: Mask,
                 step: float, reach: int = 2) -> Mask:
    """Return which pixels (n,) lie at an edge behind something else.

    That is: within `reach` pixels, outside the blob, there is a surface nearer by `step`, m, or
    the robot at no greater depth, or the picture ends.
    """
    height, width = depth.shape
    inside = np.zeros((height, width), np.bool_)
    for i in range(rows.size):
        inside[rows[i], cols[i]] = True
    found = np.zeros(rows.size, np.bool_)
    for i in range(rows.size):
        own = depth[rows[i], cols[i]]
        for dv, du in ((reach, 0), (-reach, 0), (0, reach), (0, -reach)):
            v, u = rows[i] + dv, cols[i] + du
            if v < 0 or u < 0 or v >= height or u >= width:
                found[i] = True
                break
            other = depth[v, u]
            if other > 0 and not inside[v, u] and (
                    other < own - step or (robot[v, u] and other < own + step)):
                found[i] = True
                break
    return found


def _largest(pixels: Mask, labels: Labels, depth: F32, floor: float) -> Mask:
    """Pixels of `pixels` on their largest surface, and on large ones less than `floor` m off."""
    inside = labels[pixels]
    inside = inside[inside >= 0]
    if not inside.size:
        return np.zeros_like(pixels)
    counts = np.bincount(inside)
    largest = int(counts.argmax())
    big = np.flatnonzero(counts >= 0.1 * counts[largest])
    if big.size > 1:
        main = median(depth[pixels & (labels == largest)])
        big = np.asarray([i for i in big if i == largest or abs(
            median(depth[pixels & (labels == i)]) - main) < floor])
    return np.asarray(pixels & _marked(labels, big))


def detected(detections: Sequence[Detection], depth: F32, points: F32, above: Mask, valid: Mask,
             labels: Labels, robot: Mask, foreign: Mask, flat: Sequence[float], table_z: float,
             grow_px: int, mads: float, floor: float, min_pixels: int, step: float,
             sure_score: float) -> tuple[list[Blob], NDArray[np.int16]]:
    """Return a blob for each usable detection, and the owner (H, W) of each pixel, -1 for none.

    `above`: pixels above the table that are not the robot; `valid`: pixels with depth that are not
    the robot; `labels`: `surfaces` of `above`; `foreign`: pixels that are none of a support, going
    by its shape; `flat`: greatest height, m, of a detection that is a support, so that its pixels
    need not be above the table; 0 for other things. An owner is the index of the detection.
    """
    owner = np.full(depth.shape, -1, np.int16)
    # All that concerns a detection happens in its window: its mask, what that may grow to, and
    # the ring round it in which its ground shows.
    windows = [window(d.mask, grow_px + _RING) for d in detections]
    owner = _owners(detections, windows, points, above, labels, foreign, flat, table_z, grow_px)
    _give_back_parts(detections, windows, owner, labels, flat, sure_score)
    blobs = []
    for i, (detection, at) in enumerate(zip(detections, windows, strict=True)):
        if at is None:
            continue
        own = owner[at] == i
        pixels = own & (valid if flat[i] else above)[at]
        ground = table_z
        if not flat[i]:
            pixels = _largest(pixels, labels[at], depth[at], floor)
            ground = _ground(pixels, owner[at], flat, depth[at], points[at], table_z)
            if ground > table_z:
                pixels &= points[at][..., 2] > ground + 0.005
            if pixels.any():
                pixels[pixels] = trim(depth[at][pixels], mads, floor)
            # What its mask holds beside it is for the clusters to explain.
            owner[at][own & above[at] & ~pixels] = -1
        rows, cols = np.nonzero(pixels)
        rows, cols = rows + at[0].start, cols + at[1].start
        if rows.size >= min_pixels:
            blobs.append(Blob(rows, cols, points[rows, cols], detection.class_id, detection.score,
                              hidden_edges(depth, rows, cols, robot, step), ground,
                              flat[i] > 0))
    return blobs, owner


def _owners(detections: Sequence[Detection], windows: Sequence[Window | None], points: F32,
            above: Mask, labels: Labels, foreign: Mask, flat: Sequence[float], table_z: float,
            grow_px: int) -> NDArray[np.int16]:
    """The owner of each pixel: masks, extended by `grow_px` at most along unbroken surfaces."""
    owner = np.full(above.shape, -1, np.int16)
    # Painted with the big first, so that what lies on a plate keeps its own pixels. What is too
    # high for a support, or foreign to it, stands on it, in it or before it, whatever its mask
    # says: it stays unexplained.
    order = sorted(((i, at) for i, at in enumerate(windows) if at is not None),
                   key=lambda x: -np.count_nonzero(detections[x[0]].mask))
    for i, at in order:
        mask = detections[i].mask[at]
        if flat[i] > 0:
            mask = mask & ~foreign[at] & (points[at][..., 2] - table_z < flat[i])
        owner[at][mask] = i
    kernel = np.ones((2 * grow_px + 1,) * 2, np.uint8)
    yields = np.array([*(f > 0 for f in flat), True])  # the last entry is for -1, nobody's
    for i, at in order if grow_px else ():
        if flat[i]:
            continue
        own = owner[at] == i
        core = own & above[at]
        grown = cv2.dilate(core.view(np.uint8), kernel).view(np.bool_)
        take = grown & above[at] & ~own & yields[owner[at]]
        owner[at][take & _marked(labels[at], labels[at][core])] = i
    return owner


def _give_back_parts(detections: Sequence[Detection], windows: Sequence[Window | None],
                     owner: NDArray[np.int16], labels: Labels, flat: Sequence[float],
                     sure_score: float) -> None:
    """Free the pixels of unsure detections that cover only a part of an unbroken surface.

    Detectors see known things in pieces of unknown ones; the whole is then one obstacle.
    """
    for i, (detection, at) in enumerate(zip(detections, windows, strict=True)):
        if flat[i] or at is None or detection.score >= sure_score:
            continue
        own = labels[at][owner[at] == i]
        own = own[own >= 0]
        if not own.size:
            continue
        main = int(np.bincount(own).argmax())
        surface = labels == main
        mine, free = np.count_nonzero(own == main), np.count_nonzero(surface & (owner < 0))
        if mine < 0.7 * (mine + free):
            owner[surface & (owner == i)] = -1


def _ground(pixels: Mask, owner: NDArray[np.int16], flat: Sequence[float], depth: F32,
            points: F32, table_z: float) -> float:
    """Height of what a thing stands on: the table, or a support that touches its foot."""
    at = window(pixels, _RING) if any(flat) else None
    if at is None:
        return table_z
    inside, near = pixels[at], depth[at]
    kernel = np.ones((2 * _RING + 1,) * 2, np.uint8)
    ring = cv2.dilate(inside.astype(np.uint8), kernel).view(np.bool_) & ~inside
    ring[: len(ring) // 2] = False
    on = np.asarray([*flat, 0.0])[owner[at][ring]] > 0  # an owner of -1 takes the last entry
    if not on.any():
        return table_z
    edge = cv2.dilate(np.where(inside, near, 0).astype(np.float32), kernel)
    on &= np.abs(near[ring] - edge[ring]) < 0.02  # else it is far behind, or in front
    if on.mean() < 0.3:
        return table_z
    height = points[at][..., 2][ring][on]
    return max(table_z, float(np.quantile(height, 0.3)))


def unexplained(above: Mask, owner: NDArray[np.int16], depth: F32, grow_px: int,
                step: float) -> Mask:
    """Return the pixels above the table (H, W) that belong to no detection.

    The edge of a mask is uncertain: a surface that lies wholly within `grow_px` of a detection is
    its rim. One that reaches farther is something else, rim included.
    """
    free = above & (owner < 0)
    if not grow_px or not free.any() or not (owner >= 0).any():
        return free
    kernel = np.ones((2 * grow_px + 1,) * 2, np.uint8)
    rim = cv2.dilate((owner >= 0).view(np.uint8), kernel).view(np.bool_)
    labels = surfaces(depth, free, step)
    return free & _marked(labels, labels[free & ~rim])


def clusters(depth: F32, points: F32, free: Mask, robot: Mask, table_z: float, join: float,
             min_pixels: int, step: float, size_max: float) -> list[Blob]:
    """Return class-agnostic blobs of the pixels `free` (H, W) that nothing explains.

    Points are put into voxels of edge `join`, m, and touching voxels joined; what is longer than
    2 `size_max`, m, is halved until it is not. A line one pixel wide along the robot's silhouette
    is an error of calibration, not an object, and is left out.
    """
    if np.count_nonzero(free) < min_pixels:
        return []
    edge, beside = (cv2.dilate(robot.astype(np.uint8), np.ones((n, n), np.uint8)) > 0
                    for n in (5, 7))
    solid = cv2.morphologyEx(free.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
    rows, cols = np.nonzero(free & (solid | ~edge))
    if rows.size < min_pixels:
        return []
    cloud = points[rows, cols]
    voxel = np.floor((cloud - cloud.min(axis=0)) / max(join, 1e-3)).astype(np.intp)
    grid = np.zeros(voxel.max(axis=0) + 1, np.bool_)
    grid[tuple(voxel.T)] = True
    labelled, count = ndimage.label(grid, np.ones((3, 3, 3)))
    member = labelled[tuple(voxel.T)]
    todo = [np.flatnonzero(member == i) for i in range(1, count + 1)]
    blobs = []
    while todo:
        pick = todo.pop()
        r, c = rows[pick], cols[pick]
        if pick.size < min_pixels or (beside[r, c].any() and not solid[r, c].any()):
            continue
        extent = np.ptp(cloud[pick], axis=0)
        if extent.max() > 2 * size_max:
            axis = int(np.argmax(extent))
            upper = cloud[pick, axis] > np.median(cloud[pick, axis])
            if upper.any() and not upper.all():
                todo += [pick[upper], pick[~upper]]
                continue
        blobs.append(Blob(r, c, points[r, c], UNKNOWN_CLASS, 0.5,
                          hidden_edges(depth, r, c, robot, step), table_z))
    return blobs
