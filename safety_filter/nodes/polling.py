"""Subscriptions read when their reader wants, not when the executor wakes up.

An executor's wake-up costs several times what a message does, and in a control loop's process it
competes with the loop for the interpreter. A polled subscription never wakes the executor: a loop
takes the newest message at the start of its tick, a worker takes what came since its last one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile

T = TypeVar("T")


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
        self._lock = threading.Lock()
        self._subscription = node.create_subscription(
            message, topic, lambda _: None, profile, callback_group=_NotForExecutors()
        )

    def rivals(self) -> str:
        """Which nodes publish the topic, if several do, in words; else ''.

        A process that was started again has the name of the one that died, whose end the
        middleware may take seconds to notice: they count as one.
        """
        node = self._node
        infos = node.get_publishers_info_by_topic(self._subscription.topic_name)
        names = sorted({f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos})
        if len(names) < 2:
            return ""
        return (
            f"{len(names)} nodes publish {self._subscription.topic_name} ({', '.join(names)}),"
            " expected one: the newest message would hide what the others see; merge them"
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
