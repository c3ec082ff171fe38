"""Keeps the last seconds of the filter's inputs and decisions, and saves them.

A file is a zip of plain arrays (numpy's npz without pickled objects): inputs once each, ticks with
indices into them, the robot's description and the parameters, so that it can be replayed anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.filter_params import TABLE, FilterParams
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.params import ParamError
from safety_filter.core.report import Decision
from safety_filter.core.wire import OBSTACLE_DTYPE

FORMAT = 1
SUFFIX = ".flight.npz"
NO_EVENT, STOP, RESET, MONITOR_STOP, NODE_STOP, MONITOR_GONE, WITHDRAWN = range(7)
BY = {STOP: "the operator", MONITOR_STOP: "the monitor, whose state says why",
      NODE_STOP: "a deactivation", MONITOR_GONE: "the monitor's silence"}  # fmt: skip
"""Who asked for a stop."""


class FlightError(ValueError):
    """A file that is not a flight record, or not a whole one."""


@dataclass(frozen=True)
class Tick:
    """One step of the filter: what it was given and what it decided."""

    now_mono: float
    now_ros: float
    joints: JointSample | None
    command: Command | None
    obstacles: ObstacleSample | None
    decision: Decision
    event: int  # a stop (BY) or RESET was asked for, or that WITHDRAWN, since the tick before


@dataclass(frozen=True)
class Told:
    """What a record keeps of a decision; arrays (n,) and (2, 3)."""

    state: str
    reason: str
    detail: str
    no_target: bool
    qd: NDArray[np.float64]
    nominal_qd: NDArray[np.float64]
    nearest_body: str
    nearest_track: int
    nearest_distance: float
    nearest_points: NDArray[np.float64]
    active_rows: str


@dataclass(frozen=True)
class Recorded:
    """One tick read back."""

    now_mono: float
    now_ros: float
    joints: JointSample | None
    command: Command | None
    obstacles: ObstacleSample | None
    told: Told
    event: int


@dataclass(frozen=True)
class Record:
    """A whole file: why it was written, the robot, the parameters, and the ticks in order."""

    header: dict[str, Any]
    spec: dict[str, Any]
    urdf: str
    params: FilterParams
    ticks: list[Recorded]


class FlightRecorder:
    """A ring of ticks. `add` keeps references only, so it costs a control loop nothing."""

    def __init__(self, seconds: float, rate: float) -> None:
        self.size = max(2, round(seconds * rate))  # ticks kept at most
        self._ticks: deque[Tick] = deque(maxlen=self.size)
        self._event = NO_EVENT

    def event(self, kind: int) -> None:
        """Note a stop (BY), RESET or WITHDRAWN; it belongs to the next tick."""
        self._event = kind

    def add(
        self,
        now_mono: float,
        now_ros: float,
        joints: JointSample | None,
        command: Command | None,
        obstacles: ObstacleSample | None,
        decision: Decision,
    ) -> Tick:
        """Keep one step and return it."""
        tick = Tick(now_mono, now_ros, joints, command, obstacles, decision, self._event)
        self._event = NO_EVENT
        self._ticks.append(tick)
        return tick

    def clear(self) -> None:
        """Forget, as when parameters change: a record has one set of them."""
        self._ticks.clear()

    def ticks(self) -> list[Tick]:
        """What is kept now, oldest first."""
        return list(self._ticks)


class _Once:
    """Objects numbered in the order in which they are first met."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._index: dict[int, int] = {}

    def index(self, item: Any) -> int:
        if item is None:
            return -1
        if id(item) not in self._index:
            self._index[id(item)] = len(self.items)
            self.items.append(item)
        return self._index[id(item)]


def _text(values: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(list(values)).encode(), np.uint8)


