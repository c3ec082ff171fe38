"""From attention to the target: which track the policy is about to approach, if that is clear.

The best track by its score in the scene camera (`gaze.py`) is the target if it leads the second
by a gap for a while, exceeds uniform attention by a floor, does not contradict the words of the
instruction (`Candidate.named`), and no plausible candidate is hidden: a hidden candidate cannot be
pointed at, and the confidence does not show it. What the scene camera hardly sees, the camera in
the hand sees from above once the tool is near: among what is near the tool, its attention selects
by the same rule. Where both cameras point clearly, but at different things, there is no target. A
target once selected stays until its lead is gone (hysteresis). Everything else is no target:
stale, unreadable or absent attention, no lead, a hidden candidate, attention to one class where
the words name another. It fails closed: without a target every track is an obstacle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from safety_filter.perception.gaze import Gaze
from safety_filter.perception.params import PerceptionParams

Scores = Mapping[int, float]


@dataclass(frozen=True)
class Selection:
    """Outcome: the target's track id or None and why; `share` id -> its part of the score."""

    target: int | None
    reason: str
    share: Mapping[int, float]


@dataclass(frozen=True)
class Candidate:
    """A track that could be the target; `hidden`: too little of it shows to be pointed at in the
    scene camera; `named`: the instruction may mean it; `near`: the camera in the hand may decide
    that it is the target."""

    id: int
    hidden: bool
    named: bool = True
    near: bool = False


class TargetSelector:
    """Keeps what the cameras' attention says and the current target; time is an argument."""

    def __init__(self, params: PerceptionParams) -> None:
        self.params = params
        self.target: int | None = None
        self.scene, self.wrist = Gaze(), Gaze()
        self._leader: tuple[int, float] | None = None  # who leads, since when
        self._doubt: float | None = None  # since when the target has not led

    def reset(self) -> None:
        """Forget target and attention, as on a new instruction; pictures stay."""
        self.target, self._leader, self._doubt = None, None, None
        self.scene.forget()
        self.wrist.forget()

    def select(self, now: float, candidates: Sequence[Candidate]) -> Selection:
        """Decide at time `now` among the candidates; see the module's text for the rule."""
        p = self.params
        ids = [c.id for c in candidates]
        named = {c.id for c in candidates if c.named}
        near = {c.id for c in candidates if c.named and c.near}
        scene = self.scene.window(now, p.attention_window, ids)
        fresh = now - self.wrist.last <= p.attention_age
        wrist = self.wrist.window(now, p.attention_window, ids) if fresh else {}
        total = sum(scene.values())
        share = {i: s / total for i, s in scene.items()} if total > 0 else {}
        if now - self.scene.last > p.attention_age:
            return self._none("attention is stale", share)
        if total <= 0 and not any(wrist.values()):
            return self._none("no candidate was attended to", share)
        by_scene, by_wrist = self._clear(scene, named), self._clear(wrist, near)
        if self.target not in named:
            self.target = None
        if self.target is not None:
            others = {by_scene, by_wrist} - {None, self.target}
            if not others and (self._holds(scene, named) or self._holds(wrist, near)):
                self._doubt, self._leader = None, None
                return Selection(self.target, "", share)
            self._doubt = now if self._doubt is None else self._doubt
        best = by_wrist if by_scene is None else by_scene
        reason = self._unclear(best, by_wrist, scene, wrist, candidates)
        if best is not None and not reason:
            if self._leader is None or self._leader[0] != best:
                self._leader = (best, now)
            if now - self._leader[1] >= p.switch_time:
                self.target, self._leader, self._doubt = best, None, None
                return Selection(best, "", share)
            reason = "no candidate leads clearly"
        else:
            self._leader = None
        if self.target is not None and self._doubt is not None and \
                now - self._doubt < p.lost_time and self._lingers(scene):
            return Selection(self.target, "", share)
        return self._none(reason, share)

    def _clear(self, scores: Scores, allowed: AbstractSet[int]) -> int | None:
        """The best of `scores` if it leads clearly and is one of those allowed."""
        p = self.params
        order = sorted(scores.values(), reverse=True)
        best = max(scores, key=lambda i: scores[i], default=None)
        if best is None or best not in allowed or order[0] < p.target_floor:
            return None
        return best if order[0] >= p.target_gap * max([*order[1:2], 1e-9]) else None

    def _holds(self, scores: Scores, allowed: AbstractSet[int]) -> bool:
        """Whether the target keeps enough of its lead in `scores`."""
        p = self.params
        if self.target not in allowed:
            return False
        rival = max((s for i, s in scores.items() if i != self.target), default=0.0)
        least = p.hold_factor * max(p.target_gap * rival, p.target_floor)
        return scores.get(self.target, 0.0) >= least

    def _lingers(self, scores: Scores) -> bool:
        """Whether the target is not far behind the second: a doubt may pass."""
        second = sorted([0.0, 0.0, *scores.values()])[-2]
        return self.target is not None and scores.get(self.target, 0.0) >= 0.5 * second

    def _unclear(self, best: int | None, by_wrist: int | None, scene: Scores, wrist: Scores,
                 candidates: Sequence[Candidate]) -> str:
        """Why `best`, the clear leader or None, is no target; empty if it is."""
        if best is not None and by_wrist is not None and best != by_wrist:
            return f"the scene camera points at {best}, the one in the hand at {by_wrist}"
        first = max(scene, key=lambda i: scene[i], default=None)
        named = {c.id for c in candidates if c.named}
        if best is None and first is not None and first not in named:
            return f"candidate {first} is not what the instruction means"
        # What shows in the hand's camera could be pointed at there
        aside = set(wrist) if best is not None and best == by_wrist else set()
        hidden = [c.id for c in candidates if c.hidden and c.named and c.id not in aside
                  and c.id != (first if best is None else best)]
        if hidden:
            return f"candidate {hidden[0]} is hidden"
        return "" if best is not None else "no candidate leads clearly"

    def _none(self, reason: str, share: Mapping[int, float]) -> Selection:
        """No target; who leads at the moment keeps its time."""
        self.target, self._doubt = None, None
        if reason == "attention is stale":
            self._leader = None
        return Selection(None, reason, share)
