"""Where supports lie that the detector overlooks."""

from __future__ import annotations

import numpy as np
import pytest
from looking import Bench
from perception.solids import box
from sightings import BIN, PLATE

from safety_filter.core.wire import UNKNOWN_CLASS, Role
from safety_filter.perception.blobs import Blob
from safety_filter.perception.detector import Detection
from safety_filter.perception.kalman import State
from safety_filter.perception.memory import SupportMemory
from safety_filter.perception.motion import Motion
from safety_filter.perception.shape import BOX
from safety_filter.perception.track import Track

SHAPE = (40, 40)
CUBE = 0


def square(size: int, at: int = 5) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[at:at + size, at:at + size] = True
    return mask


def detection(mask: np.ndarray, score: float, class_id: int = BIN) -> Detection:
    return Detection(mask, np.zeros(4, np.float32), class_id, score)


def remembering(*masks: np.ndarray, hits: int = 20) -> SupportMemory:
    """A memory of a bin that was seen as the masks say, one a picture."""
    memory = SupportMemory(frozenset({BIN}))
    half = np.full(3, 0.1)
    state = State.at(np.array([0.5, 0.2, 0.03]), 1e-6 * np.eye(3), 0.0)
    bin_ = Track(4, Motion.of(state, 0.0), half, half, 0.0, BOX, 0.0, 0.0, {BIN: 1.0}, 0.9, state,
                 hits=hits, blob=0)
    for mask in masks:
        rows, cols = np.nonzero(mask)
        blob = Blob(rows, cols, np.zeros((len(rows), 3)), BIN, 0.9, np.zeros(len(rows), bool))
        memory.keep([bin_], [blob], SHAPE)
    return memory


def test_one_that_is_found_is_not_overlooked():
    memory = remembering(square(20))
    assert memory.overlooked([detection(square(18), 0.9)], [], SHAPE) == []


def test_one_that_is_not_found_owns_its_pixels_but_was_not_seen():
    (again,) = remembering(square(20)).overlooked([detection(square(20), 0.9, CUBE)], [], SHAPE)
    assert again.score == 0.0
    assert np.array_equal(again.mask, square(20))


@pytest.mark.parametrize(("faint", "hits", "score"), [
    (detection(square(16), 0.2), 20, 0.2),  # a part of it shows
    (detection(square(16), 0.2), 5, 0.0),  # it was taken for a support a few times only
    (detection(square(16, at=22), 0.2), 20, 0.0),  # elsewhere
    (detection(square(16), 0.2, CUBE), 20, 0.0)])  # no support
def test_a_faint_detection_shows_an_established_one_again(faint, hits, score):
    (again,) = remembering(square(20), hits=hits).overlooked([], [faint], SHAPE)
    assert again.score == score


def test_one_of_which_a_part_is_hidden_is_remembered_whole():
    """In 870041 of dynamic-4 the rest of a bin became an obstacle when the arm had gone on."""
    (again,) = remembering(square(20), square(8)).overlooked([], [], SHAPE)
    assert np.array_equal(again.mask, square(20))


def test_one_that_lies_elsewhere_is_remembered_there():
    (again,) = remembering(square(20), square(20, at=15)).overlooked([], [], SHAPE)
    assert np.array_equal(again.mask, square(20, at=15))


@pytest.mark.parametrize(("past", "found", "gone"), [
    (0.6, [], {4}), (0.05, [], set()),  # it is there, or something hides it
    (0.6, [detection(square(18), 0.9)], set())])  # seen: it was moved or turned
def test_one_past_which_the_picture_looks_was_taken_away(past, found, gone):
    memory = remembering(square(20))
    assert memory.gone(found, SHAPE, lambda points: past) == gone
    assert len(memory.overlooked([], [], SHAPE)) == 1 - len(gone)


def test_what_is_tracked_no_more_is_forgotten():
    memory = remembering(square(20))
    memory.keep([], [], SHAPE)
    assert memory.overlooked([], [], SHAPE) == []


def test_a_memory_of_another_size_of_picture_is_not_used():
    assert remembering(square(20)).overlooked([], [], (80, 80)) == []


@pytest.mark.parametrize(("score", "stays"), [(0.2, True), (0.05, False)])
def test_a_plate_that_the_detector_hardly_names_stays_one(cell, score, stays):
    """The arm over it changes the picture: 0.1 to 0.4 were left of a score of 0.9."""
    bench = Bench(cell)
    cell.put("plate", box((0.1, 0.08, 0.01)), (0.45, -0.1, 0.01), 0.0, PLATE)
    for _ in range(20):
        result = bench.look()
    plate = int(result.objects["id"][0])
    cell.score = score
    for _ in range(75):  # longer than drop_hidden
        result = bench.look()
    ids, roles = result.objects["id"].tolist(), result.objects["role"].tolist()
    assert (ids == [plate] and roles == [Role.SUPPORT]) == stays, (ids, roles)


def test_a_faint_detection_of_what_is_no_support_is_none(cell, shapes):
    bench = Bench(cell)
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.022), 0.3, CUBE)
    cell.score = 0.2
    for _ in range(5):
        result = bench.look()
    assert result.detections == []
    assert result.objects["class_id"].tolist() == [UNKNOWN_CLASS]