def _rows(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Arrays of one shape as one array; quick, for a control loop may wait meanwhile."""
    if not arrays:
        return np.zeros(0)
    return np.concatenate([a.reshape(-1) for a in arrays]).reshape(-1, *arrays[0].shape)


def _ragged(arrays: Sequence[NDArray[Any]], dtype: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All values in one array, and where each part ends."""
    parts = [np.asarray(a, dtype).reshape(-1) for a in arrays]
    ends = np.cumsum([len(p) for p in parts], dtype=np.int64)
    return (np.concatenate(parts) if parts else np.zeros(0, dtype)), ends


def save(
    path: Path,
    ticks: Sequence[Tick],
    params: FilterParams,
    spec: Mapping[str, Any],
    urdf: str,
    **header: Any,
) -> None:
    """Write ticks to `path`; a reader never sees half a file.

    Raises:
        OSError: no space or no permission.
    """
    joints, commands, clouds = _Once(), _Once(), _Once()
    rows = [
        (joints.index(t.joints), commands.index(t.command), clouds.index(t.obstacles), t.event)
        for t in ticks
    ]
    told = [t.decision for t in ticks]
    near = [d.nearest for d in told]
    arrays: dict[str, NDArray[Any]] = {
        "times": np.array([(t.now_mono, t.now_ros) for t in ticks]).reshape(-1, 2),
        "rows": np.array(rows, np.int64).reshape(-1, 4),
        "qd": _rows([d.qd for d in told]),
        "nominal_qd": _rows([d.nominal_qd for d in told]),
        "no_target": np.array([d.no_target for d in told], bool),
        "near": np.array([(n.track_id, n.distance) if n else (-1, np.inf) for n in near]),
        "near_points": _rows([n.points if n else np.zeros((2, 3)) for n in near]),
        "joint_times": np.array(
            [(j.stamp, j.receipt, np.nan if j.opening is None else j.opening)
             for j in joints.items]
        ).reshape(-1, 3),
        "command_times": np.array([(c.stamp, c.receipt) for c in commands.items]).reshape(-1, 2),
        "cloud_times": np.array([(o.stamp, o.receipt) for o in clouds.items]).reshape(-1, 2),
        "state": _text([d.state for d in told]),
        "reason": _text([d.reason for d in told]),
        "detail": _text([d.detail for d in told]),
        "active_rows": _text([", ".join(d.active_rows) for d in told]),
        "near_body": _text([n.body if n else "" for n in near]),
        "command_kind": _text([c.kind for c in commands.items]),
        "command_frame": _text([c.frame_id for c in commands.items]),
        "cloud_frame": _text([o.frame_id for o in clouds.items]),
        "cloud_fault": _text([o.fault or "" for o in clouds.items]),
        "robot": _text([json.dumps(dict(spec)), urdf]),
        "header": _text(
            [json.dumps({**header, "format": FORMAT, "params": dataclasses.asdict(params)})]
        ),
    }  # fmt: skip
    arrays["joint_q"], arrays["joint_q_ends"] = _ragged([j.q for j in joints.items], float)
    arrays["joint_dq"], arrays["joint_dq_ends"] = _ragged([j.dq for j in joints.items], float)
    arrays["command"], arrays["command_ends"] = _ragged(
        [c.value for c in commands.items], float
    )
    arrays["cloud"], arrays["cloud_ends"] = _ragged(
        [o.tracks for o in clouds.items], OBSTACLE_DTYPE
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _strings(array: NDArray[np.uint8]) -> list[str]:
    return [str(v) for v in json.loads(array.tobytes())]


def _parts(values: NDArray[Any], ends: NDArray[np.int64]) -> list[NDArray[Any]]:
    return np.split(values, ends[:-1]) if len(ends) else []


def load(path: Path) -> Record:
    """Read a file.

    Raises:
        FlightError: missing, torn, another format, or parameters that are no longer valid.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            a = {name: file[name] for name in file.files}
        header = json.loads(_strings(a["header"])[0])
        if header.get("format") != FORMAT:
            raise FlightError(f"{path}: expected format {FORMAT}, got {header.get('format')}")
        return _unpack(a, header)
    except ParamError as error:
        raise FlightError(f"{path}: parameters: {error}") from error
    except (OSError, ValueError, KeyError, EOFError, IndexError, TypeError) as error:
        if isinstance(error, FlightError):
            raise
        raise FlightError(f"{path}: not a whole flight record: {error}") from error
    except Exception as error:  # zipfile raises classes of its own for torn files
        raise FlightError(f"{path}: not a flight record: {error}") from error


def _unpack(a: Mapping[str, NDArray[Any]], header: dict[str, Any]) -> Record:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in header.pop("params").items()}
    joints = [
        JointSample(float(t[0]), float(t[1]), q, dq, None if np.isnan(t[2]) else float(t[2]))
        for t, q, dq in zip(
            a["joint_times"],
            _parts(a["joint_q"], a["joint_q_ends"]),
            _parts(a["joint_dq"], a["joint_dq_ends"]),
            strict=True,
        )
    ]
    commands = [
        Command(float(t[0]), float(t[1]), kind, value, frame)
        for t, kind, value, frame in zip(
            a["command_times"],
            _strings(a["command_kind"]),
            _parts(a["command"], a["command_ends"]),
            _strings(a["command_frame"]),
            strict=True,
        )
    ]
    clouds = [
        ObstacleSample(float(t[0]), float(t[1]), frame, tracks, fault or None)
        for t, frame, tracks, fault in zip(
            a["cloud_times"],
            _strings(a["cloud_frame"]),
            _parts(a["cloud"], a["cloud_ends"]),
            _strings(a["cloud_fault"]),
            strict=True,
        )
    ]
    columns = zip(
        _strings(a["state"]), _strings(a["reason"]), _strings(a["detail"]), a["no_target"],
        a["qd"], a["nominal_qd"], _strings(a["near_body"]), a["near"], a["near_points"],
        _strings(a["active_rows"]), strict=True,
    )  # fmt: skip
    told = [
        Told(state, reason, detail, bool(no_target), qd, nominal, body,
             int(near[0]), float(near[1]), points, active)
        for state, reason, detail, no_target, qd, nominal, body, near, points, active in columns
    ]  # fmt: skip
    ticks = [
        Recorded(
            float(times[0]),
            float(times[1]),
            joints[row[0]] if row[0] >= 0 else None,
            commands[row[1]] if row[1] >= 0 else None,
            clouds[row[2]] if row[2] >= 0 else None,
            decision,
            int(row[3]),
        )
        for times, row, decision in zip(a["times"], a["rows"], told, strict=True)
    ]
    spec, urdf = _strings(a["robot"])
    return Record(header, json.loads(spec), urdf, TABLE.validate(values), ticks)
