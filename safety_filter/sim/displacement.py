"""How far the things of a scene were moved that should have stayed on their place or path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

SETTLED = 1.0  # s after which what stands freely has come to rest

Point = Sequence[float]


class Displacement:
    """L1 displacement of each thing, m.

    Of what stands freely: its largest distance from its rest, which is where it was after
    SETTLED seconds or before the robot first touched anything, whichever came first.

    Of what a path moves, and is put back on it after every physics step: the sum, over the steps
    in which a collision touched it, of how far off its path the step left it. What gravity and
    the table make of a step, as in the last one before the touch, is taken off.
    """

    def __init__(self, places: Mapping[str, Point]) -> None:
        """places: where each thing is at the start, (3,) m in base."""
        self.total = dict.fromkeys(places, 0.0)
        self._rest = dict(places)
        self._drift: dict[str, Point] = {}
        self._settled = False

    def update(self, now: float, places: Mapping[str, Point], paths: Mapping[str, Point],
               touched: bool, hit: Set[str]) -> None:
        """Take in the physics step that ended at `now`, s.

        places: where it left each thing; paths: where its path has what is moved by one, (3,) m
        in base; touched: the robot has touched something by now; hit: things in a collision.
        """
        self._settled = self._settled or touched or now >= SETTLED
        for name, place in places.items():
            if name in paths:
                self._rest[name] = paths[name]
                off = [x - y for x, y in zip(place, paths[name], strict=True)]
                if name in hit:
                    self.total[name] += _l1(off, self._drift.get(name, (0.0, 0.0, 0.0)))
                else:
                    self._drift[name] = off
            elif not self._settled:
                self._rest[name] = place
            else:
                self.total[name] = max(self.total[name], _l1(place, self._rest[name]))


def _l1(a: Point, b: Point) -> float:
    return float(sum(abs(x - y) for x, y in zip(a, b, strict=True)))
