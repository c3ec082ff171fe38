"""Lockstep episodes: deterministic, and the filter does in them what it promises."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from safety_filter.bench.episode import Episode, Timing, run_episode
from safety_filter.bench.guards import Filter, NoFilter
from safety_filter.bench.sources import ExpertBrain, TruthEyes, enclosing_axes
from safety_filter.core.wire import Role
from safety_filter.sim.catalogue import SHAPES
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World

TIMING = Timing(limit=5.0)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(0, "demo")) as world:
        yield world


def episode(world: World, seed: int, filtered: bool) -> Episode:
    guard = Filter() if filtered else NoFilter()
    eyes = TruthEyes() if filtered else None
    return run_episode(world, generate(seed, "demo"), ExpertBrain(), eyes, guard, TIMING)


def test_equal_seeds_give_equal_episodes(world: World) -> None:
    a, b = episode(world, 36, True), episode(world, 36, True)
    assert a == b


def test_what_collides_without_the_filter_does_not_with_it(world: World) -> None:
    # Seed 36: a bottle crosses the way of the blind expert.
    without, with_filter = episode(world, 36, False), episode(world, 36, True)
    assert without.collided
    assert not with_filter.collided and with_filter.min_distance > 0.0


def test_true_tracks_enclose_the_objects_and_carry_their_roles(world: World) -> None:
    scene = generate(2, "demo")
    world.reset(scene)
    tracks = TruthEyes().look(world, world.render("scene"), None)
    roles = tracks["role"]
    assert (roles == Role.TARGET).sum() == 1 and (roles == Role.SUPPORT).any()
    moving = np.hypot(tracks["vx"], tracks["vy"])
    assert (moving[roles == Role.SUPPORT] == 0).all()


@pytest.mark.parametrize("name", ["cube", "can", "carton", "ball"])
def test_enclosing_axes_hold_every_corner(name: str) -> None:
    shape = SHAPES[name]
    axes = enclosing_axes(shape)
    x, y, z = shape.half_extents
    corner = np.array([x, y, z]) if name in ("cube", "carton") else np.array([x, 0, z])
    corner = np.array([x, 0, 0]) if name == "ball" else corner
    assert ((corner / axes) ** 2).sum() <= 1.0 + 1e-9
