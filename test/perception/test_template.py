from __future__ import annotations

import numpy as np
import pytest
from perception.solids import box

from safety_filter.perception.template import Template

LOOSE = np.eye(3) * 0.02**2


def visible(cell, name: str) -> np.ndarray:
    depth, masks = cell.picture()
    points = cell.points(depth)
    return points[masks[name] & (points[..., 2] > 0.006)]


def laid(cell, name: str, template: Template, guess, least: float = 1e9):
    points = visible(cell, name).astype(float)
    return template.place(points, np.asarray(guess, float), LOOSE, least)


@pytest.mark.parametrize(("name", "wall"), [("can", -0.07), ("ball", -0.07), ("carton", 0.11)])
def test_a_part_of_a_surface_says_where_the_whole_is(cell, shapes, name, wall):
    height = float(shapes[name][..., 2].max())
    first = np.array([0.5, 0.0, height])
    cell.put(name, shapes[name], first, 0.3)
    template = Template.of(visible(cell, name), first)
    whole = len(visible(cell, name))
    truth = first + [0.02, 0.03, 0.0]
    cell.put(name, shapes[name], truth, 0.3)
    cell.put("wall", box((0.005, 0.10, 0.20)), (0.62, wall, 0.20))
    assert 0.2 * whole < len(visible(cell, name)) < 0.8 * whole
    found = laid(cell, name, template, truth + [0.012, 0.0, 0.0])  # off along the view
    assert found is not None
    assert np.linalg.norm(found.centre - truth) < 0.005
    assert found.on.mean() > 0.95


def test_along_a_face_the_place_stays_uncertain(cell, shapes):
    cell.put("carton", shapes["carton"], (0.5, 0.0, 0.080))
    points = visible(cell, "carton").astype(float)
    template = Template.of(points, np.array([0.5, 0.0, 0.080]))
    front = points[(points[:, 2] > 0.02) & (points[:, 2] < 0.14) & (np.abs(points[:, 1]) < 0.03)]
    found = template.place(front, np.array([0.5, 0.0, 0.080]), LOOSE, 0)
    assert found is not None
    across, along = found.covariance[1, 1], found.covariance[0, 0]
    assert along < 0.003**2 < 0.01**2 < across


def test_what_stands_beside_it_is_told_apart(cell, shapes):
    truth = np.array([0.5, 0.0, 0.022])
    cell.put("cube", shapes["cube"], truth)
    own = visible(cell, "cube")
    template = Template.of(own, truth)
    cell.put("block", shapes["cube"], (0.5, 0.046, 0.022))
    beside = visible(cell, "block")
    found = template.place(np.concatenate([own, beside]).astype(float), truth + [0, 0.002, 0],
                           np.eye(3) * 0.006**2, 0.3 * len(own))
    assert found is not None
    assert np.linalg.norm(found.centre - truth) < 0.004
    assert found.on[:len(own)].all()
    assert not found.on[len(own):][beside[:, 1] > 0.040].any()


def test_another_thing_is_refused(cell, shapes):
    cell.put("ball", shapes["ball"], (0.5, 0.0, 0.026))
    template = Template.of(visible(cell, "ball"), np.array([0.5, 0.0, 0.026]))
    cell.things.clear()
    cell.put("carton", shapes["carton"], (0.5, 0.0, 0.080))
    assert laid(cell, "carton", template, (0.5, 0.0, 0.06)) is None
    few = np.zeros((3, 3))
    assert template.place(few, np.zeros(3), LOOSE, 0) is None
