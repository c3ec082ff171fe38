"""The policy as a node: pictures, joint states and words in, a stamped twist stream out.

One thread runs the policy on the newest picture; a timer plays the chunks out. Without an
instruction there is nothing to do, and the node asks for standing still: zeros, with which a
latched stop of the filter can be reset. Whenever it cannot vouch for a command, it is silent on
`~/twist` and says why on `~/state`: the filter brakes on silence.
"""

from __future__ import annotations

import sys
import time
from collections import deque

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from safety_filter import images, pilot
from safety_filter.nodes import conversion
from safety_filter.nodes.base import ERROR, OK, WARN, ConfigureError, Latest, ManagedNode, run
from safety_filter.nodes.inputs import JointInput, Source, first_fault
from safety_filter.nodes.meters import Percentiles, RateMeter
from safety_filter.nodes.parameters import ParameterSet
from safety_filter.nodes.qos import COMMAND, LATCHED, NEWEST
from safety_filter.nodes.robot import RobotInput
from safety_filter.pilot import PARTNER_WAIT, TABLE, VlaParams

PRESENCE_WINDOW = 5  # pictures over which presence is averaged


class VlaNode(ManagedNode):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__("vla_node")
        self._set = ParameterSet(self, TABLE)
        p = self.params
        self._robot = RobotInput(self, p)
        self._image, self._wrist = Source("image", p.image_age), Source("wrist_image", p.image_age)
        self._joints = JointInput(self, p.joint_age)
        self._instruction = ""
        self._fault = ""  # what the policy's last picture was not good for
        self._notice = ""
        self._present: deque[float] = deque(maxlen=PRESENCE_WINDOW)
        self._fitting = ""  # the instruction that fitted what was in view
        self._newest: Latest[Image] = Latest()
        self._stamp = 0.0  # of the last picture considered, s
        self._wrist_image: Image | None = None
        self._policy_rate, self._twist_rate = RateMeter(50), RateMeter(100)
        self._act_time, self._age = Percentiles(500), Percentiles(500)
        self._profile = ""
        self._phase = ""
        self._twist = self.create_publisher(TwistStamped, "~/twist", COMMAND)
        self._gripper = self.create_publisher(Float64, "~/gripper", COMMAND)
        self._attention = self.create_publisher(Image, "~/attention", NEWEST)
        self._wrist_attention = self.create_publisher(Image, "~/wrist_attention", NEWEST)
        self.create_subscription(Image, "image", self._on_image, NEWEST)
        self.create_subscription(Image, "wrist_image", self._on_wrist, NEWEST)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_service(Trigger, "~/reset", self._on_reset)
        group = MutuallyExclusiveCallbackGroup()
        # Of real time: one of the ROS clock waits, where that is set back, until it has caught up
        self.create_wall_timer(1.0 / p.twist_rate, self._play, group)
        self._figures: dict[str, float] = {}
        self.create_wall_timer(1.0, self._measure, group)
        self.create_wall_timer(0.1, self._tell, group)

    @property
    def params(self) -> VlaParams:
        return self._set.value

    # -- life ---------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load weights and profile."""
        # Torch and transformers load here, so that bad parameters are told at once
        import torch

        from safety_filter.vla.chunk import ChunkPlayer
        from safety_filter.vla.policy import PolicyError

        torch.set_num_threads(1)
        p = self.params
        robot = self._robot.find()
        try:
            self._policy = pilot.load(p.weights, p.profile)
            self._tool = robot.mask()
        except (ValueError, OSError) as error:
            raise ConfigureError(str(error)) from error
        self._policy_error = PolicyError
        self._player = ChunkPlayer(p.blend)
        self._joints.configure(robot.arm_joints, robot.gripper)
        self._warm_up()

    def _warm_up(self) -> None:
        """One call before the first picture: the first is several times slower."""
        from safety_filter.vla.policy import pack_proprioception

        self._pack = pack_proprioception
        size = 256
        picture = np.zeros((size, size, 3), np.uint8)
        proprio = self._pack(np.array([0.4, 0.0, 0.3]), np.diag([1.0, -1.0, -1.0]), 0.08)
        self._policy.act(picture, picture, proprio, "put the red cube on the plate", 0.0)

    def activate(self) -> None:
        super().activate()
        self._worker = self.start_thread(self._think, "policy")

    def deactivate(self) -> None:
        was_active = self.active
        super().deactivate()
        if was_active:
            self._newest.clear()
            self._worker.join(timeout=2.0)
            self._twist.publish(self._stamped(np.zeros(6)))

    # -- inputs (executor) --------------------------------------------------------------------

    def _on_image(self, msg: Image) -> None:
        if self.active:
            self._newest.put(msg)

    def _on_wrist(self, msg: Image) -> None:
        self._wrist.accept(time.monotonic())
        self._wrist_image = msg

    def _on_instruction(self, msg: String) -> None:
        if msg.data.strip() != self._instruction:
            self._instruction = msg.data.strip()
            self._forget()

    def _on_reset(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        self._forget()
        answer.success, answer.message = True, "chunks forgotten"
        return answer

    def _presence(self) -> float | None:
        """Mean over the last pictures; None before the first."""
        seen = tuple(self._present)
        return sum(seen) / len(seen) if seen else None

    def _doubt(self) -> str:
        """Why nothing in view seems to fit the instruction, or nothing."""
        present = self._presence()
        if present is None or present >= self.params.present_min:
            return ""
        return (f"instruction {self._instruction!r}: nothing in view fits"
                f" (presence {present:.2f}, limit {self.params.present_min:g})")

    def _forget(self) -> None:
        self._present.clear()
        self._fitting = ""
        self._fault = ""
        if self.configured:
            self._player.clear()

    # -- the policy's thread ------------------------------------------------------------------

    def _think(self) -> None:
        while self.active:
            msg = self._newest.take(0.2)
            if msg is not None:
                self._consider(msg)

    def _consider(self, msg: Image) -> None:
        """Run the policy on one picture; a fault leaves the player to run out."""
        instruction, wrist = self._instruction, self._wrist_image
        stamp = conversion.seconds(msg.header.stamp)
        if stamp < self._stamp:
            # The clock was set back: a chunk of later than now would be played until then
            self._player.clear()
        self._stamp = stamp
        history = self._joints.update()
        assert history is not None
        try:
            scene = images.rgb(msg)
            self._image.accept(time.monotonic())
            if not instruction or wrist is None:
                self._fault = ""
                return
            until = time.monotonic() + PARTNER_WAIT
            while conversion.seconds(wrist.header.stamp) < stamp and time.monotonic() < until:
                time.sleep(1e-3)
                wrist = self._wrist_image or wrist
            skew = abs(conversion.seconds(wrist.header.stamp) - stamp)
            if skew > self.params.wrist_skew:
                limit = self.params.wrist_skew
                raise conversion.MessageError(
                    f"wrist_image: expected within {limit:g} s of the scene's, got {skew:.2f} s"
                )
            joints = history.at(stamp, self.params.joint_age)
            if joints is None:
                raise conversion.MessageError("joint_states: none at the time of the image")
            q, opening = joints
            pose = self._tool.tool_pose(q, opening)
            proprio = self._pack(pose[:3, 3], pose[:3, :3], opening)
            start = time.perf_counter()
            out = self._policy.act(scene, images.rgb(wrist), proprio, instruction, stamp)
        except (conversion.MessageError, self._policy_error) as error:
            self._fault = str(error)
            self._player.clear()
            return
        self._act_time.add(time.perf_counter() - start)
        if instruction != self._instruction:
            return  # it changed while the policy was thinking
        self._fault = ""
        self._present.append(out.present)
        # Later the hand hides what is meant, or it lies otherwise: no reason to stand still.
        if len(self._present) == PRESENCE_WINDOW and not self._doubt():
            self._fitting = instruction  # another may just have come: that is judged anew
        self._profile, self._phase = out.profile_id, out.phase
        self._policy_rate.tick(time.monotonic())
        self._age.add(self.now() - stamp)
        self._player.push(out, self.now())
        for publisher, map_, picture in (
            (self._attention, out.attention, msg),
            (self._wrist_attention, out.wrist_attention, wrist),
        ):
            if map_ is not None:
                stamp = conversion.seconds(picture.header.stamp)
                frame = f"{picture.header.frame_id}#{out.profile_id}"
                publisher.publish(conversion.image(map_, "32FC1", stamp, frame))

    # -- outputs (executor) -------------------------------------------------------------------

    def _obstacle_to_commanding(self) -> str:
        """Why nothing can be commanded, or ''."""
        for source, limit in (
            (self._image, self.params.image_age),
            (self._wrist, self.params.image_age),
            (self._joints.source, self.params.joint_age),
        ):
            source.limit = limit
        self._joints.update()
        sources = (self._image, self._wrist, self._joints.source)
        fault = first_fault(sources, time.monotonic()) or self._fault
        if not fault and self._fitting != self._instruction:
            fault = self._doubt()
        return fault

    def _play(self) -> None:
        if not self.active:
            return
        self._notice = ""
        if self._obstacle_to_commanding():
            return
        twist = np.zeros(6)
        if self._instruction:
            played = self._player.read(self.now())
            if played.twist is None or played.opening is None:
                self._notice = played.reason
                return
            twist = played.twist
            self._gripper.publish(Float64(data=played.opening))
        self._twist.publish(self._stamped(twist))
        self._twist_rate.tick(time.monotonic())

    def _stamped(self, twist: np.ndarray) -> TwistStamped:
        msg = conversion.fill_twist(TwistStamped(), twist, self.now())
        msg.header.frame_id = self.params.frame
        return msg

    def _measure(self) -> None:
        """Percentiles for the state; they take too long to be computed every time."""
        self._figures = {
            **self._act_time.values("latency_act_ms", 1e3),
            **self._age.values("latency_image_to_chunk_ms", 1e3),
        }

    def _tell(self) -> None:
        if not self.active:
            return
        now = time.monotonic()
        values: dict[str, object] = {
            "instruction": self._instruction,
            "profile": self._profile,
            "phase": self._phase,
            "rate_policy_hz": self._policy_rate.rate(now),
            "rate_twist_hz": self._twist_rate.rate(now),
            **self._figures,
        }
        present = self._presence()
        if present is not None:
            values["present"] = present
        if fault := self._obstacle_to_commanding():
            self.publish_state(ERROR, fault, values)
        elif not self._instruction:
            self.publish_state(WARN, "no instruction", values)
        elif self._notice:
            self.publish_state(WARN, f"not commanding: {self._notice}", values)
        else:
            self.publish_state(OK, "commanding", values)


def main() -> int:
    """Entry point."""
    return run(VlaNode)


if __name__ == "__main__":
    sys.exit(main())
