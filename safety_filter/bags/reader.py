"""Reads bags as they are: whole, torn by a crash, damaged in the middle, or somebody else's.

Whatever is readable is delivered, and `notes` says what was not. MCAP files are read chunk by
chunk with `mcap`, which needs no index; SQLite and compressed bags with `rosbags`.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.rosbag2 import Reader

Raw = tuple[str, int, bytes]
"""Topic, time of receipt (ns), serialised message."""
_LARGEST = 1 << 30  # bytes of a record; more is damage


class BagError(ValueError):
    """Something that is not a bag, or has nothing readable in it; says what to do."""


@dataclass
class Topic:
    """What a bag says about a topic; `count` is what was found so far."""

    name: str
    type: str
    count: int = 0


@dataclass
class Bag:
    """A bag opened for reading. `notes` grows while messages are read."""

    path: Path
    topics: dict[str, Topic] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Bag:
        """Open a folder with metadata.yaml, a folder of .mcap or .db3 files, or one such file.

        Raises:
            BagError: there is no such thing, or nothing readable in it.
        """
        if not path.exists():
            raise BagError(f"{path}: no such file or folder; expected a rosbag2 or an .mcap file")
        bag = cls(path)
        for file in bag._files():
            bag._index(file)
        if not any(t.count for t in bag.topics.values()):
            why = f" ({'; '.join(bag.notes)})" if bag.notes else ""
            raise BagError(f"{path}: no readable message in it{why}")
        return bag

    def _index(self, file: Path) -> None:
        """Topics and counts: from the file's own index, else by reading it."""
        counts: dict[str, int] = {}
        try:
            with open(file, "rb") as stream:
                summary = make_reader(stream).get_summary() if file.suffix == ".mcap" else None
            if summary is not None and summary.statistics is not None and summary.channels:
                for key, channel in summary.channels.items():
                    self._see(channel.topic, summary.schemas[channel.schema_id].name)
                    count = summary.statistics.channel_message_counts.get(key, 0)
                    counts[channel.topic] = counts.get(channel.topic, 0) + count
        except Exception:  # no whole index: the file is read instead, which tells what is wrong
            counts.clear()
        if not counts:
            for name, _, _ in self._read(file, None):
                counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            self.topics[name].count += count

    def messages(self, topics: Collection[str]) -> Iterator[Raw]:
        """The messages of `topics` as they lie in the file: nearly in order of receipt."""
        if not topics:
            return
        for file in self._files():
            yield from self._read(file, topics)

    def _read(self, file: Path, topics: Collection[str] | None) -> Iterator[Raw]:
        if file.is_dir() or file.suffix == ".db3":
            return self._with_rosbags(file, topics)
        return self._mcap(file, topics)

    def _files(self) -> list[Path]:
        if self.path.is_file():
            if self.path.suffix not in (".mcap", ".db3"):
                raise BagError(f"{self.path}: expected .mcap, .db3 or a folder, got a file with"
                               f" suffix {self.path.suffix!r}")
            return [self.path]
        found = sorted([*self.path.glob("*.mcap"), *self.path.glob("*.db3")])
        compressed = sorted(self.path.glob("*.zstd"))
        if compressed or (found and _compressed(self.path / "metadata.yaml")):
            return [self.path]
        if not found:
            raise BagError(f"{self.path}: no .mcap or .db3 file in it; expected a rosbag2 folder")
        return found

    def _mcap(self, file: Path, topics: Collection[str] | None) -> Iterator[Raw]:
        """The messages of an MCAP file up to a tear, without chunks that are damaged."""
        names: dict[int, str] = {}
        types: dict[int, str] = {}
        with open(file, "rb") as stream:
            reader = StreamReader(stream, emit_chunks=True, record_size_limit=_LARGEST)
            records = reader.records
            while True:
                at = stream.tell()
                try:
                    record = next(records, None)
                except Exception as error:  # whatever comes of foreign bytes
                    self._torn(file, at, error)
                    return
                if record is None:
                    return
                inside: list[Any] = [record]
                if isinstance(record, Chunk):
                    try:
                        inside = breakup_chunk(record, validate_crc=True)
                    except Exception as error:
                        self._note(f"{file.name}: damaged chunk before byte {stream.tell()} left"
                                   f" out ({_words(error)})")
                        continue
                for item in inside:
                    if isinstance(item, Message):
                        name = names.get(item.channel_id)
                        if name is not None and (topics is None or name in topics):
                            yield name, item.log_time, item.data
                    elif isinstance(item, Schema):
                        types[item.id] = item.name
                    elif isinstance(item, Channel):
                        names[item.id] = item.topic
                        self._see(item.topic, types.get(item.schema_id, "unknown"))

    def _with_rosbags(self, path: Path, topics: Collection[str] | None) -> Iterator[Raw]:
        try:
            with Reader(path) as reader:
                for connection in reader.connections:
                    self._see(connection.topic, connection.msgtype)
                chosen = [c for c in reader.connections if topics is None or c.topic in topics]
                if chosen:
                    for connection, time, data in reader.messages(chosen):
                        yield connection.topic, time, bytes(data)
        except (Exception, sqlite3.Error) as error:
            self._note(f"{path.name}: unreadable from here on ({_words(error)})")

    def _see(self, name: str, kind: str) -> None:
        known = self.topics.setdefault(name, Topic(name, kind))
        if known.type != kind:
            self._note(f"{name}: recorded as {known.type} and as {kind}; the first is used")

    def _torn(self, file: Path, at: int, error: Exception) -> None:
        size = file.stat().st_size
        if size == 0:
            self._note(f"{file.name}: empty file")
        elif at == 0 and not isinstance(error, McapError):
            self._note(f"{file.name}: not an MCAP file ({_words(error)})")
        else:
            self._note(f"{file.name}: torn: read up to byte {at} of {size} ({_words(error)})")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def ordered(bag: Bag, topics: Collection[str], window: int = 2 * 10**9) -> Iterator[Raw]:
    """The messages in order of receipt; `window` ns of disorder in the file are put right."""
    waiting: list[tuple[int, int, str, bytes]] = []
    for count, (name, received, data) in enumerate(bag.messages(topics)):
        heapq.heappush(waiting, (received, count, name, data))
        while waiting[0][0] < received - window:
            first = heapq.heappop(waiting)
            yield first[2], first[0], first[3]
    while waiting:
        first = heapq.heappop(waiting)
        yield first[2], first[0], first[3]


def _words(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _compressed(metadata: Path) -> bool:
    try:
        content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        return bool(content["rosbag2_bagfile_information"].get("compression_mode"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return False
