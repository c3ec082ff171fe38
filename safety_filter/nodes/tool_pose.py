"""The pose of a tool on its own, for filter_node without a model of the arm."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped

from safety_filter.core.inputs import JointSample, tool_pose
from safety_filter.nodes import conversion


def sample(msg: PoseStamped, receipt: float, frame: str) -> JointSample:
    """What the filter takes in place of joint states; `frame` is that of the robot's base.

    Raises:
        MessageError: another frame; what is not a pose is left to the filter's own checks.
    """
    if msg.header.frame_id != frame:
        raise conversion.MessageError(
            f"tool_pose: frame_id: expected {frame!r}, got {msg.header.frame_id!r}"
        )
    p, o = msg.pose.position, msg.pose.orientation
    return tool_pose(
        conversion.seconds(msg.header.stamp), receipt, np.array([p.x, p.y, p.z]),
        np.array([o.x, o.y, o.z, o.w]),
    )  # fmt: skip
