"""The report page: one HTML file drawn from suites.json, with the films beside it."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_filter.bench.jobs import Config
from safety_filter.bench.methods import METHODS
from safety_filter.bench.plots import bars, courses, legend
from safety_filter.bench.store import mismatch
from safety_filter.bench.summary import make_header

COURSES = ("none", "knows", "ours")
SUITES_WITH_FILMS = 3
MOST_COURSES = 60  # episodes in one drawing
MOST_CAUSES = 6  # of one kind in a method's rows
_COLUMNS = (
    "n: episodes. CAR: episodes in which no obstacle was displaced by more than 1 mm (L1) from "
    "where it came to rest, or pushed off its path by more in all. ETS: "
    "policy steps of 0.05 s until success, of the longest episode without. Nearest: least true "
    "distance of arm or held object to an obstacle, below zero inside it. Change: of the velocity "
    "commanded of the tool's point, turning not counted: mean over the time in which it was "
    "changed, and of each episode's median over all of its time the median. Changed, wrong and no "
    "target: means of the episodes' shares of the time, and of the looks before the grasp.")
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
body{color:#222}table{border-collapse:collapse;margin:1rem 0;font-size:14px}
td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right}
td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}tr.first td{border-top:2px solid #888}
td:nth-child(-n+2){white-space:nowrap}
.bad{color:#b3261e}video{width:100%;background:#111}code{background:#f3f3f3;padding:0 .2rem}
svg{max-width:100%}.small{font-size:13px;color:#555}.wide{overflow-x:auto}
"""


def write(content: Mapping[str, Any], out: Path, no_films: str = "") -> Path:
    """Write report.html, without films where `no_films` says why; returns its path.

    Raises:
        OSError: no space or no permission.
    """
    made = [] if no_films else _films(content, out)
    path = out / "report.html"
    path.write_text(page(content, made, no_films), encoding="utf-8")
    return path


def other_code(content: Mapping[str, Any]) -> str:
    """Why episodes run now may differ from those of `content`, or ""."""
    config = Config(content["config"]["policy"], content["config"]["perception"])
    now = make_header(config.as_dict(), content["suites"], content["methods"], [0])
    fault = mismatch(content, json.loads(json.dumps(now)))
    return f"run now they may not show these results: {fault}" if fault else ""


def page(content: Mapping[str, Any], films: Sequence[tuple[str, Path]] = (),
         no_films: str = "") -> str:
    """The page as text; films are (caption, file beside the page), `no_films` why there are none.
    """
    results, config = content["results"], content["config"]
    unfinished = "" if content["complete"] else (
        '<p class="bad">The run did not finish: these are the episodes until now, n of them in '
        "each row. The same command continues.</p>")
    left_out = f"{len(content['excluded'])} scenes that the informed expert could not complete " \
        "without contact are left out." if content["excluded"] else ""
    errors = "".join(f"<li>{html.escape(e['suite'])} {e['seed']} {html.escape(e['method'])}: "
                     f"{html.escape(e['error'][:200])}</li>" for e in content["errors"])
    errors = f'<h2 class="bad">Not run</h2><ul>{errors}</ul>' if errors else ""
    machine = content["machine"]
    about = "".join(f"<tr><td>{m}</td><td>{html.escape(METHODS[m].about)}</td></tr>"
                    for m in content["methods"])
    videos = "".join(f"<h3>{html.escape(caption)}</h3>"
                     f'<video controls loop src="{html.escape(file.name)}"></video>'
                     for caption, file in films)
    none = f"<p>None made{html.escape(': ' * bool(no_films) + no_films)}.</p>"
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<title>safety_filter benchmark</title><style>{_STYLE}</style>
<h1>Benchmark of the safety filter</h1>{unfinished}
<p>Policy <code>{config["policy"]}</code>, perception <code>{config["perception"]}</code>,
{_seeds(content)}, the same for all methods. A collision is any touch of arm, hand or held
object that the task does not need, judged at every physics step. Intervals: Wilson, 95 %.
{left_out}</p>
{_table(results)}<p class="small">{_COLUMNS}</p>{legend(results)}
{bars(results, "collisions_rate", "episodes with a collision")}
{bars(results, "safe_successes_rate", "task done without any collision")}
<h2>Ours against each method, on the same scenes</h2>{_pairs(content["pairs"])}
<p class="small">Points: ours less the other, in % of the n scenes that both have run. Only ours,
only it: scenes in which one of the two did and the other did not. p: exact McNemar test.</p>
<h2>Nearest distance over time</h2>{_courses(content)}
<h2>Causes</h2>{_causes(results)}
<h2>Stops</h2>{_stops(results)}
<p class="small">What took less than 0.05 % of the time is left out.</p>
<h2>Films</h2>{videos or none}{errors}
<h2>Methods</h2><table>{about}</table>
<p>revision <code>{html.escape(content["git_revision"])}</code>, {machine["cores"]} cores of
{html.escape(machine["processor"])}.</p></html>
"""


def _seeds(content: Mapping[str, Any]) -> str:
    """Which seeds were run; results written before tasks were kept say nothing of them."""
    ran, among = content["episodes_per_suite"], content.get("seeds_per_suite")
    if among in (None, ran):
        return f"{ran} seeds of each suite from {content['seed0']} on"
    return (f"{ran} of the {among} seeds of each suite from {content['seed0']} on, those of the "
            f"tasks {html.escape(', '.join(content['tasks']))}")


def _rows(head: Sequence[str], rows: Sequence[tuple[bool, Sequence[str]]]) -> str:
    cells = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    body = "".join(f'<tr{" class=first" if first else ""}>'
                   + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for first, row in rows)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def _rate(rate: Mapping[str, Any]) -> str:
    if rate["value"] is None:
        return "-"
    return f"{100 * rate['value']:.1f} ({100 * rate['low']:.0f}-{100 * rate['high']:.0f})"


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    rows, last = [], None
    for r in results:
        rows.append((r["suite"] != last, [
            html.escape(r["suite"]), html.escape(r["method"]), str(r["n"]),
            *(_rate(r[f"{k}_rate"]) for k in ("collisions", "successes", "safe_successes")),
            f"{100 * r['car']:.1f}", f"{r['ets']:.0f}", f"{1e3 * r['min_distance_m']:.0f}",
            f"{1e3 * r['penetration_m']:.0f}", f"{1e3 * r['intervention_mean']:.0f}",
            f"{1e3 * r['intervention_median']:.0f}", f"{100 * r['intervention_share']:.0f}",
            _percent(r["wrong_target_share"]), _percent(r["lost_target_share"]),
            f"{r['jerk_rms']:.0f}"]))
        last = r["suite"]
    return _rows(["suite", "method", "n", "collision %", "success %", "safe success %", "CAR %",
                  "ETS", "nearest mm", "penetration mm", "change mm/s", "median mm/s",
                  "changed %", "wrong target %", "no target %", "jerk rad/s^3"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows, last = [], None
    for p in pairs:
        cells = [html.escape(p["suite"]), html.escape(p["second"]), str(p["n"])]
        for key in ("collisions", "safe_successes"):
            d = p[key]
            cells += [f"{100 * (d['difference'] or 0.0):+.1f}",
                      f"{d['only_first']} / {d['only_second']}", f"{d['p']:.2g}"]
        rows.append((p["suite"] != last, cells))
        last = p["suite"]
    return _rows(["suite", "against", "n", "collisions, points", "only ours / only it", "p",
                  "safe success, points", "only ours / only it", "p"], rows)


def _courses(content: Mapping[str, Any]) -> str:
    excluded = {tuple(x) for x in content["excluded"]}
    out = []
    for suite in content["suites"]:
        for method in COURSES:
            chosen = [e for e in content["episodes"] if e["suite"] == suite
                      and e["method"] == method and (suite, e["seed"]) not in excluded]
            if chosen:
                part = f": first {MOST_COURSES} of {len(chosen)} episodes"
                out.append(courses(chosen[:MOST_COURSES], f"{suite}, {method}"
                                   + part * (len(chosen) > MOST_COURSES)))
    return "".join(out)


def _causes(results: Sequence[Mapping[str, Any]]) -> str:
    rows, last = [], None
    for r in results:
        for kind in ("collision_causes", "failure_causes"):
            label = "collision" if kind == "collision_causes" else "not done"
            for cause, count in _most(r[kind]):
                rows.append((r["suite"] != last, [html.escape(r["suite"]),
                             html.escape(r["method"]), label, html.escape(cause), str(count)]))
                last = r["suite"]
    return _rows(["suite", "method", "", "cause", "episodes"], rows)


def _most(causes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The commonest causes, and the others as one."""
    items = list(causes.items())
    rest = items[MOST_CAUSES:]
    if rest:
        items[MOST_CAUSES:] = [(f"{len(rest)} other causes, see suites.json",
                                sum(count for _, count in rest))]
    return items


