"""Exit code 0 while a node tells its state: fresh, and of one that is configured and not gone.

A filter that is STOPPED is healthy: that is its work, and restarting it would help nobody.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from safety_filter.nodes.tools import QUIET
from safety_filter.security import ENCLAVES

UNCONFIGURED = ("starting", "waiting for", "unconfigured", "not configured")
WAIT = 6.0  # s for discovery and two states
NODE = Path("/tmp/node")


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else NODE.read_text().strip()
    if os.environ.get("ROS_SECURITY_ENABLE") == "true":
        os.environ.setdefault("ROS_SECURITY_ENCLAVE_OVERRIDE", f"{ENCLAVES}/viewer")
    rclpy.init()
    node = rclpy.create_node("health", **QUIET)
    profile = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    states: list[DiagnosticStatus] = []
    node.create_subscription(DiagnosticStatus, f"{name}/state", states.append, profile)
    end = time.monotonic() + WAIT
    # The first may be the last words of a dead node; the second shows that it lives
    while len(states) < 2 and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.2)
    rclpy.try_shutdown()
    if len(states) < 2:
        print(f"{name}: no fresh state within {WAIT:g} s")
        return 1
    print(f"{name}: {states[-1].message}")
    unfit = states[-1].level == DiagnosticStatus.STALE
    return int(unfit or states[-1].message.startswith(UNCONFIGURED))


if __name__ == "__main__":
    sys.exit(main())
