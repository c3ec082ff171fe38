"""Writes a rosbag2 in MCAP with metadata.yaml, as `ros2 bag` and `rosbags` read it.

Memory is bounded by one chunk. Each `flush` ends the chunk, so that whatever happens afterwards
the file can be read up to there, and renews metadata.yaml, so that the folder stays a bag.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2.metadata import dump_qos_v9

from safety_filter.bags.messages import known, typestore

VERSION = 9  # of metadata.yaml
CHUNK = 1 << 20  # bytes of a chunk at most
_FOREVER = QosTime(9223372036, 854775807)


class WriteError(OSError):
    """A bag cannot be written there; the message says why and what to do."""


@dataclass
class _Topic:
    channel: int
    name: str
    type: str
    qos: list[Qos]
    hash: str
    count: int = 0


def qos(reliable: bool = True, latched: bool = False, depth: int = 1) -> Qos:
    """The quality of service that is written down for a publisher."""
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


class BagWriter:
    """A bag being written; a context manager."""

    def __init__(self, path: Path) -> None:
        """path: folder of the bag, which must not exist yet.

        Raises:
            WriteError: it exists or cannot be made.
        """
        try:
            path.mkdir(parents=True)
            self._file = path / f"{path.name}_0.mcap"
            self._stream = open(self._file, "wb")  # noqa: SIM115
        except FileExistsError as error:
            raise WriteError(f"{path}: exists already; give another name") from error
        except OSError as error:
            raise WriteError(f"{path}: cannot be made: {error.strerror}") from error
        self.path = path
        self._writer = Writer(self._stream, CHUNK, CompressionType.LZ4)
        self._writer.start(profile="ros2", library="safety_filter")
        self._schemas: dict[str, int] = {}
        self._topics: dict[str, _Topic] = {}
        self._first, self._last = 2**63 - 1, 0
        self.flush()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> dict[str, int]:
        """Topic -> messages written."""
        return {t.name: t.count for t in self._topics.values()}

    @property
    def size(self) -> int:
        """Bytes written to the file so far."""
        return self._stream.tell()

    def add_topic(self, name: str, kind: str, offered: Sequence[Qos] = ()) -> None:
        """Declare a topic; the same name twice is an error of the caller.

        Raises:
            WriteError: a type that is not one of ROS 2 Jazzy's.
        """
        if not known(kind):
            raise WriteError(f"{name}: type {kind} has no definition here, not recorded")
        profiles = list(offered) or [qos()]
        store = typestore()
        if kind not in self._schemas:
            text, _ = store.generate_msgdef(kind, ros_version=2)
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        digest = store.hash_rihs01(kind)
        channel = self._writer.register_channel(
            name,
            "cdr",
            self._schemas[kind],
            {
                "offered_qos_profiles": yaml.safe_dump(dump_qos_v9(profiles)),
                "topic_type_hash": digest,
            },
        )
        self._topics[name] = _Topic(channel, name, kind, profiles, digest)

    def write(self, name: str, data: bytes, received: int, published: int = 0) -> None:
        """Add a message; times in ns. `published` 0: not known."""
        topic = self._topics[name]
        self._writer.add_message(topic.channel, received, data, published or received, topic.count)
        topic.count += 1
        self._first, self._last = min(self._first, received), max(self._last, received)

    def flush(self) -> None:
        """Bring everything so far to the disk.

        Raises:
            OSError: no space left.
        """
        self._writer.flush()
        os.fsync(self._stream.fileno())
        self._write_metadata()

    def close(self) -> None:
        """End the file with its index."""
        if self._stream.closed:
            return
        try:
            self._writer.finish()
            self._write_metadata()
        finally:
            self._stream.close()

    def _write_metadata(self) -> None:
        count = sum(t.count for t in self._topics.values())
        start = {"nanoseconds_since_epoch": self._first if count else 0}
        duration = {"nanoseconds": max(0, self._last - self._first) if count else 0}
        topics = [
            {
                "topic_metadata": {
                    "name": t.name,
                    "type": t.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": dump_qos_v9(t.qos),
                    "type_description_hash": t.hash,
                },
                "message_count": t.count,
            }
            for t in self._topics.values()
        ]
        part = {"path": self._file.name, "starting_time": start, "duration": duration,
                "message_count": count}  # fmt: skip
        information = {
            "version": VERSION,
            "storage_identifier": "mcap",
            "relative_file_paths": [self._file.name],
            "starting_time": start,
            "duration": duration,
            "message_count": count,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "files": [part],
            "custom_data": None,
            "ros_distro": "jazzy",
        }
        text = _no_aliases({"rosbag2_bagfile_information": information})
        part_file = self.path / "metadata.yaml.part"
        part_file.write_text(text, encoding="utf-8")
        os.replace(part_file, self.path / "metadata.yaml")


class _Dumper(yaml.SafeDumper):
    """rosbag2's reader knows no YAML aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _no_aliases(content: object) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
