"""Robots from URDF and YAML: every error names the link or joint."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.rig import URDF

from safety_filter.core.kinematics import Kinematics
from safety_filter.core.mesh import link_triangles
from safety_filter.core.robot import (
    BodyKind,
    RobotError,
    RobotModel,
    config_dir,
    read_config,
    read_urdf,
    urdf_path,
)

CONFIG: dict[str, Any] = {
    'name': 'two', 'base_link': 'base', 'tool_link': 'tip',
    'joints': {'turn': {'acceleration': 4.0}, 'slide': {'acceleration': 2.0}},
    'bodies': {'upper': {'spheres': [[0, 0, 0.1, 0.1], [0, 0, 0.3, 0.1]]},
               'tip': {'kind': 'hand', 'spheres': [[0, 0, 0, 0.05]]}},
    'self_pairs': [['upper', 'tip']]}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONFIG), **changes}


def test_any_axis_and_prismatic_joints() -> None:
    robot = RobotModel.load(URDF, CONFIG)
    assert robot.n == 2 and robot.joint_names == ('turn', 'slide')
    assert np.allclose(robot.joints['axis'], [[0, 0.6, 0.8], [0, 0, 1]])
    assert list(robot.joints['prismatic']) == [0, 1]
    assert np.allclose(robot.limits.velocity, [1.5, 0.5])
    assert list(robot.spheres['columns']) == [1, 1, 2]
    assert robot.spheres['kind'][2] == BodyKind.HAND
    assert robot.self_pairs.tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize('config, words', [
    (changed(base_link='nowhere'), 'link nowhere is not in the URDF; its links: base, upper'),
    (changed(base_link='tip'), 'base_link tip: .* moved by slide'),
    (changed(tool_link='hook'), 'link hook'),
    (changed(joints={'turn': {'acceleration': 1.0}}), 'joint slide: moves in the URDF but'),
    (changed(joints={'turn': {}, 'slide': {}}), 'joint turn: acceleration: expected a number'),
    (changed(joints={'turn': {'acceleration': -1.0}, 'slide': {'acceleration': 1.0}}),
     r'joint turn: .* acceleration -1.0 must be positive'),
    (changed(joints={'turn': {'acceleration': 1, 'lower': 3}, 'slide': {'acceleration': 1}}),
     r'joint turn: lower 3.0 is not below upper 2.0'),
    (changed(joints={'slide': {'acceleration': 1}, 'turn': {'acceleration': 1}}),
     'expected a serial chain'),
    (changed(joints={'twist': {}}), 'joint twist is not a moving joint of the URDF'),
    (changed(bodies={'arm': {'spheres': [[0, 0, 0, 1]]}}), 'link arm is not in the URDF'),
    (changed(bodies={'tip': {'spheres': [[0, 0, 0]]}}), 'link tip: spheres: expected a list'),
    (changed(bodies={'tip': {'spheres': [[0, 0, 0, 0]]}}), 'link tip: .*radius must be positive'),
    (changed(bodies={'tip': {'kind': 'claw', 'spheres': [[0, 0, 0, 1]]}}), 'link tip: kind'),
    (changed(bodies={}), 'bodies: expected at least one sphere'),
    (changed(self_pairs=[['upper', 'base']]), 'self_pairs: link base has no bodies'),
    ({'name': 'x'}, 'missing base_link, tool_link, joints, bodies')])
def test_wrong_robot_file_names_the_culprit(config: dict[str, Any], words: str) -> None:
    with pytest.raises(RobotError, match=words):
        RobotModel.load(URDF, config)


@pytest.mark.parametrize('urdf, words', [
    ('', 'not found'), ('<sdf/>', 'expected a <robot> element'), ('<robot', 'URDF'),
    ('/nowhere/arm.urdf', 'URDF /nowhere/arm.urdf not found'),
    ('<robot name="x"><link name="a"/><joint name="j" type="revolute"><parent link="a"/>'
     '<child link="b"/></joint></robot>', 'URDF')])
def test_wrong_urdf_is_reported(urdf: str, words: str) -> None:
    with pytest.raises(RobotError, match=words):
        RobotModel.load(urdf or '/nowhere', CONFIG)


def test_continuous_joint_needs_limits() -> None:
    text = URDF.replace('name="turn" type="revolute"', 'name="turn" type="continuous"')
    with pytest.raises(RobotError, match='joint turn'):
        RobotModel.load(text, CONFIG)


def test_unknown_robot_lists_the_shipped_ones() -> None:
    with pytest.raises(RobotError, match=r'shipped robots: .*panda'):
        RobotModel.shipped('pandaa')


def test_missing_package_of_the_urdf_is_named() -> None:
    with pytest.raises(RobotError, match='no_such_package is not installed'):
        urdf_path({'urdf': {'package': 'no_such_package', 'path': 'x'}})
    with pytest.raises(RobotError, match='expected a path'):
        urdf_path({})


def test_broken_yaml_is_reported(tmp_path: Path) -> None:
    path = tmp_path / 'bad.yaml'
    path.write_text('a: [1, 2')
    with pytest.raises(RobotError, match=r'bad\.yaml'):
        read_config(path)
    path.write_text('- a\n')
    with pytest.raises(RobotError, match='expected a mapping'):
        read_config(path)


@pytest.mark.parametrize('name', sorted(p.stem for p in config_dir().glob('*.yaml')
                                        if 'tool_only' not in read_config(p)))
def test_shipped_robot_covers_every_vertex_of_its_meshes(name: str) -> None:
    import xml.etree.ElementTree as ET
    spec = read_config(name)
    path = urdf_path(spec)
    assert sum(len(b['spheres']) for b in spec['bodies'].values()) <= 40
    assert spec['fit']['over_approximation_median_mm'] <= 20.0
    for link in ET.fromstring(read_urdf(path)).findall('link'):
        triangles = link_triangles(link, [path.parent])
        if len(triangles) == 0:
            continue
        spheres = np.array(spec['bodies'][link.get('name')]['spheres'])
        vertices = triangles.reshape(-1, 3)
        gap = np.linalg.norm(vertices[:, None] - spheres[None, :, :3], axis=2) - spheres[:, 3]
        assert gap.min(axis=1).max() <= 0.0, link.get('name')


@pytest.mark.parametrize('name', ['panda', 'xarm6', 'kuka_iiwa'])
def test_links_without_rows_never_meet_or_are_neighbours(name: str) -> None:
    robot = RobotModel.shipped(name)
    kinematics, rng = Kinematics(robot), np.random.default_rng(5)
    group, radius = robot.spheres['group'], robot.spheres['radius']
    listed = {tuple(sorted(p)) for p in read_config(name)['self_pairs']}
    free = [(a, b) for a, b in itertools.combinations(range(len(robot.bodies)), 2)
            if tuple(sorted((robot.bodies[a], robot.bodies[b]))) not in listed]
    met = dict.fromkeys(free, 0)
    for _ in range(1000):
        points = kinematics.spheres(rng.uniform(robot.limits.lower, robot.limits.upper))
        gap = np.linalg.norm(points[:, None] - points[None], axis=2) - radius[:, None] - radius
        for a, b in free:
            met[a, b] += bool(gap[np.ix_(group == a, group == b)].min() < 0.0)
    for (a, b), count in met.items():
        columns = [int(robot.spheres['columns'][group == g][0]) for g in (a, b)]
        adjacent = abs(columns[0] - columns[1]) <= 1
        assert adjacent or count == 0 or count > 70, (robot.bodies[a], robot.bodies[b], count)


def test_panda_is_the_data_sheets(panda: RobotModel) -> None:
    assert np.allclose(panda.limits.acceleration, [15, 7.5, 10, 12.5, 15, 20, 20])
    assert panda.limits.velocity[0] == 2.175 and panda.limits.upper[6] == 2.8973
    assert panda.tool_link == 'panda_grasptarget' and panda.base_link == 'panda_link0'
    fingers = {panda.bodies[g] for g in panda.spheres['group'][panda.spheres['kind'] == 2]}
    assert fingers == {'panda_leftfinger', 'panda_rightfinger'}
