"""What the words of an instruction say of the thing they mean: its class and its colour.

Attention shows where the policy is going; the words say where it should be going. Only where both
agree may the fingers touch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from safety_filter.perception.detector import Detection

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
# Share of what a thing looked like that a good view of it takes the place of: what a thing is does
# not change, so the views of half a minute (at 15 Hz) outweigh a few of it toppled or squeezed.
_FORGET = 0.002
_BITS = 4  # of each channel that the table distinguishes
# Shares from which on a thing may be what the words name. Of what a policy was sent for, the
# detector sees 0.39 and more (113 development episodes); of a cube it sees 0.1 in a brick, of a
# block up to 0.3 in a can that the hand half covers. The edges of a neighbour lend some colour.
_SOME_CLASS, _SOME_COLOUR = 0.35, 0.1
_FITS = 0.5  # share of class times share of colour of what clearly is as the words say


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
    """Kinds of things that are named, each some classes and the colours said of them; no colour:
    any may be meant."""

    kinds: frozenset[tuple[frozenset[int], frozenset[str]]] = frozenset()


def meant(instruction: str, names: Mapping[int, str]) -> Meant:
    """Classes whose names occur as whole words, whatever the case, and the colours before them.

    Between colour and name one more word may stand ("red plastic cup"). "Can you" is no can.
    """
    said: dict[int, set[str]] = {}
    colours = "|".join([*COLOURS, *_SAME])
    for number, name in names.items():
        for match in re.finditer(rf"\b(?:({colours})\s+(?:\w+\s+)?)?{re.escape(name)}s?\b"
                                 r"(?!\s+(?:you|we|i)\b)", instruction, re.IGNORECASE):
            of_it = said.setdefault(number, set())
            if match[1]:
                of_it.add(_SAME.get(match[1].lower(), match[1].lower()))
    kinds: dict[frozenset[str], set[int]] = {}
    for number, of_it in said.items():
        kinds.setdefault(frozenset(of_it), set()).add(number)
    return Meant(frozenset((frozenset(classes), of_it) for of_it, classes in kinds.items()))


@dataclass
class Classes:
    """How much each track looks like each class, over the pictures in which it was detected."""

    _weights: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    _most: dict[int, int] = field(default_factory=dict)  # pixels of the best view

    def look(self, detections: Sequence[Detection], owner: NDArray[np.int32], names: int,
             whole: AbstractSet[int], sure: float) -> None:
        """Take in what was detected; owner (H, W): the track of each pixel, 0 for none; names: how
        many classes there are; whole: tracks whose whole extent was seen once.

        What hardly shows is easily taken for something else, so it says little. A piece of what
        was never seen whole says nothing, unless the detector is `sure` (score) of it.
        """
        for d in detections:
            ids, counts = np.unique(owner[d.mask], return_counts=True)
            if not ids.size or ids[counts.argmax()] == 0:
                continue
            track, shown = int(ids[counts.argmax()]), int(counts.max())
            if track not in whole and d.score < sure:
                continue
            most = self._most.get(track, shown)
            self._most[track] = max(shown, most)
            # As much as the view shows of the best, squared; of what was seen before it
            say, before = (np.array([shown, most]) / self._most[track]) ** 2
            scores = d.score * np.eye(names)[d.class_id] if d.likeness is None else d.likeness
            old = before * self._weights.get(track, np.zeros(names))
            self._weights[track] = (1.0 - _FORGET * say) * old + say * scores

    def share(self, track: int, classes: frozenset[int]) -> float | None:
        """Share of `classes` in what a track looks like; None for one that was not detected."""
        weights = self._weights.get(track)
        if weights is None or not weights.any():
            return None
        return float(weights[list(classes)].sum() / weights.sum())

    def forget(self, alive: set[int]) -> None:
        """Drop all tracks but these."""
        for track in self._weights.keys() - alive:
            del self._weights[track], self._most[track]


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


@dataclass(frozen=True)
class Fit:
    """How well a track is as the words say.

    share: of the class times that of the colour, what is not known of them left out; known: all
    that is said of it is known; possible: it has some of whatever is known; clear: it is as they
    say, which is more than nothing.
    """

    share: float
    known: bool
    possible: bool
    clear: bool


def fit_of(words: Meant, track: int, classes: Classes, colours: Colours) -> Fit:
    """How well a track is as the words say: as that of the kinds named which it fits best."""
    fits = [_fit(kind, track, classes, colours) for kind in words.kinds]
    nothing_said = Fit(1.0, known=True, possible=True, clear=False)
    return max(fits, key=lambda fit: (fit.possible, fit.share), default=nothing_said)


def _fit(kind: tuple[frozenset[int], frozenset[str]], track: int, classes: Classes,
         colours: Colours) -> Fit:
    of_class = classes.share(track, kind[0])
    of_colour = colours.share(track, kind[1]) if kind[1] else 1.0
    share = float(np.prod([s for s in (of_class, of_colour) if s is not None]))
    possible = (of_class is None or of_class >= _SOME_CLASS) and \
        (of_colour is None or of_colour >= _SOME_COLOUR)
    known = of_class is not None and of_colour is not None
    return Fit(share, known, possible, known and share > _FITS)


def may_be_meant(words: Meant, tracks: Iterable[int], classes: Classes, colours: Colours,
                 least: float, proven: Mapping[int, float]) -> set[int]:
    """The tracks that the words may mean.

    What has nothing of the class or nothing of the colour is not meant, even where nothing there
    fits: then what is meant does not show, and what shows is something else. Of what has some of
    both, that which fits less than `least` times as well as the best is not meant. Where class or
    colour of a track are not known, the words say nothing against it, for a detector overlooks
    things, unless something else there clearly is as they say. What is `proven` fits that well,
    whatever it looks like now. With a `least` of 0 words do not matter.
    """
    if least <= 0:
        return set(tracks)
    fits = {i: fit_of(words, i, classes, colours) for i in tracks}
    share = {i: proven.get(i, fit.share) for i, fit in fits.items() if fit.possible or i in proven}
    known = {i: share[i] for i in share if fits[i].known or i in proven}
    among = known if max(known.values(), default=0.0) > _FITS else share
    best = max(among.values(), default=0.0)
    return {i for i, part in among.items() if part >= least * best}
