"""Episodes on disk, one JSON line each, appended as they end: nothing is lost or redone."""

from __future__ import annotations

import fcntl
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_filter.bench.jobs import Job
from safety_filter.bench.summary import SCHEMA_VERSION

SAME = ("code", "libraries", "config")  # of the header: what makes results comparable


class StoreError(RuntimeError):
    """Results on disk that cannot be continued; says why and what to do."""


class Store:
    """The file of lines: the header first, then an episode a line, in the order they ended."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Continue the file, or begin it.

        Raises:
            StoreError: it was written with another schema, code, configuration or library, or
                another process writes there now.
            OSError: it cannot be read or written.
        """
        self.path = path
        self.episodes: dict[Job, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        try:
            self._begin(json.loads(json.dumps(header)))  # as it reads back: tuples become lists
        except BaseException:
            self._file.close()
            raise

    def _begin(self, header: Mapping[str, Any]) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{self.path}: another process writes there; wait for its end, or "
                             "use another --out") from error
        lines = self.path.read_bytes().split(b"\n")
        whole, torn = lines[:-1], lines[-1]
        if torn:  # killed while it wrote: that episode is run again
            self._file.truncate(sum(len(line) + 1 for line in whole))
        if whole:
            self._continue(header, whole)
        else:
            self._write({"schema_version": SCHEMA_VERSION, **header})

    def _continue(self, header: Mapping[str, Any], whole: list[bytes]) -> None:
        found = _parse(self.path, 1, whole[0])
        schema = found.get("schema_version")
        if schema != SCHEMA_VERSION:
            raise StoreError(schema_fault(self.path, found))
        fault = mismatch(found, header)
        if fault:
            raise StoreError(f"{self.path}: {fault}; results of both must not be mixed: add "
                             "--fresh to begin anew, or use another --out")
        for number, line in enumerate(whole[1:], 2):
            episode = _parse(self.path, number, line, Job._fields)
            if "error" not in episode:  # what failed is tried again
                job = Job(episode["seed"], episode["suite"], episode["method"])
                self.episodes[job] = episode

    def add(self, episode: dict[str, Any]) -> None:
        """Keep one line.

        Raises:
            OSError: no space; what was written before stays.
        """
        self._write(episode)
        self.episodes[Job(episode["seed"], episode["suite"], episode["method"])] = episode

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def mismatch(found: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """The first of what makes results comparable in which two headers differ, or ""."""
    for name in SAME:
        theirs, ours = found.get(name), header[name]
        if theirs == ours:
            continue
        if isinstance(theirs, dict) and isinstance(ours, dict):
            theirs, ours = _differing(theirs, ours), _differing(ours, theirs)
        return f"its {name} is {_short(theirs)}, this run's is {_short(ours)}"
    return ""


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What of `one` is not so in `other`, to any depth."""
    out: dict[str, Any] = {}
    for name, value in one.items():
        counterpart = other.get(name)
        if isinstance(value, dict) and isinstance(counterpart, dict):
            if value != counterpart:
                out[name] = _differing(value, counterpart)
        elif name not in other or value != counterpart:
            out[name] = value
    return out


def schema_fault(path: Path, content: Mapping[str, Any]) -> str:
    """Why results of another schema are refused, and how to convert them."""
    return (f"{path}: schema_version {content.get('schema_version')!r}, this version reads "
            f"{SCHEMA_VERSION}; its episodes can be made again from their seeds: run "
            f"`{_command(content)}`, or read it with the "
            f"revision that wrote it, {content.get('git_revision', 'unknown')}")


def _command(content: Mapping[str, Any]) -> str:
    """What runs the episodes of a header again, as far as it says."""
    words = ["safety-filter", "bench", "--seed0", content.get("seed0", "SEED"), "--episodes",
             content.get("seeds_per_suite", content.get("episodes_per_suite", "N"))]
    for name in ("suites", "methods", "tasks"):
        if content.get(name):
            words += [f"--{name}", *content[name]]
    for name in ("policy", "perception"):
        if content.get("config", {}).get(name):
            words += [f"--{name}", content["config"][name]]
    return shlex.join(map(str, [*words, "--out", "ANOTHER"]))


def refuse_other_schema(path: Path) -> None:
    """Keep a suites.json of another schema from being overwritten; what is no JSON may be.

    Raises:
        StoreError: it is of another schema.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    if isinstance(content, dict) and content.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(schema_fault(path, content))


def load_summary(path: Path) -> dict[str, Any]:
    """The content of a suites.json.

    Raises:
        StoreError: missing, not JSON, of another schema, or not of the benchmark.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: missing; run `safety-filter bench` first") from error
    except ValueError as error:
        raise StoreError(f"{path}: not JSON ({error}); run `safety-filter bench` again, it is "
                         "rebuilt from the lines of episodes.jsonl") from error
    require(path, content, ("suites", "results", "episodes"), "the suites.json of "
            "`safety-filter bench`")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(schema_fault(path, content))
    return dict(content)


def require(path: Path, content: object, names: Sequence[str], what: str) -> None:
    """Check that `content` is an object with these names.

    Raises:
        StoreError: it is not; `what` was expected there.
    """
    found = sorted(content) if isinstance(content, dict) else type(content).__name__
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if missing:
        raise StoreError(f"{path}: expected {what}, an object with {', '.join(names)}; got "
                         f"{found}, without {', '.join(missing)}: name the right file")


def _parse(path: Path, number: int, line: bytes, names: Sequence[str] = ()) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise StoreError(_damaged(path, number, f"not JSON ({error})")) from error
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise StoreError(_damaged(path, number, "expected an object" + (
            f" with {', '.join(names)}" if names else "") + f", got {_short(content)}"))
    return content


def _damaged(path: Path, number: int, what: str) -> str:
    remedy = ("delete that line, its episode is run again" if number > 1 else
              "it says what the episodes were made with, add --fresh to begin anew")
    return f"{path}:{number}: {what}; the file was edited or damaged: {remedy}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else text[:117] + "..."
