"""Packaging: a valid ament_python package, pins, a bootstrap that tells what to do."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts/bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _colcon(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    colcon = Path(sys.executable).parent / "colcon"
    return subprocess.run(
        [colcon, "--log-base", "log", *arguments], cwd=cwd, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def test_colcon_takes_it_for_an_ament_python_package(tmp_path: Path) -> None:
    listed = _colcon("list", "--base-paths", str(ROOT), cwd=tmp_path)
    assert "(ros.ament_python)" in listed.stdout, listed.stderr


def test_colcon_build_installs_nodes_launch_and_config(tmp_path: Path) -> None:
    built = _colcon("build", "--base-paths", str(ROOT), cwd=tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = tmp_path / "install/safety_filter"
    for name in ("filter_node", "vla_node", "perception_node", "sim_node"):
        assert (prefix / "lib/safety_filter" / name).is_file()
    share = prefix / "share/safety_filter"
    for name in ("package.xml", "launch/demo.launch.py", "config/fastdds_shm.xml"):
        assert (share / name).is_file()
    assert (prefix / "share/ament_index/resource_index/packages/safety_filter").is_file()
    # The installed package finds its files without the checkout
    (site,) = prefix.glob("lib/python3*/site-packages")
    code = (
        "import safety_filter\n"
        "from safety_filter.arms import profile\n"
        "from safety_filter.core.robot import read_config\n"
        "print(safety_filter.__file__, profile.names(), read_config('panda')['name'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "AMENT_PREFIX_PATH": str(prefix)}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert str(prefix) in told.stdout and "'ur5e'" in told.stdout, told.stderr
    assert told.stdout.split()[-1] == "panda"


def test_every_requirement_is_pinned() -> None:
    pins = set()
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pins.add(re.sub(r"[-_.]+", "-", line.split("==")[0].lower()))
            assert re.fullmatch(r'[\w.\-]+==[\w.\-+]+(; python_version (<|>=) "3\.11")?', line)
    text = (ROOT / "setup.py").read_text()
    block = text[text.index("ROS_WHEELS =") : text.index("NODES =")]
    names = re.findall(r'"([A-Za-z][\w\-]+)(?:\[\w+\])?"(?!:)', block)
    wanted = {re.sub(r"[-_.]+", "-", n.lower()) for n in names}
    assert "torch" in wanted and wanted <= pins, wanted - pins


def test_bootstrap_says_the_line_to_type_where_libraries_are_missing(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "SYSTEM_LIBRARIES", {"libnone.so.9": ("libnone9", "pin")})
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    with pytest.raises(bootstrap.BootstrapError, match=r"sudo apt-get .*install -y libnone9"):
        bootstrap.ensure_libraries()


def test_bootstrap_prefers_a_python_with_a_pybullet_wheel(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"python3.12": "3.12", "python3": "3.12", "python3.10": "3.10"}
    monkeypatch.setattr(bootstrap, "probe", lambda command, ros: there.get(command))
    assert bootstrap.choose_python(ros=False) == ("python3.10", "3.10")
    del there["python3.10"]
    assert bootstrap.choose_python(ros=False)[1] == "3.12"
    there.clear()
    with pytest.raises(bootstrap.BootstrapError, match="python3-venv"):
        bootstrap.choose_python(ros=False)
