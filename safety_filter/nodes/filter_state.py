"""A decision in words and key-value pairs, for `~/state` and `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping

from safety_filter.core.report import WHOLE_ARM, Decision

# Which bodies the twist keeps safe, and on what condition, by those that velocities do
COVERAGE = {
    WHOLE_ARM: "whole arm where the controller resolves the twist to the same joint velocities",
}


def message(decision: Decision, unread: Mapping[str, str]) -> str:
    """PASS, FILTERED, or STOPPED with the short reason and, after a colon, the fault in words.

    unread: why the newest message could not be read, by the reason that it leads to; the decision
    knows only that there was none.
    """
    if decision.state != "STOPPED":
        return decision.state
    return f"STOPPED {decision.reason}: {unread.get(decision.reason) or decision.detail}"


def values(decision: Decision) -> dict[str, object]:
    """What was near, which rows were active and what was changed."""
    found: dict[str, object] = {
        "state": decision.state,
        "reason": decision.reason,
        "detail": decision.detail,
        "no_target": decision.no_target,
        "active_rows": ", ".join(decision.active_rows),
        "rows": decision.rows,
        "intervention_rad_s": decision.intervention,
        "level1_slack": decision.level1_slack,
        "level2_slack": decision.level2_slack,
        "covers": decision.covers,
        "twist_covers": COVERAGE.get(decision.covers, decision.covers),
        "broken_bounds": "; ".join(decision.broken_bounds),
    }
    if decision.separation is not None:
        found |= {f"separation_{k}": v for k, v in decision.separation._asdict().items()}
    nearest = decision.nearest
    if nearest is not None:
        found["nearest_body"] = nearest.body
        found["nearest_track"] = nearest.track_id
        found["nearest_distance_m"] = float(nearest.distance)
        names = ("nearest_on_robot", "nearest_on_obstacle")
        for name, point in zip(names, nearest.points, strict=True):
            found[name] = " ".join(f"{v:.4f}" for v in point)
    return found
