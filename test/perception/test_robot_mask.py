from __future__ import annotations

import numpy as np
import pytest
from perception.solids import box, cylinder

from safety_filter.perception.meshes import link_triangles, sphere
from safety_filter.perception.robot_mask import RobotMask

URDF = """<robot name="toy">
  <link name="base"/>
  <link name="arm"><collision><origin xyz="0 0 0.1"/>
    <geometry><box size="0.06 0.06 0.2"/></geometry></collision></link>
  <link name="finger"><collision><geometry><sphere radius="0.02"/></geometry></collision></link>
  <link name="tool"/>
  <joint name="lift" type="prismatic"><parent link="base"/><child link="arm"/>
    <origin xyz="0.5 0 0"/><axis xyz="0 0 1"/>
    <limit lower="0" upper="1" effort="1" velocity="1"/></joint>
  <joint name="open" type="prismatic"><parent link="arm"/><child link="finger"/>
    <axis xyz="0 1 0"/><limit lower="0" upper="1" effort="1" velocity="1"/></joint>
  <joint name="tip" type="fixed"><parent link="arm"/><child link="tool"/>
    <origin xyz="0 0 0.25"/></joint>
</robot>"""


@pytest.fixture
def mask() -> RobotMask:
    return RobotMask(URDF, ["lift"], {"open": 0.5}, "tool", tolerance=0.01, grow_px=1)


def robot_parts(lift: float, opening: float) -> np.ndarray:
    return np.concatenate([box((0.03, 0.03, 0.1)) + [0.5, 0, 0.1 + lift],
                           sphere(0.02) + [0.5, opening / 2, lift]])


def test_the_robot_is_masked_where_it_stands_and_only_there(cell, mask):
    cell.put("robot", robot_parts(0.1, 0.0), (0, 0, 0))
    depth, masks = cell.picture()
    view = mask.view(depth, np.array([0.1]), 0.0, cell.k, cell.pose)
    assert view.mask[masks["robot"]].mean() > 0.995
    assert (view.mask & ~masks["robot"]).sum() < 0.25 * masks["robot"].sum()  # the rim
    np.testing.assert_allclose(view.t_base_tool[:3, 3], [0.5, 0.0, 0.35], atol=1e-9)


@pytest.mark.parametrize("gain", [0.5, 1.0, -0.5])
def test_a_finger_is_drawn_where_its_gain_puts_it(cell, gain):
    mask = RobotMask(URDF, ["lift"], {"open": gain}, "tool", tolerance=0.01, grow_px=1)
    opening = 0.08 / gain  # the finger stands 8 cm beside the arm, whatever that is called
    cell.put("robot", robot_parts(0.1, 0.16), (0, 0, 0))
    depth, masks = cell.picture()
    drawn = mask.view(depth, np.array([0.1]), opening, cell.k, cell.pose).mask
    assert drawn[masks["robot"]].mean() > 0.995
    elsewhere = mask.view(depth, np.array([0.1]), -opening, cell.k, cell.pose).mask
    assert elsewhere[masks["robot"]].mean() < 0.97


def test_a_base_away_from_the_urdfs_root_changes_nothing(cell, mask):
    mount = """<link name="world"/><joint name="mount" type="fixed"><parent link="world"/>
      <child link="base"/><origin xyz="0.3 -0.2 0.7" rpy="0.1 0 1.2"/></joint></robot>"""
    text = URDF.replace("</robot>", mount)
    moved = RobotMask(text, ["lift"], {"open": 0.5}, "tool", 0.01, 1, base_link="base")
    cell.put("robot", robot_parts(0.1, 0.0), (0, 0, 0))
    depth, _ = cell.picture()
    q = np.array([0.1])
    ours, theirs = (m.view(depth, q, 0.0, cell.k, cell.pose) for m in (moved, mask))
    assert (ours.mask != theirs.mask).sum() <= 2  # rounding at the rim
    np.testing.assert_allclose(ours.t_base_tool, theirs.t_base_tool, atol=1e-9)
    np.testing.assert_allclose(moved.tool_pose(q), mask.tool_pose(q), atol=1e-9)


