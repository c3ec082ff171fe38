"""The graph: which nodes there are, how they are wired, which launch file starts which.

The one description from which both `launch/*.launch.py` and the runner for machines without
`ros2 launch` are drawn. Imports no ROS, so that either side can read it.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

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


@dataclass(frozen=True)
class Argument:
    """A launch argument: sets `parameter` of `nodes`, or remaps the name `remap` on them.

    An empty value leaves what the graph says, and then `text` says what that is.
    """

    name: str
    default: str
    text: str
    nodes: tuple[str, ...] = ()
    parameter: str = ""
    remap: str = ""


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
            {"monitored": True},
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
_ALL = tuple(NODES)
_CAMERA = ("vla_node", "perception_node")
_FILTER, _MONITOR = ("filter_node",), ("monitor_node",)
_MODEL = ("vla_node", "perception_node", "filter_node", "monitor_node")
COMMON = (
    Argument("namespace", "", "namespace of all nodes; empty: none"),
    Argument("use_sim_time", "false", "follow /clock", _ALL, "use_sim_time"),
    Argument("secure", "false", "true: each node in its SROS2 enclave, see docs/security.md"),
    Argument("params_file", "", "parameter file (YAML) over the shipped ones, for all nodes;"
             " empty: none"),
)
SIMULATOR = (
    Argument("seed", "0", "seed of the scene", ("sim_node",), "seed"),
    Argument("suite", "dynamic-4", "suite of scenes: free, dynamic-4, ...", ("sim_node",),
             "suite"),
    Argument("gui", "false", "show PyBullet's window", ("sim_node",), "gui"),
    Argument(
        "autostart", "true", "time runs at once, without a start request", ("sim_node",),
        "autostart",
    ),
)  # fmt: skip


def check_typed(typed: Collection[str], declared: Sequence[Argument]) -> None:
    """`launch` takes no notice of arguments that nobody declares: misspelt ones are told here.

    Others may belong to a launch file that includes ours.

    Raises:
        ValueError: one of `typed` almost is an argument of `declared` that was not typed.
    """
    names = {a.name for a in declared}
    for name in sorted(set(typed) - names):
        near = difflib.get_close_matches(name, names - set(typed), 1, 0.85)
        if near:
            raise ValueError(
                f"launch argument {name!r}: nobody declares it; did you mean {near[0]}? Where it"
                f" belongs to a launch file that includes this one, give {near[0]} too"
            )


def _topic(spec: NodeSpec, name: str) -> str:
    """Where a node's own name for a topic leads."""
    return dict(spec.remappings).get(name, name.replace("~", spec.name))


def _wired(argument: Argument) -> Argument:
    """With the topic that the graph wires for its default: `--show-args` then tells it."""
    if not argument.remap:
        return argument
    return replace(argument, default=_topic(NODES[argument.nodes[0]], argument.remap))


# For nodes that are started without those that they are wired to
TOPICS = tuple(map(_wired, (
    Argument("image", "", "topic of the scene camera's colour image", _CAMERA, remap="image"),
    Argument("wrist_image", "", "topic of the wrist camera", ("vla_node",), remap="wrist_image"),
    Argument("instruction", "", "topic of the instruction", ("vla_node", "perception_node"),
             remap="instruction"),
    Argument("depth", "", "topic of the registered depth image", ("perception_node",),
             remap="depth"),
    Argument("camera_info", "", "topic of the camera's CameraInfo", ("perception_node",),
             remap="camera_info"),
    Argument("camera_pose", "", "topic of the camera's pose (extrinsics: topic)",
             ("perception_node",), remap="camera_pose"),
    Argument("attention", "", "topic of the policy's attention map", ("perception_node",),
             remap="attention"),
    Argument("wrist_attention", "", "topic of its map over the wrist camera's picture",
             ("perception_node",), remap="wrist_attention"),
    Argument("joint_states", "", "topic of the arm's joint states", _MODEL, remap="joint_states"),
    Argument("obstacles", "", "topic of the obstacles (PointCloud2, layout v1)",
             (*_FILTER, *_MONITOR), remap="~/obstacles"),
    Argument("command", "twist", "kind of command: twist, joint_velocity, joint_position or"
             " trajectory", _FILTER, "command"),
    Argument("twist", "", "topic of a twist command", _FILTER, remap="~/twist_in"),
    Argument("joint_command", "", "topic of a joint command (Float64MultiArray)", _FILTER,
             remap="~/joint_command_in"),
    Argument("trajectory", "", "topic of a trajectory command", _FILTER, remap="~/trajectory_in"),
    Argument("robot", "panda", "shipped robot or path of a robot file", _MODEL, "robot"),
    Argument("urdf", "", "path of the URDF; empty: the one that the robot file names", _MODEL,
             "urdf"),
)))  # fmt: skip


