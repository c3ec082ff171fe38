"""How long and how often the machine itself stands still: what no process can be better than.

One process on each core, above all others (SCHED_FIFO), sleeps a millisecond at a time and notes
when it came back late: the hypervisor or the kernel had the core then.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass

NAP = 1e-3  # s
PRIORITY = 50


@dataclass(frozen=True)
class Pauses:
    """Of all cores together: how many were at least as long as asked, and the longest, ms."""

    n: int
    longest_ms: float


class PauseWatch:
    """Watches from `start` until `stop`, at most `limit` s."""

    def __init__(self, least: float, limit: float) -> None:
        """least: s, shorter pauses do not count."""
        self._least, self._limit = least, limit
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Watch every core that this process may use."""
        for core in sorted(os.sched_getaffinity(0)):
            words = [sys.executable, "-m", __name__, str(core), str(self._least), str(self._limit)]
            self._processes.append(
                subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, text=True,
                )
            )  # fmt: skip
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun, or ended

    def stop(self) -> Pauses | None:
        """What there was; None where such a priority is not permitted."""
        told = [process.communicate()[0] for process in self._processes]
        self._processes = []
        if not all(told):
            return None
        found = [pause for text in told for pause in json.loads(text)]
        return Pauses(len(found), round(1e3 * max(found, default=0.0), 2))


def _watch(core: int, least: float, limit: float) -> list[float]:
    """Pauses of one core, s, until the standard input is closed."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    found: list[float] = []
    print("begun", flush=True)
    last = start = time.monotonic()
    while last - start < limit:
        time.sleep(NAP)
        now = time.monotonic()
        if now - last - NAP >= least:
            found.append(now - last - NAP)
        last = now
        if select.select([0], [], [], 0.0)[0]:
            break
    return found


def main(argv: list[str] | None = None) -> int:
    """`core least limit`: see `_watch`; the pauses go to the standard output."""
    core, least, limit = sys.argv[1:] if argv is None else argv
    try:
        print(json.dumps(_watch(int(core), float(least), float(limit))))
    except PermissionError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
