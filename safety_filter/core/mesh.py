"""Collision geometry of a URDF as triangles: OBJ and STL files, boxes, cylinders and spheres."""

from __future__ import annotations

import os
import struct
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class MeshError(ValueError):
    """A mesh is missing or unreadable; says which link and where it was looked for."""


def read_mesh(path: Path) -> Array:
    """Return the triangles (m, 3, 3) of an OBJ or STL file, in its own units.

    Raises:
        MeshError: unknown suffix or broken file.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == '.obj':
            triangles = _read_obj(path.read_text(errors='replace'))
        elif suffix == '.stl':
            triangles = _read_stl(path.read_bytes())
        else:
            raise MeshError(f'{path}: expected .obj or .stl, got {suffix or "no suffix"}')
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise MeshError(f'{path}: {error}') from error
    if len(triangles) == 0 or not np.isfinite(triangles).all():
        raise MeshError(f'{path}: no triangles, or coordinates that are not finite')
    return triangles


def _read_obj(text: str) -> Array:
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ['v']:
            vertices.append([float(w) for w in words[1:4]])
        elif words[:1] == ['f']:
            index = [int(w.split('/')[0]) for w in words[1:]]
            index = [i - 1 if i > 0 else len(vertices) + i for i in index]
            faces += [[index[0], index[i], index[i + 1]] for i in range(1, len(index) - 1)]
    triangles: Array = np.array(vertices, float)[np.array(faces, int)]
    return triangles


def _read_stl(data: bytes) -> Array:
    if len(data) >= 84:
        count = struct.unpack_from('<I', data, 80)[0]
        if len(data) == 84 + 50 * count:
            record = np.dtype([('floats', '<f4', 12), ('attribute', '<u2')])
            floats = np.frombuffer(data, record, count, 84)['floats']
            return floats[:, 3:].reshape(-1, 3, 3).astype(float)
    words = data.decode(errors='replace').split()
    at = [i for i, word in enumerate(words) if word == 'vertex']
    return np.array([[float(w) for w in words[i + 1:i + 4]] for i in at]).reshape(-1, 3, 3)


def share_folders() -> list[Path]:
    """Return where the packages of a sourced ROS keep what package:// names."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [Path(prefix) / 'share' for prefix in prefixes if prefix]


def find_mesh(filename: str, dirs: Sequence[Path], link: str) -> Path:
    """Return the file a URDF names, looked for below `dirs`.

    `package://name/rest` is tried with and without the package's name.

    Raises:
        MeshError: not found, with every place that was tried.
    """
    name = filename
    for scheme in ('package://', 'file://', 'model://'):
        name = name.removeprefix(scheme)
    parts = Path(name.lstrip('/') if filename.startswith('package://') else name)
    tails = [parts] + ([Path(*parts.parts[1:])] if len(parts.parts) > 1 else [])
    tried = [base / tail for base in dirs for tail in tails]
    for path in tried:
        if path.is_file():
            return path
    places = ', '.join(str(path) for path in tried) or 'nowhere: no mesh directory was given'
    raise MeshError(f'link {link}: mesh {filename} not found; looked for {places}')


def link_triangles(link: ET.Element, dirs: Sequence[Path]) -> Array:
    """Return the triangles (m, 3, 3) of a link's collision geometry in the link frame, m.

    Raises:
        MeshError: a mesh that cannot be read, or a geometry that is not known.
    """
    name = link.get('name', '?')
    parts = [np.zeros((0, 3, 3))]
    for collision in link.findall('collision'):
        geometry = collision.find('geometry')
        shape = geometry[0] if geometry is not None and len(geometry) else None
        if shape is None:
            raise MeshError(f'link {name}: a collision element without geometry')
        triangles = _shape_triangles(shape, dirs, name)
        origin = collision.find('origin')
        rotation, translation = np.eye(3), np.zeros(3)
        if origin is not None:
            rotation = rotation_from_rpy(_floats(origin.get('rpy', '0 0 0'), 3, name))
            translation = _floats(origin.get('xyz', '0 0 0'), 3, name)
        parts.append(triangles @ rotation.T + translation)
    return np.concatenate(parts)


