"""Policy, tap and profile: what they refuse, and that looking changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from safety_filter.vla.calibrate import LabelledFrame, best_offset, score, seen_by_wrist
from safety_filter.vla.modeling import VlaConfig, VlaModel
from safety_filter.vla.policy import Policy, PolicyError
from safety_filter.vla.profile import HeadProfile, ProfileError, fingerprint, moved_back
from safety_filter.vla.tap import AttentionTap
from safety_filter.vla.train import TrainPlan, save
from safety_filter.vla.words import build_tokenizer

RNG = np.random.default_rng(0)
SCENE = RNG.integers(0, 255, (256, 256, 3), np.uint8)
WRIST = RNG.integers(0, 255, (64, 64, 3), np.uint8)
PROPRIO = np.array([0.45, 0, 0.3, 1, 0, 0, 0, -1, 0, 0, 0, -1, 0.08], np.float32)
TASK = "put the red cube on the plate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy")
    save(VlaModel(VlaConfig(vocab_size=len(build_tokenizer()))), folder, TrainPlan())
    HeadProfile(fingerprint(folder), (1, 2), (2, 3)).save(folder / "profile.yaml")
    return folder


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return Policy.load(folder, folder / "profile.yaml")


def test_the_tap_does_not_change_an_action_by_one_bit(folder: Path, policy: Policy) -> None:
    bare = Policy.load(folder)
    for seed in range(5):
        picture = np.random.default_rng(seed).integers(0, 255, (128, 128, 3), np.uint8)
        with_tap = policy.act(picture, WRIST, PROPRIO, TASK, 0.0)
        without = bare.act(picture, WRIST, PROPRIO, TASK, 0.0)
        assert with_tap.twists.tobytes() == without.twists.tobytes()
        assert with_tap.attention is not None and without.attention is None


def test_a_detached_tap_leaves_no_hook(folder: Path) -> None:
    model = Policy.load(folder).model
    with AttentionTap(model, [(0, 0)]):
        assert any(m._forward_hooks for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_map_is_the_attention_of_the_action_token(policy: Policy) -> None:
    out = policy.act(SCENE, WRIST, PROPRIO, TASK, 3.25)
    assert out.attention is not None and out.attention.shape == (16, 16)
    assert out.attention.sum() == pytest.approx(1.0, abs=1e-4) and out.stamp == 3.25
    with AttentionTap(policy.model, [(1, 2)]) as tap:
        policy.act(SCENE, WRIST, PROPRIO, TASK, 0.0)
        np.testing.assert_array_equal(tap.maps()[0, 0], out.attention)
    with tap, pytest.raises(RuntimeError, match="has not run"):
        tap.maps()  # not those of before


def test_an_offset_moves_the_map_to_where_the_head_means(folder: Path, tmp_path: Path,
                                                         policy: Policy) -> None:
    path = tmp_path / "offset.yaml"
    HeadProfile(fingerprint(folder), (1, 2), (2, 3), (1, -1), (0, 0)).save(path)
    beside = policy.act(SCENE, WRIST, PROPRIO, TASK, 0.0)
    aligned = Policy.load(folder, path).act(SCENE, WRIST, PROPRIO, TASK, 0.0)
    assert beside.phase == "approach"
    assert beside.attention is not None and aligned.attention is not None
    np.testing.assert_array_equal(aligned.attention[:-1, 1:], beside.attention[1:, :-1])
    assert not aligned.attention[-1].any() and not aligned.attention[:, :1].any()
    with pytest.raises(ValueError, match="less than the map's 16 cells"):
        moved_back(beside.attention, (16, 0))
    HeadProfile(fingerprint(folder), (1, 2), (2, 3), (0, 0), (0, 20)).save(path)
    with pytest.raises(ProfileError, match="offsets of at most 1 cell"):
        Policy.load(folder, path)


def test_calibration_finds_how_far_beside_an_object_a_head_looks() -> None:
    rng = np.random.default_rng(4)
    frames, maps = [], []
    for _ in range(20):
        masks = np.zeros((3, 16, 16), np.float32)
        cells = rng.choice(np.arange(2, 14, 2), (3, 2), replace=False)
        for mask, (y, x) in zip(masks, cells, strict=True):
            mask[y, x] = 1
        frames.append(LabelledFrame(SCENE, WRIST, PROPRIO, TASK, "approach", ("a", "b", "c"),
                                    masks, 1, 0, 1.0, masks[:, ::2, ::2]))
        map_ = np.full((16, 16), 0.1 / 256, np.float32)
        map_[cells[1][0] + 1, cells[1][1] - 1] += 0.9
        maps.append(map_)
    offset, found = best_offset(np.array(maps), frames)
    assert offset == (1, -1)
    assert found["pointing"] == 1 and found["mass"] == pytest.approx(0.9, abs=0.01)
    assert score(np.array(maps), frames)["mass"] < 0.01


def test_the_wrist_picture_is_read_where_the_profile_names_a_head(folder: Path, tmp_path: Path,
                                                                  policy: Policy) -> None:
    path = tmp_path / "wrist.yaml"
    HeadProfile(fingerprint(folder), (1, 2), (2, 3), wrist=(0, 1), wrist_offset=(1, 0)).save(path)
    both = Policy.load(folder, path)
    out, without = (p.act(SCENE, WRIST, PROPRIO, TASK, 0.0) for p in (both, policy))
    assert out.twists.tobytes() == without.twists.tobytes()
    assert without.wrist_attention is None and out.wrist_attention is not None
    assert out.wrist_attention.shape == (8, 8)
    np.testing.assert_array_equal(out.attention, without.attention)
    with AttentionTap(policy.model, [(0, 1)], "wrist") as tap:
        policy.act(SCENE, WRIST, PROPRIO, TASK, 0.0)
        np.testing.assert_array_equal(tap.maps()[0, 0, 1:], out.wrist_attention[:-1])
    profile = HeadProfile.load(path, folder)
    assert profile.head("wrist") == (0, 1)
    with pytest.raises(ProfileError, match="no head of the wrist picture"):
        HeadProfile(fingerprint(folder), (1, 2), (2, 3)).head("wrist")


def test_frames_count_for_the_wrist_where_its_picture_shows_the_target() -> None:
    masks, shown, hidden = (np.zeros((2, n, n), np.float32) for n in (16, 8, 8))
    shown[1, 3, 4] = 1.0
    hidden[0, 3, 4], hidden[1, 0, 0] = 1.0, 0.2

    def frame(phase: str, wrist: np.ndarray) -> LabelledFrame:
        return LabelledFrame(SCENE, WRIST, PROPRIO, TASK, phase, ("a", "b"), masks, 1, 0, 1.0,
                             wrist)

    (found,) = seen_by_wrist([frame("approach", shown), frame("approach", hidden),
                              frame("carry", shown)])
    assert found.masks is shown and found.phase == "approach"


def test_the_tap_refuses_heads_the_model_does_not_have(policy: Policy) -> None:
    with pytest.raises(ValueError, match="layer below 3 and a head below 4, got layer 7"):
        AttentionTap(policy.model, [(7, 0)])
    tap = AttentionTap(policy.model, [(0, 0)])
    with pytest.raises(RuntimeError, match="has not run"):
        tap.maps()


def test_a_profile_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    HeadProfile("0123456789abcdef", (0, 0), (0, 0)).save(path)
    with pytest.raises(ProfileError, match="heads do not transfer"):
        Policy.load(folder, path)
    path.write_text("approach: [1")
    with pytest.raises(ProfileError, match="calibrate"):
        Policy.load(folder, path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ProfileError):
        Policy.load(folder, path)


@pytest.mark.parametrize("damage", ["missing", "torn", "config", "text"])
def test_damaged_weights_are_a_clear_error(folder: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / damage
    shutil.copytree(folder, broken)
    weights = broken / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "text":
        weights.write_text("version https://git-lfs.github.com/spec/v1")
    else:
        (broken / "config.json").write_text("{")
    with pytest.raises(PolicyError, match="policy: "):
        Policy.load(broken)


@pytest.mark.parametrize(("scene", "match"), [
    (np.zeros((240, 320, 3), np.uint8), "square"),
    (np.zeros((256, 256), np.uint8), "scene picture"),
    (np.zeros((256, 256, 3), np.float32), "uint8"),
    (np.zeros((64, 64, 3), np.uint8), "H >= 128"),
])
def test_a_picture_of_another_kind_is_a_clear_error(
        policy: Policy, scene: np.ndarray, match: str) -> None:
    with pytest.raises(PolicyError, match=match):
        policy.act(scene, WRIST, PROPRIO, TASK, 0.0)


@pytest.mark.parametrize(("instruction", "match"), [
    ("put the red mug on the plate", "unknown words \\['mug'\\]"),
    ("", "no object"),
    ("pick up the red cube", "no place"),
    ("put it on the plate", "no object"),
    (" ".join(["put the red cube on the plate"] * 5), "at most"),
])
def test_an_instruction_that_names_nothing_is_a_clear_error(
        policy: Policy, instruction: str, match: str) -> None:
    with pytest.raises(PolicyError, match=match):
        policy.act(SCENE, WRIST, PROPRIO, instruction, 0.0)


def test_proprioception_that_is_not_finite_is_refused(policy: Policy) -> None:
    with pytest.raises(PolicyError, match="13 finite numbers"):
        policy.act(SCENE, WRIST, PROPRIO * np.nan, TASK, 0.0)


def test_equal_inputs_give_equal_chunks(policy: Policy) -> None:
    a = policy.act(SCENE, WRIST, PROPRIO, TASK, 0.0)
    b = policy.act(SCENE, WRIST, PROPRIO, TASK, 0.0)
    assert a.twists.tobytes() == b.twists.tobytes()
    assert a.twists.shape == (8, 6) and a.openings.shape == (8,)


@pytest.mark.parametrize("head", ["twists", "close", "present"])
def test_an_answer_that_is_not_finite_is_refused(
        policy: Policy, monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    forward = policy.model.forward

    def broken(*inputs: torch.Tensor) -> object:
        out = forward(*inputs)
        getattr(out, head)[0].fill_(float("nan"))
        return out

    monkeypatch.setattr(policy.model, "forward", broken)
    with pytest.raises(PolicyError, match="expected finite numbers"):
        policy.act(SCENE, WRIST, PROPRIO, TASK, 0.0)
