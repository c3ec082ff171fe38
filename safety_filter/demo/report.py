"""The report page: one HTML file drawn from the summary, with the film inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;
text-align:right}th:first-child,td:first-child{text-align:left}video{width:100%;background:#111}
.bad{color:#b3261e}.good{color:#1b6e3c}code{background:#f3f3f3;padding:0 .2rem}
"""
_MEASURES = (("collisions", "collided"), ("successes", "success"), ("safe_successes", "safe"))
_COLOURS = {"none": "#b3261e", "filter": "#1b6e3c"}


def _bars(methods: Mapping[str, Any]) -> str:
    """SVG of the three rates for each method with their 95 % intervals."""
    width, height, left = 640, 220, 40
    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">']
    for tick in (0, 25, 50, 75, 100):
        y = 180 - 1.6 * tick
        parts.append(
            f'<line x1="{left}" x2="{width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y + 4}" font-size="11" text-anchor="end">{tick} %</text>'
        )
    group = (width - left) / len(_MEASURES)
    for i, (key, label) in enumerate(_MEASURES):
        x0 = left + i * group + 30
        parts.append(f'<text x="{x0 + 40}" y="198" font-size="12">{label}</text>')
        for j, (name, m) in enumerate(methods.items()):
            rate = m[f"{key}_rate"]
            x, value = x0 + 60 * j, 100 * (rate["value"] or 0.0)
            low, high = (180 - 160 * rate[k] for k in ("low", "high"))
            colour = _COLOURS.get(name, "#555")
            parts.append(
                f'<rect x="{x}" y="{180 - 1.6 * value}" width="44" height="{1.6 * value}"'
                f' fill="{colour}" opacity=".8"/>'
                f'<line x1="{x + 22}" x2="{x + 22}" y1="{low}" y2="{high}" stroke="#000"/>'
                f'<text x="{x}" y="214" font-size="11">{html.escape(name)}</text>'
            )
    return "".join(parts) + "</svg>"


def _rows(rows: list[list[str]], head: list[str]) -> str:
    cells = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _methods(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, m in summary["methods"].items():
        row = [html.escape(name), str(m["n"])]
        for key, _ in _MEASURES:
            rate = m[f"{key}_rate"]
            row.append(f"{m[key]} ({100 * rate['low']:.0f}-{100 * rate['high']:.0f} %)")
        nearest = m["min_distance_m"]
        rows.append([*row, "-" if nearest is None else f"{1e3 * nearest:.0f} mm"])
    return _rows(rows, ["method", "n", "collided", "success", "safe success", "nearest distance"])


def _episodes(summary: Mapping[str, Any]) -> str:
    rows = []
    for e in summary["episodes"]:
        touched = sorted({f"{c['body']} - {c['other']}" for c in e["collisions"]})
        outcome = "success" if e["success"] else (e["error"] or "no success")
        css = "bad" if touched else "good"
        states = ", ".join(
            f"{name} {100 * share:.0f} %"
            for name, share in sorted(e["filter_states"].items(), key=lambda x: -x[1])[:3]
        )
        rows.append(
            [
                html.escape(e["method"]),
                str(e["seed"]),
                html.escape(e["instruction"]),
                html.escape(outcome),
                f'<span class="{css}">{html.escape("; ".join(touched) or "nothing")}</span>',
                f"{1e3 * e['min_distance']:.0f} mm",
                html.escape(states),
            ]
        )
    head = ["method", "seed", "instruction", "outcome", "touched", "nearest", "filter states"]
    return _rows(rows, head)


def render(summary: Mapping[str, Any], film: Path | None) -> str:
    """The page as text; `film` is a WebM file that goes inside."""
    video = "<p>No film was made.</p>"
    if film is not None and film.exists():
        data = base64.b64encode(film.read_bytes()).decode()
        video = f'<video controls loop src="data:video/webm;base64,{data}"></video>'
    figures = "".join(
        f"<h2>{title}</h2>"
        + _rows([[html.escape(k), f"{v:.2f}"] for k, v in summary[key].items()], ["", unit])
        for key, title, unit in (
            ("rates_hz", "Measured rates", "Hz"),
            ("latency_ms", "Measured latencies", "ms"),
        )
    )
    machine = summary["machine"]
    unfinished = "" if summary["complete"] else '<p class="bad">The run did not finish.</p>'
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>safety_filter demo</title><style>{_STYLE}</style>
<h1>A VLA-driven arm without and with the safety filter</h1>{unfinished}
<p>{len(summary["seeds"])} scenes of the suite <code>{html.escape(summary["suite"])}</code> with
moving obstacles; same seeds for both methods. A collision is any touch of the arm or the held
object that the task does not need. Intervals: Wilson, 95 %.</p>
{_methods(summary)}{_bars(summary["methods"])}
<h2>Film</h2><p>Left without, right with the filter. Colours of masks: roles; dots: attention;
arrows: velocities of tracks; yellow: the nearest pair; red frame: something was touched.</p>
{video}<h2>Scenes</h2>{_episodes(summary)}{figures}
<p>revision <code>{html.escape(summary["git_revision"])}</code>, {machine["cores"]} cores of
{html.escape(machine["processor"])}, {machine["memory_gib"]} GiB,
{summary["wall_s"]:.0f} s in all.</p></html>
"""
