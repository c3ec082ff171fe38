from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perception.solids import box
from scipy import ndimage

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception import blobs as bl
from safety_filter.perception.detector import Detection

NO_ROBOT = NOTHING = np.zeros((256, 256), bool)
STEP = 0.012


def above(cell, depth):
    return (depth > 0) & (cell.points(depth)[..., 2] > 0.006)


def found(cell, depth, detections, supports=()):
    labels = bl.surfaces(depth, above(cell, depth), STEP)
    flat = [0.03 * (d.class_id in supports) for d in detections]
    return bl.detected(detections, depth, cell.points(depth), above(cell, depth), depth > 0,
                       labels, NO_ROBOT, NOTHING, flat, 0.0, 3, 4.0, 0.06, 8, STEP, 0.75)


def unknown(cell, depth, owner, robot=NO_ROBOT):
    free = bl.unexplained(above(cell, depth), owner, depth, 3, STEP)
    return bl.clusters(depth, cell.points(depth), free, robot, 0.0, 0.025, 14, STEP, 0.35)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_surfaces_agree_with_plain_labelling_where_depth_is_flat(seed):
    allowed = np.random.default_rng(seed).random((24, 31)) < 0.6
    ours = bl.surfaces(np.ones(allowed.shape, np.float32), allowed, STEP)
    theirs, count = ndimage.label(allowed, np.ones((3, 3)))
    assert ours.max() + 1 == count
    assert ((ours >= 0) == allowed).all()
    pairs = set(zip(ours[allowed].tolist(), theirs[allowed].tolist(), strict=True))
    assert len(pairs) == count


def test_a_step_in_depth_separates_surfaces():
    depth = np.ones((10, 10), np.float32)
    depth[:, 5:] = 1.02
    labels = bl.surfaces(depth, np.ones((10, 10), bool), STEP)
    assert len(np.unique(labels)) == 2


def test_trim_drops_what_shines_through():
    depth = np.concatenate([np.linspace(0.80, 0.83, 80), np.full(15, 1.1)])
    kept = bl.trim(depth, 4.0, 0.03)
    assert kept[:80].all()
    assert not kept[80:].any()


def test_ragged_masks_are_corrected_by_depth(cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.0, 0.022), class_id=0)
    depth, masks = cell.picture()
    ragged = ndimage.shift(masks["cube"].astype(float), (2, -2), order=0) > 0.5
    blobs, _ = found(cell, depth, [Detection(ragged, np.zeros(4, np.float32), 0, 0.9)])
    (blob,) = blobs
    got = np.zeros_like(ragged)
    got[blob.rows, blob.cols] = True
    want = masks["cube"] & above(cell, depth)
    assert (got & want).sum() > 0.97 * want.sum()
    assert not (got & ~masks["cube"]).any()


def test_an_object_without_a_detection_becomes_a_cluster(cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.15, 0.022), class_id=0)
    cell.put("carton", shapes["carton"], (0.5, -0.1, 0.080))
    depth, masks = cell.picture()
    _, owner = found(cell, depth, cell.detections(masks))
    (cluster,) = unknown(cell, depth, owner)
    assert cluster.class_id == UNKNOWN_CLASS
    assert len(cluster.rows) > 0.95 * (masks["carton"] & above(cell, depth)).sum()


def test_the_rim_of_a_mask_is_not_an_obstacle(cell, shapes):
    cell.put("carton", shapes["carton"], (0.5, -0.1, 0.080), class_id=6)
    depth, masks = cell.picture()
    small = ndimage.binary_erosion(masks["carton"], iterations=2)
    detection = Detection(small, np.zeros(4, np.float32), 6, 0.9)
    blobs, owner = found(cell, depth, [detection])
    assert unknown(cell, depth, owner) == []
    assert len(blobs[0].rows) > 0.95 * (masks["carton"] & above(cell, depth)).sum()


def test_an_unknown_thing_that_touches_a_known_one_keeps_its_edge(cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.0, 0.022), class_id=0)
    cell.put("block", shapes["cube"], (0.5, 0.046, 0.022))
    depth, masks = cell.picture()
    _, owner = found(cell, depth, cell.detections(masks))
    (cluster,) = unknown(cell, depth, owner)
    assert len(cluster.rows) > 0.6 * masks["block"].sum()


def test_a_thin_line_along_the_robot_is_calibration_not_an_obstacle(cell, shapes):
    cell.put("carton", shapes["carton"], (0.5, 0.0, 0.080))
    depth, masks = cell.picture()
    robot = ndimage.binary_erosion(masks["carton"], iterations=1)
    free = masks["carton"] & ~robot & above(cell, depth)
    assert free.sum() > 50
    assert bl.clusters(depth, cell.points(depth), free, robot, 0.0, 0.025, 14, STEP, 0.35) == []