def _floats(text: str, count: int, link: str) -> Array:
    values = np.array([float(word) for word in text.split()])
    if len(values) != count:
        raise MeshError(f'link {link}: expected {count} numbers, got {text!r}')
    return values


def _shape_triangles(shape: ET.Element, dirs: Sequence[Path], link: str) -> Array:
    if shape.tag == 'mesh':
        path = find_mesh(shape.get('filename', ''), dirs, link)
        return read_mesh(path) * _floats(shape.get('scale', '1 1 1'), 3, link)
    if shape.tag == 'box':
        return _box(_floats(shape.get('size', ''), 3, link) / 2)
    if shape.tag in ('sphere', 'cylinder', 'capsule'):
        radius = _floats(shape.get('radius', ''), 1, link)[0]
        if shape.tag == 'sphere':
            return _revolution(_arc(radius, 0.0, -1) + _arc(radius, 0.0, 1))
        half = _floats(shape.get('length', ''), 1, link)[0] / 2
        if shape.tag == 'capsule':
            return _revolution(_arc(radius, -half, -1) + _arc(radius, half, 1))
        return _revolution([(0.0, -half), (radius, -half), (radius, half), (0.0, half)])
    raise MeshError(f'link {link}: unknown geometry <{shape.tag}>; '
                    'expected mesh, box, cylinder, capsule or sphere')


def _box(half: Array) -> Array:
    quads = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1.0, 1.0):
            quad = np.zeros((4, 3))
            quad[:, axis] = side
            quad[:, u] = [-1, 1, 1, -1]
            quad[:, v] = [-1, -1, 1, 1]
            quads += [quad[[0, 1, 2]], quad[[0, 2, 3]]]
    return np.array(quads) * half


_SEGMENTS = 24


def _arc(radius: float, height: float, side: int) -> list[tuple[float, float]]:
    """Return a quarter circle of (radius, height): pole to rim below, rim to pole above."""
    angles = np.linspace(0.0, np.pi / 2, 7)
    outer = radius / np.cos(np.pi / 24)
    arc = [(float(outer * np.cos(a)), float(height + side * outer * np.sin(a))) for a in angles]
    return arc[::-1] if side < 0 else arc


def _revolution(profile: Sequence[tuple[float, float]]) -> Array:
    """Return a surface about z that circumscribes the one with (radius, height) `profile`."""
    angles = 2 * np.pi * np.arange(_SEGMENTS) / _SEGMENTS
    ring = np.stack([np.cos(angles), np.sin(angles)], 1) / np.cos(np.pi / _SEGMENTS)
    points = np.array([[[r * x, r * y, z] for x, y in ring] for r, z in profile])
    triangles = []
    for i in range(len(profile) - 1):
        for j in range(_SEGMENTS):
            k = (j + 1) % _SEGMENTS
            a, b, c, d = points[i, j], points[i, k], points[i + 1, k], points[i + 1, j]
            triangles += [[a, b, c], [a, c, d]]
    return np.array(triangles)


def rotation_from_rpy(rpy: Array) -> Array:
    """Return Rz(yaw) Ry(pitch) Rx(roll), the URDF convention; angles in rad."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                     [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                     [-sp, cp * sr, cp * cr]])


def surface_samples(triangles: Array, spacing: float) -> Array:
    """Return the vertices and a grid of points on each triangle no coarser than `spacing` (m)."""
    points = [triangles.reshape(-1, 3)]
    for a, b, c in triangles:
        edge = max(np.linalg.norm(b - a), np.linalg.norm(c - a), np.linalg.norm(c - b))
        n = int(np.ceil(edge / spacing))
        if n < 2:
            continue
        i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1))
        keep = i + j <= n
        u, v = i[keep, None] / n, j[keep, None] / n
        points.append(a + u * (b - a) + v * (c - a))
    unique: Array = np.unique(np.round(np.concatenate(points), 9), axis=0)
    return unique
