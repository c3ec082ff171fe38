from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from safety_filter.core.wire import Role, empty_tracks
from safety_filter.perception.episodes import Truth
from safety_filter.perception.evaluate import Tally, match, report, score, table


def thing(name: str, at, known: bool = True, pixels: int = 200) -> Truth:
    return Truth(name, name, known, True, False, np.asarray(at, float), np.zeros(3),
                 np.full(3, 0.02), pixels)


def tracks_at(*places, ids=None):
    out = empty_tracks(len(places))
    for i, p in enumerate(places):
        out["x"][i], out["y"][i], out["z"][i] = p
        out["id"][i] = i + 1 if ids is None else ids[i]
    return out


class Canned:
    """Stands for Perception: gives prepared tracks, one array a picture."""

    supports = frozenset({8})

    def __init__(self, answers) -> None:
        self.answers = iter(answers)

    def reset(self) -> None:
        pass

    def update(self, stamp, *_):
        tracks = next(self.answers)
        return SimpleNamespace(objects=tracks, timings={"total": 1.0, "total_cpu": 1.0})


def steps(truths, dt: float = 1 / 15, held=None):
    for i, truth in enumerate(truths):
        frame = SimpleNamespace(stamp=i * dt, rgb=None, depth=None, K=None, T_base_cam=None)
        yield SimpleNamespace(frame=frame, q=None, opening=0.08, held=held, truth=truth)


def test_pairs_are_the_nearest_and_far_ones_are_none():
    truth = [thing("a", (0, 0, 0)), thing("b", (0.05, 0, 0)), thing("c", (1, 0, 0))]
    assert match(truth, tracks_at((0.04, 0, 0), (0.01, 0, 0), (0.5, 0, 0))) == {0: 1, 1: 0}
    assert match([], tracks_at((0, 0, 0))) == {}
    assert match(truth, empty_tracks()) == {}


def test_errors_switches_ghosts_and_misses_are_counted():
    truth = [[thing("a", (0, 0, 0)), thing("b", (0.3, 0, 0))]] * 3
    answers = [tracks_at((0.003, 0, 0), ids=[1]),
               tracks_at((0.003, 0, 0), (0.3, 0, 0), ids=[1, 2]),
               tracks_at((0.003, 0, 0), (0.3, 0, 0), (0.9, 0, 0), ids=[7, 2, 3])]
    tally = Tally()
    score(steps(truth), Canned(answers), tally)
    assert (tally.updates, tally.switches, tally.ghosts, tally.missed) == (5, 1, 1, 1)
    assert sorted(np.round(tally.centre, 6)) == [0.0, 0.0, 0.003, 0.003, 0.003]


def test_supports_are_left_out():
    tracks = tracks_at((0, 0, 0), ids=[1])
    tracks["class_id"][0] = 8
    tally = Tally()
    score(steps([[thing("a", (0, 0, 0))]]), Canned([tracks]), tally)
    assert (tally.updates, tally.ghosts, tally.missed) == (0, 0, 1)


def test_an_unknown_object_counts_as_seen_within_its_time_only():
    truth = [[thing("x", (0, 0, 0), known=False)]] * 10
    here, nothing = tracks_at((0, 0, 0)), empty_tracks()
    for first, seen in ((2, 1), (4, 1), (8, 0)):
        tally = Tally()
        score(steps(truth), Canned([nothing] * first + [here] * (10 - first)), tally)
        assert (tally.unknown, tally.unknown_seen) == (1, seen)


def test_velocity_counts_from_half_a_second_after_first_sight():
    tally = Tally()
    score(steps([[thing("a", (0, 0, 0))]] * 15), Canned([tracks_at((0, 0, 0))] * 15), tally)
    assert len(tally.velocity) == 15 - 8
    assert len(tally.centre) == 15


def test_held_objects_are_counted():
    tracks = tracks_at((0, 0, 0))
    tracks["role"] = int(Role.HELD)
    tally = Tally()
    score(steps([[thing("a", (0, 0, 0))]], held="a"), Canned([tracks]), tally)
    assert (tally.held, tally.held_right) == (1, 1)


def test_report_holds_figures_against_targets():
    tally = Tally(centre=[0.001] * 10, velocity=[0.02] * 10, cycle=[30.0] * 10, updates=10,
                  unknown=4, unknown_seen=4)
    out = report(tally)
    assert out["met"]["centre_p50_mm"]
    assert not out["met"]["velocity_p50_mm_s"]
    assert "velocity_p50_mm_s" in table(out)
    assert "missed" in table(out)
