"""Wire layout v1: round trip, and anything else is an error that says what was expected."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_filter.core import wire
from safety_filter.core.wire import FIELDS, OBSTACLE_DTYPE, POINT_STEP, Role, WireError


def some_tracks(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tracks = wire.empty_tracks(n)
    for name in OBSTACLE_DTYPE.names:
        tracks[name] = rng.integers(0, 3, n) if tracks[name].dtype == '<u4' else rng.random(n)
    return tracks


def test_layout_is_the_published_one() -> None:
    names = [f[0] for f in FIELDS]
    assert names[:13] == 'x y z vx vy vz sx sy sz qx qy qz qw'.split()
    assert names[-3:] == ['id', 'class_id', 'role']
    assert POINT_STEP == 4 * 31
    for name, offset, datatype, count in FIELDS:
        dtype, at = OBSTACLE_DTYPE.fields[name][:2]
        assert at == offset and count == 1
        assert dtype == ('<u4' if datatype == 6 else '<f4')


@given(n=st.integers(0, 300), seed=st.integers(0, 10))
def test_round_trip(n: int, seed: int) -> None:
    tracks = some_tracks(n, seed)
    back = wire.decode(FIELDS, POINT_STEP, n, 1, False, wire.encode(tracks))
    assert np.array_equal(tracks, back)
    back['x'] = 0.0  # the copy is writable


def test_empty_cloud_is_no_tracks() -> None:
    assert wire.decode(FIELDS, POINT_STEP, 0, 1, False, b'').size == 0


@pytest.mark.parametrize('change, words', [
    ({'fields': FIELDS[:-1]}, 'missing: role'),
    ({'fields': [*FIELDS, ('intensity', 124, 7, 1)]}, 'unknown: intensity'),
    ({'fields': [('x', 0, 8, 1), *FIELDS[1:]]}, 'expected x .offset 0, datatype 7'),
    ({'point_step': 128}, 'point_step: expected 124, got 128'),
    ({'height': 2}, 'height: expected 1, got 2'),
    ({'is_bigendian': True}, 'is_bigendian'),
    ({'width': 3}, '3 points of 124 bytes = 372, got 248'),
])
def test_unknown_layout_is_an_error_not_a_guess(change: dict[str, Any], words: str) -> None:
    message = {'fields': FIELDS, 'point_step': POINT_STEP, 'width': 2, 'height': 1,
               'is_bigendian': False, 'data': wire.encode(some_tracks(2))}
    with pytest.raises(WireError, match=words):
        wire.decode(**{**message, **change})


def test_encode_refuses_other_arrays() -> None:
    with pytest.raises(WireError, match='OBSTACLE_DTYPE'):
        wire.encode(np.zeros(3))


def test_usable_tracks_have_no_fault() -> None:
    assert wire.track_fault(wire.empty_tracks(5)) is None
    assert wire.track_fault(wire.empty_tracks(0)) is None


@pytest.mark.parametrize('field, value, words', [
    ('x', np.nan, 'track 7: x is not finite'), ('wzz', np.inf, 'wzz'), ('sy', -1, 'semi-axis'),
    ('pyy', -1e-6, 'variance'), ('qw', 0.0, 'quaternion'), ('role', 4, 'role'),
    ('age', -1, 'age')])
def test_unusable_track_is_named(field: str, value: float, words: str) -> None:
    tracks = wire.empty_tracks(3)
    tracks['id'] = [5, 7, 9]
    tracks[field][1] = value
    assert words in (wire.track_fault(tracks) or '')


def test_fault_of_a_foreign_array() -> None:
    assert 'OBSTACLE_DTYPE' in (wire.track_fault(np.zeros(3)) or '')


def test_roles() -> None:
    assert [int(r) for r in (Role.OBSTACLE, Role.TARGET, Role.HELD, Role.SUPPORT)] == [0, 1, 2, 3]
