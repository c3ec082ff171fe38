"""filter_node's side of the mutual watch: whether the monitor, which passes commands on, lives."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rclpy.node import Node
from std_msgs.msg import UInt64

from safety_filter.core.params import param
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import NEWEST


@dataclass(frozen=True)
class WatchParams:
    """Parameters of the watch over the monitor."""

    monitored: bool = param(
        False, "-", None, None, "a monitor_node stands between this node and the arm"
    )
    monitor_silence: float = param(
        0.04, "s", 0.04, 0.5, "silence of the monitor after which zeros go to the arm directly;"
        " two of its signs of life at the least",
    )  # fmt: skip
    monitor_gone: float = param(
        0.25, "s", 0.04, 5.0, "silence of the monitor after which these stay until ~/reset"
    )


def timing(p: WatchParams) -> str | None:
    """What is wrong with the parameters together, or None."""
    if p.monitor_gone < p.monitor_silence:
        return (
            f"monitor_gone {p.monitor_gone:g} s must be at least"
            f" monitor_silence {p.monitor_silence:g} s"
        )
    return None


class MonitorWatch:
    """Since when the monitor is silent; `fault` says so while it is, and nothing else."""

    def __init__(self, node: Node, params: WatchParams) -> None:
        self._params = params
        self._beats = Polled(node, UInt64, "~/monitor_heartbeat", NEWEST)
        self._last = -math.inf
        self.fault = ""

    def update(self) -> bool:
        """Take what came since the last call; whether a monitor that was heard is gone."""
        for _ in self._beats.drain():
            self._last = time.monotonic()
        p, silent = self._params, time.monotonic() - self._last
        self.fault = ""
        if p.monitored and silent > p.monitor_silence:
            self.fault = "silent" if math.isfinite(silent) else "nothing received yet"
        return bool(self.fault) and p.monitor_gone < silent < math.inf
