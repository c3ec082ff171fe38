"""Which touches of what is in the gripper are collisions."""

from __future__ import annotations

from collections.abc import Iterator

import pybullet as p
import pytest

from safety_filter.sim.contacts import FINGERS, Contact, ContactJudge
from safety_filter.sim.expert import Expert
from safety_filter.sim.scene import generate
from safety_filter.sim.world import MAX_OPENING, World


@pytest.fixture(scope="module")
def holding() -> Iterator[World]:
    """A world in which the target has just been gripped."""
    with World(generate(100, "free")) as world:
        expert = Expert(world)
        while world.held is None:
            assert world.time < 6.0
            if world.steps % 12 == 0:
                twist, opening = expert.act()
                world.set_twist(twist)
                world.set_gripper(opening)
            world.step()
        yield world


def judged(world: World, role: str, links: dict[int, str]) -> list[Contact]:
    """The collisions of this moment, were the held thing of that role."""
    judge = ContactJudge(world._client, world.robot, links)
    assert world.held is not None
    names = {**world._labels, world.held: ("held thing", role)}
    judge.update(world.time, names, world.held)
    return judge.collisions


def test_a_grasp_of_the_target_is_no_collision(holding: World) -> None:
    assert judged(holding, "target", holding.links) == []
    assert not holding.judge.collisions


def test_a_grasp_of_another_object_is_a_collision_of_the_fingers(holding: World) -> None:
    found = judged(holding, "object", holding.links)
    assert {c.body for c in found} == set(FINGERS)
    assert {(c.other, c.role) for c in found} == {("held thing", "object")}


def test_an_arm_link_on_the_held_target_is_a_collision(holding: World) -> None:
    links = {j: name.replace(FINGERS[0], "panda_link5") for j, name in holding.links.items()}
    assert [c.body for c in judged(holding, "target", links)] == ["panda_link5"]


@pytest.mark.parametrize(("gap", "depths"), [(-0.001, [0.001]), (0.001, [])])
def test_what_is_inside_touches_without_force_and_what_is_near_does_not(
        gap: float, depths: list[float]) -> None:
    client = p.connect(p.DIRECT)
    ball = p.createCollisionShape(p.GEOM_SPHERE, radius=0.05, physicsClientId=client)
    link, thing = (p.createMultiBody(0.1, ball, basePosition=[x, 0, 0], physicsClientId=client)
                   for x in (0.0, 0.1 + gap))
    p.performCollisionDetection(physicsClientId=client)
    assert not any(c[9] for c in p.getContactPoints(link, thing, physicsClientId=client))
    judge = ContactJudge(client, link, {-1: "panda_link5"})
    judge.update(0.0, {thing: ("ball", "object")}, None)
    assert [c.depth for c in judge.collisions] == pytest.approx(depths, abs=1e-6)
    p.disconnect(client)


@pytest.mark.parametrize(("body", "role", "collision"), [
    ("held", "table", False), ("held", "destination", False), ("held", "object", True),
    ("held", "mover", True), ("held", "target", True), ("panda_hand", "target", False),
    ("panda_leftfinger", "destination", False), ("panda_hand", "destination", True),
    ("panda_leftfinger", "object", True)])
def test_what_the_task_needs_is_allowed_and_nothing_else(
        body: str, role: str, collision: bool) -> None:
    assert Contact(body, "thing", role, 0.0, 0.0, 1.0, 0.0).collision is collision


def test_what_a_blow_takes_out_of_closed_fingers_was_held(holding: World) -> None:
    load = holding.held
    assert load is not None
    name = next(n for n, body in holding.bodies.items() if body == load)
    other = next(s.name for s in holding.scene.specs if s.role == "object" and s.name != name)
    away = holding.object_position(name) + (0.0, 0.0, 0.5)
    for body, lift in ((load, 0.0), (holding.bodies[other], 0.02)):  # one in the other, far off
        p.resetBasePositionAndOrientation(
            body, (away + (0.0, 0.0, lift)).tolist(), [0, 0, 0, 1],
            physicsClientId=holding._client)
    holding.step()
    assert holding.held is None
    assert ("held", other) in {(c.body, c.other) for c in holding.judge.collisions}
    holding.set_gripper(MAX_OPENING)  # what is let go of is held no longer
    assert holding._carried() is None
