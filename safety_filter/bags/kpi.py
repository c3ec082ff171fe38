"""Figures of a run, and what is expected of them (`--expect kpi.yaml`)::

    figures:                       # every figure printed may be bounded
      time_to_stop_s: {max: 0.5}
      false_stops: {max: 0}
      min_distance_m: {min: 0.02}
      intervention_mean_rad_s: {max: 0.1}
    expected_stops:                # optional, seconds from the start of the bag
      - {from: 3.0, to: 6.0, reason: perception, within: 0.6}
    false_stop_distance: 0.1       # optional, m

A stop is *false* when nothing asked for it: with `expected_stops`, when it meets none of those;
without, when the filter stopped by itself (no silent or unusable input, no operator) although the
nearest obstacle was further away than `false_stop_distance`. Waiting for the first inputs is no
stop. `within` is the time from `from` until the arm was commanded to rest.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import BagError
from safety_filter.core.yaml_file import read_mapping

FAR = 0.1  # m, default of false_stop_distance
INPUT_REASONS = ("operator", "joint_state", "perception", "command", "monitor")
_STOPPED = tk.STATES.index("STOPPED")


@dataclass(frozen=True)
class Stop:
    """A run of STOPPED ticks. Times in s from the start; rest: until zeros were commanded (s),
    infinite if never; distance: to the nearest obstacle just before, m."""

    start: float
    end: float
    reason: str
    rest: float
    distance: float


@dataclass(frozen=True)
class ExpectedStop:
    """A stop that has to happen between `start` and `end`, at rest `within` s of `start`."""

    start: float
    end: float
    reason: str = ""
    within: float = np.inf

    def met_by(self, stop: Stop) -> bool:
        overlaps = stop.start <= self.end and stop.end >= self.start
        return overlaps and (not self.reason or stop.reason == self.reason)


@dataclass(frozen=True)
class Expectation:
    """The content of a kpi file. bounds: figure -> (least, most)."""

    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    stops: Sequence[ExpectedStop] | None = None
    far: float = FAR


def stops(table: tk.Table) -> list[Stop]:
    """All stops after the first tick that was not one."""
    stopped = table["state"] == _STOPPED
    moving = np.flatnonzero(~stopped)
    if not len(moving):
        return []
    times = table["now_mono"] - table["now_mono"][0]
    still = ~table["qd"].any(axis=1)
    found = []
    change = np.flatnonzero(np.diff(stopped.astype(int))) + 1
    edges = [0, *change.tolist(), len(table)]
    for start, end in itertools.pairwise(edges):
        if not stopped[start] or start < moving[0]:
            continue
        zeros = np.flatnonzero(still[start:end])
        rest = float(times[start + zeros[0]] - times[start]) if len(zeros) else np.inf
        reason, before = tk.text(table["reason"][start]), float(table["distance"][start - 1])
        found.append(Stop(float(times[start]), float(times[end - 1]), reason, rest, before))
    return found


def figures(table: tk.Table, expectation: Expectation | None = None) -> dict[str, float]:
    """The figures of a run by name; units are in the names."""
    expected = expectation or Expectation()
    found = stops(table)
    states = Counter(tk.STATES[s] for s in table["state"])
    finite = table["distance"][np.isfinite(table["distance"])]
    acting = table[table["state"] != _STOPPED]
    change = np.linalg.norm(acting["qd"] - acting["nominal_qd"], axis=1)
    total = max(len(table), 1)
    return {
        "ticks": float(len(table)),
        "duration_s": float(table["now_mono"][-1] - table["now_mono"][0]) if len(table) else 0.0,
        **{f"share_{n.lower()}": states[n] / total for n in tk.STATES},
        "share_no_target": float(table["no_target"].mean()) if len(table) else 0.0,
        "stops": float(len(found)),
        "false_stops": float(sum(_is_false(s, expected) for s in found)),
        "time_to_stop_s": max((s.rest for s in found), default=0.0),
        "min_distance_m": float(finite.min()) if len(finite) else float("inf"),
        "intervention_mean_rad_s": float(change.mean()) if len(change) else 0.0,
        "intervention_max_rad_s": float(change.max()) if len(change) else 0.0,
        "level1_slack_max_m_s": float(table["level1_slack"].max(initial=0.0)),
    }


def _is_false(stop: Stop, expected: Expectation) -> bool:
    if expected.stops is not None:
        return not any(e.met_by(stop) for e in expected.stops)
    return stop.reason not in INPUT_REASONS and stop.distance > expected.far


def failures(table: tk.Table, expected: Expectation) -> list[str]:
    """What the run does not meet, one sentence each."""
    got = figures(table, expected)
    out = []
    for name, (least, most) in expected.bounds.items():
        if not least <= got[name] <= most:
            limit = f"at most {most:g}" if got[name] > most else f"at least {least:g}"
            out.append(f"{name}: expected {limit}, got {got[name]:.6g}")
    found = stops(table)
    for wanted in expected.stops or ():
        text = f"stop {wanted.reason or '(any reason)'} between {wanted.start:g} and"
        text += f" {wanted.end:g} s"
        met = [s for s in found if wanted.met_by(s)]
        if not met:
            out.append(f"{text}: expected, did not happen")
        elif (took := met[0].start + met[0].rest - wanted.start) > wanted.within:
            out.append(f"{text}: expected rest within {wanted.within:g} s, got {took:.3f} s")
    return out


def read(path: Path) -> Expectation:
    """Read a kpi file.

    Raises:
        BagError: not YAML, or an entry that is unknown or of the wrong type.
    """
    content = read_mapping(path, BagError)
    _known(path, content, ("figures", "expected_stops", "false_stop_distance"))
    bounds = {}
    names = list(figures(np.zeros(1, tk.tick_dtype(7))))
    wanted = content.get("figures") or {}
    if not isinstance(wanted, dict):
        raise BagError(f"{path}: figures: expected name: {{min, max}}, got {wanted!r}")
    _known(path, wanted, names)
    for name, limits in wanted.items():
        if not isinstance(limits, dict) or not limits:
            raise BagError(f"{path}: {name}: expected {{min: ..., max: ...}}, got {limits!r}")
        _known(path, limits, ("min", "max"))
        least = _number(path, name, limits.get("min", -np.inf))
        bounds[name] = least, _number(path, name, limits.get("max", np.inf))
    far = _number(path, "false_stop_distance", content.get("false_stop_distance", FAR))
    return Expectation(bounds, _stops(path, content.get("expected_stops")), far)


def _stops(path: Path, entries: Any) -> list[ExpectedStop] | None:
    if entries is None:
        return None
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise BagError(f"{path}: expected_stops: expected a list of mappings, got {entries!r}")
    out = []
    for entry in entries:
        _known(path, entry, ("from", "to", "reason", "within"))
        if "from" not in entry or "to" not in entry:
            raise BagError(f"{path}: expected_stops: from and to are needed, got {entry!r}")
        times = [_number(path, k, entry[k]) for k in ("from", "to")]
        within = _number(path, "within", entry.get("within", np.inf))
        out.append(ExpectedStop(*times, str(entry.get("reason", "")), within))
    return out


def _known(path: Path, given: Mapping[Any, Any], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; expected {', '.join(names)}"
            raise BagError(f"{path}: unknown entry {name!r}{hint}")


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or np.isnan(value):
        raise BagError(f"{path}: {name}: expected a number, got {value!r}")
    return float(value)
