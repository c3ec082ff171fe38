"""Films of single episodes, made by running them again: equal seeds give equal episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from safety_filter.bench.episode import Film
from safety_filter.bench.jobs import Config, Job, run_job
from safety_filter.bench.methods.base import Step
from safety_filter.core.wire import Role, Tracks
from safety_filter.demo.film import Shot, draw_pair, encode, write
from safety_filter.nodes.overlay import COLOURS, pixel, project
from safety_filter.sim.world import World


class Camera(Film):
    """Keeps every picture with the tracks drawn in: a ring in the colour of its role."""

    def __init__(self) -> None:
        self.shots: list[Shot] = []

    def shoot(self, world: World, tracks: Tracks | None, step: Step | None) -> None:
        """See `Film`."""
        frame = world.render("scene")
        picture = draw_pair(frame.rgb, frame.K, frame.T_base_cam, None)
        scale = picture.shape[0] / frame.rgb.shape[0]
        for track in tracks if tracks is not None else ():
            points = _outline(track)
            uv = [pixel(scale * p) for p in project(points, frame.K, frame.T_base_cam)]
            if all(p is not None for p in uv):
                hull = cv2.convexHull(np.array(uv, np.int32))
                colour = COLOURS[Role(int(track["role"]))][::-1]
                cv2.polylines(picture, [hull], True, colour, 1, cv2.LINE_AA)
        touched = world.judge.collisions
        lines = (step.state if step else "", "touched " + ", ".join(sorted(
            {f"{c.body}-{c.other}" for c in touched})) if touched else "touched nothing")
        self.shots.append(Shot(encode(picture), world.time, bool(touched), lines))


def _outline(track: Any) -> Any:
    """Points (n, 3) on the surface of a track's ellipsoid."""
    from scipy.spatial.transform import Rotation

    u = np.linspace(0.0, 2 * np.pi, 14)
    v = np.linspace(-np.pi / 2, np.pi / 2, 7)
    uu, vv = np.meshgrid(u, v)
    unit = np.stack([np.cos(uu) * np.cos(vv), np.sin(uu) * np.cos(vv), np.sin(vv)], -1)
    axes = np.array([track["sx"], track["sy"], track["sz"]], float)
    turn = Rotation.from_quat([float(track[k]) for k in ("qx", "qy", "qz", "qw")])
    return turn.apply(unit.reshape(-1, 3) * axes) + [float(track[k]) for k in "xyz"]


def film(config: Config, recorded: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    """Write one film with episodes side by side, each run again from its line of the results.

    Returns what came out otherwise than recorded, "method: figures" each; empty with equal
    machines, for the code must be that of the lines.

    Raises:
        OSError: the file could not be written.
    """
    shown, otherwise = [], []
    for line in recorded:
        job = Job(line["seed"], line["suite"], line["method"])
        camera = Camera()
        again = json.loads(json.dumps(run_job(config, job, camera)))
        differing = [name for name in again if again[name] != line.get(name)]
        if differing:
            otherwise.append(f"{job.method}: {', '.join(differing)}")
        shown.append((f"{job.method}  {job.suite} {job.seed}", camera.shots))
    write(path, shown)
    return otherwise
