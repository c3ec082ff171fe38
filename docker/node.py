"""Becomes one node of the graph, so that signals reach it.

    NAME [launch argument:=value ...] [-p parameter:=value] [-r from:=to]

Without launch arguments the node is wired as in the demo; with some, as arm.launch.py wires it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import yaml

from safety_filter import graph
from safety_filter.arms import wiring

REMAP, PARAMETER = ("-r", "--remap"), ("-p", "--param")


def command(name: str, words: Sequence[str]) -> list[str]:
    """The command line of node `name`.

    Raises:
        ValueError: there is no such node, or a launch argument is wrong.
    """
    if name not in graph.NODES:
        known = ", ".join(graph.NODES)
        raise ValueError(f"expected one of {known}, got {name or 'nothing'}")
    count = next((i for i, w in enumerate(words) if w.startswith("-")), len(words))
    spec = _wired(name, words[:count]) if count else graph.NODES[name]
    remaps, others = [], []
    rest = iter(words[count:])
    for word in rest:
        if word in REMAP:
            remaps += [word, next(rest, "")]
        elif word in PARAMETER:  # what is typed wins over files, which rcl does not promise for -p
            key, _, text = next(rest, "").partition(":=")
            if not text:
                raise ValueError(f"expected -p parameter:=value, got {key or 'nothing'}")
            spec = spec.with_parameters(**{key: yaml.safe_load(text)})
        else:
            others.append(word)
    line = graph.command(spec)
    own = line.index("--ros-args") + 1
    # Of remappings of one name the first counts
    return [*line[:own], *remaps, *line[own:], *others]


def full_name(name: str, line: Sequence[str]) -> str:
    """What the node is called in the graph with the remappings of `line`; the first counts."""

    def remapped(key: str, otherwise: str) -> str:
        return next((w.partition(":=")[2] for w in line if w.startswith(key + ":=")), otherwise)

    return f"{remapped('__ns', '').rstrip('/')}/{remapped('__node', name)}"


def _wired(name: str, words: Sequence[str]) -> graph.NodeSpec:
    known = {a.name for a in wiring.arguments()}
    given = {}
    for word in words:
        key, found, value = word.partition(":=")
        if not found or key not in known:
            raise ValueError(f"expected argument:=value of arm.launch.py or -p, got {word}")
        given[key] = value
    for spec in wiring.build(given):
        if spec.name == name:
            return spec
    raise ValueError(f"{name} is not part of the graph of an arm with {' '.join(words)}")


def main() -> None:
    name, *words = sys.argv[1:] or [""]
    try:
        line = command(name, words)
    except ValueError as error:
        sys.exit(f"node: {error}")
    # For the health check, which runs as another process of this container
    with open("/tmp/node", "w", encoding="utf-8") as file:
        file.write(full_name(name, line))
    # numeric thread pools and, with enough shared memory, the middleware's segment for images
    os.execve(line[0], line, {**os.environ, **graph.environment_variables()})


if __name__ == "__main__":
    main()
