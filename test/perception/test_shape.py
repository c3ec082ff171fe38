from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from perception.solids import box

from safety_filter.perception import blobs as bl
from safety_filter.perception.camera import seen_past
from safety_filter.perception.shape import (
    BOX,
    ROUND,
    SPHERE,
    Known,
    ShapeRules,
    measure,
    outline,
    walls,
)
from safety_filter.perception.sphere import fit_sphere
from safety_filter.perception.template import Template

RULES = ShapeRules()
NO_ROBOT = np.zeros((256, 256), bool)


def blob_of(cell, name: str) -> bl.Blob:
    depth, masks = cell.picture()
    points = cell.points(depth)
    pixels = masks[name] & (points[..., 2] > RULES.min_height)
    rows, cols = np.nonzero(pixels)
    return bl.Blob(rows, cols, points[rows, cols], 0, 0.9,
                   bl.hidden_edges(depth, rows, cols, NO_ROBOT, 0.012))


def seen(cell, name: str, known: Known | None = None):
    return measure(blob_of(cell, name), cell.pose[:3, 3], 287.0, RULES, known)


@pytest.mark.parametrize("name", ["cube", "can", "ball", "carton"])
@pytest.mark.parametrize("yaw", [0.0, 0.4, 0.785])
@pytest.mark.parametrize("place", [(0.45, 0.0), (0.6, -0.2), (0.4, 0.25)])
def test_the_unseen_side_is_completed(cell, shapes, name, yaw, place):
    height = float(shapes[name][..., 2].max())
    truth = np.array([*place, height])
    cell.put(name, shapes[name], truth, yaw)
    found = seen(cell, name)
    assert np.linalg.norm(found.centre - truth) < 0.006
    assert found.sides.all()
    assert found.half[2] == pytest.approx(height, abs=0.003)


def test_things_in_the_air_are_not_stood_on_the_table(cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.2))
    found = seen(cell, "cube")
    assert np.linalg.norm(found.centre - [0.5, 0.1, 0.2]) < 0.004


def test_forms_are_told_apart(cell, shapes):
    for name, form in (("cube", BOX), ("can", ROUND), ("ball", SPHERE)):
        cell.things.clear()
        cell.put(name, shapes[name], (0.5, 0.0, float(shapes[name][..., 2].max())), 0.3)
        assert seen(cell, name).form == form


BELOW = (box((0.005, 0.10, 0.08)), (0.60, 0.0, 0.08))
LEFT = (box((0.005, 0.10, 0.20)), (0.65, 0.10, 0.20))
RIGHT = (box((0.005, 0.10, 0.20)), (0.65, -0.105, 0.20))
ABOVE = (box((0.005, 0.10, 0.10)), (0.70, 0.0, 0.32))


@pytest.mark.parametrize("wall", [BELOW, LEFT, RIGHT, ABOVE])
def test_an_occluder_does_not_move_the_centre_of_what_is_known(cell, shapes, wall):
    truth = np.array([0.5, 0.0, 0.080])
    cell.put("carton", shapes["carton"], truth, 0.2)
    free = seen(cell, "carton")
    known = Known(free.half, truth, free.pixels * free.distance**2, free.form)
    cell.put("wall", *wall)
    hidden = seen(cell, "carton", known)
    assert 0 < hidden.pixels < 0.8 * free.pixels
    assert np.linalg.norm(hidden.centre - truth) < 0.010


@pytest.mark.parametrize("wall", [LEFT, RIGHT])
def test_a_hidden_side_is_reported_as_uncertain(cell, shapes, wall):
    cell.put("carton", shapes["carton"], (0.5, 0.0, 0.080))
    cell.put("wall", *wall)
    found = seen(cell, "carton")
    assert not found.sides[0]
    assert found.sigma[0] >= RULES.occluded_noise


def test_with_both_sides_hidden_the_prediction_stands_if_what_shows_fits(cell, shapes):
    truth = np.array([0.5, 0.0, 0.080])
    cell.put("carton", shapes["carton"], truth)
    free = seen(cell, "carton")
    cell.put("left", box((0.005, 0.10, 0.20)), (0.65, 0.115, 0.20))
    cell.put("right", box((0.005, 0.10, 0.20)), (0.65, -0.115, 0.20))
    for guess in (-0.005, 0.0, 0.005):
        known = Known(free.half, truth + [0, guess, 0], free.pixels * free.distance**2, BOX)
        found = seen(cell, "carton", known)
        assert found.centre[1] == pytest.approx(guess, abs=2e-3)
        assert found.sigma[0] > 2 * RULES.occluded_noise


def test_sphere_fit_is_exact_on_exact_points():
    rng = np.random.default_rng(1)
    d = rng.normal(size=(200, 3))
    d /= np.linalg.norm(d, axis=1)[:, None]
    d = d[d[:, 0] > 0.2]
    centre, radius, residual = fit_sphere(d * 0.03 + [0.4, -0.1, 0.2])
    np.testing.assert_allclose(centre, [0.4, -0.1, 0.2], atol=1e-9)
    assert radius == pytest.approx(0.03, abs=1e-9)
    assert residual < 1e-9


def inside(cover, points):
    """Which of points (n, 3) lie in some ellipsoid of a cover."""
    found = np.zeros(len(points), bool)
    for centre, axes, rotation in zip(cover.centres, cover.axes, cover.rotations, strict=True):
        found |= np.sum(((points - centre) @ rotation / axes) ** 2, axis=1) <= 1.0
    return found


