"""With the simulator and the weights that ship."""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.perception.detector import DEFAULT_WEIGHTS, Detector
from safety_filter.perception.params import TABLE

pytest.importorskip("pybullet")

from safety_filter.perception import dataset
from safety_filter.perception.episodes import episode, panda_mask, scenes
from safety_filter.perception.evaluate import Tally, report, score
from safety_filter.perception.pipeline import Perception
from safety_filter.sim.catalogue import CLASS_NAMES

MAX_BYTES = 15e6


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load()


def test_shipped_weights_are_small_and_of_the_simulators_classes(detector):
    assert DEFAULT_WEIGHTS.stat().st_size <= MAX_BYTES
    assert tuple(detector.names) == CLASS_NAMES


def test_the_robots_geometry_covers_its_pixels_and_little_else():
    (scene,) = scenes(1)
    mask = panda_mask()
    for step in list(episode(scene, 3.0, rate=2.0)):
        frame = step.frame
        view = mask.view(frame.depth, step.q, step.opening, frame.K, frame.T_base_cam)
        robot = frame.seg == 2
        assert view.mask[robot].mean() > 0.99
        things = frame.seg > 2
        assert view.mask[things].mean() < 0.1


def test_labelled_pictures_are_a_function_of_the_seed():
    a, b = (list(dataset.pictures(dataset.TEST_SEED, 1)) for _ in range(2))
    assert len(a) == dataset.FRAMES_PER_SCENE
    for x, y in zip(a, b, strict=True):
        assert (x.rgb == y.rgb).all()
        assert x.classes == y.classes
        assert all(int(m.sum()) >= dataset.MIN_LABEL_PIXELS for m in x.masks)
        assert not any((m & n).any() for i, m in enumerate(x.masks) for n in x.masks[:i])


def test_outlines_give_the_mask_back():
    import cv2
    for picture in dataset.pictures(dataset.TEST_SEED + 1, 1):
        for mask in picture.masks:
            outline = dataset.polygon(mask)
            if outline is None or mask.sum() < 60:
                continue
            again = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(again, [np.rint(outline).astype(np.int32)], 1)
            union = (mask | (again > 0)).sum()
            assert (mask & (again > 0)).sum() > 0.85 * union


def test_the_detector_finds_what_stands_on_held_out_tables(detector):
    found = total = 0
    for picture in dataset.pictures(dataset.TEST_SEED, 10):
        detections = detector.detect(picture.rgb, 0.25)
        for mask, class_id in zip(picture.masks, picture.classes, strict=True):
            if mask.sum() < 60:
                continue
            total += 1
            found += any(d.class_id == class_id and
                         (d.mask & mask).sum() > 0.5 * (d.mask | mask).sum() for d in detections)
    assert total > 80
    assert found > 0.75 * total


def test_tracks_follow_the_truth_in_a_scene_with_movers(detector):
    perception = Perception(TABLE.validate({}), detector, panda_mask())
    tally = Tally()
    for scene in scenes(3, 4_000_000):
        score(episode(scene, 5.0), perception, tally)
    out = report(tally)["values"]
    assert out["centre_p50_mm"] < 8.0
    assert out["centre_p95_mm"] < 40.0
    assert out["velocity_p50_mm_s"] < 15.0
    assert tally.unknown_seen >= 0.9 * tally.unknown
    assert tally.missed < 0.03 * tally.updates
    assert tally.ghosts < 0.10 * tally.updates
