"""The filter's ticks as a table: what each step was given and what it decided.

`filter_node` publishes them on `~/ticks` while somebody listens, so that a recording holds exactly
what its loop consumed: the two clocks, how long the step took, the joint state and command that
were in force with their receipt times, which obstacle message was the newest, and the answer. The
obstacles themselves are in the bag already; they are named by stamp and receipt.

One tick is one point of a PointCloud2 (a table that names its columns), all little-endian and
packed; times in s, angles in rad, lengths in m. `n` is the number of joints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety_filter.core.inputs import Command, JointSample
from safety_filter.core.nominal import KINDS
from safety_filter.flight.recorder import Tick

Table = NDArray[np.void]
STATES = ("PASS", "FILTERED", "STOPPED")
TEXT = 32  # bytes of the columns `command_frame` and `reason`
_KINDS = tuple(KINDS)
_UNKNOWN_KIND = 255
# numpy's type characters -> PointField.datatype
_DATATYPES = {"u1": 2, "<u2": 4, "<u4": 6, "<f4": 7, "<f8": 8}
_TYPES = {code: name for name, code in _DATATYPES.items()}


class TickError(ValueError):
    """A message that is not a table of ticks, with what was expected and what came."""


def tick_dtype(n: int) -> np.dtype[np.void]:
    """The columns for an arm of `n` joints."""
    return np.dtype(
        [
            ("number", "<u4"),
            ("config", "<u4"),  # version of the configuration in force, see `~/config`
            ("now_mono", "<f8"),
            ("now_ros", "<f8"),
            ("elapsed", "<f8"),
            ("joints_stamp", "<f8"),
            ("joints_receipt", "<f8"),  # NaN here and below: nothing received yet
            ("opening", "<f8"),  # NaN: not known
            ("q", "<f8", (max(7, n),)),  # of a robot without a model: the tool's pose
            ("dq", "<f8", (max(7, n),)),
            ("command_stamp", "<f8"),
            ("command_receipt", "<f8"),
            ("command", "<f8", (max(6, n),)),
            ("obstacles_stamp", "<f8"),
            ("obstacles_receipt", "<f8"),
            ("qd", "<f8", (n,)),
            ("nominal_qd", "<f8", (n,)),
            ("twist", "<f8", (6,)),
            ("distance", "<f8"),
            ("level1_slack", "<f8"),
            ("q_size", "<u2"),  # values that came
            ("dq_size", "<u2"),
            ("command_size", "<u2"),
            ("command_kind", "u1"),
            ("command_frame", "u1", (TEXT,)),
            ("reason", "u1", (TEXT,)),
            ("state", "u1"),
            ("no_target", "u1"),
            ("event", "u1"),
        ]
    )


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode()[:TEXT].ljust(TEXT, b"\0"), np.uint8)


def text(column: NDArray[np.uint8]) -> str:
    """A text column's value."""
    return column.tobytes().rstrip(b"\0").decode(errors="replace")


def table(ticks: Sequence[tuple[int, int, Tick]], n: int) -> Table:
    """The table of (number, config version, tick)."""
    rows = np.zeros(len(ticks), tick_dtype(n))
    for row, (number, config, tick) in zip(rows, ticks, strict=True):
        row["number"], row["config"] = number, config
        row["now_mono"], row["now_ros"] = tick.now_mono, tick.now_ros
        _put_inputs(row, tick)
        put_decision(row, tick.decision)
        row["event"] = tick.event
    return rows


def _put_inputs(row: Any, tick: Tick) -> None:
    joints, command, obstacles = tick.joints, tick.command, tick.obstacles
    for name, sample in (("joints", joints), ("command", command), ("obstacles", obstacles)):
        row[f"{name}_stamp"] = np.nan if sample is None else sample.stamp
        row[f"{name}_receipt"] = np.nan if sample is None else sample.receipt
    if joints is not None:
        put_joints(row, joints)
    if command is not None:
        put_command(row, command)


def _put(row: Any, column: str, value: NDArray[np.float64]) -> None:
    """Values that may be fewer than the column holds; of too many only the number is kept."""
    row[f"{column}_size"] = min(len(value), 0xFFFF)
    if len(value) <= len(row[column]):
        row[column][: len(value)] = value


