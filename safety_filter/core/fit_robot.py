"""`safety-filter fit-robot`: write the robot file of a URDF, or refit the bodies of one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pinocchio as pin
import yaml

from safety_filter.core.fit import LinkCover, fit_links
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotError, RobotModel, read_urdf

GUESSED_ACCELERATION = 5.0
"""rad/s^2; a URDF has no acceleration limits, so the written file says that this is a guess."""
PAIR_SAMPLES = 3000
PAIR_CLEARANCE = 0.03
"""Link pairs that never come closer than this (m) in the samples are left out."""
PAIR_OVERLAP = 0.1
"""Link pairs whose covers overlap in more than this share of samples are left out: neighbours.

On the shipped arms these measure 0.13 and more, pairs that collide in earnest 0.07 and less."""


def fit_robot(urdf: str | Path, spheres: int = 40, mesh_dirs: Sequence[Path] = (),
              known: Mapping[str, Any] | None = None,
              counts: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return a robot file for `urdf`; what `known` says (joints, links, kinds) is kept.

    `counts` fixes the number of spheres of chosen links.

    Raises:
        RobotError, MeshError, ValueError: see `RobotModel.load` and `fit_links`.
    """
    text = read_urdf(urdf)
    dirs = list(mesh_dirs)
    if isinstance(urdf, Path) or '<' not in urdf:
        dirs.insert(0, Path(urdf).parent)
    known = dict(known or {})
    covers = fit_links(text, dirs, spheres, counts)
    spec = {**skeleton(text), **known}
    if 'joints' in known and 'acceleration_source' not in known:
        del spec['acceleration_source']
    kinds = {link: body.get('kind', 'arm') for link, body in known.get('bodies', {}).items()}
    spec['bodies'] = {c.link: {'kind': kinds.get(c.link, 'arm'),
                               'spheres': np.round(c.spheres, 5).tolist()} for c in covers}
    spec['fit'] = report(covers)
    spec['self_pairs'] = []
    spec['self_pairs'] = self_pairs(RobotModel.load(text, spec))
    return spec


def skeleton(urdf: str) -> dict[str, Any]:
    """Return a robot file without bodies: base link, last link as tool, all moving joints."""
    root = ET.fromstring(urdf)
    model = pin.buildModelFromXML(urdf)
    children = {str(c.get('link')) for c in root.iterfind('joint/child')}
    base = [str(link.get('name')) for link in root.findall('link')
            if link.get('name') not in children]
    tool = [f.name for f in model.frames if f.type == pin.FrameType.BODY][-1]
    return {'name': root.get('name', 'robot'), 'base_link': base[0], 'tool_link': tool,
            'acceleration_source': 'guess: a URDF has none; put the data sheet\'s values here',
            'joints': {name: {'acceleration': GUESSED_ACCELERATION}
                       for name in list(model.names)[1:]}}


def report(covers: Sequence[LinkCover]) -> dict[str, Any]:
    """Return how far the covers stand out of the meshes, in mm."""
    over = np.concatenate([c.over for c in covers]) * 1e3
    return {'spheres': sum(len(c.spheres) for c in covers),
            'over_approximation_median_mm': round(float(np.median(over)), 1),
            'over_approximation_p90_mm': round(float(np.percentile(over, 90)), 1),
            'over_approximation_max_mm': round(float(over.max()), 1)}


def self_pairs(robot: RobotModel, seed: int = 0) -> list[list[str]]:
    """Return the link pairs that can collide, found by sampling the joint ranges.

    Left out: links with no or one joint between them, links that never come close, and those
    whose covers overlap as a matter of course.
    """
    rng = np.random.default_rng(seed)
    kinematics, limits = Kinematics(robot), robot.limits
    group, radius = robot.spheres['group'], robot.spheres['radius']
    count = len(robot.bodies)
    nearest = np.full((PAIR_SAMPLES, count, count), np.inf)
    columns = [int(robot.spheres['columns'][group == g][0]) for g in range(count)]
    for k in range(PAIR_SAMPLES):
        points = kinematics.spheres(rng.uniform(limits.lower, limits.upper))
        gap = np.linalg.norm(points[:, None] - points[None], axis=2) - radius[:, None] - radius
        for a in range(count):
            for b in range(a + 1, count):
                nearest[k, a, b] = gap[np.ix_(group == a, group == b)].min()
    pairs = []
    for a in range(count):
        for b in range(a + 1, count):
            between = abs(columns[a] - columns[b])
            overlap = float(np.mean(nearest[:, a, b] < 0.0))
            close = nearest[:, a, b].min() < PAIR_CLEARANCE
            if close and between > 1 and overlap <= PAIR_OVERLAP:
                pairs.append([robot.bodies[a], robot.bodies[b]])
    return pairs


def write_robot(spec: Mapping[str, Any], path: Path) -> None:
    """Write a robot file, one sphere a line."""
    order = ['name', 'urdf', 'base_link', 'tool_link', 'limits_source', 'acceleration_source',
             'joints', 'gripper', 'fit', 'bodies', 'self_pairs']
    rest = [key for key in spec if key not in order]
    ordered = {key: spec[key] for key in [*order, *rest] if key in spec}
    if 'bodies' not in ordered:
        raise RobotError('robot file: no bodies')
    text = yaml.safe_dump(ordered, sort_keys=False, width=95, default_flow_style=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
