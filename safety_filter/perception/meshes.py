"""Triangle soups of a robot's links, read from its URDF, or from spheres."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def read_obj(path: Path) -> F64:
    """Return the triangles (n, 3, 3), m, of a Wavefront OBJ file; polygons are fanned.

    Raises:
        ValueError: an index outside the vertex list, or no triangle at all.
    """
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        if parts[0] == "v":
            vertices.append([float(v) for v in parts[1:4]])
        elif parts[0] == "f":
            index = [int(p.split("/")[0]) for p in parts[1:]]
            index = [i - 1 if i > 0 else len(vertices) + i for i in index]
            if min(index) < 0 or max(index) >= len(vertices):
                raise ValueError(f"{path}:{number}: a face names a vertex that is not there")
            faces += [(index[0], index[i], index[i + 1]) for i in range(1, len(index) - 1)]
    if not faces:
        raise ValueError(f"{path}: expected triangles, found none")
    return np.asarray(np.asarray(vertices, float)[np.asarray(faces)])


def sphere(radius: float, centre: Sequence[float] = (0.0, 0.0, 0.0), rings: int = 8) -> F64:
    """Return the triangles (n, 3, 3) of a sphere; its flats lie at most 3 % inside."""
    theta = np.linspace(0, np.pi, rings + 1)
    phi = np.linspace(0, 2 * np.pi, 2 * rings + 1)
    st, ct = np.sin(theta)[:, None], np.cos(theta)[:, None]
    grid = np.stack([st * np.cos(phi), st * np.sin(phi), ct + 0 * phi], axis=-1)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    both = np.concatenate([np.stack([a, b, c], -2), np.stack([a, c, d], -2)])
    return np.asarray(both.reshape(-1, 3, 3) * radius + np.asarray(centre, float))


def box(half: Sequence[float] | F64) -> F64:
    """Return the 12 triangles of a box with half extents `half`, m."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return np.asarray(corners[np.asarray(faces)], float)


def cylinder(radius: float, length: float, sides: int = 16) -> F64:
    """Return the triangles of a cylinder along z, centred at the origin, m."""
    phi = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([radius * np.cos(phi), radius * np.sin(phi)], 1)
    low = np.column_stack([ring, np.full(sides + 1, -length / 2)])
    high = low + [0, 0, length]
    a, b, c, d = low[:-1], low[1:], high[1:], high[:-1]
    bottom, top = np.zeros_like(a) - [0, 0, length / 2], np.zeros_like(a) + [0, 0, length / 2]
    triangles = [np.stack(t, 1) for t in ((a, b, c), (a, c, d), (bottom, b, a), (top, d, c))]
    return np.concatenate(triangles)


def _vector(text: str | None, default: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> F64:
    return np.asarray([float(v) for v in text.split()] if text else default, float)


def _rotation(rpy: F64) -> F64:
    """Fixed-axis roll, pitch, yaw as URDF defines them."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy), np.cos(rpy)
    return np.array([
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr]])


def _geometry(element: ET.Element, find: Sequence[Path]) -> F64 | None:
    """Triangles of one <collision>, in the link frame; None for a mesh that cannot be read."""
    geometry = element.find("geometry")
    shape = geometry[0] if geometry is not None and len(geometry) else None
    if shape is None:
        return None
    if shape.tag == "mesh":
        name = shape.get("filename", "").split("://")[-1]
        tries = [root / name for root in find]
        tries += [root / name.split("/", 1)[-1] for root in find]
        path = next((p for p in tries if p.is_file() and p.suffix.lower() == ".obj"), None)
        if path is None:
            return None
        triangles = read_obj(path) * _vector(shape.get("scale"), (1.0, 1.0, 1.0))
    elif shape.tag == "box":
        triangles = box(_vector(shape.get("size")) / 2)
    elif shape.tag == "cylinder":
        triangles = cylinder(float(shape.get("radius", 0)), float(shape.get("length", 0)))
    elif shape.tag == "sphere":
        triangles = sphere(float(shape.get("radius", 0)))
    else:
        return None
    origin = element.find("origin")
    if origin is not None:
        rotation = _rotation(_vector(origin.get("rpy")))
        triangles = triangles @ rotation.T + _vector(origin.get("xyz"))
    return triangles


def link_triangles(urdf: str | Path,
                   spheres: Mapping[str, Sequence[tuple[Sequence[float], float]]] | None = None,
                   ) -> dict[str, F64]:
    """Return link name -> triangles (n, 3, 3) in the link frame, m.

    Collision meshes (OBJ), boxes, cylinders and spheres of the URDF (a path or XML text) are used;
    a link whose meshes cannot be read falls back on `spheres`: link -> [(centre, radius), ...].

    Raises:
        ValueError: a link has collision geometry that cannot be read and no spheres.
    """
    text, find = str(urdf), []
    if not text.lstrip().startswith("<"):
        find = [Path(text).parent]
        text = Path(text).read_text()
    out: dict[str, F64] = {}
    for link in ET.fromstring(text).iter("link"):
        name = link.get("name", "")
        parts = [_geometry(c, find) for c in link.findall("collision")]
        good = [p for p in parts if p is not None]
        if len(good) == len(parts) and good:
            out[name] = np.concatenate(good)
        elif spheres and name in spheres:
            out[name] = np.concatenate([sphere(r, c) for c, r in spheres[name]])
        elif parts:
            raise ValueError(f"link {name}: its collision meshes cannot be read (OBJ files beside "
                             "the URDF are) and the robot configuration has no spheres for it")
    return out
