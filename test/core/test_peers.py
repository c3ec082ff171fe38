"""bench-peers: what the peers are given, and errors that say what happened."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from safety_filter.bench import peers
from safety_filter.core.robot import RobotModel


def test_the_record_holds_what_both_sides_need(panda: RobotModel) -> None:
    data, timing = peers.record(panda, 3, 20)
    assert data['q'].shape == data['nominal'].shape == (20, 7)
    assert data['centres'].shape == data['velocities'].shape == (20, 3, 3)
    assert len(data['sphere_radius']) == sum(panda.spheres['joint'] >= 0)
    assert all(np.isfinite(v).all() for v in data.values()) and timing['p50_us'] > 0
    step = (data['centres'][1:] - data['centres'][:-1]) * 250
    assert np.allclose(step, data['velocities'][:-1], atol=2e-3)


def test_another_environment_inherits_nothing_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('_ROS_WHEELS_BOOTSTRAP_COMPLETE', '1')
    monkeypatch.setenv('LD_LIBRARY_PATH', '/somewhere')
    assert not {'_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'LD_LIBRARY_PATH'} & set(peers.clean())


def test_a_peer_that_cannot_run_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r'(?s)qpax: .*No module named'):
        peers.run_peer(Path(sys.executable), tmp_path / 'none.npz', 'qpax', 1)
