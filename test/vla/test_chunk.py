"""The chunk player joins without a jump and never replays what is stale."""

from __future__ import annotations

import numpy as np
import pytest

from safety_filter.vla.chunk import ChunkPlayer
from safety_filter.vla.policy import PolicyOutput


def chunk(stamp: float, speed: float, length: int = 8) -> PolicyOutput:
    twists = np.zeros((length, 6))
    twists[:, 0] = speed
    return PolicyOutput(twists, np.linspace(0.08, 0.0, length), 0.05, stamp, None, "", 1.0,
                        "approach")


def test_nothing_before_the_first_chunk() -> None:
    playback = ChunkPlayer().read(1.0)
    assert playback.twist is None and playback.reason == "no chunk"


def test_chunks_join_without_a_jump() -> None:
    player = ChunkPlayer(blend=0.1)
    assert player.push(chunk(0.0, 0.2), 0.02)
    played, t, pushed = [], 0.02, 0
    while t < 0.9:
        if t > 0.2 * (pushed + 1):
            pushed += 1
            player.push(chunk(t - 0.05, 0.2 * (-1) ** pushed), t)
        twist = player.read(t).twist
        assert twist is not None
        played.append(twist[0])
        t += 0.002
    assert np.abs(np.diff(played)).max() <= 0.4 * 0.002 / 0.1 + 1e-9
    assert played[0] == 0.0 and max(played) == pytest.approx(0.2)


def test_a_chunk_that_ran_out_commands_nothing_and_says_so() -> None:
    player = ChunkPlayer()
    player.push(chunk(10.0, 0.2), 10.1)
    assert player.read(10.39).twist is not None
    over = player.read(10.41)
    assert over.twist is None and over.opening is None and "ran out" in over.reason


def test_an_older_chunk_is_refused() -> None:
    player = ChunkPlayer()
    assert player.push(chunk(1.0, 0.2), 1.1)
    assert not player.push(chunk(0.9, -0.2), 1.2)
    assert not player.push(chunk(1.0, -0.2), 1.2)


def test_the_gripper_follows_the_action_of_its_time() -> None:
    player = ChunkPlayer()
    player.push(chunk(0.0, 0.0), 0.0)
    assert player.read(0.01).opening == pytest.approx(0.08)
    assert player.read(0.39).opening == pytest.approx(0.0)


@pytest.mark.parametrize("blend", [0.0, -1.0, float("nan")])
def test_a_blend_time_of_nothing_is_rejected(blend: float) -> None:
    with pytest.raises(ValueError, match="blend"):
        ChunkPlayer(blend)
