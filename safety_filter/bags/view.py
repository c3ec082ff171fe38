"""Draws a recording, or a live graph, with Rerun: pictures, tracks, the robot's bodies, plots.

Everything is made from serialised messages, so that a bag and live topics go the same way. It is a
process of its own: the nodes do nothing more for it than for any other subscriber.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from safety_filter import images
from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.bags.reader import Bag, BagError
from safety_filter.core.inputs import JointSample
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotError, RobotModel
from safety_filter.core.wire import Role, Tracks, track_fault
from safety_filter.robot_source import Gripper

TYPES = (ms.IMAGE, ms.CAMERA_INFO, ms.POSE, ms.STATUS, ms.CLOUD, ms.JOINT_STATE, ms.STRING)
TIME = "time"
BODY_PERIOD = 1 / 30  # s between two drawings of the robot
# RGB by role, as in perception's overlay
COLOURS = {
    Role.OBSTACLE: (235, 70, 50),
    Role.TARGET: (60, 210, 90),
    Role.HELD: (70, 150, 250),
    Role.SUPPORT: (190, 170, 60),
}
STATES = {"PASS": (60, 210, 90), "FILTERED": (235, 170, 50), "STOPPED": (235, 70, 50)}
LEVELS = ("INFO", "WARN", "ERROR", "ERROR")
LEAD = 0.5  # s: an arrow ends where the track will be then


def blueprint() -> rrb.Blueprint:
    """The arrangement of the viewer: scene and pictures above, plots and words below."""
    plots = [
        rrb.TimeSeriesView(origin=f"plots/{name}", name=title)
        for name, title in (
            ("distance", "nearest distance, m"),
            ("velocity", "joint velocity asked and sent, rad/s"),
            ("state", "state: 0 PASS, 1 FILTERED, 2 STOPPED"),
        )
    ]
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(
                rrb.Spatial3DView(origin="world", name="scene"),
                rrb.Tabs(
                    rrb.Spatial2DView(origin="pictures/overlay", name="masks and attention"),
                    rrb.Spatial2DView(origin="pictures/scene", name="scene camera"),
                    rrb.Spatial2DView(origin="pictures/depth", name="depth"),
                    rrb.Spatial2DView(origin="pictures/wrist", name="wrist camera"),
                ),
                column_shares=[3, 2],
            ),
            rrb.Horizontal(*plots, rrb.TextLogView(origin="log", name="states")),
            row_shares=[3, 2],
        ),
        collapse_panels=True,
    )


class View:
    """Turns messages into what Rerun shows."""

    def __init__(self, stream: rr.RecordingStream) -> None:
        self._stream = stream
        self._kinematics: Kinematics | None = None
        self._gripper = Gripper()
        self._drawn = -np.inf
        self._ticks_seen = False
        self._said: dict[str, str] = {}
        self._sizes = {"scene": (1, 1), "wrist": (1, 1)}  # of the last pictures
        self.unreadable: dict[str, int] = {}
        self._pen = {
            ms.IMAGE: self._image,
            ms.CAMERA_INFO: self._camera_info,
            ms.POSE: self._pose,
            ms.STATUS: self._status,
            ms.CLOUD: self._cloud,
            ms.JOINT_STATE: self._joint_state,
            ms.STRING: self._string,
        }
        stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)

    def add(self, topic: str, kind: str, received: float, data: bytes) -> None:
        """Draw one message; `received` in s places it in time. What cannot be read is counted."""
        pen = self._pen.get(kind)
        if pen is None:
            return
        self._stream.set_time(TIME, timestamp=received)
        try:
            pen(topic, ms.decode(data, kind))
        except (RobotError, ValueError, KeyError):
            self.unreadable[topic] = self.unreadable.get(topic, 0) + 1

    # -- pictures -----------------------------------------------------------------------------

    def _image(self, topic: str, message: Any) -> None:
        log = self._stream.log
        if topic.endswith("attention"):
            name = "wrist" if "wrist" in topic else "scene"
            heat = _heat(images.float_map(message), self._sizes[name])
            log(f"pictures/{name}/attention", rr.Image(heat, draw_order=1.0))
        elif message.encoding in images.DEPTH_ENCODINGS:
            log("pictures/depth", rr.DepthImage(images.depth(message), meter=1.0))
        else:
            picture = images.rgb(message)
            name = next((n for n in ("overlay", "wrist") if n in topic), "scene")
            self._sizes[name] = picture.shape[:2]
            if name == "scene":
                log("world/camera/picture", rr.Image(picture).compress())
            log(f"pictures/{name}", rr.Image(picture).compress())

    def _camera_info(self, topic: str, message: Any) -> None:
        if "wrist" in topic:
            return
        k = images.camera_matrix(message)
        pinhole = rr.Pinhole(image_from_camera=k, width=message.width, height=message.height,
                             image_plane_distance=0.15)  # fmt: skip
        self._stream.log("world/camera/picture", pinhole)

    def _pose(self, topic: str, message: Any) -> None:
        if "wrist" in topic or not topic.endswith("camera_pose"):
            return
        pose = images.pose_matrix(message)
        self._stream.log(
            "world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3])
        )

    # -- the scene ----------------------------------------------------------------------------

    def _cloud(self, topic: str, message: Any) -> None:
        if topic.endswith("/ticks"):
            self._ticks(ms.tick_table(message))
            return
        sample = ms.obstacles(message, 0.0)
        if sample.fault is not None or track_fault(sample.tracks) is not None:
            return  # another kind of cloud
        self._tracks(sample.tracks)

    def _tracks(self, tracks: Tracks) -> None:
        centres = _columns(tracks, "x", "y", "z")
        colours = [COLOURS[Role(int(r))] for r in tracks["role"]]
        labels = [
            f"{int(t['id']) & 0xFFFFFF} {Role(int(t['role'])).name.lower()}"
            + (f" {float(t['p_target']):.2f}" if t["role"] == Role.TARGET else "")
            for t in tracks
        ]
        self._stream.log(
            "world/tracks",
            rr.Ellipsoids3D(
                centers=centres,
                half_sizes=_columns(tracks, "sx", "sy", "sz"),
                quaternions=_columns(tracks, "qx", "qy", "qz", "qw"),
                colors=colours,
                labels=labels,
            ),
        )
        arrows = LEAD * _columns(tracks, "vx", "vy", "vz")
        self._stream.log(
            "world/velocities", rr.Arrows3D(origins=centres, vectors=arrows, colors=colours)
        )

    def _ticks(self, table: tk.Table) -> None:
        """Plots of every tick, and the robot where it was at the last."""
        self._ticks_seen = True
        columns = {
            "plots/distance": table["distance"],
            "plots/velocity/asked": np.linalg.norm(table["nominal_qd"], axis=1),
            "plots/velocity/sent": np.linalg.norm(table["qd"], axis=1),
            "plots/state": table["state"].astype(float),  # 0 PASS, 1 FILTERED, 2 STOPPED
        }
        for name, values in columns.items():
            known = np.isfinite(values)
            if not known.any():
                continue  # the viewer dies of a column without rows
            index = rr.TimeColumn(TIME, timestamp=table["now_ros"][known].tolist())
            scalars = rr.Scalars.columns(scalars=values[known].astype(float))
            self._stream.send_columns(name, [index], scalars)
        joints = tk.joints_of(table[-1])
        if joints is not None:
            self._bodies(joints, float(table["now_ros"][-1]), tk.STATES[int(table["state"][-1])])

    def _joint_state(self, topic: str, message: Any) -> None:
        if self._ticks_seen or self._kinematics is None:
            return
        names = self._kinematics.robot.joint_names
        joints = ms.joint_sample(message, 0.0, names, self._gripper)
        if len(joints.q) == len(names):
            self._bodies(joints, joints.stamp, "PASS")

    def _bodies(self, joints: JointSample, at: float, state: str) -> None:
        kinematics = self._kinematics
        usable = kinematics is not None and len(joints.q) == kinematics.robot.n
        if kinematics is None or not usable or 0.0 <= at - self._drawn < BODY_PERIOD:
            return
        self._drawn = at
        centres = kinematics.spheres(joints.q, joints.opening)
        radii = np.asarray(kinematics.robot.spheres["radius"], float)
        sizes = np.repeat(radii[:, None], 3, axis=1)
        colour = (*STATES[state], 90)
        bodies = rr.Ellipsoids3D(centers=centres, half_sizes=sizes, colors=[colour] * len(radii))
        self._stream.log("world/bodies", bodies)

    # -- words --------------------------------------------------------------------------------

    def _status(self, topic: str, message: Any) -> None:
        name = topic.split("/")[-2] if topic.count("/") > 1 else message.name
        words = str(message.message)
        if self._said.get(name) != words.split(":")[0]:
            self._said[name] = words.split(":")[0]
            level = LEVELS[min(int(message.level), len(LEVELS) - 1)]
            self._stream.log(f"log/{name}", rr.TextLog(words, level=level))
        self._nearest({pair.key: pair.value for pair in message.values})

    def _nearest(self, values: Mapping[str, str]) -> None:
        ends = [values.get("nearest_on_robot"), values.get("nearest_on_obstacle")]
        if not all(ends):
            return
        strip = np.array([[float(v) for v in str(end).split()] for end in ends])
        label = f"{float(values.get('nearest_distance_m', 'nan')) * 1e3:.0f} mm"
        line = rr.LineStrips3D([strip], colors=[(255, 220, 0)], radii=[0.003], labels=[label])
        self._stream.log("world/nearest", line)

    def _string(self, topic: str, message: Any) -> None:
        if topic.endswith("/config"):
            content = json.loads(message.data)
            robot = RobotModel.load(str(content["urdf"]) or None, dict(content["robot"]))
            self._kinematics = Kinematics(robot)
            self._gripper = Gripper.of(content["robot"])
        elif topic.endswith("/instruction") and message.data:
            self._stream.log("log/instruction", rr.TextLog(f"instruction: {message.data}"))


def _columns(tracks: Tracks, *names: str) -> NDArray[np.float32]:
    return np.stack([tracks[n] for n in names], axis=1).astype(np.float32)


def _heat(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A map as a see-through picture (H, W, 4) of the size of the camera's."""
    top = float(values.max())
    share = np.sqrt(np.clip(values / top, 0.0, 1.0)) if top > 0.0 else np.zeros_like(values)
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    share = share[np.ix_(rows, columns)]
    out = np.zeros((*share.shape, 4), np.uint8)
    out[..., 0], out[..., 1] = 255, (200 * (1.0 - share)).astype(np.uint8)
    out[..., 3] = (150 * share).astype(np.uint8)
    return out


