"""Lockstep episodes: deterministic, and the filter does in them what it promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from safety_filter.bench.causes import failure_cause
from safety_filter.bench.episode import Feed, Timing, run_episode
from safety_filter.bench.informed import InformedExpert, flight_height
from safety_filter.bench.methods import METHODS
from safety_filter.bench.record import jerk_rms
from safety_filter.bench.sources import ExpertBrain, FrozenEyes, TruthEyes, _cover, enclosing_axes
from safety_filter.core import shapes
from safety_filter.core.wire import PIECE_STEP, Role, Tracks
from safety_filter.sim.bodies import mesh_vertices
from safety_filter.sim.catalogue import SHAPES, Shape
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World

TIMING = Timing(limit=12.0)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(0, "demo")) as world:
        yield world


def episode(world: World, suite: str, seed: int, method: str) -> dict[str, Any]:
    chosen = METHODS[method]
    eyes = {"none": None, "start": FrozenEyes(chosen.pieces)}.get(
        chosen.knowledge, TruthEyes(chosen.pieces))
    return run_episode(world, generate(seed, suite), ExpertBrain(), eyes, chosen.make(), TIMING)


def test_equal_seeds_give_equal_episodes_whatever_ran_before(world: World) -> None:
    first = episode(world, "dynamic-4", 3000, "ours")
    episode(world, "static-1", 3001, "knows")
    assert episode(world, "dynamic-4", 3000, "ours") == first


def test_what_collides_without_the_filter_does_not_with_it(world: World) -> None:
    without = episode(world, "dynamic-4", 3000, "none")
    with_filter = episode(world, "dynamic-4", 3000, "ours-live-oracle")
    assert without["collided"] and without["penetration_m"] > 0.0
    assert "nothing known" in without["cause"]
    assert with_filter["safe_success"] and with_filter["min_distance_m"] > 0.0
    assert with_filter["cause"] is None
    assert 0.0 < with_filter["intervention_share"] < 1.0


def test_what_was_known_at_the_start_only_goes_stale(world: World) -> None:
    stale = episode(world, "dynamic-3", 3001, "init-oracle")
    assert stale["collided"] and not stale["safe_success"]
    assert "not tracked" in stale["cause"]


def test_the_filter_changes_nothing_where_there_is_no_obstacle(world: World) -> None:
    alone = episode(world, "alone-0", 3000, "ours")
    assert alone["success"] and alone["min_distance_m"] == 0.5
    assert alone["intervention_share"] < 0.2


def test_shares_of_states_add_up(world: World) -> None:
    result = episode(world, "static-2", 3000, "ours")
    assert sum(result["states"].values()) == pytest.approx(1.0, abs=1e-5)
    assert len(result["distance_mm"]) == pytest.approx(result["duration"] * 5, abs=2)
    assert result["wrong_target_share"] == 0.0


# In 3030 the mover is as high as the hand's wrist is over the block, to within its settling
@pytest.mark.parametrize(("suite", "seed"), [
    ("static-1", 3000), ("dynamic-3", 3000), ("dynamic-3", 3030)])
def test_the_informed_expert_shows_that_a_scene_can_be_solved(
        world: World, suite: str, seed: int) -> None:
    result = run_episode(world, generate(seed, suite), InformedExpert(), None,
                         METHODS["none"].make(), Timing())
    assert result["safe_success"]
    tops = [s.position[2] + s.shape.half_extents[2] for s in world.scene.specs]
    assert flight_height(world) > max(tops) + 0.05


def test_results_arrive_in_order_and_not_before_their_time() -> None:
    feed = Feed()
    feed.put(1.0, "a")
    feed.put(1.5, "b")
    assert feed.take(0.9) == []
    assert feed.take(1.0) == ["a"]
    assert feed.take(2.0) == ["b"]
    assert feed.take(3.0) == []


def test_jerk_of_a_cubic_is_its_third_derivative() -> None:
    t = np.arange(0.0, 1.0, 0.01)
    assert jerk_rms((3.0 * t**2)[:, None], 0.01) == pytest.approx(6.0, rel=1e-6)
    assert jerk_rms(np.zeros((2, 7)), 0.01) == 0.0


def test_failures_are_named_by_how_far_they_came() -> None:
    assert failure_cause(["FILTERED"], False, False, "time") == "not grasped, held off"
    assert failure_cause(["PASS", "STOPPED level1_slack", "STOPPED level1_slack"], True,
                         True, "time") == "not placed, stopped for level1 slack"
    assert failure_cause([], True, False, "target off the table").startswith("target fell")


def surface(shape: Shape) -> np.ndarray:
    """Points (n, 3) of a shape's surface, its corners among them; of a tray or bin the walls."""
    if shape.mesh:
        return mesh_vertices(shape)
    turn, along = np.linspace(0.0, 2 * np.pi, 49), np.linspace(-1.0, 1.0, 9)
    points = []
    for part in shape.parts[1:] if shape.name in ("tray", "bin") else shape.parts:
        if part.kind == "box":
            unit = np.stack(np.meshgrid(along, along, along), axis=-1).reshape(-1, 3)
        else:
            angle, z = (a.ravel() for a in np.meshgrid(turn, along))
            wide = np.sqrt(1.0 - z**2) if part.kind == "sphere" else 1.0
            unit = np.column_stack([wide * np.cos(angle), wide * np.sin(angle), z])
        points.append(unit * part.size + part.offset)
    return np.concatenate(points)


def outside(points: np.ndarray, tracks: Tracks) -> float:
    """How far the farthest point (n, 3) is from the nearest ellipsoid, in terms of its radius."""
    away = []
    for t in tracks:
        turn = Rotation.from_quat([t["qx"], t["qy"], t["qz"], t["qw"]]).as_matrix()
        local = (points - [t["x"], t["y"], t["z"]]) @ turn
        away.append(np.linalg.norm(local / [t["sx"], t["sy"], t["sz"]], axis=1))
    return float(np.min(away, axis=0).max() - 1.0)


@pytest.mark.parametrize("pieces", [True, False])
def test_true_tracks_enclose_the_objects_and_carry_their_roles(
        world: World, pieces: bool) -> None:
    scene = generate(10, "demo")  # with a duck and a teddy
    world.reset(scene)
    tracks = TruthEyes(pieces).look(world, None, None)
    for i, state in enumerate(world.truth()):
        turn = Rotation.from_quat(state.orientation).as_matrix()
        points = surface(scene.specs[i].shape) @ turn.T + state.position
        assert outside(points, tracks[tracks["id"] % PIECE_STEP == 1 + i]) < 1e-4
    objects = dict(zip(tracks["id"] % PIECE_STEP, tracks["role"], strict=True))
    assert Counter(objects.values())[Role.TARGET] == 1 and (tracks["role"] == Role.SUPPORT).any()
    moving = np.hypot(tracks["vx"], tracks["vy"])
    assert (moving[tracks["role"] == Role.SUPPORT] == 0).all()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_every_shape_is_held_by_one_ellipsoid_and_by_its_pieces(name: str) -> None:
    points = surface(SHAPES[name])
    reach = np.linalg.norm(points / enclosing_axes(SHAPES[name]), axis=1).max()
    assert reach <= 1.0 + 1e-9
    assert reach > 0.99 or name in ("cross", "tray", "bin"), "no larger than it must be"
    for pieces in (True, False):
        tracks = shapes.tracks(_cover(name, pieces), 1, np.zeros(3), np.eye(3), np.zeros(3))
        assert outside(points, tracks) < 1e-4
