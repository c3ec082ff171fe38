"""Tracks: association, filtering, coasting through occlusion, and taking an id up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception.association import associate, mismatch
from safety_filter.perception.blobs import Blob
from safety_filter.perception.coast import coast, falls_no_more, land, out_of_sight, stays
from safety_filter.perception.hidden import Hides
from safety_filter.perception.kalman import State, jump_noise
from safety_filter.perception.motion import Motion
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.rim import between_walls, in_box
from safety_filter.perception.shape import Known, Measurement
from safety_filter.perception.track import Track

F64 = NDArray[np.float64]
Measure = Callable[[Blob, Known | None], Measurement]
_HELD_SLACK = 0.01  # m beyond the ball round a held thing that still are its own
_PIECE_HITS = 6  # sightings up to which an unknown thing may be a piece of another
_WELL = 0.3  # share of a thing with which one sees at once whether it moves
_NOTICED = 0.2  # s until one does with less
_ONE_HITS = 8  # detections of a thing and what shows with it as one from which on they are one


class Tracker:
    """Keeps tracks. `update` takes one picture's blobs; time is an argument, never going back.

    supports, open_supports: classes that others rest on, and those of them with walls.
    """

    def __init__(self, params: PerceptionParams, supports: frozenset[int],
                 open_supports: frozenset[int]) -> None:
        self.params = params
        self.supports = supports
        self.open_supports = open_supports
        self.tracks: list[Track] = []
        self._lost: list[Track] = []
        self._next_id = 1
        self.stamp: float | None = None
        self._begins = True  # the first picture: what it shows stood there before

    def predict(self, stamp: float, tool_motion: tuple[F64, F64] | None = None) -> None:
        """Bring every track to `stamp`, s.

        tool_motion: what the tool did since the last picture, as a transform (4, 4) in `base` and
        its twist (6,) about the origin of `base`; attached tracks follow it.

        Raises:
            ValueError: `stamp` is before the last one.
        """
        self._begins = self.stamp is None
        dt = 0.0 if self.stamp is None else stamp - self.stamp
        if dt < 0:
            raise ValueError(f"stamp: expected >= {self.stamp}, got {stamp}; reset on a jump")
        self.stamp = stamp
        for track in [*self.tracks, *self._lost]:
            if track.attached and tool_motion is not None:
                motion, twist = tool_motion
                x = motion[:3, :3] @ track.position + motion[:3, 3]
                v = twist[:3] + np.cross(twist[3:], x)
                p = track.state.p.copy()
                p[:3, :3] += (0.05 * dt) ** 2 * np.eye(3)
                p[3:, :] = p[:, 3:] = 0.0
                p[3:, 3:] = 0.02**2 * np.eye(3)
                track.motion = Motion.carried(State(np.concatenate([x, v]), p))
            else:
                coast(track, self.params, track.class_id in self.supports, stamp, dt)

    def lose(self, ids: set[int]) -> None:
        """Drop tracks of things that were taken away."""
        self._lost += [t for t in self.tracks if t.id in ids]
        self.tracks = [t for t in self.tracks if t.id not in ids]

    def update(self, blobs: Sequence[Blob], measure: Measure,
               hides: Hides, dt: float) -> list[Blob]:
        """Match `blobs` with the predicted tracks, and start, coast and drop tracks.

        measure(blob, known) completes a blob; hides(positions, half) says
        which places of a thing lie behind something nearer. Returns the blobs that
        `Track.blob` counts: what a track shows as one with something else is taken apart.
        """
        assert self.stamp is not None
        blobs, raw, parts = self._taken_apart(blobs, measure)
        for track in self.tracks:
            track.blob, track.joined, track.outgrown = -1, None, None
        free = self._matched(blobs, raw, parts)
        for track in self.tracks:
            if track.blob >= 0:
                blob, seen = blobs[track.blob], raw[track.blob]
                part = track.blob in parts
                if part or track.remembers_more(seen):
                    seen = measure(blob, track.known())
                self._correct(track, blob, seen, dt, part)
                track.show(blob, raw[track.blob])
        for b in free:
            if not self._explained(blobs[b], raw[b]):
                self._start(blobs[b], raw[b], b)
        self._merge_doubles()
        self._drop_pieces()
        self._age(hides)
        return blobs

    def _matched(self, blobs: Sequence[Blob], raw: Sequence[Measurement],
                 parts: dict[int, Track]) -> list[int]:
        """Give each track its blob; return the indices of the blobs that none has.

        What is established chooses first, and what then is a piece of it is nobody's: what was
        seen once, a thing's second detection perhaps, neither takes a thing from its track nor
        lives on the thing's rim. What lies on the remembered surface of a thing is its own.
        """
        free = [b for b, blob in enumerate(blobs) if not self._rim(blob)]
        for b, track in parts.items():
            if b in free and track.blob < 0:
                track.blob = b
                free.remove(b)
        for confirmed in (True, False):
            tracks = [t for t in self.tracks if t.confirmed == confirmed and t.blob < 0]
            left = list(free) if confirmed else [
                b for b in free if not self._explained(blobs[b], raw[b])]
            for t, i in associate(tracks, [blobs[b] for b in left], [raw[b] for b in left],
                                  self.params, self.supports):
                tracks[t].blob = left[i]
                free.remove(left[i])
        return free

    def _taken_apart(self, blobs: Sequence[Blob], measure: Measure,
                     ) -> tuple[list[Blob], list[Measurement], dict[int, Track]]:
        """Separate known things from what shows as one with them.

        Returns blobs, their sightings, and by index whose sighting a known thing so found is.

        Where a blob is larger than a thing that is expected in it, what lies on the remembered
        surface of that thing is one blob, the rest another of no known class. Of unknown things
        nobody knows where they end: they may have shown more of themselves. What the detector
        takes for one thing over and over is one, and was larger than remembered, unless
        another one was known beside it.
        """
        out: list[Blob] = []
        raw: list[Measurement] = []
        parts: dict[int, Track] = {}
        for blob in blobs:
            seen = measure(blob, None)
            for track in self.tracks:
                if blob.support or not self._within(track, blob, seen):
                    continue
                rest = _beside(track, blob, seen.axes, measure)
                if rest.sum() < self.params.cluster_min_pixels or rest.all():
                    continue
                if track.one == 0:
                    track.beside = self._known_beside(track, blob.points[rest])
                track.one += blob.class_id != UNKNOWN_CLASS and not track.attached
                if track.one > _ONE_HITS and not track.beside:
                    track.forget_shape()
                    continue
                parts[len(out)] = track
                out.append(blob.part(~rest, blob.class_id, blob.score))
                raw.append(measure(out[-1], None))
                blob = blob.part(rest, UNKNOWN_CLASS, 0.5)
                seen = measure(blob, None)
            out.append(blob)
            raw.append(seen)
        return out, raw, parts

    def _within(self, track: Track, blob: Blob, seen: Measurement) -> bool:
        """Whether a known thing is expected in a blob that is larger than it is."""
        if track.class_id in self.supports or track.class_id == UNKNOWN_CLASS or (
                not track.clean or not (track.attached or track.template)
                or blob.class_id not in (UNKNOWN_CLASS, track.class_id)):
            return False
        offset = seen.axes.T @ (track.position - seen.centre)
        return bool(np.any(seen.half > track.half + 0.006) and np.all(np.abs(offset) < seen.half))

    def _known_beside(self, track: Track, rest: F64) -> bool:
        """Whether the points (n, 3) beside a track are of another thing of a known class.

        What only depth showed there may have been its own other side.
        """
        low, high = rest.min(axis=0), rest.max(axis=0)
        return any(t is not track and t.confirmed
                   and t.class_id not in {*self.supports, UNKNOWN_CLASS}
                   and bool(np.all((t.position > low - t.half) & (t.position < high + t.half)))
                   for t in self.tracks)

    # -- association ------------------------------------------------------------------------

    def _rim(self, blob: Blob) -> bool:
        """Whether an unexplained cluster, or what the detector is not sure of, is a part of a
        support that its mask missed."""
        unsure = blob.class_id == UNKNOWN_CLASS or blob.score < self.params.sure_score
        if blob.support or not unsure:
            return False
        return any(in_box(blob, t) and not (t.class_id in self.open_supports and between_walls(
            blob, t, self.params.wall_thickness))
            for t in self.tracks if t.class_id in self.supports)

    def _explained(self, blob: Blob, seen: Measurement) -> bool:
        """Whether an unmatched cluster is a piece of something that is tracked already."""
        if blob.class_id != UNKNOWN_CLASS:
            return False
        for track in self.tracks:
            # What rests on a support is no piece of it; what its mask missed is a matter of `_rim`
            if track.class_id in self.supports or (track.blob < 0 and not track.attached):
                continue
            offset = seen.axes.T @ (seen.centre - track.position)
            if np.all(np.abs(offset) < track.half + 0.01) and np.all(
                    seen.half < track.half + 0.02):
                return True
        return False

    # -- life -------------------------------------------------------------------------------

    def _correct(self, track: Track, blob: Blob, seen: Measurement, dt: float,
                 part: bool) -> None:
        assert self.stamp is not None
        p = self.params
        r, area = seen.covariance, seen.pixels * seen.distance**2
        if track.attached:
            r = r + 0.006**2 * np.eye(3)  # fingers hide parts of it in changing ways
        centre = track.steadied(seen)
        motion = track.motion
        piece = blob.class_id == UNKNOWN_CLASS != track.class_id
        if piece and seen.placed is None:
            r = r + 0.008**2 * np.eye(3)  # its edges are not those of the detector's mask
        alike = not track.clean or (track.alike(seen) and not track.covered(blob, seen))
        joined = piece and not alike and bool(np.any(seen.half > track.half + 0.006))
        if not alike:  # part of it, or something else with it: hardly to be trusted
            r = r + (0.1 if joined else 0.03) ** 2 * np.eye(3)
        elif not track.attached and track.class_id not in self.supports:
            track.one = track.one if part else 0
            move = motion.move
            off = centre - move.x[:3]
            full = not piece and area > 0.7 * track.reference and seen.sides[:2].all()
            if full and move.distance(centre, r) > p.surprise:
                along = off / float(np.linalg.norm(off))
                move = State(move.x, move.p + jump_noise(dt, p.turn_speed, along))
                motion = Motion(motion.rest, move, motion.moving)
        track.motion = motion.updated(centre, r)
        if falls_no_more(track, float(centre[2]), self.stamp):
            land(track)
        track.hits += 1
        track.misses = 0
        track.last_seen = self.stamp
        track.hidden, track.hideout, track.sight = False, None, track.state
        # What hardly shows is easily taken for something else
        say = min(1.0, area / track.reference) ** 2 if track.reference > 0.0 else 1.0
        if piece and seen.placed is not None:
            say = 0.0  # its own surface: the detector has missed it
        track.votes = {c: (1.0 - 0.05 * say) * v for c, v in track.votes.items()}
        track.votes[blob.class_id] = track.votes.get(blob.class_id, 0.0) + say * blob.score
        track.score += 0.3 * (blob.score - track.score)
        if joined and not track.attached:  # what shows beside a held thing is a blob of its own
            track.cover(seen)
        elif not joined:
            track.learn(blob, seen, centre)
        well = joined or track.visible > _WELL
        track.seen_well = max(track.seen_well, track.last_seen - (0.0 if well else _NOTICED))
        track.confirmed = track.confirmed or track.hits >= p.confirm_hits

    def _start(self, blob: Blob, seen: Measurement, index: int) -> None:
        assert self.stamp is not None
        state = State.at(seen.centre, seen.covariance, self.params.initial_speed)
        if blob.class_id in self.supports:
            state.p[3:, 3:] *= 1e-4
        track = Track(
            id=0, motion=Motion.of(state, 0.0 if blob.class_id in self.supports else 0.5),
            half=seen.half.copy(), box=seen.box.copy(), yaw=seen.yaw,
            form=seen.form, first_seen=self.stamp, last_seen=self.stamp, seen_well=self.stamp,
            votes={blob.class_id: blob.score}, score=blob.score, sight=state,
            clean=bool(seen.sides.all()),
            reference=seen.pixels * seen.distance**2, blob=index,
            confirmed=self._begins or self.params.confirm_hits <= 1)
        old = self._find_again(track, blob, seen)
        if old is not None:
            self._lost.remove(old)
            track.id, track.votes = old.id, {**old.votes, **track.votes}
            track.first_seen, track.confirmed = old.first_seen, True
            track.inherit(old)
        else:
            track.id, self._next_id = self._next_id, self._next_id + 1
        self.tracks.append(track)

    def _inside(self, track: Track) -> bool:
        """Whether a track is in the space watched; one that sinks into the table stays on it."""
        p = self.params
        floor = p.table_z + 0.5 * float(track.half[2])
        if track.position[2] < floor and track.class_id not in self.supports:
            track.motion = track.motion.at_height(floor)
        return bool(np.all(track.position > p.workspace_min)
                    and np.all(track.position < p.workspace_max))

    def _drop_pieces(self) -> None:
        """Drop unseen tracks of hardly seen things inside the box of a seen one.

        Two things are not in one place: it was a piece of the other, whose shape holds it. One of
        a known class must have been seen there as well: where it is expected may be wrong.
        """
        seen = [t for t in self.tracks if t.blob >= 0 and t.class_id not in self.supports]

        def inside(position: F64, whole: Track) -> bool:
            c, s = np.cos(whole.yaw), np.sin(whole.yaw)
            offset = position - whole.position
            level = np.abs(offset[:2] @ np.array([[c, -s], [s, c]]))
            return bool(np.all(level < whole.box[:2]) and abs(offset[2]) < whole.box[2])

        def piece(track: Track) -> bool:
            if track.blob >= 0 or track.attached or track.hits > _PIECE_HITS or (
                    track.class_id in self.supports):
                return False
            known = track.class_id != UNKNOWN_CLASS
            return any(inside(track.position, whole) and not (
                known and not inside(track.sight.x[:3], whole)) for whole in seen)

        self.tracks = [t for t in self.tracks if not piece(t)]

    def _merge_doubles(self) -> None:
        """Drop unseen tracks that stand where a seen one does; the older id stays.

        Of supports the class does not matter: two cannot lie in one place.
        """
        gone: list[Track] = []
        for old in self.tracks:
            if old.blob >= 0 or old.attached:
                continue
            support = old.class_id in self.supports
            for new in self.tracks:
                known = UNKNOWN_CLASS not in (old.class_id, new.class_id) and not support
                if new.blob < 0 or support != (new.class_id in self.supports) or (
                        known and old.class_id != new.class_id):
                    continue
                reach = 0.5 * float(min(old.half.max(), new.half.max()))
                if float(np.linalg.norm(old.position - new.position)) < reach:
                    if old.id < new.id and not new.attached:
                        new.id, new.confirmed = old.id, new.confirmed or old.confirmed
                        new.first_seen = old.first_seen
                        new.inherit(old)
                        new.votes = {c: old.votes.get(c, 0.0) + new.votes.get(c, 0.0)
                                     for c in {*old.votes, *new.votes}}
                    gone.append(old)
                    break
        self.tracks = [t for t in self.tracks if not any(t is g for g in gone)]

    def _find_again(self, track: Track, blob: Blob, seen: Measurement) -> Track | None:
        best, best_cost = None, self.params.gate_chi2
        for old in self._lost:
            known = UNKNOWN_CLASS not in (old.class_id, blob.class_id)
            if known and old.class_id != blob.class_id:
                continue
            cost = mismatch(old, blob, seen, self.params, self.supports)
            if cost < best_cost:
                best, best_cost = old, cost
        return best

    def _age(self, hides: Hides) -> None:
        assert self.stamp is not None
        p, now, alive = self.params, self.stamp, []
        for track in self.tracks:
            if track.blob >= 0:
                alive.append(track)
                continue
            track.misses += 1
            track.hidden = out_of_sight(track, p, track.class_id in self.supports, now, hides)
            track.visible = 0.0
            unseen = now - track.last_seen
            if track.attached:
                keep = True
            elif not track.confirmed:
                keep = track.misses <= 1
            elif track.class_id in self.supports:
                # What was only glimpsed hides no longer than that what lies there.
                seen_for = track.last_seen - track.first_seen
                keep = unseen <= max(p.drop_visible, min(p.drop_hidden, seen_for))
            elif track.hidden:
                keep = unseen <= p.drop_hidden or stays(track)
            else:
                keep = unseen <= p.drop_visible
            keep = keep and self._inside(track)
            if keep:
                alive.append(track)
            elif track.confirmed:
                self._lost.append(track)
        self.tracks = alive
        self._lost = [t for t in self._lost if now - t.last_seen <= p.drop_hidden + p.refind]


def _beside(track: Track, blob: Blob, axes: F64, measure: Measure) -> NDArray[np.bool_]:
    """Which points (n,) of a blob are not of a known thing in it; none if that cannot be said.

    What is held turns with the hand, so a ball round it takes the place of its surface.
    """
    if track.attached:
        reach = float(np.linalg.norm(track.half)) + _HELD_SLACK
        return np.asarray(np.linalg.norm(blob.points - track.position, axis=1) > reach)
    placed = measure(blob, track.known()).placed
    return np.zeros(len(blob.rows), np.bool_) if placed is None else ~placed.on
