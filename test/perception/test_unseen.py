"""Tracks of what does not show, or hardly."""

from __future__ import annotations

import numpy as np
import pytest
from sightings import DT, Scenario

from safety_filter.perception.coast import believed
from safety_filter.perception.roles import Grip, HoldDetector


def test_behind_an_occluder_a_track_coasts_and_what_moves_is_uncertain_up_to_a_bound():
    s = Scenario()
    for i in range(20):
        s.step((np.array([0.3, 0.2 * i * DT, 0.1]), 3))
    s.hidden = True
    sigmas = []
    for _ in range(40):
        s.step()
        motion = s.only().motion
        sigmas.append([float(np.sqrt(np.linalg.eigvalsh(state.p[:3, :3])[-1]))
                       for state in (motion.state, motion.move)])
    bound = s.tracker.params.unseen_sigma
    assert np.all(np.diff(sigmas, axis=0) > -1e-9)
    assert 3 * sigmas[0][1] < sigmas[-1][1] <= bound + 1e-9
    # Whether it went on or stopped is not known either
    way = float(np.linalg.norm(motion.move.x[:3] - motion.rest.x[:3]))
    assert 0.3 * way < sigmas[-1][0] < 0.5 * way + 2 * bound
    s.step((s.only().position + [0.01, 0, 0], 3))
    assert s.only().id == 1


@pytest.mark.parametrize(("sightings", "stays"), [(30, True), (6, False)])
def test_what_left_its_place_unseen_is_looked_for_where_nothing_shows(sightings, stays):
    """What hides it moves on along x, and its place is seen empty: it has gone along."""
    s = Scenario()
    for _ in range(sightings):
        s.step((np.array([0.45, 0.0, 0.1]), 3))
    s.hidden = 0.40
    for _ in range(4):
        s.step()
    assert s.only().position[0] < 0.46  # it coasts where it was
    for edge in np.arange(0.46, 0.56, 0.01):
        s.hidden = float(edge)
        s.step()
    assert bool(s.tracker.tracks) == stays
    if stays:
        track = s.only()
        assert track.id == 1 and track.position[0] > 0.54 and track.velocity[0] > 0.05
        s.hidden = False
        for _ in range(5):
            s.step()
        assert s.tracker.tracks == []


@pytest.mark.parametrize(("acceleration", "stays"), [(0.4, False), (5.0, True)])
def test_out_of_sight_it_went_no_farther_than_the_declared_acceleration_takes_it(
        acceleration, stays):
    s = Scenario(hidden_acceleration=acceleration)
    for _ in range(30):
        s.step((np.array([0.45, 0.0, 0.1]), 3))
    s.hidden = 0.40
    for _ in range(4):
        s.step()
    s.hidden = 0.51  # 6 cm after a third of a second: 0.4 m/s^2 make 2 cm
    s.step()
    assert bool(s.tracker.tracks) == stays


def test_what_does_not_come_out_of_a_small_shadow_is_taken_to_rest_after_all():
    """In 870020 of static-2 the arm hid a ball, and shied from what that might do for 10 s."""
    s = Scenario()
    place = np.array([0.45, 0.0, 0.1])
    for _ in range(30):
        s.step((place, 3))
    s.hides = lambda at, half: np.linalg.norm(at - place, axis=1) < 0.04
    sigmas = []
    for _ in range(45):
        s.step()
        sigmas.append(float(np.sqrt(np.linalg.eigvalsh(s.only().state.p[:3, :3])[-1])))
    soon, most, late = sigmas[4], max(sigmas), sigmas[-1]
    assert 3 * sigmas[0] < soon < most  # it may have set out
    assert late < 0.7 * most
    assert np.linalg.norm(s.only().position - place) < 0.01


@pytest.mark.parametrize("seen", [True, False])
def test_what_is_let_go_of_in_the_air_falls_to_the_table(seen):
    """In 870006 of dynamic-4 it rose as fast as the hand had, and the arm fled from it."""
    s = Scenario()
    hand = HoldDetector(s.tracker.params, frozenset())
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    place = np.array([0.5, 0.0, 0.15])

    def step(opening: float, *things: tuple[np.ndarray, int]) -> None:
        s.step(*things)
        pose[:3, 3] = place
        hand.update(Grip(s.time, opening, pose), s.tracker.tracks)

    for opening in (0.08, 0.06, 0.04, 0.04, 0.04, 0.04):
        step(opening, (place, 3))
    rising = np.array([0.0, 0.0, 0.02])
    motion = np.eye(4)
    motion[:3, 3] = rising
    for _ in range(5):
        place = place + rising
        s.step((place, 3), tool=(motion, np.array([0.0, 0.0, 0.3, 0.0, 0.0, 0.0])))
        pose[:3, 3] = place
        assert hand.update(Grip(s.time, 0.04, pose), s.tracker.tracks) == 1
    s.hidden = True
    step(0.08)
    let_go = s.only().position[2]
    assert let_go == pytest.approx(place[2] + 0.02, abs=0.02)
    heights = []
    for i in range(1, 12):
        z = max(0.02, let_go - 9.81 * (i * DT)**2 / 2)
        step(0.08, *([(np.array([0.5, 0.0, z]), 3)] if seen else []))
        heights.append(s.only().position[2])
        assert s.only().id == 1
        assert heights[-1] == pytest.approx(z, abs=0.02 if seen else 0.05)
    assert heights[-1] == pytest.approx(0.02, abs=0.005)
    assert s.only().falling is None
    assert abs(s.only().velocity[2]) < 0.05


