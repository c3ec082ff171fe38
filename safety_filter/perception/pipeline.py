"""`Perception.update`: one RGB-D picture in, the tracks array of the wire format out.

Masks -> robot pixels out -> blobs of depth -> completed shapes -> tracks -> roles. Everything is
in `base`; time is the stamp of the picture and never read from a clock (`timings` are the only use
of one, and nothing depends on them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from safety_filter.core import shapes
from safety_filter.core.wire import UNKNOWN_CLASS, Role, Tracks, empty_tracks
from safety_filter.perception import blobs as bl
from safety_filter.perception.camera import back_project, check_frame, seen_past
from safety_filter.perception.coast import believed
from safety_filter.perception.detector import Detection
from safety_filter.perception.gaze import AttentionMap, drawn
from safety_filter.perception.hidden import behind
from safety_filter.perception.kalman import State
from safety_filter.perception.memory import SupportMemory
from safety_filter.perception.params import PerceptionParams
from safety_filter.perception.parts import merge_parts
from safety_filter.perception.pursuit import Pursuit
from safety_filter.perception.rim import foreign
from safety_filter.perception.roles import Grip, HoldDetector, role_of
from safety_filter.perception.shape import (
    BOX,
    Known,
    Measurement,
    ShapeRules,
    measure,
    outline,
    walls,
)
from safety_filter.perception.targets import Candidate, Selection, TargetSelector
from safety_filter.perception.track import Track
from safety_filter.perception.tracker import Tracker
from safety_filter.perception.words import Classes, Colours, fit_of, may_be_meant, meant

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class DetectorLike(Protocol):
    """What the pipeline needs of a detector."""

    names: list[str]

    def detect(self, rgb: NDArray[np.uint8], score_min: float) -> list[Detection]:
        """Objects in a picture (H, W, 3)."""


class RobotViewLike(Protocol):
    """What the pipeline needs of a drawn robot: mask (H, W) and the tool's pose (4, 4)."""

    @property
    def mask(self) -> NDArray[np.bool_]: ...

    @property
    def t_base_tool(self) -> F64: ...


class RobotMaskLike(Protocol):
    """What the pipeline needs of the robot's geometry."""

    def view(self, depth: F32, q: F64, opening: float, k: F64,
             t_base_cam: F64) -> RobotViewLike:
        """Which pixels of `depth` show the robot."""


@dataclass(frozen=True)
class PerceptionResult:
    """What one picture gave.

    tracks: OBSTACLE_DTYPE as published, several pieces an object; objects: the same with one row
    an object, its centre and the half extents of its box; owner (H, W) track id of each pixel, 0
    for none; robot (H, W) mask; names: class id -> name; timings in ms.
    """

    stamp: float
    tracks: Tracks
    objects: Tracks
    detections: list[Detection]
    owner: NDArray[np.int32]
    robot: NDArray[np.bool_]
    selection: Selection
    held: int | None
    attention_fault: str | None
    names: dict[int, str]
    timings: dict[str, float]


