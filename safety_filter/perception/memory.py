"""Where the supports lie, for pictures in which the detector overlooks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.blobs import Blob
from safety_filter.perception.detector import Detection
from safety_filter.perception.track import Track

Mask = NDArray[np.bool_]
_SAME = 0.3  # share of a mask that a detection has to cover to be of the same support
_ESTABLISHED = 15  # sightings from which on a faint one is enough
_MORE = 0.1  # share of a mask outside the remembered one from which on it shows more, or elsewhere


class SupportMemory:
    """Masks of the supports that are tracked; they stand still, and so does the camera.

    Without them the pixels of a support that is overlooked would pass for obstacles, or for parts
    of what rests on it. What the detector hardly dares to say is enough where it says again what
    is known (Zhang et al., "ByteTrack: multi-object tracking by associating every detection box",
    ECCV 2022).
    """

    def __init__(self, supports: frozenset[int]) -> None:
        self._supports = supports
        self._masks: dict[int, Detection] = {}
        self._established: set[int] = set()

    def overlooked(self, found: Sequence[Detection], faint: Sequence[Detection],
                   shape: tuple[int, ...]) -> list[Detection]:
        """The supports that are not among those `found` in a picture of `shape`.

        An established one that is among the `faint` detections has their score: it was seen. The
        others have a score of zero: memory, which owns pixels but is no sighting.
        """
        out = []
        for track_id, memory in self._masks.items():
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
        kept: dict[int, Detection] = {}
        for track in tracks:
            if track.class_id not in self._supports:
                continue
            old = self._masks.get(track.id)
            if track.blob >= 0:
                blob = things[track.blob]
                mask = np.zeros(shape, np.bool_)
                mask[blob.rows, blob.cols] = True
                if old is None or old.mask.shape != mask.shape or np.count_nonzero(
                        mask & ~old.mask) > _MORE * len(blob.rows):
                    old = Detection(mask, np.zeros(4, np.float32), track.class_id, 0.0)
            if old is not None:
                kept[track.id] = old
            if track.hits >= _ESTABLISHED:
                self._established.add(track.id)
        self._masks = kept
        self._established &= set(kept)
