"""What lies on disk is kept, read back or refused, and never taken for something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_rig import line

from safety_filter.bench.jobs import Config, Job
from safety_filter.bench.run import Plan, execute
from safety_filter.bench.store import Store, load_summary

PLAN = Plan(Config("expert", "truth"), ["static-2"], ["none", "ours"], 3000, 2, Path())


def quick(config: Config, jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    return (line(job) for job in jobs)


class FullDisk(Store):
    """A store whose file takes the header and nothing more."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        super().__init__(path, header)
        self._file.close()
        self._file = Path("/dev/full").open("a", encoding="utf-8")


def test_a_store_that_cannot_be_flushed_still_leaves_a_summary(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safety_filter.bench.run.Store", FullDisk)
    with pytest.raises(OSError, match="No space left"):
        execute(replace(PLAN, out=tmp_path), quick)
    content = load_summary(tmp_path / "suites.json")
    assert not content["complete"] and content["episodes"] == []
