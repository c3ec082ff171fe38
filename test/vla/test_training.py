"""The recipe: labels, resuming, and that it learns at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from safety_filter.cli import main
from safety_filter.sim.catalogue import DESTINATIONS, GRASPABLE, HELD_OUT_COMBINATIONS
from safety_filter.sim.scene import generate
from safety_filter.sim.world import World
from safety_filter.vla import train
from safety_filter.vla.dataset import (
    RECORD,
    alike,
    collect,
    draw_task,
    graspable_objects,
    object_name,
    rollout,
    task_state,
)
from safety_filter.vla.modeling import VlaModel
from safety_filter.vla.train import Pictures, TrainPlan, fit, loss


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert collect(folder, range(900, 904)) > 40
    return folder


def test_a_finished_shard_is_not_collected_again(data: Path) -> None:
    before = (data / "shard_0000900/rows.npy").stat().st_mtime_ns
    assert collect(data, range(900, 904)) > 40
    assert (data / "shard_0000900/rows.npy").stat().st_mtime_ns == before


def test_scenes_that_policies_are_judged_on_are_not_trained_on(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "vla", "--work", str(tmp_path / "work"), "--seed0", "500000"]) == 2
    assert "--seed0: expected at least 1000000, got 500000" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_tasks_name_what_is_there_unless_they_say_so(data: Path) -> None:
    rows = np.load(data / "shard_0000900/rows.npy")
    assert rows.dtype == RECORD
    rng = np.random.default_rng(0)
    absent = 0
    for row in rows:
        for _ in range(10):
            task = draw_task(row, rng, 3.0)
            state = task_state(row, task.target, task.destination)
            assert np.all(np.isfinite(state.target)) and state.destination[2] < 0.1
            named = f" {task.instruction} "
            there = [f" {object_name(row, i)} " in named for i in graspable_objects(row)]
            assert any(there) == task.present
            assert not any(f" {c} {s} " in named for c, s in HELD_OUT_COMBINATIONS)
            absent += not task.present
    assert 0.1 < absent / (10 * len(rows)) < 0.3


def test_some_instructions_lose_words_but_never_their_names(data: Path) -> None:
    row = np.load(data / "shard_0000900/rows.npy")[0]
    rng = np.random.default_rng(0)
    texts = [draw_task(row, rng, 3.0).instruction for _ in range(300)]
    whole = [text for text in texts if any(text.startswith(w) for w in ("put the", "pick up the"))]
    assert 20 < len(whole) < 250
    for text in texts:
        words = text.split()
        assert words[-1] in DESTINATIONS
        assert any(w in GRASPABLE for w in words)


def test_objects_that_share_a_colour_are_drawn_more_often(data: Path) -> None:
    row = np.load(data / "shard_0000900/rows.npy")[0].copy()
    row["held"], row["count"] = -1, 4
    row["objects"][:4, 3:] = [[0, 1, 0], [2, 1, 0], [0, 3, 0], [10, 6, 1]]  # shape, colour, role
    assert graspable_objects(row) == [0, 1, 2]
    assert [alike(row, i) for i in range(3)] == [True, True, False]
    rng = np.random.default_rng(0)
    drawn = np.bincount([draw_task(row, rng, 3.0).target for _ in range(700)], minlength=3) / 700
    np.testing.assert_allclose(drawn, [3 / 7, 3 / 7, 1 / 7], atol=0.06)


def test_shoves_take_the_arm_where_the_expert_would_not_go() -> None:
    def still(world: World) -> tuple[np.ndarray, float]:
        return np.zeros(6), 0.08

    reach = []
    with World(generate(905, "free")) as world:
        for rate in (0.0, 0.1):
            world.reset(world.scene)
            start = world.tool_pose()[0]
            steps = rollout(world, np.random.default_rng(1), still, noise=0.0, shove_rate=rate)
            reach.append(max(float(np.linalg.norm(world.tool_pose()[0] - start))
                             for step in steps if step < 60))
    assert reach[0] < 0.01
    assert reach[1] > 0.08


def test_an_interrupted_fit_goes_on_to_the_same_weights(
        data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    plan = TrainPlan(pictures=2)
    whole = fit([data], tmp_path / "whole", plan, 6, 1e-3, None, checkpoint_every=3)
    real, calls = train.loss, 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "loss", failing)
    with pytest.raises(KeyboardInterrupt):
        fit([data], tmp_path / "torn", plan, 6, 1e-3, None, checkpoint_every=3)
    monkeypatch.setattr(train, "loss", real)
    resumed = fit([data], tmp_path / "torn", plan, 6, 1e-3, None, checkpoint_every=3)
    a, b = VlaModel.from_pretrained(whole), VlaModel.from_pretrained(resumed)
    for left, right in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_the_loss_falls_on_a_handful_of_pictures(data: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    from safety_filter.vla.modeling import VlaConfig
    from safety_filter.vla.words import build_tokenizer

    model = VlaModel(VlaConfig(vocab_size=len(build_tokenizer()))).train()
    batch = Pictures([data], model.config).batch(4, np.random.default_rng(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        total, _ = loss(model, batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_no_data_says_how_to_get_some(tmp_path: Path) -> None:
    from safety_filter.vla.modeling import VlaConfig

    with pytest.raises(FileNotFoundError, match="safety-filter train vla"):
        Pictures([tmp_path], VlaConfig())
