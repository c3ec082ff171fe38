"""What the baselines are told of the scene is what the published methods know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from safety_filter.bench.jobs import _eyes
from safety_filter.bench.methods import METHODS
from safety_filter.core.wire import PIECE_STEP, Role, Tracks
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(0, "demo")) as world:
        yield world


def seen(world: World, method: str) -> Tracks:
    """What a method is told of a scene after four pictures of real perception."""
    world.reset(generate(3000, "static-1"))
    eyes = _eyes(METHODS[method], "real")
    for _ in range(4):
        tracks: Tracks = eyes.look(world, world.render("scene"), None)
        for _ in range(16):
            world.step()
    return tracks


def test_knows_has_one_ellipsoid_an_object_with_real_perception_too(world: World) -> None:
    most = {}
    for method in ("knows", "ours"):
        tracks = seen(world, method)
        obstacles = tracks[tracks["role"] == int(Role.OBSTACLE)]
        most[method] = max(Counter(obstacles["id"] % PIECE_STEP).values())
    assert most["knows"] == 1 < most["ours"]
