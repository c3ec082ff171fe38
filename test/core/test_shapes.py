"""Covers hold their shapes, and stand out by no more than they say; coal is the oracle."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import coal
import numpy as np
import pytest
from core.rig import Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from safety_filter.core import shapes
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE
from safety_filter.core.robot import Array, RobotModel
from safety_filter.core.shapes import Cover, ShapeError
from safety_filter.core.wire import PIECE_STEP, Role, Tracks, track_fault

LENGTH = st.floats(0.003, 0.3)
SEED = st.integers(0, 2 ** 32 - 1)


def least_distance(cover: Cover, points: Array) -> Array:
    """Return the signed distance of each point (k, 3) to the union, by coal."""
    ball, request = coal.Sphere(1e-6), coal.DistanceRequest()
    out = np.full(len(points), np.inf)
    for centre, axes, rotation in zip(cover.centres, cover.axes, cover.rotations, strict=True):
        piece, pose = coal.Ellipsoid(*axes), coal.Transform3s(rotation, centre)
        for i, point in enumerate(points):
            result = coal.DistanceResult()
            distance = coal.distance(piece, pose, ball, coal.Transform3s(np.eye(3), point),
                                     request, result) + 1e-6
            out[i] = min(out[i], distance)
    return out


def distance_to(shape: Any, points: Array) -> Array:
    ball, request, here = coal.Sphere(1e-6), coal.DistanceRequest(), coal.Transform3s()
    return np.array([coal.distance(shape, here, ball, coal.Transform3s(np.eye(3), p), request,
                                   coal.DistanceResult()) + 1e-6 for p in points])


def depth(cover: Cover, points: Array) -> float:
    """Return by how much the worst point is outside: > 1 of the nearest ellipsoid's radius."""
    turned = np.einsum('kji,kpj->kpi', cover.rotations, points - cover.centres[:, None])
    return float(np.sum((turned / cover.axes[:, None]) ** 2, axis=2).min(axis=0).max())


def box_surface(rng: np.random.Generator, half: ArrayLike, count: int) -> Array:
    points = rng.uniform(-1.0, 1.0, (count, 3))
    rows, face = np.arange(count), rng.integers(0, 3, count)
    points[rows, face] = np.sign(points[rows, face])
    corners = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
    corners = corners[np.abs(corners).max(1) > 0]
    return np.vstack([points, corners]) * np.asarray(half)


def round_surface(rng: np.random.Generator, radius: float, half: float, count: int) -> Array:
    angle, size = rng.uniform(0, 2 * np.pi, count), np.ones(count)
    z = rng.uniform(-half, half, count)
    z[::2] = half * np.sign(z[::2])
    size[::4] = np.sqrt(rng.uniform(0, 1, len(size[::4])))
    return np.column_stack([radius * size * np.cos(angle), radius * size * np.sin(angle), z])


@settings(max_examples=150, deadline=None)
@given(half=st.tuples(LENGTH, LENGTH, LENGTH), most=st.integers(1, 8), resting=st.booleans(),
       seed=SEED)
def test_the_cover_of_a_box_holds_it(half: tuple[float, ...], most: int, resting: bool,
                                     seed: int) -> None:
    cover = shapes.box(half, most, resting=resting)
    assert len(cover.centres) <= most
    assert depth(cover, box_surface(np.random.default_rng(seed), half, 2000)) <= 1.0


