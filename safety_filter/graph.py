"""The graph: which nodes there are, how they are wired, which launch file starts which.

The one description from which both `launch/*.launch.py` and the runner for machines without
`ros2 launch` are drawn. Imports no ROS, so that either side can read it.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

PACKAGE = "safety_filter"
SHARED_MEMORY = 160 * 2**20  # bytes free in /dev/shm for a segment in each process


@dataclass(frozen=True)
class NodeSpec:
    """One process. `remappings` go from the node's names to names of other nodes (relative, so a
    namespace moves the whole graph); `parameters` come after the file `config`."""

    name: str
    remappings: tuple[tuple[str, str], ...] = ()
    config: str | None = None  # file below config/
    parameters: dict[str, Any] = field(default_factory=dict)
    respawn: bool = False  # never for what commands the arm: a restart must be noticed
    nice: int = 0  # what may be late yields the processor to what must not be

    @property
    def module(self) -> str:
        """Module with the node's `main`; the entry point has the node's name."""
        return f"{PACKAGE}.nodes.{self.name}"

    def with_parameters(self, **parameters: Any) -> NodeSpec:
        """The same node with other parameters over its own."""
        return replace(self, parameters={**self.parameters, **parameters})


@dataclass(frozen=True)
class Argument:
    """A launch argument that sets `parameter` of `node`."""

    name: str
    default: str
    text: str
    node: str
    parameter: str


_JOINTS = ("joint_states", "sim_node/joint_states")

NODES = {
    spec.name: spec
    for spec in (
        NodeSpec(
            "sim_node",
            (
                ("~/twist_in", "vla_node/twist"),
                ("~/gripper_in", "vla_node/gripper"),
                ("~/joint_velocity_in", "arm/joint_velocity"),
            ),
            "sim.yaml",
        ),
        NodeSpec(
            "vla_node",
            (
                ("image", "sim_node/scene/image"),
                ("wrist_image", "sim_node/wrist/image"),
                _JOINTS,
                ("instruction", "sim_node/instruction"),
            ),
            "vla.yaml",
            respawn=True,
            nice=5,
        ),
        NodeSpec(
            "perception_node",
            (
                ("image", "sim_node/scene/image"),
                ("depth", "sim_node/scene/depth"),
                ("camera_info", "sim_node/scene/camera_info"),
                ("camera_pose", "sim_node/scene/camera_pose"),
                _JOINTS,
                ("attention", "vla_node/attention"),
            ),
            "perception.yaml",
            respawn=True,
            nice=5,
        ),
        NodeSpec(
            "filter_node",
            (
                ("~/twist_in", "vla_node/twist"),
                ("~/obstacles", "perception_node/obstacles"),
                _JOINTS,
                # Each watches the other: the filter itself sends zeros when the monitor is silent
                ("~/monitor_heartbeat", "monitor_node/heartbeat"),
                ("~/joint_velocity_fallback", "arm/joint_velocity"),
            ),
            "filter.yaml",
            {"monitored": True},
        ),
        NodeSpec(
            "monitor_node",
            (
                ("~/joint_velocity_in", "filter_node/joint_velocity_out"),
                ("~/joint_velocity_out", "arm/joint_velocity"),
                ("~/obstacles", "perception_node/obstacles"),
                ("~/filter_stop", "filter_node/stop"),
                _JOINTS,
            ),
            "monitor.yaml",
        ),
    )
}

# Launch file -> its nodes and arguments
GROUPS: dict[str, tuple[str, ...]] = {
    "demo": tuple(NODES),
    "sim": ("sim_node",),
    "vla": ("vla_node",),
    "perception": ("perception_node",),
    "filter": ("filter_node", "monitor_node"),
}
ARGUMENTS = (
    Argument("seed", "0", "seed of the scene", "sim_node", "seed"),
    Argument("suite", "demo", "suite of scenes: free or demo", "sim_node", "suite"),
    Argument("gui", "false", "show PyBullet's window", "sim_node", "gui"),
    Argument(
        "autostart", "true", "time runs at once, without a start request", "sim_node", "autostart"
    ),
)


def arguments(group: str) -> tuple[Argument, ...]:
    """The launch arguments of a group."""
    return tuple(a for a in ARGUMENTS if a.node in GROUPS[group])


def share(relative: str) -> Path:
    """A file of share/safety_filter (`config/...`, `launch/...`), installed or in the checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if p]
    candidates = [Path(__file__).resolve().parent.parent / relative]
    candidates += [
        prefix / "share" / PACKAGE / relative for prefix in (*prefixes, Path(sys.prefix))
    ]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    looked = ", ".join(str(c) for c in candidates)
    raise FileNotFoundError(f"{relative}: expected in one of {looked}")


def command(spec: NodeSpec) -> list[str]:
    """Command line that starts a node with this interpreter, without `ros2 launch`."""
    words = [sys.executable, "-m", spec.module, "--ros-args"]
    for source, target in spec.remappings:
        words += ["-r", f"{source}:={target}"]
    if spec.config is not None:
        words += ["--params-file", str(share(f"config/{spec.config}"))]
    for name, value in spec.parameters.items():
        # YAML flow style on one line is what rcl parses
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
        words += ["-p", f"{name}:={text.removesuffix('...').strip()}"]
    return words


def environment_variables() -> dict[str, str]:
    """What each process needs: the shared-memory profile for images, one thread a numeric pool.

    Where shared memory is scarce (containers start with 64 MB) the middleware's own segment has
    to do: it is enough for the pictures of the demo.
    """
    variables = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free >= SHARED_MEMORY:
        profile = str(share("config/fastdds_shm.xml"))
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile
        variables["FASTDDS_DEFAULT_PROFILES_FILE"] = profile
    return variables
