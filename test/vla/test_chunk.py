"""The chunk player joins without a jump and never replays what is stale."""

from __future__ import annotations

import sys
import threading

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


def gripping(stamp: float, *openings: float) -> PolicyOutput:
    return PolicyOutput(np.zeros((8, 6)), np.resize(openings, 8), 0.05, stamp, None, "", 1.0,
                        "carry")


def openings(player: ChunkPlayer, chunks: list[PolicyOutput]) -> list[float]:
    """What is played while the chunks come in as they would, a little after their stamps."""
    out: list[float] = []
    for i, one in enumerate(chunks):
        start = one.stamp + 0.06
        player.push(one, start)
        end = chunks[i + 1].stamp + 0.06 if i + 1 < len(chunks) else start + 0.12
        for t in np.arange(start, end - 1e-9, 0.01):
            opening = player.read(float(t)).opening
            assert opening is not None
            out.append(opening)
    return out


@pytest.mark.parametrize("kept, other", [(0.0, 0.08), (0.08, 0.0)])
def test_one_chunk_against_those_before_it_neither_lets_go_nor_grips(kept: float,
                                                                    other: float) -> None:
    chunks = [gripping(0.13 * i, other if i == 3 else kept) for i in range(7)]
    assert set(openings(ChunkPlayer(), chunks)) == {kept}


def test_the_gripper_opens_once_the_chunks_agree_and_within_the_length_of_one() -> None:
    chunks = [gripping(0.13 * i, 0.0 if i < 3 else 0.08) for i in range(7)]
    played = openings(ChunkPlayer(), chunks)
    changed = played.index(0.08)
    assert 39 + 6 < changed <= 39 + 40, "chunk 3 comes after 0.39 s, chunk 2 ends 0.4 s after it"
    assert played == [0.0] * changed + [0.08] * (len(played) - changed)


def test_a_release_that_all_chunks_foresee_is_not_delayed() -> None:
    chunks = [gripping(0.0, *[0.0] * 4, *[0.08] * 4), gripping(0.1, 0.0, 0.0, *[0.08] * 6)]
    played = openings(ChunkPlayer(), chunks)
    assert played[:14] == [0.0] * 14 and played[14:] == [0.08] * len(played[14:])


def test_openings_between_open_and_closed_move_no_farther_than_the_chunks_agree() -> None:
    player = ChunkPlayer()
    player.push(gripping(0.0, 0.03), 0.0)
    assert player.read(0.0).opening == pytest.approx(0.03)
    player.push(gripping(0.1, 0.05), 0.1)
    assert player.read(0.15).opening == pytest.approx(0.03)
    player.push(gripping(0.35, 0.06), 0.35)
    assert player.read(0.41).opening == pytest.approx(0.05), "the first chunk is over"


def test_a_player_that_was_cleared_knows_no_opening_from_before() -> None:
    player = ChunkPlayer()
    player.push(gripping(0.0, 0.0), 0.0)
    assert player.read(0.0).opening == 0.0
    player.clear()
    player.push(gripping(0.1, 0.08), 0.1)
    assert player.read(0.1).opening == pytest.approx(0.08)


def test_one_thread_may_push_while_another_reads() -> None:
    player, over, pushed = ChunkPlayer(), threading.Event(), 3000

    def push() -> None:
        try:
            for i in range(pushed):
                player.push(gripping(0.001 * i, 0.0, 0.08), 0.001 * i)
        finally:
            over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=push)
        thread.start()
        reads = 0
        while not over.is_set() or reads == 0:
            reads += player.read(0.0005 * pushed).reason == ""
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert player.read(0.001 * pushed).opening in (0.0, 0.08)
