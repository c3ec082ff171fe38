"""Quality of service of every topic: inputs newest-only, outputs what controllers ask for."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=reliability, durability=durability
    )


# Sensor and command inputs, and the simulator's sensors: matches both kinds of publisher
NEWEST = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
# Command outputs: arm controllers subscribe reliable
COMMAND = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
# States, instructions, descriptions: late joiners get the last one
LATCHED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
