"""Every finding: its level, what it says, what to do. The one place where the words stand.

docs/troubleshooting.md is written from this table: `safety-filter doctor --page`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple


class Level(IntEnum):
    """How bad it is; the exit code follows from the worst."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


class Row(NamedTuple):
    """`says` and `do` may name the finding's values in braces."""

    level: Level
    says: str
    do: str


_E, _W, _N = Level.ERROR, Level.WARNING, Level.NOTE
TABLE: dict[str, Row] = {
    # nodes
    "node.missing": Row(
        _E, "{node} is not there",
        "Start it, or give its name and namespace (--namespace). If it runs: both sides need the"
        " same ROS_DOMAIN_ID, middleware and discovery range.",
    ),
    "node.twice": Row(
        _E, "{count} nodes are called {node}",
        "End all but one: their commands mix.",
    ),
    "monitor.missing": Row(
        _W, "no monitor stands between the filter and the arm",
        "Launch with `monitor:=true`: monitor_node starts and filter_node is told; without it a"
        " filter that dies leaves the last velocity with the arm.",
    ),
    "state.stopped": Row(
        _E, "{node} says: {message}",
        "The words after the colon name the input or limit. What the monitor latched is released"
        " by `safety-filter call monitor_node reset` once that is mended.",
    ),
    "state.operator": Row(
        _W, "filter_node says: {message}",
        "Once nothing else is wrong, `safety-filter call filter_node reset` releases it, at a"
        " command near zero: vla_node's while it has no instruction (`safety-filter say ''`);"
        " another policy has to send zeros.",
    ),
    "state.warning": Row(
        _W, "{node} says: {message}",
        "See the node's `~/state` for its values.",
    ),
    "bounds.hidden": Row(
        _W, "the filter allows for {filter:g} m/s^2 of what moves (`obstacle_acceleration`),"
        " perception for {perception:g} out of sight (`hidden_acceleration`)",
        "Give both nodes the same bound: what speeds up behind something is else looked for where"
        " it no longer is.",
    ),
    "bounds.lead": Row(
        _W, "`position_lead` lets the arm go on by {lead:g} rad after a stop, {moved:.0f} mm at"
        " 0.5 m from a joint; the filter allows for {error:g} mm (`tracking_error`)",
        "Lower `position_lead` as far as the arm still follows, and set `tracking_error` to what"
        " is left, on filter_node.",
    ),
    "bounds.broken": Row(
        _E, "{node} saw declared bounds broken: {bounds}",
        "The claim rests on them: widen the parameter named, or find what breaks it (a slow"
        " camera, an arm that lags, a mover faster than declared).",
    ),
    "target.none": Row(
        _N, "the filter has no target: everything is an obstacle, the fingers keep away too",
        "Normal without a clear object of attention; perception's `~/state` says why. Once the"
        " fingers were round what the instruction means, nothing else is until they held"
        " something, it is gone, or another instruction comes.",
    ),
    "arm.publishers": Row(
        _E, "{topic} has publishers beside the filter and the monitor: {others}",
        "Remove them: an arm takes whichever command came last. SROS2 can forbid it, see"
        " docs/security.md.",
    ),
    "arm.type": Row(
        _E, "{topic} carries {type} for the arm; {listener} reads {types}",
        "Choose the output that the controller takes (`output:=`), or name the topic of the"
        " controller that takes this one (`output_topic:=`).",
    ),
    "arm.unheard": Row(
        _W, "nobody listens to {topic}, where the commands for the arm go",
        "Start the arm's controller, or remap the monitor's output to its topic.",
    ),
    # topics
    "topic.unpublished": Row(
        _E, "nobody publishes {topic} ({role} of {node})",
        "Start its source or remap the topic.",
    ),
    "topic.twice": Row(
        _W, "{topic} ({role} of {node}) comes from several nodes: {publishers}",
        "Leave one, or merge what they say in a node of its own: the newest message hides the"
        " others. Of obstacles from two the filter makes a stop.",
    ),
    "topic.silent": Row(
        _E, "{topic} ({role} of {node}) has a publisher but nothing came in {seconds:g} s",
        "See whether the source works; for big images see shared memory below; for another"
        " machine see that both are on one network and domain.",
    ),
    "topic.type": Row(
        _E, "{topic} carries {types}; {node} reads {expected}",
        "Convert the message or choose the input that fits (parameter `command`).",
    ),
    "qos.mismatch": Row(
        _E, "{publisher} and {node} do not match on {topic}: {reason}",
        "Commands to the arm are reliable, inputs are best effort; change the other side's QoS.",
    ),
    "rate.low": Row(
        _W, "{topic} ({role}) comes at {rate:.1f} Hz; at least {least:.0f} Hz would leave room for"
        " one lost message within its age limit",
        "Raise the source's rate, or the age limit if the bounds allow it.",
    ),
    "age.old": Row(
        _E, "{topic} ({role}) is {age:.3f} s old when it comes (99 %), limit {limit:g} s",
        "Find where the time goes (latency in the nodes' `~/state`), or whether clocks differ.",
    ),
    "frame.unknown": Row(
        _E, "{topic} ({role}) is in frame {frame!r}; the filter takes {expected}",
        "Set the frame at the source, or name it in `base_frames` if it is the robot's base.",
    ),
    # clocks
    "clock.ahead": Row(
        _E, "stamps of {topic} are {ahead:.3f} s in the future, tolerance {tolerance:g} s",
        "The sender's clock is ahead: synchronise the machines (chrony or PTP), or set"
        " use_sim_time on all nodes or on none.",
    ),
    "clock.far": Row(
        _E, "stamps of {topic} are {age:.1f} s old from the first message to the last",
        "Another clock: synchronise the machines, set use_sim_time on all nodes or on none, and"
        " see that the source stamps its messages.",
    ),
    "clock.silent": Row(
        _E, "filter_node has use_sim_time set, and nothing comes on /clock",
        "Start what publishes /clock (a simulator, or `ros2 bag play --clock`), or unset"
        " use_sim_time.",
    ),
    # machine
    "shm.small": Row(
        _W, "{free:.0f} MB are free in /dev/shm; images need {needed:.0f} MB",
        "Containers: --shm-size=1g or --ipc=host. Elsewhere: remount /dev/shm bigger.",
    ),
    "shm.profile": Row(
        _W, "images of {size:.1f} MB go through the middleware's default shared memory segment",
        "Set FASTDDS_DEFAULT_PROFILES_FILE to config/fastdds_shm.xml in every process, or most"
        " are lost.",
    ),
    "shm.users": Row(
        _W, "something is silent, and processes of other users ({users}) are on this machine:"
        " shared memory does not reach from one user to another",
        "Run all as one user (containers: --user with the driver's), or, where no images go, set"
        " FASTDDS_BUILTIN_TRANSPORTS=UDPv4 (not heeded with discovery range LOCALHOST).",
    ),
    "middleware": Row(_N, "middleware {rmw}, domain {domain}, discovery {discovery}", ""),
    "rt.denied": Row(
        _W, "{node}: {warning}",
        "In /etc/security/limits.conf: `@realtime - rtprio 98` for the user's group, or"
        " `setcap cap_sys_nice+ep` on the interpreter; containers: --cap-add=sys_nice"
        " --ulimit rtprio=98.",
    ),
    "rt.off": Row(
        _N, "the control loop runs under the normal scheduler (rtprio limit {limit})",
        "Set `fifo_priority` and `cpu` on filter_node and monitor_node where other work shares"
        " the machine.",
    ),
    "governor": Row(
        _N, "the processor's frequency follows the load (governor {governor})",
        "`cpupower frequency-set -g performance` shortens the loop's longest periods.",
    ),
    "deadline.misses": Row(
        _W, "{node} missed {share:.2%} of its ticks",
        "Give it a core of its own (`cpu`), a real-time priority, or a lower `rate`.",
    ),
    # latency
    "latency.budget": Row(
        _N, "camera to command {total:.0f} ms (99 %): perception {perception:.0f}, transport"
        " {transport:.0f}, filter {filter:.0f}; bound {bound:.0f} ms", "",
    ),
    "latency.over": Row(
        _E, "camera to command takes {total:.0f} ms (99 %), bound {bound:.0f} ms"
        " (obstacles_age)",
        "The filter stops when a picture is older. Shorten the largest part of the budget, or"
        " raise `obstacles_age`: the margins then grow with it.",
    ),
    "latency.near": Row(
        _W, "camera to command takes {total:.0f} ms (99 %), {share:.0%} of the bound",
        "A little load more and the filter stops; shorten the largest part of the budget.",
    ),
    # camera
    "extrinsics.off": Row(
        _E, "only {overlap:.0%} of the arm's picture has the depth that its model predicts",
        "The camera's pose, the joint states or the robot file are wrong, or depth is not"
        " registered to colour. Calibrate hand to eye again.",
    ),
    "extrinsics.poor": Row(
        _W, "{overlap:.0%} of the arm's picture has the depth that its model predicts",
        "Look at perception's overlay: calibrate again, or see what hides the arm.",
    ),
    "extrinsics.fine": Row(
        _N, "{overlap:.0%} of the arm's picture has the depth that its model predicts", "",
    ),
    "extrinsics.unseen": Row(
        _W, "the camera sees too little of the arm to judge its pose ({pixels} pixels)",
        "Move the arm into the picture and look again.",
    ),
    "extrinsics.unchecked": Row(
        _N, "camera pose not checked: {why}", "",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One finding as data: a code of TABLE and the values of its words."""

    code: str
    values: Mapping[str, Any]

    @property
    def level(self) -> Level:
        return TABLE[self.code].level

    @property
    def says(self) -> str:
        return TABLE[self.code].says.format(**self.values)

    @property
    def do(self) -> str:
        return TABLE[self.code].do.format(**self.values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        words = {"level": self.level.name, "says": self.says, "do": self.do}
        return {"code": self.code, **words, "values": dict(self.values)}


def found(code: str, **values: Any) -> Finding:
    """A finding; a value that its words need and does not have is an error here."""
    finding = Finding(code, values)
    _ = finding.says, finding.do
    return finding


def page() -> str:
    """docs/troubleshooting.md."""
    lines = [
        "# Troubleshooting",
        "",
        "Written by `safety-filter doctor --page > docs/troubleshooting.md`; do not edit by hand.",
        "`safety-filter doctor` looks at a live system for a few seconds and prints what of this",
        "it finds; `--json` gives the same as data. Exit code 0: nothing worse than a warning,",
        "1: errors, 2: the filter was not found; with `--strict` warnings count as errors.",
        "",
        "| finding | level | it says | what to do |",
        "|---|---|---|---|",
    ]
    for code, row in TABLE.items():
        says = re.sub(r"\{(\w+)[^}]*\}", r"*\1*", row.says)
        lines.append(f"| `{code}` | {row.level.name.lower()} | {says} | {row.do or '-'} |")
    return "\n".join(lines) + "\n"
