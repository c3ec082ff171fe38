"""The decision table: what the filter does about what it knows, first match wins.

| condition                                                    | action   | state               |
| ------------------------------------------------------------ | -------- | ------------------- |
| operator stop latched, or a reset that waits                 | halt     | STOPPED operator    |
| joint state absent, too old, not finite, wrong size          | halt     | STOPPED joint_state |
| obstacles absent, too old, unreadable                        | brake    | STOPPED perception  |
| command absent, too old, not finite, no or unknown frame     | brake    | STOPPED command     |
| a declared bound is broken, where `bound_broken` says brake  | brake    | STOPPED bounds      |
| deadline, QP or verification failed, slack needed            | retreat  | STOPPED reason      |
| a row or a limit changed the command                         | filtered | FILTERED            |
| nothing to change                                            | pass     | PASS                |

A message whose stamp lies in the future or before a clock jump counts as not received. Without a
clear target every row stands and NO_TARGET is added. With the option `circulation` the detail of
FILTERED says which way round an obstacle is being tried.

What the actions are, where a short table could be read otherwise:

- `halt` and `brake` command zeros as soon as the joints' acceleration limits allow, and slow down
  in proportion until then: a step to zero is a jump that drives answer with a fault or a shock.
  `halt` needs no joint state.
- `retreat` brakes, moves away as the violated rows ask (from where it is by at most
  `retreat_speed`, before a mover as fast as that comes), and follows the command slowly
  (`retreat_fraction`) only where no violated row gets worse by it than by standing still: out of a
  squeeze one often has to move along one surface to get away from the other. Where both cannot be
  had, rows of level 2 (static scene) give way to those of level 1 (movers, the arm itself).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class State(str, Enum):
    """What the output is."""

    PASS = 'PASS'
    FILTERED = 'FILTERED'
    STOPPED = 'STOPPED'


class Action(Enum):
    """What is sent."""

    HALT = 'halt'
    BRAKE = 'brake'
    RETREAT = 'retreat'
    FILTERED = 'filtered'
    PASS = 'pass'


class Conditions(NamedTuple):
    """What one step found; each fault is a sentence, None where all is well."""

    operator: str | None = None
    joint_state: str | None = None
    perception: str | None = None
    command: str | None = None
    bounds: str | None = None
    solve: tuple[str, str] | None = None
    changed: bool = False
    target: bool = True
    way_round: str = ''


class Verdict(NamedTuple):
    """One row of the table: `reason` is its short name, `detail` the fault in words."""

    action: Action
    state: State
    reason: str
    detail: str
    no_target: bool


def decide(c: Conditions) -> Verdict:
    """Return the first row of the table that matches."""
    no_target = not c.target
    if c.operator is not None:
        return Verdict(Action.HALT, State.STOPPED, 'operator', c.operator, no_target)
    if c.joint_state is not None:
        return Verdict(Action.HALT, State.STOPPED, 'joint_state', c.joint_state, no_target)
    if c.perception is not None:
        return Verdict(Action.BRAKE, State.STOPPED, 'perception', c.perception, no_target)
    if c.command is not None:
        return Verdict(Action.BRAKE, State.STOPPED, 'command', c.command, no_target)
    if c.bounds is not None:
        return Verdict(Action.BRAKE, State.STOPPED, 'bounds', c.bounds, no_target)
    if c.solve is not None:
        return Verdict(Action.RETREAT, State.STOPPED, c.solve[0], c.solve[1], no_target)
    if c.changed:
        return Verdict(Action.FILTERED, State.FILTERED, 'filtered', c.way_round, no_target)
    return Verdict(Action.PASS, State.PASS, 'pass', '', no_target)
