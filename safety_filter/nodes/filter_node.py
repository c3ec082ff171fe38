"""The safety filter as a node.

The control loop is a thread of its own with absolute deadlines: it takes the newest message of
each input, decides, and publishes. The executor serves services, parameters and timers only, so
nothing competes with the loop while messages pour in. Outputs never fall silent and are never
NaN: whoever stops, explicit zeros go out at full rate.

Neither torch nor a simulator loads in this process.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import JointState, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from safety_filter.core.apart import compile_apart
from safety_filter.core.filter import START_STOPPED, SafetyFilter
from safety_filter.core.filter_params import TABLE as FILTER_TABLE
from safety_filter.core.filter_params import FilterParams, braking_fault
from safety_filter.core.inputs import JointSample, ObstacleSample
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.params import ParamError, ParamTable, param
from safety_filter.core.report import Decision
from safety_filter.core.robot import RobotError, RobotModel
from safety_filter.core.wire import empty_tracks
from safety_filter.flight import recorder as flight
from safety_filter.nodes import conversion, filter_state, monitor_watch, tool_pose
from safety_filter.nodes.arm_output import OutputParams
from safety_filter.nodes.base import ERROR, OK, WARN, ConfigureError, ManagedNode, run
from safety_filter.nodes.command_input import CommandInput, CommandParams
from safety_filter.nodes.filter_outputs import FilterOutputs
from safety_filter.nodes.flight import FlightParams, StopRecorder
from safety_filter.nodes.loop import SWITCH_INTERVAL, ControlLoop, LoopParams
from safety_filter.nodes.markers import of_decision
from safety_filter.nodes.meters import Percentiles, RateMeter
from safety_filter.nodes.parameters import ParameterSet
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import NEWEST
from safety_filter.nodes.robot import RobotInput
from safety_filter.nodes.teller import StateTeller
from safety_filter.nodes.ticks import TickStream
from safety_filter.robot_source import RobotParams

ZEROS_AT_END = 5
STOP_ANSWER = "stopped until ~/reset; a software stop, not an emergency stop"
BRAKING = 1.0  # s that a deactivation waits for the arm's velocity command to reach zero


@dataclass(frozen=True)
class FilterNodeParams(
    RobotParams, CommandParams, OutputParams, LoopParams, FlightParams, monitor_watch.WatchParams
):
    """Parameters of filter_node beside those of the filter itself."""

    frame: str = param("base", "-", None, None, "frame_id of twist_out: the robot's base")
    state_rate: float = param(10.0, "Hz", 1.0, 100.0, "rate of ~/state between changes")
    marker_rate: float = param(5.0, "Hz", 0.5, 30.0, "rate of ~/markers")


TABLE = ParamTable.of(FilterNodeParams, (monitor_watch.timing,))


class FilterNode(ManagedNode):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__("filter_node")
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.params = ParameterSet(self, TABLE).value
        self._tuning = ParameterSet(self, FILTER_TABLE, "", self._retune, self._check)
        self._source = RobotInput(self, self.params)
        self._joints: JointSample | None = None
        self._obstacles: ObstacleSample | None = None
        self._rejected: dict[str, str] = {}
        self._lock = threading.Lock()
        self._decision: Decision | None = None
        self._start_up = 0.0
        self._step_time = Percentiles(4000)
        self._image_to_command, self._obstacle_to_command = Percentiles(1000), Percentiles(1000)
        self._meters = {n: RateMeter(100) for n in ("joint_states", "obstacles", "commands")}
        self._answered: ObstacleSample | None = None
        self._rivals = ""  # who else publishes obstacles
        p = self.params
        self._teller = StateTeller(p.state_rate, self._tell, self.start_thread)
        self._out = FilterOutputs(self, p, p.frame, p.monitored, self._tuning.value.rate)
        self._stopped = START_STOPPED if self._tuning.value.start_stopped else ""  # by whom
        self._monitor = monitor_watch.MonitorWatch(self, p)
        self._vouched = False  # whether a command went through filter and monitor at last
        self._markers = self.create_publisher(MarkerArray, "~/markers", NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._commands = CommandInput(self, p, p.frame, self._tuning.value.future_tolerance)
        self._polled: list[tuple[Polled[Any], Callable[[Any], None]]] = [
            (Polled(self, JointState, "joint_states", NEWEST), self._on_joints),
            (Polled(self, PointCloud2, "~/obstacles", NEWEST), self._on_obstacles),
        ]
        for name, event in (("stop", flight.STOP), ("monitor_stop", flight.MONITOR_STOP)):
            self.create_service(Trigger, f"~/{name}", partial(self._on_stop, event))
        self.create_service(Trigger, "~/reset", self._on_reset)
        group = MutuallyExclusiveCallbackGroup()
        self._figures: dict[str, object] = {}
        self.create_wall_timer(0.5, self._measure, group)
        self.create_wall_timer(1.0, self._diagnose, group)
        self.create_wall_timer(1.0 / self.params.marker_rate, self._mark, group)
        self._ticks = TickStream(self, group)

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the robot and compile the filter."""
        start = time.monotonic()
        p = self.params
        robot = self._source.find()
        try:
            self._robot = RobotModel.load(robot.urdf, robot.spec)
            compile_apart(self._robot, robot.spec, self._tuning.value)
            self._kinematics = Kinematics(self._robot)
            self._filter = SafetyFilter(self._robot, self._tuning.value, time.perf_counter)
        except (RobotError, ParamError, ValueError) as error:
            raise ConfigureError(str(error)) from error
        if self._robot.tool_only:
            if p.monitored:
                raise ConfigureError(f"{robot.tool_link} alone has no monitor: monitor:=false")
            self._polled[0] = Polled(self, PoseStamped, "~/tool_pose", NEWEST), self._on_pose
        self._gripper = robot.gripper
        rate, say = self._tuning.value.rate, self.get_logger().info
        self._recorder = StopRecorder(p, rate, robot, self._robot.urdf, say)
        self._commands.configure(self._robot.joint_names)
        self._out.configure(self._robot)
        self._reader = conversion.JointReader((*self._robot.joint_names, *robot.gripper.joints))
        facts = robot.spec, self._robot.urdf, self._robot.n
        self._ticks.describe(*facts, self._tuning.value, p)
        self._filter.warm_up()
        self._start_up = time.monotonic() - start
        by = self._stopped or (flight.BY[flight.NODE_STOP] if self.was_active else "")
        if by:  # what stopped the filter before this one stops it too
            self._filter.stop(by)
        self._loop = ControlLoop(p, rate, self._tick, self.start_thread)
        self._teller.start()
        self._loop.start(self._recorder.flight.size)  # with zeros until activation

    def activate(self) -> None:
        """Start commanding; after a deactivation as after a reset: once the stick is centred."""
        again = self.was_active
        super().activate()
        with self._lock:
            if again and not self._stopped:
                self._filter.reset()
                self._recorder.flight.event(flight.RESET)

    def deactivate(self) -> None:
        """Brake; the loop goes on with zeros."""
        super().deactivate()
        with self._lock:
            self._stop(flight.NODE_STOP)
        deadline = time.monotonic() + BRAKING
        while (d := self._decision) is not None and d.qd.any() and not self.failure:
            if time.monotonic() > deadline:
                break
            time.sleep(2e-3)

    def cleanup(self) -> None:
        """End the loop; the last that goes out are zeros, before anything else may fail."""
        self._loop.stop()
        self._decision = None
        for _ in range(ZEROS_AT_END):
            self._stand()
            time.sleep(0.004)
        self._teller.stop()
        self._ticks.publish()

    def _check(self, params: FilterParams) -> str | None:
        return braking_fault(params, self._robot) if self.configured else None

    def _retune(self, _: FilterParams, changes: Mapping[str, object]) -> None:
        if self.configured:
            with self._lock:
                self._filter.update_params(changes)
                self._recorder.flight.clear()  # a record has one set of parameters
                self._ticks.reconfigure(self._filter.params)

    # -- inputs (taken at the start of each tick) -------------------------------------------------

    def _on_joints(self, msg: JointState) -> None:
        now = time.monotonic()
        self._meters["joint_states"].tick(now)
        opening = None
        try:
            q, dq = self._reader.read(msg)
            if self._gripper.joints:
                opening = self._gripper.opening(q[self._robot.n :])
                q, dq = q[: self._robot.n], dq[: self._robot.n]
        except conversion.MessageError as error:
            self._reject("joint_states", error)
            q = dq = np.zeros(0)  # of no size: the decision table has a row for it
        else:
            self._rejected.pop("joint_states", None)
        stamp = conversion.seconds(msg.header.stamp)
        self._joints = JointSample(stamp, now, q, dq, opening)

    def _on_pose(self, msg: PoseStamped) -> None:
        try:
            self._joints = tool_pose.sample(msg, time.monotonic(), self.params.frame)
            self._rejected.pop("tool_pose", None)
        except conversion.MessageError as error:
            self._reject("tool_pose", error)

    def _on_obstacles(self, msg: PointCloud2) -> None:
        now = time.monotonic()
        self._meters["obstacles"].tick(now)
        fault = self._rivals or None
        try:
            tracks = conversion.tracks(msg)
            self._rejected.pop("obstacles", None)
        except conversion.MessageError as error:
            self._reject("obstacles", error)
            tracks, fault = empty_tracks(), str(error)
        stamp = conversion.seconds(msg.header.stamp)
        self._obstacles = ObstacleSample(stamp, now, msg.header.frame_id, tracks, fault)

    def _reject(self, name: str, error: Exception) -> None:
        if name not in self._rejected:
            self.get_logger().error(str(error))
        self._rejected[name] = str(error)

    def _stop(self, event: int) -> None:
        if event != flight.NODE_STOP:
            self._stopped = self._stopped or flight.BY[event]  # outlasts every transition
        if self.configured:
            self._filter.stop(self._stopped or flight.BY[event])
            self._recorder.flight.event(event)

    def _on_stop(self, event: int, _: object, answer: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._stop(event)
        answer.success, answer.message = True, STOP_ANSWER
        return answer

    def _on_reset(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        if not self.active or self._monitor.fault:
            told = f"not reset: monitor: {self._monitor.fault}" if self.active else "not active"
            answer.success, answer.message = False, told
            return answer
        with self._lock:
            by, self._stopped = self._stopped, ""
            self._filter.reset()
            self._recorder.flight.event(flight.RESET)
        before = self._loop.ticks
        deadline = time.monotonic() + 0.2
        while self._loop.ticks < before + 2 and time.monotonic() < deadline:
            time.sleep(1e-3)
        waits = (decision := self._decision) is not None and decision.reason == "operator"
        with self._lock:
            waits = waits and self._filter.stopped  # it may just have been released
            if waits:  # what is refused must not take effect later, when nobody thinks of it
                self._stopped = by
                self._filter.withdraw_reset()
                self._recorder.flight.event(flight.WITHDRAWN)
        answer.success, answer.message = not waits, decision.detail if waits else "reset"
        return answer

    # -- the control loop ---------------------------------------------------------------------

    def _tick(self) -> None:
        for polled, handle in self._polled:
            for msg in polled.drain():
                handle(msg)
        now = time.monotonic()
        for _ in range(self._commands.update(self.now())):
            self._meters["commands"].tick(now)
        if self._monitor.update() and self._vouched and not self._stopped:
            with self._lock:
                self._stop(flight.MONITOR_GONE)
        if not self.active and self._decision is None:
            self._stand()
            return
        obstacles = self._obstacles
        start = time.perf_counter()
        with self._lock:
            now_mono, now_ros = time.monotonic(), self.now()
            gain = self._filter.params.position_gain
            command = self._commands.read(now_ros, gain)
            if self._monitor.fault:
                # A reset waits for the operator's command, not for these zeros
                still = self._commands.standstill(now_ros)
                command = None if self._filter.stopped else still
            decision = self._filter.step(now_mono, now_ros, self._joints, command, obstacles)
            inputs = self._joints, command, obstacles
            self._ticks.add(self._recorder.flight.add(now_mono, now_ros, *inputs, decision))
        self._recorder.watch(decision, now_mono)
        self._step_time.add(time.perf_counter() - start)
        self._decision = decision
        if not self._monitor.fault:
            self._vouched = decision.state != "STOPPED"
        self._out.publish(
            decision.qd, decision.twist, self.now(), self._joints,
            self._filter.params.joint_state_age, bool(self._monitor.fault),
        )  # fmt: skip
        if obstacles is not None and obstacles is not self._answered:
            self._answered = obstacles
            self._image_to_command.add(self.now() - obstacles.stamp)
            self._obstacle_to_command.add(time.monotonic() - obstacles.receipt)
        # Figures inside a reason change all the time; its name is what makes it another state
        message = self._message(decision)
        key = f"{message.split(':')[0]} {decision.no_target}"
        self._teller.offer(key, now, (self._level(decision), message, decision))

    def _stand(self) -> None:
        """Zeros without a decision: before the first activation, and at the end."""
        age = self._filter.params.joint_state_age
        self._out.zeros(self.now(), self._joints, age, bool(self._monitor.fault))

    # -- state --------------------------------------------------------------------------------

    def _message(self, decision: Decision) -> str:
        if not self.active:
            return "inactive"
        if self._monitor.fault:
            return f"STOPPED monitor: {self._monitor.fault}"
        unread = {
            "joint_state": self._rejected.get("joint_states", ""),
            "command": self._commands.fault,
        }
        return filter_state.message(decision, unread)

    def _level(self, decision: Decision) -> bytes:
        if not self.active:
            return WARN
        if decision.state == "STOPPED" or self._monitor.fault:
            return ERROR
        worth = self._loop.warning or decision.no_target or decision.broken_bounds
        return WARN if worth else OK

    def _values(self, decision: Decision) -> dict[str, object]:
        return {
            **filter_state.values(decision),
            "rejected": "; ".join(filter(None, (*self._rejected.values(), self._commands.fault))),
            "start_up_s": self._start_up,
            "warning": self._loop.warning,
            **self._loop.counts(),
            **self._figures,
        }

    def _measure(self) -> None:
        """What takes long, beside the loop: publishers, percentiles for the state."""
        self._rivals = self._polled[1][0].rivals()
        if not self.active:
            return
        now = time.monotonic()
        self._recorder.serve(self._filter.params, now)
        self._figures = {
            **self._loop.figures(),
            **{f"rate_{name}_hz": m.rate(now) for name, m in self._meters.items()},
            **self._step_time.values("latency_step_ms", 1e3),
            **self._image_to_command.values("latency_image_to_command_ms", 1e3),
            **self._obstacle_to_command.values("latency_obstacle_to_command_ms", 1e3),
        }

    def _tell(self, told: tuple[bytes, str, Decision]) -> None:
        level, message, decision = told
        self.publish_state(level, message, self._values(decision))

    def _diagnose(self) -> None:
        decision = self._decision
        if not self.active or decision is None:
            return
        msg = DiagnosticArray()
        msg.header.stamp = self.get_clock().now().to_msg()
        told = self._level(decision), self.get_name(), self._message(decision)
        msg.status = [conversion.status(*told, self._values(decision))]
        self._diagnostics.publish(msg)

    def _mark(self) -> None:
        joints, decision = self._joints, self._decision
        if decision is None or joints is None or self._markers.get_subscription_count() == 0:
            return
        stamp, frame = self.get_clock().now().to_msg(), self.params.frame
        known = self._kinematics, joints, self._obstacles, decision
        self._markers.publish(of_decision(*known, frame, stamp, self._filter.params, self.now()))


def main() -> int:
    """Entry point."""
    return run(FilterNode, pictures=False)


if __name__ == "__main__":
    sys.exit(main())
