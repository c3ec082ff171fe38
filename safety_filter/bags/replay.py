"""Runs the filter over a recording: the same steps with the same inputs, no clock, no thread."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter import parameter_files
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import BagError
from safety_filter.bags.recording import Obstacles, Recording, segments
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import TABLE, FilterParams
from safety_filter.core.params import ParamError
from safety_filter.flight.replay import tell

DECISION = ("qd", "twist", "nominal_qd", "distance", "level1_slack", "state", "reason",
            "no_target")  # fmt: skip
SAME = 1e-9  # rad/s; another processor may round the last bits differently
WARM_UP = 0.5  # s at the start of a segment in which what came before it still counts,
WARM_UP_BOUNDS = 3.0  # s where a declared bound that was broken before makes the filter brake


class RecordedTimer:
    """What the live step's timer showed, so that a missed deadline is missed again."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self._started = False

    def __call__(self) -> float:
        self._started = not self._started
        return 0.0 if self._started else self.elapsed


def overlay(params: FilterParams, changes: Mapping[str, Any]) -> FilterParams:
    """`params` with changes, which need not be allowed while running.

    Raises:
        BagError: unknown or invalid parameters.
    """
    try:
        return TABLE.validate({**dataclasses.asdict(params), **changes})
    except ParamError as error:
        raise BagError(f"configuration: {error}") from error


def flat_parameters(path: Path, node: str) -> dict[str, Any]:
    """Parameters of `node`, whatever its namespace, in a ROS parameter file or a flat mapping.

    Raises:
        BagError: not YAML, another form, or nothing for the node: the comparison would be with
            what was recorded.
    """
    try:
        found = parameter_files.of_node(path, node, None)
    except ValueError as error:
        raise BagError(str(error)) from error
    if not found:
        raise BagError(f"{path}: says nothing to {node}; expected a section /**/{node}, or its"
                       " parameters alone")  # fmt: skip
    return {name: value for name, value in found.items() if name != "use_sim_time"}


