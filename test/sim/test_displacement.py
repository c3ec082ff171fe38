"""What counts as displaced: what a collision moved, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from safety_filter.sim.displacement import SETTLED, Displacement
from safety_filter.sim.scene import Scene, generate
from safety_filter.sim.world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(0, "demo")) as world:
        yield world


def scene_with(suite: str, shape: str, role: str) -> Scene:
    return next(scene for scene in (generate(seed, suite) for seed in range(100))
                if any(s.shape.name == shape and s.role == role for s in scene.specs))


def test_what_nothing_touches_is_not_displaced_though_the_duck_settles(world: World) -> None:
    scene = scene_with("clutter-5", "duck", "object")
    world.reset(scene)
    for _ in range(480):
        world.step()
    duck = next(s for s in scene.specs if s.shape.name == "duck")
    assert np.abs(world.object_position(duck.name) - duck.position).sum() > 5e-3
    assert not world.contacts
    assert max(world.displacement.values()) < 1e-4


@pytest.mark.parametrize("suite", ["dynamic-3", "dynamic-4", "demo"])
def test_a_mover_that_nothing_touches_is_not_displaced(world: World, suite: str) -> None:
    world.reset(generate(3001, suite))
    for _ in range(480):
        world.step()
    movers = [s.name for s in world.scene.specs if s.role == "mover"]
    assert movers and not world.contacts
    assert max(world.displacement[name] for name in movers) == 0.0


def test_a_mover_that_is_hit_is_displaced_though_no_step_moves_it_far(world: World) -> None:
    scene = scene_with("demo", "carton", "mover")
    world.reset(scene)
    name = next(s.name for s in scene.specs if s.role == "mover" and s.shape.name == "carton")
    steps_after = 0
    for _ in range(240 * 6):
        way = world.object_position(name) - world.tool_pose()[0]
        world.set_twist(np.clip([*(1.5 * way), 0.0, 0.0, 0.0], -0.2, 0.2))
        before = world.displacement[name]
        world.step()
        assert world.displacement[name] - before < 2e-3
        steps_after += name in {c.other for c in world.judge.collisions}
        if steps_after == 6:
            break
    assert steps_after == 6
    assert world.displacement[name] > 1e-3


def test_a_touch_before_all_has_settled_moves_things_from_where_they_were_before() -> None:
    moved = Displacement({"duck": (0.5, 0.0, 0.05)})
    moved.update(0.1, {"duck": (0.5, 0.0, 0.045)}, {}, False, set())
    moved.update(0.2, {"duck": (0.5, 0.003, 0.045)}, {}, True, {"duck"})
    assert moved.total["duck"] == pytest.approx(0.003)


def test_what_stands_is_displaced_by_its_farthest_place_after_it_has_settled() -> None:
    moved = Displacement({"can": (0.5, 0.0, 0.05)})
    for now, x in ((SETTLED - 0.1, 0.501), (SETTLED, 0.503), (SETTLED + 0.1, 0.501)):
        moved.update(now, {"can": (x, 0.0, 0.05)}, {}, False, set())
    assert moved.total["can"] == pytest.approx(0.002)


def test_pushes_on_a_mover_add_up_without_what_the_table_makes_of_a_step() -> None:
    moved, path = Displacement({"can": (0.5, 0.0, 0.05)}), (0.5, 0.0, 0.05)
    for x, hit in ((0.4999, set()), (0.5004, {"can"}), (0.4994, {"can"}), (0.4999, set())):
        moved.update(0.1, {"can": (x, 0.0, 0.05)}, {"can": path}, bool(hit), hit)
    assert moved.total["can"] == pytest.approx(0.001)
