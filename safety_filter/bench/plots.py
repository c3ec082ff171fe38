"""Drawings of the report as SVG text."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = {  # by method; the others are in the table only
    "none": "#b3261e", "naive": "#c77700", "init-oracle": "#9a7d0a", "aegis": "#7b3fa0",
    "knows": "#1f5fbf", "ours": "#1b6e3c", "ours-live-oracle": "#59a67a"}


def bars(results: Sequence[Mapping[str, Any]], key: str, title: str) -> str:
    """The rate `key` of each method on each suite, in %, with its 95 % interval."""
    suites = list(dict.fromkeys(r["suite"] for r in results))
    methods = [m for m in COLOURS if any(r["method"] == m for r in results)]
    step, left, base, height = 15, 44, 190, 160
    group = step * len(methods) + 26
    width = left + group * len(suites)
    out = [f'<svg viewBox="0 0 {width} 222" width="{width}" role="img">'
           f'<text x="{left}" y="14" font-size="13">{html.escape(title)}</text>']
    for tick in (0, 25, 50, 75, 100):
        y = base - height * tick / 100
        out.append(f'<line x1="{left}" x2="{width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{y + 4}" font-size="11" text-anchor="end">'
                   f'{tick} %</text>')
    for i, suite in enumerate(suites):
        x0 = left + i * group + 10
        out.append(f'<text x="{x0}" y="{base + 18}" font-size="12">{html.escape(suite)}</text>')
        for j, method in enumerate(methods):
            row = next((r for r in results
                        if r["suite"] == suite and r["method"] == method), None)
            if row is None:
                continue
            rate, x = row[key], x0 + step * j
            value, low, high = (height * (rate[k] or 0.0) for k in ("value", "low", "high"))
            out.append(
                f'<rect x="{x}" y="{base - value}" width="{step - 3}" height="{value}" '
                f'fill="{COLOURS[method]}"><title>{method}: {row["n"]} episodes</title></rect>'
                f'<line x1="{x + 6}" x2="{x + 6}" y1="{base - low}" y2="{base - high}" '
                'stroke="#000"/>')
    return "".join(out) + "</svg>"


def legend(results: Sequence[Mapping[str, Any]]) -> str:
    """Which colour is which method."""
    return "".join(f'<span style="color:{c}">&#9632; {m}</span> &nbsp; ' for m, c in
                   COLOURS.items() if any(r["method"] == m for r in results))


def courses(episodes: Sequence[Mapping[str, Any]], title: str) -> str:
    """Nearest true distance over time of each episode: safe ones green, collided ones red."""
    width, height, left, top = 460, 170, 44, 22
    longest = max((len(e["distance_mm"]) for e in episodes), default=1) or 1
    out = [f'<svg viewBox="0 0 {width} {height + 40}" width="{width}" role="img">'
           f'<text x="{left}" y="14" font-size="13">{html.escape(title)}</text>']
    for mm in (0, 50, 100, 150, 200):
        y = top + height * (1 - mm / 200)
        out.append(f'<line x1="{left}" x2="{width}" y1="{y}" y2="{y}" '
                   f'stroke="{"#000" if mm == 0 else "#ddd"}"/>'
                   f'<text x="{left - 6}" y="{y + 4}" font-size="11" text-anchor="end">'
                   f'{mm} mm</text>')
    for e in sorted(episodes, key=lambda e: bool(e["collided"])):
        points = " ".join(
            f"{left + (width - left) * i / longest:.0f},"
            f"{top + height * (1 - min(max(d, -10), 200) / 200):.0f}"
            for i, d in enumerate(e["distance_mm"]))
        colour, opacity = ("#b3261e", 0.8) if e["collided"] else ("#1b6e3c", 0.25)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" '
                   f'opacity="{opacity}"/>')
    out.append(f'<text x="{width}" y="{top + height + 15}" font-size="11" text-anchor="end">'
               f'{longest * 0.2:.0f} s</text>')
    return "".join(out) + "</svg>"
