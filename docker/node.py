"""Becomes one node of the graph, so that signals reach it: NAME [-p name:=value]."""

from __future__ import annotations

import os
import sys

from safety_filter import graph


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in graph.NODES:
        names = ", ".join(graph.NODES)
        sys.exit(f"node: expected one of {names}, got {' '.join(sys.argv[1:]) or 'nothing'}")
    command = [*graph.command(graph.NODES[sys.argv[1]]), *sys.argv[2:]]
    # For the health check, which runs as another process of this container
    with open("/tmp/node", "w", encoding="utf-8") as file:
        file.write(sys.argv[1])
    # numeric thread pools and, with enough shared memory, the middleware's segment for images
    os.execve(command[0], command, {**os.environ, **graph.environment_variables()})


if __name__ == "__main__":
    main()
