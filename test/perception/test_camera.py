from __future__ import annotations

import numpy as np
import pytest

from safety_filter.perception.camera import back_project, check_frame, project


def test_back_projection_inverts_projection(cell):
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.3, 1.5, (20, 30)).astype(np.float32)
    points = back_project(depth, cell.k, cell.pose)
    uv, z = project(points.reshape(-1, 3).astype(float), cell.k, cell.pose)
    u, v = np.meshgrid(np.arange(30), np.arange(20))
    np.testing.assert_allclose(uv, np.stack([u.ravel(), v.ravel()], 1), atol=1e-2)
    np.testing.assert_allclose(z, depth.ravel(), atol=1e-5)


def test_depth_is_along_the_optical_axis(cell):
    depth = np.full((256, 256), 0.5, np.float32)
    points = back_project(depth, cell.k, cell.pose).reshape(-1, 3)
    along = (points - cell.pose[:3, 3]) @ cell.pose[:3, 2]
    np.testing.assert_allclose(along, 0.5, atol=1e-6)


@pytest.mark.parametrize(("change", "text"), [
    ({"rgb": np.zeros((8, 8), np.uint8)}, "rgb: expected uint8"),
    ({"rgb": np.zeros((8, 8, 3), np.float32)}, "rgb: expected uint8"),
    ({"depth": np.zeros((4, 8), np.float32)}, "depth: expected the size of rgb"),
    ({"depth": np.zeros((8, 8), np.uint16)}, "depth: expected floats in metres"),
    ({"k": np.zeros((3, 3))}, "K: expected"),
    ({"k": np.full((3, 3), np.nan)}, "K: expected"),
    ({"t_base_cam": np.full((4, 4), np.inf)}, "T_base_cam: expected a finite"),
    ({"t_base_cam": np.diag([2.0, 1, 1, 1])}, "T_base_cam: expected a rotation"),
])
def test_frames_of_another_kind_are_rejected_by_name(change, text):
    good = {"rgb": np.zeros((8, 8, 3), np.uint8), "depth": np.zeros((8, 8), np.float32),
            "k": np.diag([100.0, 100.0, 1.0]), "t_base_cam": np.eye(4)}
    check_frame(**good)
    with pytest.raises(ValueError, match=text):
        check_frame(**{**good, **change})
