"""The benchmark's scenes are what their suites say, and pure functions of suite, task and seed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from safety_filter.sim.catalogue import UNKNOWN
from safety_filter.sim.paths import Path
from safety_filter.sim.scene import BENCH_SUITES, Scene, generate
from safety_filter.sim.suites import TASKS, hand_gap
from safety_filter.sim.world import World

SEEDS = range(4000, 4016)


@cache
def scenes(suite: str) -> list[Scene]:
    return [generate(seed, suite) for seed in SEEDS]


@pytest.mark.parametrize("suite", BENCH_SUITES)
def test_all_tasks_come_in_turn_and_can_be_chosen(suite: str) -> None:
    met = {(s.target_spec.shape.name, s.destination_spec.shape.name) for s in scenes(suite)}
    assert met == set(TASKS)
    chosen = generate(4000, suite, task=3)
    assert (chosen.target_spec.shape.name, chosen.destination_spec.shape.name) == TASKS[3]
    assert chosen != generate(4000, suite) and chosen == generate(4000, suite, task=3)
    with pytest.raises(ValueError, match=r"task: expected one of 0 \(cube to plate\).*got 8"):
        generate(4000, suite, task=8)


def test_only_the_benchmark_has_tasks() -> None:
    with pytest.raises(ValueError, match="suite 'free' has none"):
        generate(0, "free", task=1)


@pytest.mark.parametrize("suite", BENCH_SUITES)
def test_the_hand_has_room_over_both_goals_once_all_is_at_rest(suite: str) -> None:
    for scene in scenes(suite):
        target = scene.target_spec
        goal = target.position if target.path is None else target.path.end
        for spec in scene.specs[2:]:
            where = spec.position
            if spec.path is not None:  # where the path itself says that it rests
                assert np.isfinite(spec.path.stops_at)
                where = tuple(spec.path.state(spec.path.stops_at + 5.0)[0])
            for place in (goal, scene.destination_spec.position):
                assert hand_gap(place, where, spec.shape) > 0.015


def test_static_suites_stand_still_and_have_one_tall_obstacle() -> None:
    for suite in ("static-1", "static-2"):
        for scene in scenes(suite):
            assert all(s.path is None for s in scene.specs)
            assert scene.specs[2].shape.half_extents[2] > 0.07
    near, far = (np.median([np.hypot(*np.subtract(s.specs[2].position, s.target_spec.position)[:2])
                            for s in scenes(suite)]) for suite in ("static-1", "static-2"))
    assert near < far


def test_dynamic_3_moves_for_a_second_and_a_half() -> None:
    for scene in scenes("dynamic-3"):
        (mover,) = [s for s in scene.specs if s.role == "mover"]
        assert mover.path is not None and mover.path.kind == "straight"
        assert mover.path.stops_at - mover.path.delay == pytest.approx(1.5, abs=1e-6)


def test_dynamic_4_has_what_the_suite_promises() -> None:
    kinds: set[str] = set()
    for scene in scenes("dynamic-4"):
        movers = [s.path for s in scene.specs if s.role == "mover" and s.path is not None]
        assert 1 <= len(movers) <= 3
        kinds |= {p.kind for p in movers}
        assert all(0.05 <= p.speed <= 0.30 and p.acceleration <= 0.4 for p in movers)
        assert any(s.shape.name in UNKNOWN for s in scene.specs)
    assert {"straight", "reversing", "stop_and_go"} <= kinds


def test_dynamic_4_holds_what_it_drew_as_often_as_it_drew_it() -> None:
    """Drawing a layout again must not thin out what rarely fits (4 standard deviations)."""
    drawn = [generate(s, "dynamic-4") for s in range(4000, 4120)]
    movers = [[m.path for m in s.specs if m.role == "mover" and m.path] for s in drawn]
    counts: dict[str, tuple[int, float]] = {
        "target moves": (sum(s.target_spec.path is not None for s in drawn), 0.25),
        **{f"{n} movers": (sum(len(m) == n for m in movers), 1 / 3) for n in (1, 2, 3)},
        # One to three of five ways, without repetition: 0.4 of the scenes have each of them
        "stops and goes": (sum(any(p.kind == "stop_and_go" for p in m) for m in movers), 0.4),
        "swings": (sum(any(p.swings is not None for p in m) for m in movers), 2 / 3),
        "turns round across the way": (sum(any(
            p.kind == "arc" or (p.kind == "reversing" and not _behind(p)) for p in m)
            for m in movers), 0.4),
    }
    for what, (count, share) in counts.items():
        off = 4 * np.sqrt(share * (1 - share) / len(drawn))
        assert abs(count / len(drawn) - share) < off, (what, count, share)


def _behind(path: Path) -> bool:
    """Whether the middle of a path lies under the arm at its start."""
    x, y = np.add(path.start, path.end)[:2] / 2
    return bool(0.33 < x < 0.43 and abs(y) < 0.06)


def test_clutter_has_six_to_ten_objects_and_alone_has_none() -> None:
    for scene in scenes("clutter-5"):
        assert 6 <= sum(s.role == "object" for s in scene.specs) <= 10
    assert all(len(scene.specs) == 2 for scene in scenes("alone-0"))


def test_a_moved_target_is_free_once_it_has_arrived() -> None:
    seed = next(s for s in range(4000, 4100)
                if generate(s, "dynamic-4").target_spec.path is not None)
    scene = generate(seed, "dynamic-4")
    name, path = scene.target_spec.name, scene.target_spec.path
    assert path is not None
    with World(scene) as world:
        while world.time < path.stops_at + 0.1:
            world.step()
        assert world.object_position(name)[:2] == pytest.approx(path.end[:2], abs=2e-3)
        world.place_object(name, np.array([0.5, 0.0, 0.3]))
        world.step()
        assert world.object_position(name)[2] == pytest.approx(0.3, abs=0.01)


def test_alone_5_is_clutter_5_without_the_clutter() -> None:
    for full, bare in zip(scenes("clutter-5"), scenes("alone-5"), strict=True):
        assert bare.specs == full.specs[:2] and len(full.specs) > 6
        assert (bare.instruction, bare.appearance, bare.home_q_noise) == (
            full.instruction, full.appearance, full.home_q_noise)
