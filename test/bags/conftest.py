"""One small recorded run for the tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from safety_filter import cli


def _load() -> ModuleType:
    path = Path(__file__).with_name("make_bags.py")
    spec = importlib.util.spec_from_file_location("make_bags", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """test/bags/make_bags.py."""
    return _load()


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory, make: ModuleType) -> Path:
    """4 s: towards an obstacle, no perception from 2.2 to 3.0 s, stopped and reset at the end."""
    path: Path = tmp_path_factory.mktemp("bags") / "drive"
    make.drive(path)
    return path


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, make: ModuleType) -> Path:
    """1.6 s of the simulated cell with both cameras and what perception made of it."""
    path: Path = tmp_path_factory.mktemp("bags") / "watched"
    make.watch(path)
    return path


@pytest.fixture
def replay_with(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], tuple[int, str]]:
    """`safety-filter replay` of the run with an option that names a file of this content; returns
    the exit code and all that was printed."""

    def run(option: str, content: str) -> tuple[int, str]:
        file = tmp_path / "option.yaml"
        file.write_text(content)
        code = cli.main(["replay", str(drive), option, str(file)])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run
