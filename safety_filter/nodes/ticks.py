"""`~/ticks`, `~/tick_obstacles`, `~/config`: what a recording needs to reproduce the decisions.

The control loop only keeps references; a timer writes the table ten times a second, and only
while somebody listens. Obstacles that ticks were the first to use are sent once more beside them:
a recorder may miss messages of others that reached the filter.
"""

from __future__ import annotations

import dataclasses
import json
import time
from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import String

from safety_filter.bags import ticks as columns
from safety_filter.core.inputs import ObstacleSample
from safety_filter.flight.recorder import Tick
from safety_filter.nodes import conversion
from safety_filter.nodes.base import ManagedNode
from safety_filter.nodes.qos import LATCHED

FORMAT = 1
PERIOD = 0.1  # s from one message to the next: what a crash of the filter may lose
KEPT = 2000  # ticks kept at most while the executor is held up
# Inputs by role, whether the parameters choose them or not
INPUTS = {
    "joint_states": "joint_states",
    "tool_pose": "~/tool_pose",
    "trajectory": "~/trajectory_in",
    "obstacles": "~/obstacles",
    "twist": "~/twist_in",
    "joint_command": "~/joint_command_in",
}
_RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=20, reliability=ReliabilityPolicy.RELIABLE
)


class TickStream:
    """`add` is called by the control loop, everything else by the executor."""

    def __init__(self, node: ManagedNode, group: Any = None) -> None:
        self._node = node
        self._ticks: deque[tuple[int, int, Tick]] = deque(maxlen=KEPT)
        self._watched = False
        self._count = 0
        # A bag may hold several lives of a filter: their configurations must not share numbers
        self.version = int(time.time())
        self._facts: dict[str, Any] = {}
        self._publisher = node.create_publisher(PointCloud2, "~/ticks", _RELIABLE)
        self._obstacles = node.create_publisher(PointCloud2, "~/tick_obstacles", _RELIABLE)
        self._sent: ObstacleSample | None = None
        self._config = node.create_publisher(String, "~/config", LATCHED)
        node.create_wall_timer(PERIOD, self.publish, group)

    def describe(
        self, spec: Mapping[str, Any], urdf: str, n: int, params: Any, node_params: Any
    ) -> None:
        """Publish the configuration of a new filter: robot file, URDF text, number of joints,
        the filter's and the node's parameters, and which topics the inputs come from."""
        self._n, self._count = n, 0  # counts from 1 again: another filter decides from here on
        layout = columns.fields(self._n)
        self._fields = [
            PointField(name=name, offset=offset, datatype=datatype, count=count)
            for name, offset, datatype, count in layout
        ]
        self._step = columns.tick_dtype(self._n).itemsize
        self._facts = {
            "format": FORMAT,
            "robot": dict(spec),
            "urdf": urdf,
            "node": dataclasses.asdict(node_params),
            "topics": {role: self._node.resolve_topic_name(t) for role, t in INPUTS.items()},
        }
        self.reconfigure(params)

    def reconfigure(self, params: Any) -> None:
        """Publish the filter's parameters, which hold from the next tick on."""
        self.version += 1
        content = {**self._facts, "version": self.version, "params": dataclasses.asdict(params)}
        self._config.publish(String(data=json.dumps(content)))

    def add(self, tick: Tick) -> None:
        """Keep one step if somebody listens."""
        self._count += 1
        if self._watched:
            self._ticks.append((self._count & 0xFFFFFFFF, self.version, tick))

    def publish(self) -> None:
        """Send what was kept since the last call."""
        self._watched = self._publisher.get_subscription_count() > 0
        kept = [self._ticks.popleft() for _ in range(len(self._ticks))]
        if not kept:
            self._sent = None
            return
        for _, _, tick in kept:
            used = tick.obstacles
            if used is not None and used is not self._sent and used.fault is None:
                self._obstacles.publish(conversion.cloud(used.tracks, used.stamp, used.frame_id))
            self._sent = used
        table = columns.table(kept, self._n)
        msg = PointCloud2(height=1, width=len(table), fields=self._fields, is_dense=True)
        msg.header.stamp = conversion.stamp(kept[-1][2].now_ros)
        msg.point_step = self._step
        msg.row_step = self._step * len(table)
        msg.data = array("B", table.tobytes())
        self._publisher.publish(msg)
