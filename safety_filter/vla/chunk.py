"""Plays chunks out as a stream: joined without a jump, never beyond their end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety_filter.vla.policy import PolicyOutput

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Playback:
    """What to command now, or why not: twist (6,) and opening in m are None without a chunk."""

    twist: Array | None
    opening: float | None
    reason: str


class ChunkPlayer:
    """Reads the newest chunk at the time for which each action was meant.

    A new chunk takes over linearly within `blend` seconds, starting from what was commanded last
    (from rest, if nothing was), so the stream is continuous. Time before the chunk's own start
    counts as its first action; beyond its last action there is nothing, and the player says so.

    The gripper moves only as far as all chunks agree that cover this moment: its opening is the
    last one, brought into the range of theirs. One chunk alone, against those before it, lets go
    of nothing and closes on nothing.

    One thread may push while another reads.
    """

    def __init__(self, blend: float = 0.10) -> None:
        if not (np.isfinite(blend) and blend > 0):
            raise ValueError(f"blend: expected seconds > 0, got {blend}")
        self._blend = blend
        self._chunk: PolicyOutput | None = None
        self._earlier: tuple[PolicyOutput, ...] = ()  # replaced, never changed in place
        self._opening: float | None = None
        self._from = np.zeros(6)
        self._since = 0.0

    def clear(self) -> None:
        """Forget every chunk: nothing is commanded until the next one."""
        self._chunk, self._opening, self._earlier = None, None, ()

    def push(self, chunk: PolicyOutput, now: float) -> bool:
        """Take a chunk over at `now`; one that is not newer than the present one is refused."""
        if self._chunk is not None and chunk.stamp <= self._chunk.stamp:
            return False
        last = self.read(now).twist
        self._from = np.zeros(6) if last is None else last
        before = self._earlier if self._chunk is None else (*self._earlier, self._chunk)
        self._earlier = tuple(c for c in before if now - c.stamp < len(c.twists) * c.dt)
        self._chunk, self._since = chunk, now
        return True

    def read(self, now: float) -> Playback:
        """The command for `now`."""
        chunk = self._chunk
        if chunk is None:
            return Playback(None, None, "no chunk")
        at = max(0.0, (now - chunk.stamp) / chunk.dt)
        if at >= len(chunk.twists):
            age = now - chunk.stamp
            return Playback(None, None, f"chunk ran out, its picture is {age:.2f} s old")
        low = int(at)
        high = min(low + 1, len(chunk.twists) - 1)
        twist = chunk.twists[low] + (at - low) * (chunk.twists[high] - chunk.twists[low])
        share = float(np.clip((now - self._since) / self._blend, 0.0, 1.0))
        return Playback(self._from + share * (twist - self._from),
                        self._agreed(now, float(chunk.openings[low])), "")

    def _agreed(self, now: float, newest: float) -> float:
        """The last opening, m, brought into the range of what all chunks say for `now`."""
        kept = self._opening
        last = newest if kept is None else kept
        low = high = newest
        for chunk in self._earlier:
            at = int(max(0.0, (now - chunk.stamp) / chunk.dt))
            if at < len(chunk.openings):
                low, high = min(low, chunk.openings[at]), max(high, chunk.openings[at])
        self._opening = opening = float(min(max(last, low), high))
        return opening
