"""What the hand has gone for under the words of now.

Toppled, squeezed or half covered, a thing looks like another; it is none. Nor do the words come
to mean a look-alike because the hand missed what they mean. So how well a target fits them is kept
from its best moment, and once the fingers were round what clearly fits, nothing else is meant
until something was in the hand, the thing is gone, or other words come.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from safety_filter.perception.words import Fit


@dataclass
class Pursuit:
    """`proven`: track -> how well it fitted as the target, at its best; `reached`: the one that
    the fingers were round."""

    proven: dict[int, float] = field(default_factory=dict)
    reached: int | None = None

    def follow(self, target: int, fit: Fit, near: bool, rival: float) -> None:
        """Take in the target of a picture; near: the fingers are round it; rival: the share of
        what fits best of the others. What fits less than another proves nothing."""
        if not fit.clear or fit.share < rival:
            return
        self.proven[target] = max(fit.share, self.proven.get(target, 0.0))
        if near:
            self.reached = target

    def forget(self, alive: AbstractSet[int], held: bool) -> None:
        """Drop all tracks but these; held: something is in the hand."""
        self.proven = {i: share for i, share in self.proven.items() if i in alive}
        if held or self.reached not in alive:
            self.reached = None

    def only(self, named: set[int]) -> set[int]:
        """What is meant of what the words may mean."""
        return named if self.reached is None else named & {self.reached}
