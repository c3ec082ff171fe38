"""One track: what is known of a thing through time, and what a sighting teaches of its shape."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.wire import UNKNOWN_CLASS
from safety_filter.perception.blobs import Blob
from safety_filter.perception.hidden import Hideout
from safety_filter.perception.kalman import State
from safety_filter.perception.motion import Motion
from safety_filter.perception.shape import Known, Measurement
from safety_filter.perception.template import Template
from safety_filter.perception.turn import Turn

F64 = NDArray[np.float64]
_WHOLE = 0.9  # share of the most that was seen of a support from which on it is seen whole
_SHOWN = 0.98  # share of the visible points that a cover has to hold; the rest may be of an edge
_BEYOND = 0.01  # m that they may lie outside a box


@dataclass
class Track:
    """One thing through time; lengths m, times s, frame `base`."""

    id: int
    motion: Motion
    half: F64  # (3,) half extents along the view axes, from the better views
    box: F64  # (3,) half extents of its upright box
    yaw: float
    form: int
    first_seen: float
    last_seen: float
    votes: dict[int, float]
    score: float
    sight: State  # its state when it was last seen
    hits: int = 1
    misses: int = 0
    oversize: int = 0  # sightings in a row that show more than its extent
    one: int = 0  # detections of late that show it and more as one thing
    beside: bool = False  # whether the first of them was of another known thing, too
    clean: bool = False  # its whole extent was seen at least once
    reference: float = 0.0  # pixels * distance^2 of an unoccluded view
    visible: float = 1.0  # fraction of that seen now
    seen_well: float = 0.0  # until when it was seen well enough to tell whether it moves, s
    hidden: bool = False  # unseen because something nearer stands there
    attached: bool = False  # moves with the tool
    falling: float | None = None  # since when, s: let go of, neither come down nor seen at rest
    blob: int = -1  # index of its blob in the last picture, -1 for none
    confirmed: bool = False
    offset: F64 | None = None  # (3,) from the mean of the visible points to the centre
    expected_pixels: float = 0.0  # pixels * distance^2 that go with `offset`
    hideout: Hideout | None = None  # where it may be while it is out of sight
    template: Template | None = None  # its surface in the best view of late
    joined: F64 | None = None  # (3,) like `box`, but of it and what shows as one with it
    turn: Turn = field(default_factory=Turn)
    outgrown: F64 | None = None  # (3,) like `box`, but with all that shows of it now

    @property
    def class_id(self) -> int:
        """The class most seen; a known one counts double, for detectors miss things."""
        return max(self.votes, key=lambda c: (1 + (c != UNKNOWN_CLASS)) * self.votes[c])

    @property
    def state(self) -> State:
        """Where it is and how it moves, whether it rests or not."""
        return self.motion.state

    @property
    def position(self) -> F64:
        return self.state.x[:3]

    @property
    def velocity(self) -> F64:
        return self.state.x[3:]

    def remembers_more(self, seen: Measurement) -> bool:
        """Whether a sighting shows less than was seen before, or of another size."""
        partly = seen.pixels * seen.distance**2 < 0.85 * self.reference
        if not self.clean:
            return partly and not self.attached
        return self.attached or partly or not seen.sides.all() or not self.alike(seen)

    def known(self) -> Known:
        """What a sighting may be completed with."""
        return Known(self.half, self.position, self.reference, self.form, self.attached,
                     None if self.attached else self.template)

    def alike(self, seen: Measurement) -> bool:
        """Whether a sighting is of its size, within a fifth or 6 mm."""
        return bool(np.all(np.abs(seen.half - self.half) < np.maximum(0.2 * self.half, 0.006)))

    def covered(self, blob: Blob, seen: Measurement) -> bool:
        """Whether something stands before a support that was seen whole: that lies where it lay,
        and of its hollow even a part that reaches all sides says less."""
        return blob.support and self.clean and (
            seen.pixels * seen.distance**2 < _WHOLE * self.reference)

    def steadied(self, seen: Measurement) -> F64:
        """The centre (3,) of a sighting with less of the noise of single pixels.

        The edges of a blob jump by whole pixels, the mean of its points hardly moves. As long as
        the whole of it shows as before, the centre is the mean and a slowly learnt offset.
        """
        area = seen.pixels * seen.distance**2
        offset = seen.axes.T @ (seen.centre - seen.mean)
        same = abs(area - self.expected_pixels) < 0.06 * self.expected_pixels
        if not seen.sides.all() or self.attached:
            self.offset = None
            return seen.centre
        if self.offset is None or not same or float(np.abs(offset - self.offset).max()) > 0.01:
            self.offset, self.expected_pixels = offset, area
            return seen.centre
        self.offset = self.offset + 0.1 * (offset - self.offset)
        self.expected_pixels += 0.1 * (area - self.expected_pixels)
        return np.asarray(seen.mean + seen.axes @ self.offset)

    def learn(self, blob: Blob, seen: Measurement, centre: F64) -> None:
        """Take over what a sighting with its centre at `centre` (3,) shows of the shape."""
        area = seen.pixels * seen.distance**2
        best = seen.sides.all() if self.clean else area > 0.95 * self.reference
        if best and seen.placed is None and not (blob.support or self.attached) and (
                not self.clean or self.alike(seen)):
            self.template = Template.of(blob.points, centre)
        self.oversize = self.oversize + 1 if np.any(seen.half > self.half + 0.01) else 0
        whole = seen.sides.all()
        if whole and self.covered(blob, seen):
            # Unless it was taken for more than it is: what shows for long is the whole.
            self.reference += 0.1 * (area - self.reference)
        elif whole:
            rate = 0.15 if self.clean else 1.0
            self.half = self.half + rate * (seen.half - self.half)
            self.form = seen.form
            turned = (seen.yaw - self.yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
            quarter = round((seen.yaw - self.yaw - turned) / (np.pi / 2))
            box = seen.box[[1, 0, 2]] if quarter % 2 else seen.box
            self.box = self.box + rate * (box - self.box)
            self.yaw = self.yaw + rate * turned
            self.reference = max(area, self.reference + 0.1 * (area - self.reference))
            self.clean = True
        elif self.clean and self.oversize >= 4:
            # It keeps showing more than it has: it fell over, or was taken for something else.
            self.half = self.half + 0.5 * np.maximum(seen.half - self.half, 0.0)
            self.box, self.form, self.yaw = self.half.copy(), seen.form, seen.yaw
        elif not self.clean:
            grow = np.maximum(self.half, seen.half)
            self.half, self.box = grow, np.maximum(self.box, seen.box)
            self.reference = max(self.reference, area)
        self.visible = min(1.0, area / max(self.reference, 1e-9))

    def forget_shape(self) -> None:
        """Have the next sightings show its shape anew; what was taken for the whole was a part."""
        self.clean, self.template, self.reference, self.one = False, None, 0.0, 0

    def inherit(self, old: Track) -> None:
        """Take over the shape of the same thing, if that was seen whole and this was not."""
        if old.clean and not self.clean:
            self.half, self.box, self.yaw = old.half, old.box, old.yaw
            self.form, self.clean, self.reference = old.form, True, old.reference
            self.template = old.template

    def cover(self, seen: Measurement) -> None:
        """Have the shape hold a sighting of it and something else, for as long as that shows.

        Neither its size nor its reference change: they are those of the thing alone.
        """
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        corners = seen.centre + (signs * seen.half) @ seen.axes.T - self.position
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        level = np.abs(corners[:, :2] @ np.array([[c, -s], [s, c]])).max(axis=0)
        reach = np.array([*level, np.abs(corners[:, 2]).max()])
        self.joined = np.maximum(self.box, reach)

    def show(self, blob: Blob, free: Measurement) -> None:
        """Have the cover hold what shows now where that reaches beyond the box, and follow a turn.

        A thing that turns or unfolds shows more, or elsewhere, before its shape is learnt. free:
        the sighting by itself, completed with nothing that is remembered.
        """
        if self.attached or blob.support or self.joined is not None:
            self.turn.lose()
            return
        if free.sides.all():
            self.turn.follow((free.box[0], free.box[1]), free.yaw, self.last_seen)
        else:
            self.turn.lose()
        if self.turn.spin:
            self.box, self.yaw = free.box.copy(), free.yaw
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        offset = blob.points - self.position
        away = np.abs(np.column_stack([offset[:, :2] @ np.array([[c, -s], [s, c]]), offset[:, 2]]))
        reach = np.quantile(away, _SHOWN, axis=0)
        beyond = reach > self.box + _BEYOND
        self.outgrown = np.maximum(self.box, reach) if beyond.any() else None
