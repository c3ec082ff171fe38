"""Parameters of monitor_node."""

from __future__ import annotations

from dataclasses import dataclass

from safety_filter.core.params import ParamTable, param
from safety_filter.nodes.arm_output import OutputParams
from safety_filter.nodes.loop import LoopParams
from safety_filter.robot_source import RobotParams


@dataclass(frozen=True)
class MonitorParams(RobotParams, OutputParams, LoopParams):
    """Parameters of monitor_node."""

    rate: float = param(250.0, "Hz", 50.0, 1000.0, "rate of the watch and of its output")
    silence: float = param(
        0.04, "s", 0.005, 0.5, "age at which the filter's last command is no longer passed on"
    )
    latch_after: float = param(
        0.25, "s", 0.02, 5.0, "a fault that lasts this long stops until ~/reset"
    )
    late_limit: int = param(
        3, "-", 1, 100, "as many gaps of the filter within a second also stop until ~/reset"
    )
    stop_acceleration: float = param(
        0.0, "rad/s^2", 0.0, 100.0, "for an arm that aborts on steps: zeros that take over, and"
        " the command after them, are approached at this by the joint that has the most to change;"
        " 0: at once; else 2 or more, so that top speed / 2 / this stays below horizon",
    )  # fmt: skip
    resume_time: float = param(
        0.1, "s", 0.0, 2.0, "after zeros, commands come back in full within this time",
        runtime=True,
    )  # fmt: skip
    separation: float = param(
        0.0, "m", -0.05, 0.3, "distance of links to obstacles that no command may lead inside",
        runtime=True,
    )  # fmt: skip
    horizon: float = param(
        0.12, "s", 0.01, 1.0, "a command is followed this far ahead at constant velocity",
        runtime=True,
    )  # fmt: skip
    check_every: int = param(4, "-", 1, 50, "ticks from one distance check to the next")
    frame: str = param("base", "-", None, None, "frame_id of twist_out: the robot's base")
    base_frames: tuple[str, ...] = param(
        ("base", "panda_link0"), "-", None, None, "frame ids that obstacles may be in: the base's"
    )
    joint_age: float = param(0.1, "s", 0.005, 1.0, "oldest joint state acted upon")
    obstacles_age: float = param(0.5, "s", 0.02, 2.0, "oldest obstacles acted upon")
    future_tolerance: float = param(
        0.02, "s", 0.001, 0.5, "a stamp further ahead than this counts as not received"
    )


def _timing(p: MonitorParams) -> str | None:
    if p.silence < 2.0 / p.rate:
        return f"silence {p.silence:g} s must be at least two periods of rate {p.rate:g} Hz"
    if p.latch_after < p.silence:
        return f"latch_after {p.latch_after:g} s must be at least silence {p.silence:g} s"
    if 0.0 < p.stop_acceleration < 2.0:
        return f"stop_acceleration {p.stop_acceleration:g} rad/s^2 must be 0, or at least 2"
    return None


TABLE = ParamTable.of(MonitorParams, (_timing,))
