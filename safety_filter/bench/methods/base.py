"""What every method is: its knowledge of the scene, and what it does with the policy's twist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.wire import Tracks
from safety_filter.sim.world import World

Array = NDArray[np.float64]
KNOWLEDGE = ("none", "start", "perception", "truth")


class Step(NamedTuple):
    """The answer of one step.

    qd (7,) joint velocities in rad/s; `change` of the commanded velocity of the tool in m/s;
    `state` in words, such as "FILTERED" or "STOPPED perception"."""

    qd: Array
    change: float
    state: str


class Guard(Protocol):
    """What stands between the policy and the arm."""

    def reset(self, world: World) -> None:
        """A new episode begins."""
        ...

    def command(self, world: World, twist: Array | None, tracks: Tracks | None,
                stamp: float) -> Step:
        """The joint velocities for now.

        twist (6,) is the policy's wish, None when it has none; tracks are the newest ones with
        the stamp of their picture, None before the first."""
        ...


@dataclass(frozen=True)
class Method:
    """One column of the comparison.

    knowledge: "none"; "start": true state at the start, never updated; "perception": what
    `--perception` says; "truth": true state, live. `pieces`: obstacles as a few tight ellipsoids,
    else as one each. `perception`: changed parameters of the real perception; `all_heads`: mean
    attention of all heads in place of the calibrated one.
    """

    name: str
    about: str
    make: Callable[[], Guard]
    knowledge: str
    pieces: bool = True
    all_heads: bool = False
    perception: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.knowledge not in KNOWLEDGE:
            raise ValueError(f"knowledge: expected one of {KNOWLEDGE}, got {self.knowledge!r}")