@settings(max_examples=80, deadline=None)
@given(radius=LENGTH, half=LENGTH, most=st.integers(2, 8), resting=st.booleans(), seed=SEED)
def test_the_covers_of_round_things_hold_them(radius: float, half: float, most: int,
                                              resting: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    can = shapes.cylinder(radius, half, most, resting=resting)
    assert depth(can, round_surface(rng, radius, half, 2000)) <= 1.0
    pill = shapes.capsule(radius, half, most)
    caps = rng.normal(size=(2000, 3))
    caps *= radius / np.linalg.norm(caps, axis=1)[:, None]
    caps[:, 2] += half * np.sign(caps[:, 2])
    side = round_surface(rng, radius, half, 2000)
    side[:, :2] *= radius / np.linalg.norm(side[:, :2], axis=1)[:, None]
    assert depth(pill, np.vstack([caps, side])) <= 1.0
    assert max(len(can.centres), len(pill.centres)) <= most


@pytest.mark.parametrize('half', [(0.025, 0.025, 0.1), (0.04, 0.04, 0.08), (0.08, 0.004, 0.03),
                                  (0.022, 0.022, 0.022), (0.05, 0.05, 0.005)])
@pytest.mark.parametrize('resting', [False, True])
def test_a_box_is_never_nearer_than_its_cover_nor_much_farther(half: tuple[float, ...],
                                                               resting: bool) -> None:
    rng, cover = np.random.default_rng(0), shapes.box(half, resting=resting)
    points = box_surface(rng, np.asarray(half) + rng.uniform(0.01, 0.1), 120)
    points = points[points[:, 2] > -half[2]]  # beside and above
    over = distance_to(coal.Box(*(2 * np.asarray(half))), points) - least_distance(cover, points)
    assert over.min() >= -1e-6
    assert over.max() <= max(cover.beside, cover.top) + 1e-6


@pytest.mark.parametrize('axis, side', [(0, 'beside'), (1, 'beside'), (2, 'top')])
@pytest.mark.parametrize('half', [(0.025, 0.025, 0.1), (0.03, 0.08, 0.01)])
def test_what_is_said_to_stand_out_does(half: tuple[float, ...], axis: int, side: str) -> None:
    cover = shapes.box(half, resting=True)
    reach = cover.centres[:, axis] + np.linalg.norm(
        cover.rotations[:, axis] * cover.axes, axis=1)
    assert float(reach.max()) - half[axis] <= getattr(cover, side) + 1e-6


def test_a_tall_box_on_the_table_stands_out_by_less_than_a_centimetre() -> None:
    cover = shapes.box((0.025, 0.025, 0.1), most=4, resting=True)
    assert len(cover.centres) <= 4 and cover.beside < 0.010 and cover.top < 0.020
    assert shapes.box((0.025, 0.025, 0.1), most=1).beside > 0.020


def test_more_pieces_never_stand_out_more_and_tolerance_saves_pieces() -> None:
    for half in [(0.03, 0.05, 0.1), (0.1, 0.1, 0.02)]:
        least = [shapes.box(half, k, tolerance=0.0).beside for k in range(1, 9)]
        assert all(b <= a + 1e-9 for a, b in pairwise(least))
        assert len(shapes.box(half, 8, tolerance=0.05).centres) < 8


def test_a_plane_is_a_ball_that_holds_the_half_space() -> None:
    normal = np.array([0.0, 0.6, 0.8])
    cover = shapes.plane(normal, 0.3)
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.8, 0.8, (200, 3))
    above = points @ normal - 0.3
    found = np.linalg.norm(points - cover.centres[0], axis=1) - cover.axes[0, 0]
    assert np.all(found <= above) and np.all(above - found < 0.0025)


def decoded(tracks: Tracks) -> Cover:
    def columns(names: str) -> Array:
        return np.stack([tracks[n] for n in names.split()], 1).astype(float)
    turned = Rotation.from_quat(columns('qx qy qz qw')).as_matrix()
    return Cover(columns('x y z'), columns('sx sy sz'), turned, 0.0, 0.0)


def test_tracks_hold_the_turned_shape_on_the_wire() -> None:
    half, turn = np.array([0.02, 0.05, 0.09]), Rotation.from_rotvec([0.3, -0.9, 0.4]).as_matrix()
    at = np.array([0.5, -0.2, 0.3])
    tracks = shapes.tracks(shapes.box(half, 6), 7, at, turn, role=Role.SUPPORT,
                           position_covariance=np.diag([1e-4, 2e-4, 3e-4]))
    assert track_fault(tracks) is None
    points = box_surface(np.random.default_rng(2), half, 5000) @ turn.T + at
    assert depth(decoded(tracks), points) <= 1.0
    assert set(tracks['id'] % PIECE_STEP) == {7} and len(set(tracks['id'])) == len(tracks)
    assert np.allclose(tracks['pyy'], 2e-4) and set(tracks['role']) == {3}


