"""What is taken to happen to a track that a picture did not show, or hardly."""

from __future__ import annotations

import numpy as np

from safety_filter.perception.hidden import Hideout, Hides
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.track import Track

_STILL_MOVER = 3.0  # s, decay of the memory that something moved
SLOW = 0.03  # m/s below which an unseen thing is taken to rest
_ESTABLISHED = 15  # sightings from which on a track is a thing: what was never there cannot leave
_REST_ACCEL = 0.02  # m/s^2, process noise of what rests


def coast(track: Track, p: PerceptionParams, support: bool, dt: float) -> None:
    """Move a track on by `dt` s: at constant velocity, or with the samples of its `hideout`.

    What is hidden slows down, and its sigmas are bounded: an unseen thing can only be where
    nothing is seen, behind what hides it. Without the bound its margin would outgrow the room.
    """
    if track.hideout is not None:
        track.hideout.advance(dt, p.hidden_acceleration, _rng(track))
        track.state = track.hideout.state
        return
    unseen = track.visible < 0.3
    if not unseen:
        speed = float(np.linalg.norm(track.velocity))
        track.cruise = max(speed, track.cruise * float(np.exp(-dt / _STILL_MOVER)))
    slow = support or (unseen and track.cruise < SLOW)
    accel = _REST_ACCEL if slow else p.accel_quiet
    if unseen and not slow:
        # It may speed up for as long as it is out of sight, not anew with each picture.
        accel *= float(np.sqrt(1 + track.misses))
    track.state = track.state.predicted(dt, accel)
    if unseen:
        # Nothing says that it still moves: slow motion was noise, fast motion ends.
        fade = np.exp(-dt / (0.2 if slow else 1.5))
        most = p.initial_speed / max(float(np.linalg.norm(track.velocity)), 1e-9)
        track.state = track.state.slowed(min(fade, most)).confined(
            p.unseen_sigma, p.unseen_speed)


def out_of_sight(track: Track, p: PerceptionParams, support: bool, stamp: float,
                 hides: Hides) -> bool:
    """Whether a track that the picture of `stamp` does not show can be where nothing is seen.

    As long as its expected place is hidden it coasts there. What was seen well, and has left that
    place, may have moved in any way that nothing showed: its state becomes that of all of them.
    """
    if support:
        return True
    if track.hideout is None:
        expected = bool(hides(track.position[None], track.half)[0])
        if track.attached or not track.clean or track.hits < _ESTABLISHED or expected:
            return expected
        track.hideout = Hideout.since(track.sight, stamp - track.last_seen,
                                      p.hidden_acceleration, p.initial_speed, _rng(track))
    where = track.hideout.position
    room = np.all((where > p.workspace_min) & (where < p.workspace_max), axis=1)
    if not track.hideout.keep(room & hides(where, track.half), _rng(track)):
        track.hideout = None
        return False
    track.state = track.hideout.state
    return True


def _rng(track: Track) -> np.random.Generator:
    """Equal pictures give equal tracks."""
    return np.random.default_rng([track.id, track.misses])
