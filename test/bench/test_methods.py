"""The baselines reproduce their published equations; ablations take away what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize
from scipy.spatial.transform import Rotation

from safety_filter.bench.cell import declared
from safety_filter.bench.jobs import _brain, _eyes
from safety_filter.bench.methods import METHODS, aegis, knows
from safety_filter.bench.methods.ablations import NoCovariance, NoHeld, NoVelocity, tool_bodies
from safety_filter.bench.methods.base import Method
from safety_filter.bench.methods.ellipsoid import (
    HAND_AXES,
    Ellipsoid,
    barrier,
    ellipsoid,
    in_the_way,
    normal_gradient,
    obstacles_of,
)
from safety_filter.bench.methods.none import NoFilter
from safety_filter.bench.methods.ours import Filter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.qp import DaqpSolver
from safety_filter.core.robot import BodyKind, RobotModel
from safety_filter.core.wire import Role, empty_tracks
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World


def pair(seed: int) -> tuple[Ellipsoid, Ellipsoid]:
    """A hand and an obstacle, apart."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(2, random_state=seed).as_matrix()
    hand = ellipsoid(rng.uniform(-0.1, 0.1, 3) + [0, 0, 0.5], turns[0], HAND_AXES)
    return hand, ellipsoid(rng.uniform(-0.1, 0.1, 3), turns[1], rng.uniform(0.02, 0.1, 3))


