"""What an episode's record says of a collision: its cause, and how near things came."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet as p
import pytest

from safety_filter.bench.causes import WRONG_SPEED, collision_cause
from safety_filter.bench.methods.base import Step
from safety_filter.bench.record import MOVED, Recorder
from safety_filter.bench.sources import TruthEyes
from safety_filter.core.wire import Role
from safety_filter.sim.contacts import Contact
from safety_filter.sim.scene import generate
from safety_filter.sim.world import DT, World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(0, "demo")) as world:
        yield world


def strike(world: World, name: str, speed: float = 0.4) -> Contact:
    """Go straight for a thing until the first collision with it."""
    for _ in range(240 * 6):
        way = world.object_position(name) - world.tool_pose()[0]
        world.set_twist(np.array([*(speed * way / np.linalg.norm(way)), 0.0, 0.0, 0.0]))
        world.step()
        for contact in world.judge.collisions:
            if contact.other == name:
                return contact
    raise AssertionError(f"{name} was not reached")


def test_what_stood_still_is_not_said_to_have_moved_when_it_was_struck(world: World) -> None:
    world.reset(generate(3004, "static-2"))
    name = next(s.name for i, s in enumerate(world.scene.specs)
                if s.role == "object" and i != world.scene.target)
    tracks = TruthEyes().look(world, None, None)
    contact = strike(world, name)
    struck = next(s for s in world.truth() if s.name == name)
    assert np.linalg.norm(struck.velocity) > WRONG_SPEED
    assert collision_cause(world, contact, tracks, "STOPPED level1_slack").endswith(
        "on object: known, stopped for level1 slack")


def test_a_mover_that_is_struck_has_the_velocity_of_its_path(world: World) -> None:
    world.reset(generate(0, "demo"))
    mover = next(s for s in world.scene.specs if s.role == "mover")
    strike(world, mover.name)
    assert mover.path is not None
    np.testing.assert_allclose(
        world.velocities[mover.name], mover.path.state(world.time - DT)[1], atol=1e-9)


def test_the_least_distance_takes_in_what_was_touched_between_two_pictures(world: World) -> None:
    world.reset(generate(3004, "static-2"))
    record = Recorder(world, 20.0)
    record.look()
    name = next(s.name for i, s in enumerate(world.scene.specs)
                if s.role == "object" and i != world.scene.target)
    strike(world, name)
    assert record.result()["min_distance_m"] == 0.0
    for _ in range(4):
        world.step()
    result = record.result()
    assert result["penetration_m"] > 0.0
    assert result["min_distance_m"] == -result["penetration_m"]


def test_a_touch_of_the_table_is_no_distance_to_an_obstacle(world: World) -> None:
    world.reset(generate(3000, "alone-0"))
    record = Recorder(world, 20.0)
    record.look()
    world.judge.contacts.append(Contact("panda_link5", "table", "table", 0.0, 0.0, 1.0, 0.01))
    assert record.result()["min_distance_m"] == 0.5


def test_the_least_distance_is_of_every_step_and_not_of_pictures_alone(world: World) -> None:
    world.reset(generate(3004, "static-2"))
    record = Recorder(world, 20.0)
    record.look()
    name = next(s.name for i, s in enumerate(world.scene.specs)
                if s.role == "object" and i != world.scene.target)
    hand = np.array(world.tool_pose()[0]) + (0.0, 0.0, 0.3)
    true = []
    for k in range(16):  # it comes by between two pictures
        there = hand + (0.10 + 0.01 * abs(k - 8), 0.0, 0.0)
        p.resetBasePositionAndOrientation(
            world.bodies[name], there.tolist(), [0, 0, 0, 1], physicsClientId=world._client)
        true.append(world.min_distance())
        world.steps += 1
        record.stepped(Step(np.zeros(7), 0.0, "PASS"), DT)
    result = record.result()
    assert result["min_distance_m"] == pytest.approx(min(true), abs=1e-6)
    assert min(true) < true[0] - 0.05
    assert result["ets"] == 400  # not placed: the longest episode, however early it ended


@pytest.mark.parametrize(("of", "moved", "displaced"), [
    ("object", 1.1 * MOVED, True), ("object", 0.9 * MOVED, False),
    ("mover", 1.1 * MOVED, True), ("target", 0.2, False), ("destination", 0.2, False)])
def test_an_obstacle_moved_by_a_millimetre_counts_and_what_the_task_moves_does_not(
        world: World, of: str, moved: float, displaced: bool) -> None:
    world.reset(generate(0, "demo"))
    name = next(s.name for i, s in enumerate(world.scene.specs)
                if (of == "target") == (i == world.scene.target) and of in (s.role, "target"))
    record = Recorder(world, 20.0)
    world.displacement[name] = moved
    assert record.result()["car_displaced"] is displaced


def test_looks_before_the_grasp_are_right_wrong_or_lost(world: World) -> None:
    world.reset(generate(3004, "static-2"))
    record = Recorder(world, 20.0)
    right = TruthEyes().look(world, None, None)
    target = right["role"] == int(Role.TARGET)
    lost, wrong = right.copy(), right.copy()
    lost["role"][target] = wrong["role"][target] = int(Role.OBSTACLE)
    other = wrong["role"] == int(Role.OBSTACLE)
    wrong["role"][other & ~target] = int(Role.TARGET)
    for tracks in (right, right, lost, lost, lost, wrong, right, right):
        record.saw(tracks)
    result = record.result()
    assert result["lost_target_share"] == pytest.approx(3 / 8)
    assert result["wrong_target_share"] == pytest.approx(1 / 8)
    record._grasped = True  # what is looked at with the target in the hand is not judged
    record.saw(lost)
    assert record.result()["lost_target_share"] == pytest.approx(3 / 8)


def test_interventions_are_of_the_steps_that_were_changed(world: World) -> None:
    world.reset(generate(3000, "alone-0"))
    record = Recorder(world, 20.0)
    record.look()
    for change in (0.0, 0.3, 1e-9, 0.1, 0.0, 0.2, 0.0):
        world.step()
        record.stepped(Step(np.zeros(7), change, "FILTERED" if change else "PASS"), DT)
    result = record.result()
    assert result["intervention_mean"] == pytest.approx(0.2)
    assert result["intervention_share"] == pytest.approx(3 / 7, abs=1e-6)
    assert result["intervention_median"] == 0.0
    assert result["states"] == {"FILTERED": pytest.approx(4 / 7, abs=1e-6),
                                "PASS": pytest.approx(3 / 7, abs=1e-6)}


def test_ets_are_policy_steps_until_it_was_done_for_good(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reset(generate(3000, "alone-0"))
    record = Recorder(world, 20.0)
    for done in (True, False, False, True, True):  # put down, taken up again, put down
        monkeypatch.setattr(world, "success", lambda done=done: done)
        for _ in range(24):  # 0.1 s
            world.step()
        assert record.look() is done
    result = record.result()
    assert result["success_time"] == pytest.approx(0.4)
    assert result["ets"] == 8 and result["end"] == "success"
