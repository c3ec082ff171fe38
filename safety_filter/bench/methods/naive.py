"""The stand-in for init-only filters that KNOWS compares with (arXiv 2606.09749, section 4).

The true target and one obstacle at the start, never updated, in the QP of knows.py. gamma, eps and
W are the best of `safety-filter bench-sweep naive --episodes 8`; all but W are those of KNOWS. Of
the 48 scenes of its finals 20 are placed without contact and 27 collide.
"""

from __future__ import annotations

from safety_filter.bench.methods.base import Method
from safety_filter.bench.methods.ellipsoid import Ellipsoid, named
from safety_filter.bench.methods.knows import EPS, GAMMA, Knows
from safety_filter.core.wire import Tracks
from safety_filter.sim.world import World

TURN_WEIGHT = 10.0


class Naive(Knows):
    """`Knows` with one obstacle."""

    def __init__(self, gamma: float = GAMMA, eps: float = EPS,
                 weight: float = TURN_WEIGHT) -> None:
        super().__init__(gamma, eps, weight)

    def reset(self, world: World) -> None:
        """See `Guard`."""
        super().reset(world)
        self._one: dict[int, Ellipsoid] | None = None

    def obstacles(self, world: World, tracks: Tracks) -> dict[int, Ellipsoid]:
        """The obstacle named at the start."""
        if self._one is None:
            found = named(world, tracks)
            self._one = {} if found is None else dict([found])
        return self._one


METHOD = Method("naive", "true target and one obstacle at the start, never updated", Naive,
                "start", pieces=False)
