"""The gripper's fingers are coupled, as robot mask and the filter's bodies take for granted."""

from __future__ import annotations

import pybullet as p

from safety_filter.sim.expert import Expert
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World


def test_fingers_open_and_close_together_while_something_is_gripped() -> None:
    with World(generate(100, "free")) as world:
        expert = Expert(world)
        apart, held = 0.0, False
        for step in range(240 * 4):
            if step % 12 == 0:
                twist, opening = expert.act()
                world.set_twist(twist)
                world.set_gripper(opening)
            world.step()
            left, right = (
                p.getJointState(world.robot, joint, physicsClientId=world._client)[0]
                for joint in world._fingers
            )
            apart = max(apart, abs(left - right))
            held = held or world.held is not None
        assert held and apart < 2e-3
