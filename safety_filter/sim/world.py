"""The simulated cell: Panda, table, objects, movers and cameras, stepped by the caller."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import numpy as np
import pybullet as p
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from safety_filter.core.filter_params import FilterParams, gains
from safety_filter.core.nominal import TWIST, nominal_velocity
from safety_filter.sim.bodies import create_body, panda_urdf
from safety_filter.sim.contacts import FINGERS, Contact, ContactJudge
from safety_filter.sim.displacement import Displacement
from safety_filter.sim.render import (
    SCENE_CAMERA,
    WRIST_FOV_DEG,
    Frame,
    draw,
    render,
    scene_camera_pose,
    texture_files,
    wrist_camera_pose,
)
from safety_filter.sim.scene import ObjectSpec, Scene

Array = NDArray[np.float64]
DT = 1.0 / 240.0
SCENE_SIZE = (256, 256)
WRIST_SIZE = (64, 64)
HOME_Q = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])
# Franka Emika Panda datasheet, joint space limits.
QD_MAX = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
QDD_MAX = np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0])
MAX_OPENING = 0.08
BLOW = 0.1  # s after which what has left closed fingers counts as dropped
GRIP_FORCE = 40.0
_ARM = list(range(7))
_GAINS = gains(FilterParams())[0]
_FLOOR_RGB = (0.55, 0.55, 0.58)


@dataclass(frozen=True)
class ObjectState:
    """Truth about one object: centre (3,) m, quaternion xyzw (4,), velocity (3,) m/s in base."""

    name: str
    shape: str
    role: str
    body: int
    position: Array
    orientation: Array
    velocity: Array
    half_extents: tuple[float, float, float]


class World:
    """One scene in PyBullet. Time advances only by `step`."""

    def __init__(self, scene: Scene, gui: bool = False,
                 scene_size: tuple[int, int] = SCENE_SIZE,
                 wrist_size: tuple[int, int] = WRIST_SIZE) -> None:
        self._client = p.connect(p.GUI if gui else p.DIRECT)
        self._gui = gui
        if gui:  # the cell as the scene's camera sees it, without PyBullet's own panels
            p.configureDebugVisualizer(p.COV_ENABLE_GUI, 0, physicsClientId=self._client)
            p.resetDebugVisualizerCamera(1.3, 90.0, -35.0, (0.4, 0.0, 0.1),
                                         physicsClientId=self._client)
        self.sizes = {"scene": scene_size, "wrist": wrist_size}
        self.reset(scene)
        self.resolve(np.zeros(6))  # compiled now, not in the midst of a motion

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the physics client; the world cannot be used afterwards."""
        if self._client >= 0:
            p.disconnect(self._client)
            self._client = -1

    def reset(self, scene: Scene) -> None:
        """Load a scene from scratch; time starts at 0."""
        c = self._client
        p.resetSimulation(physicsClientId=c)
        p.setTimeStep(DT, physicsClientId=c)
        p.setGravity(0, 0, -9.81, physicsClientId=c)
        self.scene = scene
        self.steps = 0
        self.table, self._floor = self._create_table()
        self._backdrop = draw(c, self.sizes["scene"], *self._scene_camera(), scene.appearance)
        self.robot = p.loadURDF(panda_urdf(), useFixedBase=True, physicsClientId=c,
                                flags=p.URDF_ENABLE_CACHED_GRAPHICS_SHAPES)
        self.links = {-1: "panda_link0"}
        self.links |= {j: p.getJointInfo(self.robot, j, physicsClientId=c)[12].decode()
                       for j in range(p.getNumJoints(self.robot, physicsClientId=c))}
        index = {name: j for j, name in self.links.items()}
        self._fingers = [index[name] for name in FINGERS]
        self._hand, self._tool = index["panda_hand"], index["panda_grasptarget"]
        for finger in self._fingers:
            p.changeDynamics(self.robot, finger, lateralFriction=1.5, spinningFriction=0.05,
                             rollingFriction=1e-3, physicsClientId=c)
        # The Panda's fingers are coupled; without this each goes its own way when it grips.
        gear = p.createConstraint(self.robot, self._fingers[0], self.robot, self._fingers[1],
                                  p.JOINT_GEAR, [1, 0, 0], [0, 0, 0], [0, 0, 0],
                                  physicsClientId=c)
        p.changeConstraint(gear, gearRatio=-1, erp=0.1, maxForce=50, physicsClientId=c)
        self.bodies = {spec.name: create_body(spec, c) for spec in scene.specs}
        self._labels = {self.table: ("table", "table")}
        for i, spec in enumerate(scene.specs):
            role = "target" if i == scene.target else spec.role
            if role == "destination" and i != scene.destination:
                role = "object"
            self._labels[self.bodies[spec.name]] = (spec.name, role)
        self.judge = ContactJudge(c, self.robot, self.links)
        self.teleport(HOME_Q + np.asarray(scene.home_q_noise), MAX_OPENING)
        self._driven: tuple[int, list[tuple[ObjectSpec, Array, Array]]] | None = None
        self._drive_movers()
        self.velocities = self._velocities()  # (3,) m/s in base before the newest physics step
        self._displacement = Displacement(self._places())
        self.held: int | None = None
        self._grip: tuple[int | None, int] = None, 0  # what was held last, and in which step

    def teleport(self, q: Array, opening: float) -> None:
        """Put the arm (7 joints, rad) and the gripper (m) somewhere at rest, without physics."""
        c = self._client
        for j, value in zip(_ARM, q, strict=True):
            p.resetJointState(self.robot, j, float(value), 0.0, physicsClientId=c)
        for finger in self._fingers:
            p.resetJointState(self.robot, finger, opening / 2, 0.0, physicsClientId=c)
        self._qd_command = np.zeros(7)
        self._qd_applied = np.zeros(7)
        self._twist_command: Array | None = None
        self.opening_command = opening

    def place_object(self, name: str, position: Array, yaw: float = 0.0) -> None:
        """Move an object at rest to a position (3,) in base."""
        body = self.bodies[name]
        p.resetBasePositionAndOrientation(body, list(position),
                                          p.getQuaternionFromEuler([0, 0, yaw]),
                                          physicsClientId=self._client)
        p.resetBaseVelocity(body, [0, 0, 0], [0, 0, 0], physicsClientId=self._client)

    # -- commands ---------------------------------------------------------------------------

    def set_joint_velocity(self, qd: Array) -> None:
        """Command joint velocities (7,) rad/s, held until the next command."""
        self._qd_command = np.clip(self._finite(qd, 7, "joint velocity"), -QD_MAX, QD_MAX)
        self._twist_command = None

    def set_twist(self, twist: Array) -> None:
        """Command a tool twist (6,) in base, m/s and rad/s, held; see `resolve`."""
        self._twist_command = self._finite(twist, 6, "twist")

    def set_gripper(self, opening: float) -> None:
        """Command the distance between the fingertips, m."""
        self.opening_command = float(
            np.clip(self._finite(np.array([opening]), 1, "opening")[0], 0.0, MAX_OPENING))

    @staticmethod
    def _finite(value: Array, size: int, what: str) -> Array:
        value = np.asarray(value, float)
        if value.shape != (size,) or not np.all(np.isfinite(value)):
            raise ValueError(f"{what}: expected {size} finite numbers, got {value!r}")
        return value

    def resolve(self, twist: Array) -> Array:
        """Joint velocities (7,) for a tool twist (6,) as the filter has them, scaled to limits."""
        qd = np.zeros(7)
        nominal_velocity(TWIST, np.asarray(twist, float), qd, QD_MAX, np.eye(3), False,
                         self.tool_jacobian(), _GAINS, qd)
        return np.asarray(qd / max(1.0, float(np.max(np.abs(qd) / QD_MAX))))

    # -- time -------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        return self.steps * DT

    def step(self) -> None:
        """Advance physics by DT and judge contacts."""
        if self._twist_command is not None:
            self._qd_command = self.resolve(self._twist_command)
        # The low-level controller follows commands within the arm's acceleration limits.
        change = np.clip(self._qd_command - self._qd_applied, -QDD_MAX * DT, QDD_MAX * DT)
        self._qd_applied = self._qd_applied + change
        c = self._client
        p.setJointMotorControlArray(
            self.robot, _ARM, p.VELOCITY_CONTROL, targetVelocities=self._qd_applied,
            forces=[250.0] * 7, physicsClientId=c)
        p.setJointMotorControlArray(
            self.robot, self._fingers, p.POSITION_CONTROL,
            targetPositions=[self.opening_command / 2] * 2, forces=[GRIP_FORCE] * 2,
            targetVelocities=[0, 0], positionGains=[0.15] * 2, physicsClientId=c)
        self._drive_movers()
        self.velocities = self._velocities()
        p.stepSimulation(physicsClientId=c)
        self.steps += 1
        places = self._places()
        self._drive_movers()
        self.held = self._held_body()
        self.judge.update(self.time, self._labels, self._carried())
        paths = {spec.name: position.tolist() for spec, position, _ in self._driven_now()}
        self._displacement.update(self.time, places, paths, bool(self.contacts), self.judge.hit)

    def _driven_now(self) -> list[tuple[ObjectSpec, Array, Array]]:
        """What is driven, with position and velocity; an object is free once it has arrived."""
        if self._driven is None or self._driven[0] != self.steps:
            self._driven = self.steps, [
                (spec, *spec.path.state(self.time)) for spec in self.scene.specs
                if spec.path is not None
                and (spec.role == "mover" or self.time <= spec.path.stops_at)]
        return self._driven[1]

    def _drive_movers(self) -> None:
        """Put what is driven where its path has it."""
        for spec, position, velocity in self._driven_now():
            body = self.bodies[spec.name]
            p.resetBasePositionAndOrientation(
                body, position.tolist(), p.getQuaternionFromEuler([0, 0, spec.yaw]),
                physicsClientId=self._client)
            p.resetBaseVelocity(body, velocity.tolist(), [0, 0, 0], physicsClientId=self._client)

    def _places(self) -> dict[str, tuple[float, ...]]:
        """Where each object is, (3,) m in base."""
        return {name: p.getBasePositionAndOrientation(body, physicsClientId=self._client)[0]
                for name, body in self.bodies.items()}

    def _velocities(self) -> dict[str, Array]:
        return {name: np.array(p.getBaseVelocity(body, physicsClientId=self._client)[0])
                for name, body in self.bodies.items()}

    def _held_body(self) -> int | None:
        touched = [
            {c[2] for c in p.getContactPoints(bodyA=self.robot, linkIndexA=f,
                                              physicsClientId=self._client) if c[9] > 0.0}
            for f in self._fingers
        ]
        movable = {self.bodies[s.name] for s in self.scene.specs if s.role == "object"}
        return next(iter(touched[0] & touched[1] & movable), None)

    def _carried(self) -> int | None:
        """What counts as held in a contact: also what a blow has just taken out of the fingers."""
        if self.held is not None:
            self._grip = self.held, self.steps
        elif self.opening_command > MAX_OPENING / 2 or self.steps - self._grip[1] > BLOW / DT:
            self._grip = None, 0
        return self._grip[0]

    # -- state ------------------------------------------------------------------------------

    def joint_state(self) -> tuple[Array, Array, float]:
        """Arm positions (7,) rad, velocities (7,) rad/s and gripper opening in m."""
        states = p.getJointStates(self.robot, _ARM + self._fingers, physicsClientId=self._client)
        values = np.array([[s[0], s[1]] for s in states])
        return values[:7, 0], values[:7, 1], float(values[7:, 0].sum())

    def tool_pose(self) -> tuple[Array, Array]:
        """Position (3,) m and rotation matrix (3, 3) of the tool frame in base."""
        return self._link_pose(self._tool)

    def _link_pose(self, link: int) -> tuple[Array, Array]:
        state = p.getLinkState(self.robot, link, computeForwardKinematics=1,
                               physicsClientId=self._client)
        return np.array(state[4]), np.array(p.getMatrixFromQuaternion(state[5])).reshape(3, 3)

    def tool_jacobian(self) -> Array:
        """Geometric Jacobian (6, 7) of the tool frame in base."""
        q = [s[0] for s in p.getJointStates(self.robot, _ARM + self._fingers,
                                            physicsClientId=self._client)]
        zeros = [0.0] * 9
        linear, angular = p.calculateJacobian(self.robot, self._tool, [0, 0, 0], q, zeros, zeros,
                                              physicsClientId=self._client)
        return np.vstack([np.array(linear)[:, :7], np.array(angular)[:, :7]])

    def inverse_kinematics(self, position: Array, rotation: Array) -> Array:
        """Joint positions (7,) that bring the tool to a pose; best effort, check the result."""
        quaternion = Rotation.from_matrix(rotation).as_quat().tolist()
        low, high = [-2.8, -1.7, -2.8, -3.0, -2.8, 0.0, -2.8], [2.8, 1.7, 2.8, -0.1, 2.8, 3.7, 2.8]
        q = p.calculateInverseKinematics(
            self.robot, self._tool, list(position), quaternion, low + [0, 0],
            high + [0.04, 0.04], [5.6, 3.4, 5.6, 2.9, 5.6, 3.7, 5.6, 0.04, 0.04],
            list(HOME_Q) + [0.02, 0.02], maxNumIterations=100, residualThreshold=1e-5,
            physicsClientId=self._client)
        return np.array(q[:7])

    def _pose(self, body: int) -> tuple[Array, Array]:
        position, orientation = p.getBasePositionAndOrientation(
            body, physicsClientId=self._client)
        return np.array(position), np.array(orientation)

    def object_position(self, name: str) -> Array:
        """Centre (3,) of an object in base."""
        return self._pose(self.bodies[name])[0]

    def truth(self) -> list[ObjectState]:
        """The exact state of every object."""
        states = []
        for spec in self.scene.specs:
            body = self.bodies[spec.name]
            position, orientation = self._pose(body)
            velocity = np.array(p.getBaseVelocity(body, physicsClientId=self._client)[0])
            states.append(ObjectState(spec.name, spec.shape.name, self._labels[body][1], body,
                                      position, orientation, velocity, spec.shape.half_extents))
        return states

    @property
    def contacts(self) -> list[Contact]:
        return self.judge.contacts

    @property
    def displacement(self) -> dict[str, float]:
        """How far each object was moved, m; the target's says nothing: it is to be moved."""
        return self._displacement.total

    def min_distance(self, limit: float = 0.5) -> float:
        """Smallest distance in m of robot or held object to an obstacle, at most `limit`."""
        obstacles = [b for b, (_, role) in self._labels.items() if role in ("object", "mover")]
        robot_parts = [self.robot] + ([self.held] if self.held is not None else [])
        best = limit
        for body in obstacles:
            for part in robot_parts:
                if part != body:
                    for point in p.getClosestPoints(part, body, best,
                                                    physicsClientId=self._client):
                        best = min(best, float(point[8]))
        return best

    def success(self) -> bool:
        """Whether the target lies on its destination and the gripper has let go of it."""
        target = self.bodies[self.scene.target_spec.name]
        if self.held == target:
            return False
        position = self._pose(target)[0]
        goal = self.scene.destination_spec
        reach = goal.shape.half_extents[0]
        height = self.scene.target_spec.shape.half_extents
        low = position[2] < 2 * goal.shape.half_extents[2] + max(height) + 0.015
        speed = float(np.linalg.norm(p.getBaseVelocity(target, physicsClientId=self._client)[0]))
        return bool(np.all(np.abs(position[:2] - np.array(goal.position[:2])) < reach)
                    and low and speed < 0.05)

    # -- cameras ----------------------------------------------------------------------------

    def render(self, camera: str, size: tuple[int, int] | None = None) -> Frame:
        """Picture of the "scene" or the "wrist" camera; `size` = (width, height) in pixels."""
        size = size or self.sizes[camera]
        look = self.scene.appearance
        if camera == "wrist":
            position, rotation = self._link_pose(self._hand)
            hand = np.eye(4)
            hand[:3, :3], hand[:3, 3] = rotation, position
            return render(self._client, size, wrist_camera_pose(hand), WRIST_FOV_DEG, look,
                          self.time)
        pose, fov = self._scene_camera()
        if self._gui or size != self.sizes["scene"]:
            return render(self._client, size, pose, fov, look, self.time)
        # Table and floor fill the picture of a camera that stands still: three quarters of the
        # time. They were drawn once. In a window their coming and going would be seen.
        self._show_table(False)
        try:
            return render(self._client, size, pose, fov, look, self.time, self._backdrop)
        finally:
            self._show_table(True)

    def _scene_camera(self) -> tuple[Array, float]:
        """Pose (4, 4) and field of view, degrees, of the fixed camera."""
        return scene_camera_pose(self.scene.appearance), float(SCENE_CAMERA["fov_deg"])

    def _show_table(self, shown: bool) -> None:
        """Draw table and floor, or do not; they stay where they are."""
        for body, rgb in ((self.table, self.scene.appearance.table_rgb),
                          (self._floor, _FLOOR_RGB)):
            p.changeVisualShape(body, -1, rgbaColor=[*rgb, float(shown)],
                                physicsClientId=self._client)

    def _create_table(self) -> tuple[int, int]:
        """The bodies of the table and of the floor below it."""
        c = self._client
        half = [0.65, 0.75, 0.02]
        visual = p.createVisualShape(p.GEOM_BOX, halfExtents=half, physicsClientId=c)
        collision = p.createCollisionShape(p.GEOM_BOX, halfExtents=half, physicsClientId=c)
        table = p.createMultiBody(0.0, collision, visual, [0.4, 0.0, -0.02], physicsClientId=c)
        texture = p.loadTexture(texture_files()[self.scene.appearance.texture],
                                physicsClientId=c)
        p.changeVisualShape(table, -1, textureUniqueId=texture,
                            rgbaColor=[*self.scene.appearance.table_rgb, 1], physicsClientId=c)
        p.changeDynamics(table, -1, lateralFriction=0.8, physicsClientId=c)
        floor = p.createVisualShape(p.GEOM_BOX, halfExtents=[2.5, 2.5, 0.01],
                                    rgbaColor=[*_FLOOR_RGB, 1], physicsClientId=c)
        below = p.createMultiBody(0.0, -1, floor, [0, 0, -0.75], physicsClientId=c)
        return int(table), int(below)
