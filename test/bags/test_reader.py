"""Reading and writing bags: whole, torn, damaged, empty, foreign, and by other libraries."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from safety_filter import cli
from safety_filter.bags import messages as ms
from safety_filter.bags import recording, replay
from safety_filter.bags.reader import Bag, BagError
from safety_filter.bags.writer import BagWriter, WriteError


def test_rosbags_reads_what_we_write(drive: Path) -> None:
    with Reader(drive) as reader:
        count = sum(1 for _ in reader.messages())
        assert count == reader.message_count > 2000
        topics = {c.topic: c for c in reader.connections}
        qos = topics["/filter_node/config"].ext.offered_qos_profiles[0]
        assert qos.durability.name == "TRANSIENT_LOCAL"
        assert topics["/vla_node/twist"].msgtype == ms.TWIST
        assert topics["/vla_node/twist"].digest.startswith("RIHS01_")
        assert "Vector3" in topics["/vla_node/twist"].msgdef.data


def test_metadata_says_what_ros2_bag_wants(drive: Path) -> None:
    content = yaml.safe_load((drive / "metadata.yaml").read_text())
    info = content["rosbag2_bagfile_information"]
    assert (info["version"], info["storage_identifier"]) == (9, "mcap")
    total = sum(t["message_count"] for t in info["topics_with_message_count"])
    assert total == info["message_count"] == info["files"][0]["message_count"]
    assert "&id" not in (drive / "metadata.yaml").read_text()  # no YAML aliases


def test_our_reader_counts_as_rosbags_does(drive: Path) -> None:
    bag = Bag.open(drive)
    with Reader(drive) as reader:
        assert {t.name: t.count for t in bag.topics.values()} == {
            c.topic: c.msgcount for c in reader.connections
        }
    assert sum(1 for _ in bag.messages({"/vla_node/twist"})) == bag.topics["/vla_node/twist"].count


def test_a_single_file_and_a_folder_without_metadata_are_bags_too(
    drive: Path, tmp_path: Path
) -> None:
    file = next(drive.glob("*.mcap"))
    shutil.copy(file, tmp_path / "x.mcap")
    digests = {replay.run(recording.load(p)).digest for p in (drive, file, tmp_path)}
    assert len(digests) == 1


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_bags_written_by_rosbags_replay_the_same(
    drive: Path, tmp_path: Path, storage: StoragePlugin
) -> None:
    source = Bag.open(drive)
    with Writer(tmp_path / "other", version=9, storage_plugin=storage) as out:
        connections = {
            t.name: out.add_connection(t.name, t.type, typestore=ms.typestore())
            for t in source.topics.values()
        }
        for name, time, data in source.messages(source.topics):
            out.write(connections[name], time, data)
    expected = replay.run(recording.load(drive)).digest
    assert replay.run(recording.load(tmp_path / "other")).digest == expected


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.77, 0.999])
def test_a_torn_bag_is_read_up_to_the_tear_and_says_so(
    drive: Path, make: ModuleType, tmp_path: Path, keep: float
) -> None:
    make.torn(drive, tmp_path / "torn", keep)
    found = recording.load(tmp_path / "torn")
    assert any("torn: read up to byte" in note for note in found.notes)
    whole = recording.load(drive).table
    assert 0 < len(found.table) <= len(whole)
    assert found.table.tobytes() == whole[: len(found.table)].tobytes()
    compared = replay.compare(found.table, replay.run(found).table)
    assert compared.equal.all()


def test_a_damaged_chunk_is_left_out_and_the_rest_is_used(drive: Path, tmp_path: Path) -> None:
    shutil.copytree(drive, tmp_path / "bad")
    file = next((tmp_path / "bad").glob("*.mcap"))
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = os.urandom(64)
    file.write_bytes(content)
    found = recording.load(tmp_path / "bad")
    assert any("damaged chunk" in note for note in found.notes)
    assert 700 < len(found.table) < 1000
    run = replay.run(found)
    unknown = replay.unverifiable(found, run)
    assert not replay.compare(found.table, run.table, unknown).different.any()


def _text(path: Path) -> None:
    path.mkdir()
    (path / "x.mcap").write_text("hello, I am no bag")


def _nothing(path: Path) -> None:
    path.mkdir()


def _zero(path: Path) -> None:
    path.mkdir()
    (path / "x.mcap").touch()


def _sqlite(path: Path) -> None:
    path.mkdir()
    (path / "x.db3").write_bytes(b"SQLite format 3\0" + bytes(50))


def _other_suffix(path: Path) -> None:
    path.write_text("x")


UNREADABLE = {
    "missing": (lambda path: None, "no such file or folder"),
    "text": (_text, "no readable message"),
    "no file": (_nothing, "no .mcap or .db3 file"),
    "zero bytes": (_zero, "empty file"),
    "broken sqlite": (_sqlite, "unreadable"),
    "other suffix": (_other_suffix, "expected .mcap, .db3 or a folder"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_bag_is_told_and_ends_with_1(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = UNREADABLE[kind]
    make(tmp_path / "b")
    assert cli.main(["replay", str(tmp_path / "b")]) == 1
    assert words in capsys.readouterr().err


def test_an_empty_and_a_foreign_bag_say_what_they_hold(make: ModuleType, tmp_path: Path) -> None:
    make.empty(tmp_path / "empty")
    make.foreign(tmp_path / "foreign")
    with pytest.raises(BagError, match="no readable message"):
        recording.load(tmp_path / "empty")
    with pytest.raises(BagError, match=r"/chatter \(std_msgs/msg/String, 10\).*--topic"):
        recording.load(tmp_path / "foreign")


def test_wrong_types_are_told_and_readable_messages_are_used(
    make: ModuleType, tmp_path: Path
) -> None:
    make.wrong_types(tmp_path / "wrong")
    found = recording.load(tmp_path / "wrong")
    notes = "\n".join(found.notes)
    assert "expected sensor_msgs/msg/PointCloud2, got std_msgs/msg/String" in notes
    assert "unreadable message left out" in notes
    assert len(found.table) == 1
    with pytest.raises(BagError, match="expected sensor_msgs/msg/JointState"):
        topics = {"joint_states": "/perception_node/obstacles"}
        recording.load(tmp_path / "wrong", recording.Settings(topics))
    with pytest.raises(BagError, match="no topic /nowhere"):
        recording.load(tmp_path / "wrong", recording.Settings({"joint_states": "/nowhere"}))


def test_definitions_in_a_bag_are_never_compiled(tmp_path: Path) -> None:
    """A bag from a stranger with a type of its own and a pickle for content is only data."""

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/owned",)

    with Writer(tmp_path / "evil", version=9, storage_plugin=StoragePlugin.MCAP) as out:
        connection = out.add_connection(
            "/joint_states", "evil_msgs/msg/Evil", msgdef="import os\nstring x", rihs01="RIHS01_0"
        )
        out.write(connection, 1, pickle.dumps(Evil()))
    with pytest.raises(BagError, match="evil_msgs"):
        recording.load(tmp_path / "evil")
    assert not (tmp_path / "owned").exists()


def test_a_bag_is_never_overwritten(drive: Path) -> None:
    with pytest.raises(WriteError, match="exists already"):
        BagWriter(drive)


FULL = """
import resource, signal, sys
from pathlib import Path
from safety_filter.bags.writer import BagWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with BagWriter(Path(sys.argv[1])) as bag:
    bag.add_topic("/x", "std_msgs/msg/Float64MultiArray")
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    for i in range(10_000):
        bag.write("/x", i.to_bytes(4, "little") * 100, 10**9 + i)
        if i % 100 == 99:
            bag.flush()
