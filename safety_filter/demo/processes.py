"""The graph as child processes: each in a group of its own, none left behind."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safety_filter import graph

_PR_SET_PDEATHSIG = 1
STOP_SECONDS = 6.0
DOMAINS = range(1, 100)  # their ports lie below those that Linux gives to others


def ros_environment(domain: int | None = None) -> dict[str, str]:
    """Environment for the nodes: discovery on this machine only, on a domain of its own.

    domain: ROS_DOMAIN_ID; None draws one that is free, so that two runs on a machine do not meet.
    """
    environment = {**os.environ, **graph.environment_variables()}
    if domain is None:
        domain = _free_domain(random.SystemRandom().sample(DOMAINS, len(DOMAINS)))
    environment["ROS_DOMAIN_ID"] = str(domain)
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    environment.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    return environment


def _free_domain(candidates: Sequence[int]) -> int:
    """The first domain that nobody on this machine has joined.

    A domain's first participant holds the port 7400 + 250 domain + 10 (DDSI-RTPS 2.3, 9.6.1.1).
    """
    for domain in candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))
            except OSError:
                continue
            return domain
    return candidates[0]


def _prepare_child(nice: int) -> None:
    """In the child: a process group, its priority, and SIGTERM when the parent dies (Linux).

    A group but not a session: Linux weighs sessions against each other before it looks at the
    priorities of processes, so priorities would mean nothing among nodes of different sessions.
    """
    os.setpgid(0, 0)
    os.nice(nice)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class ProcessGroup:
    """Nodes as child processes, with a log file each; a context manager that ends them all."""

    def __init__(self, environment: Mapping[str, str], log_folder: Path) -> None:
        self.environment = dict(environment)
        self.log_folder = log_folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        log_folder.mkdir(parents=True, exist_ok=True)
        self.environment.setdefault("ROS_LOG_DIR", str(log_folder / "ros"))

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, spec: graph.NodeSpec) -> subprocess.Popen[bytes]:
        """Start one node; its output goes to <log_folder>/<name>.log."""
        with open(self.log_folder / f"{spec.name}.log", "ab") as log:
            process = subprocess.Popen(
                graph.command(spec),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: _prepare_child(spec.nice),
            )
        self.processes[spec.name] = process
        return process

    def dead(self) -> dict[str, int]:
        """Name -> exit code of the nodes that ended."""
        codes = {name: p.poll() for name, p in self.processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a node's log."""
        text = (self.log_folder / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, names: Iterable[str] | None = None) -> None:
        """SIGTERM, and SIGKILL to the group of what is still there after some seconds."""
        chosen = [self.processes[n] for n in (self.processes if names is None else names)]
        for process in chosen:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in chosen:
            try:
                process.wait(max(0.05, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