def read_config(path: Path, node_names: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Changes to the filter's parameters from a parameter file.

    node_names: parameters of the node, which do not change decisions and are returned as ignored.

    Raises:
        BagError: not such a file, or an unknown name.
    """
    flat = flat_parameters(path, "filter_node")
    known = TABLE.defaults()
    ignored = [n for n in flat if n not in known and n in node_names]
    changes = {n: v for n, v in flat.items() if n not in ignored}
    overlay(FilterParams(), {n: v for n, v in changes.items() if n not in known})
    return changes, ignored


@dataclass
class Replay:
    """Decisions of one run. `table` has the ticks with these decisions in place of the recorded.

    known: ticks whose inputs are all in the bag.
    """

    table: tk.Table
    known: NDArray[np.bool_]
    params: FilterParams

    @property
    def digest(self) -> str:
        """SHA-256 of all decisions: equal bytes, equal digest."""
        sha = hashlib.sha256()
        for name in DECISION:
            sha.update(np.ascontiguousarray(self.table[name]).tobytes())
        return sha.hexdigest()


def run(recording: Recording, changes: Mapping[str, Any] | None = None) -> Replay:
    """Run the filter over the recording, with some parameters changed.

    Raises:
        BagError: the parameters do not fit.
    """
    versions = {v: overlay(p, changes or {}) for v, p in recording.params.items()}
    table = recording.table.copy()
    known = np.ones(len(table), bool)
    obstacles = Obstacles(recording)
    for part in segments(recording.table):
        _run_segment(recording, part, versions, obstacles, table, known)
    if obstacles.missing:
        recording.notes.append(
            f"{obstacles.missing} ticks used an obstacle message that is not in the bag"
        )
    return Replay(table, known, versions[max(versions)])


def _run_segment(
    recording: Recording, part: slice, versions: Mapping[int, FilterParams],
    obstacles: Obstacles, table: tk.Table, known: NDArray[np.bool_],
) -> None:  # fmt: skip
    timer = RecordedTimer()
    given = recording.table[part]
    version = _version(int(given["config"][0]), versions)
    try:
        safety = SafetyFilter(recording.robot, versions[version], timer)
    except ParamError as error:
        raise BagError(f"configuration: {error}") from error
    middle = recording.exact and int(given["number"][0]) > 1
    if recording.exact and tk.text(given["reason"][0]) == "operator":
        safety.stop()  # before the recording, or before the filter's first step
    joints = command = None
    joints_key = command_key = None
    receipts = given["joints_receipt"].tolist(), given["command_receipt"].tolist()
    stamps = given["joints_stamp"].tolist(), given["command_stamp"].tolist()
    clouds = zip(given["obstacles_stamp"].tolist(), given["obstacles_receipt"].tolist(),
                 strict=True)  # fmt: skip
    configs, events = given["config"].tolist(), given["event"].tolist()
    mono, ros = given["now_mono"].tolist(), given["now_ros"].tolist()
    for i, (cloud, elapsed) in enumerate(zip(clouds, given["elapsed"].tolist(), strict=True)):
        wanted = _version(configs[i], versions)
        if wanted != version:
            version = wanted
            _retune(safety, versions[version])
        tell(safety, events[i])
        key = stamps[0][i], receipts[0][i]
        if key != joints_key:
            joints, joints_key = tk.joints_of(given[i]), key
        key = stamps[1][i], receipts[1][i]
        if key != command_key:
            command, command_key = tk.command_of(given[i]), key
        sample, there = obstacles.at(*cloud)
        timer.elapsed = elapsed
        decision = safety.step(mono[i], ros[i], joints, command, sample)
        row = table[part.start + i]
        tk.put_decision(row, decision)
        row["elapsed"] = elapsed
        known[part.start + i] = there
        if (middle and i == 0) or not there:
            safety.continue_from(given["qd"][i])


def _retune(safety: SafetyFilter, params: FilterParams) -> None:
    runtime = {row.name: getattr(params, row.name) for row in TABLE.rows if row.runtime}
    safety.update_params(runtime)


def _version(wanted: int, versions: Mapping[int, FilterParams]) -> int:
    """The configuration that was in force, or the one before it that the bag has."""
    if wanted in versions:
        return wanted
    earlier = [v for v in versions if v <= wanted]
    return max(earlier) if earlier else min(versions)


@dataclass(frozen=True)
class Comparison:
    """How the decisions of two tables of the same ticks differ.

    equal: to the last bit; different: another state or reason, or velocities further apart than
    SAME; unknown: ticks that cannot be compared (inputs missing, or what was before the recording
    still counts); largest: difference of a joint velocity, rad/s.
    """

    equal: NDArray[np.bool_]
    different: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    largest: float


def compare(
    a: tk.Table, b: tk.Table, unknown: NDArray[np.bool_] | None = None
) -> Comparison:
    """Compare decisions tick by tick."""
    equal = np.ones(len(a), bool)
    for name in DECISION:
        x, y = (np.ascontiguousarray(t[name]).view("u1").reshape(len(a), -1) for t in (a, b))
        equal &= (x == y).all(axis=1)
    words = (a["state"] != b["state"]) | (a["reason"] != b["reason"]).any(axis=1)
    gap = np.abs(a["qd"] - b["qd"]).max(axis=1)
    skipped = np.zeros(len(a), bool) if unknown is None else unknown
    different = (words | ~(gap <= SAME)) & ~skipped
    judged = gap[~skipped]
    return Comparison(equal, different, skipped, float(judged.max(initial=0.0)))


def unverifiable(recording: Recording, replayed: Replay) -> NDArray[np.bool_]:
    """Ticks that the recording does not determine: see `Comparison.unknown`."""
    table = recording.table
    out = ~replayed.known
    brakes = any(p.bound_broken == "brake" for p in recording.params.values())
    warm_up = WARM_UP_BOUNDS if brakes else WARM_UP
    for part in segments(table):
        if int(table["number"][part.start]) > 1:
            times = table["now_mono"][part]
            out[part] |= times < times[0] + warm_up
    return out
