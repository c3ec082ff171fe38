"""Nodes of the tools (doctor, recorder, viewer, operator): no services of their own.

A strict SROS2 policy lists what may be opened; the parameter services of a node whose name it
does not know are refused, and the node with them.
"""

from __future__ import annotations

from typing import Any

from rclpy.parameter import Parameter

QUIET: dict[str, Any] = {
    "start_parameter_services": False,
    "parameter_overrides": [Parameter("start_type_description_service", value=False)],
}
"""Arguments for the constructor of a Node that leave its own services out."""
