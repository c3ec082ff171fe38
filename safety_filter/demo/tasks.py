"""Which scenes the demo runs: by seed, or one that fits an instruction in the user's words."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from safety_filter.sim.catalogue import COLOURS, DESTINATIONS, GRASPABLE, HELD_OUT_COMBINATIONS
from safety_filter.sim.scene import generate

SEARCH = 400  # seeds looked through for a scene with the named things


class TaskError(ValueError):
    """The instruction cannot be turned into a scene; lists what could be named."""


@dataclass(frozen=True)
class Task:
    """One scene; the fields after `seed` are None for the scene's own task."""

    seed: int
    instruction: str | None = None
    target: str | None = None
    destination: str | None = None
    held_out: bool = False  # the target is a combination that training never saw

    def request(self) -> dict[str, object]:
        """Content of the request to sim_node."""
        content = {
            "seed": self.seed,
            "instruction": self.instruction,
            "target": self.target,
            "destination": self.destination,
            "held_out": self.held_out or None,
        }
        return {k: v for k, v in content.items() if v is not None}


def names_in(text: str) -> tuple[str | None, str | None]:
    """The graspable object ("red cube") and the destination ("plate") that a text names."""
    words = text.lower().replace(",", " ").replace(".", " ").split()
    pairs = {" ".join(pair) for pair in itertools.pairwise(words)}
    objects = [f"{c} {s}" for c in COLOURS for s in GRASPABLE if f"{c} {s}" in pairs]
    destinations = [d for d in DESTINATIONS if d in words]
    return (objects[0] if objects else None, destinations[-1] if destinations else None)


def for_instruction(text: str, suite: str, first_seed: int) -> Task:
    """A scene of the suite that has what the text names.

    Raises:
        TaskError: it names no object or no destination, or no scene has both.
    """
    target, destination = names_in(text)
    if target is None or destination is None:
        raise TaskError(
            f"instruction {text!r} names no {'object' if target is None else 'destination'};"
            f" objects: a colour ({', '.join(COLOURS)}) and a shape ({', '.join(GRASPABLE)});"
            f" destinations: {', '.join(DESTINATIONS)}"
        )
    held_out = tuple(target.split()) in HELD_OUT_COMBINATIONS
    for seed in range(first_seed, first_seed + SEARCH):
        scene = generate(seed, suite, held_out=held_out)
        roles = {spec.name: spec.role for spec in scene.specs}
        if roles.get(target) == "object" and roles.get(destination) == "destination":
            return Task(seed, text, target, destination, held_out)
    raise TaskError(f"no scene among {SEARCH} seeds has a {target} and a {destination}")
