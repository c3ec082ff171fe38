"""Records live topics as they come: serialised messages straight into MCAP.

The topics are those that the named nodes read and write, found in the graph, so remappings need
not be known. Subscriptions are polled without an executor: a message costs a copy, not a callback.
Memory is bounded by the middleware's queues and one chunk; twice a second the chunk is ended and
synced, so that a crash or a power cut costs what came after that.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Qos

from safety_filter.bags.writer import BagWriter, WriteError, qos
from safety_filter.nodes.tools import QUIET

POLL = 0.02  # s between two looks at the queues
FLUSH = 0.5  # s between two syncs: what a crash may cost, at most
DISCOVER = 0.2  # s between two looks at the graph
TELL = 5.0  # s between two lines of progress
QUEUE, IMAGE_QUEUE = 1000, 30  # messages kept by the middleware between two looks
LARGE = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
NEVER = ("/rosout", "/parameter_events")
FILTER_NODES = ("filter_node", "monitor_node")


@dataclass
class Choice:
    """What is recorded: topics of nodes (names, with a namespace if they have one), topics by
    name, or everything."""

    nodes: Sequence[str] = FILTER_NODES
    topics: Collection[str] = ()
    everything: bool = False


class Sink(Protocol):
    """Where messages go: a bag's writer, or a viewer."""

    def add_topic(self, name: str, kind: str, offered: Sequence[Qos] = ()) -> None:
        """Declare a topic. Raises WriteError for a type that it cannot take."""

    def write(self, name: str, data: bytes, received: int, published: int = 0) -> None:
        """Take a message; times in ns."""


@dataclass
class Recorder:
    """Subscribes to what is chosen and there; `poll` moves what came into the sink."""

    node: Node
    sink: Sink
    choice: Choice
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._subscriptions: dict[str, tuple[Any, Any]] = {}
        self._refused: set[str] = set()

    def discover(self) -> list[str]:
        """Subscribe to what is new in the graph; returns the new topics."""
        new = []
        for name, kinds in self._wanted().items():
            if name in self._subscriptions or name in self._refused or name in NEVER:
                continue
            publishers = self.node.get_publishers_info_by_topic(name)
            if not publishers:
                continue  # its quality of service is not known yet
            if len(kinds) != 1:
                self._refuse(name, f"{name}: {len(kinds)} types at once, not recorded")
                continue
            try:
                message = message_class(kinds[0])
                profiles = [p.qos_profile for p in publishers]
                self.sink.add_topic(name, kinds[0], [_written(p) for p in profiles[:1]])
            except (WriteError, ImportError, AttributeError) as error:
                self._refuse(name, str(error))
                continue
            depth = IMAGE_QUEUE if kinds[0] in LARGE else QUEUE
            subscription = self.node.create_subscription(
                message, name, lambda _: None, _matching(profiles, depth), raw=True
            )
            self._subscriptions[name] = subscription, message
            new.append(name)
        return new

    def poll(self) -> int:
        """Write what came since the last call; returns how many messages."""
        count = 0
        for name, (subscription, message) in self._subscriptions.items():
            handle = subscription.handle
            with handle:
                while (taken := handle.take_message(message, True)) is not None:
                    info = taken[1]
                    received = int(info["received_timestamp"]) or time.time_ns()
                    self.sink.write(name, taken[0], received, int(info["source_timestamp"]))
                    count += 1
        return count

    def _wanted(self) -> dict[str, list[str]]:
        """Topic -> types of what is chosen."""
        known = dict(self.node.get_topic_names_and_types())
        if self.choice.everything:
            return known
        found = {t: known[t] for t in self.choice.topics if t in known}
        present = dict(self.node.get_node_names_and_namespaces())
        for given in self.choice.nodes:
            namespace, _, name = given.rpartition("/")
            if name not in present:
                continue
            where = namespace or present[name]
            try:
                found.update(self.node.get_subscriber_names_and_types_by_node(name, where))
                found.update(self.node.get_publisher_names_and_types_by_node(name, where))
            except Exception as error:  # it left between the two calls
                if "does not exist" not in str(error) and "NonExistent" not in repr(error):
                    raise
        return found

    def _refuse(self, name: str, why: str) -> None:
        self._refused.add(name)
        self.notes.append(why)
        print(f"record: {why}", file=sys.stderr)


def message_class(kind: str) -> Any:
    """The Python class of a type such as std_msgs/msg/String. Raises ImportError."""
    package, _, name = kind.split("/")
    return getattr(import_module(f"{package}.msg"), name)


def _matching(profiles: Sequence[QoSProfile], depth: int) -> QoSProfile:
    """What all of the publishers can serve."""
    reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
    latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _written(profile: QoSProfile) -> Qos:
    return qos(
        profile.reliability == ReliabilityPolicy.RELIABLE,
        profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        max(1, profile.depth),
    )


def record(path: Path, choice: Choice, duration: float | None = None) -> int:
    """Record until SIGINT or SIGTERM, or for `duration` s; returns an exit code.

    Raises:
        WriteError: there is something at `path` already, or it cannot be made.
    """
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("safety_filter_recorder", **QUIET)
    total = 0
    try:
        with BagWriter(path) as bag:
            print(f"recording to {path}, end with Ctrl-C", flush=True)
            _loop(Recorder(node, bag, choice), bag, end, duration)
            total = sum(bag.counts.values())
        print(f"{path}: {total} messages of {len(bag.counts)} topics", flush=True)
    except WriteError:
        raise
    except OSError as error:
        print(f"record: {error}; what was written before can be read", file=sys.stderr)
        return 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    if total == 0:
        print("record: nothing was received; is the filter running, in this ROS_DOMAIN_ID?",
              file=sys.stderr)  # fmt: skip
    return int(total == 0)


def watch(sink: Sink, choice: Choice, end: threading.Event) -> None:
    """Hand live messages to `sink` until `end`; the caller has initialised rclpy."""
    node = rclpy.create_node("safety_filter_viewer", **QUIET)
    recorder = Recorder(node, sink, choice)
    discovered = -DISCOVER
    try:
        while not end.is_set():
            if time.monotonic() - discovered >= DISCOVER:
                discovered = time.monotonic()
                for name in recorder.discover():
                    print(f"  + {name}", flush=True)
            recorder.poll()
            end.wait(POLL)
    finally:
        node.destroy_node()


def _loop(
    recorder: Recorder, bag: BagWriter, end: threading.Event, duration: float | None
) -> None:
    started = time.monotonic()
    discovered = told = -DISCOVER
    flushed = started
    while not end.is_set():
        now = time.monotonic()
        if duration is not None and now - started >= duration:
            break
        if now - discovered >= DISCOVER:
            discovered = now
            for name in recorder.discover():
                print(f"  + {name}", flush=True)
        recorder.poll()
        if now - flushed >= FLUSH:
            flushed = now
            bag.flush()
        if now - started - told >= TELL:
            told = now - started
            counts = bag.counts
            print(f"{told:7.1f} s  {len(counts)} topics  {sum(counts.values())} messages"
                  f"  {bag.size / 1e6:.1f} MB", flush=True)  # fmt: skip
        end.wait(POLL)
    recorder.poll()
