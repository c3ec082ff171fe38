"""What every node has: the lifecycle, `~/state`, orderly ends, a main loop."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.srv import ChangeState
from rclpy._rclpy_pybind11 import RCLError
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from safety_filter import graph
from safety_filter.core.params import ParamError, ParamTable, param
from safety_filter.nodes import conversion
from safety_filter.nodes.parameters import ParameterSet, unknown
from safety_filter.nodes.qos import LATCHED

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)
REPEAT = 1.0  # s from one telling of its state to the next of a node that is not active
T = TypeVar("T")


class ConfigureError(RuntimeError):
    """A node cannot do its work (weights missing, model unusable); the message says why."""


class Latest(Generic[T]):
    """A slot for the newest item: `put` never waits, `take` waits for one not yet taken."""

    def __init__(self) -> None:
        self._item: T | None = None
        self._fresh = threading.Condition()

    def put(self, item: T) -> None:
        with self._fresh:
            self._item = item
            self._fresh.notify()

    def take(self, timeout: float) -> T | None:
        """The newest item not yet taken, or None after `timeout` s."""
        with self._fresh:
            if self._item is None:
                self._fresh.wait(timeout)
            item, self._item = self._item, None
            return item

    def clear(self) -> None:
        with self._fresh:
            self._item = None


class _EndedError(BaseException):
    """The process has been asked to end while it loads; nothing is commanded yet."""


@dataclass(frozen=True)
class LifeParams:
    """Parameters of every node."""

    activate_at_start: bool = param(
        True, "-", None, None, "configure and activate at start; false waits for lifecycle"
        " transitions",
    )  # fmt: skip


TABLE = ParamTable.of(LifeParams)


class ManagedNode(LifecycleNode):
    """Base of the nodes; each is a lifecycle node that by default takes itself to active.

    `configure` loads what is heavy and may raise ConfigureError, `activate` starts work,
    `deactivate` stops it and leaves zeros behind, `cleanup` ends what `configure` began. What
    commands an arm publishes zeros from `configure` to `cleanup` whenever it is not active.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.configured = self.active = self.was_active = False
        self.stopping = threading.Event()  # set when the process has been asked to end
        self.loading = False
        self._life = ParameterSet(self, TABLE).value
        self._transition = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._state = self.create_publisher(DiagnosticStatus, "~/state", LATCHED)
        self._state_key: tuple[bytes, str] | None = None
        self._last_status: DiagnosticStatus | None = None
        self.create_wall_timer(REPEAT, self._repeat)
        self.failure = ""  # traceback of a thread that died

    def configure(self) -> None:
        """Load and prepare. Raises ConfigureError."""

    def activate(self) -> None:
        """Start work."""
        self.active = self.was_active = True

    def deactivate(self) -> None:
        """Stop work; outputs end with zeros, or go on with zeros."""
        self.active = False

    def cleanup(self) -> None:
        """End what `configure` began; the last that goes out are zeros."""

    # -- transitions (by services, or by `start` and `end`) ---------------------------------------

    def _on_change_state(
        self, request: ChangeState.Request, answer: ChangeState.Response
    ) -> ChangeState.Response:
        """rclpy raises where a transition is not possible now, which would end the node."""
        try:
            return self._transition(request, answer)
        except RCLError as error:
            asked, (_, state) = request.transition.id, self._state_machine.current_state
            self.get_logger().warning(f"transition {asked} refused in state {state}: {error}")
            answer.success = False
            return answer

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.loading = True
            self.configure()
        except ConfigureError as error:
            self.publish_state(ERROR, f"not configured: {error}", {})
            return TransitionCallbackReturn.FAILURE
        except _EndedError:
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(traceback.format_exc())
            told = f"{type(error).__name__}: {error}"
            self.publish_state(ERROR, f"not configured: {told}; see the log", {})
            return TransitionCallbackReturn.FAILURE
        finally:
            self.loading = False
        self.configured = True
        if not self._life.activate_at_start:
            self.publish_state(WARN, "inactive", {})
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.activate()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.deactivate()
        self.publish_state(WARN, "inactive", {})
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.publish_state(WARN, "unconfigured", {})
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.publish_state(STALE, "shut down", {})
        return super().on_shutdown(state)

    def _release(self) -> None:
        if self.active:
            self.deactivate()
        if self.configured:
            self.cleanup()
        self.configured = False

    def start(self) -> None:
        """Configure and activate, if the parameters say so; a failure is told on `~/state`."""
        if not self._life.activate_at_start:
            self.publish_state(WARN, "unconfigured", {})
            return
        self.publish_state(WARN, "starting", {})
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def end(self) -> None:
        """Leave zeros, whatever state the node is in."""
        self._release()
        if self.failure:
            self.get_logger().fatal(self.failure)
        self.publish_state(STALE, "died" if self.failure else "shut down", {})

    def create_wall_timer(
        self, period: float, callback: Callable[[], None], group: CallbackGroup | None = None
    ) -> None:
        """Call `callback` every `period` s of real time: states and records must not stop where
        simulated time stands still."""
        self.create_timer(period, callback, group, Clock(clock_type=ClockType.STEADY_TIME))

    def now(self) -> float:
        """ROS clock, s."""
        return self.get_clock().now().nanoseconds * 1e-9

    def publish_state(self, level: bytes, message: str, values: Mapping[str, object]) -> None:
        """Publish `~/state`; log it when level or message changed."""
        self._last_status = conversion.status(level, self.get_name(), message, values)
        self._state.publish(self._last_status)
        key = (level, message.split(":")[0])
        if key != self._state_key:
            self._state_key = key
            # One call site a severity: rclpy refuses a site that changes its severity
            if level == OK:
                self.get_logger().info(message)
            elif level == ERROR:
                self.get_logger().error(message)
            else:
                self.get_logger().warning(message)

    def _repeat(self) -> None:
        """The state again, as a sign of life. Who is active gives that by its work, or not."""
        if self._last_status is not None and not self.active:
            self._state.publish(self._last_status)

    def start_thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Start a daemon thread; an exception in it ends the process with the traceback."""

        def guarded() -> None:
            try:
                target()
            except Exception:
                self.failure = traceback.format_exc()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread


def _no_room_for_pictures() -> None:
    """Leave out the segment of 16 MB that each process of the graph is given for pictures; a
    profile of the user's own stays."""
    try:
        shipped = graph.share(graph.PICTURES)
    except FileNotFoundError:
        return
    for name in graph.TRANSPORTS:
        if os.environ.get(name) == str(shipped):
            del os.environ[name]


def run(
    factory: Callable[[], ManagedNode], argv: list[str] | None = None, pictures: bool = True
) -> int:
    """Run one node until SIGINT or SIGTERM; zeros go out before the context closes.

    pictures: whether it sends or receives any.

    rclpy's own handlers would shut the context down first and nothing could be published any more.
    Returns the exit code: 2 for bad parameters, 1 when a thread of the node died.
    """
    if not pictures:
        _no_room_for_pictures()
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = factory()
        if problems := unknown(node, sys.argv if argv is None else argv):
            raise ParamError(problems)
    except ParamError as error:
        for problem in error.problems:
            print(f"parameter {problem}", file=sys.stderr)
        rclpy.shutdown()
        return 2
    node.stopping = stop

    def ask_to_end(*_: object) -> None:
        stop.set()
        if node.loading:
            # Lost where it meets a callback of compiled code: then it is raised again
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            raise _EndedError

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, ask_to_end)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.start()
        while rclpy.ok() and not stop.is_set() and not node.failure:
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        node.end()
        time.sleep(0.05)  # lets the middleware's threads send the last messages
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        # The interpreter takes seconds to collect what numba holds; launch kills after five
        gc.freeze()
    return 1 if node.failure else 0
