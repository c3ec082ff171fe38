"""Containers: what can be checked of them without building them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from lifecycle_msgs.msg import Transition
from rclpy.context import Context
from ros_rig import START_SECONDS, Rig, running
from std_msgs.msg import String

from safety_filter import graph
from safety_filter.core.robot import read_config, urdf_path
from safety_filter.nodes.qos import LATCHED

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    command = [hadolint, "docker/Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [s for line in copied for s in line.split()]
    assert "safety_filter" in sources
    kept = [
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]  # fmt: skip
    for source in sources:
        assert (ROOT / source).exists()
        assert source in kept


def test_the_core_image_installs_no_torch_and_no_simulator() -> None:
    core = DOCKERFILE[: DOCKERFILE.index("AS build-full")]
    extras = re.search(r'"\.\[([\w,]+)\$', core)
    assert extras is not None
    assert set(extras.group(1).split(",")) == {"monitor", "bags"}


def test_images_run_as_a_user_and_ask_for_the_state() -> None:
    for stage in ("core", "full"):
        part = DOCKERFILE[DOCKERFILE.index(f"AS {stage}\n") :].split("\nFROM")[0]
        assert "USER 10001" in part
    assert "HEALTHCHECK" in DOCKERFILE and "STOPSIGNAL SIGTERM" in DOCKERFILE


def test_compose_runs_each_node_in_a_container_and_never_restarts_a_guard() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    nodes = {
        s["command"][1]: s for s in services.values() if s.get("command", [""])[0] == "node"
    }
    assert set(nodes) == set(graph.NODES)
    for name, service in nodes.items():
        assert service["network_mode"] == "service:namespace"
        assert service["ipc"] == "service:namespace"
        assert service["cap_drop"] == ["ALL"]
        if not graph.NODES[name].respawn:
            assert service.get("restart", "no") == "no"
    for guard in ("filter_node", "monitor_node"):
        assert nodes[guard]["image"] == "safety_filter:core"
    assert services["namespace"]["shm_size"] == "1gb"


def test_no_page_gives_a_node_a_gpu() -> None:
    """Nothing in a node uses one: policy and detector run on the CPU."""
    pages = [DOCKER / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    lines = [x for x in text.splitlines() if "--gpus" in x or "safety_filter:gpu" in x]
    assert lines and not [line for line in lines if re.search(r"\bnode \w+_node\b", line)]


def test_the_entry_point_is_executable_and_runs_what_it_is_given() -> None:
    entry = DOCKER / "entrypoint.sh"
    assert os.access(entry, os.X_OK)
    done = subprocess.run([entry, "echo", "a b"], capture_output=True, text=True)
    assert done.stdout == "a b\n"


def test_node_becomes_the_node_with_the_wiring_of_the_graph(tmp_path: Path) -> None:
    command = [sys.executable, str(DOCKER / "node.py")]
    done = subprocess.run([*command, "dance"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "filter_node" in done.stderr
    command += ["filter_node", "-p", "rate:=5.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and "rate: expected 100 to 1000" in done.stderr


def test_a_parameter_that_is_typed_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cell.yaml"
    file.write_text("/**/filter_node: {ros__parameters: {fifo_priority: 0}}\n")
    command = [sys.executable, str(DOCKER / "node.py"), "filter_node", f"params_file:={file}"]
    command += ["-p", "fifo_priority:=-7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2 and "fifo_priority: expected" in done.stderr
    assert "got -7" in done.stderr


def _node_py() -> Any:
    spec = importlib.util.spec_from_file_location("node", DOCKER / "node.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _line(*words: str) -> list[str]:
    """The command that docker/node.py would become."""
    return list(_node_py().command(words[0], words[1:]))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "/filter_node"),
        (("robot:=panda", "namespace:=cell"), "/cell/filter_node"),
        (("robot:=panda", "namespace:=cell", "-r", "__ns:=/other"), "/other/filter_node"),
        (("-r", "__node:=guard"), "/guard"),
    ],
)
def test_the_health_check_asks_the_node_by_the_name_it_has(
    words: tuple[str, ...], name: str
) -> None:
    assert _node_py().full_name("filter_node", _line("filter_node", *words)) == name


def test_what_the_user_remaps_comes_before_the_wiring() -> None:
    line = _line("filter_node", "-r", "joint_states:=/js", "-p", "rate:=100.0")
    # rcl takes the first remapping of a name
    assert line.index("joint_states:=/js") < line.index("joint_states:=sim_node/joint_states")
    assert line[line.index("joint_states:=/js") - 1] == "-r"


def test_with_launch_arguments_a_node_is_wired_to_the_arm() -> None:
    line = _line("monitor_node", "robot:=panda", "vla:=false")
    assert "~/joint_velocity_out:=/forward_velocity_controller/commands" in line
    assert "joint_states:=/joint_states" in line
    for words, told in (
        (("filter_node", "robot:=ur5e"), "fit-robot"),
        (("vla_node", "robot:=panda", "vla:=false"), "not part of the graph"),
        (("filter_node", "robt:=panda"), "argument:=value"),
        (("filter_node", "panda"), "argument:=value"),
        (("filter_node", "-p", "rate"), "parameter:=value"),
    ):
        with pytest.raises(ValueError, match=told):
            _line(*words)


@pytest.mark.ros
def test_a_configured_node_is_healthy_and_one_that_waits_for_its_robot_is_not(
    tmp_path: Path,
) -> None:
    spec = graph.NODES["filter_node"].with_parameters(
        activate_at_start=False, monitored=False, description=True
    )
    with running(tmp_path, spec):
        rig = Rig()
        try:

            def healthy(message: str) -> bool:
                rig.wait_state("filter_node", message, START_SECONDS)
                done = _health(os.environ["ROS_DOMAIN_ID"])
                assert done.stdout.startswith(f"filter_node: {message}"), done.stdout
                return done.returncode == 0

            assert not healthy("unconfigured")
            late = threading.Thread(
                target=rig.change, args=("filter_node", Transition.TRANSITION_CONFIGURE)
            )
            late.start()
            assert not healthy("waiting for /robot_description")
            text = String(data=urdf_path(read_config("panda")).read_text())
            rig.node.create_publisher(String, "robot_description", LATCHED).publish(text)
            late.join()
            assert healthy("inactive")
            assert rig.change("filter_node", Transition.TRANSITION_ACTIVATE)
            assert healthy("PASS")
            assert rig.change("filter_node", Transition.TRANSITION_ACTIVE_SHUTDOWN)
            assert not healthy("shut down")
        finally:
            rig.close()


def _health(domain: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ROS_DOMAIN_ID": domain,
                   "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}  # fmt: skip
    command = [sys.executable, str(DOCKER / "health.py"), "filter_node"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.ros
@pytest.mark.parametrize(
    ("message", "level", "healthy"),
    [
        ("STOPPED command: none received", b"\x02", True),
        ("not configured: robot: no such file", b"\x02", False),
        (None, b"\x00", False),
    ],
)
def test_health_is_a_fresh_state_of_a_configured_node(
    message: str | None, level: bytes, healthy: bool
) -> None:
    import rclpy
    from diagnostic_msgs.msg import DiagnosticStatus
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=102, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("filter_node", context=context)
    publisher = node.create_publisher(DiagnosticStatus, "~/state", LATCHED)
    end = threading.Event()

    def tell() -> None:
        while not end.wait(0.1):
            publisher.publish(DiagnosticStatus(level=level, message=message or ""))

    thread = threading.Thread(target=tell)
    publisher.publish(DiagnosticStatus(level=level, message="the last words"))
    if message is not None:
        thread.start()
    done = _health("102")
    end.set()
    if message is not None:
        thread.join()
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    assert (done.returncode == 0) == healthy, done.stdout + done.stderr
    assert (message or "no fresh state") in done.stdout
