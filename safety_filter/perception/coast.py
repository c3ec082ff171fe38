"""What is taken to happen to a track that a picture did not show, or hardly."""

from __future__ import annotations

import numpy as np

from safety_filter.perception.hidden import Hideout, Hides
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.track import Track

_ESTABLISHED = 15  # sightings from which on a track is a thing: what was never there cannot leave
_REST_ACCEL = 0.02  # m/s^2, process noise of what rests
_RESTED = 0.05  # m/s below which what was last seen of a thing is that it rested
_OVERLOOKED = 0.3  # how likely what is in view is not seen in a picture
_SPREAD = np.random.default_rng(0).standard_normal((40, 3))  # of where what moves on may be
_GRAVITY = 9.81  # m/s^2
_FALLS = 0.1  # s for which what was let go of falls, however little it shows
_FALLEN = 0.01  # m lower than before from which on it falls still
LANDED = 0.1  # m/s, sigma of the velocity of what has come down, or is about to
_LEFT = 0.9  # how likely what has left its place moves


def coast(track: Track, p: PerceptionParams, support: bool, stamp: float, dt: float) -> None:
    """Move a track on by `dt` s to `stamp`: at rest or in motion, or with the samples of its
    `hideout`.

    The sigmas of what moves out of sight are bounded: an unseen thing can only be where nothing
    is seen, behind what hides it. Without the bound its margin would outgrow the room.
    """
    if track.hideout is not None:
        track.hideout.advance(dt, p.hidden_acceleration, _rng(track))
        track.motion = Motion.of(track.hideout.state, _LEFT)
        return
    if track.falling is not None:
        _fall(track, p, dt)
        return
    if support:
        rest = track.motion.rest.predicted(dt, _REST_ACCEL)
        track.motion = Motion.of(rest, 0.0)
        return
    # It may speed up for as long as it is out of sight, not anew with each picture.
    accel = p.accel_quiet * float(np.sqrt(1 + track.misses))
    hidden_at_rest = track.misses and not _moved(track)
    starts = _sets_out(p, stamp - track.last_seen) if hidden_at_rest else p.start_rate
    motion = track.motion.predicted(dt, accel, starts, p.stop_rate)
    if track.misses:
        most = p.initial_speed / max(float(np.linalg.norm(motion.move.x[3:])), 1e-9)
        move = motion.move.slowed(min(1.0, most)).confined(p.unseen_sigma, p.unseen_speed)
        motion = Motion(motion.rest, move, motion.moving)
    track.motion = motion


def _sets_out(p: PerceptionParams, unseen: float) -> float:
    """How often what went out of sight at rest sets out, 1/s, after `unseen` s of rest.

    Of all such things a share sets out some time, the others stay: the longer one did not come
    out, the more likely it is one of those that stay.
    """
    waiting = p.unseen_starters * np.exp(-p.unseen_start_rate * unseen)
    return float(p.unseen_start_rate * waiting / (waiting + 1.0 - p.unseen_starters))


def _fall(track: Track, p: PerceptionParams, dt: float) -> None:
    """Have a track fall freely for `dt` s, down to the table at most."""
    state = track.motion.move.predicted(dt, p.accel_quiet)
    state.x[2] -= _GRAVITY * dt**2 / 2
    state.x[5] -= _GRAVITY * dt
    track.motion = Motion.carried(state)
    lowest = p.table_z + float(track.box[2])
    if state.x[2] <= lowest:
        state.x[2] = lowest
        state.p[:3, :3] = track.sight.p[:3, :3]
        land(track)


def falls_no_more(track: Track, z: float, stamp: float) -> bool:
    """Whether what was let go of a while ago is seen at a height z, m, as high as before."""
    return (track.falling is not None and stamp - track.falling > _FALLS
            and z > float(track.sight.x[2]) - _FALLEN)


def land(track: Track) -> None:
    """End the fall of a track where it is now."""
    state = track.state
    track.motion = Motion.of(State.at(state.x[:3], state.p[:3, :3], LANDED), 0.5)
    track.sight, track.falling = track.state, None


