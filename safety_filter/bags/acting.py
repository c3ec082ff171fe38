"""The policy over recorded pictures, in place of the recorded twists; see bags/source.py.

Which pictures it thinks about is recorded where it has a tap (`~/attention`); elsewhere it is one
in `POLICY_PERIOD`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safety_filter import images, pilot
from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import BagError
from safety_filter.bags.recording import Recording, Settings
from safety_filter.bags.source import NO_DELAY, Source
from safety_filter.core.inputs import Command
from safety_filter.core.params import ParamError
from safety_filter.pilot import PARTNER_WAIT, VlaParams

if TYPE_CHECKING:
    from safety_filter.vla.policy import PolicyOutput

PICTURES = ("image", "wrist_image")
POLICY_PERIOD = 0.2  # s between two calls of the policy where none was recorded
Chunks = list[tuple[float, "PolicyOutput"]]


def parameters(changes: Mapping[str, Any]) -> VlaParams:
    """Those of vla_node, from a file for the live one.

    Raises:
        BagError: a name is unknown or a value cannot be.
    """
    try:
        return pilot.TABLE.validate(changes)
    except ParamError as error:
        raise BagError(f"policy: {error}") from error


def act(path: Path, recording: Recording, settings: Settings, live: VlaParams) -> Chunks:
    """Chunks by the stamp of their picture that the policy answers the recorded pictures with.

    Raises:
        BagError: a topic is missing, or the policy cannot be loaded or used.
    """
    source = Source.open(path, recording, settings, (*PICTURES, "instruction"))
    try:
        acting = _Acting(source, live)
        for role, received, message in source.messages((*PICTURES, "instruction")):
            acting.take(role, received, message)
        acting.consider()
    except (ms.MessageError, ValueError, OSError) as error:
        raise BagError(f"policy: {error}") from error
    if not acting.found:
        raise BagError(f"{path}: no two pictures within {live.wrist_skew:g} s (wrist_skew) with"
                       f" joints within {live.joint_age:g} s (joint_age) and an instruction")
    return acting.found


class _Acting:
    """Shows the policy each picture that is due, with the newest one of the hand's camera.

    Raises ValueError or OSError for a policy that cannot be loaded, or used on a picture.
    """

    def __init__(self, source: Source, live: VlaParams) -> None:
        self.found: Chunks = []
        self._policy = pilot.load(live.weights, live.profile)
        self._tool = source.robot.mask()
        self._joints, self._live = source.joints, live
        maps = source.messages(("attention",))
        self._recorded = {ms.seconds(m.header.stamp) for _, _, m in maps}
        self._words, self._last = "", -np.inf
        self._waiting: Any = None  # a scene's picture, until the hand's of its time is there
        self._until = 0.0
        self._wrist: Any = None

    def take(self, role: str, received: float, message: Any) -> None:
        """Take the next message; received: s, on the clock of the bag."""
        if received > self._until:
            self.consider()
        if role == "instruction":
            self._words = message.data.strip()
        elif role == "wrist_image":
            self._wrist = message
        else:
            self.consider()
            self._waiting, self._until = message, received + PARTNER_WAIT
        if None not in (self._waiting, self._wrist) and self._gap() >= 0:
            self.consider()

    def _gap(self) -> float:
        """How much later than the scene's picture the hand's is, s."""
        stamps = (ms.seconds(m.header.stamp) for m in (self._wrist, self._waiting))
        return next(stamps) - next(stamps)

    def consider(self) -> None:
        """Run the policy on the picture that waits, with what there is."""
        scene, wrist, self._waiting = self._waiting, self._wrist, None
        if scene is None or wrist is None or not self._words:
            return
        stamp = ms.seconds(scene.header.stamp)
        apart = abs(ms.seconds(wrist.header.stamp) - stamp)
        joints = self._joints.at(stamp, self._live.joint_age)
        if apart > self._live.wrist_skew or joints is None or not self._due(stamp):
            return
        self._last = stamp
        from safety_filter.vla.policy import pack_proprioception

        pose = self._tool.tool_pose(*joints)
        proprio = pack_proprioception(pose[:3, 3], pose[:3, :3], joints[1])
        try:
            chunk = self._policy.act(
                images.rgb(scene), images.rgb(wrist), proprio, self._words, stamp)
        except ValueError as error:
            raise ValueError(f"picture at {stamp:.3f}: {error}") from error
        self.found.append((stamp, chunk))

    def _due(self, stamp: float) -> bool:
        if self._recorded:
            return stamp in self._recorded and stamp > self._last
        return stamp - self._last >= POLICY_PERIOD


def with_commands(recording: Recording, chunks: Chunks, blend: float) -> Recording:
    """The recording with the played-out chunks in place of the recorded twists.

    Each recorded twist keeps its times and gets the value that the player had then; where the
    chunks have run out, or before the first, there is no command. blend: s, as of vla_node.
    """
    from safety_filter.vla.chunk import ChunkPlayer

    table = recording.table.copy()
    clock = float(table["now_ros"][0] - table["now_mono"][0])
    starts = [stamp + NO_DELAY for stamp, _ in chunks]
    player, taken = ChunkPlayer(blend), 0
    known: tuple[float, Command | None] = (np.nan, None)
    for row in table:
        receipt = float(row["command_receipt"])
        if np.isnan(receipt):
            continue
        if receipt != known[0]:
            now = receipt + clock
            while taken < len(chunks) and starts[taken] <= now:
                player.push(chunks[taken][1], starts[taken])
                taken += 1
            value = player.read(now).twist
            stamp, frame = float(row["command_stamp"]), tk.text(row["command_frame"])
            played = None if value is None else Command(stamp, receipt, "twist", value, frame)
            known = receipt, played
        if known[1] is None:
            row["command_receipt"] = np.nan
        else:
            tk.put_command(row, known[1])
    return replace(recording, table=table)
