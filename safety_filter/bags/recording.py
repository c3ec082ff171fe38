"""What a bag holds of the filter's life: configuration, ticks and obstacles, ready to replay.

Bags with `~/ticks` (recorded from our filter) are exact: every step gets what the live one got.
Of other bags the ticks are made up at the filter's rate from the recorded inputs, each counted as
received when the recorder received it; `exact` tells which.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import Bag, BagError
from safety_filter.core.filter_params import TABLE, FilterParams
from safety_filter.core.inputs import ObstacleSample
from safety_filter.core.params import ParamError
from safety_filter.core.robot import RobotError, RobotModel, read_config, urdf_path
from safety_filter.robot_source import Gripper

TYPES = {
    "joint_states": ms.JOINT_STATE,
    "obstacles": ms.CLOUD,
    "twist": ms.TWIST,
    "joint_command": ms.ARRAY,
    "ticks": ms.CLOUD,
    "tick_obstacles": ms.CLOUD,
    "config": ms.STRING,
    # of perception and policy
    "image": ms.IMAGE,
    "depth": ms.IMAGE,
    "camera_info": ms.CAMERA_INFO,
    "camera_pose": ms.POSE,
    "attention": ms.IMAGE,
    "wrist_attention": ms.IMAGE,
    "wrist_image": ms.IMAGE,
    "instruction": ms.STRING,
    "tf": ms.TF,
    "tf_static": ms.TF,
}
ROLES = ("joint_states", "twist", "joint_command")  # of which ticks can be made up
UPSTREAM = ("image", "depth", "camera_info", "camera_pose", "attention",
            "wrist_attention", "wrist_image", "instruction", "tf", "tf_static")  # fmt: skip
# How a topic is found where neither the bag nor the caller says it: by the end of its name
_ENDINGS = {
    "joint_states": ("joint_states",),
    "obstacles": ("/obstacles",),
    "twist": ("vla_node/twist", "/twist_in", "twist_cmds", "delta_twist_cmds"),
    "joint_command": ("/joint_command_in", "/commands"),
    "ticks": ("filter_node/ticks", "/ticks"),
    "tick_obstacles": ("filter_node/tick_obstacles", "/tick_obstacles"),
    "config": ("filter_node/config",),
    "image": ("scene/image", "color/image_raw", "/image_raw", "/image"),
    "depth": ("scene/depth", "aligned_depth_to_color/image_raw", "depth/image_raw", "/depth"),
    "camera_info": ("scene/camera_info", "color/camera_info", "/camera_info"),
    "camera_pose": ("scene/camera_pose", "/camera_pose"),
    "attention": ("/attention",),
    "wrist_attention": ("/wrist_attention",),
    "wrist_image": ("wrist/image", "/wrist_image"),
    "instruction": ("/instruction",),
    "tf": ("/tf",),
    "tf_static": ("/tf_static",),
}


@dataclass(frozen=True)
class Settings:
    """What may be said beside the bag. `topics` maps roles (see TYPES) to topic names."""

    topics: Mapping[str, str] = field(default_factory=dict)
    robot: str = "panda"
    urdf: str = ""
    joint_command: str = "joint_velocity"


@dataclass
class Recording:
    """Everything the filter was given, in order.

    table: ticks with their recorded decisions (those of reconstructed ticks are empty);
    clouds: time of receipt in s and obstacles, a message or a sample; params: by configuration
    version.
    """

    robot: RobotModel
    params: dict[int, FilterParams]
    table: tk.Table
    clouds: list[tuple[float, Any]]
    exact: bool
    notes: list[str]
    topics: dict[str, str]
    node_params: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Seconds from the first tick to the last."""
        if not len(self.table):
            return 0.0
        return float(self.table["now_mono"][-1] - self.table["now_mono"][0])


