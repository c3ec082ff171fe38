"""Builds PyBullet bodies from the catalogue, and the Panda with light visuals."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pybullet as p
import pybullet_data
from numpy.typing import NDArray

from safety_filter.sim.catalogue import Part, Shape
from safety_filter.sim.render import scratch_folder
from safety_filter.sim.scene import ObjectSpec

Array = NDArray[np.float64]
DATA = Path(pybullet_data.getDataPath())
_GEOM = {"box": p.GEOM_BOX, "cylinder": p.GEOM_CYLINDER, "sphere": p.GEOM_SPHERE}


@cache
def panda_urdf() -> str:
    """Path of the Panda's URDF with collision meshes as visuals: three times faster to render."""
    folder = DATA / "franka_panda"
    text = (folder / "panda.urdf").read_text()
    text = text.replace("package://meshes/visual/", "package://meshes/collision/")
    text = text.replace("package://meshes", str(folder / "meshes"))
    path = Path(scratch_folder().name) / "panda.urdf"
    path.write_text(text)
    return str(path)


@cache
def _mesh(mesh: str, roll: float) -> tuple[Array, Array, Array]:
    """Vertices (n, 3) of a mesh of pybullet_data after rotation about x by `roll`; the centre (3,)
    and the half extents (3,) of their box."""
    vertices = np.array([
        [float(v) for v in line.split()[1:4]]
        for line in (DATA / mesh).read_text().splitlines() if line.startswith("v ")
    ])
    c, s = np.cos(roll), np.sin(roll)
    vertices = vertices @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    low, high = vertices.min(0), vertices.max(0)
    return vertices, (low + high) / 2, (high - low) / 2


def mesh_vertices(shape: Shape) -> Array:
    """Vertices (n, 3) of a shape that is a mesh, as it is built, in the shape's frame, m."""
    vertices, centre, half = _mesh(shape.mesh, shape.mesh_roll)
    return np.asarray((vertices - centre) * min(shape.half_extents / half))


def _mesh_shapes(shape: Shape, rgba: list[float], client: int) -> tuple[int, int]:
    _, centre, half = _mesh(shape.mesh, shape.mesh_roll)
    scale = float(min(shape.half_extents / half))
    offset = [-scale * c for c in centre]
    orientation = p.getQuaternionFromEuler([shape.mesh_roll, 0, 0])
    common = {"fileName": str(DATA / shape.mesh), "meshScale": [scale] * 3,
              "physicsClientId": client}
    visual = p.createVisualShape(p.GEOM_MESH, rgbaColor=rgba, visualFramePosition=offset,
                                 visualFrameOrientation=orientation, **common)
    collision = p.createCollisionShape(p.GEOM_MESH, collisionFramePosition=offset,
                                       collisionFrameOrientation=orientation, **common)
    return visual, collision


@cache
def _cylinder_mesh(radius: float, half: float, sides: int = 28) -> str:
    """Path of an OBJ cylinder about z; PyBullet's own shades its flat ends like cones."""
    angles = 2 * np.pi * np.arange(sides) / sides
    x, y = np.cos(angles), np.sin(angles)
    lines = [f"v {radius * a} {radius * b} {z}" for z in (-half, half)
             for a, b in zip(x, y, strict=True)]
    lines += [f"v 0 0 {-half}", f"v 0 0 {half}"]
    lines += [f"vn {a} {b} 0" for a, b in zip(x, y, strict=True)] + ["vn 0 0 -1", "vn 0 0 1"]
    low, high = sides + 1, sides + 2  # indices of the normals of the two ends
    for i in range(sides):
        a, b = i + 1, (i + 1) % sides + 1
        c, d = a + sides, b + sides
        lines += [f"f {a}//{a} {b}//{b} {d}//{b}", f"f {a}//{a} {d}//{b} {c}//{a}",
                  f"f {b}//{low} {a}//{low} {2 * sides + 1}//{low}",
                  f"f {c}//{high} {d}//{high} {2 * sides + 2}//{high}"]
    path = Path(scratch_folder().name) / f"cylinder_{radius}_{half}.obj"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _sizes(part: Part) -> dict[str, object]:
    return {"box": {"halfExtents": part.size},
            "cylinder": {"radius": part.size[0], "length": 2 * part.size[2]},
            "sphere": {"radius": part.size[0]}}[part.kind]


def _primitive_shapes(shape: Shape, rgba: list[float], client: int) -> tuple[int, int]:
    if len(shape.parts) == 1:
        size = _sizes(shape.parts[0])
        geom = _GEOM[shape.parts[0].kind]
        collision = p.createCollisionShape(geom, physicsClientId=client, **{
            "height" if k == "length" else k: v for k, v in size.items()})
        if shape.parts[0].kind == "cylinder":
            size = {"fileName": _cylinder_mesh(shape.parts[0].size[0], shape.parts[0].size[2])}
            geom = p.GEOM_MESH
        visual = p.createVisualShape(geom, rgbaColor=rgba, physicsClientId=client, **size)
        return visual, collision
    n = len(shape.parts)
    arrays = {
        "shapeTypes": [_GEOM[q.kind] for q in shape.parts],
        "halfExtents": [list(q.size) for q in shape.parts],
        "radii": [q.size[0] for q in shape.parts],
        "lengths": [2 * q.size[2] for q in shape.parts],
        "physicsClientId": client,
    }
    offsets = [list(q.offset) for q in shape.parts]
    meshes = [_cylinder_mesh(q.size[0], q.size[2]) if q.kind == "cylinder" else ""
              for q in shape.parts]
    drawn = [p.GEOM_MESH if mesh else kind
             for mesh, kind in zip(meshes, arrays["shapeTypes"], strict=True)]
    visual = p.createVisualShapeArray(
        visualFramePositions=offsets, rgbaColors=[rgba] * n, fileNames=meshes,
        **{**arrays, "shapeTypes": drawn})
    collision = p.createCollisionShapeArray(collisionFramePositions=offsets, **arrays)
    return visual, collision


def create_body(spec: ObjectSpec, client: int) -> int:
    """The body of a spec at its pose; destinations are fixed, the rest is dynamic."""
    rgba = [*spec.rgb, 1.0]
    build = _mesh_shapes if spec.shape.mesh else _primitive_shapes
    visual, collision = build(spec.shape, rgba, client)
    if spec.shape.name == "zone":
        collision = -1  # a mark on the table
    mass = 0.0 if spec.role == "destination" else spec.shape.mass
    body = p.createMultiBody(
        mass, collision, visual, spec.position, p.getQuaternionFromEuler([0, 0, spec.yaw]),
        physicsClientId=client,
    )
    p.changeVisualShape(body, -1, rgbaColor=rgba, physicsClientId=client)
    p.changeDynamics(body, -1, lateralFriction=1.0, rollingFriction=2e-4, spinningFriction=2e-3,
                     restitution=0.0, linearDamping=0.04, angularDamping=0.3,
                     physicsClientId=client)
    return int(body)
