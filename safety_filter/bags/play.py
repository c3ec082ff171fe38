"""Publishes a bag's inputs on their topics again, for a live filter under test.

Time is that of the bag: `/clock` goes out at a high rate, so start the nodes with
`use_sim_time:=true`; stamps in the messages stay as they were recorded and fit that clock. Without
it every recorded stamp is too old and the filter rightly stops. `ros2 bag play --clock 250` does
the same; both need the outputs of the recorded nodes left out, which is the default here.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from safety_filter.bags import recording
from safety_filter.bags.reader import Bag, BagError, ordered
from safety_filter.bags.record import message_class
from safety_filter.nodes import conversion
from safety_filter.nodes.tools import QUIET

CLOCK = "/clock"
CLOCK_RATE = 250.0  # Hz
CONNECT = 1.0  # s for subscribers to find the publishers
INPUTS = ("joint_states", "obstacles", "twist", "joint_command")
LATCHED = ("std_msgs/msg/String",)


class Player:
    """Publishers of the chosen topics and of /clock."""

    def __init__(self, node: Node, bag: Bag, topics: Collection[str]) -> None:
        self._publishers: dict[str, Any] = {}
        for name in topics:
            kind = bag.topics[name].type
            profile = QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=10,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL
                if kind in LATCHED
                else DurabilityPolicy.VOLATILE,
            )
            self._publishers[name] = node.create_publisher(message_class(kind), name, profile)
        # A bag with a clock of its own (simulated time) brings it along
        own = CLOCK in self._publishers
        self._clock = None if own else node.create_publisher(Clock, CLOCK, 10)

    def publish(self, name: str, data: bytes) -> None:
        self._publishers[name].publish(data)

    def tick(self, seconds: float) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=conversion.stamp(seconds)))


def chosen(bag: Bag, named: Collection[str]) -> list[str]:
    """The topics to play: those named, else the filter's inputs.

    Raises:
        BagError: one is not in the bag, or there is none.
    """
    if named:
        missing = [t for t in named if t not in bag.topics]
        if missing:
            raise BagError(f"no topic {missing[0]} in the bag; it has {', '.join(bag.topics)}")
        return list(named)
    inputs = recording.recorded_inputs(bag)
    if not inputs:  # somebody else's recording
        found = recording.find_topics(bag, recording.Settings())
        inputs = [found[role] for role in INPUTS if role in found]
    if not inputs:
        raise BagError(f"no inputs of the filter in the bag; it has {', '.join(bag.topics)};"
                       " name what to play with --topics")
    return [*inputs, *([CLOCK] if CLOCK in bag.topics else [])]


def play(path: Path, named: Collection[str], rate: float, end: threading.Event) -> int:
    """Play a bag once at `rate` times its speed; returns an exit code.

    Raises:
        BagError: nothing to play.
    """
    bag = Bag.open(path)
    topics = chosen(bag, named)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("safety_filter_player", **QUIET)
    try:
        player = Player(node, bag, topics)
        print(f"playing {', '.join(topics)} and /clock; nodes need use_sim_time:=true", flush=True)
        end.wait(CONNECT)
        count = _run(player, bag, topics, rate, end)
        end.wait(0.2)  # lets the middleware send the last messages
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    for note in bag.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{count} messages played")
    return 0


def _run(
    player: Player, bag: Bag, topics: Collection[str], rate: float, end: threading.Event
) -> int:
    """Publish at the recorded times against absolute deadlines."""
    count, start, zero, ticked = 0, time.monotonic(), None, -1.0
    for name, received, data in ordered(bag, topics):
        at = 1e-9 * received
        zero = at if zero is None else zero
        while True:
            now = zero + (time.monotonic() - start) * rate
            if now - ticked >= rate / CLOCK_RATE:
                player.tick(min(now, at))
                ticked = now
            if now >= at or end.is_set():
                break
            time.sleep(min(1.0 / CLOCK_RATE, (at - now) / rate))
        if end.is_set():
            break
        player.publish(name, data)
        count += 1
    return count
