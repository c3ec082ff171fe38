"""What a node knows of its inputs: age limits with named faults, and joint states over time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState

from safety_filter.nodes import conversion
from safety_filter.nodes.conversion import Array
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import NEWEST
from safety_filter.robot_source import Gripper


class Source:
    """One input with an age limit of its own; a rejected message does not renew it."""

    def __init__(self, name: str, limit: float) -> None:
        """limit: seconds of silence after which the input counts as gone."""
        self.name = name
        self.limit = limit
        self.rejection = ""
        self._last: float | None = None

    def accept(self, now: float) -> None:
        """A good message came at monotonic time `now`."""
        self._last = now
        self.rejection = ""

    def reject(self, reason: object) -> None:
        """A message came that cannot be used."""
        self.rejection = str(reason)

    def fault(self, now: float) -> str | None:
        """What is wrong with the input, or None."""
        if self.rejection:
            return self.rejection
        if self._last is None:
            return f"{self.name}: nothing received yet"
        age = now - self._last
        if age > self.limit:
            return f"{self.name}: silent for {age:.1f} s (limit {self.limit:g} s)"
        return None


def first_fault(sources: Iterable[Source], now: float) -> str | None:
    """The first fault among the sources, or None."""
    return next((f for s in sources if (f := s.fault(now)) is not None), None)


class JointInput:
    """`joint_states` of a node, taken when needed; `source` tells what is wrong with it."""

    def __init__(self, node: Node, age: float) -> None:
        self.source = Source("joint_states", age)
        self._polled = Polled(node, JointState, "joint_states", NEWEST, depth=256)
        self._history: JointHistory | None = None

    def configure(self, arm: Sequence[str], gripper: Gripper) -> None:
        """Name the joints to read."""
        self._history = JointHistory(arm, gripper)

    def update(self) -> JointHistory | None:
        """Take what came since the last call; the history, None before `configure`."""
        history = self._history
        if history is None:
            return None
        for msg in self._polled.drain():
            try:
                history.add(msg)
            except conversion.MessageError as error:
                self.source.reject(error)
            else:
                self.source.accept(time.monotonic())
        return history


class JointHistory:
    """Recent joint states, looked up at a stamp."""

    def __init__(self, arm: Sequence[str], gripper: Gripper, length: int = 256) -> None:
        self._reader = conversion.JointReader((*arm, *gripper.joints))
        self._arm, self._gripper = len(arm), gripper
        self._samples: deque[tuple[float, Array]] = deque(maxlen=length)
        self._lock = threading.Lock()

    def add(self, msg: JointState) -> None:
        """Keep one message; one that is older than the last says that the clock was set back.

        Raises:
            MessageError: joints missing or lengths that do not fit, values not finite.
        """
        position, _ = self._reader.read(msg)
        if not np.isfinite(position).all():
            raise conversion.MessageError("joint_states position: expected finite values")
        stamp = conversion.seconds(msg.header.stamp)
        with self._lock:
            if self._samples and stamp < self._samples[-1][0]:
                self._samples.clear()  # their stamps are of another time
            self._samples.append((stamp, position))

    def newest(self) -> tuple[Array, float] | None:
        """Arm positions (n,) and gripper opening in m of the newest state."""
        with self._lock:
            return self._split(self._samples[-1][1]) if self._samples else None

    def stamp(self) -> float | None:
        """Stamp of the newest state, s."""
        with self._lock:
            return self._samples[-1][0] if self._samples else None

    def at(self, stamp: float, tolerance: float) -> tuple[Array, float] | None:
        """Linear interpolation at `stamp`; None when no state is within `tolerance` s of it."""
        with self._lock:
            samples = list(self._samples)
        before = [s for s in samples if s[0] <= stamp][-1:]
        after = [s for s in samples if s[0] > stamp][:1]
        near = [s for s in (*before, *after) if abs(s[0] - stamp) <= tolerance]
        if not near:
            return None
        if len(near) == 1:
            return self._split(near[0][1])
        (t0, a), (t1, b) = near
        return self._split(a + (b - a) * ((stamp - t0) / (t1 - t0)))

    def _split(self, position: Array) -> tuple[Array, float]:
        return position[: self._arm].copy(), self._gripper.opening(position[self._arm :])