def open_stream(save: Path | None, connect: str | None) -> rr.RecordingStream:
    """Where drawings go: into a file, to a viewer that runs already, or to a new one."""
    stream = rr.RecordingStream("safety_filter")
    if save is not None:
        stream.save(save, default_blueprint=blueprint())
    elif connect is not None:
        stream.connect_grpc(connect or None, default_blueprint=blueprint())
    else:
        stream.spawn(default_blueprint=blueprint())
    return stream


def view_bag(path: Path, stream: rr.RecordingStream) -> View:
    """Draw a whole bag.

    Raises:
        BagError: nothing readable in it, or nothing that can be drawn.
    """
    bag = Bag.open(path)
    chosen = {t.name: t.type for t in bag.topics.values() if t.type in TYPES}
    if not chosen:
        raise BagError(f"{path}: nothing to draw; it has {', '.join(bag.topics)}")
    view = View(stream)
    # The robot has to be known before the first joint state
    early = {name for name in chosen if name.endswith("/config")}
    for name, received, data in bag.messages(early):
        view.add(name, chosen[name], 1e-9 * received, data)
    for name, received, data in bag.messages(set(chosen) - early):
        view.add(name, chosen[name], 1e-9 * received, data)
    stream.flush()
    for note in bag.notes:
        print(f"note: {note}", file=sys.stderr)
    return view


class LiveSink:
    """Stands in for a bag's writer: what a recorder hands over is drawn instead."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._types: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def add_topic(self, name: str, kind: str, offered: Sequence[Any] = ()) -> None:
        self._types[name] = kind
        self.counts[name] = 0

    def write(self, name: str, data: bytes, received: int, published: int = 0) -> None:
        self.view.add(name, self._types[name], 1e-9 * received, data)
        self.counts[name] += 1