def test_pieces_of_a_spinning_thing_move_with_it() -> None:
    cover = shapes.box((0.2, 0.02, 0.02), 4)
    spin, turn, step = np.array([0.1, 0.2, 2.0]), np.eye(3), 1e-4
    before = shapes.tracks(cover, 1, (1, 2, 3), turn, velocity=(0.1, 0, 0), spin=spin)
    after = cover.moved(np.array([1, 2, 3]) + step * np.array([0.1, 0, 0]),
                        Rotation.from_rotvec(step * spin).as_matrix())
    speed = (after.centres - decoded(before).centres) / step
    assert np.allclose(speed, np.stack([before['vx'], before['vy'], before['vz']], 1), atol=5e-3)


def test_a_compound_holds_its_parts() -> None:
    bottle = shapes.combined([shapes.cylinder(0.032, 0.07).moved((0, 0, -0.035)),
                              shapes.cylinder(0.013, 0.035).moved((0, 0, 0.07))])
    rng = np.random.default_rng(3)
    assert depth(bottle, round_surface(rng, 0.032, 0.07, 500) - (0, 0, 0.035)) <= 1.0
    assert depth(bottle, round_surface(rng, 0.013, 0.035, 500) + (0, 0, 0.07)) <= 1.0


@pytest.mark.parametrize('call, words', [
    (lambda: shapes.box((0.1, 0.0, 0.1)), 'half: expected 3 lengths > 0'),
    (lambda: shapes.box((0.1, 0.1)), 'half'), (lambda: shapes.box((0.1, 0.1, np.nan)), 'half'),
    (lambda: shapes.sphere(-1.0), 'axes'), (lambda: shapes.box((1, 1, 1), most=0), 'most'),
    (lambda: shapes.cylinder(0.0, 1.0), 'radius'), (lambda: shapes.capsule(0.1, 0.1, 1), 'most'),
    (lambda: shapes.plane((0, 0, 2.0), 0.0), 'normal'),
    (lambda: shapes.plane((0, 0, 1.0), np.inf), 'offset'),
    (lambda: shapes.tracks(shapes.sphere(0.1), PIECE_STEP), 'object_id')])
def test_bad_shapes_are_refused_by_name(call: Any, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        call()


def test_the_filter_takes_the_pieces_of_a_target_for_one_object(panda: RobotModel) -> None:
    bench = Bench(SafetyFilter(panda, TABLE.validate({'base_frames': ['base']})))
    at = bench.safety._kinematics.tool(bench.q)[1] + (0.0, 0.0, -0.1)
    tracks = shapes.tracks(shapes.box((0.02, 0.02, 0.045)), 5, at, role=Role.TARGET)
    assert len(tracks) > 1
    decision = bench.step(np.zeros(6), tracks, 'twist')
    assert not decision.no_target
    two = np.concatenate([tracks, shapes.tracks(shapes.sphere(0.02), 6, at, role=Role.TARGET)])
    assert bench.step(np.zeros(6), two, 'twist').no_target


def test_all_pieces_of_what_is_held_count_and_too_many_are_refused(panda: RobotModel) -> None:
    bench = Bench(SafetyFilter(panda, TABLE.validate({'base_frames': ['base']})))
    at = bench.safety._kinematics.tool(bench.q)[1]
    held = shapes.tracks(shapes.box((0.02, 0.02, 0.09)), 5, at, role=Role.HELD)
    bench.step(np.zeros(6), held, 'twist')
    assert bench.safety._buffers.sphere_count == len(panda.spheres) + 3 * len(held)
    many = shapes.tracks(shapes.box((0.02, 0.02, 0.2), 12, tolerance=0.0), 5, at, role=Role.HELD)
    decision = bench.step(np.zeros(6), many, 'twist')
    assert decision.reason == 'perception' and 'HELD, limit 8' in decision.detail
