"""Who publishes a topic beside the one that should."""

from __future__ import annotations

import time

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64

from safety_filter.nodes import polling
from safety_filter.nodes.polling import Polled
from safety_filter.nodes.qos import NEWEST

pytestmark = pytest.mark.ros


def test_two_publishers_of_one_name_are_told_once_neither_can_have_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        reader = Node("reader", context=context)
        polled = Polled(reader, Float64, "shared", NEWEST)
        twins = [Node("twin", context=context) for _ in range(2)]
        for twin in twins:
            twin.create_publisher(Float64, "shared", NEWEST)
        end = time.monotonic() + 20.0
        while reader.count_publishers("shared") < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert polled.rivals() == ""
        monkeypatch.setattr(polling, "LEASE", 0.2)
        time.sleep(0.3)
        assert polled.rivals().startswith("2 nodes publish /shared (/twin, /twin), expected one")
        twins[1].destroy_node()
        while reader.count_publishers("shared") > 1:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert polled.rivals() == ""
        for node in (reader, twins[0]):
            node.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