def test_an_object_in_front_of_the_arm_remains(cell, mask, shapes):
    cell.put("robot", robot_parts(0.0, 0.0), (0, 0, 0))
    cell.put("cube", shapes["cube"], (0.62, 0.0, 0.022))
    depth, masks = cell.picture()
    view = mask.view(depth, np.array([0.0]), 0.0, cell.k, cell.pose)
    assert not view.mask[masks["cube"]].any()


def test_an_object_behind_the_arm_remains_where_it_shows(cell, mask, shapes):
    cell.put("robot", robot_parts(0.0, 0.0), (0, 0, 0))
    cell.put("carton", shapes["carton"], (0.38, 0.02, 0.080))
    depth, masks = cell.picture()
    assert masks["carton"].sum() > 50
    view = mask.view(depth, np.array([0.0]), 0.0, cell.k, cell.pose)
    assert view.mask[masks["carton"]].mean() < 0.2


def test_a_wrong_joint_state_does_not_hide_the_scene(cell, mask):
    cell.put("robot", robot_parts(0.0, 0.0), (0, 0, 0))
    depth, masks = cell.picture()
    view = mask.view(depth, np.array([0.5]), 0.0, cell.k, cell.pose)
    assert view.mask[masks["robot"]].mean() < 0.1


@pytest.mark.parametrize("q", [np.array([np.nan]), np.array([0.0, 0.0]), np.array([np.inf])])
def test_joints_that_are_not_finite_or_of_another_number_are_rejected(cell, mask, q):
    with pytest.raises(ValueError, match="joints: expected 1 finite"):
        mask.view(np.ones((8, 8), np.float32), q, 0.0, cell.k, cell.pose)


def test_unknown_names_are_rejected_with_those_that_exist():
    with pytest.raises(ValueError, match=r"'elbow' is not in the robot.*lift"):
        RobotMask(URDF, ["elbow"], {}, "tool")
    with pytest.raises(ValueError, match="tool frame 'hand'"):
        RobotMask(URDF, ["lift"], {}, "hand")


def test_meshes_that_cannot_be_read_need_spheres():
    urdf = ('<robot name="r"><link name="a"><collision><geometry>'
            '<mesh filename="package://gone/a.dae"/></geometry></collision></link></robot>')
    with pytest.raises(ValueError, match=r"link a: mesh .*gone/a.dae not found.*no spheres"):
        link_triangles(urdf)
    links = link_triangles(urdf, {"a": [((0.0, 0.0, 0.1), 0.05)]})
    assert "gone/a.dae not found" in links.by_spheres["a"]
    radius = np.linalg.norm(links.triangles["a"].reshape(-1, 3) - [0, 0, 0.1], axis=1)
    np.testing.assert_allclose(radius, 0.05, atol=1e-9)


def test_meshes_of_a_sourced_description_are_found_without_the_urdfs_file(tmp_path, monkeypatch):
    folder = tmp_path / "share" / "arm_description" / "meshes"
    folder.mkdir(parents=True)
    corners = "vertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\n"
    (folder / "a.stl").write_text(
        f"solid a\nfacet normal 0 0 1\nouter loop\n{corners}endloop\nendfacet\nendsolid\n")
    urdf = ('<robot name="r"><link name="a"><collision><geometry><mesh scale="0.001 0.001 0.001"'
            ' filename="package://arm_description/meshes/a.stl"/></geometry></collision></link>'
            '</robot>')
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    links = link_triangles(urdf, {"a": [((0.0, 0.0, 0.1), 0.05)]})
    np.testing.assert_allclose(links.triangles["a"].max(axis=(0, 1)), [0.001, 0.001, 0.0])
    assert links.by_spheres == {}


@pytest.mark.parametrize(("triangles", "volume"), [
    (box((0.1, 0.2, 0.3)), 0.048), (cylinder(0.1, 0.5, 64), np.pi * 0.005),
    (sphere(0.1, rings=32), 4 / 3 * np.pi * 1e-3)])
def test_primitives_enclose_their_volume(triangles, volume):
    signed = np.einsum("ij,ij->i", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2]))
    assert abs(signed).sum() / 6 == pytest.approx(volume, rel=0.02)
