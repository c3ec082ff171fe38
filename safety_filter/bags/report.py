"""What a replay shows, in words and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from safety_filter.bags import ticks as tk
from safety_filter.bags.kpi import Expectation, figures, stops
from safety_filter.bags.recording import Recording
from safety_filter.bags.replay import Comparison, Replay, compare

SCHEMA = 1
SHOWN = 12  # spans listed at most


def summary(recording: Recording) -> Iterator[str]:
    """What is in the bag."""
    how = "recorded ticks" if recording.exact else "ticks made up from the recorded inputs"
    yield (
        f"{len(recording.table)} {how} over {recording.duration:.2f} s,"
        f" {len(recording.clouds)} obstacle messages, robot {recording.spec.get('name', '?')},"
        f" {len(recording.params)} configuration(s)"
    )
    for note in recording.notes:
        yield f"note: {note}"


def reproduction(found: Comparison) -> Iterator[str]:
    """Whether the recorded decisions came out again."""
    total = len(found.equal)
    yield (
        f"recorded decisions reproduced: {int(found.equal.sum())} of {total} to the last bit,"
        f" {int(found.different.sum())} different"
        + (f", {int(found.unknown.sum())} depend on what is not in the bag"
           if found.unknown.any() else "")
    )  # fmt: skip


def table_of_figures(columns: dict[str, dict[str, float]]) -> Iterator[str]:
    """Figures side by side, one column a run."""
    names = list(next(iter(columns.values())))
    width = max(map(len, names))
    yield " " * width + "".join(f"{title:>16}" for title in columns)
    for name in names:
        values = "".join(f"{_number(c[name]):>16}" for c in columns.values())
        yield f"{name:<{width}}{values}"


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def difference(a: tk.Table, b: tk.Table) -> Iterator[str]:
    """Where the decisions of two configurations differ, spans in s from the start."""
    found = compare(a, b)
    yield (
        f"{int(found.different.sum())} of {len(a)} decisions differ,"
        f" joint velocities by up to {found.largest:.4g} rad/s"
    )
    names = [
        f"{_word(x)} -> {_word(y)}" if _word(x) != _word(y) else f"{_word(x)}, another velocity"
        for x, y in zip(a[found.different], b[found.different], strict=True)
    ]
    for name, count in Counter(names).most_common(SHOWN):
        yield f"  {count:7d}  {name}"
    spans = _spans(found.different)
    times = a["now_mono"] - a["now_mono"][0]
    for start, end in spans[:SHOWN]:
        gap = float(np.abs(a["qd"][start:end] - b["qd"][start:end]).max())
        yield (
            f"  {times[start]:8.3f} .. {times[end - 1]:8.3f} s  {_word(a[start])} ->"
            f" {_word(b[start])}, up to {gap:.4g} rad/s"
        )
    if len(spans) > SHOWN:
        yield f"  ({len(spans) - SHOWN} more spans)"


def _word(row: Any) -> str:
    state = tk.STATES[int(row["state"])]
    return f"STOPPED {tk.text(row['reason'])}" if state == "STOPPED" else state


def _spans(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.diff(np.concatenate([[0], mask.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(s), int(e)) for s, e in zip(starts, ends, strict=True)]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: null stands for it."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }


def as_json(
    recording: Recording, runs: dict[str, Replay], reproduced: Comparison | None,
    expected: Expectation, missed: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Everything that is printed, for programs."""
    return {
        "schema": SCHEMA,
        "exact": recording.exact,
        "duration_s": recording.duration,
        "notes": recording.notes,
        "topics": recording.topics,
        "reproduced": None if reproduced is None else {
            "ticks": len(reproduced.equal),
            "equal": int(reproduced.equal.sum()),
            "different": int(reproduced.different.sum()),
            "unknown": int(reproduced.unknown.sum()),
        },
        "runs": {
            name: {
                "decisions_sha256": run.digest,
                "figures": _finite(figures(run.table, expected)),
                "stops": [_finite(dataclasses.asdict(s)) for s in stops(run.table)],
                "params": dataclasses.asdict(run.params),
            }
            for name, run in runs.items()
        },
        "expectations_missed": missed,
    }  # fmt: skip
