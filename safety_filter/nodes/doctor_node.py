"""The eyes of `safety-filter doctor`: listens to a live graph and returns what was `Seen`."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import HistoryPolicy, QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import String

from safety_filter import graph
from safety_filter.doctor.checks import Endpoint, Seen, Stream
from safety_filter.doctor.machine import other_users
from safety_filter.nodes import conversion
from safety_filter.nodes.camera_check import CameraCheck
from safety_filter.nodes.qos import LATCHED, NEWEST
from safety_filter.nodes.tools import QUIET

NODES = tuple(graph.NODES)
DISCOVERY = 5.0  # s until the graph is known, at most
ANSWER = 3.0  # s to wait for a node's parameters
LATE = 1.0  # s for the latched state of a node that was discovered late
PLAN = "trajectory_msgs/msg/JointTrajectory"
# What a node reads, by type; a String is an instruction or a description, which come once
ROLES = {
    "sensor_msgs/msg/JointState": "joint states",
    "sensor_msgs/msg/PointCloud2": "obstacles",
    "geometry_msgs/msg/TwistStamped": "command",
    "std_msgs/msg/Float64MultiArray": "command",
    PLAN: "command",
    "sensor_msgs/msg/Image": "image",
    "sensor_msgs/msg/CameraInfo": "camera info",
    "geometry_msgs/msg/PoseStamped": "camera pose",
}
ARM_TYPES = {
    "joint_velocity": "std_msgs/msg/Float64MultiArray",
    "joint_position": "std_msgs/msg/Float64MultiArray",
    "trajectory": PLAN,
    "twist": "geometry_msgs/msg/TwistStamped",
}
# Limits of the filter that an input must keep to
LIMITS = {
    "joint states": "joint_state_age",
    "obstacles": "obstacles_age",
    "command": "command_age",
}
FRAMED = ("obstacles", "command")
WANTED = {
    "filter_node": (
        *LIMITS.values(), "base_frames", "future_tolerance", "monitored", "output", "frame",
        "obstacle_acceleration", "use_sim_time", "position_lead", "tracking_error",
    ),
    "perception_node": (
        "extrinsics", "camera_xyz", "camera_xyzw", "robot", "urdf", "description", "frame", "sync",
        "hidden_acceleration",
    ),
}  # fmt: skip


class Doctor(Node):
    """Listens; `look` does everything."""

    def __init__(self, context: Context, namespace: str) -> None:
        super().__init__("doctor", context=context, namespace=namespace, **QUIET)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)
        self._states: dict[str, tuple[int, str, dict[str, str]]] = {}
        self._followed: set[str] = set()
        self._tool_link = ""
        self._check = CameraCheck()

    def _on_state(self, name: str, msg: DiagnosticStatus) -> None:
        self._states[name] = (msg.level[0], msg.message, conversion.values(msg))

    def _on_config(self, msg: String) -> None:
        self._tool_link = json.loads(msg.data)["robot"]["tool_link"]

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def look(self, seconds: float) -> Seen:
        """Listen for `seconds` and return what there was to see."""
        names = self._discover()
        self._follow(names)
        if names["filter_node"]:
            self.create_subscription(String, "filter_node/config", self._on_config, LATCHED)
        seen = Seen(nodes={n: c for n, c in names.items() if n in NODES}, wanted=("filter_node",))
        parameters = {n: self._ask(n) for n in WANTED if names.get(n)}
        if parameters.get("filter_node", {}).get("use_sim_time"):  # ages are on the filter's clock
            seen.clock_known = self._take_simulated_time()
        self._of_machine(seen)
        self._of_filter(seen, parameters.get("filter_node", {}))
        # None where it is another perception
        seen.hidden_acceleration = parameters.get("perception_node", {}).get("hidden_acceleration")
        kinds = {n: self._read_by(n) for n in names if n in NODES and n != "sim_node"}
        seen.streams = [
            self._stream(name, topic, kind, parameters.get("filter_node", {}))
            for name, topics in kinds.items()
            for topic, kind in topics
            # One look at a topic is enough, the filter's first
            if name == "filter_node" or not self._read_before(name, topic, kinds)
        ]
        if parameters.get("perception_node"):
            words = [t for t, kind in self._read("perception_node") if kind.endswith("/String")]
            described = [t for t in words if t.endswith("description")]
            self._check.listen(self, parameters["perception_node"], *described[:1])
        start = time.monotonic()
        self._spin(seconds)
        # Endpoints at the end: discovery may take its time
        for stream in seen.streams:
            stream.seconds = time.monotonic() - start
            stream.publishers = self._endpoints(stream)
        names |= self._names()
        if self._follow(names):
            self._spin(LATE)
        seen.nodes = {n: c for n, c in names.items() if n in NODES}
        self._of_arm(seen, parameters.get("filter_node", {}))
        seen.states, seen.tool_link = dict(self._states), self._tool_link
        seen.unchecked, seen.overlap, seen.arm_pixels = self._check.judge()
        return seen

    def _follow(self, names: Counter[str]) -> bool:
        """Listen to the states of nodes not listened to yet; whether there are any."""
        new = ({*names} & {*NODES}) - self._followed  # a strict SROS2 policy knows no others
        for node in new:
            self.create_subscription(
                DiagnosticStatus, f"{node}/state", lambda m, n=node: self._on_state(n, m), LATCHED
            )
        self._followed |= new
        return bool(new)

    def _discover(self) -> Counter[str]:
        """Names in our namespace, once the filter is among them and no more are coming."""
        known = Counter[str]()
        end = time.monotonic() + DISCOVERY
        while time.monotonic() < end:
            self._spin(0.8)
            names = self._names()
            if names == known and names["filter_node"]:
                break
            known = names
        return known

    def _names(self) -> Counter[str]:
        """How many nodes of each name are in our namespace."""
        space = self.get_namespace()
        return Counter(n for n, s in self.get_node_names_and_namespaces() if s == space)

    def _read_before(self, name: str, topic: str, kinds: dict[str, list[tuple[str, str]]]) -> bool:
        earlier = list(kinds)[: list(kinds).index(name)]
        return any(topic == t for n in ("filter_node", *earlier) for t, _ in kinds.get(n, []))

    def _read_by(self, name: str) -> list[tuple[str, str]]:
        return [(topic, kind) for topic, kind in self._read(name) if kind in ROLES]

    def _read(self, name: str) -> list[tuple[str, str]]:
        """The topics that a node reads, with their types."""
        found = self.get_subscriber_names_and_types_by_node(name, self.get_namespace())
        return [(topic, kind) for topic, types in found for kind in types]

    def _ask(self, name: str) -> dict[str, Any]:
        client = self.create_client(GetParameters, f"{name}/get_parameters")
        end = time.monotonic() + ANSWER
        while not client.service_is_ready() and time.monotonic() < end:
            self._spin(0.05)
        future = client.call_async(GetParameters.Request(names=list(WANTED[name])))
        while not future.done() and time.monotonic() < end:
            self._spin(0.02)
        if not future.done():
            return {}
        values = [parameter_value_to_python(v) for v in future.result().values]
        return dict(zip(WANTED[name], values, strict=True))

    def _take_simulated_time(self) -> bool:
        """Change to the clock on /clock; return whether there is one."""
        self.set_parameters([Parameter("use_sim_time", value=True)])
        end = time.monotonic() + DISCOVERY
        while not self._now() and time.monotonic() < end:
            self._spin(0.05)
        return self._now() > 0.0

    def _now(self) -> float:
        """Seconds on our clock; zero until /clock is heard where time is simulated."""
        return self.get_clock().now().nanoseconds * 1e-9

    def _of_machine(self, seen: Seen) -> None:
        environment = os.environ
        seen.rmw = get_rmw_implementation_identifier()
        seen.domain = environment.get("ROS_DOMAIN_ID", "0")
        seen.discovery = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
        seen.profile = any(
            environment.get(f"{p}_DEFAULT_PROFILES_FILE") for p in ("FASTDDS", "FASTRTPS")
        )
        shared = Path("/dev/shm")
        seen.shm_free = shutil.disk_usage(shared).free if shared.is_dir() else None
        seen.shm_needed = graph.SHARED_MEMORY
        seen.shm_users = other_users(shared, os.getuid())
        seen.rtprio = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        seen.governor = governor.read_text().strip() if governor.is_file() else ""

    def _of_filter(self, seen: Seen, parameters: dict[str, Any]) -> None:
        if not parameters:
            return
        seen.monitored = bool(parameters["monitored"])
        seen.base_frames = tuple(parameters["base_frames"])
        seen.future_tolerance = float(parameters["future_tolerance"])
        seen.bound = float(parameters["obstacles_age"])
        seen.acceleration = float(parameters["obstacle_acceleration"])
        if parameters["output"] in ("joint_position", "trajectory"):
            seen.lead = float(parameters["position_lead"])
        seen.tracking_error = float(parameters["tracking_error"])

    def _of_arm(self, seen: Seen, parameters: dict[str, Any]) -> None:
        if not parameters:
            return
        last = "monitor_node" if seen.nodes.get("monitor_node") else "filter_node"
        kind = parameters["output"]
        told = self.get_publisher_names_and_types_by_node(last, self.get_namespace())
        topics = [topic for topic, types in told if types[0] == ARM_TYPES[kind]]
        if not topics:
            return

        def besides(topic: str) -> tuple[bool, bool]:
            """The filter's velocities and twist keep its own name where they go to no arm."""
            return f"/{last}/" in topic, not topic.endswith(f"/{kind}_out")

        seen.arm_topic, seen.arm_type = min(topics, key=besides), ARM_TYPES[kind]
        publishers = self.get_publishers_info_by_topic(seen.arm_topic)
        seen.arm_publishers = [p.node_name for p in publishers]
        listeners = self.get_subscriptions_info_by_topic(seen.arm_topic)
        seen.arm_listeners = [Endpoint(s.node_name, s.topic_type) for s in listeners]

    def _stream(self, name: str, topic: str, kind: str, limits: dict[str, Any]) -> Stream:
        role = ROLES[kind]
        # Without attention there is no target, which the states tell
        stream = Stream(name, role, topic, kind, optional="attention" in topic)
        # A trajectory is played out, and its age counts from its last point
        if name == "filter_node" and role in LIMITS and limits and kind != PLAN:
            stream.limit = float(limits[LIMITS[role]])
        # All messages count here, not only the newest
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=100, reliability=NEWEST.reliability
        )
        package, _, message_name = kind.split("/")
        message = getattr(importlib.import_module(f"{package}.msg"), message_name)
        self.create_subscription(message, topic, lambda m: self._count(stream, m), profile)
        return stream

    def _endpoints(self, stream: Stream) -> list[Endpoint]:
        """Who publishes it, and whether the reader's QoS matches."""
        readers = self.get_subscriptions_info_by_topic(stream.topic)
        own = next((s.qos_profile for s in readers if s.node_name == stream.node), NEWEST)
        result = []
        for p in self.get_publishers_info_by_topic(stream.topic):
            compatible, reason = qos_check_compatible(p.qos_profile, own)
            fault = reason if compatible == QoSCompatibility.ERROR else ""
            result.append(Endpoint(p.node_name, p.topic_type, fault))
        return result

    def _count(self, stream: Stream, msg: Any) -> None:
        stream.count += 1
        header = getattr(msg, "header", None)
        if header is not None:
            stamp = conversion.seconds(header.stamp)
            now = self._now()
            if stamp > 0.0 and now > 0.0:
                stream.ages.append(now - stamp)
            framed = stream.node == "filter_node" and stream.role in FRAMED
            stream.frame = header.frame_id if framed and hasattr(msg.header, "frame_id") else None
            if stream.expected == PLAN:
                stream.frame = None  # joints have none
        if hasattr(msg, "data") and hasattr(msg.data, "__len__"):
            stream.size = max(stream.size, int(np.asarray(msg.data).nbytes))
        if stream.node == "perception_node" or stream.role == "joint states":
            self._check.take(stream.role, msg)

    def close(self) -> None:
        self._executor.shutdown()
        self.destroy_node()


def look(seconds: float, namespace: str) -> Seen:
    """Look at the live graph of this domain."""
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    doctor = Doctor(context, namespace)
    try:
        return doctor.look(seconds)
    finally:
        doctor.close()
        rclpy.try_shutdown(context=context)
