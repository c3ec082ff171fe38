"""Starts the nodes of "filter" as safety_filter.graph describes them."""

from safety_filter.nodes.launching import description


def generate_launch_description():
    return description("filter")
