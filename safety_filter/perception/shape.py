"""From the visible points of a thing to its whole: centre, extent, ellipsoid.

One camera sees the front and the top. The rest follows from symmetry: the bounding box of what is
visible, in a frame that looks along the view, is that of the object wherever a flat top shows the
far edge; a sphere is fitted as one; otherwise the unseen depth is taken as equal to the width.
Where something nearer hides a side, the extent known from better views is laid against the side
that shows, so the centre does not wander with the occlusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from safety_filter.core import shapes
from safety_filter.core.shapes import Cover
from safety_filter.perception.blobs import Blob
from safety_filter.perception.sphere import as_sphere
from safety_filter.perception.template import Placed, Template

F64 = NDArray[np.float64]
BOX, ROUND, SPHERE = 0, 1, 2
GRAIN = 1e-4  # m, steps of the half extents of what is covered
Past = Callable[[F64], float]
SEEN_PAST = 0.15  # share of a remembered surface that may be where the picture looks past it
_STANDING = 0.2  # share of a support over the table from which on it has a height
SHOWN = 0.3  # share of a thing that must show if most of what is seen is something else


@dataclass(frozen=True)
class ShapeRules:
    """Numbers of the completion; lengths in m."""

    min_height: float = 0.006
    size_min: float = 0.008
    size_max: float = 0.35
    noise: float = 0.002
    occluded_noise: float = 0.012


@dataclass(frozen=True)
class Known:
    """What a track knows before a sighting.

    half: extents (3,) along the view axes from better views; centre: where it is expected (3,);
    reference: pixels times squared distance of a full view; form: BOX, ROUND or SPHERE; floating:
    it does not rest on the table, because it is held; template: its surface, if it was seen whole.
    """

    half: F64
    centre: F64
    reference: float
    form: int
    floating: bool = False
    template: Template | None = None


@dataclass(frozen=True)
class Measurement:
    """One sighting, in `base`.

    centre (3,) m; axes (3, 3) with the columns across the view, along it (both level), and up;
    half (3,) half extents along those axes, m; sigma (3,) of the centre along them; sides (3,)
    whether each half extent was seen in full; box (3,) half extents and `yaw` of the upright box
    round the footprint; `form` BOX, ROUND (upright cylinder) or SPHERE; `distance` of the centre
    from the camera, m; `pixels` seen; `mean` (3,) of the visible points; `placed`: where
    the remembered surface lies, if it gave the centre.
    """

    centre: F64
    axes: F64
    half: F64
    sigma: F64
    sides: NDArray[np.bool_]
    box: F64
    yaw: float
    form: int
    distance: float
    pixels: int
    mean: F64
    placed: Placed | None = None

    @property
    def covariance(self) -> F64:
        """Covariance (3, 3) of the centre in `base`, m^2."""
        if self.placed is not None:
            return self.placed.covariance
        return np.asarray((self.axes * self.sigma**2) @ self.axes.T)


def view_axes(centre: F64, eye: F64) -> F64:
    """Axes (3, 3) of `Measurement` for a thing at `centre` (3,) seen from `eye` (3,)."""
    along = centre - eye
    length = float(np.hypot(along[0], along[1]))
    x, y = (along[0] / length, along[1] / length) if length > 1e-6 else (1.0, 0.0)
    return np.array([[y, x, 0.0], [-x, y, 0.0], [0.0, 0.0, 1.0]])


@njit(cache=True)  # type: ignore[untyped-decorator]
def _ends(local: F64, spare: int) -> tuple[F64, F64]:
    """The low and the high end (3,) of points (n, 3), `spare` of them beyond each."""
    low, high = np.empty(3), np.empty(3)
    least, most = np.empty(spare + 1), np.empty(spare + 1)
    for axis in range(3):
        least[:], most[:] = np.inf, -np.inf
        for value in local[:, axis]:
            # Each keeps the outermost values seen so far, the innermost of them last.
            if value < least[spare]:
                i = spare
                while i > 0 and least[i - 1] > value:
                    least[i] = least[i - 1]
                    i -= 1
                least[i] = value
            if value > most[spare]:
                i = spare
                while i > 0 and most[i - 1] < value:
                    most[i] = most[i - 1]
                    i -= 1
                most[i] = value
        low[axis], high[axis] = least[spare], most[spare]
    return low, high


@njit(cache=True)  # type: ignore[untyped-decorator]
def _hidden_sides(local: F64, low: F64, high: F64, hidden: NDArray[np.bool_],
                  pixel: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the low and the high side (3,) lie behind something nearer."""
    sides = np.zeros((2, 3), np.bool_)
    for axis in range(3):
        band = max(1.3 * pixel, 0.06 * (high[axis] - low[axis]))
        at, behind = np.zeros(2), np.zeros(2)
        for i in range(len(local)):
            for side, there in ((0, local[i, axis] <= low[axis] + band),
                                (1, local[i, axis] >= high[axis] - band)):
                if there:
                    at[side] += 1
                    behind[side] += hidden[i]
        for side in range(2):
            sides[side, axis] = behind[side] > 0.35 * max(at[side], 1)
    return sides[0], sides[1]


