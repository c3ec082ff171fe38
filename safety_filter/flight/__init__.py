"""The flight recorder: the last seconds of inputs and decisions, saved, replayed, explained."""
