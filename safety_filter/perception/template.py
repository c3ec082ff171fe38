"""The surface of a thing as it was last seen whole, and where it lies when only a part shows.

A part of a surface says where the whole is, if the whole was seen before: the visible points are
laid on the remembered ones by a translation (iterated closest points, point to plane: Chen,
Medioni 1992, Object modelling by registration of multiple range images). A face fixes only what
lies along its normal, so the fit comes with the covariance that its normals leave. Turning is
left out: memory is renewed in every whole view, and a fit that does not suit is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

F64 = NDArray[np.float64]
MOST = 1000  # points remembered
USED = 150  # points laid on them
NEAR = 0.008  # m: what lies farther from the surface is something else
NOISE = 0.003  # m, of a surface point
ENOUGH = 30  # points whose noise is taken to be independent, at most
STEPS = 10
SUITS = 0.7  # share of the points that must lie on the surface


@dataclass(frozen=True)
class Placed:
    """Where a template lies: `centre` (3,) in `base` with `covariance` (3, 3), m^2, and which of
    the visible points (n,) lie on it."""

    centre: F64
    covariance: F64
    on: NDArray[np.bool_]


@dataclass(frozen=True)
class Template:
    """Surface points (n, 3), m, about the centre of the thing, in directions of `base`."""

    points: F64

    @classmethod
    def of(cls, points: NDArray[np.float32], centre: F64) -> Template:
        """The template of points (n, 3) of a thing with its centre at `centre` (3,)."""
        step = max(1, -(-len(points) // MOST))
        return cls(points[::step].astype(np.float64) - centre)

    @cached_property
    def inner(self) -> F64:
        """Some of the points (m, 3), drawn in from the rim."""
        middle = self.points.mean(axis=0)
        some = self.points[::max(1, len(self.points) // USED)]
        return np.asarray(middle + 0.85 * (some - middle))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    @cached_property
    def _normals(self) -> F64:
        """Unit normals (n, 3), of the plane through the nearest points, up to sign."""
        _, index = self._tree.query(self.points, k=min(9, len(self.points)))
        near = self.points[index]
        near = near - near.mean(axis=1, keepdims=True)
        _, vectors = np.linalg.eigh(near.transpose(0, 2, 1) @ near)
        return np.asarray(vectors[:, :, 0])

    def place(self, points: F64, guess: F64, prior: F64, least: float) -> Placed | None:
        """Lay the template on visible points (n, 3), some of which may be of something else.

        guess (3,): where its centre is without it, with covariance `prior` (3, 3), m^2. None if
        fewer than `least` points, or less than SUITS of them, come to lie on it.
        """
        if len(self.points) < 9 or len(points) < 6:
            return None
        used = points[::max(1, -(-len(points) // USED))]
        held = np.linalg.inv(prior)
        count = min(len(points), ENOUGH) / NOISE**2
        centre, information = guess.copy(), held
        for i in range(STEPS):
            reach = NEAR * max(1.2, 3.8 * 0.8**i)
            gap, index = self._tree.query(used - centre, distance_upper_bound=reach)
            on = np.isfinite(gap)
            if on.sum() < 6:
                return None
            normal = self._normals[index[on]]
            off = used[on] - centre - self.points[index[on]]
            along = np.sum(off * normal, axis=1)
            # By the whole gap: what lies beyond an edge must not draw the surface after it.
            weight = 1.0 / (1.0 + (gap[on] / NOISE) ** 2)
            pull = count * (normal * weight[:, None]).T / weight.sum()
            information = held + pull @ normal
            step = np.linalg.solve(information, held @ (guess - centre) + pull @ along)
            centre = centre + step
            if float(np.abs(step).max()) < 2e-4:
                break
        gap, _ = self._tree.query(points - centre, distance_upper_bound=NEAR)
        near = np.isfinite(gap)
        if near.sum() < min(least, SUITS * len(points)):
            return None
        return Placed(centre, np.linalg.inv(information), near)