def out_of_sight(track: Track, p: PerceptionParams, support: bool, stamp: float,
                 hides: Hides) -> bool:
    """Whether a track that the picture of `stamp` does not show can be where nothing is seen.

    As long as the place where it rests or that where it moves is hidden, it coasts. What was seen
    well, and has left both, may have moved in any way that nothing showed: its state becomes that
    of all of them.
    """
    if support:
        return True
    if track.hideout is None:
        # At rest or moving on: that there is nothing to be seen speaks against a place in view,
        # and of what may have set out, against all that would have come out of the shadow.
        move = track.motion.move
        may_be = move.x[:3] + _SPREAD @ np.linalg.cholesky(move.p[:3, :3]).T
        hidden = hides(np.vstack([track.motion.rest.x[:3], move.x[:3], may_be]), track.half)
        share = np.array([hidden[0], hidden[2:].mean()])
        track.motion = track.motion.weighed(share + (1.0 - share) * _OVERLOOKED)
        expected = bool(hidden[:2].any())
        falls = track.falling is not None
        if track.attached or falls or not track.clean or track.hits < _ESTABLISHED or expected:
            return expected
        track.hideout = Hideout.since(track.sight, stamp - track.last_seen,
                                      p.hidden_acceleration, p.initial_speed, _rng(track))
    where = track.hideout.position
    room = np.all((where > p.workspace_min) & (where < p.workspace_max), axis=1)
    if not track.hideout.keep(room & hides(where, track.half), _rng(track)):
        track.hideout = None
        return False
    track.motion = Motion.of(track.hideout.state, _LEFT)
    return True


def believed(track: Track, p: PerceptionParams, stamp: float) -> State:
    """The state of a track at `stamp` as published: no surer than one can be of what is not seen.

    What stands on the table and rested when last seen most likely does so still: the arm keeps no
    larger clearance for it than `unseen_sigma` says. What moved, or hangs in the air and so is
    carried, may have done anything that its acceleration allows since it was last seen well: two
    sigma hold that, up to `carried_sigma`. So they do of all samples of a hideout, and of how the
    ends of what turns move beside its centre. What falls does so away from the arm.
    """
    state = track.state
    if track.falling is not None:
        return State.at(state.x[:3], track.sight.p[:3, :3], LANDED)
    ends = track.turn.spin * float(np.hypot(*track.box[:2])) / 2
    if ends:
        state = State(state.x, state.p + np.diag([0.0, 0.0, 0.0, ends**2, ends**2, 0.0]))
    if track.hideout is not None:
        return track.hideout.bound.confined(p.carried_sigma, p.carried_speed)
    if _moved(track) or _carried(track, p):
        t = stamp - track.seen_well
        push = p.hidden_acceleration * t / 2 * np.array([t / 2, t / 2, 0.0, 1.0, 1.0, 0.0])
        state = State(state.x, state.p + np.diag(push**2))
        return state.confined(p.carried_sigma, p.carried_speed) if track.misses else state
    return state.confined(p.unseen_sigma, p.unseen_speed) if track.misses else state


def stays(track: Track) -> bool:
    """Whether what is out of sight counts as there for as long as its place does not show.

    So does a thing that was seen often, and last at rest, until its place was seen empty.
    """
    return track.hideout is None and track.hits >= _ESTABLISHED and not _moved(track)


def _moved(track: Track) -> bool:
    """Whether the last that was seen of it is that it moved."""
    return float(np.linalg.norm(track.sight.x[3:])) >= _RESTED


def _carried(track: Track, p: PerceptionParams) -> bool:
    """Whether it hangs in the air; only of what was seen whole one knows how far it reaches."""
    return track.clean and float(track.position[2] - track.box[2]) > p.table_z + p.carried_height


def _rng(track: Track) -> np.random.Generator:
    """Equal pictures give equal tracks."""
    return np.random.default_rng([track.id, track.misses])
