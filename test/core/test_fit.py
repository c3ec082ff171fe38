"""Sphere covers: nothing sticks out, and little is added."""

from __future__ import annotations

import argparse
import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from core.rig import URDF

from safety_filter.core.commands import register
from safety_filter.core.fit import (
    cover_link,
    enclosing_ball,
    fit_links,
    over_approximation,
    point_triangle_distance,
    sphere_directions,
)
from safety_filter.core.fit_robot import fit_robot, write_robot
from safety_filter.core.mesh import link_triangles, surface_samples
from safety_filter.core.robot import RobotModel, read_config, urdf_path


def box(half: tuple[float, float, float]) -> np.ndarray:
    from safety_filter.core.mesh import _box
    return _box(np.array(half))


def test_enclosing_ball_holds_all_and_is_nearly_least() -> None:
    points = np.random.default_rng(0).normal(size=(300, 3))
    points /= np.linalg.norm(points, axis=1)[:, None]
    ball = enclosing_ball(points)
    assert np.linalg.norm(points - ball[:3], axis=1).max() <= ball[3] + 1e-12
    assert ball[3] <= 1.02


@pytest.mark.parametrize('seed', range(5))
def test_point_triangle_distance_is_the_least_over_the_triangle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, c, p = rng.normal(size=(4, 3))
    dense = rng.dirichlet((0.5, 0.5, 0.5), 20000) @ np.stack([a, b, c])
    brute = np.linalg.norm(dense - p, axis=1).min()
    exact = point_triangle_distance(p, a, b, c)
    assert exact <= brute + 1e-12 and brute - exact < 0.02


@pytest.mark.parametrize('count', [1, 3, 8])
def test_cover_holds_the_whole_surface(count: int) -> None:
    triangles = box((0.03, 0.1, 0.05))
    cover = cover_link('a', triangles, count)
    assert len(cover.spheres) <= count
    points = surface_samples(triangles, 0.006)
    gap = np.linalg.norm(points[:, None] - cover.spheres[None, :, :3], axis=2)
    assert (gap - cover.spheres[:, 3]).min(axis=1).max() <= 1e-9


def test_more_spheres_stand_out_less() -> None:
    triangles = box((0.03, 0.1, 0.03))
    assert cover_link('a', triangles, 6).excess < 0.5 * cover_link('a', triangles, 1).excess


def test_over_approximation_of_a_ball_about_a_box_is_known() -> None:
    ball = np.array([[0.0, 0.0, 0.0, 0.2]])
    over = over_approximation(ball, box((0.1, 0.1, 0.1)), sphere_directions(200))
    assert over.max() <= 0.1 + 1e-9 and over.min() >= 0.2 - 0.1 * 3 ** 0.5 - 1e-9


def test_every_link_gets_spheres_and_fixed_counts_are_kept() -> None:
    covers = fit_links(URDF, [], 8, {'base': 2})
    counts = {c.link: len(c.spheres) for c in covers}
    assert set(counts) == {'base', 'upper', 'tip'}
    assert sum(counts.values()) <= 8 and counts['base'] <= 2 and counts['upper'] >= 2


def test_too_few_spheres_or_an_unknown_link_is_an_error() -> None:
    with pytest.raises(ValueError, match=r'3 links .* need at least 3 spheres, got 2'):
        fit_links(URDF, [], 2)
    with pytest.raises(ValueError, match='no collision geometry on link hook'):
        fit_links(URDF, [], 9, {'hook': 2})


def test_fitted_robot_loads_and_refitting_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / 'two.yaml'
    spec = fit_robot(URDF, 8, known={'joints': {'turn': {'acceleration': 3.0},
                                               'slide': {'acceleration': 1.0}},
                                     'bodies': {'tip': {'kind': 'hand'}}})
    write_robot(spec, path)
    robot = RobotModel.load(URDF, path)
    assert robot.limits.acceleration[0] == 3.0
    assert read_config(path)['bodies']['tip']['kind'] == 'hand'
    assert spec['fit']['spheres'] == len(robot.spheres)


MESH_URDF = """<robot name="one"><link name="base"/>
<link name="tip"><collision><geometry><mesh filename="package://my_arm/meshes/tip.stl"/>
</geometry></collision></link>
<joint name="turn" type="revolute"><parent link="base"/><child link="tip"/><axis xyz="0 0 1"/>
<limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>"""


def test_meshes_of_packages_are_found_where_a_ros_is_sourced(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    meshes = tmp_path / 'prefix/share/my_arm/meshes'
    meshes.mkdir(parents=True)
    corners = ((0, 0, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1))
    faces = itertools.combinations(corners, 3)
    (meshes / 'tip.stl').write_text('solid s\n' + '\n'.join(
        f'vertex {x} {y} {z}' for face in faces for x, y, z in face))
    (tmp_path / 'one.urdf').write_text(MESH_URDF)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    command = ['fit-robot', str(tmp_path / 'one.urdf'), '-o', str(tmp_path / 'one.yaml'),
               '--spheres', '2']
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    args = parser.parse_args(command)
    assert args.run(args) == 1 and 'tip.stl not found' in capsys.readouterr().out
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path / 'prefix'))
    assert args.run(args) == 0
    known = {**read_config(tmp_path / 'one.yaml'), 'acceleration_source': 'the data sheet'}
    again = fit_robot(tmp_path / 'one.urdf', 2, [tmp_path / 'prefix/share'], known)
    assert again['acceleration_source'] == 'the data sheet'


def test_command_writes_the_file_and_reports_errors(tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    urdf, out = tmp_path / 'two.urdf', tmp_path / 'two.yaml'
    urdf.write_text(URDF)
    args = parser.parse_args(['fit-robot', str(urdf), '-o', str(out), '--spheres', '6'])
    assert args.run(args) == 0 and out.exists()
    assert 'over approximation median mm' in capsys.readouterr().out
    args = parser.parse_args(['fit-robot', str(tmp_path / 'no.urdf'), '-o', str(out)])
    assert args.run(args) == 1
    assert 'not found' in capsys.readouterr().out


@pytest.mark.parametrize('name, link', [('panda', 'panda_leftfinger'), ('panda', 'panda_link7'),
                                        ('kuka_iiwa', 'lbr_iiwa_link_7'), ('xarm6', 'link6')])
def test_the_command_in_a_shipped_file_gives_its_spheres(name: str, link: str) -> None:
    spec = read_config(name)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(spec['fit']['command'].split()[1:])
    counts = dict(pair.split('=') for pair in args.count)
    assert set(counts) == set(spec['bodies']) and spec['fit']['spheres'] <= 40
    urdf = urdf_path(spec)
    element = next(e for e in ET.parse(urdf).getroot().findall('link') if e.get('name') == link)
    cover = cover_link(link, link_triangles(element, [urdf.parent]), int(counts[link]))
    assert np.allclose(cover.spheres, spec['bodies'][link]['spheres'], atol=2e-5)
