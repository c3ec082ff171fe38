"""filter_node as a process: how it starts and ends, what it loads and what it leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ros_rig import EVENT_SECONDS, PATIENT, START_SECONDS, Rig, obstacle, running

from safety_filter import graph
from safety_filter.core.wire import empty_tracks
from safety_filter.flight.recorder import Record, load
from safety_filter.flight.replay import replay
from safety_filter.nodes.flight import AFTERMATH, QUIET

pytestmark = pytest.mark.ros
NODE = "filter_node"
SPEC = graph.NODES[NODE].with_parameters(monitored=False, **PATIENT[NODE])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_zeros(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, SPEC) as processes:
        rig = Rig()
        rig.wait_state(NODE, "PASS", START_SECONDS)
        rig.twist = np.array([0.0, 0.05, 0.0, 0, 0, 0])
        rig.wait_moving()
        process = processes.processes[NODE]
        process.send_signal(number)
        assert process.wait(EVENT_SECONDS) == 0
        rig.wait_still()  # the arm holds its last command for ever: it has to be zero
        rig.close()


def test_a_filter_that_is_still_compiled_ends_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "nothing compiled"))
    with running(tmp_path / "log", SPEC) as processes:
        rig = Rig()
        rig.wait_state(NODE, "starting", START_SECONDS)
        time.sleep(1.0)
        processes.processes[NODE].terminate()
        assert processes.processes[NODE].wait(EVENT_SECONDS) == 0
        rig.wait_state(NODE, "shut down")
        rig.close()


def test_bad_parameters_end_the_node_with_every_fault_named() -> None:
    command = graph.command(SPEC.with_parameters(rate=5.0, qp_solver="none", alpha0="fast"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    for words in ("rate: expected 100 to 1000", "qp_solver: expected one", "alpha0: expected a"):
        assert words in done.stderr


def test_an_unknown_robot_is_a_state_not_a_crash(tmp_path: Path) -> None:
    with running(tmp_path, SPEC.with_parameters(robot="r2d2")) as processes:
        rig = Rig()
        rig.wait_state(NODE, "not configured: robot", START_SECONDS)
        assert "panda" in rig.message(NODE)
        assert not processes.dead()
        rig.close()


def test_neither_torch_nor_a_simulator_loads_in_the_filters_process() -> None:
    code = (
        "import sys, safety_filter.nodes.filter_node\n"
        "bad = {'torch', 'ultralytics', 'pybullet', 'cv2', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_process_stays_small(tmp_path: Path) -> None:
    """It needs no shared memory for pictures, and what compiles is another process."""
    with running(tmp_path, SPEC) as processes:
        rig = Rig()
        rig.wait_state(NODE, "PASS", START_SECONDS)
        status = Path(f"/proc/{processes.processes[NODE].pid}/status").read_text().split()
        rig.close()
    peak, shared = (int(status[status.index(f"{n}:") + 1]) / 1024 for n in ("VmHWM", "RssShmem"))
    assert 50.0 < peak < 300.0 and shared < 8.0, "MB"


def test_a_stop_leaves_a_flight_record_that_replays(tmp_path: Path) -> None:
    folder = tmp_path / "flight"
    with running(tmp_path / "log", SPEC.with_parameters(record_folder=str(folder))):
        rig = Rig()
        rig.wait_state(NODE, "PASS", START_SECONDS)
        rig.tracks = obstacle((0.45, 0.3, 0.45))
        rig.twist = np.array([0.0, 0.02, 0.0, 0, 0, 0])
        time.sleep(1.0)
        records: dict[str, Record] = {}

        def recorded() -> bool:
            """Whether the loss of perception was; a stop of a busy machine's may come before."""
            records.update((p.name, load(p)) for p in folder.glob("*.flight.npz"))
            return any(r.header["why"].startswith("perception") for r in records.values())

        for _ in range(5):
            rig.tracks = None
            rig.wait_state(NODE, "STOPPED perception")
            time.sleep(AFTERMATH + 3.0)
            if recorded():
                break
            rig.tracks = empty_tracks()
            rig.wait_state(NODE, "PASS")
            time.sleep(QUIET)
        assert recorded(), {n: r.header["why"] for n, r in records.items()}
        rig.close()
    record = next(r for r in records.values() if r.header["why"].startswith("perception"))
    assert record.ticks[-1].now_mono - record.ticks[0].now_mono > 2.0
    replayed = replay(record)
    # Before the first tick of a record that begins in the middle there is nothing to go by
    assert [i for i in replayed.different if i > 1] == []
