"""The graph: which nodes there are, how they are wired, which launch file starts which.

The one description from which both `launch/*.launch.py` and the runner for machines without
`ros2 launch` are drawn. Imports no ROS, so that either side can read it.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from safety_filter import parameter_files

PACKAGE = "safety_filter"
SHARED_MEMORY = 160 * 2**20  # bytes free in /dev/shm for a segment in each process
PICTURES = "config/fastdds_shm.xml"  # shared memory for pictures
# Each chooses the middleware's transports
TRANSPORTS = ("FASTDDS_BUILTIN_TRANSPORTS", "FASTDDS_DEFAULT_PROFILES_FILE",
              "FASTRTPS_DEFAULT_PROFILES_FILE")  # fmt: skip


@dataclass(frozen=True)
class NodeSpec:
    """One process. `remappings` go from the node's names to names of other nodes (relative, so a
    namespace moves the whole graph). `parameters` win over `files`, these over `defaults`, and
    these over the shipped file `config`."""

    name: str
    remappings: tuple[tuple[str, str], ...] = ()
    config: str | None = None  # file below config/
    parameters: dict[str, Any] = field(default_factory=dict)
    respawn: bool = False  # never for what commands the arm: a restart must be noticed
    nice: int = 0  # what may be late yields the processor to what must not be
    namespace: str = ""
    secure: bool = False  # in its SROS2 enclave
    # What holds unless a file of the user's says otherwise; and those files
    defaults: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Module with the node's `main`; the entry point has the node's name."""
        return f"{PACKAGE}.nodes.{self.name}"

    def with_parameters(self, **parameters: Any) -> NodeSpec:
        """The same node with other parameters over its own."""
        return replace(self, parameters={**self.parameters, **parameters})

    def with_remappings(self, remappings: Mapping[str, str]) -> NodeSpec:
        """The same node with other remappings over its own."""
        return replace(self, remappings=tuple({**dict(self.remappings), **remappings}.items()))


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
                ("instruction", "sim_node/instruction"),
                _JOINTS,
                ("attention", "vla_node/attention"),
                ("wrist_attention", "vla_node/wrist_attention"),
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
            defaults={"monitored": True},
        ),
        NodeSpec(
            "monitor_node",
            (
                ("~/joint_velocity_in", "filter_node/joint_velocity_out"),
                ("~/joint_velocity_out", "arm/joint_velocity"),
                ("~/obstacles", "perception_node/obstacles"),
                ("~/filter_stop", "filter_node/monitor_stop"),
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
# What decides about the wiring, where nobody says otherwise: the nodes' own defaults
_DEFAULTS: dict[str, Any] = {
    "robot": "panda", "urdf": "", "description": False, "output": "joint_velocity",
    "command": "twist", "extrinsics": "topic", "monitored": False,
}  # fmt: skip


def in_force(spec: NodeSpec) -> dict[str, Any]:
    """What a node is told, user's files included, and the defaults of what decides about wiring.

    Raises:
        ValueError: a file cannot be read, or has a section that is meant for one of our nodes and
            is for none.
    """
    told = {**_DEFAULTS, **spec.defaults}
    try:
        for file in spec.files:
            told |= parameter_files.of_node(Path(file), spec.name, spec.namespace)
    except ValueError as error:
        raise ValueError(f"params_file {error}") from error
    return {**told, **spec.parameters}


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


def ros_arguments(spec: NodeSpec) -> list[str]:
    """Further arguments after --ros-args."""
    return ["--enclave", f"/{PACKAGE}/{spec.name}"] if spec.secure else []


def parameter_sources(spec: NodeSpec) -> list[str]:
    """The parameter files of a node: the shipped one, the user's, and one that is written here.

    rcl goes by where a section's name first comes up, not by the order of files: a user's `/**`
    counts as early as the shipped file's. So what is set here is resolved here as well, and stands
    in a section that nobody else names: it comes last.
    """
    shipped = [] if spec.config is None else [str(share(f"config/{spec.config}"))]
    told = in_force(spec)
    own = {name: told[name] for name in (*spec.defaults, *spec.parameters)}
    return [*shipped, *spec.files, *([_written(spec.name, own)] if own else [])]


def _written(name: str, values: Mapping[str, Any]) -> str:
    """Path of a parameter file that is there as long as this process."""
    with tempfile.NamedTemporaryFile(
        "w", dir=_folder().name, prefix=f"{name}_", suffix=".yaml", delete=False
    ) as file:
        yaml.safe_dump({parameter_files.LAST: {"ros__parameters": dict(values)}}, file)
    return file.name


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"{PACKAGE}_")


def command(spec: NodeSpec) -> list[str]:
    """Command line that starts a node with this interpreter, without `ros2 launch`."""
    words = [sys.executable, "-m", spec.module, "--ros-args"]
    words += ros_arguments(spec)
    for source, target in spec.remappings:
        words += ["-r", f"{source}:={target}"]
    if spec.namespace:
        words += ["-r", f"__ns:=/{spec.namespace.strip('/')}"]
    for source in parameter_sources(spec):
        words += ["--params-file", source]
    return words


def environment_variables() -> dict[str, str]:
    """What each process needs: the shared-memory profile for images, one thread a numeric pool.

    Where shared memory is scarce (containers start with 64 MB) the middleware's own segment has
    to do: it is enough for the pictures of the demo. A profile or transports that the user has
    chosen stay.
    """
    variables = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    shared = Path("/dev/shm")
    chosen = any(os.environ.get(name) for name in TRANSPORTS)
    if not chosen and shared.is_dir() and shutil.disk_usage(shared).free >= SHARED_MEMORY:
        profile = str(share(PICTURES))
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile
        variables["FASTDDS_DEFAULT_PROFILES_FILE"] = profile
    return variables