"""


def test_a_full_disk_ends_the_writer_and_what_was_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "full"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and "OSError" in done.stderr
    bag = Bag.open(path)
    assert len(list(bag.messages({"/x"}))) >= 100


def test_play_takes_the_inputs_that_the_recorded_filter_read(
    make: ModuleType, drive: Path, tmp_path: Path
) -> None:
    from safety_filter.bags.play import chosen

    names = {"joint_states": "/ur/joints", "trajectory": "/plan", "obstacles": "/mine/tracks"}
    content = json.dumps({"version": 1, "topics": {**names, "twist": "/not/recorded"}})
    with BagWriter(tmp_path / "arm") as bag:
        for topic in (*names.values(), "/filter_node/joint_velocity_out"):
            bag.add_topic(topic, ms.ARRAY)
            bag.write(topic, make.velocities(np.zeros(7)), 2 * 10**9)
        bag.add_topic("/filter_node/config", ms.STRING)
        bag.write("/filter_node/config", make.string(content), 10**9)
    assert chosen(Bag.open(tmp_path / "arm"), []) == list(names.values())
    found = chosen(Bag.open(drive), [])
    assert found == ["/sim_node/joint_states", "/perception_node/obstacles", "/vla_node/twist"]
    make.drive(tmp_path / "bare", 0.2, ticks=False)  # without a configuration: by their names
    assert set(chosen(Bag.open(tmp_path / "bare"), [])) == set(found)


def test_a_type_without_definition_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "b") as bag, pytest.raises(WriteError, match="no definition"):
        bag.add_topic("/x", "my_msgs/msg/Thing")