class Perception:
    """Holds the tracker, the target selection and the grip across pictures."""

    def __init__(self, params: PerceptionParams, detector: DetectorLike,
                 robot_mask: RobotMaskLike) -> None:
        self._params = params
        self.detector = detector
        self.robot_mask = robot_mask
        names = list(detector.names)
        self.names = {**dict(enumerate(names)), UNKNOWN_CLASS: "unknown"}
        self.supports = frozenset(
            i for i, n in enumerate(names) if n in params.support_classes)
        self.open_supports = frozenset(
            i for i, n in enumerate(names) if n in params.open_classes)
        self.rules = ShapeRules(params.min_height, params.size_min,
                                params.size_max, params.position_noise, params.occluded_noise)
        self.reset()
        self.instruct("")

    @property
    def params(self) -> PerceptionParams:
        """The parameters in force; setting them changes those that may change while running."""
        return self._params

    @params.setter
    def params(self, params: PerceptionParams) -> None:
        self._params = params
        self.selector.params = params
        self.tracker.params = params
        self.holding.params = params

    def reset(self) -> None:
        """Forget everything, as after a jump of the clock or in a new scene."""
        self.tracker = Tracker(self.params, self.supports, self.open_supports)
        self.selector = TargetSelector(self.params)
        self.holding = HoldDetector(self.params, self.supports)
        self.classes, self.colours = Classes(), Colours()
        self.pursuit = Pursuit()
        self._tool: tuple[float, F64] | None = None
        self.memory = SupportMemory(self.supports)

    def instruct(self, instruction: str) -> None:
        """Take the words of a new task: the target is forgotten, the tracks are not."""
        names = dict(enumerate(self.detector.names))
        self._meant = {full: meant(instruction, {i: name for i, name in names.items()
                                                 if (i in self.supports) == full})
                       for full in (False, True)}
        self.selector.reset()
        self.pursuit = Pursuit()

    def update(self, stamp: float, rgb: NDArray[np.uint8], depth: F32, k: F64, t_base_cam: F64,
               q: F64, opening: float, attention: AttentionMap | None = None,
               wrist_attention: AttentionMap | None = None) -> PerceptionResult:
        """Process one picture.

        Args:
            stamp: acquisition time, s; not before the last one.
            rgb: (H, W, 3) uint8. depth: (H, W) m along the optical axis, 0 or NaN for none.
            k: (3, 3) px. t_base_cam: (4, 4) pose of the optical frame.
            q: arm joints at `stamp`, rad. opening: of the gripper, m.
            attention: a new map, if one came since the last picture.
            wrist_attention: the same of the camera in the hand.

        Raises:
            ValueError: inputs of the wrong kind, or a stamp before the last one.
        """
        start, start_cpu = perf_counter(), thread_time()
        check_frame(rgb, depth, k, t_base_cam)
        p = self.params
        depth = np.asarray(depth, np.float32)  # NaN and infinity compare as outside
        depth = np.where((depth >= p.depth_min) & (depth <= p.depth_max), depth, np.float32(0))
        last = self.tracker.stamp
        dt = 0.0 if last is None else stamp - last
        robot = self.robot_mask.view(depth, q, opening, k, t_base_cam)
        t_robot = perf_counter()
        boxes = self.detector.detect(rgb, min(p.score_min, p.faint_score))
        detections = [d for d in boxes if d.score >= p.score_min]

        def past(points: F64) -> float:
            return seen_past(points, depth, k, t_base_cam)

        self.tracker.lose(self.memory.gone(detections, depth.shape, past))
        remembered = self.memory.overlooked(
            detections, [d for d in boxes if d.score < p.score_min], depth.shape)
        t_detect = perf_counter()
        things = self._blobs(detections, remembered, depth, k, t_base_cam, robot.mask,
                             robot.t_base_tool[:3, 3])
        t_blobs = perf_counter()
        self.tracker.predict(stamp, self._tool_motion(stamp, robot.t_base_tool))
        eye, focal = t_base_cam[:3, 3], float(k[0, 0])

        def complete(blob: bl.Blob, known: Known | None) -> Measurement:
            return measure(blob, eye, focal, self.rules, known, past)

        def hides(positions: F64, half: F64) -> NDArray[np.bool_]:
            return behind(positions, half, depth, k, t_base_cam)

        things = self.tracker.update(things, complete, hides, dt)
        owner = np.zeros(depth.shape, np.int32)
        self.memory.keep(self.tracker.tracks, things, depth.shape)
        for track in self.tracker.tracks:
            if track.blob >= 0 and track.confirmed:
                blob = things[track.blob]
                owner[blob.rows, blob.cols] = track.id
        t_track = perf_counter()
        grip = Grip(stamp, float(opening), robot.t_base_tool)
        held = self.holding.update(grip, self.tracker.tracks)
        self.selector.scene.picture(stamp, owner)
        if p.wrist_fov > 0:
            seen = [t for t in self.tracker.tracks if t.confirmed and t.id != held]
            self.selector.wrist.picture(
                stamp, drawn(seen, p.wrist_fov, robot.t_base_tool @ self._hand_eye()))
        whole = {t.id for t in self.tracker.tracks if t.clean}
        self.classes.look(detections, owner, len(self.detector.names), whole, p.sure_score)
        self.colours.look(rgb, owner)
        for looks in (self.classes, self.colours):
            looks.forget({t.id for t in self.tracker.tracks})
        fault = self._attend(attention, wrist_attention)
        tool = robot.t_base_tool[:3, 3]
        self.pursuit.forget({t.id for t in self.tracker.tracks}, held is not None)
        selection = self.selector.select(stamp, self._candidates(held, tool))
        self._pursue(selection.target, held, tool)
        released = self.holding.released[0] if self.holding.released else None
        tracks, objects = self._wire(stamp, selection, held, released)
        end = perf_counter()
        timings = {"robot": t_robot - start, "detect": t_detect - t_robot,
                   "blobs": t_blobs - t_detect, "track": t_track - t_blobs,
                   "roles": end - t_track, "total": end - start,
                   "total_cpu": thread_time() - start_cpu}
        return PerceptionResult(stamp, tracks, objects, detections, owner, robot.mask, selection,
                                held, fault, self.names, {n: 1e3 * t for n, t in timings.items()})

    def _blobs(self, found: Sequence[Detection], remembered: Sequence[Detection], depth: F32,
               k: F64, t_base_cam: F64, robot: NDArray[np.bool_], tool: F64) -> list[bl.Blob]:
        """Blobs of what was found, then of depth that neither it nor memory explains."""
        detections = [*found, *remembered]
        p = self.params
        points = back_project(depth, k, t_base_cam)
        low = np.asarray(p.workspace_min, np.float32)
        high = np.asarray(p.workspace_max, np.float32)
        valid, above = bl.standing(depth, points, robot, low, high, p.table_z + p.min_height)
        labels = bl.surfaces(depth, above, p.depth_step)
        flat = [(p.open_height if d.class_id in self.open_supports else p.flat_height)
                if d.class_id in self.supports else 0.0 for d in detections]
        blobs, owner = bl.detected(
            detections, depth, points, above, valid, labels, robot,
            self._foreign(points, above), flat, p.table_z, p.mask_grow_px, p.trim_mad,
            p.trim_floor, p.min_pixels, p.depth_step, p.sure_score)
        things = [b for b in blobs if b.score > 0.0]  # memory is no sighting
        free = bl.unexplained(above, owner, depth, p.mask_grow_px, p.depth_step)
        things += bl.clusters(depth, points, free, robot, p.table_z, p.cluster_join,
                              p.cluster_min_pixels, p.depth_step, p.size_max)
        return merge_parts(things, p.sure_score, p.cluster_join, tool.astype(np.float32))

    def _foreign(self, points: F32, above: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which pixels (H, W) `above` the table are none of the supports seen whole so far."""
        out, wall = np.zeros_like(above), self.params.wall_thickness
        cloud = points[above]
        for track in self.tracker.tracks:
            if track.class_id in self.supports and track.clean:
                open_ = track.class_id in self.open_supports
                out[above] |= foreign(cloud, track, wall if open_ else None)
        return out

    def _tool_motion(self, stamp: float, tool: F64) -> tuple[F64, F64] | None:
        """Motion (4, 4) of the tool since the last picture and its twist (6,) at base's origin."""
        before, self._tool = self._tool, (stamp, tool)
        if before is None or stamp <= before[0]:
            return None
        motion = tool @ np.linalg.inv(before[1])
        dt = stamp - before[0]
        r = motion[:3, :3]
        # Small rotations: the vector part of the skew matrix is the angle.
        angle = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / 2
        omega = angle / dt
        velocity = (tool[:3, 3] - before[1][:3, 3]) / dt
        return motion, np.concatenate([velocity - np.cross(omega, tool[:3, 3]), omega])

    def _hand_eye(self) -> F64:
        """Pose (4, 4) of the hand's camera in the tool frame."""
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_quat(self.params.wrist_xyzw).as_matrix()
        pose[:3, 3] = self.params.wrist_xyz
        return pose

    def _attend(self, scene: AttentionMap | None, wrist: AttentionMap | None) -> str | None:
        """Have the selection take in new maps; returns why one was not used, or None."""
        fault = None if scene is None else self.selector.scene.attend(scene)
        if wrist is None or self.params.wrist_fov == 0:
            return fault
        of_wrist = self.selector.wrist.attend(wrist)
        return fault or (of_wrist and f"wrist {of_wrist}")

    def _candidates(self, held: int | None, tool: F64) -> list[Candidate]:
        """Tracks that may be meant: objects with an empty hand, supports with a full one.

        What the words of the instruction rule out is not meant.
        """
        p = self.params
        full = held is not None
        tracks = [t for t in self.tracker.tracks
                  if t.confirmed and t.id != held and (t.class_id in self.supports) == full]
        named = may_be_meant(self._meant[full], (t.id for t in tracks), self.classes, self.colours,
                             p.named_share, self.pursuit.proven)
        if not full and p.named_share > 0:
            named = self.pursuit.only(named)
        return [Candidate(t.id, t.visible < p.hidden_fraction, t.id in named,
                          float(np.linalg.norm(t.position - tool)) < p.hand_reach)
                for t in tracks]

    def _pursue(self, target: int | None, held: int | None, tool: F64) -> None:
        """Remember what an empty hand goes for, and whether the fingers are round it."""
        p = self.params
        track = next((t for t in self.tracker.tracks if t.id == target), None)
        if track is None or held is not None or p.named_share <= 0:
            return
        fits = {t.id: fit_of(self._meant[False], t.id, self.classes, self.colours)
                for t in self.tracker.tracks if t.confirmed and t.class_id not in self.supports}
        fit = fits.pop(track.id)
        rival = max((f.share for f in fits.values() if f.known), default=0.0)
        reach = p.held_distance + float(track.half.max())
        near = float(np.linalg.norm(track.position - tool)) < reach
        self.pursuit.follow(track.id, fit, near, rival)

    def _wire(self, stamp: float, selection: Selection, held: int | None,
              released: int | None) -> tuple[Tracks, Tracks]:
        """The confirmed tracks as pieces for the filter, and as one row an object."""
        shown = [t for t in self.tracker.tracks if t.confirmed]
        parts = []
        for track in shown:
            role = role_of(track, self.supports, selection.target, held, released)
            share = float(selection.share.get(track.id, 0.0))
            chosen = track.id == selection.target
            p_target = 0.5 + 0.5 * share if chosen else min(0.49, share)
            parts.append(_rows(track, self._believed(track, role, stamp),
                               self._cover(track, role), role, p_target, stamp))
        # Filled in place of concatenated: numpy compares the fields' names at every join.
        starts = np.cumsum([0, *(len(part) for part in parts)])
        pieces = empty_tracks(int(starts[-1]))
        for start, part in zip(starts, parts, strict=False):
            pieces[start:start + len(part)] = part
        return pieces, _whole(shown, pieces[starts[:-1]])

    def _believed(self, track: Track, role: Role, stamp: float) -> State:
        """The state of a track as published.

        The error that completion leaves in a centre is the same in every picture, so that the
        filter cannot know it: it counts beside the covariance.
        """
        p = self.params
        if role in (Role.SUPPORT, Role.HELD):
            return track.state
        state = believed(track, p, stamp)
        return State(state.x, state.p + np.diag([p.shape_sigma**2] * 3 + [0.0] * 3))

    def _cover(self, track: Track, role: Role) -> shapes.Cover:
        """What the filter keeps clear of: the object, or the walls of a tray or bin."""
        p = self.params
        if track.class_id in self.open_supports:
            return walls(track.box, p.wall_thickness, p.pieces, p.standing_out)
        most = p.held_pieces if role == Role.HELD else p.pieces
        more = track.outgrown if track.joined is None else track.joined
        if more is not None:
            return outline(BOX, more, most, p.standing_out, False)
        return outline(track.form, track.box, most, p.standing_out, not track.attached)


def _rows(track: Track, state: State, cover: shapes.Cover, role: Role, p_target: float,
          stamp: float) -> Tracks:
    c, s = np.cos(track.yaw), np.sin(track.yaw)
    turned = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return shapes.tracks(
        cover, track.id, state.x[:3], turned, state.x[3:], role=role,
        position_covariance=state.p[:3, :3], velocity_covariance=state.p[3:, 3:],
        class_id=track.class_id, score=track.score, p_target=p_target,
        age=max(0.0, stamp - track.last_seen))


def _whole(tracks: Sequence[Track], first: Tracks) -> Tracks:
    """One row a track, with the half extents of its box, from its first piece."""
    for row, track in zip(first, tracks, strict=True):
        row["x"], row["y"], row["z"] = track.position
        row["sx"], row["sy"], row["sz"] = np.maximum(track.box, 1e-3)
        row["qx"] = row["qy"] = 0.0
        row["qz"], row["qw"] = np.sin(track.yaw / 2), np.cos(track.yaw / 2)
    return first
