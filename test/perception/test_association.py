"""Which blob is which track where a thing shows as more than one."""

from __future__ import annotations

import numpy as np
import pytest
from sightings import PLATE, Scenario

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion

AT = np.array([0.5, 0.0, 0.1])


@pytest.mark.parametrize(("off", "class_id"), [([0.006, 0.007, 0.0], 3),
                                               ([-0.03, 0.01, 0.0], 5),
                                               ([-0.035, 0.0, 0.0], UNKNOWN_CLASS)])
def test_a_second_detection_of_a_thing_does_not_live_on_its_rim(off: list[float], class_id: int):
    """Seen twice in one picture; from then on a rim of it that the mask leaves out."""
    s = Scenario()
    for _ in range(15):
        s.step((AT, 3))
    s.step((AT, 3), (AT + off, class_id))
    for _ in range(6):
        s.step((AT, 3), (AT + [0.0, 0.018, 0.0], UNKNOWN_CLASS))
    track = s.only()
    assert track.id == 1 and track.class_id == 3
    assert np.linalg.norm(track.position - AT) < 0.004
    assert len(s.tracker.tracks) == 1


def test_what_was_seen_once_takes_no_thing_from_its_track():
    """A newcomer between the thing and another: both would have a blob if they changed places."""
    s = Scenario()
    for _ in range(15):
        s.step((AT, 3))
    s.step((AT, 3), (AT + [-0.085, 0.0, 0.0], UNKNOWN_CLASS))
    s.step((AT, 3), (AT + [0.07, 0.0, 0.0], UNKNOWN_CLASS))
    (track,) = [t for t in s.tracker.tracks if t.id == 1]
    assert track.blob == 0


def test_what_comes_into_view_beside_a_thing_is_tracked_from_its_second_picture():
    s = Scenario()
    for _ in range(15):
        s.step((AT, 3))
    for _ in range(2):
        s.step((AT, 3), (AT + [0.07, 0.0, 0.0], UNKNOWN_CLASS))
    assert sum(t.confirmed for t in s.tracker.tracks) == 2


def test_what_shows_is_rather_the_thing_whose_place_is_known():
    """One has been out of sight for long and could be anywhere near, the other just went."""
    s = Scenario()
    lost, near = AT, AT + [0.13, 0.0, 0.0]
    for _ in range(20):
        s.step((lost, 3), (near, 5))
    s.hidden = True
    for _ in range(12):
        s.step((near, 5))
    away, known = s.tracker.tracks
    away.motion = Motion.of(State(away.state.x, np.eye(6) * 0.06**2), 0.9)
    for _ in range(2):
        s.step()
    s.step((near - [0.04, 0.0, 0.0], UNKNOWN_CLASS))
    assert (away.blob, known.blob) == (-1, 0)


@pytest.mark.parametrize(("score", "lifted", "taken"), [(0.5, 0.0, False), (0.9, 0.0, True),
                                                        (0.5, 0.05, True)])
def test_what_shows_of_a_support_is_not_what_went_out_of_sight(score, lifted, taken):
    """The arm hides most of a plate, and the detector sees a ball in the rest, unsure of it."""
    s = Scenario()
    plate = np.array([0.6, 0.2, 0.012])
    flat = np.array([0.06, 0.06, 0.012])
    for _ in range(15):
        s.step((plate, PLATE), (plate + [-0.05, 0.0, 0.09], UNKNOWN_CLASS), half=flat)
    s.hidden = True
    for _ in range(6):
        s.step()
    (gone,) = [t for t in s.tracker.tracks if t.class_id == UNKNOWN_CLASS]
    gone.motion = Motion.of(State(gone.state.x, np.eye(6) * 0.05**2), 0.9)
    s.score = score
    s.step((plate + [0.0, 0.0, lifted], 3), half=flat)
    assert (gone.blob == 0) == taken
    assert len(s.tracker.tracks) == 2
