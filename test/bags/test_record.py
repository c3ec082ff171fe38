"""A live filter recorded and reproduced; crashes; a bag played through real topics."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import Transition
from ros_rig import EVENT_SECONDS, PATIENT, START_SECONDS, Rig, obstacle, passing, running
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import PointCloud2

from safety_filter import graph
from safety_filter.bags import messages as ms
from safety_filter.bags import recording, replay
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import Bag
from safety_filter.bags.record import FLUSH
from safety_filter.core.wire import empty_tracks

pytestmark = pytest.mark.ros
NODE = "filter_node"
SPEC = graph.NODES[NODE].with_parameters(monitored=False, record_files=0, **PATIENT[NODE])
CLI = [sys.executable, "-m", "safety_filter.cli"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with passing(tmp_path_factory.mktemp("log"), SPEC) as rig:
        yield rig


@pytest.fixture
def rig(bench: Rig) -> Rig:
    """The bench as it began, whatever the test before did."""
    bench.restore(NODE)
    return bench


@contextmanager
def _recorder(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A recorder that has subscribed to the filter's ticks."""
    command = [*CLI, "record", str(path), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "filter_node/ticks" in line:
                break
        yield process
        if process.poll() is None:
            process.kill()


def test_a_live_recording_reproduces_every_decision(rig: Rig, tmp_path: Path) -> None:
    bag = tmp_path / "live"
    with _recorder(bag) as recorder:
        rig.tracks = obstacle((0.45, 0.3, 0.45))
        rig.twist = np.array([0.0, 0.12, 0.0, 0, 0, 0.1])
        rig.wait_state(NODE, "FILTERED")
        time.sleep(0.7)
        rig.tracks = None
        rig.wait_state(NODE, "STOPPED perception")
        rig.wait_still()
        rig.tracks = empty_tracks()
        rig.twist = np.zeros(6)
        rig.wait_state(NODE, "PASS")
        rig.call(f"{NODE}/stop")
        rig.wait_state(NODE, "STOPPED operator")
        rig.call(f"{NODE}/reset")
        rig.wait_state(NODE, "PASS")
        assert rig.change(NODE, Transition.TRANSITION_DEACTIVATE)
        time.sleep(0.2)
        assert rig.change(NODE, Transition.TRANSITION_ACTIVATE)
        rig.wait_state(NODE, "PASS")
        time.sleep(0.5)
        recorder.send_signal(signal.SIGINT)
        assert recorder.wait(EVENT_SECONDS) == 0
    found = recording.load(bag)
    assert found.exact and len(found.table) > 100
    run = replay.run(found)
    unknown = replay.unverifiable(found, run)
    compared = replay.compare(found.table, run.table, unknown)
    assert not compared.different.any(), found.notes
    assert (compared.equal | unknown).all()
    assert len(list(recording.segments(found.table))) == 1  # no tick was lost
    assert unknown.sum() <= replay.WARM_UP * PATIENT[NODE]["rate"] + 2
    reasons = {tk.text(r) for r in found.table["reason"][found.table["state"] == 2]}
    assert {"perception", "operator"} <= reasons
    with Reader(bag) as reader:  # what other tools see
        topics = {c.topic: c.msgcount for c in reader.connections}
        assert topics["/filter_node/joint_velocity_out"] > 100
        assert topics["/sim_node/joint_states"] > 20
        assert topics["/filter_node/state"] >= 4
    # What the recorder missed of others, as before it had found them, the filter sent along
    ticks = recording.load(bag, recording.Settings({"obstacles": "/filter_node/tick_obstacles"}))
    assert replay.run(ticks).digest == run.digest
    for kind in (ms.JOINT_STATE, ms.TWIST):
        name = next(t.name for t in Bag.open(bag).topics.values() if t.type == kind)
        assert all(ms.decode(d, kind) for _, _, d in Bag.open(bag).messages({name}))


def _synced(bag: Path) -> tuple[int, float]:
    """Messages that metadata.yaml counts, and when it was written; (0, 0) before there is one."""
    path = bag / "metadata.yaml"
    try:
        content = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
        return int(content["message_count"]), path.stat().st_mtime
    except FileNotFoundError:
        return 0, 0.0


def test_a_killed_recorder_loses_the_last_moment_only(rig: Rig, tmp_path: Path) -> None:
    bag = tmp_path / "killed"
    with _recorder(bag) as recorder:
        rig.wait(lambda: _synced(bag)[0] > 1000, 60.0, "messages in the bag")
        os.kill(recorder.pid, signal.SIGKILL)
        recorder.wait(EVENT_SECONDS)
    count, synced = _synced(bag)
    assert FLUSH <= 0.5  # s between two syncs, so that a second covers one and what comes of load
    opened = Bag.open(bag)
    assert sum(1 for _ in opened.messages(set(opened.topics))) >= count
    found = recording.load(bag)
    # Ticks come ten times a second: the last synced ones are at most that old, and what a busy
    # machine adds
    assert synced - float(found.table["now_ros"][-1]) < 1.0
    assert any("torn" in note for note in found.notes)
    run = replay.run(found)
    unknown = replay.unverifiable(found, run)
    assert not replay.compare(found.table, run.table, unknown).different.any()


FULL = """
import resource, sys, threading, time
from pathlib import Path
from safety_filter import cli
def fill():
    # Messages in the bag: the middleware, whose files must not be cut, has long made them
    while sum(f.stat().st_size for f in Path(sys.argv[1]).glob("*.mcap")) < 100_000:
        time.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
threading.Thread(target=fill, daemon=True).start()
sys.exit(cli.main(["record", sys.argv[1]]))
"""


def test_a_full_disk_ends_the_recorder_with_a_word_and_a_bag(rig: Rig, tmp_path: Path) -> None:
    bag = tmp_path / "full"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(bag)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    assert "File too large; what was written before can be read" in done.stderr
    assert rig.message(NODE) == "PASS"  # the filter does not care
    assert len(recording.load(bag).table) > 50


def _drawn(file: Path) -> set[str]:
    """Entities in a Rerun file, which may still be growing."""
    command = [str(Path(sys.executable).parent / "rerun"), "rrd", "print", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return set(re.findall(r"- (/[\w/]+) -", done.stdout))


def test_the_live_graph_is_drawn_into_a_file(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "live.rrd"
    rig.tracks = obstacle((0.45, 0.4, 0.45))
    command = [*CLI, "view", "--live", "--save", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "live graph" in process.stdout.readline()
        wanted = {"/world/tracks", "/world/bodies", "/plots/distance", "/log/filter_node"}
        rig.wait(lambda: wanted <= _drawn(file), 60.0, "entities in the file")
        process.send_signal(signal.SIGTERM)
        assert process.wait(EVENT_SECONDS) == 0
    assert wanted <= _drawn(file)  # a whole file too


def test_a_bag_is_not_overwritten_and_silence_is_an_error(tmp_path: Path) -> None:
    command = [*CLI, "record", str(tmp_path), "--duration", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "exists already" in done.stderr
    command[-3] = str(tmp_path / "b")
    environment = {**os.environ, "ROS_DOMAIN_ID": "101"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1 and "ROS_DOMAIN_ID" in done.stderr


def test_a_bag_played_through_topics_drives_a_live_filter(
    drive: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """On simulated time a filter does with the played inputs what the recorded one did."""
    # Shorter than the 0.8 s without perception in the bag
    spec = SPEC.with_parameters(use_sim_time=True, obstacles_age=0.5)
    with running(tmp_path / "log", spec):
        rig = Rig()
        request.addfinalizer(rig.close)
        rig.joints_on, rig.twist, rig.tracks = False, None, None
        rig.node.destroy_publisher(rig._cloud_pub)  # beside the bag's it would be a second source
        rig.wait(lambda: rig.message(NODE).startswith("STOPPED"), START_SECONDS, "the filter")
        tables: list[tk.Table] = []  # every step, however busy the machine is
        rig.node.create_subscription(
            PointCloud2, f"{NODE}/ticks", lambda m: tables.append(ms.tick_table(m)), 100
        )
        # Before there is any /clock, too: records and states run on real time
        rig.wait(lambda: bool(tables), EVENT_SECONDS, "ticks")
        done = subprocess.run(
            [*CLI, "play", str(drive), "--rate", "0.5"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "messages played" in done.stdout
    table = np.concatenate(tables)
    reasons = {tk.text(r) for r in table["reason"][table["state"] == tk.STATES.index("STOPPED")]}
    assert {tk.STATES[s] for s in table["state"]} == set(tk.STATES)
    assert "perception" in reasons


def test_play_names_what_it_cannot_play(drive: Path) -> None:
    command = [*CLI, "play", str(drive), "--topics", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "no topic /nowhere" in done.stderr
