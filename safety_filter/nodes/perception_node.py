"""Perception as a node: RGB-D, joint states and attention in, the obstacle cloud out.

A thread works on the newest complete picture. When something is wrong there is no cloud at all:
the filter takes an empty cloud for "looked, saw nothing" and silence for "stop".
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from safety_filter import images
from safety_filter.eyes import (
    NO_WORDS,
    TABLE,
    Extrinsics,
    EyesError,
    FixedExtrinsics,
    build,
    may_point,
)
from safety_filter.nodes import conversion
from safety_filter.nodes.base import ERROR, OK, WARN, ConfigureError, Latest, ManagedNode, run
from safety_filter.nodes.extrinsics import ByStamp, TfExtrinsics, TopicExtrinsics
from safety_filter.nodes.inputs import JointInput, Source, first_fault
from safety_filter.nodes.meters import Percentiles, RateMeter
from safety_filter.nodes.overlay import draw
from safety_filter.nodes.parameters import ParameterSet
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST
from safety_filter.nodes.robot import RobotInput
from safety_filter.perception.gaze import AttentionMap
from safety_filter.perception.params import TABLE as PERCEPTION_TABLE
from safety_filter.perception.params import PerceptionParams


class PerceptionNode(ManagedNode):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__("perception_node")
        self.params = ParameterSet(self, TABLE).value
        self._tuning = ParameterSet(self, PERCEPTION_TABLE, changed=self._retune)
        p = self.params
        self._robot = RobotInput(self, p)
        self._image, self._depth = Source("image", p.image_age), Source("depth", p.image_age)
        self._camera = Source("camera_info", 3600.0)
        self._joints = JointInput(self, p.image_age)
        self._work = Source("perception", max(1.0, 2 * p.image_age))
        self._images, self._depths = ByStamp(), ByStamp()
        self._info: CameraInfo | None = None
        self._maps: dict[str, Latest[Image]] = {
            name: Latest() for name in ("attention", "wrist_attention")
        }
        self._last_map: np.ndarray | None = None  # for the overlay
        self._newest: Latest[tuple[Image, Image]] = Latest()
        self._instruction = self._told = ""  # the newest words, and those perception knows
        self._reset_wanted = threading.Event()
        self._rate, self._image_rate, self._overlay_rate = (RateMeter(60) for _ in range(3))
        self._stages: dict[str, Percentiles] = defaultdict(lambda: Percentiles(300))
        self._cycle, self._age = Percentiles(500), Percentiles(500)
        self._facts: dict[str, object] = {}
        self._drawn = 0.0
        self._note = ""
        self._obstacles = self.create_publisher(PointCloud2, "~/obstacles", COMMAND)
        self._overlay = self.create_publisher(Image, "~/overlay", NEWEST)
        self.create_subscription(Image, "image", self._on_image, NEWEST)
        self.create_subscription(Image, "depth", self._on_depth, NEWEST)
        self.create_subscription(CameraInfo, "camera_info", self._on_info, NEWEST)
        for name, newest in self._maps.items():
            self.create_subscription(Image, name, newest.put, NEWEST)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._figures: dict[str, float] = {}
        self.create_wall_timer(1.0, self._measure)
        self.create_wall_timer(0.1, self._tell)

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the detector and the robot's geometry, and compile what the first picture needs."""
        import cv2

        from safety_filter.perception.warm_up import warm_up

        cv2.setNumThreads(1)
        p = self.params
        self._extrinsics: Extrinsics
        if p.extrinsics == "tf":
            self._extrinsics = TfExtrinsics(self, p.frame)
        elif p.extrinsics == "topic":
            self._extrinsics = TopicExtrinsics(self, p.frame, p.sync)
        else:
            self._extrinsics = FixedExtrinsics(p.camera_xyz, p.camera_xyzw)
        robot = self._robot.find()
        try:
            self._perception = build(robot, self._tuning.value, p.weights)
        except EyesError as error:
            raise ConfigureError(str(error)) from error
        self._told = ""
        warm_up(self._perception, len(robot.arm_joints))
        self._joints.configure(robot.arm_joints, robot.gripper)

    def activate(self) -> None:
        super().activate()
        self._worker = self.start_thread(self._look, "perception")

    def deactivate(self) -> None:
        was_active = self.active
        super().deactivate()
        if was_active:
            self._worker.join(timeout=2.0)

    def _retune(self, params: PerceptionParams, _: Mapping[str, object]) -> None:
        if self.configured:
            self._perception.params = params

    # -- inputs (executor) --------------------------------------------------------------------

    def _on_image(self, msg: Image) -> None:
        self._image.accept(time.monotonic())
        self._image_rate.tick(time.monotonic())
        self._images.add(msg)
        self._pair(msg, self._depths.near(msg, self.params.sync))

    def _on_depth(self, msg: Image) -> None:
        self._depth.accept(time.monotonic())
        self._depths.add(msg)
        self._pair(self._images.near(msg, self.params.sync), msg)

    def _pair(self, image: Image | None, depth: Image | None) -> None:
        if self.active and image is not None and depth is not None:
            self._newest.put((image, depth))

    def _on_info(self, msg: CameraInfo) -> None:
        self._camera.accept(time.monotonic())
        self._info = msg

    def _on_instruction(self, msg: String) -> None:
        self._instruction = msg.data

    def _on_reset(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        self._reset_wanted.set()
        answer.success, answer.message = True, "tracks forgotten"
        return answer

    # -- perception's thread ------------------------------------------------------------------

    def _look(self) -> None:
        while self.active:
            pair = self._newest.take(0.2)
            if self._reset_wanted.is_set():
                self._reset_wanted.clear()
                self._perception.reset()
            words = self._instruction  # the executor may replace it at any time
            if words != self._told:
                self._told = words
                self._perception.instruct(words)
            if pair is None:
                continue
            try:
                self._process(*pair)
            except (conversion.MessageError, ValueError) as error:
                self._work.reject(error)

    def _process(self, image: Image, depth: Image) -> None:
        """One picture to one cloud. Raises MessageError or ValueError for what cannot be used."""
        stamp = conversion.seconds(image.header.stamp)
        last = self._perception.tracker.stamp
        if last is not None and stamp <= last:
            if last - stamp > 1.0:
                self._perception.reset()  # the clock was set back
            return
        rgb, metres = images.rgb(image), images.depth(depth)
        images.registered(rgb, metres)
        seen = self._perception.params
        images.measured(metres, seen.depth_min, seen.depth_max, seen.depth_share)
        if self._info is None:
            return  # the state says that no camera_info came
        info = self._info
        if (info.height, info.width) != rgb.shape[:2]:
            raise conversion.MessageError(
                f"image size: expected {info.width}x{info.height} as in camera_info,"
                f" got {rgb.shape[1]}x{rgb.shape[0]}"
            )
        transform = self._extrinsics.at(image)
        history = self._joints.update()
        assert history is not None
        joints = history.at(stamp, self.params.joint_age)
        if joints is None:
            raise conversion.MessageError(
                f"joint_states: none within {self.params.joint_age:g} s of the image"
            )
        attention, fault = self._attention("attention")
        wrist_attention, wrist_fault = self._attention("wrist_attention")
        if attention is not None:
            self._last_map = attention.map
        heard = may_point(self._told, seen)
        if not heard:
            attention = wrist_attention = None
        start = time.perf_counter()
        result = self._perception.update(
            stamp,
            rgb,
            metres,
            images.intrinsics(info),
            transform,
            *joints,
            attention,
            wrist_attention,
        )
        self._obstacles.publish(conversion.cloud(result.tracks, stamp, self.params.frame))
        done = time.monotonic()
        self._cycle.add(time.perf_counter() - start)
        self._age.add(self.now() - stamp)
        for stage, milliseconds in result.timings.items():
            self._stages[stage].add(milliseconds)
        self._rate.tick(done)
        self._work.accept(done)
        self._note = (result.selection.reason or "") if heard else NO_WORDS
        self._facts = {
            "tracks": len(result.objects),
            "target": "none" if result.selection.target is None else result.selection.target,
            "target_reason": self._note,
            "held": "none" if result.held is None else result.held,
            "attention_fault": fault or wrist_fault or result.attention_fault or "",
        }
        watched = self._overlay.get_subscription_count() > 0
        # A little early is on time: pictures come at a rate of their own
        if watched and done - self._drawn > 0.9 / self.params.overlay_rate:
            self._drawn = done
            self._overlay_rate.tick(done)
            picture = draw(
                rgb,
                result.owner,
                result.objects,
                images.intrinsics(info),
                transform,
                self._last_map,
            )
            frame_id = image.header.frame_id
            self._overlay.publish(conversion.image(picture, "rgb8", stamp, frame_id))

    def _attention(self, name: str) -> tuple[AttentionMap | None, str]:
        """The newest map of a topic not yet used, and why it cannot be read, if so."""
        msg = self._maps[name].take(0.0)
        if msg is None:
            return None, ""
        try:
            values = images.float_map(msg)
        except conversion.MessageError as error:
            return None, f"{name}: {error}"
        return AttentionMap(conversion.seconds(msg.header.stamp), values), ""

    # -- state --------------------------------------------------------------------------------

    def _measure(self) -> None:
        """Percentiles for the state; they take too long to be computed every time."""
        self._figures = {
            **self._cycle.values("latency_cycle_ms", 1e3),
            **self._age.values("latency_image_to_obstacles_ms", 1e3),
        }
        for stage, times in list(self._stages.items()):
            self._figures |= times.values(f"latency_{stage}_ms")

    def _tell(self) -> None:
        if not self.active:
            return
        now = time.monotonic()
        values = {
            **self._facts,
            "rate_images_hz": self._image_rate.rate(now),
            "rate_obstacles_hz": self._rate.rate(now),
            "rate_overlay_hz": self._overlay_rate.rate(now),
            **self._figures,
        }
        self._joints.update()
        sources = (self._image, self._depth, self._camera, self._joints.source, self._work)
        fault = first_fault(sources, now)
        if fault is not None:
            self.publish_state(ERROR, fault, values)
        elif self._note:
            self.publish_state(WARN, f"no target: {self._note}", values)
        else:
            self.publish_state(OK, "tracking", values)


def main() -> int:
    """Entry point."""
    return run(PerceptionNode)


if __name__ == "__main__":
    sys.exit(main())