def load(
    path: Path, settings: Settings | None = None, reconstruct: bool = False,
    rate: float | None = None,
) -> Recording:  # fmt: skip
    """Read a bag.

    reconstruct: make ticks up even where they were recorded; rate (Hz): of those made up, None
    for the recorded configuration's.

    Raises:
        BagError: nothing to replay in it; says which topics it has and how to name them.
    """
    settings = settings or Settings()
    bag = Bag.open(path)
    topics = find_topics(bag, settings)
    needed = {name for role, name in topics.items() if role not in UPSTREAM}
    raw: dict[str, list[tuple[int, bytes]]] = {name: [] for name in needed}
    for name, time, data in bag.messages(set(raw)):
        raw[name].append((time, data))
    for rows in raw.values():
        rows.sort(key=lambda r: r[0])
    notes = bag.notes
    since = _configs(raw.get(topics.get("config", ""), []), notes)
    configs = {int(content["version"]): content for _, content in since}
    last = configs[max(configs)] if configs else {}
    _more_topics(bag, last, topics, raw, settings)
    robot, spec, gripper = _robot(last, settings)
    params = {version: _params(c, notes) for version, c in configs.items()} or {0: FilterParams()}
    table = _ticks(raw.get(topics.get("ticks", ""), []), robot.n, notes)
    clouds = ms.decoded(raw.get(topics.get("obstacles", ""), []), ms.CLOUD, "obstacles", notes)
    exact = len(table) > 0 and not reconstruct
    if exact:
        # After the messages themselves, whose times of receipt are nearer to the filter's
        rows = raw.get(topics.get("tick_obstacles", ""), [])
        clouds += ms.decoded(rows, ms.CLOUD, "tick_obstacles", notes)
    else:
        from safety_filter.bags.reconstruct import reconstructed

        node = {**last.get("node", {})}
        kind = str(node.get("command", settings.joint_command))
        inputs = {role: raw.get(topics.get(role, ""), []) for role in ROLES}
        if not configs:
            notes.append(f"no configuration in the bag: robot {settings.robot}, defaults")
        rate = rate or next(iter(params.values())).rate
        versions = [(time, int(content["version"])) for time, content in since]
        table, clouds = reconstructed(inputs, clouds, versions, robot, gripper, rate, kind, notes)
    if not len(table):
        raise BagError(_nothing(bag, topics))
    return Recording(
        robot, params, table, clouds, exact, notes, topics, dict(last.get("node", {})), spec
    )


def find_topics(bag: Bag, settings: Settings) -> dict[str, str]:
    """Role -> topic, as said by the caller or by the topics' names.

    Raises:
        BagError: a topic that was named is not there or has another type.
    """
    found: dict[str, str] = {}
    for role, name in settings.topics.items():
        if role not in TYPES:
            raise BagError(f"topic role: expected one of {', '.join(TYPES)}, got {role!r}")
        if name not in bag.topics:
            raise BagError(f"{role}: no topic {name} in the bag; it has {_listing(bag)}")
        if bag.topics[name].type != TYPES[role]:
            raise BagError(
                f"{name}: expected {TYPES[role]} for {role}, got {bag.topics[name].type}"
            )
        found[role] = name
    for role, endings in _ENDINGS.items():
        if role in found:
            continue
        named = [t for t in bag.topics.values() if t.count and t.name.endswith(endings)]
        # The earlier an ending stands in the list, the better it fits
        named.sort(key=lambda t: next(i for i, e in enumerate(endings) if t.name.endswith(e)))
        right = [t for t in named if t.type == TYPES[role]]
        for topic in named:
            if topic.type != TYPES[role] and topic.name.endswith(endings[0]):
                bag.notes.append(
                    f"{topic.name}: expected {TYPES[role]}, got {topic.type}; not used"
                )
        if len(right) > 1 and role in ("joint_states", "obstacles"):
            bag.notes.append(
                f"{role}: {len(right)} topics fit, {right[0].name} is used; choose with --topic"
            )
        if right:
            found[role] = right[0].name
    return found


def recorded_inputs(bag: Bag) -> list[str]:
    """The topics in the bag that the recorded filter read, by its own word; none without it."""
    name = find_topics(bag, Settings()).get("config")
    configs = _configs([(t, d) for _, t, d in bag.messages({name})], bag.notes) if name else []
    read = dict(configs[-1][1].get("topics") or {}).values() if configs else ()
    return [topic for topic in read if topic in bag.topics and bag.topics[topic].count]


def _more_topics(
    bag: Bag, config: Mapping[str, Any], topics: dict[str, str],
    raw: dict[str, list[tuple[int, bytes]]], settings: Settings,
) -> None:  # fmt: skip
    """Follow what the configuration says about the inputs' topics."""
    for role, name in dict(config.get("topics") or {}).items():
        known = role in TYPES and role not in (*settings.topics, *UPSTREAM)
        if not known or topics.get(role) == name or name not in bag.topics:
            continue
        if bag.topics[name].type == TYPES[role]:
            topics[role] = name
            if name not in raw:
                raw[name] = sorted(
                    ((time, data) for _, time, data in bag.messages({name})), key=lambda r: r[0]
                )


def _listing(bag: Bag) -> str:
    return ", ".join(f"{t.name} ({t.type}, {t.count})" for t in bag.topics.values()) or "none"


