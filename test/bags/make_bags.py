"""Makes the bags of the tests: `python test/bags/make_bags.py FOLDER` writes one of each kind,
with SECONDS after it only a `drive` of that length.

`drive` is a real run in small: an arm without dynamics is driven towards a moving obstacle by a
twist, filtered at 250 Hz, loses perception for a while, and everything that the nodes would
publish is written, ticks and configuration included.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from safety_filter.bags import messages as ms
from safety_filter.bags import ticks as tk
from safety_filter.bags.writer import BagWriter, qos
from safety_filter.core import wire
from safety_filter.core.filter import SafetyFilter
from safety_filter.core.filter_params import FilterParams
from safety_filter.core.inputs import Command, JointSample, ObstacleSample
from safety_filter.core.kinematics import Kinematics
from safety_filter.core.robot import RobotModel, read_config, urdf_path
from safety_filter.core.wire import Role, empty_tracks
from safety_filter.flight.recorder import NO_EVENT, RESET, STOP, Tick
from safety_filter.robot_source import Gripper, RobotSource

HOME = np.array([0.0, -0.25, 0.0, -2.55, 0.0, 2.30, 0.785])
RATE = 250.0
EPOCH = 1_700_000_000.0  # s, ROS time of the start
MONO = 5000.0  # s, monotonic clock of the start
PER_MESSAGE = 25  # ticks in a message, as the node sends them
FINGERS = ("panda_finger_joint1", "panda_finger_joint2")
GRIPPER = Gripper(dict.fromkeys(FINGERS, 0.5))
NAMES = (*(f"panda_joint{i}" for i in range(1, 8)), *FINGERS)
MAPS = ("attention", "wrist_attention")
TOPICS = {
    "/sim_node/joint_states": (ms.JOINT_STATE, qos(reliable=False)),
    "/vla_node/twist": (ms.TWIST, qos()),
    "/perception_node/obstacles": (ms.CLOUD, qos()),
    "/filter_node/joint_velocity_out": (ms.ARRAY, qos()),
    "/filter_node/ticks": (ms.CLOUD, qos(depth=20)),
    "/filter_node/config": (ms.STRING, qos(latched=True)),
}


def types() -> Any:
    """Message classes by name."""
    return ms.typestore().types


def stamp(time: float) -> Any:
    """builtin_interfaces/msg/Time of a time in s."""
    whole = int(time)
    return types()["builtin_interfaces/msg/Time"](whole, round((time - whole) * 1e9))


def header(time: float, frame: str = "base") -> Any:
    return types()["std_msgs/msg/Header"](stamp(time), frame)


def joint_state(time: float, q: np.ndarray, dq: np.ndarray, opening: float = 0.08) -> bytes:
    position = np.array([*q, opening / 2, opening / 2])
    velocity = np.array([*dq, 0.0, 0.0])
    cls = types()[ms.JOINT_STATE]
    return ms.encode(cls(header(time), list(NAMES), position, velocity, np.zeros(0)),
                     ms.JOINT_STATE)  # fmt: skip


def twist(time: float, value: np.ndarray, frame: str = "base") -> bytes:
    t = types()
    vector = t["geometry_msgs/msg/Vector3"]
    inner = t["geometry_msgs/msg/Twist"](vector(*value[:3]), vector(*value[3:]))
    return ms.encode(t[ms.TWIST](header(time, frame), inner), ms.TWIST)


def cloud(time: float, fields: Any, step: int, rows: int, data: bytes) -> bytes:
    t = types()
    listed = [t["sensor_msgs/msg/PointField"](*f) for f in fields]
    content = np.frombuffer(data, np.uint8)
    msg = t[ms.CLOUD](header(time), 1, rows, listed, False, step, step * rows, content, True)
    return ms.encode(msg, ms.CLOUD)


def obstacles(time: float, tracks: wire.Tracks) -> bytes:
    return cloud(time, wire.FIELDS, wire.POINT_STEP, len(tracks), wire.encode(tracks))


def velocities(value: np.ndarray) -> bytes:
    t = types()
    layout = t["std_msgs/msg/MultiArrayLayout"]([], 0)
    return ms.encode(t[ms.ARRAY](layout, np.asarray(value, float)), ms.ARRAY)


def string(text: str) -> bytes:
    return ms.encode(types()[ms.STRING](text), ms.STRING)


def configuration(robot: RobotModel, params: FilterParams, version: int) -> bytes:
    content = {
        "format": 1,
        "version": version,
        "robot": read_config("panda"),
        "urdf": robot.urdf,
        "params": dataclasses.asdict(params),
        "node": {"command": "twist", "robot": "panda", "frame": "base"},
        "topics": {
            "joint_states": "/sim_node/joint_states",
            "obstacles": "/perception_node/obstacles",
            "twist": "/vla_node/twist",
        },
    }
    return string(json.dumps(content))


def _near(tool: np.ndarray, now: float) -> wire.Tracks:
    tracks = empty_tracks(2)
    tracks["x"], tracks["z"] = tool[0], tool[2]
    tracks["y"] = [tool[1] + 0.25 - 0.02 * now, tool[1] - 0.4]
    tracks["vy"] = [-0.02, 0.0]
    tracks["sx"] = tracks["sy"] = tracks["sz"] = 0.05
    tracks["id"], tracks["role"] = [4, 9], Role.OBSTACLE
    return tracks


def drive(path: Path, seconds: float = 4.0, ticks: bool = True, joint_rate: float = 250.0,
          skip: int = 0, events: bool = True) -> None:
    """Record a run; `skip` leaves out the ticks before that number, as when recording started
    late; `ticks` False leaves out ticks and configuration, as another recorder would."""
    robot, params = RobotModel.shipped("panda"), FilterParams()
    safety = SafetyFilter(robot, params)
    tool = Kinematics(robot).tool(HOME)[1]
    q, qd = HOME.copy(), np.zeros(7)
    joints: JointSample | None = None
    command: Command | None = None
    seen: ObstacleSample | None = None
    kept: list[tuple[int, int, Tick]] = []
    version, changed = 1, FilterParams(obstacle_margin=0.01)
    with BagWriter(path) as bag:
        for name, (kind, profile) in TOPICS.items():
            if ticks or name not in ("/filter_node/ticks", "/filter_node/config"):
                bag.add_topic(name, kind, [profile])

        def put(topic: str, data: bytes, now: float) -> None:
            if topic in bag.counts:
                bag.write(topic, data, round((EPOCH + now) * 1e9))

        put("/filter_node/config", configuration(robot, params, 1), 0.0)
        count = round(seconds * RATE)
        for i in range(count):
            now = i / RATE
            mono, ros = MONO + now, EPOCH + now
            if i % max(1, round(RATE / joint_rate)) == 0:
                data = joint_state(ros, q, qd)
                put("/sim_node/joint_states", data, now)
                sample = ms.decode(data, ms.JOINT_STATE)
                joints = ms.joint_sample(sample, mono, robot.joint_names, GRIPPER)
            blind = 0.55 * count < i < 0.75 * count
            if i % 10 == 0 and not blind:
                data = obstacles(ros - 0.05, _near(tool, now))
                put("/perception_node/obstacles", data, now)
                seen = ms.obstacles(ms.decode(data, ms.CLOUD), mono)
            if i % 12 == 0:
                push = 0.12 if i < 0.5 * count else -0.05
                data = twist(ros, np.array([0.02, push, 0, 0, 0, 0.1 * np.sin(now)]))
                put("/vla_node/twist", data, now)
                message = ms.decode(data, ms.TWIST)
                at = ms.seconds(message.header.stamp)
                command = Command(at, mono, "twist", ms.twist(message), "base")
            event = NO_EVENT
            if events and i == round(0.9 * count):
                safety.stop()
                event = STOP
            elif events and i == round(0.95 * count):
                safety.reset()
                event = RESET
            if i == round(0.3 * count):
                safety.update_params({"obstacle_margin": changed.obstacle_margin})
                version = 2
                put("/filter_node/config", configuration(robot, changed, 2), now)
            decision = safety.step(mono, ros, joints, command, seen)
            if i >= skip:
                kept.append((i + 1, version, Tick(mono, ros, joints, command, seen, decision,
                                                  event)))  # fmt: skip
            if kept and ((i + 1) % PER_MESSAGE == 0 or i + 1 == count):
                table = tk.table(kept, 7)
                put("/filter_node/ticks",
                    cloud(ros, tk.fields(7), table.itemsize, len(table), table.tobytes()), now)
                kept.clear()
            put("/filter_node/joint_velocity_out", velocities(decision.qd), now)
            if i % 125 == 124:
                bag.flush()  # as a recorder does twice a second
            qd = decision.qd
            q = q + qd / RATE


def _picture(pixels: np.ndarray, encoding: str, time: float, frame: str) -> bytes:
    height, width = pixels.shape[:2]
    data = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8)
    step = data.size // height
    message = types()[ms.IMAGE](header(time, frame), height, width, encoding, 0, step, data)
    return ms.encode(message, ms.IMAGE)


def _camera_info(frame: Any, time: float) -> bytes:
    t = types()
    k = np.asarray(frame.K, float)
    height, width = frame.depth.shape
    p = np.hstack([k, np.zeros((3, 1))]).ravel()
    roi = t["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return ms.encode(
        t[ms.CAMERA_INFO](header(time, "scene"), height, width, "plumb_bob", np.zeros(5),
                          k.ravel(), np.eye(3).ravel(), p, 0, 0, roi), ms.CAMERA_INFO)  # fmt: skip


def _camera_pose(pose: np.ndarray, time: float) -> bytes:
    from scipy.spatial.transform import Rotation

    t = types()
    turn = t["geometry_msgs/msg/Quaternion"](*Rotation.from_matrix(pose[:3, :3]).as_quat())
    inner = t["geometry_msgs/msg/Pose"](t["geometry_msgs/msg/Point"](*pose[:3, 3]), turn)
    return ms.encode(t[ms.POSE](header(time), inner), ms.POSE)


def watch(path: Path, seconds: float = 1.6, seed: int = 3) -> None:
    """Record the simulated cell with cameras, perception and policy: the arm drives sideways.

    What perception and policy say goes through the messages, so that a rerun has the same inputs.
    The policy looks at every second picture; its twists are not followed.
    """
    from safety_filter import images
    from safety_filter.bench.cell import declared
    from safety_filter.eyes import build
    from safety_filter.perception.gaze import AttentionMap
    from safety_filter.perception.params import PerceptionParams
    from safety_filter.sim.scene import generate
    from safety_filter.sim.world import DT, World
    from safety_filter.vla.dataset import proprioception
    from safety_filter.vla.policy import PROFILE, SHIPPED, Policy

    robot, params = RobotModel.shipped("panda"), FilterParams()
    policy, safety = Policy.load(SHIPPED, SHIPPED / PROFILE), SafetyFilter(robot, params)
    tuning = PerceptionParams(**declared("perception", PerceptionParams))
    eyes = build(RobotSource(read_config("panda"), read_urdf("panda")), tuning, "")
    kinds = {**TOPICS, **{
        f"/sim_node/{name}": (kind, qos(reliable=False)) for name, kind in (
            ("scene/image", ms.IMAGE), ("scene/depth", ms.IMAGE), ("wrist/image", ms.IMAGE),
            ("scene/camera_info", ms.CAMERA_INFO), ("scene/camera_pose", ms.POSE),
            ("instruction", ms.STRING))}, **{
        f"/vla_node/{name}": (ms.IMAGE, qos(reliable=False)) for name in MAPS}}  # fmt: skip
    scene = generate(seed, "demo")
    eyes.instruct(scene.instruction)
    pending: list[tuple[float, str, bytes]] = []
    maps: list[AttentionMap | None] = [None, None]  # those that perception has not used
    joints = command = seen = None
    kept: list[tuple[int, int, Tick]] = []
    with World(scene) as world, BagWriter(path) as bag:
        for name, (kind, profile) in kinds.items():
            bag.add_topic(name, kind, [profile])

        def put(topic: str, data: bytes, now: float) -> None:
            bag.write(topic, data, round((EPOCH + now) * 1e9))

        put("/filter_node/config", configuration(robot, params, 1), 0.0)
        put("/sim_node/instruction", string(scene.instruction), 0.0)
        for i in range(round(seconds / DT)):
            now = i * DT
            mono, ros = MONO + now, EPOCH + now
            q, dq, opening = world.joint_state()
            data = joint_state(ros, q, dq, opening)
            put("/sim_node/joint_states", data, now)
            joints = ms.joint_sample(ms.decode(data, ms.JOINT_STATE), mono, robot.joint_names,
                                     GRIPPER)  # fmt: skip
            if i % 24 == 0:
                frame, wrist = world.render("scene"), world.render("wrist")
                parts = {
                    "scene/camera_info": _camera_info(frame, ros),
                    "scene/camera_pose": _camera_pose(frame.T_base_cam, ros),
                    "scene/depth": _picture(frame.depth.astype(np.float32), "32FC1", ros, "scene"),
                    "wrist/image": _picture(wrist.rgb, "rgb8", ros, "wrist"),
                    "scene/image": _picture(frame.rgb, "rgb8", ros, "scene"),
                }
                for name, part in parts.items():
                    put(f"/sim_node/{name}", part, now)
                pose = images.pose_matrix(ms.decode(parts["scene/camera_pose"], ms.POSE))
                stamped = ms.seconds(ms.decode(parts["scene/depth"], ms.IMAGE).header.stamp)
                result = eyes.update(stamped, frame.rgb, frame.depth.astype(np.float32),
                                     np.asarray(frame.K, float), pose, joints.q,
                                     float(joints.opening or 0.0), *maps)  # fmt: skip
                maps = [None, None]
                if i % 48 == 0:
                    out = policy.act(frame.rgb, wrist.rgb, proprioception(world),
                                     scene.instruction, stamped)  # fmt: skip
                    for k, values in enumerate((out.attention, out.wrist_attention)):
                        assert values is not None
                        maps[k] = AttentionMap(stamped, values)
                        data = _picture(values, "32FC1", ros, f"camera#{out.profile_id}")
                        pending.append((now + 0.05, f"/vla_node/{MAPS[k]}", data))
                data = obstacles(ros, result.tracks)
                pending.append((now + 0.08, "/perception_node/obstacles", data))
            while pending and pending[0][0] <= now:
                _, topic, data = pending.pop(0)
                put(topic, data, now)
                if topic.endswith("obstacles"):
                    seen = ms.obstacles(ms.decode(data, ms.CLOUD), mono)
            if i % 12 == 0:
                data = twist(ros, np.array([0.0, 0.1, -0.05, 0, 0, 0]))
                put("/vla_node/twist", data, now)
                message = ms.decode(data, ms.TWIST)
                command = Command(ms.seconds(message.header.stamp), mono, "twist",
                                  ms.twist(message), "base")  # fmt: skip
            decision = safety.step(mono, ros, joints, command, seen)
            tick = Tick(mono, ros, joints, command, seen, decision, NO_EVENT)
            kept.append((i + 1, 1, tick))
            if len(kept) == PER_MESSAGE:
                table = tk.table(kept, 7)
                put("/filter_node/ticks",
                    cloud(ros, tk.fields(7), table.itemsize, len(table), table.tobytes()), now)
                kept.clear()
            world.set_joint_velocity(decision.qd)
            world.step()


def read_urdf(name: str) -> Path:
    """The URDF file of a shipped robot."""
    return urdf_path(read_config(name))


def foreign(path: Path) -> None:
    """A bag of something else."""
    with BagWriter(path) as bag:
        bag.add_topic("/chatter", ms.STRING)
        for i in range(10):
            bag.write("/chatter", string(f"hello {i}"), round((EPOCH + i) * 1e9))


def wrong_types(path: Path) -> None:
    """Our names with other types, and a joint state message that is no such thing."""
    with BagWriter(path) as bag:
        bag.add_topic("/perception_node/obstacles", ms.STRING)
        bag.add_topic("/joint_states", ms.JOINT_STATE)
        bag.write("/perception_node/obstacles", string("a cup"), round(EPOCH * 1e9))
        bag.write("/joint_states", string("not joints"), round(EPOCH * 1e9))
        bag.write("/joint_states", joint_state(EPOCH, HOME, np.zeros(7)), round(EPOCH * 1e9) + 1)


def empty(path: Path) -> None:
    """A bag in which nothing was recorded."""
    with BagWriter(path) as bag:
        bag.add_topic("/filter_node/ticks", ms.CLOUD)


def shuffled(source: Path, path: Path, seed: int = 0) -> None:
    """The same messages in another order."""
    from safety_filter.bags.reader import Bag

    bag = Bag.open(source)
    rows = list(bag.messages(bag.topics))
    order = np.random.default_rng(seed).permutation(len(rows))
    with BagWriter(path) as out:
        for topic in bag.topics.values():
            out.add_topic(topic.name, topic.type)
        for i in order:
            name, time, data = rows[i]
            out.write(name, data, time)


def torn(source: Path, path: Path, keep: float = 0.6) -> None:
    """The bag after a power cut: the file ends in the middle of a chunk, without its index."""
    path.mkdir(parents=True)
    (path / "metadata.yaml").write_bytes((source / "metadata.yaml").read_bytes())
    file = next(source.glob("*.mcap"))
    whole = file.read_bytes()
    (path / file.name).write_bytes(whole[: int(len(whole) * keep)])


def main() -> int:
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        drive(folder / "drive", float(sys.argv[2]))
        return 0
    drive(folder / "drive")
    drive(folder / "without_ticks", ticks=False)
    watch(folder / "watch")
    foreign(folder / "foreign")
    wrong_types(folder / "wrong_types")
    empty(folder / "empty")
    shuffled(folder / "drive", folder / "shuffled")
    torn(folder / "drive", folder / "torn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
