"""Starts everything but the driver of a real arm, as config/arms describes it."""

from safety_filter.nodes.launching import arm


def generate_launch_description():
    return arm()
