"""Freshness: receipt and stamp, order, the future, clock jumps."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from safety_filter.core.inputs import Source


@dataclass(frozen=True)
class Message:
    stamp: float
    receipt: float


def update(source: Source[Message], message: Message | None, mono: float = 10.0,
           ros: float = 10.0, since: float = 0.0) -> str | None:
    return source.update(message, mono, ros, 0.5, 0.02, since)


@pytest.fixture
def source() -> Source[Message]:
    return Source('thing')


def test_nothing_received(source: Source[Message]) -> None:
    assert update(source, None) == 'thing: none received'


@pytest.mark.parametrize('message, age', [
    (Message(9.9, 9.8), 0.2), (Message(9.7, 9.9), 0.3), (Message(10.0, 10.0), 0.0)])
def test_age_is_the_larger_of_receipt_and_stamp(source: Source[Message], message: Message,
                                                age: float) -> None:
    assert update(source, message) is None
    assert source.age == pytest.approx(age)


@pytest.mark.parametrize('message', [Message(9.4, 10.0), Message(10.0, 9.4)])
def test_either_age_beyond_the_limit_is_a_fault(source: Source[Message], message: Message) -> None:
    assert update(source, message) == 'thing: 0.600 s old, limit 0.5 s'


def test_a_message_is_fresh_once(source: Source[Message]) -> None:
    message = Message(10.0, 10.0)
    update(source, message)
    assert source.fresh
    update(source, message)
    assert not source.fresh


def test_a_message_from_the_future_is_not_received(source: Source[Message]) -> None:
    assert 'in the future' in (update(source, Message(10.1, 10.0)) or '')
    assert update(source, Message(10.01, 10.0)) is None, 'inside the tolerance'


def test_a_future_message_does_not_displace_a_good_one(source: Source[Message]) -> None:
    update(source, Message(10.0, 10.0))
    assert update(source, Message(99.0, 10.0)) is None
    assert source.sample == Message(10.0, 10.0)


def test_an_older_stamp_does_not_displace_a_newer_one(source: Source[Message]) -> None:
    update(source, Message(9.9, 9.9))
    update(source, Message(9.8, 10.0))
    assert source.sample == Message(9.9, 9.9) and not source.fresh


def test_messages_from_before_a_jump_do_not_count(source: Source[Message]) -> None:
    old = Message(9.9, 9.9)
    update(source, old)
    source.forget()
    assert update(source, old, since=10.0) == 'thing: none received'
    assert update(source, Message(10.0, 10.0), since=10.0) is None


def test_a_stamp_that_is_not_a_number_is_not_received(source: Source[Message]) -> None:
    assert update(source, Message(float('nan'), 10.0)) is not None
    assert update(source, Message(10.0, float('nan'))) is not None


def test_due_is_the_age_that_the_next_sample_will_end(source: Source[Message]) -> None:
    """Seen at 10.0 on a clock 5 s ahead of the monotonic one, received 0.06 s later."""
    for since in (0.0, 0.02, 0.1, 0.15):
        update(source, Message(15.0, 10.06), 10.06 + since, 15.06 + since)
        due = source.due(10.06 + since, 15.06 + since, 0.1)
        assert due == pytest.approx(0.06 + max(since, 0.1))
    assert source.due(10.06, 15.06, 0.0) == source.age


def test_due_knows_nothing_without_a_message(source: Source[Message]) -> None:
    update(source, None)
    assert source.due(1.0, 1.0, 0.1) == float('inf')
