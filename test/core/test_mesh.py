"""Collision geometry: files and primitive shapes."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from safety_filter.core.mesh import (
    MeshError,
    find_mesh,
    link_triangles,
    read_mesh,
    rotation_from_rpy,
    surface_samples,
)

TRIANGLE = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], float)


def test_obj_with_quads_and_negative_indices(tmp_path: Path) -> None:
    path = tmp_path / 'a.obj'
    path.write_text('v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/1 2/2 3/3 4/4\nf -4 -3 -2\n')
    assert read_mesh(path).shape == (3, 3, 3)


def test_binary_and_ascii_stl_agree(tmp_path: Path) -> None:
    binary = tmp_path / 'b.stl'
    record = struct.pack('<12fH', 0, 0, 1, *TRIANGLE.ravel(), 0)
    binary.write_bytes(b' ' * 80 + struct.pack('<I', 1) + record)
    ascii_file = tmp_path / 'a.STL'
    ascii_file.write_text('solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\n'
                          'vertex 0 1 0\nendloop\nendfacet\nendsolid\n')
    assert np.allclose(read_mesh(binary), TRIANGLE)
    assert np.allclose(read_mesh(ascii_file), TRIANGLE)


@pytest.mark.parametrize('name, text', [
    ('a.dae', ''), ('a.obj', ''), ('a.obj', 'v 0 0 0\nf 1 2 3\n'), ('a.stl', 'solid'),
    ('a.obj', 'v 0 0 nan\nv 0 0 0\nv 1 1 1\nf 1 2 3\n')])
def test_unreadable_mesh_names_the_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(MeshError, match=name):
        read_mesh(path)


def test_package_paths_are_searched_with_and_without_the_package(tmp_path: Path) -> None:
    (tmp_path / 'meshes').mkdir()
    (tmp_path / 'meshes' / 'a.obj').write_text('')
    for name in ('package://meshes/a.obj', 'package://robot/meshes/a.obj', 'meshes/a.obj'):
        assert find_mesh(name, [tmp_path], 'link').name == 'a.obj'
    with pytest.raises(MeshError, match=r'link hand: mesh .*/b\.obj not found; looked'):
        find_mesh('package://x/b.obj', [tmp_path], 'hand')


def link(geometry: str, origin: str = '') -> ET.Element:
    return ET.fromstring(f'<link name="a"><collision>{origin}<geometry>{geometry}</geometry>'
                         '</collision></link>')


@pytest.mark.parametrize('geometry, half', [
    ('<box size="0.2 0.4 0.6"/>', (0.1, 0.2, 0.3)),
    ('<cylinder radius="0.1" length="0.4"/>', (0.1, 0.1, 0.2)),
    ('<capsule radius="0.1" length="0.4"/>', (0.1, 0.1, 0.3)),
    ('<sphere radius="0.1"/>', (0.1, 0.1, 0.1))])
def test_primitives_hold_the_shape(geometry: str, half: tuple[float, ...]) -> None:
    triangles = link_triangles(link(geometry), [])
    extent = np.abs(triangles.reshape(-1, 3)).max(0)
    assert np.all(extent >= np.array(half) - 1e-9)
    assert np.all(extent <= 1.03 * np.array(half))


def test_origin_is_applied() -> None:
    triangles = link_triangles(link('<box size="2 0.2 0.2"/>',
                                    '<origin xyz="0 0 1" rpy="0 0 1.5707963"/>'), [])
    points = triangles.reshape(-1, 3)
    assert np.allclose(points.max(0), [0.1, 1.0, 1.1], atol=1e-6)


@pytest.mark.parametrize('geometry, words', [
    ('<cone radius="1"/>', 'link a: unknown geometry <cone>'),
    ('<box size="1 2"/>', 'link a: expected 3 numbers'), ('', 'link a: .*without geometry')])
def test_wrong_geometry_names_the_link(geometry: str, words: str) -> None:
    with pytest.raises(MeshError, match=words):
        link_triangles(link(geometry), [])


def test_rpy_is_fixed_axes() -> None:
    r = rotation_from_rpy(np.array([0.1, 0.2, 0.3]))
    assert np.allclose(r @ r.T, np.eye(3))
    assert np.allclose(r[:, 0], [np.cos(.3) * np.cos(.2), np.sin(.3) * np.cos(.2), -np.sin(.2)])


def test_samples_are_no_coarser_than_asked() -> None:
    points = surface_samples(TRIANGLE, 0.1)
    probe = np.random.default_rng(0).dirichlet((1, 1, 1), 200) @ TRIANGLE[0]
    nearest = np.min(np.linalg.norm(probe[:, None] - points[None], axis=2), axis=1)
    assert nearest.max() <= 0.1