def surface(e: Ellipsoid, count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(count, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return e.centre + unit @ e.half.T


@pytest.mark.parametrize("seed", range(4))
def test_barrier_is_the_gap_between_the_ellipsoids_along_n(seed: int) -> None:
    hand, obstacle = pair(seed)
    n = hand.centre - obstacle.centre
    n /= np.linalg.norm(n)
    gap = (surface(hand) @ n).min() - (surface(obstacle) @ n).max()
    assert barrier(n, hand, obstacle) == pytest.approx(gap, abs=1e-3)
    assert gap >= barrier(n, hand, obstacle) - 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_aegis_published_barrier_is_the_same_gap(seed: int) -> None:
    hand, obstacle = pair(seed)
    z = obstacle.centre - hand.centre + np.random.default_rng(seed).normal(0, 0.05, 3)
    n = aegis.normal_of(z, hand)
    assert aegis.published_barrier(z, hand, obstacle) == pytest.approx(
        barrier(n, hand, obstacle), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_aegis_gradients_by_finite_differences_of_the_published_barrier(seed: int) -> None:
    hand, obstacle = pair(seed)
    z = obstacle.centre - hand.centre
    z /= np.linalg.norm(z)
    h, mu, n = 1e-6, aegis.direction_gradient(z, hand, obstacle), aegis.normal_of(z, hand)
    for k, step in enumerate(h * np.eye(3)):
        in_z = (aegis.published_barrier(z + step, hand, obstacle)
                - aegis.published_barrier(z - step, hand, obstacle)) / (2 * h)
        assert in_z == pytest.approx(mu[k], abs=1e-5)
        moved = [aegis.published_barrier(z, hand._replace(centre=hand.centre + s), obstacle)
                 for s in (step, -step)]
        assert (moved[0] - moved[1]) / (2 * h) == pytest.approx(n[k], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_aegis_solution_is_the_optimum_of_its_qp(seed: int) -> None:
    hand, obstacle = pair(seed)
    hand = hand._replace(centre=hand.centre - [0, 0, 0.25])  # near: the constraint binds
    z = obstacle.centre - hand.centre
    z /= np.linalg.norm(z)
    wish = 0.8 * z
    velocity, turn = aegis.solve(wish, z, hand, obstacle)
    mu, n = aegis.direction_gradient(z, hand, obstacle), aegis.normal_of(z, hand)
    project = np.eye(3) - np.outer(z, z)
    row = np.concatenate([n, project @ mu])
    point = np.concatenate([wish, 10.0 * mu])
    best = minimize(lambda u: np.sum((u - point) ** 2), np.zeros(6), method="SLSQP",
                    constraints=LinearConstraint(row, -10.0 * barrier(n, hand, obstacle), np.inf),
                    options={"ftol": 1e-14, "maxiter": 300})
    assert velocity == pytest.approx(best.x[:3], abs=1e-4)
    assert turn == pytest.approx(project @ best.x[3:], abs=1e-4)
    assert row @ np.concatenate([velocity, turn]) >= -10 * barrier(n, hand, obstacle) - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_knows_gradients_by_finite_differences(seed: int) -> None:
    hand, obstacle = pair(seed)
    n = hand.centre - obstacle.centre
    n /= np.linalg.norm(n)
    h = 1e-6
    for k, step in enumerate(h * np.eye(3)):
        in_n = (barrier(n + step, hand, obstacle) - barrier(n - step, hand, obstacle)) / (2 * h)
        assert in_n == pytest.approx(normal_gradient(n, hand, obstacle)[k], abs=1e-6)
        turned = []
        for sign in (1, -1):
            turn = Rotation.from_rotvec(sign * step).as_matrix()
            turned.append(barrier(n, hand._replace(half=turn @ hand.half @ turn.T), obstacle))
        assert (turned[0] - turned[1]) / (2 * h) == pytest.approx(
            knows.turn_gradient(n, hand)[k], abs=1e-6)


def test_knows_keeps_the_published_decrease_and_leaves_a_free_step_alone() -> None:
    hand, obstacle = pair(0)
    n = hand.centre - obstacle.centre
    n /= np.linalg.norm(n)
    found, solver = {7: obstacle}, DaqpSolver()
    free = np.concatenate([0.01 * n, np.zeros(3)])
    away = solver.solve(knows.problem(free, {7: n}, hand, found, 0.25, 0.0, 0.1))
    assert away.x[:6] == pytest.approx(free, abs=1e-9)
    gap = barrier(n, hand, obstacle)
    towards = np.concatenate([-2 * gap * n, np.zeros(3)])
    held = solver.solve(knows.problem(towards, {7: n}, hand, found, 0.25, 0.0, 0.1))
    row = np.concatenate([n, knows.turn_gradient(n, hand)])
    assert row @ held.x[:6] == pytest.approx(-0.25 * gap, abs=1e-7)
    # eps lets the virtual normal give way: the effective row is weaker by eps |dh/dn|_1
    loose = solver.solve(knows.problem(towards, {7: n}, hand, found, 0.25, 0.05, 0.1))
    slack = 0.05 * np.abs(normal_gradient(n, hand, obstacle)).sum()
    assert row @ loose.x[:6] == pytest.approx(-0.25 * gap - slack, abs=1e-4)


def test_what_is_held_or_supports_is_no_obstacle_of_the_baselines() -> None:
    tracks = empty_tracks(4)
    tracks["id"] = [1, 2, 3, 4]
    tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.03
    tracks["role"] = [Role.OBSTACLE, Role.TARGET, Role.HELD, Role.SUPPORT]
    assert list(obstacles_of(tracks)) == [1]


def test_the_named_obstacle_is_the_one_nearest_to_the_way() -> None:
    tracks = empty_tracks(2)
    tracks["id"] = [5, 9]
    tracks["x"], tracks["y"] = [0.5, 0.5], [0.3, 0.02]
    tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.03
    found = obstacles_of(tracks)
    goals = [np.array([0.6, 0.0, 0.0]), np.array([0.6, -0.3, 0.0])]
    assert in_the_way(found, np.array([0.4, 0.0, 0.3]), goals) == 9
    assert in_the_way({}, np.zeros(3), goals) is None


def test_the_methods_of_the_comparison_are_all_there() -> None:
    assert {"none", "naive", "init-oracle", "aegis", "knows", "ours", "ours-live-oracle",
            "no-velocity", "no-covariance", "tool-only", "no-held", "head-mean", "scene-only",
            "no-hysteresis"} == set(METHODS)
    with pytest.raises(ValueError, match=r"knowledge: expected one of .*got 'all'"):
        Method("x", "", NoFilter, "all")


def test_ours_uses_the_parameters_of_the_cell() -> None:
    params = Filter().params
    of_cell = declared("filter", FilterParams)
    assert params.obstacle_acceleration == of_cell["obstacle_acceleration"] == 0.4
    assert params.rate == 240.0


def test_ablations_take_away_what_they_say() -> None:
    tracks = empty_tracks(2)
    tracks["vx"], tracks["role"] = 0.2, [Role.HELD, Role.TARGET]
    tracks["wxx"] = 0.01
    still = NoVelocity()
    assert (still.tracks(tracks)["vx"] == 0.0).all() and (tracks["vx"] > 0.1).all()
    assert (still.tracks(tracks)["wxx"] == tracks["wxx"]).all()
    assert still.params == Filter().params
    assert list(NoHeld().tracks(tracks)["role"]) == [Role.OBSTACLE, Role.TARGET]
    exact = {"sigma_position": 0.0, "sigma_velocity": 0.0}
    assert min(getattr(Filter().params, name) for name in exact) > 0.0
    assert NoCovariance().params == replace(Filter().params, **exact)
    robot = tool_bodies(RobotModel.shipped("panda"))
    assert not (robot.spheres["kind"] == int(BodyKind.ARM)).any()
    assert {robot.bodies[g] for g in robot.spheres["group"]} == set(robot.bodies)


def test_ablations_of_perception_change_what_they_say_and_nothing_else() -> None:
    whole = _eyes(METHODS["ours"], "real").perception.params
    assert whole.wrist_fov > 0.0 and whole.hold_factor < 1.0
    for name, changed in (
            ("scene-only", {"wrist_fov": 0.0}),
            ("no-hysteresis", {"hold_factor": 1.0, "switch_time": 0.0, "lost_time": 0.0}),
            ("head-mean", {})):
        assert _eyes(METHODS[name], "real").perception.params == replace(whole, **changed)


def test_the_mean_of_all_heads_is_looked_at_in_place_of_the_calibrated_one() -> None:
    with World(generate(3000, "static-1")) as world:
        world.reset(generate(3000, "static-1"))
        scene, wrist = world.render("scene"), world.render("wrist")
        one, mean = (_brain("vla", METHODS[name].all_heads).think(world, scene, wrist)
                     for name in ("ours", "head-mean"))
    np.testing.assert_array_equal(one.twists, mean.twists)
    for chosen, of_all in ((one.attention, mean.attention),
                           (one.wrist_attention, mean.wrist_attention)):
        assert chosen.shape == of_all.shape
        assert chosen.max() / chosen.sum() > 1.5 * of_all.max() / of_all.sum()
