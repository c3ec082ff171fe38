"""Starts the nodes of "demo" as safety_filter.graph describes them."""

from safety_filter.nodes.launching import description


def generate_launch_description():
    return description("demo")