def _never(points: F64) -> float:
    return 0.0


def measure(blob: Blob, eye: F64, focal: float, rules: ShapeRules,
            known: Known | None = None, past: Past = _never) -> Measurement:
    """Complete a blob seen from `eye` (3,) with focal length `focal`, px, given what is known.

    past: which share of some points (n, 3) the picture looks past.
    """
    if blob.support:
        blob = _standing(blob, rules.min_height)
    points = blob.points.astype(np.float64)
    origin = points.mean(axis=0)
    axes = view_axes(origin, eye)
    local = (points - origin) @ axes
    distance = float(np.linalg.norm(origin - eye))
    pixel = distance / focal
    # A few in a thousand points may lie beyond the ends. Not fewer are spared: the far corner of a
    # box seen on edge is a handful of pixels.
    low, high = _ends(local, len(local) // 400)
    hidden_low, hidden_high = _hidden_sides(local, low, high, blob.hidden, pixel)
    low[0] -= pixel / 2
    high[0] += pixel / 2
    seen_low, seen_high = ~hidden_low, ~hidden_high
    ground = blob.ground - origin[2]
    if not (known is not None and known.floating) and low[2] < ground + rules.min_height + 0.008:
        low[2], seen_low[2] = ground, True
    # A patch of almost anything fits some sphere: it takes a free view, or a sphere known before.
    free = blob.hidden.mean() < 0.08 if known is None else known.form == SPHERE
    if blob.support:
        # Its own height, without what leans on it or shines through at its edge.
        low[2], high[2] = ground, max(float(np.quantile(local[:, 2], 0.9)), ground + 0.002)
        seen_low[2] = seen_high[2] = True
        hidden_low[2] = hidden_high[2] = False
        free = False
    sphere = None
    if free:
        across = not (hidden_low[0] or hidden_high[0])
        sphere = as_sphere(points, high - low, across, rules.size_min, rules.size_max)
    if sphere is not None and known is not None and abs(sphere[1] / known.half[0] - 1) > 0.15:
        sphere = None
    if sphere is not None:
        centre_local, radius = (sphere[0] - origin) @ axes, sphere[1]
        low, high = centre_local - radius, centre_local + radius
        seen_low[:] = seen_high[:] = True
    elif not blob.support and not hidden_high[1] and not _flat_top(local, low, high):
        high[1] = max(high[1], low[1] + min(high[0] - low[0], 2 * rules.size_max))
    half, centre = (high - low) / 2, (high + low) / 2
    both = seen_low & seen_high
    sigma = np.where(both, rules.noise, rules.occluded_noise)
    if known is not None:
        share = len(points) * distance**2 / max(known.reference, 1e-9)
        if share < 0.95 and sphere is None:
            # Less of it shows than before: a side that seems to have come closer is hidden.
            cut = both & (half < 0.9 * known.half - 0.5 * pixel)
            cut[2] &= not blob.support
            both &= ~cut
            seen_low &= ~cut
            seen_high &= ~cut
            seen_low[2] |= cut[2] and low[2] == ground
        expected = (known.centre - origin) @ axes
        for k in np.flatnonzero(~both & (half <= known.half + 2 * pixel)):
            least, most = high[k] - known.half[k], low[k] + known.half[k]
            shows = seen_low[k] or seen_high[k]
            # A lower end that shows is the thing's own, however little of it shows besides
            if (shows and share > 0.4) or (k == 2 and seen_low[k]):
                centre[k] = most if seen_low[k] else least
                sigma[k] = 3 * rules.noise
            else:
                # What shows must fit inside, more is not known: parts that stick out are hidden.
                centre[k] = np.clip(expected[k], least, most)
                sigma[k] = rules.occluded_noise * (1 if centre[k] != expected[k] else 8)
            half[k] = known.half[k]
    least_half = 0.002 if blob.support else rules.size_min
    half = np.maximum(half, least_half)  # not clipped from above: what shows is there
    middle, placed = origin + axes @ centre, None
    # Nothing reaches below what it stands on, whatever of it is seen
    bottom = -np.inf if known is not None and known.floating else blob.ground
    middle[2] = max(middle[2], bottom + half[2])
    if known is not None and known.template is not None and sphere is None:
        joined = bool(np.any(half > known.half + 0.006))
        shift = np.array([[low[0] + known.half[0]], [high[0] - known.half[0]]]) - centre[0]
        ends = middle + axes[:, 0] * shift
        least = SHOWN * known.reference / distance**2
        placed = _placed(known, points, middle, axes, sigma, ends, joined, least, rules, bottom,
                         past)
        if placed is not None:
            middle, half, both = placed.centre, known.half.copy(), np.zeros(3, np.bool_)
    box, yaw, form = _upright_box(points[:, :2], middle[:2], axes, half, bool(both[:2].all()))
    if sphere is not None:
        box, form = half.copy(), SPHERE
    return Measurement(middle, axes, half, sigma, both, box, yaw, form, distance,
                       len(points), origin, placed)


def _standing(blob: Blob, height: float) -> Blob:
    """A support without the table that its mask shows beside it, or beyond its far wall.

    That is lower than `height`, m. What is hardly higher itself stays as it is.
    """
    kept = blob.points[:, 2] > blob.ground + height
    return blob.part(kept, blob.class_id, blob.score) if kept.mean() > _STANDING else blob


def _placed(known: Known, points: F64, middle: F64, axes: F64, sigma: F64, ends: F64,
            joined: bool, least: float, rules: ShapeRules, bottom: float, past: Past,
            ) -> Placed | None:
    """The remembered surface on points (n, 3), from the sides that show, from where the thing is
    expected, or with what shows at either end of it: whichever holds most of them and has little
    of its surface where the picture looks past it. From where it is expected alone if the points
    are not only its own.

    It does not come to lie below the height `bottom`, of which upright faces alone say nothing.
    ends (2, 3): centres with what shows at the low and at the high end across the view.
    """
    assert known.template is not None
    lowest = np.array([-np.inf, -np.inf, bottom + known.half[2]])
    open_ = 8 * rules.occluded_noise
    starts = [(known.centre, np.full(3, rules.occluded_noise * (0.5 if joined else 2.0)))]
    if not joined:
        # Whether a side that shows is that of the thing itself is least sure along the view.
        loose = np.maximum(sigma, [0.0, rules.occluded_noise, 0.0])
        starts.append((middle, loose))
        if sigma[0] > 3 * rules.noise:
            starts += [(end, np.array([3 * rules.noise, *loose[1:]])) for end in ends]
    found = []
    for guess, loose in starts:
        prior = (axes * loose**2) @ axes.T
        placed = known.template.place(points, np.maximum(guess, lowest), prior, least)
        if placed is None:
            continue
        missing = past(known.template.inner + placed.centre)
        if missing > SEEN_PAST:
            continue
        if guess is known.centre:
            # Where it is expected is no sighting: what the surface does not say stays open
            says = np.linalg.inv(placed.covariance) - np.linalg.inv(prior)
            placed = replace(placed, covariance=np.linalg.inv(says + np.eye(3) / open_**2))
        found.append((placed.on.sum() * (1.0 - missing), placed))
    if not found:
        return None
    # An end that was only guessed has to hold clearly more
    most = max(worth for worth, _ in found)
    best = next(placed for worth, placed in found if worth >= 0.97 * most)
    centre = np.maximum(best.centre, lowest)
    return Placed(centre, best.covariance + rules.noise**2 * np.eye(3), best.on)


def _flat_top(local: F64, low: F64, high: F64) -> bool:
    """Whether level points near the top reach over half of the visible depth."""
    top = local[local[:, 2] > high[2] - 0.004, 1]
    if len(top) < 6:
        return False
    return bool(np.ptp(top) > 0.5 * (high[1] - low[1]))


def _upright_box(points: F64, centre: F64, axes: F64, half: F64, clean: bool,
                 ) -> tuple[F64, float, int]:
    """Half extents (3,), yaw and form of the least upright box round the symmetric footprint."""
    view_yaw = float(np.arctan2(axes[1, 0], axes[0, 0]))
    if not clean:
        return half.copy(), view_yaw, BOX
    rim = points[cv2.convexHull(points.astype(np.float32), returnPoints=False)[:, 0]]
    hull = cv2.convexHull(np.concatenate([rim, 2 * centre - rim]).astype(np.float32))
    (_, (width, height), degrees) = cv2.minAreaRect(hull)
    rect = np.array([width, height], float) / 2
    round_off = cv2.contourArea(hull) < 0.87 * width * height
    if round_off and max(width, height) < 1.25 * min(width, height):
        return half.copy(), view_yaw, ROUND
    if rect[0] * rect[1] > 0.88 * half[0] * half[1]:
        return half.copy(), view_yaw, BOX
    rect = np.maximum(rect, 0.004)
    return np.array([rect[0], rect[1], half[2]]), float(np.radians(degrees)), BOX


def outline(form: int, half: F64, most: int, tolerance: float, resting: bool) -> Cover:
    """Return the cover of a shape of half extents (3,), m: at most `most` ellipsoids whose union
    holds it and stands out by about `tolerance`, m, if that takes no more."""
    return _outline(form, *_rounded_up(np.maximum(half, 1e-3)), most, tolerance, resting)


def walls(box: F64, thickness: float, most: int, tolerance: float) -> Cover:
    """Return the cover of the four walls of an open box of half extents `box` (3,), m."""
    return _walls(*_rounded_up(box), thickness, most, tolerance)


def _rounded_up(half: F64) -> tuple[float, float, float]:
    """Half extents (3,) as whole multiples of GRAIN: what hardly changes is covered but once."""
    x, y, z = (float(v) for v in np.ceil(np.asarray(half, float) / GRAIN - 1e-6) * GRAIN)
    return x, y, z


@lru_cache(maxsize=256)
def _outline(form: int, x: float, y: float, z: float, most: int, tolerance: float,
             resting: bool) -> Cover:
    if form == SPHERE:
        return shapes.ellipsoid((x, y, z))
    if form == ROUND:
        return shapes.cylinder(max(x, y), z, most, tolerance, resting)
    return shapes.box((x, y, z), most, tolerance, resting)


@lru_cache(maxsize=64)
def _walls(x: float, y: float, z: float, thickness: float, most: int, tolerance: float) -> Cover:
    parts = []
    for axis, reach in enumerate((x, y)):
        half = np.array([x, y, z])
        half[axis] = thickness / 2
        side = shapes.box(half, most, tolerance, resting=True)
        for sign in (-1.0, 1.0):
            offset = np.zeros(3)
            offset[axis] = sign * (reach - thickness / 2)
            parts.append(side.moved(offset))
    return shapes.combined(parts)
