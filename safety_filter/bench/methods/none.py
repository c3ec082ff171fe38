"""No filter: the policy's twist goes to the arm as it is."""

from __future__ import annotations

import numpy as np

from safety_filter.bench.methods.base import Array, Method, Step
from safety_filter.core.wire import Tracks
from safety_filter.sim.world import World


class NoFilter:
    """Resolves the twist, and nothing else."""

    def reset(self, world: World) -> None:
        """See `Guard`."""

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> Step:
        """See `Guard`."""
        if twist is None:
            return Step(np.zeros(7), 0.0, "no command")
        return Step(world.resolve(twist), 0.0, "PASS")


METHOD = Method("none", "no filter", NoFilter, "none")
