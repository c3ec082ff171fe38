"""Parameters: one declaration, every fault reported, bad updates leave the old set."""

from dataclasses import dataclass

import pytest

from safety_filter.core.params import Param, ParamError, ParamTable, param


@dataclass(frozen=True)
class Loop:
    rate: float = param(250.0, 'Hz', 100.0, 1000.0, 'rate')
    alpha: float = param(5.0, '1/s', 0.1, 50.0, 'gain', runtime=True)
    count: int = param(3, '-', 1, 9, 'count')
    solver: str = param('daqp', '-', None, None, 'solver', choices=('daqp', 'osqp'))
    on: bool = param(True, '-', None, None, 'switch')
    axis: tuple[float, ...] = param((0.0, 0.0, 1.0), 'm', -2.0, 2.0, 'axis')
    names: tuple[str, ...] = param(('hand',), '-', None, None, 'bodies')


@dataclass(frozen=True)
class Slow(Loop):
    rate: float = param(30.0, 'Hz', 1.0, 1000.0, 'rate')


def stable(p: Loop) -> str | None:
    if p.alpha > p.rate:
        return f'alpha {p.alpha} 1/s must not exceed rate {p.rate} Hz'
    return None


TABLE = ParamTable.of(Loop, [stable])


def test_defaults_are_an_instance() -> None:
    assert TABLE.validate({}) == Loop()
    assert TABLE.defaults()['rate'] == 250.0


def test_integers_are_taken_for_floats_and_lists_for_tuples() -> None:
    p = TABLE.validate({'rate': 500, 'axis': [1, 0, 0], 'names': ['a', 'b']})
    assert p.rate == 500.0 and isinstance(p.rate, float)
    assert p.axis == (1.0, 0.0, 0.0) and p.names == ('a', 'b')


@pytest.mark.parametrize('name, value', [
    ('rate', float('nan')), ('rate', float('inf')), ('rate', 99.0), ('rate', '250'),
    ('rate', True), ('rate', None), ('count', 2.5), ('count', 10), ('solver', 'qpoases'),
    ('solver', 3), ('on', 1), ('axis', [0.0, float('nan'), 0.0]), ('axis', 'xyz'), ('axis', 3.0),
    ('names', [1]), ('rat', 1)])
def test_bad_value_is_rejected_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ParamError, match=name):
        TABLE.validate({name: value})


def test_every_fault_is_reported_at_once_with_expected_and_got() -> None:
    with pytest.raises(ParamError) as error:
        TABLE.validate({'rate': 1.0, 'solver': 'x', 'alhpa': 1.0})
    assert len(error.value.problems) == 3
    assert 'expected 100 to 1000 Hz, got 1.0' in str(error.value)
    assert 'daqp, osqp' in str(error.value)
    assert 'did you mean alpha' in str(error.value)


def test_cross_check_prints_both_values() -> None:
    with pytest.raises(ParamError, match=r'alpha 45\.0 1/s must not exceed rate 30\.0 Hz'):
        ParamTable.of(Slow, [stable]).validate({'alpha': 45.0})


def test_update_refuses_what_is_fixed_at_start_and_keeps_the_old_set() -> None:
    old = TABLE.validate({'count': 4})
    with pytest.raises(ParamError, match='fixed at start'):
        TABLE.update(old, {'rate': 300.0})
    with pytest.raises(ParamError, match='alpha'):
        TABLE.update(old, {'alpha': -1.0})
    assert TABLE.update(old, {'alpha': 6.0}).alpha == 6.0
    assert TABLE.update(old, {'alpha': 6.0}).count == 4
    assert old.alpha == 5.0


def test_rows_alone_make_a_dataclass() -> None:
    table = ParamTable([Param('depth', 2, 'images', 1, 8, 'queue')])
    assert table.validate({'depth': 3}).depth == 3
    with pytest.raises(ParamError, match='declared twice'):
        ParamTable([Param('a', 1, '-', None, None, ''), Param('a', 1, '-', None, None, '')])


def test_a_default_out_of_range_is_caught_when_declared() -> None:
    with pytest.raises(ParamError, match='at most 1'):
        ParamTable([Param('x', 2.0, 'm', None, 1.0, '')]).validate({'x': 2.0})


def test_markdown_has_a_row_for_each_parameter() -> None:
    text = TABLE.markdown()
    assert text.count('\n') == 2 + len(TABLE.rows)
    assert '| `rate` | 250.0 | Hz | 100 to 1000 Hz | no | rate |' in text