def test_a_thin_line_away_from_the_robot_is_an_obstacle(cell):
    """A rod one pixel wide, 39 cm high, was left out wherever it stood."""
    depth = np.full((256, 256), 0.8, np.float32)
    points = np.stack([np.full((256, 256), 0.5), *(0.0028 * (np.mgrid[:256, :256][::-1] - 128))],
                      axis=-1).astype(np.float32)
    rod = np.zeros((256, 256), bool)
    rod[60:200, 100] = True
    for at, count in ((60, 1), (97, 0)):
        robot = np.zeros((256, 256), bool)
        robot[:, at] = True
        assert len(bl.clusters(depth, points, rod, robot, -1.0, 0.025, 14, STEP, 0.35)) == count


def test_a_handle_far_from_the_rest_of_a_thing_stays_something(cell):
    """Its far end was cut off for its depth, and belonged to the thing all the same."""
    head, handle = box((0.01, 0.06, 0.06)), box((0.15, 0.006, 0.008)) + [-0.16, 0.0, 0.05]
    cell.put("pan", np.concatenate([head, handle]), (0.62, 0.0, 0.06), 0.0, 6)
    depth, masks = cell.picture()
    blobs, owner = found(cell, depth, cell.detections(masks))
    shown = np.zeros_like(masks["pan"])
    for blob in [*blobs, *unknown(cell, depth, owner)]:
        shown[blob.rows, blob.cols] = True
    assert not (masks["pan"] & above(cell, depth) & ~shown).any()


def test_what_is_longer_than_the_limit_is_cut(cell, shapes):
    cell.put("beam", np.asarray(shapes["carton"]) * [0.5, 5.0, 0.3], (0.5, 0.0, 0.024))
    depth, masks = cell.picture()
    owner = np.full(depth.shape, -1, np.int16)
    pieces = bl.clusters(depth, cell.points(depth), masks["beam"] & above(cell, depth), NO_ROBOT,
                         0.0, 0.025, 14, STEP, 0.10)
    assert len(pieces) >= 2
    assert all(np.ptp(p.points, axis=0).max() <= 0.2 for p in pieces)
    assert sum(len(p.rows) for p in pieces) == (masks["beam"] & above(cell, depth)).sum()
    assert owner.max() == -1


def test_what_stands_on_a_plate_does_not_take_the_plate_with_it(cell, shapes):
    cell.put("plate", shapes["plate"], (0.5, 0.0, 0.006), class_id=8)
    cell.put("cube", shapes["cube"], (0.5, 0.0, 0.034), class_id=0)
    depth, masks = cell.picture()
    fat = ndimage.binary_dilation(masks["cube"], iterations=2)
    detections = [Detection(masks["plate"], np.zeros(4, np.float32), 8, 0.9),
                  Detection(fat, np.zeros(4, np.float32), 0, 0.9)]
    blobs, _ = found(cell, depth, detections, supports={8})
    cube = next(b for b in blobs if b.class_id == 0)
    assert cube.ground == pytest.approx(0.012, abs=2e-3)
    assert cube.points[:, 2].min() > 0.012
    assert np.ptp(cube.points[:, 1]) < 0.050


def test_a_thing_in_front_of_a_plate_does_not_stand_on_it(cell, shapes):
    cell.put("plate", shapes["plate"], (0.42, 0.0, 0.006), class_id=8)
    cell.put("cube", shapes["cube"], (0.6, 0.0, 0.15), class_id=0)
    depth, masks = cell.picture()
    blobs, _ = found(cell, depth, cell.detections(masks), supports={8})
    assert next(b for b in blobs if b.class_id == 0).ground == 0.0


def test_a_thing_whose_mask_is_taken_for_a_plates_stays_an_obstacle(cell, shapes):
    cell.put("plate", shapes["plate"], (0.45, 0.0, 0.006), class_id=8)
    cell.put("carton", shapes["carton"], (0.6, 0.0, 0.17))
    depth, masks = cell.picture()
    greedy = Detection(masks["plate"] | masks["carton"], np.zeros(4, np.float32), 8, 0.9)
    blobs, owner = found(cell, depth, [greedy], supports={8})
    (cluster,) = unknown(cell, depth, owner)
    assert len(cluster.rows) > 0.9 * masks["carton"].sum()
    assert np.ptp(blobs[0].points[:, 0]) < 0.18


def test_hidden_edges_face_what_is_nearer(cell, shapes):
    cell.put("carton", shapes["carton"], (0.5, 0.0, 0.080))
    cell.put("cube", shapes["cube"], (0.62, 0.0, 0.10))
    depth, masks = cell.picture()
    rows, cols = np.nonzero(masks["carton"])
    hidden = bl.hidden_edges(depth, rows, cols, NO_ROBOT, STEP)
    touching = ndimage.binary_dilation(masks["cube"], iterations=3)[rows, cols]
    assert hidden[touching].mean() > 0.6
    assert hidden[~touching].mean() < 0.02
