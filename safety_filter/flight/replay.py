"""Runs a record through the filter again and says which decisions come out the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.report import Decision
from safety_filter.core.robot import RobotModel
from safety_filter.flight.recorder import BY, RESET, WITHDRAWN, Record

# Decided by how long a step took, which a replay does not share
TIMED = "deadline"


@dataclass(frozen=True)
class Replayed:
    """Decisions of the replay, tick by tick, and which equal the recorded ones to the last bit."""

    decisions: list[Decision]
    equal: list[bool]

    @property
    def different(self) -> list[int]:
        """Ticks that came out differently."""
        return [i for i, same in enumerate(self.equal) if not same]


def tell(safety: SafetyFilter, event: int) -> None:
    """What the operator, the monitor or the node asked for before a tick."""
    if event in BY:
        safety.stop(BY[event])
    elif event == RESET:
        safety.reset()
    elif event == WITHDRAWN:
        safety.withdraw_reset()


def replay(record: Record, params: FilterParams | None = None) -> Replayed:
    """Replay `record`, with other parameters if given.

    Each tick starts from the recorded answer before it, so one difference does not spread. The
    first ticks may differ: what was held or exempt before the record began is not in it.
    """
    robot = RobotModel.load(record.urdf, record.spec)
    safety_filter = SafetyFilter(robot, params or record.params)
    decisions: list[Decision] = []
    equal: list[bool] = []
    if record.ticks and record.ticks[0].told.reason == "operator":
        safety_filter.stop()
    for i, tick in enumerate(record.ticks):
        tell(safety_filter, tick.event)
        if i > 0:
            safety_filter.continue_from(record.ticks[i - 1].told.qd)
        decision = safety_filter.step(
            tick.now_mono, tick.now_ros, tick.joints, tick.command, tick.obstacles
        )
        decisions.append(decision)
        told = tick.told
        same = (decision.state, decision.reason) == (told.state, told.reason)
        equal.append(
            (same and bool(np.array_equal(decision.qd, told.qd))) or told.reason == TIMED
        )
    return Replayed(decisions, equal)
