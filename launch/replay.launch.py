"""Plays the recorded inputs of a bag to the filter, through real topics."""

from safety_filter.nodes.launching import replay


def generate_launch_description():
    return replay()
