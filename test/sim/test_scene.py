"""Scenes are pure functions of suite and seed, and what moves moves exactly."""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.sim.catalogue import (
    CLASS_NAMES,
    GRASPABLE,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    TRAIN_TEMPLATES,
    instruction_text,
)
from safety_filter.sim.paths import KINDS, Path
from safety_filter.sim.scene import SUITES, generate


@pytest.mark.parametrize("suite", SUITES)
def test_equal_seeds_give_equal_scenes(suite: str) -> None:
    assert generate(7, suite) == generate(7, suite)
    assert generate(7, suite) != generate(8, suite)


def test_unknown_suite_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"free.*demo.*got 'nonsense'"):
        generate(0, "nonsense")


def test_a_scene_has_three_to_eight_things_a_task_and_room_for_the_fingers() -> None:
    for seed in range(60):
        scene = generate(seed, "demo")
        still = [s for s in scene.specs if s.path is None]
        assert 3 <= len(still) <= 6
        assert scene.target_spec.shape.graspable and scene.destination_spec.role == "destination"
        assert scene.target_spec.name in scene.instruction
        for i, a in enumerate(still):
            for b in still[:i]:
                gap = np.hypot(*np.subtract(a.position, b.position)[:2])
                assert gap > a.shape.radius + b.shape.radius


def test_held_out_combinations_only_on_request() -> None:
    def combinations(held_out: bool) -> set[tuple[str, str]]:
        specs = [generate(s, held_out=held_out).target_spec for s in range(80)]
        return {(s.name.split()[0], s.shape.name) for s in specs}

    assert combinations(True) <= HELD_OUT_COMBINATIONS
    assert not combinations(False) & HELD_OUT_COMBINATIONS


def test_the_catalogue_names_at_least_twelve_distinct_objects() -> None:
    assert len(GRASPABLE) * 6 + 3 >= 12
    assert {s for s, v in SHAPES.items() if not v.known}.isdisjoint(CLASS_NAMES)
    assert instruction_text(TRAIN_TEMPLATES[0], "red cube", "bin") == "put the red cube in the bin"


@pytest.mark.parametrize("kind", KINDS)
def test_path_velocity_is_the_derivative_of_its_position(kind: str) -> None:
    path = Path(kind, (0.3, -0.2, 0.1), (0.6, 0.2, 0.1), 0.2, delay=0.5, rest=0.7)
    h = 1e-6
    times = np.linspace(0.0, 8.0, 801)
    for t in times:
        measured = (path.state(t + h)[0] - path.state(t - h)[0]) / (2 * h)
        assert measured == pytest.approx(path.state(t)[1], abs=2e-6)
    assert max(np.linalg.norm(path.state(t)[1]) for t in times) == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("speed", "length"), [(0.25, 0.32), (0.1, 0.6), (0.2, 0.2)])
def test_no_path_accelerates_beyond_its_bound(kind: str, speed: float, length: float) -> None:
    path = Path(kind, (0.3, 0.0, 0.1), (0.3 + length, 0.0, 0.1), speed, delay=0.2, rest=0.5)
    h = 1e-4
    times = np.arange(0.0, 8.0, 0.01)
    peak = max(float(np.linalg.norm(path.state(t + h)[1] - path.state(t)[1])) / h for t in times)
    assert peak <= path.acceleration * (1 + 1e-6)
    if kind in ("arc", "reversing"):  # the formula of the docstring
        assert peak == pytest.approx(2 * speed**2 / length, rel=1e-3)


@pytest.mark.parametrize("kind", ["straight", "stop_and_go"])
def test_a_path_rests_at_its_end_from_the_time_it_says(kind: str) -> None:
    path = Path(kind, (0.3, 0.1, 0.1), (0.6, 0.1, 0.1), 0.25, delay=0.4)
    assert np.linalg.norm(path.state(path.stops_at - 0.01)[1]) > 0.0
    position, velocity = path.state(path.stops_at)
    assert position == pytest.approx(path.end) and velocity == pytest.approx(np.zeros(3))


@pytest.mark.parametrize("kind", ["arc", "reversing"])
@pytest.mark.parametrize("swings", [1, 2, 5])
def test_a_swing_ends_where_and_when_it_says(kind: str, swings: int) -> None:
    path = Path(kind, (0.3, 0.1, 0.1), (0.6, 0.1, 0.1), 0.2, delay=0.4, swings=swings)
    for_ever = Path(kind, path.start, path.end, 0.2, delay=0.4)
    assert np.isinf(for_ever.stops_at)
    for t in np.linspace(0.0, path.stops_at, 50):
        assert path.state(t)[0] == pytest.approx(for_ever.state(t)[0])
    assert path.final == (path.end if swings % 2 else path.start)
    for t in (path.stops_at, path.stops_at + 3.0):
        assert path.state(t)[0] == pytest.approx(path.final)
        assert path.state(t)[1] == pytest.approx(np.zeros(3), abs=1e-9)


def test_path_rejects_what_it_cannot_follow() -> None:
    with pytest.raises(ValueError, match="swings: expected None, or at least 1 on arc"):
        Path("straight", (0, 0, 0), (1, 0, 0), 0.1, swings=2)
    with pytest.raises(ValueError, match="path kind"):
        Path("zigzag", (0, 0, 0), (1, 0, 0), 0.1)
    with pytest.raises(ValueError, match="speed"):
        Path("arc", (0, 0, 0), (1, 0, 0), 0.0)
    with pytest.raises(ValueError, match=r"accelerates by 1\.000 m/s\^2, expected at most 0\.4"):
        Path("reversing", (0, 0, 0), (0.18, 0, 0), 0.3)
