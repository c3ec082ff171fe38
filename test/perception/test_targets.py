from __future__ import annotations

import numpy as np
import pytest

from safety_filter.perception.gaze import AttentionMap, Gaze, density
from safety_filter.perception.params import TABLE
from safety_filter.perception.targets import Candidate, TargetSelector

A, B = 1, 2
BOTH = [Candidate(A, False), Candidate(B, False)]
DT = 0.1


def owner() -> np.ndarray:
    """Track A fills a square on the left, B one twice as large on the right; 256 px."""
    image = np.zeros((256, 256), np.int32)
    image[96:160, 32:96] = A
    image[64:192, 128:256] = B
    return image


def attention(on: int, strength: float = 8.0, g: int = 16) -> np.ndarray:
    """A map of ones with `strength` on one track."""
    m = np.ones((g, g), np.float32)
    small = owner()[:: 256 // g, :: 256 // g]
    m[small == on] = strength
    return m


class Run:
    """Feeds a selector pictures and maps at 10 Hz."""

    def __init__(self, **changes: object) -> None:
        self.selector = TargetSelector(TABLE.validate(changes))
        self.time = 0.0

    def step(self, m: np.ndarray | None, candidates=BOTH, wrist: np.ndarray | None = None):
        self.time += DT
        self.selector.scene.picture(self.time, owner())
        self.selector.wrist.picture(self.time, owner())
        if m is not None:
            self.fault = self.selector.scene.attend(AttentionMap(self.time, m))
        if wrist is not None:
            assert self.selector.wrist.attend(AttentionMap(self.time, wrist)) is None
        return self.selector.select(self.time, candidates)

    def steps(self, n: int, m: np.ndarray | None, candidates=BOTH,
              wrist: np.ndarray | None = None):
        for _ in range(n):
            out = self.step(m, candidates, wrist)
        return out


def test_score_is_a_density_not_a_mass():
    m = np.ones((16, 16), np.float32)
    small = np.asarray(owner()[::4, ::4])
    scores = density(m, small, [A, B])
    assert scores[B][0] > 3 * scores[A][0]  # more mass on the larger
    for mass, area in scores.values():
        assert mass / area == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("who", [A, B])
def test_the_track_attended_to_becomes_the_target(who):
    out = Run().steps(6, attention(who))
    assert out.target == who
    assert out.share[who] > 0.8


def test_uniform_attention_selects_nothing():
    assert Run().steps(10, np.ones((16, 16), np.float32)).target is None


def test_without_a_gap_there_is_no_target():
    m = attention(A)
    m[owner()[::16, ::16] == B] = 7.0
    out = Run().steps(10, m)
    assert out.target is None
    assert "leads" in out.reason


def test_fails_closed_when_attention_never_came():
    out = Run().steps(5, None)
    assert out.target is None
    assert "stale" in out.reason


def test_fails_closed_when_attention_gets_stale():
    run = Run()
    assert run.steps(6, attention(A)).target == A
    for i in range(12):
        out = run.step(None)
        if (i + 1) * DT > 0.6 + 1e-9:
            assert out.target is None
    assert "stale" in out.reason


def test_fails_closed_while_another_candidate_is_hidden():
    out = Run().steps(8, attention(A), [Candidate(A, False), Candidate(B, True)])
    assert out.target is None
    assert "candidate 2 is hidden" in out.reason


def test_a_target_chosen_in_the_open_stays_when_another_gets_hidden():
    run = Run()
    assert run.steps(6, attention(A)).target == A
    assert run.steps(6, attention(A), [Candidate(A, False), Candidate(B, True)]).target == A


def test_one_contrary_map_does_not_switch_the_target():
    run = Run()
    run.steps(8, attention(A))
    assert run.step(attention(B)).target == A
    assert run.steps(3, attention(A)).target == A


def test_a_lasting_change_of_mind_passes_through_no_wrong_target():
    run = Run()
    run.steps(8, attention(A))
    seen = [run.step(attention(B)).target for _ in range(14)]
    assert seen[-1] == B
    first_b = seen.index(B)
    assert A not in seen[first_b:]


def test_a_target_that_is_gone_is_no_target():
    run = Run()
    run.steps(8, attention(A))
    assert run.step(attention(A), [Candidate(B, False)]).target is None


def test_a_new_instruction_forgets_the_target():
    run = Run()
    run.steps(8, attention(A))
    run.selector.reset()
    assert run.selector.select(run.time, BOTH).target is None


@pytest.mark.parametrize(("m", "text"), [
    (np.full((16, 16), np.nan, np.float32), "finite"),
    (-np.ones((16, 16), np.float32), "finite values >= 0"),
    (np.zeros((16, 16), np.float32), "empty"),
    (np.ones(16, np.float32), r"\(g, g\) map"),
])
def test_unreadable_maps_count_as_none(m, text):
    import re
    run = Run()
    out = run.steps(4, m)
    assert re.search(text, run.fault)
    assert out.target is None


def test_maps_without_their_picture_or_out_of_order_are_not_used():
    run = Run()
    run.step(None)
    gaze = run.selector.scene
    assert "no picture within" in gaze.attend(AttentionMap(5.0, attention(A)))
    assert gaze.attend(AttentionMap(run.time, attention(A))) is None
    assert "not newer" in gaze.attend(AttentionMap(run.time, attention(A)))
    assert "no picture yet" in Gaze().attend(AttentionMap(0.0, attention(A)))


def test_a_late_map_is_scored_on_the_picture_it_was_computed_from():
    gaze = Gaze()
    moved = np.roll(owner(), 100, axis=1)
    for i in range(6):
        gaze.picture(0.1 * i, owner() if i < 3 else moved)
    for i in range(3):
        assert gaze.attend(AttentionMap(0.1 * i, attention(A))) is None
    scores = gaze.window(0.5, 0.7, [A, B])
    assert scores[A] > 4 * scores[B]


def test_attention_to_what_the_words_do_not_name_is_no_target():
    run = Run()
    foreign = [Candidate(A, False, named=False), Candidate(B, False)]
    out = run.steps(20, attention(A), foreign)
    assert out.target is None
    assert out.reason == f"candidate {A} is not what the instruction means"
    assert run.steps(20, attention(B), foreign).target == B


def test_a_target_that_turns_out_to_be_something_else_is_none():
    run = Run()
    assert run.steps(20, attention(A)).target == A
    foreign = [Candidate(A, False, named=False), Candidate(B, False)]
    assert run.step(attention(A), foreign).target is None


def test_a_hidden_thing_that_the_words_do_not_name_keeps_no_target_back():
    hidden = [Candidate(A, False), Candidate(B, True)]
    assert Run().steps(20, attention(A), hidden).target is None
    unnamed = [Candidate(A, False), Candidate(B, True, named=False)]
    assert Run().steps(20, attention(A), unnamed).target == A


UNIFORM = np.ones((16, 16), np.float32)
NEAR_A = [Candidate(A, False, near=True), Candidate(B, False)]


def test_the_camera_in_the_hand_decides_what_the_scene_camera_leaves_open():
    assert Run().steps(8, UNIFORM, NEAR_A, attention(A)).target == A
    # and where that camera takes something for the target that the words do not name
    unnamed = [Candidate(A, False, near=True), Candidate(B, False, named=False)]
    assert Run().steps(8, attention(B), unnamed, attention(A)).target == A


@pytest.mark.parametrize("candidates", [
    [Candidate(A, False), Candidate(B, False)],
    [Candidate(A, False, named=False, near=True), Candidate(B, False)],
])
def test_the_camera_in_the_hand_decides_only_of_what_is_near_and_named(candidates):
    assert Run().steps(20, UNIFORM, candidates, attention(A)).target is None


def test_without_a_lead_in_the_hands_camera_there_is_no_target():
    m = attention(A)
    m[owner()[::16, ::16] == B] = 7.0
    assert Run().steps(10, UNIFORM, NEAR_A, m).target is None


def test_where_the_cameras_disagree_there_is_no_target():
    run = Run()
    out = run.steps(10, attention(B), NEAR_A, attention(A))
    assert out.target is None
    assert out.reason == f"the scene camera points at {B}, the one in the hand at {A}"
    # nor does one that was chosen stay
    assert run.steps(10, attention(A), NEAR_A).target == A
    assert run.steps(12, attention(B), NEAR_A, attention(A)).target is None


def test_a_target_stays_while_the_camera_in_the_hand_points_at_it():
    run = Run()
    assert run.steps(8, attention(A), NEAR_A).target == A
    for _ in range(20):
        assert run.step(UNIFORM, NEAR_A, attention(A)).target == A
    assert run.steps(15, UNIFORM, NEAR_A).target is None


def test_what_is_hidden_from_the_scene_camera_may_show_in_the_hands():
    hidden = [Candidate(A, False, near=True), Candidate(B, True)]
    assert Run().steps(8, UNIFORM, hidden, attention(A)).target == A
    out = Run().steps(8, UNIFORM, [*hidden, Candidate(9, True)], attention(A))
    assert out.target is None
    assert out.reason == "candidate 9 is hidden"


def test_stale_attention_of_the_hands_camera_selects_nothing():
    run = Run(attention_window=5.0)
    assert run.steps(8, UNIFORM, NEAR_A, attention(A)).target == A
    assert run.steps(4, UNIFORM, NEAR_A).target == A  # 0.4 s old
    assert run.steps(8, UNIFORM, NEAR_A).target is None


def test_the_hands_camera_alone_selects_nothing():
    out = Run().steps(10, None, NEAR_A, attention(A))
    assert out.target is None
    assert "stale" in out.reason