def arguments(group: str) -> tuple[Argument, ...]:
    """The launch arguments of a group that say something to its nodes."""
    nodes = GROUPS[group]
    own = SIMULATOR if "sim_node" in nodes else TOPICS
    return (*(a for a in own if set(a.nodes) & set(nodes)), *COMMON)


def build(group: str, values: Mapping[str, str]) -> list[NodeSpec]:
    """The nodes of a group with the launch arguments `values` (name -> text, as typed)."""
    return configured([NODES[name] for name in GROUPS[group]], arguments(group), values)


def truth(name: str, text: str) -> bool:
    """A launch argument that is true or false. Raises ValueError for anything else."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{name}: expected true or false, got {text!r}")
    return text.lower() == "true"


def configured(
    specs: Sequence[NodeSpec], declared: Sequence[Argument], values: Mapping[str, str]
) -> list[NodeSpec]:
    """`specs` with the launch arguments applied.

    What was typed (`values`) wins over the user's parameter file; defaults of arguments do not.

    Raises:
        ValueError: the parameter file cannot be read, or has a section that is meant for a node
            here but misses it.
    """
    if values.get("params_file"):
        _check_sections(Path(values["params_file"]), values.get("namespace", ""))
    result = []
    for spec in specs:
        for argument in declared:
            text = values.get(argument.name, argument.default)
            if spec.name not in argument.nodes or text == "":
                continue
            if argument.remap:
                if text != _topic(spec, argument.remap):
                    spec = spec.with_remappings({argument.remap: text})
            else:
                given = {argument.parameter: yaml.safe_load(text)}
                if argument.name in values:
                    spec = spec.with_parameters(**given)
                else:
                    spec = replace(spec, defaults={**given, **spec.defaults})
        file = values.get("params_file", "")
        spec = replace(
            spec,
            namespace=values.get("namespace", ""),
            secure=truth("secure", values.get("secure", "false")),
            files=(*spec.files, *([file] if file else [])),
        )
        result.append(spec)
    return result


def _check_sections(path: Path, namespace: str) -> None:
    """ROS takes no notice of sections that fit no node, and `launch` none of a missing file: told
    here, they may hold safety bounds.

    Raises:
        ValueError: the file cannot be read, or a section names one of the nodes in another
            namespace, or almost names one.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"params_file {path}: {error}") from error
    prefix = [word for word in namespace.split("/") if word]
    for section in content if isinstance(content, dict) else ():
        *given, name = [word for word in str(section).split("/") if word] or [""]
        near = difflib.get_close_matches(name, NODES, 1, 0.8)
        if near and (name not in NODES or given not in (prefix, ["**"], ["*"] * len(prefix))):
            raise ValueError(
                f"params_file {path}: the section {section!r} is for none of the nodes, which are"
                f" in {'/'.join(['', *prefix]) or '/'}; write /**/{near[0]}"
            )


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


def parameter_sources(spec: NodeSpec) -> list[str | dict[str, Any]]:
    """The parameter files (paths) and values of a node, later ones win."""
    own = [] if spec.config is None else [str(share(f"config/{spec.config}"))]
    return [*own, *([spec.defaults] if spec.defaults else []), *spec.files, spec.parameters]


def command(spec: NodeSpec) -> list[str]:
    """Command line that starts a node with this interpreter, without `ros2 launch`."""
    words = [sys.executable, "-m", spec.module, "--ros-args"]
    words += ros_arguments(spec)
    for source, target in spec.remappings:
        words += ["-r", f"{source}:={target}"]
    if spec.namespace:
        words += ["-r", f"__ns:=/{spec.namespace.strip('/')}"]
    for source in parameter_sources(spec):  # rcl takes them in order, later ones win
        words += _given(source) if isinstance(source, dict) else ["--params-file", source]
    return words


def _given(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters on the command line."""
    words = []
    for name, value in parameters.items():
        # YAML flow style on one line is what rcl parses
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
        words += ["-p", f"{name}:={text.removesuffix('...').strip()}"]
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
