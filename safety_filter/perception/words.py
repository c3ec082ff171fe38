"""What the words of an instruction say of the thing they mean: its class and its colour.

Attention shows where the policy is going; the words say where it should be going. Only where both
agree may the fingers touch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.blobs import UNKNOWN_CLASS

_SAME = {"gray": "grey", "violet": "purple"}
# Basic colour terms (Berlin and Kay 1969) as boxes in hue (degrees; below 0: across red),
# saturation and value. They overlap where people disagree, so each says what may be called so.
_TERMS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-25, 20), (0.3, 1), (0.15, 1)),
    "orange": ((10, 48), (0.3, 1), (0.3, 1)),
    "yellow": ((40, 75), (0.25, 1), (0.3, 1)),
    "green": ((65, 175), (0.2, 1), (0.1, 1)),
    "blue": ((165, 262), (0.2, 1), (0.1, 1)),
    "purple": ((248, 335), (0.2, 1), (0.1, 1)),
    "pink": ((-70, 20), (0.12, 0.75), (0.55, 1)),
    "brown": ((5, 50), (0.25, 1), (0.1, 0.65)),
    "black": ((-180, 180), (0, 1), (0, 0.3)),
    "grey": ((-180, 180), (0, 0.3), (0.2, 0.85)),
    "white": ((-180, 180), (0, 0.25), (0.6, 1)),
}
COLOURS = tuple(_TERMS)
_BITS = 4  # of each channel that the table distinguishes
_SOME = 0.01  # share from which on there is something that may be what the words name


def _table() -> NDArray[np.bool_]:
    """Row r << 8 | g << 4 | b (upper four bits of each), column term: may it be called so?"""
    level = (np.arange(1 << _BITS, dtype=np.float32) + 0.5) / (1 << _BITS)
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(1, -1, 3)
    hue, saturation, value = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[0], -1, 0)
    columns = []
    for (low, high), (pale, vivid), (dark, light) in _TERMS.values():
        turn = (hue - low) % 360 <= high - low
        columns.append(turn & (saturation >= pale) & (saturation <= vivid)
                       & (value >= dark) & (value <= light))
    return np.stack(columns, 1)


_MAY_BE = _table()


@dataclass(frozen=True)
class Meant:
    """Classes that are named, and the colours said of them; no colour: any may be meant."""

    classes: frozenset[int] = frozenset()
    colours: frozenset[str] = frozenset()


def meant(instruction: str, names: Mapping[int, str]) -> Meant:
    """Classes whose names occur as whole words, whatever the case, and the colours before them.

    Between colour and name one more word may stand ("red plastic cup").
    """
    classes, colours = set(), set()
    said = "|".join([*COLOURS, *_SAME])
    for number, name in names.items():
        for match in re.finditer(rf"\b(?:({said})\s+(?:\w+\s+)?)?{re.escape(name)}s?\b",
                                 instruction, re.IGNORECASE):
            classes.add(number)
            if match[1]:
                colours.add(_SAME.get(match[1].lower(), match[1].lower()))
    return Meant(frozenset(classes), frozenset(colours))


def class_share(classes: frozenset[int], votes: Mapping[int, float]) -> float | None:
    """Share of `classes` in the sightings in which the class was known; None if it never was."""
    known = {c: v for c, v in votes.items() if c != UNKNOWN_CLASS}
    total = sum(known.values())
    return sum(v for c, v in known.items() if c in classes) / total if total > 0 else None


@dataclass
class Colours:
    """How much of each track may be called each colour, over the pictures that showed it."""

    _pixels: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def look(self, rgb: NDArray[np.uint8], owner: NDArray[np.int32], keep: float = 0.9) -> None:
        """Take in a picture (H, W, 3); owner (H, W): the track of each pixel, 0 for none.

        Every second pixel both ways is enough. What was seen before counts `keep` as much, so
        that a first sight of the neighbour's edge is forgotten.
        """
        ids = owner[::2, ::2]
        shown = ids > 0
        r, g, b = (rgb[::2, ::2][shown] >> (8 - _BITS)).astype(np.intp).T
        may_be = _MAY_BE[r << 2 * _BITS | g << _BITS | b]
        tracks, inverse = np.unique(ids[shown], return_inverse=True)
        for n, track in enumerate(tracks):
            mine = may_be[inverse == n]
            counts = np.append(mine.sum(0), len(mine)).astype(float)
            self._pixels[int(track)] = counts + keep * self._pixels.get(int(track), 0.0)

    def share(self, track: int, colours: frozenset[str]) -> float | None:
        """Share of a track's pixels that may be called the one of `colours` that fits it best;
        None for a track that no picture showed."""
        seen = self._pixels.get(track)
        if seen is None:
            return None
        return float(max(seen[COLOURS.index(c)] for c in colours) / seen[-1])

    def forget(self, alive: set[int]) -> None:
        """Drop all tracks but these."""
        for track in self._pixels.keys() - alive:
            del self._pixels[track]


def not_ruled_out(words: Meant, votes: Mapping[int, Mapping[int, float]], colours: Colours,
                  least: float) -> set[int]:
    """Ids of the tracks that the words may mean; votes: id -> class -> weight of the sightings.

    What is less than `least` times as likely of a named class as the likeliest thing there is not
    meant; likewise with colours. Where nothing there is of one at all, and for a track of which
    class or colour is not known, the words rule out nothing: a detector overlooks things.
    """
    of_class = {i: class_share(words.classes, v) for i, v in votes.items()}
    of_colour = {i: colours.share(i, words.colours) if words.colours else None for i in votes}
    named = set(votes)
    for shares in (of_class, of_colour):
        known = {i: share for i, share in shares.items() if share is not None}
        best = max(known.values(), default=0.0)
        if best > _SOME:
            named -= {i for i, share in known.items() if share < least * best}
    return named
