"""The pipeline on the analytic cell: no simulator, no network, masks given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from looking import DT, RGB, Bench, Q
from perception.solids import open_box
from scipy.spatial.transform import Rotation

from safety_filter.core.wire import PIECE_STEP, UNKNOWN_CLASS, Role, track_fault
from safety_filter.perception.gaze import AttentionMap
from safety_filter.perception.template import NEAR


@pytest.fixture
def bench(cell) -> Bench:
    return Bench(cell)


def only(result, class_id: int):
    (track,) = result.objects[result.objects["class_id"] == class_id]
    return track


def centre(track) -> np.ndarray:
    return np.array([track["x"], track["y"], track["z"]])


def test_an_empty_table_gives_an_empty_cloud(bench):
    result = bench.look()
    assert len(result.tracks) == 0
    assert result.selection.target is None


def test_every_track_is_valid_on_the_wire(bench, cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.022), 0.3, 0)
    cell.put("carton", shapes["carton"], (0.45, -0.15, 0.08), 0.1)
    for _ in range(5):
        result = bench.look()
    assert len(result.objects) == 2
    assert track_fault(result.tracks) is None
    assert set(result.tracks["role"]) == {Role.OBSTACLE}


def test_a_moving_object_gets_its_place_and_velocity(bench, cell, shapes):
    v = np.array([0.05, 0.20, 0.0])
    for _ in range(20):
        at = np.array([0.45, -0.15, 0.15]) + v * bench.time
        cell.put("ball", shapes["ball"], at + v * DT, 0.0, 3)
        result = bench.look()
    track = only(result, 3)
    truth = np.array([0.45, -0.15, 0.15]) + v * bench.time
    assert np.linalg.norm(centre(track) - truth) < 0.004
    assert np.linalg.norm([track["vx"] - v[0], track["vy"] - v[1], track["vz"]]) < 0.02


def test_an_unknown_object_is_an_obstacle_by_the_third_picture(bench, cell, shapes):
    bench.look()
    cell.put("thing", shapes["carton"], (0.5, 0.0, 0.080))
    for _ in range(3):
        result = bench.look()
    track = only(result, UNKNOWN_CLASS)
    assert track["role"] == Role.OBSTACLE
    assert np.linalg.norm(centre(track) - [0.5, 0.0, 0.08]) < 0.01
    assert min(track["sx"], track["sy"]) > 0.035


def test_blind_detector_frames_keep_every_track(bench, cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.022), 0.3, 0)
    cell.put("plate", shapes["plate"], (0.45, -0.15, 0.006), 0.0, 8)
    first = [bench.look() for _ in range(4)][-1]
    for i in range(12):
        result = bench.look(blind=i % 3 > 0)
        assert sorted(result.objects["id"]) == sorted(first.objects["id"])
        assert sorted(result.objects["class_id"]) == [0, 8]


def covered(tracks, points: np.ndarray, slack: float = NEAR) -> np.ndarray:
    """Which of points (n, 3) lie in some published ellipsoid, give or take `slack`, m."""
    inside = np.zeros(len(points), bool)
    for t in tracks:
        turn = Rotation.from_quat([t["qx"], t["qy"], t["qz"], t["qw"]]).as_matrix()
        local = (points - centre(t)) @ turn / (np.array([t["sx"], t["sy"], t["sz"]]) + slack)
        inside |= (local**2).sum(axis=1) < 1.0
    return inside


@pytest.mark.parametrize("other", ["cube", "carton"])
@pytest.mark.parametrize("side", [-1, 1])
def test_what_comes_to_touch_a_thing_that_the_detector_misses_is_covered(bench, cell, shapes,
                                                                        other, side):
    truth = np.array([0.5, 0.0, 0.022])
    cell.put("cube", shapes["cube"], truth, 0.0, 0)
    for _ in range(8):
        bench.look()
    half = shapes[other].reshape(-1, 3).max(axis=0)
    cell.put("other", shapes[other], (0.5, side * (0.023 + half[1]), half[2]))
    for i in range(30):
        result = bench.look(blind=True)
        depth, masks = cell.picture()
        points = cell.points(depth)
        seen = (masks["cube"] | masks["other"]) & (points[..., 2] > 0.01)
        if i >= 1:  # what is new is confirmed in the second picture that shows it
            assert covered(result.tracks, points[seen]).mean() > 0.98
    assert np.linalg.norm(centre(only(result, 0)) - truth) < 0.006


def test_behind_a_passing_occluder_an_object_keeps_id_and_place(bench, cell, shapes):
    truth = np.array([0.45, 0.0, 0.022])
    cell.put("cube", shapes["cube"], truth, 0.2, 0)
    first = only([bench.look() for _ in range(6)][-1], 0)["id"]
    hidden = 0
    for i in range(40):
        cell.put("carton", shapes["carton"], (0.56, -0.30 + 0.015 * i, 0.08), 0.0, 6)
        result = bench.look()
        track = only(result, 0)
        hidden += track["age"] > 0
        assert track["id"] == first
        assert np.linalg.norm(centre(track) - truth) < 0.015
    assert hidden >= 2


def test_a_bin_is_given_as_walls_and_its_middle_is_free(bench, cell):
    cell.put("bin", open_box(0.08, 0.06), (0.5, 0.1, 0.0), 0.1, 10)
    for _ in range(4):
        result = bench.look()
    pieces = result.tracks
    assert set(pieces["role"]) == {Role.SUPPORT}
    assert len(pieces) >= 4
    assert len({int(i) % PIECE_STEP for i in pieces["id"]}) == 1
    assert len(set(pieces["id"])) == len(pieces)
    middle = np.array([0.5, 0.1])
    for p in pieces:
        assert np.hypot(p["x"] - middle[0], p["y"] - middle[1]) > 0.06


def attend(bench, track: int, looks: int = 12):
    """Two pictures for each of `looks` maps with attention on a track; the last result."""
    for _ in range(looks):
        owner = bench.look().owner
        m = np.ones((16, 16), np.float32)
        rows, cols = np.nonzero(owner == track)
        m[rows // 16, cols // 16] = 20.0
        result = bench.look(attention=AttentionMap(bench.time - DT, m))
    return result


def attend_to_the_cube(bench, cell, shapes):
    """Two dozen looks at a cube and a can, with attention on the cube."""
    cell.put("cube", shapes["cube"], (0.5, 0.12, 0.022), 0.3, 0)
    cell.put("can", shapes["can"], (0.5, -0.12, 0.034), 0.0, 2)
    bench.look()
    return attend(bench, bench.perception.tracker.tracks[0].id)


@pytest.mark.parametrize(
    ("instruction", "target"),
    [
        ("put the red cube in the bin", True),
        ("put the blue can in the bin", False),  # the detector knows what a can looks like
        ("put the red ball in the bin", False),  # no ball in sight: then it is out of sight
        ("put the green cube in the bin", False),  # nor is a cube of that colour
        ("fetch that thing", True),  # names nothing that the detector knows
    ],
)
def test_words_and_attention_must_agree(bench, cell, shapes, instruction, target):
    bench.perception.instruct(instruction)
    result = attend_to_the_cube(bench, cell, shapes)
    assert (only(result, 0)["role"] == Role.TARGET) == target
    assert ("not what the instruction means" in result.selection.reason) != target
    assert only(result, 2)["role"] == Role.OBSTACLE


@pytest.mark.parametrize(("height", "share", "open_to_others"),
                         [(0.05, 0.5, False), (0.30, 0.5, True), (0.05, 0.0, True)])
def test_no_look_alike_is_meant_once_the_hand_went_for_one(
    bench, cell, shapes, height, share, open_to_others
):
    """Two red cubes: the policy may change its mind, but not with its fingers round one."""
    bench.robot.tool = np.diag([1.0, -1.0, -1.0, 1.0])
    bench.robot.tool[:3, 3] = (0.5, 0.12, height)
    bench.perception.instruct("put the red cube in the bin")
    cell.put("cube", shapes["cube"], (0.5, 0.12, 0.022), 0.3, 0)
    cell.put("cube too", shapes["cube"], (0.5, -0.12, 0.022), 0.3, 0)
    objects = [bench.look() for _ in range(4)][-1].objects
    first, second = (int(i) for i in objects["id"][np.argsort(-objects["y"])])
    assert attend(bench, first).selection.target == first
    bench.perception.params = replace(bench.perception.params, named_share=share)
    assert attend(bench, second, 24).selection.target == (second if open_to_others else None)
    bench.perception.instruct("put the red cube on the tray")  # other words: all is open again
    assert attend(bench, second).selection.target == second


def test_attention_makes_a_target_and_its_end_an_obstacle_again(bench, cell, shapes):
    result = attend_to_the_cube(bench, cell, shapes)
    roles = dict(zip(result.objects["class_id"], result.objects["role"], strict=True))
    assert roles == {0: Role.TARGET, 2: Role.OBSTACLE}
    assert only(result, 0)["p_target"] > 0.5
    assert only(result, 2)["p_target"] < 0.5
    for _ in range(12):
        result = bench.look()
    assert set(result.tracks["role"]) == {Role.OBSTACLE}
    assert "stale" in result.selection.reason


@pytest.mark.parametrize(
    ("above", "fov", "target"),
    [
        ("cube", 60.0, True),
        ("cube", 0.0, False),  # no camera in the hand is declared
        ("nothing", 60.0, False),  # too far from the tool to say
    ],
)
def test_attention_in_the_hands_camera_makes_a_target_of_what_is_near(
    cell, shapes, above, fov, target
):
    """The camera looks straight down from the tool, at a cube or past everything."""
    bench = Bench(cell, wrist_fov=fov)
    cell.put("cube", shapes["cube"], (0.5, 0.12, 0.022), 0.0, 0)
    cell.put("can", shapes["can"], (0.5, -0.12, 0.034), 0.0, 2)
    bench.robot.tool = np.diag([1.0, -1.0, -1.0, 1.0])
    bench.robot.tool[:3, 3] = (0.5, 0.12 if above == "cube" else 0.35, 0.13)
    middle = np.ones((8, 8), np.float32)
    middle[3:5, 3:5] = 20.0
    for _ in range(12):
        bench.look()
        result = bench.look(attention=AttentionMap(bench.time, np.ones((16, 16), np.float32)),
                            wrist_attention=AttentionMap(bench.time, middle))
    assert (only(result, 0)["role"] == Role.TARGET) == target
    assert only(result, 2)["role"] == Role.OBSTACLE
    empty = AttentionMap(bench.time + DT, np.zeros((8, 8), np.float32))
    fault = bench.look(wrist_attention=empty).attention_fault
    assert fault == ("wrist attention: the map is empty" if fov else None)


def test_an_object_in_closed_fingers_is_held_and_moves_with_the_tool(bench, cell, shapes):
    at = np.array([0.5, 0.0, 0.1])
    bench.robot.tool = np.diag([1.0, -1.0, -1.0, 1.0])
    for opening in (0.08,) * 4 + (0.044,) * 4:
        bench.robot.tool[:3, 3] = at
        cell.put("cube", shapes["cube"], at, 0.0, 0)
        result = bench.look(opening)
    assert only(result, 0)["role"] == Role.HELD
    for _ in range(6):
        at = at + np.array([0.0, 0.15, 0.05]) * DT
        bench.robot.tool[:3, 3] = at
        cell.put("cube", shapes["cube"], at, 0.0, 0)
        result = bench.look(0.044)
        track = only(result, 0)
        assert track["role"] == Role.HELD
        assert np.linalg.norm(centre(track) - at) < 0.01
    assert np.linalg.norm([track["vx"], track["vy"] - 0.15, track["vz"] - 0.05]) < 0.01


def test_half_open_fingers_that_pass_over_a_thing_do_not_take_it_along(bench, cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.0, 0.022), 0.0, 0)
    bench.robot.tool = np.diag([1.0, -1.0, -1.0, 1.0])
    for i in range(90):
        bench.robot.tool[:3, 3] = (0.58 - 0.05 * DT * i, 0.0, 0.067)
        result = bench.look(opening=0.04)
        track = only(result, 0)
        assert result.held is None and track["role"] == Role.OBSTACLE
        assert np.linalg.norm(centre(track) - [0.5, 0.0, 0.022]) < 0.002


def test_bad_frames_are_refused_and_leave_the_tracks_alone(bench, cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.022), 0.3, 0)
    before = [bench.look() for _ in range(4)][-1]
    with pytest.raises(ValueError, match="depth: expected the size of rgb"):
        bench.perception.update(bench.time + DT, RGB, np.zeros((64, 64), np.float32), cell.k,
                                cell.pose, Q, 0.08)
    depth, _ = cell.picture()
    with pytest.raises(ValueError, match="stamp: expected >="):
        bench.perception.update(bench.time - 1.0, RGB, depth, cell.k, cell.pose, Q, 0.08)
    assert list(bench.look().objects["id"]) == list(before.objects["id"])


def test_pixels_without_depth_do_no_harm(bench, cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.022), 0.3, 0)
    rng = np.random.default_rng(0)
    for i in range(6):
        depth, masks = cell.picture()
        holes = rng.random(depth.shape) < 0.2
        depth[holes] = (0.0, np.nan, np.inf)[i % 3]
        bench.perception.detector.found = cell.detections(masks)
        bench.time += DT
        result = bench.perception.update(bench.time, RGB, depth, cell.k, cell.pose, Q, 0.08)
    assert track_fault(result.tracks) is None
    assert np.linalg.norm(centre(only(result, 0)) - [0.5, 0.1, 0.022]) < 0.006


def test_the_same_pictures_give_the_same_bytes(cell, shapes):
    cell.put("cube", shapes["cube"], (0.5, 0.1, 0.022), 0.3, 0)
    cell.put("carton", shapes["carton"], (0.45, -0.15, 0.08), 0.1)
    runs = []
    for _ in range(2):
        bench = Bench(cell)
        runs.append(b"".join(bench.look().tracks.tobytes() for _ in range(4)))
    assert runs[0] == runs[1]


def test_what_the_detector_takes_for_one_thing_again_and_again_is_one(bench, cell, shapes):
    """At first it sees one side of a carton only, so the other is someone else."""
    at = np.array([0.45, 0.0, 0.08])
    cell.put("carton", shapes["carton"], at, 0.3, 6)
    whole = cell.detections
    side = cell.points(cell.picture()[0])[..., 1] > 0.0
    cell.detections = lambda masks: whole({"carton": masks["carton"] & side})
    for _ in range(6):
        result = bench.look()
    assert set(result.objects["class_id"]) == {6, UNKNOWN_CLASS}
    first = int(only(result, 6)["id"])
    cell.detections = whole
    for _ in range(3):
        result = bench.look()
    assert len(result.objects) == 2  # it may have come to touch something
    for _ in range(25):
        result = bench.look()
    assert len(result.objects) == 1
    track = only(result, 6)
    assert int(track["id"]) == first
    assert np.linalg.norm(centre(track) - at) < 0.008
    np.testing.assert_allclose([track["sx"], track["sy"]], 0.038, atol=0.008)


@pytest.mark.parametrize("side", [-1, 1])
def test_two_things_that_one_mask_holds_stay_two_and_covered(bench, cell, shapes, side):
    """Each is seen for itself, then they touch and one mask holds both, for good."""
    cell.put("cube", shapes["cube"], (0.5, 0.0, 0.022), 0.0, 0)
    cell.put("can", shapes["can"], (0.5, side * 0.06, 0.034), 0.0, 2)
    for _ in range(10):
        bench.look()
    cell.put("can", shapes["can"], (0.5, side * 0.049, 0.034))
    del cell.classes["can"]
    apart = cell.detections
    cell.detections = lambda masks: apart({"cube": masks["cube"] | masks["can"]})
    for _ in range(30):
        result = bench.look()
        depth, masks = cell.picture()
        points = cell.points(depth)
        seen = (masks["cube"] | masks["can"]) & (points[..., 2] > 0.01)
        assert covered(result.tracks, points[seen]).mean() > 0.98
    for at in ((0.5, 0.0), (0.5, side * 0.049)):
        assert min(np.hypot(o["x"] - at[0], o["y"] - at[1]) for o in result.objects) < 0.012
