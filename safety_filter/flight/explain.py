"""What a flight record shows, in words and as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safety_filter.flight.recorder import Record, Recorded
from safety_filter.flight.replay import Replayed

SHOWN = 40  # spans listed at most, the last ones


@dataclass(frozen=True)
class Span:
    """Consecutive ticks with the same state and reason."""

    first: int
    last: int


def spans(record: Record) -> list[Span]:
    """The record cut where state or reason change."""
    found: list[Span] = []
    start = 0
    keys = [(t.told.state, t.told.reason) for t in record.ticks]
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[start]:
            found.append(Span(start, i - 1))
            start = i
    return found


def stop_index(record: Record) -> int | None:
    """The tick at which the filter went from moving to STOPPED the last time."""
    states = [t.told.state for t in record.ticks]
    for i in range(len(states) - 1, 0, -1):
        if states[i] == "STOPPED" and states[i - 1] != "STOPPED":
            return i
    return None


def _ages(tick: Recorded) -> str:
    parts = []
    for name, sample in (
        ("joint state", tick.joints),
        ("command", tick.command),
        ("obstacles", tick.obstacles),
    ):
        if sample is None:
            parts.append(f"no {name} yet")
        else:
            age = max(tick.now_mono - sample.receipt, tick.now_ros - sample.stamp)
            parts.append(f"{name} {1e3 * age:.0f} ms old")
    return ", ".join(parts)


def _nearest(tick: Recorded) -> str:
    told = tick.told
    if not np.isfinite(told.nearest_distance):
        return "nearest pair not known (nothing was solved)"
    return (
        f"nearest {told.nearest_body} and track {told.nearest_track},"
        f" {1e3 * told.nearest_distance:.0f} mm"
    )


def lines(record: Record, replayed: Replayed | None = None) -> Iterator[str]:
    """The story of the record, line by line."""
    ticks = record.ticks
    if not ticks:
        yield "the record is empty"
        return
    zero_at = stop_index(record)
    zero = ticks[zero_at if zero_at is not None else -1].now_mono
    yield (
        f"{len(ticks)} ticks over {ticks[-1].now_mono - ticks[0].now_mono:.2f} s,"
        f" robot {record.spec.get('name', '?')}, written because: {record.header.get('why', '?')}"
    )
    if zero_at is not None:
        before, at = ticks[zero_at - 1], ticks[zero_at]
        yield f"the stop: {at.told.reason}: {at.told.detail}"
        yield f"  just before: {before.told.state}, {_nearest(before)}"
        if before.told.active_rows:
            yield f"  rows that held the arm back: {before.told.active_rows}"
        yield f"  inputs at the stop: {_ages(at)}"
        speed = float(np.abs(before.told.qd).max())
        yield f"  fastest joint before {speed:.3f} rad/s, at rest {_rest(record, zero_at)}"
    yield "times in s from the stop:" if zero_at is not None else "times in s from the end:"
    found = spans(record)
    if len(found) > SHOWN:
        yield f"  ({len(found) - SHOWN} earlier spans left out)"
    for span in found[-SHOWN:]:
        part = ticks[span.first : span.last + 1]
        told = part[0].told
        distance = min(t.told.nearest_distance for t in part)
        near = f", nearest {1e3 * distance:.0f} mm" if np.isfinite(distance) else ""
        detail = f": {told.detail}" if told.detail else ""
        yield (
            f"  {part[0].now_mono - zero:+7.2f} .. {part[-1].now_mono - zero:+7.2f}"
            f"  {told.state} {told.reason if told.state == 'STOPPED' else ''}{near}{detail}"
        )
    if replayed is not None:
        same = sum(replayed.equal)
        yield f"replayed: {same} of {len(ticks)} decisions equal to the last bit"
        for i in replayed.different[:5]:
            now, then = replayed.decisions[i], ticks[i].told
            yield (
                f"  tick {i}: recorded {then.state} {then.reason}, replayed"
                f" {now.state} {now.reason}, largest difference"
                f" {float(np.abs(now.qd - then.qd).max()):.2e} rad/s"
            )


def _rest(record: Record, stop: int) -> str:
    for tick in record.ticks[stop:]:
        if not tick.told.qd.any():
            return f"{tick.now_mono - record.ticks[stop].now_mono:.3f} s later"
    return "not within the record"


def draw(record: Record, path: Path) -> None:
    """Distance, command and answer over time, and the scene at the stop from above, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ticks = record.ticks
    stop = stop_index(record)
    zero = ticks[stop if stop is not None else -1].now_mono
    t = np.array([k.now_mono - zero for k in ticks])
    distance = np.array([k.told.nearest_distance for k in ticks])
    wanted = np.array([float(np.linalg.norm(k.told.nominal_qd)) for k in ticks])
    sent = np.array([float(np.linalg.norm(k.told.qd)) for k in ticks])
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2))
    axes[0].plot(t, np.where(np.isfinite(distance), 1e3 * distance, np.nan), color="#1b6e3c")
    axes[0].set(title="nearest distance, mm", xlabel="s from the stop")
    axes[1].plot(t, wanted, label="asked", color="#999999")
    axes[1].plot(t, sent, label="sent", color="#1b4e9c")
    axes[1].set(title="norm of the joint velocity, rad/s", xlabel="s from the stop")
    axes[1].legend()
    for axis in axes[:2]:
        for span in spans(record):
            if ticks[span.first].told.state == "STOPPED":
                axis.axvspan(t[span.first], t[span.last], color="#b3261e", alpha=0.12)
    _draw_above(axes[2], ticks[stop - 1 if stop else -1])
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_above(axis: object, tick: Recorded) -> None:
    """Tracks as ellipses of their extent in x and y, and the nearest pair."""
    from matplotlib.axes import Axes
    from matplotlib.patches import Ellipse

    assert isinstance(axis, Axes)
    axis.set(title="from above, just before, m", xlabel="x", ylabel="y", aspect="equal")
    axis.plot(0, 0, "ks", markersize=6)
    if tick.obstacles is not None:
        for track in tick.obstacles.tracks:
            yaw = np.degrees(2 * np.arctan2(float(track["qz"]), float(track["qw"])))
            at = float(track["x"]), float(track["y"])
            size = 2 * float(track["sx"]), 2 * float(track["sy"])
            axis.add_patch(Ellipse(at, *size, angle=yaw, alpha=0.4, color=f"C{track['role']}"))
            axis.annotate(str(track["id"]), at, fontsize=8)
            axis.arrow(*at, float(track["vx"]) / 2, float(track["vy"]) / 2, width=0.002)
    points = tick.told.nearest_points
    if points.any():
        axis.plot(points[:, 0], points[:, 1], "y.-")
    axis.autoscale_view()
