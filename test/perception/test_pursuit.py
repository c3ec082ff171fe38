"""What the hand has gone for stays what the words mean."""

from __future__ import annotations

import pytest

from safety_filter.perception.pursuit import Pursuit
from safety_filter.perception.words import Fit

A, B = 1, 2
CLEAR = Fit(0.9, known=True, possible=True, clear=True)
TOPPLED = Fit(0.1, known=True, possible=False, clear=False)
UNSEEN = Fit(1.0, known=False, possible=True, clear=False)


def went_for_a(near: bool = True) -> Pursuit:
    pursuit = Pursuit()
    pursuit.follow(A, CLEAR, near, 0.0)
    return pursuit


def test_a_look_alike_is_not_meant_once_the_fingers_were_round_what_is():
    assert went_for_a(near=False).only({A, B}) == {A, B}
    assert went_for_a().only({A, B}) == {A}
    assert went_for_a().only({B}) == set()  # where it is out of sight nothing is meant


@pytest.mark.parametrize(("alive", "held"), [({B}, False), ({A, B}, True)])
def test_that_ends_when_it_is_gone_or_something_is_in_the_hand(alive, held):
    pursuit = went_for_a()
    pursuit.forget(alive, held)
    assert pursuit.only({B}) == {B}


def test_a_target_keeps_what_it_was_like_at_its_best_and_no_track_inherits_that():
    pursuit = went_for_a()
    pursuit.follow(A, TOPPLED, near=True, rival=0.0)
    pursuit.forget({A, B}, held=True)  # taken and dropped: it is still what it was
    assert pursuit.proven == {A: 0.9}
    pursuit.forget({B}, held=False)
    assert pursuit.proven == {}


@pytest.mark.parametrize("fit", [TOPPLED, UNSEEN])
def test_what_never_clearly_fitted_proves_nothing(fit):
    pursuit = Pursuit()
    pursuit.follow(A, fit, near=True, rival=0.0)
    assert pursuit.proven == {} and pursuit.only({B}) == {B}


def test_a_look_alike_beside_what_fits_better_proves_nothing():
    pursuit = Pursuit()
    pursuit.follow(A, CLEAR, near=True, rival=0.95)
    assert pursuit.proven == {} and pursuit.only({B}) == {B}