def _take(row: Any, column: str) -> NDArray[np.float64]:
    size = int(row[f"{column}_size"])
    out: NDArray[np.float64] = row[column][:size].copy()
    return out if len(out) == size else np.zeros(size)


def put_joints(row: Any, joints: JointSample) -> None:
    """Fill the columns of a joint state into a row of a table."""
    row["joints_stamp"], row["joints_receipt"] = joints.stamp, joints.receipt
    _put(row, "q", joints.q)
    _put(row, "dq", joints.dq)
    row["opening"] = np.nan if joints.opening is None else joints.opening


def put_command(row: Any, command: Command) -> None:
    """Fill the columns of a command into a row of a table."""
    row["command_stamp"], row["command_receipt"] = command.stamp, command.receipt
    _put(row, "command", command.value)
    known = command.kind in _KINDS
    row["command_kind"] = _KINDS.index(command.kind) if known else _UNKNOWN_KIND
    row["command_frame"] = _bytes(command.frame_id)


def put_decision(row: Any, decision: Any) -> None:
    """Fill the columns of a core Decision into a row of a table."""
    row["elapsed"] = decision.solve_us * 1e-6
    row["qd"], row["nominal_qd"] = decision.qd, decision.nominal_qd
    row["twist"], row["distance"] = decision.twist, decision.min_distance
    row["level1_slack"] = decision.level1_slack
    row["state"] = STATES.index(decision.state)
    row["reason"], row["no_target"] = _bytes(decision.reason), decision.no_target


def joints_of(row: Any) -> JointSample | None:
    """The joint state of a row as it was given to the filter."""
    if np.isnan(row["joints_receipt"]):
        return None
    opening = None if np.isnan(row["opening"]) else float(row["opening"])
    stamp, receipt = float(row["joints_stamp"]), float(row["joints_receipt"])
    return JointSample(stamp, receipt, _take(row, "q"), _take(row, "dq"), opening)


def command_of(row: Any) -> Command | None:
    """The command of a row as it was given to the filter."""
    if np.isnan(row["command_receipt"]):
        return None
    code = int(row["command_kind"])
    kind = _KINDS[code] if code < len(_KINDS) else "unknown"
    stamp, receipt = float(row["command_stamp"]), float(row["command_receipt"])
    return Command(stamp, receipt, kind, _take(row, "command"), text(row["command_frame"]))


def fields(n: int) -> list[tuple[str, int, int, int]]:
    """(name, offset, PointField datatype, count) of each column, in order."""
    dtype = tick_dtype(n)
    found = []
    for name in dtype.names or ():
        column, offset = dtype.fields[name][:2]  # type: ignore[index]
        base, shape = column.subdtype or (column, ())
        found.append((name, int(offset), _DATATYPES[_character(base)], int(np.prod(shape))))
    return found


def _character(dtype: np.dtype[Any]) -> str:
    return "u1" if dtype.str == "|u1" else dtype.str


def decode(
    got: Iterable[tuple[str, int, int, int]], point_step: int, width: int, data: Any
) -> Table:
    """The table in a message; `got` are its fields as `fields` gives them.

    Raises:
        TickError: other columns (another version of this package), or cut data.
    """
    columns = [tuple(f) for f in got]
    sizes = {name: count for name, _, _, count in columns}
    n = sizes.get("qd", 0)
    if not 0 < n <= 64 or columns != fields(n):
        here = {f[0] for f in fields(7)}
        unknown = sorted({str(f[0]) for f in columns} - here) or "none"
        missing = sorted(here - {str(f[0]) for f in columns}) or "none"
        raise TickError(f"ticks: expected the columns of this version; missing: {missing},"
                        f" unknown: {unknown}; replay with the version that recorded")
    dtype = tick_dtype(n)
    raw = bytes(data)
    if point_step != dtype.itemsize or len(raw) != width * dtype.itemsize:
        raise TickError(f"ticks: expected {width} rows of {dtype.itemsize} bytes,"
                        f" got {len(raw)} bytes in steps of {point_step}")
    return np.frombuffer(raw, dtype, width)
