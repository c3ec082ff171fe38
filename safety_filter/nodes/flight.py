"""Writes a flight record when the filter stops: two seconds later, beside the control loop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safety_filter.core.filter_params import FilterParams
from safety_filter.core.params import param
from safety_filter.core.report import Decision
from safety_filter.flight.recorder import SUFFIX, FlightRecorder, Tick, save
from safety_filter.robot_source import RobotSource

AFTERMATH = 2.0  # s recorded after a stop
QUIET = 10.0  # s between two files at least: a flapping input must not fill the disk
WORDED = 10  # ticks put into words at a time
PAUSE = 1e-3  # s in between: the control loop needs the same interpreter


@dataclass(frozen=True)
class FlightParams:
    """Parameters of the flight recorder."""

    record_seconds: float = param(10.0, "s", 3.0, 120.0, "how much the flight recorder keeps")
    record_files: int = param(
        20, "-", 0, 1000, "files kept, the oldest go first; 0 writes none at all"
    )
    record_folder: str = param(
        "", "-", None, None, "where records go; empty: flight/ in ROS_LOG_DIR or ~/.ros"
    )


def default_folder() -> Path:
    """flight/ where ROS keeps its logs."""
    logs = os.environ.get("ROS_LOG_DIR")
    return (Path(logs) if logs else Path.home() / ".ros") / "flight"


class StopRecorder:
    """Keeps the last seconds; `add` is called by the control loop, `serve` by the executor."""

    def __init__(
        self, params: FlightParams, rate: float, robot: RobotSource, urdf: str,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        """say: told where a record went, or why it could not be written."""
        self.flight = FlightRecorder(params.record_seconds, rate)
        self._params = params
        self._folder = Path(params.record_folder) if params.record_folder else default_folder()
        self._robot, self._urdf, self._say = robot, urdf, say
        self._moving = False
        self._due = 0.0  # monotonic time at which a record is written; 0: none
        self._why = ""
        self._last = -QUIET
        self._writer: threading.Thread | None = None

    def watch(self, decision: Decision, now: float) -> None:
        """Notice a stop at monotonic time `now`."""
        stopped = decision.state == "STOPPED"
        if stopped and self._moving and not self._due and now - self._last > QUIET:
            self._due, self._why = now + AFTERMATH, f"{decision.reason}: {decision.detail}"
        self._moving = not stopped

    def serve(self, params: FilterParams, now: float) -> None:
        """Write a record that is due, in a thread."""
        if not self._due or now < self._due or self._params.record_files == 0:
            return
        self._due, self._last = 0.0, now
        ticks = self.flight.ticks()
        name = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() // 10**6 % 1000:03d}"
        path = self._folder / f"{name}{SUFFIX}"

        def write() -> None:
            _put_into_words(ticks)
            try:
                save(path, ticks, params, self._robot.spec, self._urdf, why=self._why, at=name)
                kept = sorted(self._folder.glob(f"*{SUFFIX}"))
                for old in kept[: -self._params.record_files]:
                    old.unlink(missing_ok=True)
                self._say(f"flight record of the stop ({self._why}): {path}")
            except OSError as error:
                self._say(f"flight record not written: {error}")

        self._writer = threading.Thread(target=write, name="flight", daemon=True)
        self._writer.start()


def _put_into_words(ticks: Sequence[Tick]) -> None:
    """Prepare what takes longest to write, little by little; the decisions keep it."""
    for k, tick in enumerate(ticks):
        _ = tick.decision.nearest, tick.decision.active_rows
        if k % WORDED == 0:
            time.sleep(PAUSE)