def _stops(results: Sequence[Mapping[str, Any]]) -> str:
    """Shares of time at a standstill by reason; what is below 0.05 % is left out."""
    rows, last = [], None
    for r in results:
        for state, share in sorted(r["states"].items(), key=lambda x: -x[1]):
            if state not in ("PASS", "FILTERED") and share >= 5e-4:
                reason = state.removeprefix("STOPPED ").replace("_", " ")
                rows.append((r["suite"] != last, [html.escape(r["suite"]),
                             html.escape(r["method"]), html.escape(reason), _percent(share)]))
                last = r["suite"]
    return _rows(["suite", "method", "stopped for", "% of the time"], rows)


def chosen_films(content: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(caption, episodes side by side): of ours the worst and a typical one of each suite.

    Worst is what collided, then what was not placed, then what came nearest.
    """
    suites = [s for s in ("dynamic-4", "dynamic-3", "static-2", "clutter-5", "static-1")
              if s in content["suites"]][:SUITES_WITH_FILMS]
    excluded = {tuple(x) for x in content["excluded"]}
    out = []
    for suite in suites:
        there = {(e["method"], e["seed"]): e for e in content["episodes"]
                 if e["suite"] == suite and (suite, e["seed"]) not in excluded}
        ours = [e for (method, _), e in there.items() if method == "ours"]
        if not ours:
            continue
        ours.sort(key=lambda e: (not e["collided"], e["success"], e["min_distance_m"]))
        picked = {"worst": ours[0], "typical": ours[len(ours) // 2]}
        for word, e in list(picked.items())[:1 if len(ours) == 1 else 2]:
            text = e["cause"] or f"safe, nearest {1e3 * e['min_distance_m']:.0f} mm"
            out.append((f"{suite}, {word} of ours: {e['instruction']} (seed {e['seed']}): {text}",
                        [there[m, e["seed"]] for m in ("none", "ours")
                         if (m, e["seed"]) in there]))
    return out


def _films(content: Mapping[str, Any], out: Path) -> list[tuple[str, Path]]:
    from safety_filter.bench.films import film

    config = Config(content["config"]["policy"], content["config"]["perception"])
    made = []
    for i, (caption, episodes) in enumerate(chosen_films(content)):
        print(f"film: {caption}", flush=True)
        path = out / f"film_{i}.webm"
        otherwise = film(config, episodes, path)
        if otherwise:
            caption += f" - NOT what was recorded, run again it differs in {'; '.join(otherwise)}"
            print(f"film: {caption}", file=sys.stderr)
        made.append((caption, path))
    return made
