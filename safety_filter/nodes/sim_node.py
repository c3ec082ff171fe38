"""The simulated cell in real time: sensors out, joint velocities or a twist in, truth for tests.

One thread owns the world: it steps physics against absolute deadlines, renders, and publishes.
`~/command` takes JSON requests and `~/episode` answers each with its `id`::

    {"id": "7", "op": "load", "seed": 3, "suite": "demo", "input": "joint_velocity"}
    {"id": "8", "op": "start"}        {"id": "9", "op": "pause"}

A loaded scene stands still (sensors publish, time does not advance) until `start`, so that runs
of one seed are comparable. `input` names the only command input that moves the arm. Joint
velocities are held for ever, as arm controllers do; a twist times out, as servo drivers do.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, Float64MultiArray, String

from safety_filter.core.params import ParamTable, param
from safety_filter.nodes import conversion
from safety_filter.nodes.base import OK, WARN, ConfigureError, ManagedNode, run
from safety_filter.nodes.display import display_fault
from safety_filter.nodes.meters import RateMeter
from safety_filter.nodes.parameters import ParameterSet
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST
from safety_filter.sim.scene import SUITES, generate
from safety_filter.sim.world import DT, World

BASE_FRAME = "base"
INPUTS = ("joint_velocity", "twist")
ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
# Later than this behind its deadline, the clock is set anew instead of rushing through the gap, s
MAX_LAG = 0.25


@dataclass(frozen=True)
class SimParams:
    """Parameters of sim_node."""

    suite: str = param("dynamic-4", "-", None, None, "suite of the first scene", choices=SUITES)
    seed: int = param(0, "-", 0, 2**31, "seed of the first scene")
    input: str = param(
        "joint_velocity", "-", None, None, "command input that moves the arm", choices=INPUTS
    )
    camera_rate: float = param(15.0, "Hz", 1.0, 60.0, "rate of the cameras")
    joint_rate: float = param(240.0, "Hz", 30.0, 240.0, "rate of ~/joint_states")
    truth_rate: float = param(15.0, "Hz", 1.0, 60.0, "rate of ~/truth")
    twist_timeout: float = param(0.25, "s", 0.02, 5.0, "a twist older than this is zero")
    gui: bool = param(False, "-", None, None, "show PyBullet's window")
    autostart: bool = param(False, "-", None, None, "time advances without a start request")


TABLE = ParamTable.of(SimParams)


class SimNode(ManagedNode):
    """See the module's text. Topics are private names."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        self.params = ParameterSet(self, TABLE).value
        self._requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._twist: tuple[float, np.ndarray] | None = None
        self._joint_velocity: np.ndarray | None = None
        self._opening: float | None = None
        self._rejected = ""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._cameras = {
            name: (
                self.create_publisher(Image, f"~/{name}/image", NEWEST),
                self.create_publisher(CameraInfo, f"~/{name}/camera_info", NEWEST),
                self.create_publisher(PoseStamped, f"~/{name}/camera_pose", NEWEST),
            )
            for name in ("scene", "wrist")
        }
        self._depth = self.create_publisher(Image, "~/scene/depth", NEWEST)
        self._joint_states = self.create_publisher(JointState, "~/joint_states", NEWEST)
        self._truth = self.create_publisher(String, "~/truth", COMMAND)
        self._episode = self.create_publisher(String, "~/episode", LATCHED)
        self._instruction = self.create_publisher(String, "~/instruction", LATCHED)
        self.create_subscription(String, "~/command", self._on_command, 10)
        self._polled: list[tuple[Polled[Any], Callable[[Any], None]]] = [
            (Polled(self, TwistStamped, "~/twist_in", NEWEST), self._on_twist),
            (
                Polled(self, Float64MultiArray, "~/joint_velocity_in", NEWEST),
                self._on_joint_velocity,
            ),
            (Polled(self, Float64, "~/gripper_in", NEWEST), self._on_gripper),
        ]

    # -- inputs -------------------------------------------------------------------------------

    def _on_command(self, msg: String) -> None:
        try:
            request = json.loads(msg.data)
            if not isinstance(request, dict):
                raise ValueError("expected a JSON object")
        except ValueError as error:
            self._answer({"id": "", "state": "error", "error": f"command: {error}"})
            return
        self._requests.put(request)

    def _on_twist(self, msg: TwistStamped) -> None:
        vector = conversion.twist_vector(msg)
        if msg.header.frame_id != BASE_FRAME:
            self._rejected = f"twist frame_id: expected {BASE_FRAME}, got {msg.header.frame_id!r}"
        elif not np.isfinite(vector).all():
            self._rejected = "twist: expected finite values"
        else:
            self._twist = (time.monotonic(), vector)

    def _on_joint_velocity(self, msg: Float64MultiArray) -> None:
        values = np.array(msg.data)
        if values.shape != (7,) or not np.isfinite(values).all():
            self._rejected = f"joint velocity: expected 7 finite values, got {list(msg.data)}"
        else:
            self._joint_velocity = values

    def _on_gripper(self, msg: Float64) -> None:
        if np.isfinite(msg.data):
            self._opening = msg.data

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """See that a window can be opened where one is wanted."""
        fault = display_fault() if self.params.gui else None
        if fault is not None:
            raise ConfigureError(f"gui: {fault}")

    def activate(self) -> None:
        super().activate()
        self._end.clear()
        self._thread = self.start_thread(self._loop, "physics")

    def deactivate(self) -> None:
        super().deactivate()
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None

    # -- the world's thread -------------------------------------------------------------------

    def _loop(self) -> None:
        p = self.params
        self._input = p.input
        self._running = p.autostart
        self._min_distance = float("inf")
        self._success_time: float | None = None
        self._meters = {name: RateMeter(240) for name in ("physics", "camera")}
        cv2.setNumThreads(1)
        world = World(generate(p.seed, p.suite), gui=p.gui)
        self._announce(world, "")
        camera_every = max(1, round(1.0 / (DT * p.camera_rate)))
        joints_every = max(1, round(1.0 / (DT * p.joint_rate)))
        truth_every = max(1, round(1.0 / (DT * p.truth_rate)))
        deadline = time.monotonic()
        lost, tick = 0.0, 0
        while not self._end.is_set():
            self._serve(world)
            for polled, handle in self._polled:
                for msg in polled.drain():
                    handle(msg)
            if self._running:
                self._command(world)
                world.step()
            self._meters["physics"].tick(time.monotonic())
            if tick % joints_every == 0:
                self._publish_joints(world)
            if tick % camera_every == 0:
                self._publish_cameras(world)
            # Shifted by half a camera period: no tick does both
            if tick % truth_every == truth_every // 2:
                self._publish_truth(world)
            if tick % 120 == 60:
                self._publish_rates(lost)
            tick += 1
            deadline += DT
            wait = deadline - time.monotonic()
            if wait > 0.0:
                time.sleep(wait)
            elif wait < -MAX_LAG:
                lost -= wait
                deadline = time.monotonic()
        world.close()

    def _command(self, world: World) -> None:
        if self._input == "twist":
            fresh = self._twist
            timeout = self.params.twist_timeout
            alive = fresh is not None and time.monotonic() - fresh[0] <= timeout
            world.set_twist(fresh[1] if fresh is not None and alive else np.zeros(6))
        else:
            held = self._joint_velocity
            world.set_joint_velocity(held if held is not None else np.zeros(7))
        if self._opening is not None:
            world.set_gripper(self._opening)

    def _serve(self, world: World) -> None:
        """Carry out the requests received since the last step."""
        while not self._requests.empty():
            request = self._requests.get()
            name = str(request.get("id", ""))
            try:
                self._carry_out(world, request)
            except (ValueError, TypeError, RuntimeError) as error:
                self._answer({"id": name, "state": "error", "error": str(error)})
            else:
                self._announce(world, name)

    def _carry_out(self, world: World, request: dict[str, Any]) -> None:
        op = request.get("op")
        if op == "load":
            arm_input = request.get("input", self._input)
            if arm_input not in INPUTS:
                raise ValueError(f"input: expected one of {INPUTS}, got {arm_input!r}")
            if "seed" not in request:
                raise ValueError(f"seed: expected a number, got {request!r}")
            suite = request.get("suite", self.params.suite)
            held_out = bool(request.get("held_out", False))
            scene = generate(int(request["seed"]), suite, held_out=held_out)
            if "target" in request:
                names = [spec.name for spec in scene.specs]
                for key in ("target", "destination"):
                    if request.get(key) not in names:
                        raise ValueError(
                            f"{key}: expected one of {names}, got {request.get(key)!r}"
                        )
                target, destination = (names.index(request[k]) for k in ("target", "destination"))
                scene = scene.retask(target, destination)
            if "instruction" in request:
                scene = replace(scene, instruction=str(request["instruction"]))
            world.reset(scene)
            self._input, self._running = arm_input, False
            self._twist = self._joint_velocity = self._opening = None
            self._min_distance, self._success_time = float("inf"), None
        elif op in ("start", "pause"):
            self._running = op == "start"
        else:
            raise ValueError(f"op: expected load, start or pause, got {op!r}")

    # -- outputs ------------------------------------------------------------------------------

    def _answer(self, content: dict[str, Any]) -> None:
        self._episode.publish(String(data=json.dumps(content)))

    def _announce(self, world: World, request: str) -> None:
        scene = world.scene
        # Empty until the start, so that a policy does not move before the clock runs
        text = scene.instruction if self._running else ""
        self._instruction.publish(String(data=text))
        self._answer(
            {
                "id": request,
                "state": "running" if self._running else "ready",
                "suite": scene.suite,
                "seed": scene.seed,
                "input": self._input,
                "instruction": scene.instruction,
                "target": scene.target_spec.name,
                "destination": scene.destination_spec.name,
                "objects": [{"name": s.name, "role": s.role} for s in scene.specs],
            }
        )

    def _publish_joints(self, world: World) -> None:
        q, dq, opening = world.joint_state()
        if not self._running:
            dq = np.zeros(7)
        msg = JointState(name=[*ARM_JOINTS, *FINGER_JOINTS])
        msg.header.stamp = self.get_clock().now().to_msg()
        msg.header.frame_id = BASE_FRAME
        msg.position = array("d", [*q, opening / 2, opening / 2])
        msg.velocity = array("d", [*dq, 0.0, 0.0])
        self._joint_states.publish(msg)

    def _publish_cameras(self, world: World) -> None:
        # Nothing moves between the two: one stamp, and the scene last, because it triggers others
        now = self.now()
        for name in ("wrist", "scene"):
            images, infos, poses = self._cameras[name]
            frame_id = f"{name}_camera_optical"
            frame = world.render(name)
            height, width = frame.depth.shape
            infos.publish(conversion.camera_info(frame.K, width, height, now, frame_id))
            poses.publish(conversion.pose(frame.T_base_cam, now, BASE_FRAME))
            if name == "scene":
                self._depth.publish(conversion.image(frame.depth, "32FC1", now, frame_id))
            images.publish(conversion.image(frame.rgb, "rgb8", now, frame_id))
        self._meters["camera"].tick(time.monotonic())

    def _publish_truth(self, world: World) -> None:
        if self._running:
            self._min_distance = min(self._min_distance, world.min_distance())
            if self._success_time is None and world.success():
                self._success_time = world.time
        held = world.held
        content = {
            "stamp": self.now(),
            "time": world.time,
            "seed": world.scene.seed,
            "running": self._running,
            "success_time": self._success_time,
            "min_distance": min(self._min_distance, 0.5),
            "collisions": [
                {
                    "body": c.body,
                    "other": c.other,
                    "role": c.role,
                    "start": c.start,
                    "end": c.end,
                    "peak_force": c.peak_force,
                    "depth": c.depth,
                }
                for c in world.contacts
                if c.collision
            ],
            "displacement": world.displacement,
            "held": next((n for n, b in world.bodies.items() if b == held), None),
            "objects": [
                {
                    "name": o.name,
                    "role": o.role,
                    "position": o.position.tolist(),
                    "velocity": o.velocity.tolist(),
                    "half_extents": list(o.half_extents),
                }
                for o in world.truth()
            ],
        }
        self._truth.publish(String(data=json.dumps(content)))

    def _publish_rates(self, lost: float) -> None:
        now = time.monotonic()
        rates = {f"rate_{name}_hz": meter.rate(now) for name, meter in self._meters.items()}
        values = {**rates, "lost_s": lost, "input": self._input, "rejected": self._rejected}
        if self._rejected:
            self.publish_state(WARN, f"input rejected: {self._rejected}", values)
            self._rejected = ""
        elif rates["rate_physics_hz"] < 200.0:
            self.publish_state(WARN, "slower than real time", values)
        else:
            self.publish_state(OK, "running" if self._running else "ready", values)


def main() -> int:
    """Entry point."""
    return run(SimNode)



if __name__ == "__main__":
    sys.exit(main())