@pytest.mark.parametrize("form", [BOX, ROUND, SPHERE])
def test_an_outline_holds_the_shape_and_stands_out_little(form):
    half = np.array([0.03, 0.03, 0.03 if form == SPHERE else 0.08])
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (20_000, 3))
    if form == ROUND:
        points = points[np.hypot(points[:, 0], points[:, 1]) < 1]
    elif form == SPHERE:
        points = points[np.linalg.norm(points, axis=1) < 1]
    for resting in (False, True):
        cover = outline(form, half, 4, 0.008, resting)
        assert len(cover.centres) <= 4
        assert inside(cover, points * half).all()
        aside = points * half * [1, 1, 0.9]
        aside[:, 0] = half[0] + 0.016
        assert not inside(cover, aside).any()


def test_walls_leave_the_middle_open_and_close_the_rim():
    box = np.array([0.08, 0.06, 0.03])
    cover = walls(box, 0.008, 4, 0.008)
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (20_000, 3)) * box
    depth = (box - np.abs(points))[:, :2].min(axis=1)
    assert inside(cover, points[depth < 0.008]).all()
    assert not inside(cover, points[depth > 0.02]).any()


def lately(cell, shapes, at, yaw: float) -> Known:
    """What is known of a carton that stood whole in view at a place."""
    cell.put("carton", shapes["carton"], at, yaw)
    blob, found = blob_of(cell, "carton"), seen(cell, "carton")
    template = Template.of(blob.points, found.centre)
    return Known(found.half, found.centre, found.pixels * found.distance**2, found.form, False,
                 template)


def looked_past(cell):
    depth, _ = cell.picture()
    return lambda points: seen_past(points, depth, cell.k, cell.pose)


def test_a_sliver_is_not_laid_where_the_picture_looks_past(cell, shapes):
    """A carton moves on behind something that covers all but one end of it."""
    before, eye = np.array([0.45, 0.0, 0.08]), cell.pose[:3, 3]
    blind = []
    for yaw, side in product((0.0, 0.4), (-1, 1)):
        cell.things.clear()
        known = lately(cell, shapes, before, yaw)
        now = before - [0.0, 0.025 * side, 0.0]
        cell.put("carton", shapes["carton"], now, yaw)
        cell.put("screen", box((0.004, 0.05, 0.2)), (0.60, now[1] - side * 0.037, 0.2))
        blob = blob_of(cell, "carton")
        assert 0.05 < len(blob.rows) * 0.7**2 / known.reference < 0.5
        found = measure(blob, eye, 287.0, RULES, known, looked_past(cell))
        error = found.centre - now
        assert abs(error[1]) < 0.008
        assert error @ np.linalg.solve(found.covariance, error) < 16
        blind.append(abs(measure(blob, eye, 287.0, RULES, known).centre[1] - now[1]))
    assert max(blind) > 0.012


def test_where_a_thing_is_expected_is_no_sighting_of_it(cell, shapes):
    """Of a face that shows in part, only the distance is certain."""
    known = lately(cell, shapes, np.array([0.45, 0.0, 0.08]), 0.0)
    for y, width in ((0.12, 0.10), (-0.12, 0.10)):
        cell.put(f"screen {y}", box((0.004, width, 0.2)), (0.60, y, 0.2))
    cell.put("lid", box((0.004, 0.3, 0.1)), (0.60, 0.0, 0.32))
    found = measure(blob_of(cell, "carton"), cell.pose[:3, 3], 287.0, RULES, known,
                    looked_past(cell))
    assert found.placed is not None
    sigma = np.sqrt(np.diag(found.covariance))
    assert sigma[1] > 0.03 and sigma[0] < 0.006


def test_a_lower_end_that_shows_tells_the_height_of_a_thing(cell, shapes):
    """A carton in the air, its upper part behind something: it does not seem to sink."""
    at = np.array([0.40, 0.0, 0.20])
    known = replace(lately(cell, shapes, at, 0.3), centre=at - [0.0, 0.0, 0.03])
    cell.put("screen", box((0.004, 0.3, 0.1)), (0.60, 0.0, 0.43))
    blob = blob_of(cell, "carton")
    assert len(blob.rows) * 0.8**2 < 0.45 * known.reference
    found = measure(blob, cell.pose[:3, 3], 287.0, RULES, known, looked_past(cell))
    assert abs(found.centre[2] - 0.20) < 0.012


def test_nothing_reaches_below_what_it_stands_on(cell, shapes):
    """Upright faces alone say nothing of the height; the table does."""
    at = np.array([0.45, 0.0, 0.08])
    known = replace(lately(cell, shapes, at, 0.3), centre=at - [0.0, 0.0, 0.05])
    for z in (0.06, 0.34):
        cell.put(f"screen {z}", box((0.004, 0.3, 0.1)), (0.60, 0.0, z))
    found = measure(blob_of(cell, "carton"), cell.pose[:3, 3], 287.0, RULES, known,
                    looked_past(cell))
    assert found.centre[2] > 0.08 - 0.003


def test_what_shows_of_a_large_thing_is_not_cut(cell):
    """Clusters are split along the axes of base, so that a diagonal one may be larger."""
    cell.put("beam", box((0.02, 0.24, 0.03)), (0.5, 0.0, 0.03))
    rules = replace(RULES, size_max=0.18)
    found = measure(blob_of(cell, "beam"), cell.pose[:3, 3], 287.0, rules)
    assert found.half.max() == pytest.approx(0.24, abs=0.01)
