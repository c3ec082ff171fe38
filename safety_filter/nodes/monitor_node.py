"""A second pair of eyes, in series between the filter and the arm, in a process of its own.

Why in series: a lie of the filter never reaches the arm, because every command passes through
here; in parallel two publishers would disagree and an arm takes whichever came last. The price is
that a dead monitor silences the arm's topic, so each watches the other: the filter hears this
node's output, and when it falls silent the filter itself sends zeros to the arm (see
filter_node). One failure at a time is covered; both processes frozen at once are not.

Zeros replace the filter's command when the filter is silent or late, when its command leads a
link inside the separation distance although standing still would not, and when joint states or
obstacles are missing. Lasting faults latch until `~/reset`; the filter is asked to stop as well.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque

import numpy as np
from rclpy.task import Future
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64MultiArray, UInt64
from std_srvs.srv import Trigger

from safety_filter.core.wire import track_fault
from safety_filter.monitor.ramp import Ramp
from safety_filter.nodes import conversion
from safety_filter.nodes.arm_output import ArmOutput
from safety_filter.nodes.base import ERROR, OK, WARN, ConfigureError, ManagedNode, run
from safety_filter.nodes.inputs import JointInput, Source
from safety_filter.nodes.loop import SWITCH_INTERVAL, ControlLoop
from safety_filter.nodes.meters import Percentiles, RateMeter
from safety_filter.nodes.monitor_params import TABLE, MonitorParams
from safety_filter.nodes.parameters import ParameterSet
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import NEWEST
from safety_filter.nodes.robot import RobotInput

RESET_SPEED = 0.05  # rad/s of the fastest joint: no command beyond is released by a reset
STOPPING = 1.0  # s at most that a deactivation waits for the arm to be sent zeros
HEARTBEAT = 0.016  # s from one sign of life to the next, sent after a tick's command


def beat_every(rate: float) -> int:
    """Ticks from one sign of life to the next at a rate in Hz."""
    return max(1, int(HEARTBEAT * rate))


class MonitorNode(ManagedNode):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__("monitor_node")
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._set = ParameterSet(self, TABLE)
        p = self.params
        self._command: tuple[float, np.ndarray] | None = None
        self._obstacles: tuple[float, float, np.ndarray] | None = None
        self._joints = JointInput(self, p.joint_age)
        self._tracks = Source("obstacles", p.obstacles_age)
        self._gaps: deque[float] = deque(maxlen=100)
        self._fault, self._fault_since = "", math.inf  # since when the filter is at fault
        self._latched = ""
        self._untold = False  # whether the filter has yet to be told to stop
        self._asked: Future | None = None
        self._collision = ""
        self._passing = False
        self._share = 0.0  # of the command that is passed on: from zeros it comes back in steps
        self._facts: dict[str, object] = {}
        self._told = ("", -math.inf)
        self._in_rate = RateMeter(100)
        self._check_time = Percentiles(1000)
        self._source = RobotInput(self, p)
        self._out = ArmOutput(self, p, "out", 1.0 / p.rate, p.frame)
        self._heartbeat = self.create_publisher(UInt64, "~/heartbeat", NEWEST)
        self._commands = Polled(self, Float64MultiArray, "~/joint_velocity_in", NEWEST)
        self._clouds = Polled(self, PointCloud2, "~/obstacles", NEWEST)
        self._stop_filter = self.create_client(Trigger, "~/filter_stop")
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._rivals = ""  # who else publishes obstacles
        self._figures: dict[str, object] = {}
        self.create_wall_timer(0.5, self._measure)

    @property
    def params(self) -> MonitorParams:
        return self._set.value

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Read the robot and its meshes."""
        from safety_filter.monitor.separation import SeparationChecker

        robot = self._source.find()
        try:
            self._checker = SeparationChecker(
                robot.urdf,
                robot.arm_joints,
                robot.gripper.gains,
                robot.tool_link,
                robot.links("hand"),
                robot.links("finger"),
                base_link=robot.base_link,
                spheres=robot.spheres,
            )
        except (ValueError, OSError) as error:
            raise ConfigureError(str(error)) from error
        stand_in = self._checker.by_spheres
        self._geometry = f"spheres of {', '.join(stand_in)}" if stand_in else "meshes"
        for why in stand_in.values():
            self.get_logger().warning(f"the filter's spheres stand in for a mesh: {why}")
        self._joints.configure(robot.arm_joints, robot.gripper)
        self._out.configure(robot.arm_joints)
        self._zeros = np.zeros(len(robot.arm_joints))
        p = self.params
        self._ramp = Ramp(p.stop_acceleration, p.silence, len(robot.arm_joints))

        self._last_tick = time.monotonic()
        self._ticks = 0
        self._loop = ControlLoop(self.params, self.params.rate, self._tick, self.start_thread)
        self._loop.start()  # with zeros until activation

    def activate(self) -> None:
        """Pass commands on; after a deactivation, as after a reset, none that is under way."""
        if self.was_active and (reason := _in_motion(self._command)):
            self._latch(reason)
        super().activate()

    def deactivate(self) -> None:
        """Zeros from the next tick on, or as soon as `stop_acceleration` allows."""
        super().deactivate()
        self._passing = False
        time.sleep(2.0 / self.params.rate)
        deadline = time.monotonic() + STOPPING
        while not self._ramp.at_rest and not self.failure and time.monotonic() < deadline:
            time.sleep(2e-3)

    def cleanup(self) -> None:
        """End the loop; the last that goes out are zeros."""
        self._loop.stop()
        for _ in range(5):
            self._publish(self._zeros)
            time.sleep(0.004)

    # -- inputs (taken at the start of each tick) -------------------------------------------------

    def _on_command(self, msg: Float64MultiArray) -> None:
        now = time.monotonic()
        previous = self._command
        if self._passing and previous is not None and now - previous[0] > self.params.silence:
            self._gaps.append(now)
        self._in_rate.tick(now)
        self._command = (now, np.array(msg.data))

    def _on_obstacles(self, msg: PointCloud2) -> None:
        try:
            tracks = conversion.tracks(msg)
            fault = track_fault(tracks)
            if fault is not None:
                raise conversion.MessageError(f"obstacles: {fault}")
            if msg.header.frame_id not in self.params.base_frames:
                raise conversion.MessageError(
                    f"obstacles: frame_id: expected one of {', '.join(self.params.base_frames)},"
                    f" got {msg.header.frame_id!r}; name the base's in base_frames"
                )
            if self._rivals:
                raise conversion.MessageError(f"obstacles: {self._rivals}")
            age = self._age("obstacles", conversion.seconds(msg.header.stamp))
        except conversion.MessageError as error:
            self._tracks.reject(error)
            return
        now = time.monotonic()
        self._obstacles = (now, age, tracks)
        self._tracks.accept(now - age)  # the older of receipt and stamp counts, as everywhere

    def _age(self, name: str, stamp: float) -> float:
        """Age of a stamp, s. Raises MessageError for one from the future."""
        age = self.now() - stamp
        if age < -self.params.future_tolerance:
            raise conversion.MessageError(
                f"{name} stamp: expected the past, got {-age:.3f} s ahead"
            )
        return max(0.0, age)

    def _on_reset(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        now = time.monotonic()
        command = self._command  # the loop may take another one meanwhile
        reason = self._filter_fault(now) or self._input_fault(now) or _in_motion(command)
        if reason:
            answer.success, answer.message = False, f"not reset: {reason}"
            return answer
        self._latched = ""
        self._gaps.clear()
        answer.success, answer.message = True, "reset"
        return answer

    # -- the watch ----------------------------------------------------------------------------

    def _filter_fault(self, now: float) -> str:
        """What the filter does wrong now, or ''. Lasting, it stops until ~/reset."""
        if self._command is None:
            return "filter: nothing received yet"
        received, qd = self._command
        if now - received > self.params.silence:
            return f"filter: silent (limit {self.params.silence:g} s)"
        if qd.shape != self._zeros.shape or not np.isfinite(qd).all():
            return f"filter: expected {len(self._zeros)} finite velocities, got {qd.tolist()}"
        return self._collision

    def _input_fault(self, now: float) -> str:
        """Without inputs nothing can be vouched for; goes as the inputs come back."""
        joints = self._joints.source.fault(now) or self._joints_age()
        return joints or self._tracks.fault(now) or ""

    def _joints_age(self) -> str:
        """What is wrong with the newest joint state's stamp, or ''."""
        history = self._joints.update()
        stamp = None if history is None else history.stamp()
        try:
            age = 0.0 if stamp is None else self._age("joint_states", stamp)
        except conversion.MessageError as error:
            return str(error)
        limit = self.params.joint_age
        return "" if age <= limit else f"joint_states: {age:.1f} s old (limit {limit:g} s)"

    def _tick(self) -> None:
        p = self.params
        now = time.monotonic()
        frozen, self._last_tick = now - self._last_tick, now
        if self._passing and frozen > p.latch_after:
            self._latch(f"monitor: was frozen for {frozen:.2f} s")
        self._ticks += 1
        for command in self._commands.drain():
            self._on_command(command)
        for cloud in self._clouds.drain():
            self._on_obstacles(cloud)
        self._joints.update()
        if self._ticks % p.check_every == 0:
            self._check(now)
        fault = self._filter_fault(now)
        if not fault:
            self._fault_since = now
        elif self._passing and now - self._fault_since > p.latch_after:
            self._latch(fault)
        fault = fault or self._input_fault(now)
        self._fault = fault
        while self._gaps and now - self._gaps[0] > 1.0:
            self._gaps.popleft()
        if len(self._gaps) >= p.late_limit:
            self._latch(f"filter: late {len(self._gaps)} times within a second")
        if self._latched or fault or not self.active:
            self._share = 0.0
            self._publish(self._ramp.step(self._zeros, now, False))
        else:
            assert self._command is not None
            self._passing = True
            self._share = min(1.0, self._share + 1.0 / max(1.0, p.rate * p.resume_time))
            wanted = self._share * self._command[1]
            self._publish(self._ramp.step(wanted, now, self._share == 1.0))
        if self._ticks % beat_every(p.rate) == 0:
            self._heartbeat.publish(UInt64(data=self._ticks))
        self._tell(now)

    def _latch(self, reason: str) -> None:
        """Zeros until ~/reset; asks the filter to stop too, without waiting for it."""
        if self._latched:
            return
        self._latched = reason
        self._passing, self._untold = False, True
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        if not (self._untold and self._stop_filter.service_is_ready()):
            return
        if self._asked is not None:  # a filter that died never answers
            self._stop_filter.remove_pending_request(self._asked)
        self._asked = self._stop_filter.call_async(Trigger.Request())
        self._asked.add_done_callback(self._on_stopped)

    def _on_stopped(self, answer: Future) -> None:
        if answer.exception() is None and answer.result().success:
            self._untold = False

    def _check(self, now: float) -> None:
        """Follow the newest command ahead with our own distances."""
        p = self.params
        command, obstacles = self._command, self._obstacles
        history = self._joints.update()
        joints = history.newest() if history is not None else None
        if command is None or obstacles is None or joints is None:
            return
        qd = command[1]
        if qd.shape != self._zeros.shape or not np.isfinite(qd).all():
            return  # told by _filter_fault
        start = time.perf_counter()
        received, age, tracks = obstacles
        q, opening = joints
        age += now - received
        verdict = self._checker.check(q, opening, qd, tracks, age, p.horizon, p.separation)
        self._check_time.add(time.perf_counter() - start)
        ahead = verdict.violation
        near = "" if ahead is None else f"{ahead.link} and track {ahead.track}"
        self._collision = near and f"collision ahead: {near}"
        self._facts = {
            "distance_m": verdict.now.distance,
            "link": verdict.now.link,
            "track": verdict.now.track,
            "distance_commanded_m": verdict.commanded.distance,
            "distance_standing_m": verdict.standing.distance,
        }

    def _publish(self, qd: np.ndarray) -> None:
        """To the arm, in the form it takes."""
        measured, twist = None, np.zeros(6)
        if self._out.kind != "joint_velocity":
            history = self._joints.update()
            newest = history.newest() if history is not None else None
            if newest is not None and not self._joints.source.fault(time.monotonic()):
                measured = newest[0]
                if self._out.kind == "twist" and qd.any():
                    twist = self._checker.tool_twist(*newest, qd)
        self._out.publish(qd, twist, measured, self.now())

    def _measure(self) -> None:
        """What takes long, beside the loop: publishers, percentiles for the state."""
        self._rivals = self._clouds.rivals()
        if self._latched:
            self._ask_to_stop()
        if self.active:
            self._figures = {
                **self._loop.figures(),
                "rate_filter_hz": self._in_rate.rate(time.monotonic()),
                **self._check_time.values("latency_check_ms", 1e3),
            }

    def _tell(self, now: float) -> None:
        if not self.was_active:
            return  # the transitions tell
        if not self.active:
            level, message = WARN, "inactive"
        elif self._latched:
            level, message = ERROR, f"STOPPED {self._latched}"
        elif self._fault:
            level, message = ERROR, f"ZERO {self._fault}"
        else:
            level, message = OK, "PASSING"
        known, last = self._told
        if message == known and now - last < 0.2:
            return
        self._told = (message, now)
        values = {
            **self._facts,
            "geometry": self._geometry,
            "fault": self._fault,
            "latched": self._latched,
            "warning": self._loop.warning,
            **self._loop.counts(),
            **self._figures,
        }
        self.publish_state(level, message, values)


def _in_motion(command: tuple[float, np.ndarray] | None) -> str:
    """Why a reset or an activation would start the arm, or ''."""
    speed = 0.0 if command is None else float(np.abs(command[1]).max(initial=0.0))
    if speed <= RESET_SPEED:
        return ""
    return (
        f"filter: commands {speed:.2f} rad/s, expected at most {RESET_SPEED:g}: a reset or an"
        " activation must not start the arm; stop the filter (filter_node/stop) or its command"
        " first"
    )


def main() -> int:
    """Entry point."""
    return run(MonitorNode, pictures=False)


if __name__ == "__main__":
    sys.exit(main())
