"""Triangles of a robot's links, read from its URDF, or from spheres."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from safety_filter.core import mesh

F64 = NDArray[np.float64]
Spheres = Mapping[str, Sequence[tuple[Sequence[float], float]]]
"""link -> [(centre, radius), ...] in the link frame, m"""


class Links(NamedTuple):
    """The links of a robot."""

    triangles: dict[str, F64]  # (n, 3, 3) in the link frame, m
    by_spheres: dict[str, str]  # links that spheres stand in for, and why


def sphere(radius: float, centre: Sequence[float] = (0.0, 0.0, 0.0), rings: int = 8) -> F64:
    """Return the triangles (n, 3, 3) of a sphere; its flats lie at most 3 % inside."""
    theta = np.linspace(0, np.pi, rings + 1)
    phi = np.linspace(0, 2 * np.pi, 2 * rings + 1)
    st, ct = np.sin(theta)[:, None], np.cos(theta)[:, None]
    grid = np.stack([st * np.cos(phi), st * np.sin(phi), ct + 0 * phi], axis=-1)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    both = np.concatenate([np.stack([a, b, c], -2), np.stack([a, c, d], -2)])
    return np.asarray(both.reshape(-1, 3, 3) * radius + np.asarray(centre, float))


def link_triangles(urdf: str | Path, spheres: Spheres | None = None) -> Links:
    """Return the collision geometry of the links of a URDF (a path or XML text).

    Meshes are looked for beside the URDF and in the packages of a sourced ROS; a link whose
    geometry cannot be read falls back on `spheres`.

    Raises:
        ValueError: a link has collision geometry that cannot be read and no spheres.
    """
    text, folders = str(urdf), mesh.share_folders()
    if not text.lstrip().startswith("<"):
        folders = [Path(text).parent, *folders]
        text = Path(text).read_text()
    out = Links({}, {})
    for link in ET.fromstring(text).iter("link"):
        name, why = link.get("name", ""), ""
        try:
            triangles = mesh.link_triangles(link, folders)
        except mesh.MeshError as error:
            triangles, why = np.zeros((0, 3, 3)), str(error)
        if len(triangles):
            out.triangles[name] = triangles
        elif spheres and name in spheres:
            out.triangles[name] = np.concatenate([sphere(r, c) for c, r in spheres[name]])
            out.by_spheres[name] = why or f"link {name}: no collision geometry"
        elif why:
            raise ValueError(f"{why}; and the robot configuration has no spheres for it")
    return out