def _nothing(bag: Bag, topics: Mapping[str, str]) -> str:
    missing = [role for role in ("joint_states",) if role not in topics]
    why = f"no topic for {', '.join(missing)}" if missing else "no usable message"
    return (
        f"{bag.path}: nothing to replay: {why}. The bag has {_listing(bag)}."
        " Name the topics with --topic joint_states=/name"
    )


def _configs(
    rows: list[tuple[int, bytes]], notes: list[str]
) -> list[tuple[float, dict[str, Any]]]:
    """Configurations by time of receipt in s."""
    found = []
    for time, data in rows:
        try:
            content = json.loads(ms.decode(data, ms.STRING).data)
            int(content["version"])
            found.append((1e-9 * time, content))
        except (ValueError, KeyError, TypeError) as error:
            notes.append(f"config: unreadable message left out: {error}")
    return found


def _params(config: Mapping[str, Any], notes: list[str]) -> FilterParams:
    """Parameters as recorded; those that this version does not know are left out and told."""
    given = dict(config.get("params") or {})
    unknown = [name for name in given if name not in TABLE.defaults()]
    for name in unknown:
        del given[name]
    if unknown:
        notes.append(f"parameters of another version left out: {', '.join(unknown)}")
    try:
        return TABLE.validate(given)
    except ParamError as error:
        raise BagError(f"recorded parameters are not valid here: {error}") from error


def _robot(
    config: Mapping[str, Any], settings: Settings
) -> tuple[RobotModel, dict[str, Any], Gripper]:
    """As recorded, else as the caller says: the model, the robot file's content, its gripper."""
    try:
        if config.get("robot"):
            spec = dict(config["robot"])
            return RobotModel.load(str(config["urdf"]) or None, spec), spec, Gripper.of(spec)
        spec = read_config(settings.robot)
        model = RobotModel.load(settings.urdf or urdf_path(spec), spec)
        return model, spec, Gripper.of(spec)
    except (RobotError, KeyError, TypeError, ValueError) as error:
        raise BagError(f"robot: {error}") from error


def _ticks(rows: list[tuple[int, bytes]], n: int, notes: list[str]) -> tk.Table:
    tables = ms.decoded(rows, ms.CLOUD, "ticks", notes, ms.tick_table)
    parts = [table for _, table in tables if table.dtype == tk.tick_dtype(n)]
    if not parts:
        return np.zeros(0, tk.tick_dtype(n))
    table = np.concatenate(parts)
    # A filter that was started again counts from 1 again: order by its monotonic clock
    return table[np.argsort(table["now_mono"], kind="stable")]


class Obstacles:
    """Finds the obstacle message that a tick names by stamp and receipt."""

    def __init__(self, recording: Recording) -> None:
        self._by_stamp: dict[float, list[tuple[float, Any]]] = {}
        for received, cloud in recording.clouds:
            self._by_stamp.setdefault(stamp_of(cloud), []).append((received, cloud))
        first = recording.table[0]
        # Between the clock of the receipts and that of the recorder
        self._offset = _wall(recording) - float(first["now_mono"])
        self._current: ObstacleSample | None = None
        self.missing = 0

    def at(self, stamp: float, receipt: float) -> tuple[ObstacleSample | None, bool]:
        """The sample (the same object while it is the same message), and whether it is known."""
        if np.isnan(receipt):
            self._current = None
            return None, True
        now = self._current
        if now is not None and (now.stamp, now.receipt) == (stamp, receipt):
            return now, True
        candidates = self._by_stamp.get(stamp)
        if not candidates:
            self.missing += 1
            return now, False
        near = min(candidates, key=lambda c: abs(c[0] - receipt - self._offset))
        cloud = near[1]
        if isinstance(cloud, ObstacleSample):
            self._current = replace(cloud, receipt=receipt)
        else:
            self._current = ms.obstacles(cloud, receipt)
        return self._current, True


def stamp_of(cloud: Any) -> float:
    """Stamp of obstacles, s."""
    if isinstance(cloud, ObstacleSample):
        return cloud.stamp
    return ms.seconds(cloud.header.stamp)


def _wall(recording: Recording) -> float:
    """Time of the recorder's clock at the first tick, roughly: its obstacles' receipts."""
    row = recording.table[0]
    for received, cloud in recording.clouds:
        if stamp_of(cloud) == row["obstacles_stamp"]:
            return received - float(row["obstacles_receipt"]) + float(row["now_mono"])
    return float(row["now_ros"])


def segments(table: tk.Table) -> Iterator[slice]:
    """Runs of ticks without a gap in their numbers."""
    numbers = table["number"].astype(np.int64)
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    edges = [0, *cuts.tolist(), len(table)]
    for start, end in itertools.pairwise(edges):
        if end > start:
            yield slice(start, end)