def test_what_sets_out_while_little_of_it_shows_is_followed():
    s = Scenario()
    x, v = 0.4, 0.0
    for _ in range(30):
        s.step((np.array([x, 0.0, 0.1]), 3))
    s.pixels = 30  # a tenth
    for i in range(12):
        x, v = x + v * DT, min(v + 0.4 * DT, 0.2)
        s.step((np.array([x, 0.0, 0.1]), 3))
        error = abs(s.only().velocity[0] - v) / np.sqrt(s.only().state.p[3, 3])
        if i > 4:
            assert error < 2.0
    assert s.only().velocity[0] == pytest.approx(v, abs=0.05)
    assert s.only().position[0] == pytest.approx(x, abs=0.005)


def test_what_is_hidden_at_rest_may_set_out():
    s = Scenario()
    for _ in range(30):
        s.step((np.array([0.4, 0.0, 0.1]), 3))
    at_rest = np.sqrt(np.diag(s.only().state.p))
    s.hidden = True
    for _ in range(8):
        s.step()
    unseen = np.sqrt(np.diag(s.only().state.p))
    assert s.only().position[0] == pytest.approx(0.4, abs=0.005)
    assert (unseen[:3] > 3 * at_rest[:3]).all()
    assert (unseen[3:] > 0.03).all()


def test_out_of_sight_a_thing_sets_out_more_often_than_in_sight():
    """Two thirds of a second are enough for it to be several centimetres off; the bound holds."""
    sigmas = []
    for likely in (0.1, 0.6):
        s = Scenario(unseen_starters=likely)
        for _ in range(30):
            s.step((np.array([0.45, 0.0, 0.1]), 3))
        s.hidden = True
        for _ in range(10):
            s.step()
        p = s.only().state.p
        sigmas.append(float(np.sqrt(p[0, 0])))
        assert np.linalg.norm(s.only().position - [0.45, 0.0, 0.1]) < 0.005
    assert sigmas[0] < 0.6 * sigmas[1]
    assert 0.015 < sigmas[1] <= s.tracker.params.unseen_sigma


@pytest.mark.parametrize(("sightings", "speed", "stays"),
                         [(30, 0.0, True), (30, 0.15, False), (6, 0.0, False)])
def test_what_rested_stays_for_as_long_as_its_place_is_hidden(sightings, speed, stays):
    s = Scenario()
    for i in range(sightings):
        s.step((np.array([0.3 + speed * i * DT, 0.0, 0.1]), 3))
    s.hidden = True
    for _ in range(int(5 * s.tracker.params.drop_hidden / DT)):
        s.step()
    assert bool(s.tracker.tracks) == stays
    if not stays:
        return
    track = s.only()
    assert track.id == 1 and track.position[0] == pytest.approx(0.3, abs=0.01)
    s.hidden = False  # the place shows, and is empty
    for _ in range(int(2 * s.tracker.params.drop_visible / DT)):
        s.step()
    assert s.tracker.tracks == []


@pytest.mark.parametrize("speed", [0.0, 0.15])
def test_what_is_carried_is_believed_wherever_its_acceleration_can_have_taken_it(speed):
    s = Scenario()
    x, v = 0.3, speed
    for _ in range(30):
        x += v * DT
        s.step((np.array([x, 0.0, 0.15]), 3))
    s.hidden = True
    for _ in range(11):
        s.step()
        x, v = x + v * DT + 0.2 * DT**2, v + 0.4 * DT
        state = believed(s.only(), s.tracker.params, s.time)
        assert abs(x - state.x[0]) < 2.0 * np.sqrt(state.p[0, 0])
    for _ in range(20):
        s.step()
        state = believed(s.only(), s.tracker.params, s.time)
        assert np.linalg.eigvalsh(state.p[:3, :3])[-1] < s.tracker.params.carried_sigma**2 + 1e-9


def test_what_stands_out_of_sight_is_believed_to_stand_there():
    sigmas = []
    for height in (0.03, 0.15):
        s = Scenario()
        for _ in range(30):
            s.step((np.array([0.45, 0.0, height]), 3))
        s.hidden = True
        for _ in range(15):
            s.step()
        state = believed(s.only(), s.tracker.params, s.time)
        sigmas.append(float(np.sqrt(np.linalg.eigvalsh(state.p[:3, :3])[-1])))
    assert sigmas[0] <= s.tracker.params.unseen_sigma + 1e-9
    assert sigmas[1] > 0.08


def test_what_does_not_come_out_where_it_would_has_stopped():
    s = Scenario()
    for i in range(15):
        s.step((np.array([0.7 - 0.2 * i * DT, 0.0, 0.1]), 3))
    s.hidden = 0.45  # seen last at 0.51, on its way to where it would show
    for _ in range(14):
        s.step()
    assert 0.45 < s.only().position[0] < 0.52
    assert s.only().velocity[0] > -0.05


def test_in_plain_view_an_absent_thing_is_dropped_soon_and_hidden_late():
    for hidden, alive_after in ((False, 0.25), (True, 4.0)):
        s = Scenario()
        for _ in range(5):
            s.step((np.array([0.4, 0, 0.1]), 3))
        s.hidden, start = hidden, s.time
        while s.tracker.tracks:
            s.step()
        assert s.time - start == pytest.approx(alive_after, abs=2 * DT)


def test_a_thing_that_comes_back_takes_its_id_up_again():
    s = Scenario()
    for _ in range(8):
        s.step((np.array([0.4, 0, 0.1]), 3))
    for _ in range(10):
        s.step()
    assert s.tracker.tracks == []
    for _ in range(3):
        s.step((np.array([0.405, 0, 0.1]), 3))
    assert s.only().id == 1
