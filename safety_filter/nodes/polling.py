"""Subscriptions read when their reader wants, not when the executor wakes up.

An executor's wake-up costs several times what a message does, and in a control loop's process it
competes with the loop for the interpreter. A polled subscription never wakes the executor: a loop
takes the newest message at the start of its tick, a worker takes what came since its last one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile

T = TypeVar("T")
LEASE = 30.0  # s after which the middleware has noticed that a process is gone


class _NotForExecutors(CallbackGroup):
    """Members are never put into an executor's wait set."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class Polled(Generic[T]):
    """A subscription that waits for `drain`; keeps the last `depth` messages until then."""

    def __init__(
        self, node: Node, message: type[T], topic: str, qos: QoSProfile, depth: int = 1
    ) -> None:
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=depth,
            reliability=qos.reliability,
            durability=qos.durability,
        )
        self._node = node
        self._several = math.inf  # since when the topic has more than one publisher
        self._lock = threading.Lock()
        self._subscription = node.create_subscription(
            message, topic, lambda _: None, profile, callback_group=_NotForExecutors()
        )

    def rivals(self) -> str:
        """Which nodes publish the topic, if several do, in words; else ''.

        Two of one name are told after `LEASE` alone: the first may have died and been started
        again.
        """
        topic, now = self._subscription.topic_name, time.monotonic()
        infos = self._node.get_publishers_info_by_topic(topic)
        names = sorted(f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos)
        self._several = min(self._several, now) if len(names) > 1 else math.inf
        if len(set(names)) < 2 and now - self._several < LEASE:
            return ""
        return (
            f"{len(names)} nodes publish {topic} ({', '.join(names)}), expected one: the newest"
            " message would hide what the others see; merge them"
        )

    def drain(self) -> Iterator[T]:
        """The messages that came since the last call, oldest first."""
        handle = self._subscription.handle
        with self._lock, handle:
            while True:
                taken = handle.take_message(self._subscription.msg_type, False)
                if taken is None:
                    return
                yield taken[0]
