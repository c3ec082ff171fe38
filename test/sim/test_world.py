"""The simulated cell: exact movers, contacts at every step, honest cameras, a working expert."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from safety_filter.sim.expert import Expert, action, advance, chunk
from safety_filter.sim.scene import Scene, generate
from safety_filter.sim.world import DT, QDD_MAX, World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(generate(0, "demo")) as world:
        yield world


def drive_expert(world: World, scene: Scene, steps: int = 200) -> bool:
    world.reset(scene)
    expert = Expert(world)
    for _ in range(steps):
        twist, opening = expert.act()
        world.set_twist(twist)
        world.set_gripper(opening)
        for _ in range(12):
            world.step()
        if world.success():
            return True
    return False


def test_movers_have_the_position_and_velocity_of_their_path(world: World) -> None:
    world.reset(generate(0, "demo"))
    for _ in range(240):
        world.step()
        for spec, state in zip(world.scene.specs, world.truth(), strict=True):
            if spec.path is not None:
                position, velocity = spec.path.state(world.time)
                np.testing.assert_allclose(state.position, position, atol=1e-9)
                np.testing.assert_allclose(state.velocity, velocity, atol=1e-9)


def test_the_expert_places_what_it_is_told(world: World) -> None:
    results = [drive_expert(world, generate(seed, "free")) for seed in range(300, 310)]
    assert sum(results) >= 9
    assert not world.judge.collisions


def test_touching_an_obstacle_is_judged_with_link_time_and_force(world: World) -> None:
    scene = next(s for s in (generate(i, "demo") for i in range(50))
                 if any(o.role == "mover" and o.shape.name == "carton" for o in s.specs))
    world.reset(scene)
    carton = next(o for o in scene.specs if o.role == "mover" and o.shape.name == "carton")
    touched = None
    for _ in range(240 * 6):
        goal = world.object_position(carton.name)
        twist = np.zeros(6)
        twist[:3] = 0.3 * (goal - world.tool_pose()[0]) / 0.2
        world.set_twist(np.clip(twist, -0.4, 0.4))
        world.step()
        touched = next((c for c in world.judge.collisions if c.other == carton.name), None)
        if touched:
            break
    assert touched is not None and touched.role == "mover" and touched.peak_force > 0
    assert touched.body.startswith("panda_") or touched.body == "held"
    assert touched.start == pytest.approx(world.time)
    assert world.min_distance() < 0.002


def test_still_objects_that_are_pushed_are_displaced(world: World) -> None:
    scene = generate(1, "free")
    world.reset(scene)
    name = scene.target_spec.name
    goal = world.object_position(name)
    world.teleport(world.inverse_kinematics(goal + [0, 0, 0.12], world.tool_pose()[1]), 0.0)
    for _ in range(480):
        world.set_twist(np.array([0.05, 0, -0.15, 0, 0, 0]))
        world.step()
    assert world.displacement[name] > 1e-3


def test_joint_velocity_commands_are_followed_within_the_acceleration_limits(
        world: World) -> None:
    world.reset(generate(2, "free"))
    command = np.array([0.4, -0.2, 0.3, 0.2, -0.5, 0.4, 0.6])
    world.set_joint_velocity(command)
    before = world.joint_state()[1]
    for _ in range(120):
        world.step()
        now = world.joint_state()[1]
        assert np.all(np.abs(now - before) <= QDD_MAX * DT + 0.02)
        before = now
    np.testing.assert_allclose(before, command, atol=0.02)


@pytest.mark.parametrize("bad", [np.zeros(6), np.full(7, np.nan), np.full(7, np.inf)])
def test_a_bad_joint_velocity_is_refused_and_the_old_command_kept(
        world: World, bad: np.ndarray) -> None:
    world.reset(generate(2, "free"))
    with pytest.raises(ValueError, match="expected 7 finite numbers"):
        world.set_joint_velocity(bad)
    world.step()
    assert np.abs(world.joint_state()[1]).max() < 0.01


def test_depth_and_pose_put_table_pixels_on_the_table(world: World) -> None:
    world.reset(generate(3, "free"))
    frame = world.render("scene")
    rows, columns = np.nonzero(frame.seg == world.table)
    z = frame.depth[rows, columns].astype(float)
    rays = np.linalg.inv(frame.K) @ np.stack([columns, rows, np.ones_like(rows)]).astype(float)
    points = frame.T_base_cam[:3, :3] @ (rays * z) + frame.T_base_cam[:3, 3:]
    assert np.median(np.abs(points[2])) < 0.002
    assert np.percentile(np.abs(points[2]), 99) < 0.006


@pytest.mark.parametrize("suite", ["demo", "dynamic-4", "clutter-5"])
def test_a_picture_over_the_kept_backdrop_is_what_drawing_everything_gives(suite: str) -> None:
    scene = generate(5, suite)
    with World(scene) as kept, World(scene, scene_size=(8, 8)) as whole:
        for qd in ([0.0] * 7, [0.3, 0.5, -0.2, 0.4, 0.0, 0.3, 0.1]):
            for world in (kept, whole):
                world.set_joint_velocity(np.array(qd))
                for _ in range(60):
                    world.step()
            for camera in ("scene", "wrist"):
                ours, theirs = kept.render(camera), whole.render(camera, kept.sizes[camera])
                other = (ours.rgb != theirs.rgb).any(axis=2) | (ours.seg != theirs.seg)
                assert (other | (ours.depth != theirs.depth)).sum() <= 1


def test_object_pixels_lie_on_the_object(world: World) -> None:
    world.reset(generate(3, "free"))
    frame = world.render("scene")
    for state in world.truth():
        rows, columns = np.nonzero(frame.seg == state.body)
        if len(rows) < 20:
            continue
        z = frame.depth[rows, columns].astype(float)
        rays = np.linalg.inv(frame.K) @ np.stack([columns, rows, np.ones_like(rows)]).astype(float)
        points = (frame.T_base_cam[:3, :3] @ (rays * z) + frame.T_base_cam[:3, 3:]).T
        reach = np.linalg.norm(state.half_extents) + 0.006
        assert np.linalg.norm(points - state.position, axis=1).max() < reach


def test_labels_from_the_kinematic_model_agree_with_the_live_expert(world: World) -> None:
    world.reset(generate(5, "free"))
    expert = Expert(world)
    state = expert.state()
    twists, openings = chunk(state, 8)
    np.testing.assert_array_equal(twists[0], expert.act()[0])
    for _ in range(8):
        state = advance(state, *action(state))
        world.set_twist(expert.act()[0])
        world.set_gripper(expert.act()[1])
        for _ in range(12):
            world.step()
    assert np.linalg.norm(state.tool - world.tool_pose()[0]) < 0.015
    assert openings.max() == pytest.approx(0.08)
