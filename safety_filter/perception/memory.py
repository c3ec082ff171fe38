"""Where the supports lie, for pictures in which the detector overlooks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.blobs import Blob
from safety_filter.perception.detector import Detection
from safety_filter.perception.shape import SEEN_PAST, Past
from safety_filter.perception.track import Track

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SAME = 0.3  # share of a mask that a detection has to cover to be of the same support
_ESTABLISHED = 15  # sightings from which on a faint one is enough
_MORE = 0.1  # share of a mask outside the remembered one from which on it shows more, or elsewhere
_POINTS = 300  # of a surface that are remembered
_MUCH = 0.5  # share of a support from which on its surface is remembered as it shows now


@dataclass(frozen=True)
class _Place:
    """Where a support lies: its mask, and points (n, 3) of its surface in `base`, m."""

    shown: Detection
    surface: F64


class SupportMemory:
    """Masks of the supports that are tracked; they stand still, and so does the camera.

    Without them the pixels of a support that is overlooked would pass for obstacles, or for parts
    of what rests on it. What the detector hardly dares to say is enough where it says again what
    is known (Zhang et al., "ByteTrack: multi-object tracking by associating every detection box",
    ECCV 2022).
    """

    def __init__(self, supports: frozenset[int]) -> None:
        self._supports = supports
        self._places: dict[int, _Place] = {}
        self._established: set[int] = set()

    def gone(self, found: Sequence[Detection], shape: tuple[int, ...], past: Past) -> set[int]:
        """Forget, and return the tracks of, the supports that a picture of `shape` looks past.

        Neither is one among those `found`, nor is it hidden: it was taken away. past: which share
        of some points (n, 3) the picture looks past.
        """
        gone = {i for i, place in self._places.items()
                if place.shown.mask.shape == shape and past(place.surface) > SEEN_PAST
                and not any(self._shows(d, place.shown) for d in found)}
        self._places = {i: place for i, place in self._places.items() if i not in gone}
        return gone

    def overlooked(self, found: Sequence[Detection], faint: Sequence[Detection],
                   shape: tuple[int, ...]) -> list[Detection]:
        """The supports that are not among those `found` in a picture of `shape`.

        An established one that is among the `faint` detections has their score: it was seen. The
        others have a score of zero: memory, which owns pixels but is no sighting.
        """
        out = []
        for track_id, place in self._places.items():
            memory = place.shown
            if memory.mask.shape != shape or any(self._shows(d, memory) for d in found):
                continue
            again = faint if track_id in self._established else ()
            scores = [d.score for d in again if self._shows(d, memory)]
            out.append(Detection(memory.mask, memory.box, memory.class_id, max(scores, default=0)))
        return out

    def _shows(self, detection: Detection, memory: Detection) -> bool:
        return detection.class_id in self._supports and np.count_nonzero(
            detection.mask & memory.mask) > _SAME * np.count_nonzero(memory.mask)

    def keep(self, tracks: Iterable[Track], things: Sequence[Blob],
             shape: tuple[int, ...]) -> None:
        """Remember the masks of the supports as of this picture's `things`.

        One of which a part is hidden now is remembered whole.
        """
        kept: dict[int, _Place] = {}
        for track in tracks:
            if track.class_id not in self._supports:
                continue
            old = self._places.get(track.id)
            if track.blob >= 0:
                blob = things[track.blob]
                mask = np.zeros(shape, np.bool_)
                mask[blob.rows, blob.cols] = True
                if old is None or old.shown.mask.shape != mask.shape or np.count_nonzero(
                        mask & ~old.shown.mask) > _MORE * len(blob.rows):
                    shown = Detection(mask, np.zeros(4, np.float32), track.class_id, 0.0)
                    old = _Place(shown, _some(blob))
                elif track.visible > _MUCH:
                    old = _Place(old.shown, _some(blob))
            if old is not None:
                kept[track.id] = old
            if track.hits >= _ESTABLISHED:
                self._established.add(track.id)
        self._places = kept
        self._established &= set(kept)


def _some(blob: Blob) -> F64:
    """Points (n, 3) all over a blob."""
    return blob.points[::max(1, len(blob.rows) // _POINTS)].astype(np.float64)
